"""Rows of the fault table: engines that load and run but compute wrong masks."""

import shutil

import cv2
import numpy as np
import onnxruntime
import pytest
import torch
from diagnostic_msgs.msg import DiagnosticStatus

from engine_options import request, select
from faults_table import fault
from lgseg_ros.engines.onnxruntime_engine import OnnxRuntimeEngine
from lgseg_ros.engines.openvino_engine import OpenVinoEngine
from lgseg_ros.engines.preprocessing import Frame
from lgseg_ros.engines.selection import create_engine
from lgseg_ros.engines.self_test import SelfTestError
from lgseg_ros.engines.self_test_data import SMALL
from lgseg_ros.engines.torch_engine import TorchEngine
from lgseg_ros.model.weights import WeightsError
from lgseg_ros.utils import hardware
from lgseg_ros.vocabulary.vocabulary import VocabularyState
from ros_graph import NodeProcess, Peer, pixels_of, wait_until
from self_test_faults import (
    blobs,
    copy_weights,
    corrupt,
    openvino_fp32,
    reverse_channels,
    segment,
    swap_outputs,
    without_self_test,
)

WRONG = 'Engines that compute wrong masks (golden self-test)'
REFUSED = r"in {}: [\d.]+ % of the self-test's pixels agree at \d+x\d+ \(9[79] % needed\)"
openvino = pytest.mark.skipif(OpenVinoEngine.unavailable() is not None, reason='openvino is not installed')
DEFAULT_SIZE = 'fp32-360x480'


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    folder = tmp_path / 'cache'
    monkeypatch.setenv('LGSEG_CACHE', str(folder))
    return folder


@pytest.fixture
def copied_weights(weights, tmp_path):
    return copy_weights(weights, tmp_path / 'weights')


@pytest.fixture
def camvid(weights):
    return VocabularyState(weights.text_embeddings).replace([], 'camvid')


def assert_agrees(mask, engine, image, vocabulary, min_agreement=0.99):
    """`mask` agrees with the one of ONNX Runtime in fp32."""
    assert np.mean(mask.ids == segment(engine, image, vocabulary).ids) > min_agreement


@openvino
@fault(WRONG, "the compiled graph of another network in OpenVINO's compile cache, in place of the correct one",
       'refused with the share of pixels that agree; that cache is deleted, and the next start compiles again')
def test_the_blob_of_another_network(weights, copied_weights, camvid, street, engine, cache, tmp_path):
    openvino_fp32(weights).warm_up(camvid)
    correct, = blobs(cache, DEFAULT_SIZE)
    other = without_self_test(weights, tmp_path)
    reverse_channels(other.onnx_path)
    openvino_fp32(other).warm_up(camvid)
    wrong, = (path for path in blobs(cache, DEFAULT_SIZE) if path != correct)
    shutil.copy(wrong, correct)
    with pytest.raises(SelfTestError, match='openvino ' + REFUSED.format('fp32') + '; its compile cache'):
        segment(openvino_fp32(weights), street[0], camvid)
    assert not correct.exists()
    assert_agrees(segment(openvino_fp32(weights), street[0], camvid), engine, street[0], camvid)


@openvino
@pytest.mark.skipif(not hardware.has_half(), reason='this CPU has no bf16')
@fault(
    WRONG,
    'the graph that OpenVINO compiled in fp32 in place of the one in fp16, because OpenVINO gives both one key',
    'correct masks, or a refusal: with AMX 8.6 % of the pixels agree, with AVX512-BF16 alone over 97 %',
)
def test_the_blob_of_another_precision(weights, camvid, street, engine, cache):
    for precision in ('fp32', 'fp16'):
        OpenVinoEngine(weights, 1, precision=precision).warm_up(camvid)
    (wrong,), (correct,) = blobs(cache, 'fp32'), blobs(cache, 'fp16')
    assert wrong.parent != correct.parent, 'each has its own folder'
    shutil.copy(wrong, correct)
    half, selected = select(weights, 'openvino', 'fp16', vocabulary=camvid)
    assert (selected.engine, selected.precision) == ('openvino', 'fp16') or selected.self_test_failures
    assert_agrees(segment(half, street[0], camvid), engine, street[0], camvid, 0.97)


@openvino
@fault(WRONG, 'a tenth of a compiled graph overwritten without changing its length; OpenVINO loads it without an error',
       'refused with the share of pixels that agree; the next engine is used; ERROR in the log')
def test_a_corrupted_blob(weights, camvid, street, engine, cache, caplog):
    openvino_fp32(weights).warm_up(camvid)
    corrupt(*blobs(cache, DEFAULT_SIZE))
    selected_engine = create_engine(request('openvino', 'fp32'), weights, vocabulary=camvid)
    assert selected_engine.NAME == 'onnxruntime' and selected_engine.self_test.passed
    assert_agrees(segment(selected_engine, street[0], camvid), engine, street[0], camvid)
    record, = (record for record in caplog.records if 'requested' in record.getMessage())
    assert record.levelname == 'ERROR' and 'agree at 480x360 (99 % needed)' in record.getMessage()


@openvino
@fault(WRONG, 'a corrupt compiled graph of one image size, loaded when the first frame of that size arrives',
       'that frame and all later frames are segmented by the next engine')
def test_a_corrupted_blob_of_a_later_size(weights, camvid, street, engine, cache):
    openvino_fp32(weights).warm_up(camvid, 720, 1280)
    corrupt(*blobs(cache, 'fp32-312x552'))
    selections = []
    selected_engine = create_engine(request('openvino', 'fp32'), weights, selections.append, vocabulary=camvid)
    assert selected_engine.NAME == 'openvino'
    segment(selected_engine, street[0], camvid)
    wide = cv2.resize(street[0], (1280, 720))
    assert_agrees(segment(selected_engine, wide, camvid), engine, wide, camvid)
    assert (
        selected_engine.NAME == 'onnxruntime'
        and selected_engine.summary().startswith('onnxruntime')
        and not selected_engine.failure
    )
    first, second = selections
    assert not first.self_test_failures and 'agree at 552x312' in second.self_test_failures[0][1]
    assert second.engine == 'onnxruntime' and second.fell_back


@fault(WRONG, 'a network whose activations overflow in fp16, with the engine torch',
       'passes in fp32; refused in fp16 with the share of pixels that agree')
def test_fp16_overflows(weights):
    selected_engine = TorchEngine(weights, device='cpu')
    norm = next(module for module in selected_engine._model.modules() if isinstance(module, torch.nn.BatchNorm2d))
    convolution = next(module for module in selected_engine._model.modules() if isinstance(module, torch.nn.Conv2d))
    with torch.no_grad():   # the batch norm cancels the scale of the convolution: the result in fp32 is unchanged
        convolution.weight *= 2.0 ** 16
        norm.running_mean *= 2.0 ** 16
        norm.running_var *= 2.0 ** 32
    assert selected_engine.self_test.check(SMALL, selected_engine._infer)
    selected_engine._model.half()
    selected_engine.self_test._label, selected_engine.self_test._precision = 'torch in fp16', 'fp16'
    with pytest.raises(SelfTestError, match='torch ' + REFUSED.format('fp16')):
        selected_engine.self_test.check(SMALL, selected_engine._infer)


@pytest.mark.parametrize('name', ['onnxruntime', 'openvino'])
@fault(WRONG, 'an ONNX file of the correct weights whose outputs ids and confidence are swapped',
       'refused by every engine that reads it; no engine is left, and configure fails')
def test_swapped_outputs(copied_weights, camvid, name):
    swap_outputs(copied_weights.onnx_path)
    copied_weights.path.with_suffix('.int8.onnx').unlink()
    with pytest.raises(WeightsError, match='no engine works here: .*' + REFUSED.format('(auto|fp32|int8)')):
        create_engine(request(name), copied_weights, vocabulary=camvid)


@fault(WRONG, 'a library that returns zeros (ONNX Runtime)',
       'refused: no id of the self-test is 0')
def test_a_library_that_returns_zeros(weights, monkeypatch):
    original = onnxruntime.InferenceSession.run
    monkeypatch.setattr(onnxruntime.InferenceSession, 'run',
                        lambda *arguments: [np.zeros_like(output) for output in original(*arguments)])
    with pytest.raises(SelfTestError, match=r"onnxruntime in fp32: 0.0 % of the self-test's pixels agree"):
        OnnxRuntimeEngine(weights, 1, precision='fp32')


def statuses(peer, key='engine_selection'):
    """The diagnostic statuses of the node, without those of cameras."""
    return [status for message in peer.diagnostics for status in message.status
            if any(pair.key == key for pair in status.values)]


@fault(WRONG, 'an INT8 ONNX file with swapped outputs, on a CPU for which the node selects INT8',
       'masks are computed in fp32; ERROR in the log and in /diagnostics with the share of pixels that agree')
def test_the_node_with_a_wrong_int8_file(copied_weights, camvid, street, engine):
    if not hardware.has_int8_dot():
        pytest.skip('this CPU has no INT8 dot product instructions')
    swap_outputs(copied_weights.path.with_suffix('.int8.onnx'))
    with (
        NodeProcess('num_threads:=1', f'weights:={copied_weights.path}', name='golden') as node,
        Peer('/golden') as peer,
    ):
        peer.connect(node)
        assert np.mean(pixels_of(peer.mask_of(street[0])) == segment(engine, street[0], camvid).ids) > 0.99
        status = wait_until(lambda: [s for s in statuses(peer) if s.level == DiagnosticStatus.ERROR], 'ERROR')[-1]
        assert 'self-test failed' in status.message and '% of the self-test\'s pixels agree' in status.message
        values = {pair.key: pair.value for pair in status.values}
        assert values['self_test'].startswith('passed: ') and float(values['self_test_agreement']) >= 0.99
        assert float(values['self_test_ms']) > 0
        assert 'ERROR' in next(line for line in node.log.splitlines() if 'engine: auto requested' in line)


@openvino
@fault(
    WRONG,
    'the node, with a corrupt compiled graph of a second image size',
    'no mask is wrong: ONNX Runtime segments that frame and all later ones; ERROR in /diagnostics names share and size',
)
def test_the_node_with_a_corrupted_blob_of_a_later_size(weights, camvid, street, engine, cache):
    openvino_fp32(weights).warm_up(camvid, 720, 1280)
    corrupt(*blobs(cache, 'fp32-312x552'))
    with (
        NodeProcess('engine:=openvino', 'precision:=fp32', 'num_threads:=1', name='later') as node,
        Peer('/later') as peer,
    ):
        peer.connect(node)
        assert np.mean(pixels_of(peer.mask_of(street[0])) == segment(engine, street[0], camvid).ids) > 0.99
        wide = cv2.resize(street[0], (1280, 720))
        assert np.mean(pixels_of(peer.mask_of(wide)) == segment(engine, wide, camvid).ids) > 0.99
        status = wait_until(lambda: [s for s in statuses(peer) if s.level == DiagnosticStatus.ERROR], 'ERROR')[-1]
        assert 'agree at 552x312 (99 % needed)' in status.message
        assert {pair.key: pair.value for pair in status.values}['engine'].startswith('onnxruntime')


@fault(WRONG, 'every engine is refused at run time (first OpenVINO, then ONNX Runtime)',
       'no more masks; each frame is counted as failed, with the reason')
def test_no_engine_is_left(weights, camvid, street):
    selected_engine = create_engine(request('onnxruntime', 'fp32'), weights, vocabulary=camvid)

    def refuse(*_):
        raise SelfTestError("onnxruntime in fp32: 12.0 % of the self-test's pixels agree at 480x360 (99 % needed)")
    selected_engine._engine.run = refuse
    selected_engine._candidates._remaining = iter(())
    for _ in range(2):
        with pytest.raises(WeightsError, match='no engine works here: .*12.0 % of the self-test'):
            selected_engine.run([Frame(street[0], 'bgr')], camvid)
    assert '12.0 %' in selected_engine.failure

"""Rows of the fault table: engines that load and run, and give masks that are not those of the weights."""

import shutil

import cv2
import numpy as np
import onnxruntime
import pytest
import torch
from diagnostic_msgs.msg import DiagnosticStatus

from faults_table import fault
from lgseg_ros.engines import cpu
from lgseg_ros.engines.selection import create_engine
from lgseg_ros.engines.preprocessing import Frame
from lgseg_ros.engines.onnxruntime_engine import OnnxRuntimeEngine
from lgseg_ros.engines.openvino_engine import OpenVinoEngine
from lgseg_ros.engines.self_test import SelfTestError
from lgseg_ros.engines.self_test_data import SMALL
from lgseg_ros.engines.torch_engine import TorchEngine
from lgseg_ros.engines.weights import WeightsError
from lgseg_ros.vocabulary.vocabulary import VocabularyState
from ros_graph import NodeProcess, Peer, pixels_of, wait_until
from self_test_faults import blobs, copy_weights, corrupt, openvino_fp32, segment, swap_outputs, turn_channels, untested
from test_factory import asking, choose

WRONG = 'Engines whose masks are wrong (the golden self-test)'
REFUSED = r"in {}: [\d.]+ % of the self-test's pixels agree at \d+x\d+ \(9[79] % needed\)"
openvino = pytest.mark.skipif(OpenVinoEngine.unavailable() is not None, reason='openvino is not installed')
DEFAULT = 'fp32-360x480'


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    folder = tmp_path / 'cache'
    monkeypatch.setenv('LGSEG_CACHE', str(folder))
    return folder


@pytest.fixture
def copied(weights, tmp_path):
    return copy_weights(weights, tmp_path / 'weights')


@pytest.fixture
def camvid(weights):
    return VocabularyState(weights.text_embeddings).replace([], 'camvid')


def assert_right(mask, engine, image, vocabulary, least=0.99):
    """`mask` is what ONNX Runtime in fp32 gives."""
    assert np.mean(mask.ids == segment(engine, image, vocabulary).ids) > least


@openvino
@fault(WRONG, 'the compiled graph of another network in OpenVINO\'s compile cache, in the place of the right one',
       'refused with the share of pixels that agree; that cache is emptied, and the next start compiles again')
def test_the_blob_of_another_network(weights, copied, camvid, street, engine, cache, tmp_path):
    openvino_fp32(weights).warm_up(camvid)
    right, = blobs(cache, DEFAULT)
    other = untested(weights, tmp_path)
    turn_channels(other.onnx_path)
    openvino_fp32(other).warm_up(camvid)
    wrong, = (path for path in blobs(cache, DEFAULT) if path != right)
    shutil.copy(wrong, right)
    with pytest.raises(SelfTestError, match='openvino ' + REFUSED.format('fp32') + '; its compile cache'):
        segment(openvino_fp32(weights), street[0], camvid)
    assert not right.exists()
    assert_right(segment(openvino_fp32(weights), street[0], camvid), engine, street[0], camvid)


@openvino
@pytest.mark.skipif(not cpu.has_half(), reason='this CPU has no bf16')
@fault(WRONG, 'the graph that OpenVINO compiled in fp32 in the place of the one in fp16, as its own key confuses them',
       'masks that are right, or a refusal: with AMX 8.6 % of the pixels agree, with AVX512-BF16 alone over 97 %')
def test_the_blob_of_another_precision(weights, camvid, street, engine, cache):
    for precision in ('fp32', 'fp16'):
        OpenVinoEngine(weights, 1, precision=precision).warm_up(camvid)
    (wrong,), (right,) = blobs(cache, 'fp32'), blobs(cache, 'fp16')
    assert wrong.parent != right.parent, 'each has its own folder'
    shutil.copy(wrong, right)
    half, choice = choose(weights, 'openvino', 'fp16', vocabulary=camvid)
    assert (choice.engine, choice.precision) == ('openvino', 'fp16') or choice.self_test_failures
    assert_right(segment(half, street[0], camvid), engine, street[0], camvid, 0.97)


@openvino
@fault(WRONG, 'a tenth of a compiled graph overwritten, its length unchanged, which OpenVINO loads without a word',
       'refused with the share of pixels that agree, the next engine gives the masks; ERROR in the log')
def test_a_corrupted_blob(weights, camvid, street, engine, cache, caplog):
    openvino_fp32(weights).warm_up(camvid)
    corrupt(*blobs(cache, DEFAULT))
    found = create_engine(asking('openvino', 'fp32'), weights, vocabulary=camvid)
    assert found.NAME == 'onnxruntime' and found.self_test.passed
    assert_right(segment(found, street[0], camvid), engine, street[0], camvid)
    record, = (record for record in caplog.records if 'asked for' in record.getMessage())
    assert record.levelname == 'ERROR' and 'agree at 480x360 (99 % needed)' in record.getMessage()


@openvino
@fault(WRONG, 'a compiled graph that is corrupt for one image size, met while frames flow',
       'the frame that met it is segmented by the next engine, and so are all that follow')
def test_a_corrupted_blob_of_a_later_size(weights, camvid, street, engine, cache):
    openvino_fp32(weights).warm_up(camvid, 720, 1280)
    corrupt(*blobs(cache, 'fp32-312x552'))
    choices = []
    found = create_engine(asking('openvino', 'fp32'), weights, choices.append, vocabulary=camvid)
    assert found.NAME == 'openvino'
    segment(found, street[0], camvid)
    wide = cv2.resize(street[0], (1280, 720))
    assert_right(segment(found, wide, camvid), engine, wide, camvid)
    assert found.NAME == 'onnxruntime' and found.summary().startswith('onnxruntime') and not found.failure
    first, second = choices
    assert not first.self_test_failures and 'agree at 552x312' in second.self_test_failures[0][1]
    assert second.engine == 'onnxruntime' and second.fell_back


@fault(WRONG, 'a network whose activations overflow in fp16, in torch with half floats',
       'passes in fp32, and is refused in fp16 with the share of pixels that agree')
def test_fp16_overflows(weights):
    found = TorchEngine(weights, device='cpu')
    norm = next(module for module in found._model.modules() if isinstance(module, torch.nn.BatchNorm2d))
    convolution = next(module for module in found._model.modules() if isinstance(module, torch.nn.Conv2d))
    with torch.no_grad():   # the normalisation takes back what the convolution is scaled by: in fp32 nothing changes
        convolution.weight *= 2.0 ** 16
        norm.running_mean *= 2.0 ** 16
        norm.running_var *= 2.0 ** 32
    assert found.self_test.check(SMALL, found._infer)
    found._model.half()
    found.self_test._label, found.self_test._precision = 'torch in fp16', 'fp16'
    with pytest.raises(SelfTestError, match='torch ' + REFUSED.format('fp16')):
        found.self_test.check(SMALL, found._infer)


@pytest.mark.parametrize('name', ['onnxruntime', 'openvino'])
@fault(WRONG, 'an ONNX file whose ids and confidences are swapped, made of the right weights',
       'refused by every engine that reads it; no engine is left, and the node cannot be configured')
def test_swapped_outputs(copied, camvid, name):
    swap_outputs(copied.onnx_path)
    copied.path.with_suffix('.int8.onnx').unlink()
    with pytest.raises(WeightsError, match='no engine works here: .*' + REFUSED.format('(auto|fp32|int8)')):
        create_engine(asking(name), copied, vocabulary=camvid)


@fault(WRONG, 'a library that returns zeros (ONNX Runtime whose kernels do nothing)',
       'refused: no id of the self-test is 0')
def test_a_library_that_returns_zeros(weights, monkeypatch):
    honest = onnxruntime.InferenceSession.run
    monkeypatch.setattr(onnxruntime.InferenceSession, 'run',
                        lambda *arguments: [np.zeros_like(output) for output in honest(*arguments)])
    with pytest.raises(SelfTestError, match=r"onnxruntime in fp32: 0.0 % of the self-test's pixels agree"):
        OnnxRuntimeEngine(weights, 1, precision='fp32')


def statuses(peer, key='engine_selection'):
    """The node's own statuses, those of cameras left out."""
    return [status for message in peer.diagnostics for status in message.status
            if any(pair.key == key for pair in status.values)]


@fault(WRONG, 'the node with an 8-bit file whose outputs are swapped, where the CPU would take it by itself',
       'the masks are those of fp32; ERROR in the log and in /diagnostics, with the share of pixels that agree')
def test_the_node_with_a_wrong_8_bit_file(copied, camvid, street, engine):
    if not cpu.has_int8_dot():
        pytest.skip('this CPU has no 8-bit dot products')
    swap_outputs(copied.path.with_suffix('.int8.onnx'))
    with NodeProcess('num_threads:=1', f'weights:={copied.path}', name='golden') as node, Peer('/golden') as peer:
        peer.connect(node)
        assert np.mean(pixels_of(peer.mask_of(street[0])) == segment(engine, street[0], camvid).ids) > 0.99
        status = wait_until(lambda: [s for s in statuses(peer) if s.level == DiagnosticStatus.ERROR], 'ERROR')[-1]
        assert 'self-test failed' in status.message and '% of the self-test\'s pixels agree' in status.message
        values = {pair.key: pair.value for pair in status.values}
        assert values['self_test'].startswith('passed: ') and float(values['self_test_agreement']) >= 0.99
        assert float(values['self_test_ms']) > 0
        assert 'ERROR' in next(line for line in node.log.splitlines() if 'engine: auto asked for' in line)


@openvino
@fault(WRONG, 'the node, when the compiled graph of a second camera size is corrupt',
       'no mask is wrong: ONNX Runtime gives that and all further ones; ERROR in /diagnostics names the share and size')
def test_the_node_meets_a_corrupted_blob(weights, camvid, street, engine, cache):
    openvino_fp32(weights).warm_up(camvid, 720, 1280)
    corrupt(*blobs(cache, 'fp32-312x552'))
    with NodeProcess('engine:=openvino', 'precision:=fp32', 'num_threads:=1', name='later') as node, Peer('/later') as peer:
        peer.connect(node)
        assert np.mean(pixels_of(peer.mask_of(street[0])) == segment(engine, street[0], camvid).ids) > 0.99
        wide = cv2.resize(street[0], (1280, 720))
        assert np.mean(pixels_of(peer.mask_of(wide)) == segment(engine, wide, camvid).ids) > 0.99
        status = wait_until(lambda: [s for s in statuses(peer) if s.level == DiagnosticStatus.ERROR], 'ERROR')[-1]
        assert 'agree at 552x312 (99 % needed)' in status.message
        assert {pair.key: pair.value for pair in status.values}['engine'].startswith('onnxruntime')


@fault(WRONG, 'every engine refused while frames flow (ONNX Runtime failing after OpenVINO did)',
       'no mask any more; each frame counts as failed, with the reason')
def test_no_engine_is_left(weights, camvid, street):
    found = create_engine(asking('onnxruntime', 'fp32'), weights, vocabulary=camvid)

    def refuse(*_):
        raise SelfTestError("onnxruntime in fp32: 12.0 % of the self-test's pixels agree at 480x360 (99 % needed)")
    found._engine.run = refuse
    found._candidates._left = iter(())
    for _ in range(2):
        with pytest.raises(WeightsError, match='no engine works here: .*12.0 % of the self-test'):
            found.run([Frame(street[0], 'bgr')], camvid)
    assert '12.0 %' in found.failure

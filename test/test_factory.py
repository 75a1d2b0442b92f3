"""Which engine runs: order, reasons, falling back, and what that costs in imports."""

import json
import os
import subprocess
import sys
import types

import pytest

from lgseg_ros.engines import selection, openvino_engine
from lgseg_ros.engines.selection import ENGINE_NAMES, ENGINES, PRECISIONS, create_engine
from lgseg_ros.engines.preprocessing import DEFAULT_PIXELS
from lgseg_ros.utils.hardware import has_gpu_device
from lgseg_ros.engines.weights import WeightsError
from lgseg_ros.vocabulary.vocabulary import VocabularyState


def asking(engine='auto', precision='auto'):
    return types.SimpleNamespace(engine=engine, precision=precision, num_threads=1, max_inference_pixels=DEFAULT_PIXELS)


def choose(weights, *asked, **more):
    """Create an engine; returns it and its Choice."""
    choices = []
    engine = create_engine(asking(*asked), weights, choices.append, **more)
    choice, = choices
    return engine, choice


def test_every_engine_keeps_the_contract():
    for name in ENGINES:
        kind = selection.engine_class(name)
        assert kind.NAME == name
        for precision in PRECISIONS:
            reason = kind.unavailable(precision)
            assert reason is None or 0 < len(reason) < 200


def test_auto_says_what_it_took_and_nothing_fell_back(weights):
    engine, choice = choose(weights)
    assert choice.engine in ENGINES and not choice.fell_back
    assert str(choice).startswith(f'auto asked for, {choice.engine} used')
    assert engine.summary()


def test_auto_without_a_gpu_thinks_of_no_gpu_engine(monkeypatch):
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '')
    assert not {'tensorrt', 'torch'} & set(selection.candidates('auto'))
    assert selection.candidates('torch')[0] == 'torch'


def test_auto_with_a_gpu_begins_with_the_fastest(monkeypatch):
    monkeypatch.setattr(selection, 'has_gpu_device', lambda: True)
    assert selection.candidates('auto') == ['tensorrt', 'torch', 'openvino', 'onnxruntime']


def test_openvino_stands_back_where_onnxruntime_has_the_gpu(monkeypatch):
    onnxruntime = pytest.importorskip('onnxruntime')
    monkeypatch.setattr(openvino_engine, 'has_gpu_device', lambda: True)
    assert openvino_engine.OpenVinoEngine.not_ready(None, 0) is None, 'else it is the fastest that is left'
    monkeypatch.setattr(onnxruntime, 'get_available_providers', lambda: ['CUDAExecutionProvider', 'CPUExecutionProvider'])
    assert 'ONNX Runtime has CUDA' in openvino_engine.OpenVinoEngine.not_ready(None, 0)
    monkeypatch.setattr(openvino_engine, 'has_gpu_device', lambda: False)
    assert openvino_engine.OpenVinoEngine.not_ready(None, 0) is None


def test_gpu_devices_are_seen_unless_hidden(monkeypatch, tmp_path):
    device = tmp_path / 'nvidia0'
    monkeypatch.delenv('CUDA_VISIBLE_DEVICES', raising=False)
    assert not has_gpu_device([device])
    device.touch()
    assert has_gpu_device([device])
    for hidden in ('', '-1'):
        monkeypatch.setenv('CUDA_VISIBLE_DEVICES', hidden)
        assert not has_gpu_device([device])


def test_an_engine_that_is_not_installed_is_replaced_loudly(weights):
    if selection.engine_class('tensorrt').unavailable('auto') is None:
        pytest.skip('TensorRT works here')
    engine, choice = choose(weights, 'tensorrt')
    assert choice.fell_back and choice.engine != 'tensorrt'
    assert dict(choice.rejected)['tensorrt']
    assert 'tensorrt asked for' in str(choice) and 'tensorrt: ' in str(choice)
    assert engine.run


def test_the_default_report_warns_of_a_replacement(weights, caplog):
    create_engine(asking('onnxruntime'), weights)
    assert not caplog.records
    create_engine(asking('onnxruntime', 'fp16'), weights)
    record, = caplog.records
    assert record.levelname == 'WARNING' and 'onnxruntime in fp16 asked for' in record.getMessage()


class Broken:
    """Stands in the registry for an engine that builds and then cannot run, as for a GPU without memory."""

    NAME = 'broken'
    closed = 0

    def __init__(self, weights, num_threads, pixels, precision):
        pass

    @staticmethod
    def unavailable(precision):
        return None

    def warm_up(self, vocabulary):
        raise RuntimeError('CUDA error: out of memory\nand a second line')

    def close(self):
        Broken.closed += 1


def test_an_engine_that_cannot_run_is_closed_and_replaced(weights, monkeypatch):
    words = VocabularyState(weights.text_embeddings).replace(['road', 'sky'])
    monkeypatch.setitem(ENGINES, 'broken', selection.Entry(__name__, 'Broken', 'gpu'))
    monkeypatch.setattr(selection, 'ENGINE_NAMES', (*ENGINE_NAMES, 'broken'))
    closed = Broken.closed
    _, choice = choose(weights, 'broken', vocabulary=words)
    assert choice.fell_back and choice.engine != 'broken' and Broken.closed == closed + 1
    assert dict(choice.rejected)['broken'] == 'CUDA error: out of memory'


def test_nothing_works_names_every_reason(weights, tmp_path):
    from dataclasses import replace
    lost = replace(weights, path=tmp_path / 'lost.safetensors')
    with pytest.raises(WeightsError, match='lost.onnx is missing; make it with'):
        create_engine(asking('onnxruntime'), lost)


@pytest.mark.parametrize('asked, said', [(('onnx',), "engine 'onnx' is not known"),
                                         (('auto', 'fp8'), "precision 'fp8'")])
def test_unknown_names_are_refused(weights, asked, said):
    with pytest.raises(ValueError, match=said):
        create_engine(asking(*asked), weights)


def test_auto_imports_nothing_heavy_without_a_gpu():
    code = ('import sys, json, types;'
            'from lgseg_ros.engines.selection import create_engine; from lgseg_ros.engines.weights import load_weights;'
            'create_engine(types.SimpleNamespace(engine="auto", num_threads=1, max_inference_pixels=172800), load_weights());'
            'print(json.dumps(sorted({"torch", "timm", "open_clip", "onnx", "tensorrt"} & set(sys.modules))))')
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True,
                          env={**os.environ, 'CUDA_VISIBLE_DEVICES': ''})
    assert json.loads(done.stdout) == []

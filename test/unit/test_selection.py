"""Selection of the engine: order, reasons, fallback, and which modules it imports."""

import json
import os
import subprocess
import sys

import pytest

from engine_options import request, select
from lgseg_ros.engines import openvino_engine, selection
from lgseg_ros.engines.selection import ENGINE_NAMES, ENGINES, PRECISIONS, create_engine
from lgseg_ros.model.weights import WeightsError
from lgseg_ros.utils.hardware import has_gpu_device
from lgseg_ros.vocabulary.vocabulary import VocabularyState


def test_every_engine_has_a_name_and_a_reason():
    for name in ENGINES:
        kind = selection.engine_class(name)
        assert name == kind.NAME
        for precision in PRECISIONS:
            reason = kind.unavailable(precision)
            assert reason is None or 0 < len(reason) < 200


def test_auto_reports_its_selection(weights):
    engine, selected = select(weights)
    assert selected.engine in ENGINES and not selected.fell_back
    assert str(selected).startswith(f'auto requested, {selected.engine} used')
    assert engine.summary()


def test_auto_without_a_gpu_considers_no_gpu_engine(monkeypatch):
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '')
    assert not {'tensorrt', 'torch'} & set(selection.candidates('auto'))
    assert selection.candidates('torch')[0] == 'torch'


def test_auto_with_a_gpu_starts_with_the_fastest(monkeypatch):
    monkeypatch.setattr(selection, 'has_gpu_device', lambda: True)
    assert selection.candidates('auto') == ['tensorrt', 'torch', 'openvino', 'onnxruntime']


def test_openvino_is_not_ready_where_onnxruntime_has_the_gpu(monkeypatch):
    onnxruntime = pytest.importorskip('onnxruntime')
    monkeypatch.setattr(openvino_engine, 'has_gpu_device', lambda: True)
    assert openvino_engine.OpenVinoEngine.not_ready(None, 0) is None, 'else it is the fastest that is left'
    providers = ['CUDAExecutionProvider', 'CPUExecutionProvider']
    monkeypatch.setattr(onnxruntime, 'get_available_providers', lambda: providers)
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


def test_an_engine_that_is_not_installed_is_replaced_with_its_reason(weights):
    if selection.engine_class('tensorrt').unavailable('auto') is None:
        pytest.skip('TensorRT works here')
    engine, selected = select(weights, 'tensorrt')
    assert selected.fell_back and selected.engine != 'tensorrt'
    assert dict(selected.rejected)['tensorrt']
    assert 'tensorrt requested' in str(selected) and 'tensorrt: ' in str(selected)
    assert engine.run


def test_the_default_report_logs_a_replacement_as_a_warning(weights, caplog):
    create_engine(request('onnxruntime'), weights)
    assert not caplog.records
    create_engine(request('onnxruntime', 'fp16'), weights)
    record, = caplog.records
    assert record.levelname == 'WARNING' and 'onnxruntime in fp16 requested' in record.getMessage()


class BrokenEngine:
    """An engine that loads and then cannot run, as on a GPU without free memory."""

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
        BrokenEngine.closed += 1


def test_an_engine_that_cannot_run_is_closed_and_replaced(weights, monkeypatch):
    vocabulary = VocabularyState(weights.text_embeddings).replace(['road', 'sky'])
    monkeypatch.setitem(ENGINES, 'broken', selection.EngineEntry(__name__, 'BrokenEngine', 'gpu'))
    monkeypatch.setattr(selection, 'ENGINE_NAMES', (*ENGINE_NAMES, 'broken'))
    closed = BrokenEngine.closed
    _, selected = select(weights, 'broken', vocabulary=vocabulary)
    assert selected.fell_back and selected.engine != 'broken' and BrokenEngine.closed == closed + 1
    assert dict(selected.rejected)['broken'] == 'CUDA error: out of memory'


def test_nothing_works_names_every_reason(weights, tmp_path):
    from dataclasses import replace
    lost = replace(weights, path=tmp_path / 'lost.safetensors')
    with pytest.raises(WeightsError, match='lost.onnx is missing; make it with'):
        create_engine(request('onnxruntime'), lost)


@pytest.mark.parametrize('requested, message', [(('onnx',), "engine 'onnx' is not known"),
                                         (('auto', 'fp8'), "precision 'fp8'")])
def test_unknown_names_are_refused(weights, requested, message):
    with pytest.raises(ValueError, match=message):
        create_engine(request(*requested), weights)


def test_auto_imports_nothing_heavy_without_a_gpu():
    code = ('import sys, json;'
            'from lgseg_ros.engines.base import EngineOptions;'
            'from lgseg_ros.engines.selection import create_engine; from lgseg_ros.model.weights import load_weights;'
            'create_engine(EngineOptions(num_threads=1), load_weights());'
            'print(json.dumps(sorted({"torch", "timm", "open_clip", "onnx", "tensorrt"} & set(sys.modules))))')
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True,
                          env={**os.environ, 'CUDA_VISIBLE_DEVICES': ''})
    assert json.loads(done.stdout) == []

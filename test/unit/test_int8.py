"""The 8-bit file: made by one command, tied to its weights, true to fp32, and used where the CPU is good at it."""

import shutil
from dataclasses import replace

import cv2
import numpy as np
import onnx
import pytest

from lgseg_ros.cli.main import main
from lgseg_ros.engines import onnxruntime_engine, quantization
from lgseg_ros.engines.calibration import find_sensitive
from lgseg_ros.engines.onnx_files import int8_path
from lgseg_ros.engines.onnxruntime_engine import OnnxRuntimeEngine
from lgseg_ros.engines.preprocessing import Frame
from lgseg_ros.model.weights import WeightsError, load_weights
from lgseg_ros.utils import hardware
from lgseg_ros.vocabulary.vocabulary import VocabularyState

needs_dot = pytest.mark.skipif(not hardware.has_int8_dot(), reason='this CPU has no 8-bit dot products')


@pytest.fixture(scope='module')
def quantized(weights, street, tmp_path_factory):
    """A copy of the shipped weights with an 8-bit file, from a folder of images."""
    folder = tmp_path_factory.mktemp('int8')
    for n in range(6):
        cv2.imwrite(str(folder / f'{n}.png'), np.roll(street[0], 60 * n, axis=1))
    for suffix in ('.safetensors', '.json', '.onnx'):
        shutil.copy(weights.path.with_suffix(suffix), folder / f'w{suffix}')
    assert main(['quantize', '--weights', str(folder / 'w.safetensors'), '--data', str(folder),
                 '--min-agreement', '95']) == 0
    return load_weights(folder / 'w.safetensors')


@pytest.fixture
def copied(quantized, tmp_path):
    """The same in a folder of its own, that a test may damage."""
    for file in quantized.path.parent.glob('w.*'):
        shutil.copy(file, tmp_path)
    return load_weights(tmp_path / 'w.safetensors')


def test_the_classes_of_several_data_sets_are_one_vocabulary(weights):
    def trained_on(*lists):
        return replace(weights, card={**weights.card, 'data': [{'classes': texts} for texts in lists]})
    two = trained_on(['car', 'road', 'sign=traffic sign'], ['sky', 'car=car|van', 'sign=traffic light'])
    assert two.classes == ['car=car|van', 'road', 'sign=traffic sign|traffic light', 'sky']
    assert quantization.training_vocabulary(two).names == ('car', 'road', 'sign', 'sky')
    known = weights.text_embeddings.names
    vocabulary = quantization.training_vocabulary(trained_on(known[:150], known[150:]))
    assert vocabulary.names == tuple(known[:255])


def test_only_image_convolutions_are_quantized(quantized):
    graph = onnx.load(int8_path(quantized)).graph
    rounded = {name for node in graph.node if node.op_type == 'DequantizeLinear' for name in node.output}
    convolutions = [node for node in graph.node if node.op_type == 'Conv']
    assert sum(rounded.issuperset(node.input[:2]) for node in convolutions) > len(convolutions) / 2
    assert not [node.name for node in graph.node if '/fusion' in node.name and rounded & set(node.input[1:2])
                and node.op_type in ('Conv', 'MatMul', 'Gemm')]
    assert int8_path(quantized).stat().st_size < 0.6 * quantized.onnx_path.stat().st_size


def test_agreement_is_that_of_a_cpu_with_dot_products(quantized, street, monkeypatch):
    """Where 8-bit products saturate, the rounding is measured and not the saturation."""
    monkeypatch.setattr(onnxruntime_engine, 'has_int8_dot', lambda: False)
    frames = [Frame(np.roll(street[0], 90 * n, axis=1), 'bgr') for n in range(2)]
    with quantization.Quantizer(quantized, frames, frames) as quantizer:
        assert quantizer.agreement(int8_path(quantized)) > 0.98


def test_masks_are_those_of_fp32(quantized, street):
    """On a CPU without 8-bit dot products too, where the roundings are computed in fp32."""
    frame, vocabulary = Frame(street[0], 'bgr'), VocabularyState(quantized.text_embeddings).replace([], 'camvid')
    exact, fast = (OnnxRuntimeEngine(quantized, 1, precision=p).run([frame], vocabulary)[0] for p in ('fp32', 'int8'))
    assert np.mean(exact.ids == fast.ids) > 0.98
    assert np.mean(np.abs(exact.confidence.astype(int) - fast.confidence)) < 8


@needs_dot
def test_auto_takes_the_8_bit_file_of_these_weights(copied, caplog):
    assert OnnxRuntimeEngine(copied, 1).precision == 'int8'
    assert 'int8' in OnnxRuntimeEngine(copied, 1).summary()
    foreign = replace(copied, sha256='0' * 64)
    with pytest.raises(WeightsError, match=r'w.int8.onnx was exported from other weights.*lgseg quantize --weights'):
        OnnxRuntimeEngine(foreign, 1, precision='int8')
    with pytest.raises(WeightsError, match=r'w.onnx was exported from other weights.*lgseg export'):
        OnnxRuntimeEngine(foreign, 1)
    assert 'w.int8.onnx is damaged or of other weights' in caplog.text
    int8_path(copied).write_bytes(int8_path(copied).read_bytes()[:100_000])
    assert OnnxRuntimeEngine(copied, 1).precision == 'fp32'
    with pytest.raises(WeightsError, match='w.int8.onnx cannot be loaded'):
        OnnxRuntimeEngine(copied, 1, precision='int8')
    int8_path(copied).unlink()
    assert OnnxRuntimeEngine(copied, 1).precision == 'fp32'
    with pytest.raises(WeightsError, match='w.int8.onnx is missing; make it with: lgseg quantize'):
        OnnxRuntimeEngine(copied, 1, precision='int8')


def test_a_cpu_without_8_bit_products_keeps_fp32(quantized, monkeypatch):
    monkeypatch.setattr(hardware, 'cpu_info', lambda: ('old', {'avx2', 'fma'}))
    assert 'VNNI' in OnnxRuntimeEngine.unavailable('int8')
    assert OnnxRuntimeEngine.unavailable() is None
    assert OnnxRuntimeEngine(quantized, 1).precision == 'fp32'


class FakeQuantizer:
    """A quantizer whose convolutions cost known shares of the pixels."""

    def __init__(self, **costs):
        self.costs, self.convolutions = costs, list(costs)

    def quantize(self, keep=()):
        return frozenset(keep)

    def agreement(self, kept):
        return 1 - sum(cost for name, cost in self.costs.items() if name not in kept)

    def sensitivity(self, _):
        return sorted(((cost, name) for name, cost in self.costs.items()), reverse=True)


def test_sensitive_convolutions_stay_in_fp32():
    quantizer = FakeQuantizer(a=0.001, stem=0.02, b=0.001, deep=0.01, c=0.001, d=0.001, e=0.001, f=0.001)
    _, agreement, kept = find_sensitive(quantizer, 0.99)
    assert kept == ['stem', 'deep'] and agreement == pytest.approx(0.994)
    assert find_sensitive(quantizer, 0.9)[2] == []
    with pytest.raises(ValueError, match='nothing was written'):
        find_sensitive(quantizer, 0.9999)


@pytest.mark.parametrize('arguments, message', [
    (['--images', '0'], '--images is 0'), (['--data', '{folder}'], 'has 0 images'),
    (['--weights', 'nowhere'], 'neither a .safetensors file nor shipped')])
def test_bad_arguments_are_errors(arguments, message, tmp_path, capsys):
    assert main(['quantize', *(a.format(folder=tmp_path) for a in arguments)]) == 1
    assert message in capsys.readouterr().err

"""The OpenVINO engine against ONNX Runtime, where it is installed."""

import shutil
from dataclasses import replace

import cv2
import numpy as np
import pytest

from lgseg_ros.engines.openvino_engine import MAX_SIZES, OpenVinoEngine
from lgseg_ros.engines.preprocessing import Frame, network_size
from lgseg_ros.model.weights import WeightsError, load_weights
from lgseg_ros.utils import hardware
from lgseg_ros.vocabulary.vocabulary import VocabularyState

installed = pytest.mark.skipif(OpenVinoEngine.unavailable() is not None, reason='openvino is not installed')


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv('LGSEG_CACHE', str(tmp_path / 'cache'))


def test_what_is_missing_here_is_the_reason(monkeypatch):
    monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
    assert 'pip install openvino' in OpenVinoEngine.unavailable()
    monkeypatch.setattr('importlib.util.find_spec', lambda name: object())
    monkeypatch.setattr(hardware, 'cpu_info', lambda: ('old', {'avx2'}))
    assert OpenVinoEngine.unavailable('fp32') is None
    assert 'half precision' in OpenVinoEngine.unavailable('fp16') and 'VNNI' in OpenVinoEngine.unavailable('int8')


@installed
def test_masks_are_those_of_onnx_runtime(weights, engine, street, tmp_path):
    mine = OpenVinoEngine(weights, 1, precision='fp32')
    frame = Frame(street[0], 'bgr')
    for num_classes in (2, 40):   # without compiling again
        vocabulary = VocabularyState(weights.text_embeddings).replace(weights.text_embeddings.names[:num_classes])
        expected, got = engine.run([frame], vocabulary)[0], mine.run([frame, frame], vocabulary)
        assert len(got) == 2
        for mask in got:
            assert np.mean(mask.ids == expected.ids) > 0.995
            assert np.mean(np.abs(mask.confidence.astype(int) - expected.confidence)) < 1
    assert list((tmp_path / 'cache' / 'openvino').iterdir()), 'the next start must not compile again'
    if hardware.has_half():
        names = ['road', 'car', 'sky', 'tree', 'building', 'fence']
        different = VocabularyState(weights.text_embeddings).replace(names)
        expected, half = engine.run([frame], different)[0], OpenVinoEngine(weights, 1, precision='fp16')
        assert np.mean(half.run([frame], different)[0].ids == expected.ids) > 0.985


@installed
def test_frames_of_many_sizes(weights, street):
    mine = OpenVinoEngine(weights, 1, pixels=96 * 96, precision='fp32')
    vocabulary = VocabularyState(weights.text_embeddings).replace(['road', 'sky'])
    for n in range(MAX_SIZES + 1):
        frame = cv2.resize(street[0], (128 + 40 * n, 128))
        mask, = mine.run([Frame(frame, 'bgr')], vocabulary)
        small, = mine.run([Frame(frame, 'bgr')], vocabulary, 'network')
        assert mask.ids.shape == frame.shape[:2] and small.ids.shape == network_size(*frame.shape[:2], 96 * 96)
    assert len(mine._requests) == MAX_SIZES


@installed
def test_damaged_and_foreign_files_are_named_with_the_fix(weights, tmp_path):
    with pytest.raises(WeightsError, match='exported from other weights'):
        OpenVinoEngine(replace(weights, sha256='0' * 64), 1, precision='fp32')
    for suffix in ('.safetensors', '.json', '.onnx'):
        shutil.copy(weights.path.with_suffix(suffix), tmp_path / f'w{suffix}')
    copied = load_weights(tmp_path / 'w.safetensors')
    copied.onnx_path.write_bytes(copied.onnx_path.read_bytes()[:100_000])
    with pytest.raises(WeightsError, match=r'w.onnx cannot be loaded.*lgseg export'):
        OpenVinoEngine(copied, 1, precision='fp32')


@installed
def test_a_cache_that_cannot_be_written_is_no_reason_to_fail(weights, street, tmp_path, monkeypatch):
    (tmp_path / 'file').write_text('')
    monkeypatch.setenv('LGSEG_CACHE', str(tmp_path / 'file'))
    engine = OpenVinoEngine(weights, 1, pixels=96 * 96, precision='fp32')
    assert engine.run([Frame(street[0], 'bgr')], VocabularyState(weights.text_embeddings).replace(['road', 'sky']))

"""The self-test: its file, its limits, and that it runs after every compilation."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from engine_options import request
from lgseg_ros.engines import self_test as module
from lgseg_ros.engines.onnxruntime_engine import OnnxRuntimeEngine
from lgseg_ros.engines.openvino_engine import OpenVinoEngine
from lgseg_ros.engines.preprocessing import Frame, Mask, network_size
from lgseg_ros.engines.reference import compute_expected
from lgseg_ros.engines.selection import create_engine, run_self_tests
from lgseg_ros.engines.self_test import SelfTest, SelfTestError, compare, limits
from lgseg_ros.engines.self_test_data import SMALL, read_golden, self_test_path
from lgseg_ros.engines.torch_engine import TorchEngine
from lgseg_ros.model.weights import WeightsError, load_weights, shipped_weights
from lgseg_ros.vocabulary.vocabulary import VocabularyState
from self_test_faults import SUFFIXES, copy_weights, openvino_fp32, segment

openvino = pytest.mark.skipif(OpenVinoEngine.unavailable() is not None, reason='openvino is not installed')
LARGE_SHARE = 0.05


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv('LGSEG_CACHE', str(tmp_path / 'cache'))
    module._warn_once.cache_clear()


@pytest.fixture
def copied(weights, tmp_path):
    return copy_weights(weights, tmp_path / 'weights')


@pytest.fixture(scope='module')
def golden(weights):
    return read_golden(weights)


# --- the file


def test_the_shipped_self_test_can_fail(weights, golden):
    """Every vocabulary finds several classes at every stored size, so that no single id would pass."""
    assert self_test_path(weights).stat().st_size < 500_000
    assert [len(v.ids) for v in golden.vocabularies] == [11, 6, 20]
    assert any(len(v.text_embeddings) > len(v.ids) for v in golden.vocabularies[1:2]), 'a class of several phrases'
    for size in (SMALL, network_size(480, 640), network_size(720, 1280)):
        masks = golden.expected(size)
        assert len(masks) == len(golden.vocabularies_at(size)) >= 2
        for mask, vocabulary in zip(masks, golden.vocabularies, strict=False):
            ids, counts = np.unique(mask.ids, return_counts=True)
            assert mask.ids.shape == mask.confidence.shape == size and set(ids) <= set(vocabulary.ids)
            assert np.sum(counts >= LARGE_SHARE * mask.ids.size) >= 3
            assert 0 not in ids, 'what a library that does nothing would give'


def test_torch_gives_what_is_stored(weights, golden):
    torch_engine = TorchEngine(weights, 1, device='cpu')
    assert torch_engine.self_test.worst.agreement > 0.9999


def test_no_weights_are_called_selftest():
    assert not [name for name in shipped_weights() if 'selftest' in name]


DAMAGES = {
    'cut short': lambda data: data[:len(data) // 2],
    'one bit': lambda data: data[:-1000] + bytes([data[-1000] ^ 1]) + data[-999:],
    'random': lambda data: np.random.default_rng(0).bytes(1000),
    'empty': lambda data: b'',
    'another format': lambda data: data.replace(b'lgseg-self-test-1', b'lgseg-self-test-9'),
}


@pytest.mark.parametrize('damage', DAMAGES)
def test_a_damaged_file_is_named_with_reason_and_fix(copied, damage):
    path = self_test_path(copied)
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    for make in (lambda: OnnxRuntimeEngine(copied, 1), lambda: create_engine(request('onnxruntime'), copied)):
        with pytest.raises(WeightsError, match=r'w.selftest.safetensors is damaged \(.+\); make it again with: '
                                               r'lgseg export --weights'):
            make()


def test_a_file_of_other_weights_is_refused(copied):
    other = replace(copied, sha256='0' * 64)
    with pytest.raises(WeightsError, match='was made for other weights than .*lgseg export --weights'):
        read_golden(other)


def test_weights_without_the_file_run_untested_with_one_warning(copied, street, caplog):
    self_test_path(copied).unlink()
    engines = [OnnxRuntimeEngine(copied, 1, precision='fp32') for _ in range(2)]
    vocabulary = VocabularyState(copied.text_embeddings).replace(['road', 'sky'])
    assert segment(engines[0], street[0], vocabulary).ids.any()
    assert str(engines[0].self_test).startswith('not tested: ') and not engines[0].self_test.passed
    warning, = (record.getMessage() for record in caplog.records if 'self-test' in record.getMessage())
    assert 'w.selftest.safetensors is missing; make it again with: lgseg export --weights' in warning


# --- the limits


def test_agreement_and_confidence_have_limits(golden):
    mask = golden.expected(SMALL)[0]
    assert compare(mask, mask) == (1.0, 0.0)
    other = mask.ids.copy()
    other[:SMALL[0] // 2] ^= 1
    assert compare(Mask(other, mask.confidence), mask)[0] == pytest.approx(0.5)
    assert compare(Mask(mask.ids[:-1], mask.confidence[:-1]), mask) == (0.0, 1.0)
    assert limits('fp32', SMALL) == (0.99, 0.03) and limits('int8', SMALL) == limits('fp16', SMALL) == (0.97, 0.03)
    assert limits('int8', (64, 64))[0] < 0.97 and limits('fp32', (64, 64))[0] == 0.99


@pytest.mark.parametrize('share, precision, passes', [(0.98, 'fp32', False), (0.98, 'fp16', True),
                                                      (0.96, 'fp16', False), (0.995, 'fp32', True)])
def test_the_minimum_agreement(weights, golden, share, precision, passes):
    test = SelfTest(weights, 'some', precision)

    def run(image, vocabulary):
        mask = golden.expected(SMALL)[next(n for n, v in enumerate(golden.vocabularies)
                                           if np.array_equal(v.class_ids, vocabulary.class_ids))]
        ids = mask.ids.copy().ravel()
        ids[int(share * ids.size):] ^= 1
        return Mask(ids.reshape(SMALL), mask.confidence)
    if passes:
        assert test.check(SMALL, run) and test.passed
    else:
        with pytest.raises(SelfTestError, match=rf"some in {precision}: {100 * share:.1f} % of the self-test's pixels "
                                                r'agree at 256x192 \(9[79] % needed\)'):
            test.check(SMALL, run)


def test_wrong_confidences_are_refused(weights, golden):
    masks = iter(golden.expected(SMALL))

    def run(*_):
        mask = next(masks)
        return Mask(mask.ids, np.clip(mask.confidence.astype(int) - 40, 0, 255).astype(np.uint8))
    with pytest.raises(SelfTestError, match=r'some in fp32: the self-test.s confidences are off by 0.1\d\d at 256x192'):
        SelfTest(weights, 'some', 'fp32').check(SMALL, run)


# --- when it runs


@openvino
def test_every_compiled_size_is_tested_once(weights, street):
    engine = openvino_fp32(weights)
    vocabulary = VocabularyState(weights.text_embeddings).replace(['road', 'sky'])
    for height, width in ((360, 480), (480, 640), (720, 1280), (480, 640)):
        segment(engine, cv2.resize(street[0], (width, height)), vocabulary)
    assert [result.size for result in engine.self_test.results] == [(360, 480), (312, 552)] and engine.self_test.passed


@openvino
def test_the_self_test_is_the_warm_up(weights, street, monkeypatch):
    engine, runs = openvino_fp32(weights), []
    monkeypatch.setattr(OpenVinoEngine, 'run', lambda *_: runs.append(1))
    engine.warm_up(VocabularyState(weights.text_embeddings).replace(['road', 'sky']))
    assert engine.self_test.results and not runs


@openvino
def test_onnx_runtime_computes_the_masks_of_a_size_that_is_not_stored(weights, street, tmp_path, monkeypatch):
    vocabulary = VocabularyState(weights.text_embeddings).replace(['road', 'sky'])
    frame = cv2.resize(street[0], (512, 512))
    first = openvino_fp32(weights)
    segment(first, frame, vocabulary)
    assert first.self_test.results[0].size == (416, 416) and first.self_test.results[0].agreement > 0.99
    stored, = (tmp_path / 'cache' / 'self_test').glob('*-416x416-*.safetensors')

    def absent(*_, **__):
        raise ImportError('onnxruntime is not installed')
    monkeypatch.setattr(OnnxRuntimeEngine, '__init__', absent)
    second = openvino_fp32(weights)
    segment(second, frame, vocabulary)
    assert second.self_test.passed, 'expected masks are kept'
    stored.write_bytes(stored.read_bytes()[:-100])
    third = openvino_fp32(weights)
    assert segment(third, frame, vocabulary).ids.any(), 'not refused'
    assert str(third.self_test) == ('not tested: at 416x416 no expected masks are available '
                                    '(onnxruntime is not installed)')


def test_a_graph_that_resizes_is_tested_from_frame_to_mask(weights):
    """As a captured graph of the torch engine, here by an engine that resizes with OpenCV."""
    engine = OnnxRuntimeEngine(weights, 1, precision='fp32')
    test = SelfTest(weights, 'torch', 'fp32', reference=compute_expected)
    for gray in (False, True):
        assert test.check_frames((480, 640), gray, (360, 480), (480, 640),
                                 lambda image, vocabulary: engine.run([Frame(image, 'rgb')], vocabulary)[0],
                                 max_phrases=16)
    assert [result.agreement for result in test.results] == [1.0, 1.0]


def test_no_vocabulary_that_does_not_fit(weights):
    engine = OnnxRuntimeEngine(weights, 1, precision='fp32')
    counts = []

    def run(image, vocabulary):
        counts.append(len(vocabulary.text_embeddings))
        return engine.infer(image[None], vocabulary)[0]
    assert SelfTest(weights, 'torch', 'fp32').check(SMALL, run, max_phrases=8) and counts and max(counts) <= 8
    assert not SelfTest(weights, 'torch', 'fp32').check(SMALL, run, max_phrases=1)


def test_all_engines_of_this_machine_pass(weights):
    found = run_self_tests(weights, 1)
    assert 'onnxruntime fp32' in found
    assert {answer['state'] for answer in found.values()} == {'passed'}, found


def test_the_copies_are_complete(copied):
    assert all(copied.path.with_suffix(suffix).is_file() for suffix in SUFFIXES)
    assert load_weights(copied.path).sha256 == copied.sha256

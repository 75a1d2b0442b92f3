"""The torch engine, here on a CPU: all but the capture of the graph is the same code on a GPU."""

import cv2
import numpy as np
import pytest
import torch

from lgseg_ros.engines.preprocessing import Frame, network_size, to_network
from lgseg_ros.engines.resize import downscale_matrices, linear_matrix, nearest_indices
from lgseg_ros.engines.shape_cache import BUCKETS, ShapeCache, bucket
from lgseg_ros.engines.torch_engine import TorchEngine
from lgseg_ros.vocabulary.classes import MAX_PHRASES
from lgseg_ros.vocabulary.vocabulary import VocabularyState

SMALL = 160 * 120   # network pixels: tests of plumbing need no sharp masks


@pytest.fixture(scope='module')
def torch_engine(weights):
    return TorchEngine(weights, num_threads=1, device='cpu')


@pytest.fixture(scope='module')
def small_engine(weights):
    return TorchEngine(weights, pixels=SMALL, num_threads=1, device='cpu')


@pytest.fixture
def camvid(weights):
    return VocabularyState(weights.text_embeddings).replace([], 'camvid')


def agreement(first, second):
    return np.mean([np.mean(a.ids == b.ids) for a, b in zip(first, second)])


@pytest.mark.parametrize('size', [(480, 360), (1280, 720), (640, 480)])
def test_agrees_with_onnx_runtime(torch_engine, engine, camvid, street, size):
    image = cv2.resize(street[0], size, interpolation=cv2.INTER_CUBIC)
    ours, theirs = (e.run([Frame(image, 'bgr')], camvid) for e in (torch_engine, engine))
    assert ours[0].ids.shape == ours[0].confidence.shape == image.shape[:2]
    assert agreement(ours, theirs) > 0.995
    assert np.abs(ours[0].confidence.astype(int) - theirs[0].confidence).mean() < 2


def test_padded_text_embeddings_change_nothing(torch_engine, engine, weights, street):
    """9 phrases run as 16, 8 as 8: neither may differ from the engine that never pads."""
    for count in (1, 8, 9):
        phrases = weights.text_embeddings.names[:count]
        vocabulary = VocabularyState(weights.text_embeddings).replace(phrases, confidence_threshold=0.3)
        ours, theirs = (e.run([Frame(street[0], 'bgr')], vocabulary, 'network') for e in (torch_engine, engine))
        assert agreement(ours, theirs) > 0.995, count


def test_a_vocabulary_change_needs_no_other_context(small_engine, weights, street):
    state = VocabularyState(weights.text_embeddings)
    frame = Frame(street[0], 'bgr')
    first, = small_engine.run([frame], state.replace(['road', 'sky', 'building', 'car']))
    num_contexts = len(small_engine._contexts)
    vocabulary = state.replace(['road', 'heaven=sky', 'tree'], confidence_threshold=0.0)
    second, = small_engine.run([frame], vocabulary)
    assert len(small_engine._contexts) == num_contexts
    assert set(np.unique(second.ids)) <= set(vocabulary.ids)
    assert (second.ids == vocabulary.ids[1]).any() and not (first.ids == vocabulary.ids[1]).any()


def test_every_order_and_a_mixed_batch(small_engine, camvid, street):
    bgr = street[0]
    frames = [Frame(bgr, 'bgr'), Frame(np.ascontiguousarray(bgr[..., ::-1]), 'rgb'),
              Frame(cv2.cvtColor(bgr, cv2.COLOR_BGR2BGRA), 'bgra'),
              Frame(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGBA), 'rgba')]
    wanted, = small_engine.run(frames[:1], camvid)
    for mask in small_engine.run(frames, camvid) + [small_engine.run([frame], camvid)[0] for frame in frames[1:]]:
        assert np.mean(mask.ids == wanted.ids) > 0.999
    grey = cv2.cvtColor(bgr, cv2.COLOR_BGR2GRAY)
    flat, = small_engine.run([Frame(grey, 'mono')], camvid)
    same, = small_engine.run([Frame(cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR), 'bgr')], camvid)
    assert np.mean(flat.ids == same.ids) > 0.999


def test_masks_outlive_the_next_frame(small_engine, camvid, street):
    first, = small_engine.run([Frame(street[0], 'bgr')], camvid)
    kept = first.ids.copy()
    small_engine.run([Frame(np.ascontiguousarray(street[0][::-1]), 'bgr')], camvid)
    assert np.array_equal(first.ids, kept)


def test_threshold_and_output_size(small_engine, weights, street):
    vocabulary = VocabularyState(weights.text_embeddings).replace([], 'camvid', 229.5 / 255)   # between two bytes
    mask, = small_engine.run([Frame(street[0], 'bgr')], vocabulary, 'network')
    assert mask.ids.shape == network_size(360, 480, SMALL)
    assert np.array_equal(mask.ids == 255, mask.confidence < 230)


def test_half_floats_decide_as_fp32_does(weights, camvid, street):
    """What CUDA computes in fp16, here with the CPU's slow half kernels."""
    image = cv2.resize(street[0], (320, 240), interpolation=cv2.INTER_AREA)
    engine = TorchEngine(weights, num_threads=1, device='cpu')
    full, = engine.run([Frame(image, 'bgr')], camvid)
    engine._model.half()
    engine._contexts.clear()
    half, = engine.run([Frame(image, 'bgr')], camvid)
    assert np.mean(full.ids == half.ids) > 0.985


@pytest.mark.parametrize('frame, network', [((720, 1280), (312, 552)), ((480, 640), (360, 480)),
                                            ((1024, 2048), (296, 592))])
def test_resizing_is_opencvs(street, frame, network):
    image = cv2.resize(street[0], frame[::-1], interpolation=cv2.INTER_CUBIC)
    wanted = to_network(Frame(image, 'rgb'), network).astype(float)
    vertical, horizontal = downscale_matrices(frame, network)
    ours = np.einsum('hH,HWc,wW->hwc', vertical, image.astype(np.float32), horizontal, optimize=True)
    assert np.abs(ours.round() - wanted).max() <= 1
    small = street[1][:network[0], :network[1]]
    wanted = cv2.resize(small, frame[::-1], interpolation=cv2.INTER_NEAREST)
    y, x = (nearest_indices(*side) for side in zip(small.shape, frame))
    assert np.mean(small[y][:, x] == wanted) > 0.999
    vertical, horizontal = (linear_matrix(*side) for side in zip(small.shape, frame))
    back = vertical @ small.astype(np.float32) @ horizontal.T
    assert np.abs(back - cv2.resize(small, frame[::-1], interpolation=cv2.INTER_LINEAR)).max() <= 1


def test_buckets_hold_every_vocabulary():
    assert [bucket(count) for count in (1, 8, 9, 64, 65)] == [8, 8, 16, 64, 128]
    assert bucket(MAX_PHRASES) == BUCKETS[-1]


def test_the_shape_cache_keeps_the_last_used_and_closes_the_rest():
    closed = []

    class Context:
        def __init__(self, key):
            self.key = key

        def close(self):
            closed.append(self.key)

    cache = ShapeCache(Context, limit=2)
    first = cache.get('a')
    cache.get('b')
    assert cache.get('a') is first and not closed
    cache.get('c')
    assert closed == ['b'] and len(cache) == 2
    cache.clear()
    assert sorted(closed) == ['a', 'b', 'c'] and not len(cache)


def test_precisions(weights):
    assert TorchEngine.unavailable('auto') is None and 'fp32 and fp16' in TorchEngine.unavailable('int8')
    with pytest.raises(RuntimeError, match='needs a CUDA device'):
        TorchEngine(weights, precision='fp16', device='cpu')
    if not torch.cuda.is_available():
        assert TorchEngine.not_ready(weights, SMALL) == 'this PyTorch sees no CUDA device'

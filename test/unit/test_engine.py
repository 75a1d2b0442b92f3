"""The ONNX Runtime engine on a street image: sizes, vocabularies, threshold, and damaged files."""

import json
import shutil

import cv2
import numpy as np
import pytest

from lgseg_ros.engines.onnxruntime_engine import OnnxRuntimeEngine
from lgseg_ros.engines.preprocessing import SMALLEST, STEP, Frame, network_size, to_network
from lgseg_ros.model.weights import TEXT_EMBEDDINGS_TENSOR, WeightsError, load_weights, shipped_weights
from lgseg_ros.vocabulary.vocabulary import VocabularyState


@pytest.fixture
def camvid(weights):
    return VocabularyState(weights.text_embeddings).replace([], 'camvid')


@pytest.mark.parametrize('height, width', [(360, 480), (480, 640), (720, 1280), (1080, 1920), (100, 4000), (16, 16)])
def test_network_size_keeps_shape_and_budget(height, width):
    rows, columns = network_size(height, width)
    assert rows % STEP == columns % STEP == 0
    assert rows * columns < 1.6 * max(480 * 360, SMALLEST**2)
    if min(height, width) > SMALLEST and max(height, width) < 2000:
        assert columns / rows == pytest.approx(width / height, rel=0.03)


@pytest.mark.parametrize('order', ['bgr', 'rgb', 'bgra', 'rgba', 'mono'])
def test_every_order_reaches_the_network_as_rgb(order):
    rgb = np.zeros((80, 96, 3), np.uint8)
    rgb[:] = (200, 120, 40) if order != 'mono' else (90, 90, 90)
    given = {'rgb': rgb, 'bgr': rgb[..., ::-1], 'mono': rgb[..., 0],
             'rgba': cv2.cvtColor(rgb, cv2.COLOR_RGB2RGBA), 'bgra': cv2.cvtColor(rgb, cv2.COLOR_RGB2BGRA)}[order]
    for size in ((80, 96), (40, 48), (16, 16)):
        assert np.array_equal(to_network(Frame(np.ascontiguousarray(given), order), size), rgb[:size[0], :size[1]])


def test_masks_are_of_the_frame_or_of_the_network(engine, camvid, street):
    frame = Frame(cv2.resize(street[0], (1280, 720)), 'bgr')
    mask, = engine.run([frame], camvid)
    assert mask.ids.shape == mask.confidence.shape == (720, 1280)
    assert mask.ids.dtype == mask.confidence.dtype == np.uint8
    small, = engine.run([frame], camvid, 'network')
    assert small.ids.shape == network_size(720, 1280)
    assert set(np.unique(mask.ids)) <= set(camvid.ids)


def test_a_street_is_recognised(engine, camvid, street):
    """Real weights on a labelled image: far above chance, road and sky nearly whole."""
    image, labels = street
    mask, = engine.run([Frame(image, 'bgr')], camvid)
    known = labels != 255
    assert (mask.ids == labels)[known].mean() > 0.7
    for wanted in (camvid.names.index('road'), camvid.names.index('sky')):
        assert (mask.ids == labels)[labels == wanted].mean() > 0.8


def test_permuted_classes_give_permuted_ids(engine, weights, street):
    names = ['road', 'sky', 'building', 'car', 'tree', 'pavement', 'pole']
    frame = Frame(street[0], 'bgr')
    straight = VocabularyState(weights.text_embeddings).replace(names)
    turned = VocabularyState(weights.text_embeddings).replace(names[::-1])
    first, = engine.run([frame], straight)
    second, = engine.run([frame], turned)
    to_name = [np.array(v.names)[np.argsort(v.ids)] for v in (straight, turned)]
    assert (to_name[0][first.ids] == to_name[1][second.ids]).mean() > 0.9999   # ties may fall either way


def test_the_vocabulary_decides(engine, weights, street):
    """The same pixels follow their phrase: `car` becomes `vehicle` if that class has the phrase "car"."""
    frame = Frame(street[0], 'bgr')
    state = VocabularyState(weights.text_embeddings)
    before = state.replace(['car', 'road', 'sky', 'building', 'tree'])
    mask, = engine.run([frame], before)
    after = state.replace(['vehicle=car', 'road', 'sky', 'building', 'tree'])
    renamed, = engine.run([frame], after)
    assert after.ids[0] not in before.ids
    assert np.array_equal(mask.ids == before.ids[0], renamed.ids == after.ids[0])
    assert (mask.ids == before.ids[0]).any()


def test_threshold_unlabels_the_unsure(engine, weights, street):
    frame = Frame(street[0], 'bgr')
    state = VocabularyState(weights.text_embeddings)
    open_mask, = engine.run([frame], state.replace([], 'camvid', 0.0))
    mask, = engine.run([frame], state.replace([], 'camvid', 153.5 / 255))   # between two bytes of confidence
    assert not (open_mask.ids == 255).any() and (mask.ids == 255).any()
    assert np.array_equal(mask.ids == 255, open_mask.confidence < 154)
    assert np.array_equal(mask.ids[mask.ids != 255], open_mask.ids[mask.ids != 255])


def test_one_class_and_255(engine, weights, street):
    frame = Frame(street[0], 'bgr')
    for count in (1, 255):
        vocabulary = VocabularyState(weights.text_embeddings).replace(weights.text_embeddings.names[:count])
        mask, = engine.run([frame], vocabulary)
        assert set(np.unique(mask.ids)) <= set(range(count))


def test_a_batch_equals_its_frames(engine, camvid, street):
    frames = [Frame(street[0], 'bgr'), Frame(np.ascontiguousarray(street[0][:, ::-1]), 'bgr')]
    together = engine.run(frames, camvid)
    for frame, mask in zip(frames, together):
        alone, = engine.run([frame], camvid)
        assert (alone.ids == mask.ids).mean() > 0.9999


def test_shipped_weights_are_complete():
    assert shipped_weights()
    for name in shipped_weights():
        weights = load_weights(name)
        assert len(weights.text_embeddings) >= 300 and weights.card['model']['backbone']


@pytest.fixture
def copied(weights, tmp_path):
    """The shipped files, copied so that a test may damage them."""
    for suffix in ('.safetensors', '.json', '.onnx'):
        shutil.copy(weights.path.with_suffix(suffix), tmp_path / f'w{suffix}')
    return tmp_path / 'w.safetensors'


def cut(path, share=0.5):
    path.write_bytes(path.read_bytes()[:int(path.stat().st_size * share)])


def test_missing_and_damaged_weights_name_the_file(copied):
    with pytest.raises(WeightsError, match='nowhere.safetensors does not exist'):
        load_weights('nowhere.safetensors')
    with pytest.raises(WeightsError, match='shipped: '):
        load_weights('nonsense')
    load_weights(copied)
    text = copied.with_suffix('.json').read_text()
    copied.with_suffix('.json').write_text(text[:20])
    with pytest.raises(WeightsError, match='damaged'):
        load_weights(copied)
    copied.with_suffix('.json').unlink()
    with pytest.raises(WeightsError, match='w.json is missing'):
        load_weights(copied)
    copied.with_suffix('.json').write_text(text)
    cut(copied)
    with pytest.raises(WeightsError, match='w.safetensors is damaged'):
        load_weights(copied)
    copied.write_bytes(b'')
    with pytest.raises(WeightsError, match='w.safetensors is damaged'):
        load_weights(copied)


def test_missing_damaged_or_foreign_onnx_file_is_named_with_the_fix(copied):
    onnx = copied.with_suffix('.onnx')
    whole = onnx.read_bytes()
    onnx.unlink()
    with pytest.raises(WeightsError, match='lgseg export --weights'):
        OnnxRuntimeEngine(load_weights(copied))
    onnx.write_bytes(whole[:len(whole) // 2])
    with pytest.raises(WeightsError, match='w.onnx cannot be loaded'):
        OnnxRuntimeEngine(load_weights(copied))
    onnx.write_bytes(whole)
    OnnxRuntimeEngine(load_weights(copied))
    _touch_one_weight(copied)
    with pytest.raises(WeightsError, match='exported from other weights'):
        OnnxRuntimeEngine(load_weights(copied))


def _touch_one_weight(path):
    from safetensors import safe_open
    from safetensors.numpy import save_file
    with safe_open(path, framework='numpy') as file:
        tensors, metadata = {key: file.get_tensor(key) for key in file.keys()}, file.metadata()   # noqa: SIM118 (not iterable)
    tensors[TEXT_EMBEDDINGS_TENSOR] = tensors[TEXT_EMBEDDINGS_TENSOR] * 0.5
    save_file(tensors, path, metadata)


def test_runtime_needs_no_torch():
    """A robot that runs an exported model has numpy, onnxruntime and OpenCV only."""
    import subprocess
    import sys
    code = ('import sys, json, lgseg_ros.engines.onnxruntime_engine, lgseg_ros.media.overlay;'
            'import lgseg_ros.model.weights as w;'
            'from lgseg_ros.engines.selection import create_engine; w.load_weights();'
            'print(json.dumps(sorted({"torch", "timm", "open_clip", "onnx"} & set(sys.modules))))')
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []

"""The public Python API: results, vocabularies, batches, what is refused, and that it needs no ROS."""

import threading

import numpy as np
import pytest

from lgseg_ros import ClassInfo, Segmenter, VocabularyError, WeightsError
from lgseg_ros.demo.street import StreetCamera
from lgseg_ros.engines.preprocessing import Frame
from lgseg_ros.vocabulary.vocabulary import VocabularyState
from tiny_clip import run_python

CAMVID = ('sky', 'building', 'pole', 'road', 'pavement', 'tree', 'sign', 'fence', 'car', 'pedestrian', 'bicyclist')
WITHOUT_ROS = '''
import sys
for name in ('rclpy', 'sensor_msgs', 'std_msgs', 'lifecycle_msgs', 'ament_index_python', 'lgseg_ros.srv'):
    sys.modules[name] = None
'''


@pytest.fixture(scope='module')
def exact():
    """ONNX Runtime in fp32 on one thread, as the fixture `engine`."""
    with Segmenter(engine='onnxruntime', precision='fp32', num_threads=1) as segmenter:
        yield segmenter


@pytest.fixture
def segmenter():
    """A new segmenter for each test: ids are kept as long as it exists."""
    with Segmenter(vocabulary=['road', 'sky', 'vehicle=car|truck'], num_threads=1) as segmenter:
        yield segmenter


def test_a_result_equals_that_of_the_engine(exact, engine, weights, street):
    image, labels = street
    result = exact.segment(image)
    mask = engine.run([Frame(image, 'bgr')], VocabularyState(weights.text_embeddings).replace([], 'camvid'))[0]
    assert np.array_equal(result.mask, mask.ids) and np.array_equal(result.confidence, mask.confidence)
    assert result.mask.shape == result.confidence.shape == image.shape[:2]
    assert result.mask.dtype == result.confidence.dtype == np.uint8
    assert tuple(info.name for info in result.classes) == CAMVID
    labelled = labels != 255
    assert (result.mask == labels)[
        labelled
    ].mean() > 0.6  # the ids of the preset are those of CamVid, as in the labels of the street


def test_classes_have_id_name_and_phrases(segmenter, street):
    result = segmenter.segment(street[0])
    assert result.classes == segmenter.classes == (
        ClassInfo(0, 'road', ('road',)), ClassInfo(1, 'sky', ('sky',)), ClassInfo(2, 'vehicle', ('car', 'truck')))
    assert set(np.unique(result.mask)) <= {0, 1, 2}
    assert np.array_equal(result.pixels_of('road'), result.mask == 0) and result.pixels_of('road').mean() > 0.1
    with pytest.raises(ValueError, match="class 'tree' is not in the vocabulary; it has: road, sky, vehicle"):
        result.pixels_of('tree')


def test_a_threshold_leaves_pixels_unlabelled(segmenter, street):
    segmenter.set_vocabulary(['road', 'sky'], confidence_threshold=0.9)
    result = segmenter.segment(street[0])
    assert 0 < (result.mask == 255).mean() < 1
    assert result.confidence[result.mask != 255].min() >= 0.9 * 255 - 2   # rounding and interpolation
    segmenter.set_vocabulary(['road', 'sky'])
    assert segmenter.vocabulary.confidence_threshold == 0.9, 'the threshold is kept unless it is given'


def test_an_overlay_blends_class_colours_with_the_image(segmenter, street):
    image = street[0].copy()
    result = segmenter.segment(image)
    overlay = result.overlay(alpha=1.0, legend=False)
    assert overlay.shape == image.shape and overlay.dtype == np.uint8
    assert len(np.unique(overlay[result.pixels_of('road')], axis=0)) == 1
    assert np.array_equal(result.overlay(alpha=0.0, legend=False), image) and np.array_equal(image, street[0])
    with pytest.raises(ValueError, match='alpha is 2; give an opacity'):
        result.overlay(alpha=2)


def test_a_vocabulary_is_replaced_atomically_and_ids_are_kept(segmenter, street):
    before = segmenter.segment(street[0])
    assert [info.id for info in segmenter.set_vocabulary(['sky', 'person'])] == [1, 3]
    after = segmenter.segment(street[0])
    assert set(np.unique(after.mask)) <= {1, 3}
    assert (before.vocabulary_version, after.vocabulary_version) == (1, 2)
    assert before.classes[0].name == 'road', 'a result keeps the classes of its own vocabulary'
    with pytest.raises(VocabularyError, match="'sidewlk' is not known .near: sidewalk.*lgseg embed"):
        segmenter.set_vocabulary(['road', 'sidewlk'])
    assert segmenter.vocabulary.names == ('sky', 'person')


def test_presets(segmenter):
    segmenter.set_vocabulary(preset='nav2')
    assert segmenter.vocabulary.preset == 'nav2' and len(segmenter.classes) == 11
    assert segmenter.classes[0] == ClassInfo(0, 'road', ('road',)), 'the id that it got first'
    with pytest.raises(VocabularyError, match="preset 'nav' is unknown; did you mean 'nav2'"):
        segmenter.set_vocabulary(preset='nav')
    with Segmenter(vocabulary=['VEHICLE', 'ROAD'], preset='autoware', num_threads=1) as autoware:
        assert autoware.classes == (ClassInfo(7, 'VEHICLE', ('car', 'truck', 'bus')), ClassInfo(9, 'ROAD', ('road',)))


@pytest.mark.parametrize('vocabulary, reason', [
    ([], 'vocabulary is empty'), ('road, car', r"vocabulary is the text 'road, car'; give a list.*\['road', 'car'\]"),
    (['road', 'road'], 'named twice'), ([1], 'is not text')])
def test_unusable_vocabularies_are_refused(segmenter, vocabulary, reason):
    with pytest.raises(VocabularyError, match=reason):
        segmenter.set_vocabulary(vocabulary)
    assert segmenter.vocabulary.version == 1


@pytest.mark.parametrize('confidence_threshold', [-0.1, 1.1, float('nan')])
def test_a_threshold_is_a_probability(segmenter, confidence_threshold):
    with pytest.raises(VocabularyError, match='confidence_threshold is .*; give a confidence of 0 to 1'):
        segmenter.set_vocabulary(['road'], confidence_threshold=confidence_threshold)


def test_a_batch_gives_the_same_as_single_images(exact, monkeypatch):
    camera, small = StreetCamera(160, 120, seed=1), StreetCamera(96, 64, seed=1)
    images = [camera.render(0)[0], camera.render(30)[0], camera.render(60)[0], small.render(0)[0], camera.render(90)[0]]
    single = [exact.segment(image) for image in images]
    assert exact.segment_batch([]) == []
    for max_batch, sizes in ((1, [1, 1, 1, 1, 1]), (2, [2, 1, 1, 1])):
        runs, run = [], exact._pipeline.run
        with monkeypatch.context() as patch:
            patch.setattr(exact._pipeline.engine._engine, 'batch', max_batch)
            patch.setattr(exact._pipeline, 'run', lambda batch, *rest: runs.append(len(batch)) or run(batch, *rest))
            batched = exact.segment_batch(images)
        assert runs == sizes
        for one, other, image in zip(single, batched, images, strict=True):
            assert np.array_equal(one.mask, other.mask) and other.mask.shape == image.shape[:2]


def test_any_memory_layout_is_accepted(exact, street):
    image = street[0]
    expected = exact.segment(image[::2, ::-1].copy()).mask
    assert np.array_equal(exact.segment(image[::2, ::-1]).mask, expected)
    assert exact.segment(image[:1, :1]).mask.shape == (1, 1)


@pytest.mark.parametrize('image, kind, reason', [
    (None, TypeError, 'image is None; cv2.imread returns None'),
    ([[0]], TypeError, 'image is of type list; give uint8'),
    (np.zeros((4, 4, 3), np.float32), ValueError, r'dtype float32; give uint8 .*image \* 255'),
    (np.zeros((4, 4), np.uint8), ValueError, r'shape \(4, 4\), one channel; .*COLOR_GRAY2BGR'),
    (np.zeros((4, 4, 1), np.uint8), ValueError, 'COLOR_GRAY2BGR'),
    (np.zeros((4, 4, 4), np.uint8), ValueError, 'COLOR_BGRA2BGR'),
    (np.zeros((3, 4, 5), np.uint8), ValueError, r'shape \(3, 4, 5\); give uint8 \[H, W, 3\]'),
    (np.zeros((2, 4, 4, 3), np.uint8), ValueError, r'a batch; use segment_batch\(\)'),
    (np.zeros(3, np.uint8), ValueError, r'shape \(3,\)'),
    (np.zeros((0, 4, 3), np.uint8), ValueError, 'no pixels'),
])
def test_invalid_images_are_refused_with_the_fix(exact, image, kind, reason):
    with pytest.raises(kind, match=reason):
        exact.segment(image)


def test_an_array_is_refused_as_a_batch(exact, street):
    with pytest.raises(ValueError, match=r'one array of shape \(360, 480, 3\); give a list of images'):
        exact.segment_batch(street[0])


@pytest.mark.parametrize('arguments, kind, reason', [
    ({'weights': 'nothing'}, WeightsError, "weights 'nothing' are neither .* nor shipped .*lgseg_lite0"),
    ({'engine': 'onnx'}, ValueError, "engine 'onnx' is not known; give one of: auto"),
    ({'precision': 'fp8'}, ValueError, "precision 'fp8' is not known"),
    ({'num_threads': -1}, ValueError, 'num_threads is -1; give 1 or more, or 0'),
    ({'max_inference_pixels': 5}, ValueError, 'max_inference_pixels is 5; give at least 4096'),
    ({'vocabulary': ['flumph']}, VocabularyError, "'flumph' is not known")])
def test_invalid_arguments_are_refused(arguments, kind, reason):
    with pytest.raises(kind, match=reason):
        Segmenter(**arguments)


def test_the_engine_is_described(exact):
    assert exact.engine[:2] == ('onnxruntime', 'fp32') and 'lgseg_lite0.onnx' in exact.engine.description
    assert 'onnxruntime' in repr(exact) and 'road' in repr(exact)


def test_a_closed_segmenter_cannot_be_used(street):
    with Segmenter(num_threads=1) as segmenter:
        pass
    segmenter.close()
    for use in (lambda: segmenter.segment(street[0]), lambda: segmenter.set_vocabulary(['road']),
                lambda: segmenter.engine):
        with pytest.raises(RuntimeError, match='closed; create another'):
            use()
    assert 'closed' in repr(segmenter)


def test_threads_can_share_a_segmenter(segmenter, street):
    """Each result is of one vocabulary, whatever another thread sets meanwhile."""
    image, results, errors = street[0][:120, :160], [], []

    def work():
        try:
            results.extend(segmenter.segment(image) for _ in range(10))
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for n in range(20):
        segmenter.set_vocabulary(['road'] if n % 2 else ['sky', 'person'])
    for thread in threads:
        thread.join()
    assert errors == [] and len(results) == 30
    for result in results:
        assert set(np.unique(result.mask)) <= {info.id for info in result.classes}


def test_no_ros_is_needed():
    done = run_python(WITHOUT_ROS + '''
import numpy as np
from lgseg_ros import Segmenter
with Segmenter('lgseg_lite0', vocabulary=['road', 'person'], num_threads=1) as segmenter:
    print(segmenter.segment(np.zeros((48, 64, 3), np.uint8)).mask.shape)''')
    assert done.stdout.strip() == '(48, 64)', done.stderr


def test_importing_the_package_imports_no_dependencies():
    done = run_python('import sys, lgseg_ros; print("numpy" in sys.modules, "lgseg_ros.api" in sys.modules, '
                      '"Segmenter" in dir(lgseg_ros)); lgseg_ros.nothing')
    assert done.stdout.strip() == 'False False True'
    assert "module 'lgseg_ros' has no attribute 'nothing'" in done.stderr

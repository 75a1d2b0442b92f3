"""Frames of several cameras in one batch, for engines that benefit from batching; and rows of the fault table."""

import threading

import cv2
import numpy as np
import pytest
import rclpy
from sensor_msgs.msg import CompressedImage, Image

from faults_table import fault
from hostile_images import header
from lgseg_ros.engines.preprocessing import Frame
from lgseg_ros.node.image_conversions import image_message
from lgseg_ros.node.inference_thread import InferenceThread, promised_size
from lgseg_ros.node.output_publisher import OutputPublisher
from lgseg_ros.node.parameters import Settings
from lgseg_ros.vocabulary.vocabulary import VocabularyState
from ros_graph import RELIABLE, Peer, pixels_of, wait_until

BATCHES = 'Batches of several cameras (in the test process: real inference thread, real engine, real topics)'
NAMES = ('a', 'b', 'c', 'd')


class BatchEngine:
    """The real engine with a batch size. Its first run blocks, so that frames queue up meanwhile."""

    def __init__(self, engine, batch, before=lambda frames: None):
        """before: called with the frames of each run except the first; may raise."""
        self.engine, self.batch, self.before = engine, batch, before
        self.batch_sizes, self.resume = [], threading.Event()

    def run(self, frames, vocabulary, size=None):
        self.batch_sizes.append(len(frames))
        if len(self.batch_sizes) == 1:
            assert self.resume.wait(30)
        else:
            self.before(frames)
        return self.engine.run(frames, vocabulary, size)


class BatchHarness:
    """An inference thread, a camera per name in NAMES, one that keeps the engine busy, and a subscriber to masks."""

    def __init__(self, engine, weights):
        self.context = rclpy.Context()
        rclpy.init(context=self.context)
        self.node = rclpy.create_node('batches', context=self.context)
        self.cameras = {name: OutputPublisher(self.node, name) for name in (*NAMES, 'first')}
        self.engine, self.errors, self.warnings = engine, [], []
        self.vocabulary = VocabularyState(weights.text_embeddings)
        self.vocabulary.replace(['road', 'sky', 'building'])
        self.peer, self.masks = Peer('/batches', subscribe=()), {name: [] for name in self.cameras}
        for name, store in self.masks.items():
            self.peer.node.create_subscription(Image, f'/batches/{name}/mask', store.append, RELIABLE)
        self.inference = InferenceThread(engine, self.vocabulary, Settings, self)

    def error(self, text):
        self.errors.append(text)

    def warning(self, text):
        self.warnings.append(text)

    def __enter__(self):
        wait_until(lambda: all(camera.has_subscribers() for camera in self.cameras.values()), 'the subscriber')
        return self

    def __exit__(self, *_):
        self.engine.resume.set()
        assert self.inference.stop(30)
        self.peer.__exit__()
        self.node.destroy_node()
        rclpy.try_shutdown(context=self.context)

    def run(self, messages):
        """Enqueue messages {camera: message} while the engine is busy; returns the batch sizes they were run in."""
        self.engine.resume.clear()
        self.engine.batch_sizes.clear()
        self.inference.enqueue(self.cameras['first'], image_message(np.zeros((8, 8, 3), np.uint8), 'bgr8', header()))
        wait_until(lambda: self.engine.batch_sizes, 'the engine to be busy')
        before = self.counts()
        for name, message in messages.items():
            self.inference.enqueue(self.cameras[name], message)
        self.engine.resume.set()
        wait_until(lambda: all(self.counts()[name] != before[name] for name in messages), 'every frame')
        return self.engine.batch_sizes[1:]

    def counts(self):
        return {name: (camera.counters.segmented, camera.counters.failed) for name, camera in self.cameras.items()}


@pytest.fixture
def images(street):
    """{camera: BGR image}: different images of one size."""
    small = cv2.resize(street[0], (160, 120))
    return dict(zip(NAMES, (small, small[::-1].copy(), small[:, ::-1].copy(), 255 - small), strict=True))


@pytest.fixture
def messages(images):
    return {name: image_message(image, 'bgr8', header()) for name, image in images.items()}


def test_frames_of_one_size_are_batched_and_masks_are_the_same(engine, weights, images, messages):
    with BatchHarness(BatchEngine(engine, 3), weights) as harness:
        assert harness.run(messages) == [3, 1]
        for name, message in messages.items():
            mask = wait_until(lambda: harness.masks[name], 'the mask')[0]
            assert mask.header == message.header
            alone, = engine.run([Frame(images[name], 'bgr')], harness.vocabulary.current)
            assert (pixels_of(mask) == alone.ids).mean() > 0.999


def test_frames_of_another_size_are_run_in_another_batch(engine, weights, messages):
    messages['b'] = image_message(np.zeros((60, 80, 3), np.uint8), 'bgr8', header())
    with BatchHarness(BatchEngine(engine, 4), weights) as harness:
        assert harness.run(messages) == [3, 1]


def test_an_engine_of_batch_size_1_gets_one_frame_at_a_time(engine, weights, messages):
    with BatchHarness(BatchEngine(engine, 1), weights) as harness:
        assert harness.run(messages) == [1, 1, 1, 1]


def test_the_size_of_a_compressed_image_is_read_from_its_header(street):
    for kind in ('.png', '.jpg'):
        data = cv2.imencode(kind, street[0][:100, :60])[1].tobytes()
        assert promised_size(CompressedImage(data=data)) == (100, 60)
    assert promised_size(CompressedImage(data=b'nonsense')) is None


@fault(BATCHES, 'a corrupt image in a batch of four cameras',
       'its frame fails, and is counted and logged for its camera; the other three are batched and get their masks')
def test_a_corrupt_image_in_a_batch(engine, weights, messages):
    messages['b'].step = 1
    with BatchHarness(BatchEngine(engine, 4), weights) as harness:
        assert harness.run(messages) == [3]
        assert harness.counts() == {'a': (1, 0), 'b': (0, 1), 'c': (1, 0), 'd': (1, 0), 'first': (1, 0)}
        assert len(harness.errors) == 1 and 'b/image: image step is 1' in harness.errors[0]


@fault(BATCHES, 'an image on which the engine raises, in a batch of four cameras',
       'its frame fails, and is counted and logged; the others get their masks; the next frames are batched again')
def test_a_frame_on_which_the_engine_raises(engine, weights, messages):
    def before(frames):
        if any(frame.pixels[0, 0].tolist() == [1, 2, 3] for frame in frames):
            raise RuntimeError('device error 700')
    good = {name: image_message(np.full((120, 160, 3), 90, np.uint8), 'bgr8', header()) for name in messages}
    bad = np.zeros((120, 160, 3), np.uint8)
    bad[0, 0] = 1, 2, 3
    messages['c'] = image_message(bad, 'bgr8', header())
    with BatchHarness(BatchEngine(engine, 4, before), weights) as harness:
        assert harness.run(messages) == [4, 1, 1, 1, 1]
        assert {name for name, (_, failed) in harness.counts().items() if failed} == {'c'}
        assert 'device error 700' in harness.cameras['c'].counters.last_error and not harness.warnings
        assert harness.run(good) == [4]


@fault(BATCHES, "a batch that is too large for the device's memory",
       'its frames are run one by one and none is lost; batching stays off afterwards, logged once')
def test_a_batch_out_of_memory(engine, weights, messages):
    def before(frames):
        if len(frames) > 1:
            raise MemoryError('cannot allocate 9 GB')
    with BatchHarness(BatchEngine(engine, 4, before), weights) as harness:
        assert harness.run(messages) == [4, 1, 1, 1, 1]
        assert all(harness.counts()[name] == (1, 0) for name in NAMES) and not harness.errors
        assert harness.run(messages) == [1, 1, 1, 1]
        assert len(harness.warnings) == 1 and 'cannot allocate 9 GB' in harness.warnings[0]


@fault(BATCHES, 'a JPEG with an EXIF rotation in a batch of JPEGs of the same stored size',
       'a mask of the rotated size; the others are not affected')
def test_a_jpeg_with_an_exif_rotation(engine, weights, images):
    encoded = {name: cv2.imencode('.jpg', image)[1].tobytes() for name, image in images.items()}
    exif = b'Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0'   # orientation 6
    encoded['b'] = encoded['b'][:2] + b'\xff\xe1' + (len(exif) + 2).to_bytes(2, 'big') + exif + encoded['b'][2:]
    messages = {name: CompressedImage(header=header(), format='jpeg', data=data) for name, data in encoded.items()}
    with BatchHarness(BatchEngine(engine, 4), weights) as harness:
        assert harness.run(messages) == [1, 1, 1, 1]
        sizes = {name: pixels_of(wait_until(lambda: harness.masks[name], 'the mask')[0]).shape for name in NAMES}
        assert sizes == {'a': (120, 160), 'b': (160, 120), 'c': (120, 160), 'd': (120, 160)}

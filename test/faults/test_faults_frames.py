"""Rows of the fault table: an engine that fails on a frame, hangs or cannot be closed."""

import dataclasses
import threading
import time
from contextlib import contextmanager

import cv2
import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.executors import SingleThreadedExecutor

from faults_table import fault, fault_rows
from hostile_images import noise_image
from lgseg_ros.node.inference_thread import InferenceThread
from lgseg_ros.node.output_publisher import OutputPublisher
from lgseg_ros.node.parameters import Settings
from lgseg_ros.node.segmentation_node import SegmentationNode
from lgseg_ros.vocabulary.vocabulary import VocabularyState
from lifecycle_manager import ACTIVATE, CLEANUP, CONFIGURE, DEACTIVATE, INACTIVE, UNCONFIGURED, Manager
from ros_graph import NodeRunner, Peer, wait_until

ENGINE = 'Inference engine (in the test process: real inference thread, real engine, real topics)'


class FailingEngine:
    """The real engine, with a callback before chosen frames."""

    def __init__(self, engine, events):
        """events: {frame number, from 1: callback}."""
        self.engine, self.events, self.frames = engine, events, 0

    def __getattr__(self, name):
        return getattr(self.engine, name)

    def run(self, frames, vocabulary, size=None):
        self.frames += 1
        self.events.get(self.frames, lambda: None)()
        return self.engine.run(frames, vocabulary, size)


class ErrorLog:
    """Collects the logged errors."""

    def __init__(self):
        self.errors = []

    def error(self, text):
        self.errors.append(text)


class InferenceHarness:
    """The node's inference thread and one camera with real topics, with any engine."""

    def __init__(self, engine, weights):
        self.context = rclpy.Context()
        rclpy.init(context=self.context)
        self.node = rclpy.create_node('inference', context=self.context)
        self.camera, self.log = OutputPublisher(self.node, ''), ErrorLog()
        self.vocabulary = VocabularyState(weights.text_embeddings)
        self.vocabulary.replace(['road', 'sky'])
        self.inference = InferenceThread(engine, self.vocabulary, Settings, self.log)
        self.peer = Peer('/inference')

    def __enter__(self):
        wait_until(self.camera.has_subscribers, 'the subscriber')
        wait_until(
            lambda: all(self.peer.node.count_publishers(f'/inference/{name}') for name in ('mask', 'confidence')),
            'topics',
        )
        time.sleep(0.3)
        return self

    def __exit__(self, *_):
        self.inference.stop()
        self.peer.__exit__()
        self.node.destroy_node()
        rclpy.try_shutdown(context=self.context)

    def segment(self):
        """Run one frame; whether it was segmented (otherwise it failed)."""
        before = self.counts()
        self.inference.enqueue(self.camera, noise_image())
        wait_until(lambda: self.counts() != before, 'the frame')
        return self.camera.counters.segmented > before[0]

    def counts(self):
        return self.camera.counters.segmented, self.camera.counters.failed


def raise_(error):
    raise error


@fault_rows(
    ENGINE,
    'error',
    [
        (
            'the engine raises on the third frame',
            'that frame fails, and is counted and logged; the next frame gets a mask',
            RuntimeError('cuda error 700'),
        ),
        (
            'the engine runs out of memory on the third frame',
            'that frame fails, and is counted and logged; the next frame gets a mask',
            MemoryError('cannot allocate 3 GB'),
        ),
        (
            'OpenCV raises on the third frame',
            'that frame fails, and is counted and logged; the next frame gets a mask',
            cv2.error('resize failed'),
        ),
    ],
)
def test_the_engine_fails_once(engine, weights, error):
    with InferenceHarness(FailingEngine(engine, {3: lambda: raise_(error)}), weights) as harness:
        assert [harness.segment() for _ in range(5)] == [True, True, False, True, True]
        last_error = harness.camera.counters.last_error
        assert str(error) in last_error and type(error).__name__ in last_error
        assert len(harness.log.errors) == 1 and str(error) in harness.log.errors[0]
        wait_until(lambda: len(harness.peer.masks) >= 3, 'masks')


@fault(ENGINE, 'text embeddings of the wrong width',
       'each frame fails with the error of ONNX Runtime; with the right ones, the next frame gets a mask')
def test_text_embeddings_of_the_wrong_width(engine, weights):
    with InferenceHarness(engine, weights) as harness:
        good = harness.vocabulary.current
        harness.vocabulary.current = dataclasses.replace(good, text_embeddings=np.ones((2, 7), np.float32))
        assert not harness.segment() and 'rows' in harness.camera.counters.last_error
        harness.vocabulary.current = good
        assert harness.segment()


@fault(ENGINE, 'the engine hangs while the node is stopped',
       'stop returns in time and reports it; the thread ends without an error once the engine returns')
def test_a_hanging_engine_does_not_block_stop(engine, weights):
    hangs, returns = threading.Event(), threading.Event()
    with InferenceHarness(FailingEngine(engine, {2: lambda: hangs.set() or returns.wait(60)}), weights) as harness:
        assert harness.segment()
        harness.inference.enqueue(harness.camera, noise_image())
        assert hangs.wait(30) and not harness.inference.stop(0.2)
        returns.set()
        assert harness.inference.stop(30)   # it ends once the engine returns
        assert not harness.log.errors


@fault(ENGINE, 'the engine hangs on a frame',
       'diagnostics: ERROR "inference timeout: the engine has worked on one frame for N s"; OK once the engine returns')
def test_a_hanging_engine_is_reported(engine, monkeypatch):
    monkeypatch.setattr('lgseg_ros.node.diagnostics.INFERENCE_TIMEOUT_S', 0.2)
    context, returns = rclpy.Context(), threading.Event()
    rclpy.init(context=context)
    node, executor = SegmentationNode('hanging', context=context), SingleThreadedExecutor(context=context)
    executor.add_node(node)

    def levels_of(text):
        executor.spin_once(timeout_sec=0.05)
        return [status.level for array in peer.diagnostics for status in array.status
                if status.name == '/hanging: segmentation' and text in status.message]
    try:
        assert node.start()
        node._inference._engine = FailingEngine(engine, {1: lambda: returns.wait(30)})
        with Peer('/hanging') as peer:
            black = np.zeros((48, 64, 3), np.uint8)
            wait_until(lambda: peer.send(black) and levels_of('inference timeout: the engine has worked on'),
                       'the timeout')
            assert levels_of('inference timeout')[-1] == DiagnosticStatus.ERROR
            returns.set()
            peer.diagnostics.clear()
            assert wait_until(lambda: levels_of('active'), 'the recovery')[-1] == DiagnosticStatus.OK
    finally:
        returns.set()
        node.close()
        rclpy.try_shutdown(context=context)


class SlowEngine(FailingEngine):
    """Adds what the node calls on an engine; counts the calls of `close`."""

    closed, failure = 0, ''

    def summary(self):
        return 'slow'

    def close(self):
        self.closed += 1


@contextmanager
def node_with_a_hanging_engine(name, engine, street):
    """(runner, peer, manager, engine, image, event) of an active node whose engine hangs on a frame until the event."""
    returns, image = threading.Event(), cv2.resize(street[0], (160, 120))
    with (
        NodeRunner(name, 'num_threads:=1', 'engine:=onnxruntime', 'precision:=fp32') as runner,
        Peer(f'/{name}') as peer,
    ):
        slow = SlowEngine(engine, {1: lambda: returns.wait(60)})
        runner.node._pipeline.engine = runner.node._inference._engine = slow
        manager = Manager(peer.connect(), name)
        wait_until(lambda: peer.send(image) and slow.frames, 'a frame in the engine')
        yield runner, peer, manager, slow, image, returns


@fault(ENGINE, 'the engine hangs while the node is deactivated and activated again',
       'activate fails with the reason until the engine returns, so that one thread uses it at a time; then masks are '
       'published, and cleanup closes the engine')
def test_an_engine_that_hangs_over_a_deactivation(engine, street):
    with node_with_a_hanging_engine('paused', engine, street) as (runner, peer, manager, slow, image, returns):
        assert manager.change(DEACTIVATE)
        assert not manager.change(ACTIVATE) and not slow.closed
        assert manager.state() == INACTIVE
        assert 'inference timeout' in runner.node.last_error
        returns.set()
        assert manager.change(ACTIVATE)
        peer.connect()
        assert peer.mask_of(image)
        assert sum(thread.name == 'lgseg-inference' for thread in threading.enumerate()) == 1
        assert manager.change(DEACTIVATE) and manager.change(CLEANUP)
        assert slow.closed == 1 and runner.error is None


@fault(
    ENGINE,
    'the engine hangs during cleanup',
    'the node can be configured and activated again with a new engine; engine_is_running() is true until the old '
    'thread ends',
)
def test_an_engine_that_hangs_over_a_cleanup(engine, street):
    with node_with_a_hanging_engine('abandoned', engine, street) as (runner, peer, manager, slow, image, returns):
        assert manager.change(DEACTIVATE) and manager.change(CLEANUP)
        assert runner.node.engine_is_running() and not slow.closed
        assert manager.change(CONFIGURE) and manager.change(ACTIVATE)
        peer.connect()
        assert peer.mask_of(image)
        assert runner.node.engine_is_running(), 'the thread of the first engine'
        returns.set()
        assert manager.change(DEACTIVATE) and manager.change(CLEANUP)
        wait_until(lambda: not runner.node.engine_is_running(), 'all threads to end')
        assert runner.error is None


@fault(ENGINE, 'closing the engine raises, as after a GPU fault',
       'the reason is logged as an error; cleanup completes, and the node can be configured again')
def test_an_engine_that_cannot_be_closed(street):
    image = cv2.resize(street[0], (160, 120))
    with NodeRunner('unclosed', 'num_threads:=1', 'engine:=onnxruntime', 'precision:=fp32') as runner, \
            Peer('/unclosed') as peer:
        manager = Manager(peer.connect(), 'unclosed')
        runner.node._pipeline.engine.close = lambda: raise_(RuntimeError('an illegal memory access was encountered'))
        assert manager.change(DEACTIVATE) and manager.change(CLEANUP)
        assert manager.state() == UNCONFIGURED
        ticks = len(peer.diagnostics)
        wait_until(lambda: len(peer.diagnostics) > ticks + 1, 'diagnostics')
        assert manager.change(CONFIGURE) and manager.change(ACTIVATE)
        peer.connect()
        assert peer.mask_of(image) and runner.error is None


@fault(ENGINE, 'the engine fails on every frame', 'every frame is counted; the error is logged once per 5 s')
def test_an_engine_that_fails_on_every_frame(engine, weights):
    always = dict.fromkeys(range(1, 200), lambda: raise_(RuntimeError('no device')))
    with InferenceHarness(FailingEngine(engine, always), weights) as harness:
        start = time.monotonic()
        assert not any(harness.segment() for _ in range(50))
        assert harness.camera.counters.failed == 50
        assert 1 <= len(harness.log.errors) <= 1 + (time.monotonic() - start) / 5

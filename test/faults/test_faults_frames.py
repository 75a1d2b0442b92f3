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
from ros_graph import NodeHere, Peer, wait_until

ENGINE = 'The engine (in the test\'s own process: real inference thread, real engine, real topics)'


class FailingEngine:
    """The real engine, except that at chosen frames something happens first."""

    def __init__(self, engine, events):
        """events: {number of the frame, from 1: callable}."""
        self.engine, self.events, self.frames = engine, events, 0

    def run(self, frames, vocabulary, size=None):
        self.frames += 1
        self.events.get(self.frames, lambda: None)()
        return self.engine.run(frames, vocabulary, size)


class Log:
    """Keeps the errors."""

    def __init__(self):
        self.errors = []

    def error(self, text):
        self.errors.append(text)


class Bench:
    """The node's inference thread and one camera with real topics, around any engine."""

    def __init__(self, engine, weights):
        self.context = rclpy.Context()
        rclpy.init(context=self.context)
        self.node = rclpy.create_node('bench', context=self.context)
        self.camera, self.log = OutputPublisher(self.node, ''), Log()
        self.vocabulary = VocabularyState(weights.text_embeddings)
        self.vocabulary.replace(['road', 'sky'])
        self.inference = InferenceThread(engine, self.vocabulary, Settings, self.log)
        self.peer = Peer('/bench')

    def __enter__(self):
        wait_until(self.camera.has_subscribers, 'the peer')
        wait_until(lambda: all(self.peer.node.count_publishers(f'/bench/{name}') for name in ('mask', 'confidence')),
                   'topics')
        time.sleep(0.3)
        return self

    def __exit__(self, *_):
        self.inference.stop()
        self.peer.__exit__()
        self.node.destroy_node()
        rclpy.try_shutdown(context=self.context)

    def frame(self):
        """One frame through the thread; whether it was segmented (else it failed)."""
        before = self.counts()
        self.inference.enqueue(self.camera, noise_image())
        wait_until(lambda: self.counts() != before, 'the frame')
        return self.camera.counters.segmented > before[0]

    def counts(self):
        return self.camera.counters.segmented, self.camera.counters.failed


def raise_(error):
    raise error


@fault_rows(ENGINE, 'error', [
    ('the engine raises at the third frame', 'that frame fails, counted and logged; the next gives a mask',
     RuntimeError('cuda error 700')),
    ('the engine runs out of memory at the third frame', 'that frame fails, counted and logged; the next gives a mask',
     MemoryError('cannot allocate 3 GB')),
    ('OpenCV raises at the third frame', 'that frame fails, counted and logged; the next gives a mask',
     cv2.error('resize failed')),
])
def test_the_engine_fails_once(engine, weights, error):
    with Bench(FailingEngine(engine, {3: lambda: raise_(error)}), weights) as bench:
        assert [bench.frame() for _ in range(5)] == [True, True, False, True, True]
        last_error = bench.camera.counters.last_error
        assert str(error) in last_error and type(error).__name__ in last_error
        assert len(bench.log.errors) == 1 and str(error) in bench.log.errors[0]
        wait_until(lambda: len(bench.peer.masks) >= 3, 'masks')


@fault(ENGINE, 'text embeddings that do not fit the network',
       'each frame fails with the error of ONNX Runtime; the next with the right ones gives a mask')
def test_rows_that_do_not_fit(engine, weights):
    with Bench(engine, weights) as bench:
        good = bench.vocabulary.current
        bench.vocabulary.current = dataclasses.replace(good, text_embeddings=np.ones((2, 7), np.float32))
        assert not bench.frame() and 'rows' in bench.camera.counters.last_error
        bench.vocabulary.current = good
        assert bench.frame()


@fault(ENGINE, 'an engine that hangs when the node is told to stop',
       'stop returns in time and reports it; the thread ends without an error once the engine returns')
def test_an_engine_that_hangs(engine, weights):
    hangs, returns = threading.Event(), threading.Event()
    with Bench(FailingEngine(engine, {2: lambda: hangs.set() or returns.wait(60)}), weights) as bench:
        assert bench.frame()
        bench.inference.enqueue(bench.camera, noise_image())
        assert hangs.wait(30) and not bench.inference.stop(0.2)
        returns.set()
        assert bench.inference.stop(30)   # it ends once the engine returns
        assert not bench.log.errors


@fault(ENGINE, 'an engine that hangs on a frame',
       'diagnostics: ERROR "inference timeout: the engine has worked on one frame for N s"; OK once it is done')
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
                       'the error')
            assert levels_of('inference timeout')[-1] == DiagnosticStatus.ERROR
            returns.set()
            peer.diagnostics.clear()
            assert wait_until(lambda: levels_of('active'), 'the end of it')[-1] == DiagnosticStatus.OK
    finally:
        returns.set()
        node.close()
        rclpy.try_shutdown(context=context)


class SlowEngine(FailingEngine):
    """What the node asks of an engine, too; counts how often it is closed."""

    closed = 0

    def summary(self):
        return 'slow'

    def close(self):
        self.closed += 1


@contextmanager
def a_frame_in_the_engine(name, engine, street):
    """(node, peer, manager, engine, small image, event) of an active node; its engine holds a frame until the event."""
    returns, small = threading.Event(), cv2.resize(street[0], (160, 120))
    with NodeHere(name, 'num_threads:=1', 'engine:=onnxruntime', 'precision:=fp32') as here, Peer(f'/{name}') as peer:
        slow = SlowEngine(engine, {1: lambda: returns.wait(60)})
        here.node._pipeline.engine = here.node._inference._engine = slow
        manager = Manager(peer.connect(), name)
        wait_until(lambda: peer.send(small) and slow.frames, 'a frame in the engine')
        yield here, peer, manager, slow, small, returns


@fault(ENGINE, 'an engine that hangs while the node is deactivated and activated again',
       'activate fails with the reason until the engine returns: one thread uses it at a time; then masks, and a '
       'clean-up closes it')
def test_an_engine_that_hangs_over_a_pause(engine, street):
    with a_frame_in_the_engine('paused', engine, street) as (here, peer, manager, slow, small, returns):
        assert manager.change(DEACTIVATE)
        assert not manager.change(ACTIVATE) and not slow.closed
        assert manager.state() == INACTIVE
        assert 'inference timeout' in here.node.last_error
        returns.set()
        assert manager.change(ACTIVATE)
        peer.connect()
        assert peer.mask_of(small)
        assert sum(thread.name == 'lgseg-inference' for thread in threading.enumerate()) == 1
        assert manager.change(DEACTIVATE) and manager.change(CLEANUP)
        assert slow.closed == 1 and here.error is None


@fault(ENGINE, 'an engine that hangs over a clean-up',
       'the node can be configured and activated again, with another engine; the end of the process knows the thread')
def test_an_engine_that_hangs_over_a_clean_up(engine, street):
    with a_frame_in_the_engine('abandoned', engine, street) as (here, peer, manager, slow, small, returns):
        assert manager.change(DEACTIVATE) and manager.change(CLEANUP)
        assert here.node.engine_is_running() and not slow.closed
        assert manager.change(CONFIGURE) and manager.change(ACTIVATE)
        peer.connect()
        assert peer.mask_of(small)
        assert here.node.engine_is_running(), 'the thread of before'
        returns.set()
        assert manager.change(DEACTIVATE) and manager.change(CLEANUP)
        wait_until(lambda: not here.node.engine_is_running(), 'all threads to end')
        assert here.error is None


@fault(ENGINE, 'an engine that cannot be closed, as after a fault of the GPU',
       'the reason is an error in the log; the node is cleaned up, reports it, and can be configured again')
def test_an_engine_that_cannot_be_closed(street):
    small = cv2.resize(street[0], (160, 120))
    with NodeHere('unclosed', 'num_threads:=1', 'engine:=onnxruntime', 'precision:=fp32') as here, \
            Peer('/unclosed') as peer:
        manager = Manager(peer.connect(), 'unclosed')
        here.node._pipeline.engine.close = lambda: raise_(RuntimeError('an illegal memory access was encountered'))
        assert manager.change(DEACTIVATE) and manager.change(CLEANUP)
        assert manager.state() == UNCONFIGURED
        ticks = len(peer.diagnostics)
        wait_until(lambda: len(peer.diagnostics) > ticks + 1, 'diagnostics')
        assert manager.change(CONFIGURE) and manager.change(ACTIVATE)
        peer.connect()
        assert peer.mask_of(small) and here.error is None


@fault(ENGINE, 'the engine fails at every frame', 'every frame is counted, the log holds one line in 5 s')
def test_the_engine_always_fails(engine, weights):
    always = dict.fromkeys(range(1, 200), lambda: raise_(RuntimeError('no device')))
    with Bench(FailingEngine(engine, always), weights) as bench:
        began = time.monotonic()
        assert not any(bench.frame() for _ in range(50))
        assert bench.camera.counters.failed == 50
        assert 1 <= len(bench.log.errors) <= 1 + (time.monotonic() - began) / 5

"""Rows of the fault table: an engine that fails on a frame, hangs or cannot be closed."""

import dataclasses
import threading
import time
from contextlib import contextmanager

import cv2
import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticStatus
from faults_pictures import picture
from faults_table import fault, fault_rows
from lifecycle_manager import ACTIVATE, CLEANUP, CONFIGURE, DEACTIVATE, INACTIVE, UNCONFIGURED, Manager
from rclpy.executors import SingleThreadedExecutor
from ros_graph import NodeHere, Peer, wait_until

from lgseg_ros.node.camera import Camera
from lgseg_ros.node.segment_node import SegmentNode
from lgseg_ros.node.settings import Settings
from lgseg_ros.node.worker import Worker
from lgseg_ros.vocabulary.vocabulary import VocabularyState

ENGINE = 'The engine (in the test\'s own process: real worker, real engine, real topics)'


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
    """Keeps what the worker says."""

    def __init__(self):
        self.errors = []

    def error(self, text):
        self.errors.append(text)


class Bench:
    """The node's worker and one camera with real topics, around any engine."""

    def __init__(self, engine, weights):
        self.context = rclpy.Context()
        rclpy.init(context=self.context)
        self.node = rclpy.create_node('bench', context=self.context)
        self.camera, self.log = Camera(self.node, ''), Log()
        self.words = VocabularyState(weights.bank)
        self.words.replace(['road', 'sky'])
        self.worker = Worker(engine, self.words, Settings, self.log)
        self.peer = Peer('/bench')

    def __enter__(self):
        wait_until(self.camera.is_watched, 'the peer')
        wait_until(lambda: all(self.peer.node.count_publishers(f'/bench/{name}') for name in ('mask', 'confidence')),
                   'topics')
        time.sleep(0.3)
        return self

    def __exit__(self, *_):
        self.worker.stop()
        self.peer.__exit__()
        self.node.destroy_node()
        rclpy.try_shutdown(context=self.context)

    def frame(self):
        """One frame through the worker; whether it was segmented (else it failed)."""
        before = self.camera.segmented, self.camera.failed
        self.worker.offer(self.camera, picture())
        wait_until(lambda: (self.camera.segmented, self.camera.failed) != before, 'the frame')
        return self.camera.segmented > before[0]


def raise_(error):
    raise error


@fault_rows(ENGINE, 'error', [
    ('the engine raises at the third frame', 'that frame fails, counted and said; the next gives a mask',
     RuntimeError('cuda error 700')),
    ('the engine runs out of memory at the third frame', 'that frame fails, counted and said; the next gives a mask',
     MemoryError('cannot allocate 3 GB')),
    ('OpenCV raises at the third frame', 'that frame fails, counted and said; the next gives a mask',
     cv2.error('resize failed')),
])
def test_the_engine_fails_once(engine, weights, error):
    with Bench(FailingEngine(engine, {3: lambda: raise_(error)}), weights) as bench:
        assert [bench.frame() for _ in range(5)] == [True, True, False, True, True]
        assert str(error) in bench.camera.last_error and type(error).__name__ in bench.camera.last_error
        assert len(bench.log.errors) == 1 and str(error) in bench.log.errors[0]
        wait_until(lambda: len(bench.peer.masks) >= 3, 'masks')


@fault(ENGINE, 'text rows that do not fit the network',
       'each frame fails with what ONNX Runtime says; the right rows mend it')
def test_rows_that_do_not_fit(engine, weights):
    with Bench(engine, weights) as bench:
        good = bench.words.current
        bench.words.current = dataclasses.replace(good, rows=np.ones((2, 7), np.float32))
        assert not bench.frame() and 'rows' in bench.camera.last_error
        bench.words.current = good
        assert bench.frame()


@fault(ENGINE, 'an engine that hangs when the node is told to stop',
       'stop returns in time and says so; the thread ends without an error once the engine returns')
def test_an_engine_that_hangs(engine, weights):
    hangs, returns = threading.Event(), threading.Event()
    with Bench(FailingEngine(engine, {2: lambda: hangs.set() or returns.wait(60)}), weights) as bench:
        assert bench.frame()
        bench.worker.offer(bench.camera, picture())
        assert hangs.wait(30) and not bench.worker.stop(0.2)
        returns.set()
        assert bench.worker.stop(30)   # it ends once the engine returns
        assert not bench.log.errors


@fault(ENGINE, 'an engine that hangs on a frame',
       'diagnostics: ERROR "has not finished its frame for N s"; OK once it does')
def test_a_hanging_engine_is_reported(engine, monkeypatch):
    monkeypatch.setattr('lgseg_ros.node.diagnostics.STUCK_S', 0.2)
    context, returns = rclpy.Context(), threading.Event()
    rclpy.init(context=context)
    node, executor = SegmentNode('hanging', context=context), SingleThreadedExecutor(context=context)
    executor.add_node(node)

    def said(text):
        executor.spin_once(timeout_sec=0.05)
        return [status.level for array in peer.diagnostics for status in array.status
                if status.name == '/hanging: segmentation' and text in status.message]
    try:
        assert node.start()
        node._worker._engine = FailingEngine(engine, {1: lambda: returns.wait(30)})
        with Peer('/hanging') as peer:
            black = np.zeros((48, 64, 3), np.uint8)
            wait_until(lambda: peer.send(black) and said('has not finished its frame for'), 'the error')
            assert said('has not finished')[-1] == DiagnosticStatus.ERROR
            returns.set()
            peer.diagnostics.clear()
            assert wait_until(lambda: said('active'), 'the end of it')[-1] == DiagnosticStatus.OK
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
    """(node, peer, manager, engine, small picture, event) of an active node whose engine is at a frame until the event."""
    returns, small = threading.Event(), cv2.resize(street[0], (160, 120))
    with NodeHere(name, 'threads:=1', 'engine:=onnxruntime', 'precision:=fp32') as here, Peer(f'/{name}') as peer:
        slow = here.node._engine = here.node._worker._engine = SlowEngine(engine, {1: lambda: returns.wait(60)})
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
        assert 'the engine has not finished its frame' in here.node.last_error
        returns.set()
        assert manager.change(ACTIVATE)
        peer.connect()
        assert peer.mask_of(small)
        assert sum(thread.name == 'lgseg-worker' for thread in threading.enumerate()) == 1
        assert manager.change(DEACTIVATE) and manager.change(CLEANUP)
        assert slow.closed == 1 and here.error is None


@fault(ENGINE, 'an engine that hangs over a clean-up',
       'the node can be configured and activated again, with another engine; the end of the process knows of the thread')
def test_an_engine_that_hangs_over_a_clean_up(engine, street):
    with a_frame_in_the_engine('abandoned', engine, street) as (here, peer, manager, slow, small, returns):
        assert manager.change(DEACTIVATE) and manager.change(CLEANUP)
        assert here.node.engine_runs() and not slow.closed
        assert manager.change(CONFIGURE) and manager.change(ACTIVATE)
        peer.connect()
        assert peer.mask_of(small)
        assert here.node.engine_runs(), 'the thread of before'
        returns.set()
        assert manager.change(DEACTIVATE) and manager.change(CLEANUP)
        wait_until(lambda: not here.node.engine_runs(), 'all threads to end')
        assert here.error is None


@fault(ENGINE, 'an engine that cannot be closed, as after a fault of the GPU',
       'the reason is an error in the log; the node is cleaned up, says so, and can be configured again')
def test_an_engine_that_cannot_be_closed(street):
    small = cv2.resize(street[0], (160, 120))
    with NodeHere('unclosed', 'threads:=1', 'engine:=onnxruntime', 'precision:=fp32') as here, Peer('/unclosed') as peer:
        manager = Manager(peer.connect(), 'unclosed')
        here.node._engine.close = lambda: raise_(RuntimeError('an illegal memory access was encountered'))
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
        assert bench.camera.failed == 50
        assert 1 <= len(bench.log.errors) <= 1 + (time.monotonic() - began) / 5

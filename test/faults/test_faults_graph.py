"""Rows of the fault table: faults of cameras, subscribers, processes and clocks; names; two nodes."""

import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack

import cv2
import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Float32

from faults_table import fault, fault_rows
from hostile_images import noise_image
from lifecycle_manager import CONFIGURE, Manager
from ros_graph import RELIABLE, NodeProcess, Peer, counters, wait_until

CAMERAS = 'Cameras and subscribers'
PROCESSES = 'Processes, clocks and names'


@pytest.fixture(scope='module')
def process():
    with NodeProcess('num_threads:=1', name='graph') as process:
        yield process


@pytest.fixture
def peer(process):
    with Peer('/graph') as peer:
        yield peer.connect(process)


@pytest.fixture(scope='module')
def image(street):
    return cv2.resize(street[0], (160, 120))


def has_status(peer, text):
    """Whether a diagnostic message of the camera contains `text`."""
    return any(text in status.message for array in peer.diagnostics for status in array.status
               if status.name == '/graph: camera')


@fault(CAMERAS, 'a camera that sends nothing (0 Hz)',
       'diagnostics: WARN "no images on /image"; the first image gets a mask')
def test_a_silent_camera(peer, image):
    wait_until(lambda: has_status(peer, 'no images on /image'), 'the warning')
    assert peer.mask_of(image)


@fault(CAMERAS, 'a camera of less than one image per second',
       'diagnostics: its rate, and no warning until three of its periods have passed without an image')
def test_a_slow_camera(image):
    with NodeProcess('num_threads:=1', 'diagnostic_updater.period:=0.2', name='slow') as process, Peer('/slow') as peer:
        peer.connect(process).mask_of(image)
        for _ in range(5):
            time.sleep(0.9)
            peer.send(image)
        statuses = [status for array in peer.diagnostics[-15:] for status in array.status if 'camera' in status.name]
        assert {status.level for status in statuses} == {DiagnosticStatus.OK}, [s.message for s in statuses]
        assert '0.0 Hz in' not in ' '.join(status.message for status in statuses)
        peer.diagnostics.clear()
        wait_until(lambda: 'no images on' in str(peer.diagnostics), 'the warning after the last image')


@fault(CAMERAS, 'camera_info of another size than the images',
       'diagnostics: WARN with both sizes; ~/camera_info is not published until they match; masks continue')
def test_camera_info_of_another_size(process, peer, image):
    infos = []
    peer.node.create_subscription(CameraInfo, '/graph/camera_info', infos.append, RELIABLE)
    publisher = peer.node.create_publisher(CameraInfo, 'camera_info', 1)
    wait_until(publisher.get_subscription_count, 'the camera info subscription')

    def wait_for(width, done):
        def published_and_done():
            publisher.publish(CameraInfo(width=width, height=120))
            return peer.mask_of(image) and done()
        return wait_until(published_and_done, f'the status for {width} pixels')
    wait_for(1280, lambda: has_status(peer, 'camera_info is for images of 1280x120, but these are 160x120'))
    assert not infos
    wait_for(160, lambda: infos)
    assert infos[-1].width == 160


@fault(CAMERAS, 'a camera of 200 Hz', 'the latest frames are segmented, in order; the others are counted as dropped')
def test_a_fast_camera(process, peer, image):
    large = np.ascontiguousarray(np.tile(image, (2, 2, 1)))   # takes longer than 5 ms
    peer.mask_of(large)
    ticks = len(peer.diagnostics)   # the second tick from here counts all frames sent until now
    wait_until(lambda: len(peer.diagnostics) > ticks + 1, 'the first counters')
    start = {key: wait_until(lambda: counters(peer, key), key)[-1] for key in ('received', 'segmented', 'dropped')}
    for _ in range(500):
        peer.send(large)
        time.sleep(0.005)
    end = {}

    def settled():
        end.update({key: counters(peer, key)[-1] - start[key] for key in start})
        return end['received'] and abs(end['received'] - end['segmented'] - end['dropped']) <= 1
    ticks = len(peer.diagnostics)
    wait_until(lambda: len(peer.diagnostics) > ticks + 1, 'the last counters')
    wait_until(settled, 'every frame to be accounted for')
    assert end['dropped'] > 0 and end['segmented'] > 5
    order = [(m.header.stamp.sec, m.header.stamp.nanosec) for m in peer.masks]
    assert order == sorted(order)


CAMERA = """
import sys, time
import numpy, rclpy
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image
from std_msgs.msg import Header
from lgseg_ros.node.image_conversions import image_message
rclpy.init()
node = rclpy.create_node('killed_camera')
publisher = node.create_publisher(Image, 'image', qos_profile_sensor_data)
while True:
    header = Header(stamp=node.get_clock().now().to_msg(), frame_id=sys.argv[1])
    publisher.publish(image_message(numpy.zeros((480, 640, 3), numpy.uint8), 'bgr8', header))
    time.sleep(0.03)
"""


@fault(CAMERAS, 'a camera process is killed with SIGKILL while it publishes, and started again',
       'images of the new process get masks; the node keeps running')
def test_a_camera_is_killed(process, peer):
    for name in ('first', 'second'):
        camera = subprocess.Popen([sys.executable, '-c', CAMERA, name])
        try:
            wait_until(lambda: any(m.header.frame_id == name for m in peer.masks), f'a mask of the {name} camera')
            assert process.process.poll() is None
        finally:
            camera.send_signal(signal.SIGKILL)
            camera.wait()


@fault(CAMERAS, 'a subscriber that sleeps in its callback', 'other subscribers get every mask; frames are not delayed')
def test_a_slow_subscriber(process, peer, image):
    received = []

    def sleep(message):
        received.append(message)
        time.sleep(3)
    with Peer('/graph', subscribe=()) as slow:
        slow.node.create_subscription(Image, '/graph/mask', sleep, RELIABLE)
        wait_until(lambda: received or (peer.send(image) and None), 'the slow subscriber to sleep')
        for _ in range(10):
            assert peer.mask_of(image)   # each mask is awaited before the next image is sent
        assert len(received) < 10


@fault(CAMERAS, 'a subscriber that requests best effort', 'it gets masks')
def test_a_best_effort_subscriber(peer, image):
    masks = []
    peer.node.create_subscription(Image, '/graph/mask', masks.append,
                                  QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT))
    wait_until(lambda: masks or (peer.send(image) and None), 'a best-effort mask')


@fault(CAMERAS, 'a subscriber that requests transient local masks',
       "it gets none, and the node's log names topic and policy; other subscribers get masks")
def test_a_transient_local_subscriber(process, peer, image):
    masks = []
    peer.node.create_subscription(Image, '/graph/confidence', masks.append, QoSProfile(
        depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL))
    wait_until(lambda: "'~/confidence', requesting incompatible QoS" in process.log, 'the warning')
    assert 'Last incompatible policy: DURABILITY' in process.log
    assert peer.mask_of(image) and not masks


@fault(CAMERAS, 'a camera that starts later and publishes best effort to a node that requests reliable',
       "the node's log names the camera's node, the policy and the parameter to set")
def test_a_late_camera_of_incompatible_reliability():
    with NodeProcess('image_reliability:=reliable', name='choosy') as process:
        wait_until(lambda: 'activated; subscribed to' in process.log, 'the node to be active')
        with Peer('/choosy', subscribe=()):
            wait_until(lambda: '/peer publishes with reliability BEST_EFFORT' in process.log, 'the warning')
            assert 'set image_reliability:=best_effort' in process.log and 'UNKNOWN' not in process.log


@fault(
    CAMERAS,
    'a subscriber joins and leaves thirty times',
    'masks continue; the number of open file descriptors is constant',
)
def test_subscribers_join_and_leave(process, peer, image):
    def file_descriptors():
        return len(os.listdir(f'/proc/{process.process.pid}/fd'))

    def join_and_leave():
        overlays = []
        subscription = peer.node.create_subscription(Image, '/graph/overlay', overlays.append, RELIABLE)
        wait_until(lambda: overlays or (peer.send(image) and None), 'an overlay')
        peer.node.destroy_subscription(subscription)
    join_and_leave()
    before = file_descriptors()
    for _ in range(30):
        join_and_leave()
    assert file_descriptors() <= before + 3
    assert peer.mask_of(image)


@fault(CAMERAS, 'all faults above', 'no traceback in the log')
def test_no_traceback(process):
    assert 'Traceback' not in process.log, process.log


# --- processes

@fault(PROCESSES, 'the node is killed with SIGKILL while it publishes, and started again',
       'the same subscriber gets masks of the new node, despite stale shared memory segments of the old one')
def test_the_node_is_killed(image):
    with Peer('/restarted') as peer:
        for _ in range(3):
            with NodeProcess('num_threads:=1', name='restarted') as process:
                wait_until(lambda: 'activated; subscribed to' in process.log, 'the node to be active')
                assert peer.mask_of(image)   # sent again until the new node is discovered
                for _ in range(3):
                    peer.send(np.ascontiguousarray(np.tile(image, (5, 5, 1))))
                process.process.kill()
                assert process.process.wait() == -signal.SIGKILL


@fault(PROCESSES, 'two nodes with the same weights in different namespaces, with remapped image topics',
       'each has its own topics, vocabulary and masks; image topics may have any name')
def test_two_nodes_and_their_names(image):
    rules = ('image:=/robot/front/image_raw',)
    with NodeProcess('num_threads:=1', remap=('__ns:=/robot/one', *rules), name='camera_node') as one, \
            NodeProcess('num_threads:=1', remap=('__ns:=/robot/two', *rules), name='camera_node') as two, \
            Peer('/robot/one/camera_node', topic='/robot/front/image_raw') as first, \
            Peer('/robot/two/camera_node', topic='/robot/front/image_raw') as second:
        first.connect(one)
        second.connect(two)
        assert first.set_vocabulary(['road']).success and second.set_vocabulary(['sky', 'road']).success
        assert list(first.get_vocabulary().names) == ['road']
        assert first.mask_of(image).header.frame_id == second.mask_of(image).header.frame_id == 'camera_optical'
        names = [[entry.class_name for entry in wait_until(lambda: peer.labels, 'label info')[-1].class_map]
                 for peer in (first, second)]
        assert names == [['road'], ['sky', 'road']]


@fault(PROCESSES, 'use_sim_time with a /clock that stops, jumps and goes back',
       'masks and diagnostics are published all the time; latency is measured by /clock, not by wall time')
def test_simulated_time(image):
    with NodeProcess('num_threads:=1', 'use_sim_time:=true', 'lazy_subscription:=true', name='sim',
                     remap=('image:=sim/image',)) as process, \
            Peer('/sim', topic='sim/image') as peer:
        latencies = []
        peer.node.create_subscription(Float32, '/sim/latency', latencies.append, RELIABLE)
        clock = peer.node.create_publisher(Clock, '/clock', 1)
        peer.connect(process)   # a lazy node discovers its subscribers although the clock has not started
        assert peer.mask_of(image)
        wait_until(lambda: peer.diagnostics, 'diagnostics without a clock')
        wait_until(clock.get_subscription_count, "the clock's subscription")
        for second in (500, 510, 100):
            message = noise_image()
            message.header.stamp.sec = second

            def latency_by_clock():
                clock.publish(Clock(clock=message.header.stamp))
                peer.publisher.publish(message)
                return latencies and abs(latencies[-1].data) < 1000
            latencies.clear()
            wait_until(latency_by_clock, f'a latency by the clock at {second} s')


STATES = [(state, how) for state in ('unconfigured', 'inactive', 'active', 'active with frames in flight')
          for how in (signal.SIGINT, signal.SIGTERM)]


@pytest.fixture(scope='module')
def exits(image):
    """{(state, signal): (exit code, log)} of nodes that received the signal in that state."""
    results = {}
    for first in range(0, len(STATES), 4):   # four at a time
        with ExitStack() as stack:
            started = [(state, how, f'exiting{first + n}', stack.enter_context(NodeProcess(
                'num_threads:=1', f'autostart:={str(state.startswith("active")).lower()}', name=f'exiting{first + n}')))
                for n, (state, how) in enumerate(STATES[first:first + 4])]
            # One peer at a time: Fast DDS may deadlock between several of one process.
            for state, how, name, process in started:
                with Peer(f'/{name}', subscribe=('mask',)) as peer:
                    bring_to_state(state, process, peer, name, image)
                    code, _ = process.end(how)
                results[state, how] = code, process.log
    return results


def test_a_thread_inside_a_library_does_not_abort_the_exit():
    """Libraries abort if the interpreter is finalized while a thread runs in them, so it is not finalized."""
    code = """
import atexit, sys
from lgseg_ros.node import main
from lgseg_ros.node.segmentation_node import SegmentationNode
atexit.register(print, 'finalized')
SegmentationNode.engine_is_running = lambda self: '-stuck' in sys.argv
sys.exit(main.main(['--ros-args', '-p', 'num_threads:=1', '-r', '__node:=exiting']))
"""
    for argument, finalized in (('-stuck', False), ('-idle', True)):
        process = subprocess.Popen([sys.executable, '-c', code, argument], stdout=subprocess.PIPE,
                                   stderr=subprocess.STDOUT, text=True)
        output = ''
        while 'activated;' not in output:
            line = process.stdout.readline()
            assert line, output
            output += line
        process.send_signal(signal.SIGINT)
        output += process.communicate(timeout=40)[0]
        assert process.returncode == 0 and ('finalized' in output) == finalized, output


@pytest.mark.parametrize('first, second', [(signal.SIGINT, signal.SIGTERM), (signal.SIGTERM, signal.SIGINT)])
def test_a_second_signal_of_another_kind_ends_the_process_at_once(first, second):
    """As ros2 launch does with a node that is still busy."""
    code = """
import time
from lgseg_ros.node import main
from lgseg_ros.node.segmentation_node import SegmentationNode
def start(self):
    print('busy', flush=True)
    end = time.monotonic() + 60
    while time.monotonic() < end:
        pass
SegmentationNode.start = start
main.main(['--ros-args', '-r', '__node:=busy'])
"""
    with subprocess.Popen([sys.executable, '-c', code], stdout=subprocess.PIPE, text=True) as process:
        process.stdout.readline()
        process.send_signal(first)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(1)
        process.send_signal(second)
        assert process.wait(20) == -second


def test_an_exit_without_finalization_reports_the_error(tmp_path):
    """A supervisor needs the exit code and the traceback."""
    code = """
from lgseg_ros.node import main
from lgseg_ros.node.segmentation_node import SegmentationNode
SegmentationNode.engine_is_running = lambda self: True
def fail(self):
    raise KeyError('unexpected')
SegmentationNode.start = fail
main.main(['--ros-args', '-p', 'num_threads:=1', '-r', '__node:=failing'])
"""
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and "KeyError: 'unexpected'" in done.stderr


def bring_to_state(state, process, peer, name, pixels):
    """Bring the node to the state that its row names."""
    if state.startswith('active'):
        peer.connect(process)
        if 'flight' in state:
            peer.mask_of(pixels)
            for _ in range(10):
                peer.send(pixels)
        return
    manager = Manager(peer, name)
    if state == 'inactive':
        assert manager.change(CONFIGURE)


@fault_rows(PROCESSES, 'state, how', [(f'{how.name} while {state}', 'exit code 0, no traceback', state, how)
                                      for state, how in STATES])
def test_the_node_exits_on_signals(exits, state, how):
    code, log = exits.get((state, how), (None, 'the node did not exit'))
    assert code == 0, log
    assert 'Traceback' not in log, log

"""The real node in its own process, and a peer that communicates with it over DDS."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.parameter import Parameter, parameter_value_to_python
from rclpy.parameter_client import AsyncParameterClient
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy, qos_profile_sensor_data
from sensor_msgs.msg import Image
from std_msgs.msg import Header
from vision_msgs.msg import LabelInfo

from lgseg_ros.node.image_conversions import image_message
from lgseg_ros.node.segmentation_node import SegmentationNode
from lgseg_ros.srv import GetVocabulary, SetVocabulary

TIMEOUT_S = 40   # long, because test machines are shared; a wait ends as soon as its condition is true
RELIABLE = QoSProfile(depth=50, reliability=ReliabilityPolicy.RELIABLE)
LATCHED = QoSProfile(depth=50, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL)


def wait_until(condition, what, timeout=TIMEOUT_S):
    """Poll `condition` until it is true and return its value; after `timeout` seconds, fail with `what`."""
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        assert time.monotonic() < deadline, f'waited {timeout} s for {what}'
        time.sleep(0.01)
    return value


class NodeProcess:
    """`segment_node` as a process; its output is kept in `log`."""

    def __init__(self, *parameters, remap=(), name='lgseg'):
        arguments = [text for parameter in parameters for text in ('-p', parameter)]
        arguments += [text for rule in (f'__node:={name}', *remap) for text in ('-r', rule)]
        self.process = subprocess.Popen(
            [sys.executable, '-m', 'lgseg_ros.node.main', '--ros-args', *arguments],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            errors='replace',   # libraries quote damaged files
            start_new_session=True,
            env={**os.environ, 'PYTHONUNBUFFERED': '1', 'RCUTILS_COLORIZED_OUTPUT': '0'})
        self.log = ''
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        for line in self.process.stdout:
            self.log += line

    def end(self, how=signal.SIGINT, timeout=TIMEOUT_S):
        """Signal and wait.  Returns (exit code, seconds it took)."""
        began = time.monotonic()
        if self.process.poll() is None:
            self.process.send_signal(how)
        try:
            code = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise AssertionError(f'the node did not end within {timeout} s of signal {how}\n{self.log}') from None
        seconds = time.monotonic() - began
        self._reader.join(5)
        return code, seconds

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


class NodeRunner:
    """`SegmentationNode` in the test process, for tests that access its members; a thread spins it as `main` does."""

    def __init__(self, name, *parameters):
        arguments = [text for parameter in parameters for text in ('-p', parameter)]
        self.context = rclpy.Context()
        rclpy.init(context=self.context, args=['--ros-args', *arguments])
        self.node = SegmentationNode(name, context=self.context)
        self.error = None       # the exception that ended the thread, as it would have ended the process
        self.iterations = 0     # of the executor
        self._end = threading.Event()
        self.thread = threading.Thread(target=self._spin, daemon=True)

    def _spin(self):
        executor = SingleThreadedExecutor(context=self.context)
        executor.add_node(self.node)
        try:
            while not self._end.is_set():
                executor.spin_once(timeout_sec=0.1)
                self.iterations += 1
        except Exception as error:
            self.error = error

    def __enter__(self):
        assert self.node.start()
        self.thread.start()
        return self

    def cpu_seconds(self):
        """CPU time of the executor's thread in seconds."""
        return time.clock_gettime(time.pthread_getcpuclockid(self.thread.ident))

    def end(self):
        """Stop the node as `main` does."""
        self._end.set()
        self.thread.join(TIMEOUT_S)
        self.node.close()

    def __exit__(self, *_):
        if not self._end.is_set():
            self.end()
        rclpy.try_shutdown(context=self.context)


def counters(peer, key, camera=': camera'):
    """The values of a counter in all diagnostics received so far, oldest first."""
    return [int(value.value) for message in peer.diagnostics for status in message.status
            if status.name.endswith(camera) for value in status.values if value.key == key]


class Peer:
    """A camera and a subscriber in the test process, spun by a thread."""

    def __init__(self, node_name='/lgseg', camera='', topic='image', subscribe=('mask', 'confidence', 'label_info')):
        self.context = rclpy.Context()
        rclpy.init(context=self.context)
        self.node = rclpy.create_node('peer', context=self.context)
        prefix = f'{node_name}/{camera}/' if camera else f'{node_name}/'
        self.masks, self.confidences, self.overlays, self.labels, self.diagnostics = [], [], [], [], []
        kept = {'mask': (Image, self.masks, RELIABLE), 'confidence': (Image, self.confidences, RELIABLE),
                'overlay': (Image, self.overlays, RELIABLE), 'label_info': (LabelInfo, self.labels, LATCHED)}
        self.subscriptions = {}
        for name in subscribe:
            kind, store, qos = kept[name]
            self.subscriptions[name] = self.node.create_subscription(kind, prefix + name, store.append, qos)
        self.node.create_subscription(DiagnosticArray, '/diagnostics', self.diagnostics.append, 10)
        self.publisher = self.node.create_publisher(Image, topic, qos_profile_sensor_data)
        self.set_client = self.node.create_client(SetVocabulary, f'{node_name}/set_vocabulary')
        self.get_client = self.node.create_client(GetVocabulary, f'{node_name}/get_vocabulary')
        self._executor = SingleThreadedExecutor(context=self.context)
        self._executor.add_node(self.node)
        self._thread = threading.Thread(target=self._spin, daemon=True)
        self._thread.start()
        self._stamp = 1000

    def _spin(self):
        with contextlib.suppress(ExternalShutdownException):
            self._executor.spin()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._executor.shutdown()
        self._thread.join(5)
        self.node.destroy_node()
        rclpy.try_shutdown(context=self.context)

    def connect(self, process=None, camera=True):
        """Wait until node and peer have discovered each other; camera: also until the node subscribes to the image."""
        def ready():
            if process and process.process.poll() is not None:
                raise AssertionError(f'the node ended: {process.log}')
            return ((self.publisher.get_subscription_count() or not camera) and self.set_client.service_is_ready()
                    and all(self.node.count_publishers(s.topic_name) for s in self.subscriptions.values()))
        wait_until(ready, 'the node to connect')
        time.sleep(0.3)   # discovery on the node's side cannot be observed here
        return self

    def header(self):
        """A header with a stamp that was never used before."""
        self._stamp += 1
        header = Header(frame_id='camera_optical')
        header.stamp.sec, header.stamp.nanosec = divmod(self._stamp * 33_333_333, 10**9)
        return header

    def send(self, pixels, encoding='bgr8', header=None):
        """Publish an image; returns its header."""
        header = header or self.header()
        self.publisher.publish(image_message(pixels, encoding, header))
        return header

    def mask_of(self, pixels, encoding='bgr8', store=None):
        """Send an image, repeatedly if best effort loses it, and return the mask with its stamp."""
        store = self.masks if store is None else store
        header = self.send(pixels, encoding)
        deadline = time.monotonic() + TIMEOUT_S
        while time.monotonic() < deadline:
            for _ in range(100):
                for message in store:
                    if message.header.stamp == header.stamp:
                        return message
                time.sleep(0.01)
            self.send(pixels, encoding, header)
        raise AssertionError('no mask was received')

    def call(self, client, request, timeout=TIMEOUT_S):
        """Call a service and wait for the answer."""
        future = client.call_async(request)
        wait_until(future.done, f'an answer of {client.srv_name}', timeout)
        return future.result()

    def set_vocabulary(self, classes=(), preset='', **fields):
        return self.call(self.set_client, SetVocabulary.Request(classes=list(classes), preset=preset, **fields))

    def set_parameters(self, node_name, **values):
        """Set parameters one by one, as `ros2 param load` does; returns the results."""
        client = AsyncParameterClient(self.node, node_name)
        wait_until(client.services_are_ready, 'parameter services')
        future = client.set_parameters([Parameter(name, value=value) for name, value in values.items()])
        wait_until(future.done, 'parameters')
        return future.result().results

    def get_parameter(self, node_name, name):
        client = AsyncParameterClient(self.node, node_name)
        wait_until(client.services_are_ready, 'parameter services')
        future = client.get_parameters([name])
        wait_until(future.done, 'a parameter')
        return parameter_value_to_python(future.result().values[0])

    def get_vocabulary(self):
        return self.call(self.get_client, GetVocabulary.Request())


def pixels_of(message):
    """The pixels of a mono8 image message as uint8 [H, W]."""
    return np.frombuffer(message.data, np.uint8).reshape(message.height, message.width)

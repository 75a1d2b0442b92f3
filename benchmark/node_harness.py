"""The ROS graph that the node benchmarks share: the node and a camera as processes, and subscribers in this process."""

import argparse
import contextlib
import json
import os
import random
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import cv2
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image
from vision_msgs.msg import LabelInfo

from lgseg_ros.demo.run import process_environment
from lgseg_ros.demo.street import StreetCamera
from lgseg_ros.media.images import parse_size
from lgseg_ros.utils.ros_utils import limit_discovery_to_localhost
from lgseg_ros.utils.subprocesses import start_module

Process = subprocess.Popen[str]

IMAGE_TOPIC = '/camera/image_raw'
SIZES = ('640x480', '1280x720', '1920x1080')
DISCOVERY_S = 0.5   # until the node has discovered the subscriptions of this process


def reliable_qos(depth: int) -> QoSProfile:
    """Return the profile of a reliable subscription."""
    return QoSProfile(depth=depth, reliability=ReliabilityPolicy.RELIABLE)


def latched_qos(depth: int) -> QoSProfile:
    """Return the profile of a reliable, transient-local subscription."""
    return QoSProfile(depth=depth, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL)


def stamp_ns(message: Image | LabelInfo) -> int:
    """Return the stamp of a message's header in nanoseconds."""
    return int(message.header.stamp.sec * 10**9 + message.header.stamp.nanosec)


def cpu_seconds(pid: int) -> float:
    """Return the user and system time that a process has used so far, in seconds."""
    numbers = Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()
    return (int(numbers[11]) + int(numbers[12])) / os.sysconf('SC_CLK_TCK')


def spin(executor: SingleThreadedExecutor, done: Callable[[], object], timeout_s: float) -> None:
    """Spin until `done()` is true, for at most `timeout_s` seconds."""
    deadline = time.monotonic() + timeout_s
    while not done() and time.monotonic() < deadline:
        executor.spin_once(timeout_sec=0.05)


def never() -> bool:
    """Return False: with `spin`, waits for the whole time-out."""
    return False


class MaskListener:
    """Subscribes to the masks of a camera and to the diagnostics of the node.

    Attributes:
        node: the node of the subscriptions.
        latencies_ms: from the camera's stamp to the arrival of the mask.
        arrivals: monotonic time at which each mask arrived, in seconds.
        diagnostics: values of each diagnostic status of a camera.
    """

    def __init__(self, mask_topic: str = '/lgseg/mask', executor: SingleThreadedExecutor | None = None) -> None:
        """Subscribe; `executor` spins the subscriptions, None for one of this listener."""
        self.node = rclpy.create_node('listener' + mask_topic.replace('/', '_'))
        self.latencies_ms: list[float] = []
        self.arrivals: list[float] = []
        self.diagnostics: list[dict[str, str]] = []
        self.node.create_subscription(Image, mask_topic, self._on_mask, reliable_qos(5))
        self.node.create_subscription(DiagnosticArray, '/diagnostics', self._on_diagnostics, 10)
        self._executor = executor or SingleThreadedExecutor()
        self._executor.add_node(self.node)

    def _on_mask(self, message: Image) -> None:
        self.latencies_ms.append((self.node.get_clock().now().nanoseconds - stamp_ns(message)) / 1e6)
        self.arrivals.append(time.monotonic())

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        self.diagnostics += [
            {value.key: value.value for value in status.values} for status in message.status
            if ': camera' in status.name
        ]

    def spin(self, done: Callable[[], object], timeout_s: float) -> None:
        """Spin until `done()` is true, for at most `timeout_s` seconds."""
        spin(self._executor, done, timeout_s)

    def close(self) -> None:
        """Unsubscribe."""
        self._executor.remove_node(self.node)
        self.node.destroy_node()


class ExecutorThread:
    """Spins a node in a thread of its own."""

    def __init__(self, node: Node) -> None:
        """Start to spin `node`."""
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(node)
        self._thread = threading.Thread(target=self._spin, daemon=True)
        self._thread.start()

    def _spin(self) -> None:
        with contextlib.suppress(ExternalShutdownException):
            self._executor.spin()

    def close(self) -> None:
        """Stop spinning."""
        self._executor.shutdown()
        self._thread.join(5)


def prepare_ros(dds_profile: bool = True) -> None:
    """Initialise rclpy in a random ROS domain of this host, for this process and its children.

    Args:
        dds_profile: use the shipped Fast DDS profile.
    """
    os.environ.setdefault('ROS_DOMAIN_ID', str(random.randint(1, 101)))
    if dds_profile:
        os.environ.update(process_environment())
    else:
        limit_discovery_to_localhost(os.environ)
    rclpy.init(args=[])   # the command line is not for ROS


def start_node(
    *parameters: str,
    remap: str | None = f'image:={IMAGE_TOPIC}',
    log_level: str = 'warn',
    env: Mapping[str, str] | None = None,
) -> Process:
    """Start the segmentation node as a process.

    Args:
        *parameters: 'name:=value'.
        remap: a remapping 'from:=to', None for none.
        log_level: of the node.
        env: environment, None for that of this process.
    """
    options = [*(('-r', remap) if remap else ()), '--log-level', log_level]
    options += [option for parameter in parameters for option in ('-p', parameter)]
    return start_module('lgseg_ros.node.main', '--ros-args', *options, env=env or os.environ)


def start_camera(
    image: str, size: str, rate: float, frames: int, topic: str = IMAGE_TOPIC, env: Mapping[str, str] | None = None
) -> Process:
    """Start a process that publishes one image repeatedly; see `frames_sent` for its output.

    Args:
        image: path of the image.
        size: 'WxH' that it is resized to.
        rate: frames per second.
        frames: number of frames to send.
        topic: of the images.
        env: environment, None for that of this process.
    """
    arguments = ('--source', image, '--topic', topic, '--size', size, '--fps', str(rate), '--frames', str(frames))
    return start_module('lgseg_ros.demo.camera', *arguments, '--loop', env=env or os.environ, stdout=subprocess.PIPE)


def frames_sent(camera: Process, timeout_s: float | None = None) -> int:
    """Wait until a camera process ends; return the number of frames that it has sent."""
    return int(json.loads(camera.communicate(timeout=timeout_s)[0].splitlines()[-1])['frames_sent'])


def write_street_image(folder: str, size: str) -> str:
    """Write an image of the procedural street, 'WxH' in size, to `folder`; return its path."""
    path = str(Path(folder) / f'{size}.png')
    width, height = parse_size(size)
    cv2.imwrite(path, StreetCamera(width, height, seed=1).render(30)[0])
    return path


def make_parser(description: str | None) -> argparse.ArgumentParser:
    """Return a parser whose help shows the description as it is written."""
    return argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)


def add_parameters_option(parser: argparse.ArgumentParser, default: Sequence[str] = ()) -> None:
    """Declare --parameters, 'NAME:=VALUE' of the node."""
    parser.add_argument('--parameters', nargs='+', default=default, metavar='NAME:=VALUE',
                        help='parameters of the node, such as engine:=openvino precision:=int8')

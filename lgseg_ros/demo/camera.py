"""A process that plays a source as a camera: sensor_msgs/Image, best effort, at the source's own rate.

Example:
    python -m lgseg_ros.demo.camera --source street --topic /camera/image_raw
"""

import argparse
import json
import signal
import time
from collections.abc import Callable, Iterator
from itertools import islice
from types import FrameType

import rclpy
from rclpy.node import Node
from rclpy.qos import qos_profile_sensor_data
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from ..media.images import parse_size
from ..media.sources import Source, open_source
from ..node.image_conversions import image_message


def play(node: Node, source: Source, topic: str, max_frames: int | None = None,
         running: Callable[[], bool] = rclpy.ok) -> Iterator[None]:
    """Publish the frames of a source at its rate, after the first subscriber has connected.

    A late frame is not followed by a burst.

    Args:
        node: publishes.
        source: gives the frames.
        topic: of the images.
        max_frames: stop after this many, None for no limit.
        running: stop when it returns False.

    Yields:
        None after each frame.
    """
    publisher = node.create_publisher(Image, topic, qos_profile_sensor_data)
    while running() and not publisher.get_subscription_count():
        time.sleep(0.02)
    due, period = time.monotonic(), 1 / source.fps
    for pixels in islice(source, max_frames):
        time.sleep(max(0.0, due - time.monotonic()))
        if not running():
            return
        due = max(due + period, time.monotonic())
        header = Header(stamp=node.get_clock().now().to_msg(), frame_id='camera')
        publisher.publish(image_message(pixels, 'bgr8', header))
        yield


def main() -> None:
    """Parse the command line and play. Prints {"frames_sent": N} at the end."""
    parser = argparse.ArgumentParser(description='Play a source as a camera.')
    parser.add_argument('--source', default='demo', help='see "lgseg demo --help"')
    parser.add_argument('--topic', default='/camera/image_raw')
    parser.add_argument('--frames', type=int, help='stop after this many')
    parser.add_argument('--size', type=parse_size, default=(None, None), metavar='WxH', help='scale to this size')
    parser.add_argument('--fps', type=float, help="frame rate (default: the source's own)")
    parser.add_argument('--loop', action='store_true', help='start again at the end')
    arguments = parser.parse_args()
    width, height = arguments.size
    received: list[int] = []

    def on_signal(number: int, frame: FrameType | None) -> None:
        received.append(number)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, on_signal)
    # rclpy's own handlers would shut the context down in the middle of a publish.
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    node = rclpy.create_node('camera')
    sent = 0
    try:
        with open_source(arguments.source, width=width, height=height, fps=arguments.fps,
                         loop=arguments.loop) as source:
            for _ in play(node, source, arguments.topic, arguments.frames, lambda: not received):
                sent += 1
        time.sleep(0.5)   # let the last frames leave before the publisher is destroyed
    finally:
        print(json.dumps({'frames_sent': sent}), flush=True)
        node.destroy_node()
        rclpy.try_shutdown()


if __name__ == '__main__':
    main()

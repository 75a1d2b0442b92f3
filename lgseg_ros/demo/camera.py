"""A process that plays a source as a camera: sensor_msgs/Image, best effort, at the source's own rate.

    python -m lgseg_ros.demo.camera --source street --topic /camera/image_raw
"""

import argparse
import json
import signal
import time
from itertools import islice

import rclpy
from rclpy.qos import qos_profile_sensor_data
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from ..node.image_conversions import image_message
from ..media.images import parse_size
from ..media.sources import open_source


def play(node, source, topic, limit=None, going=rclpy.ok):
    """Publish the source's frames at its rate until it ends, `limit` are sent or not `going()`; yields after each.

    Waits for a first subscriber, so that none is sent to nobody.  A frame that is late
    is not made up for by a burst.
    """
    publisher = node.create_publisher(Image, topic, qos_profile_sensor_data)
    while going() and not publisher.get_subscription_count():
        time.sleep(0.02)
    due, period = time.monotonic(), 1 / source.fps
    for pixels in islice(source, limit):
        time.sleep(max(0.0, due - time.monotonic()))
        if not going():
            return
        due = max(due + period, time.monotonic())
        header = Header(stamp=node.get_clock().now().to_msg(), frame_id='camera')
        publisher.publish(image_message(pixels, 'bgr8', header))
        yield


def main():
    """Parse the command line and play; prints {"frames_sent": N} at the end."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--source', default='demo', help='see "lgseg demo --help"')
    parser.add_argument('--topic', default='/camera/image_raw')
    parser.add_argument('--frames', type=int, help='stop after this many')
    parser.add_argument('--size', type=parse_size, default=(None, None), metavar='WxH', help='to scale to')
    parser.add_argument('--fps', type=float, help="instead of the source's own")
    parser.add_argument('--loop', action='store_true', help='start again at the end')
    arguments = parser.parse_args()
    width, height = arguments.size
    signals = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: signals.append(number))
    # rclpy's own handlers would end the context in the middle of a publish.
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    node = rclpy.create_node('camera')
    sent = 0
    try:
        with open_source(arguments.source, width=width, height=height, fps=arguments.fps,
                         loop=arguments.loop) as source:
            for _ in play(node, source, arguments.topic, arguments.frames, lambda: not signals):
                sent += 1
        time.sleep(0.5)   # let the last frames leave before the publisher goes
    finally:
        print(json.dumps({'frames_sent': sent}), flush=True)
        node.destroy_node()
        rclpy.try_shutdown()


if __name__ == '__main__':
    main()

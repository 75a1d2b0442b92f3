"""A change of words while a camera runs at 30 Hz: how long the service takes, and whether a frame suffers.

The real node, a camera process, and this process that calls ~/set_vocabulary four times a second and checks every
mask.  The first half runs without changes, the second with: what is dropped in the second beyond the first is lost to
the changes.  Mislabelled is a mask with an id that the newest LabelInfo stamped no later does not name; words of one
vocabulary are in no other, so that it would show.  The network is small, so that it keeps up with 30 Hz.

    python benchmark/vocabulary.py --parameters engine:=openvino precision:=fp32
"""

import argparse
import json
import sys
import tempfile
import threading
import time
from bisect import bisect_right
from itertools import cycle

import numpy as np
import rclpy
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image
from vision_msgs.msg import LabelInfo

from lgseg_ros.cli.json_output import add_json_option, write_json
from lgseg_ros.utils.subprocesses import stop_process
from lgseg_ros.engines.cpu import machine
from lgseg_ros.srv import SetVocabulary

from node import draw, prepare_ros, start_camera, start_node

VOCABULARIES = (['road', 'car', 'sky'], ['person', 'building', 'tree'], ['fence', 'pole', 'vehicle=truck|bus'])
RATE = 30


class Consumer:
    """Every mask's ids and every LabelInfo, by stamp, in nanoseconds."""

    def __init__(self):
        self.node, self.masks, self.labels = rclpy.create_node('consumer'), {}, {}
        reliable = QoSProfile(depth=50, reliability=ReliabilityPolicy.RELIABLE)
        latched = QoSProfile(depth=50, reliability=ReliabilityPolicy.RELIABLE,
                             durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self.node.create_subscription(Image, '/lgseg/mask', self._on_mask, reliable)
        self.node.create_subscription(LabelInfo, '/lgseg/label_info', self._on_labels, latched)
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self.node)
        self._thread = threading.Thread(target=self._spin, daemon=True)
        self._thread.start()

    def _spin(self):
        try:
            self._executor.spin()
        except ExternalShutdownException:
            pass

    def close(self):
        """Stop listening; what came stays."""
        self._executor.shutdown()
        self._thread.join()
        self.node.destroy_node()

    def _on_mask(self, message):
        self.masks[stamp_ns(message)] = set(np.unique(np.frombuffer(message.data, np.uint8)).tolist()) - {255}

    def _on_labels(self, message):
        self.labels[stamp_ns(message)] = {entry.class_id for entry in message.class_map}

    def mislabelled(self):
        """How many masks hold an id that their LabelInfo does not name."""
        stamps = sorted(self.labels)
        return sum(not ids <= self.labels[stamps[max(bisect_right(stamps, stamp) - 1, 0)]]
                   for stamp, ids in self.masks.items())


def stamp_ns(message):
    """A header's stamp, nanoseconds."""
    return message.header.stamp.sec * 10**9 + message.header.stamp.nanosec


class Caller:
    """Calls ~/set_vocabulary and times the answers."""

    def __init__(self):
        self.node, self.milliseconds = rclpy.create_node('caller'), []
        self._client = self.node.create_client(SetVocabulary, '/lgseg/set_vocabulary')
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self.node)
        if not self._client.wait_for_service(20):
            raise TimeoutError('the node offers no ~/set_vocabulary after 20 s')

    def call(self, words):
        """One change.  Raises RuntimeError when it is refused or not answered."""
        began = time.perf_counter()
        future = self._client.call_async(SetVocabulary.Request(classes=words, confidence_threshold=-1.0))
        self._executor.spin_until_future_complete(future, 5)
        self.milliseconds.append((time.perf_counter() - began) * 1e3)
        if not (future.done() and future.result().success):
            raise RuntimeError(f'change refused: {future.result().message if future.done() else "no answer in 5 s"}')


def run(arguments, picture):
    """Both halves; a dict of figures."""
    node, camera = start_node(f'max_inference_pixels:={arguments.max_inference_pixels}', *arguments.parameters), None
    consumer = Consumer()
    try:
        caller = Caller()
        words = cycle(VOCABULARIES)
        caller.call(next(words))
        camera = start_camera(picture, arguments.size, RATE, 2 * arguments.seconds + 1)
        while not consumer.masks:
            time.sleep(0.02)
        time.sleep(1)
        half = time.time_ns()
        time.sleep(arguments.seconds)
        changing = time.time_ns()
        caller.milliseconds.clear()
        while camera.poll() is None:
            caller.call(next(words))
            time.sleep(0.25)
        sent = json.loads(camera.communicate()[0].splitlines()[-1])['frames_sent']
        time.sleep(1)
    finally:
        for process in filter(None, (camera, node)):
            stop_process(process)
        consumer.close()
    return summarise(consumer, caller.milliseconds, sent, half, changing)


def summarise(consumer, milliseconds, sent, half, changing):
    """Figures; half, changing: when the half without changes began and ended, nanoseconds."""
    stamps = np.array(sorted(consumer.masks))
    still, busy = stamps[(stamps >= half) & (stamps < changing)], stamps[stamps >= changing]
    p50, p95, p99 = np.percentile(milliseconds, [50, 95, 99])
    return {'changes': len(milliseconds), 'round_trip_ms_p50': round(float(p50), 2),
            'round_trip_ms_p95': round(float(p95), 2), 'round_trip_ms_p99': round(float(p99), 2),
            'worst_ms': round(max(milliseconds), 2), 'sent': sent, 'masks': len(stamps),
            'missing_without_changes': missing(still), 'missing_with_changes': missing(busy),
            'mislabelled': consumer.mislabelled()}


def missing(stamps):
    """Frames between the first and the last that gave no mask, told from the gaps at RATE."""
    return int(sum(max(round(gap * RATE / 1e9) - 1, 0) for gap in np.diff(stamps)))


def main():
    """Measure, print, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--size', default='640x480')
    parser.add_argument('--seconds', type=float, default=20, help='of each half (default: %(default)s)')
    parser.add_argument('--max-inference-pixels', type=int, default=240 * 180)
    parser.add_argument('--parameters', nargs='+', default=(), metavar='NAME:=VALUE', help='of the node')
    add_json_option(parser)
    arguments = parser.parse_args()
    prepare_ros()
    with tempfile.TemporaryDirectory() as folder:
        figures = run(arguments, draw(folder, arguments.size))
    rclpy.try_shutdown()
    print(f'{figures["changes"]} changes: round trip {figures["round_trip_ms_p50"]} ms median, '
          f'{figures["round_trip_ms_p95"]} p95, {figures["round_trip_ms_p99"]} p99, {figures["worst_ms"]} worst\n'
          f'{figures["masks"]} masks of {figures["sent"]} frames; missing: {figures["missing_without_changes"]} in the '
          f'half without changes, {figures["missing_with_changes"]} with; mislabelled: {figures["mislabelled"]}')
    write_json(arguments.json, {'benchmark': 'vocabulary', 'machine': machine(), 'size': arguments.size,
                                'rate_hz': RATE, 'max_inference_pixels': arguments.max_inference_pixels,
                                'parameters': list(arguments.parameters), **figures})
    return 0


if __name__ == '__main__':
    sys.exit(main())

"""Vocabulary changes while a camera runs at 30 Hz: response time of the service, and masks lost or mislabelled.

The node and a camera run as processes. This process calls ~/set_vocabulary four times per second and checks each mask.
The first half runs without changes, the second half with changes. Frames without a mask in the second half beyond those
in the first half are lost to the changes. A mask is mislabelled if it holds an id that the newest LabelInfo stamped no
later does not name. No class is in two of the vocabularies, so a mask of the wrong one is detected. The inference size
is small, so that the node keeps up with 30 Hz.

    python benchmark/vocabulary.py --parameters engine:=openvino precision:=fp32
"""

import sys
import tempfile
import time
from argparse import Namespace
from bisect import bisect_right
from itertools import cycle
from typing import Any

import numpy as np
import numpy.typing as npt
import rclpy
from node_harness import (
    ExecutorThread,
    add_parameters_option,
    frames_sent,
    latched_qos,
    make_parser,
    prepare_ros,
    reliable_qos,
    stamp_ns,
    start_camera,
    start_node,
    write_street_image,
)
from rclpy.executors import SingleThreadedExecutor
from sensor_msgs.msg import Image
from vision_msgs.msg import LabelInfo

from lgseg_ros.cli.json_output import add_json_option, write_json
from lgseg_ros.srv import SetVocabulary
from lgseg_ros.utils.hardware import machine
from lgseg_ros.utils.subprocesses import stop_process

VOCABULARIES = (['road', 'car', 'sky'], ['person', 'building', 'tree'], ['fence', 'pole', 'vehicle=truck|bus'])
RATE = 30   # of the camera, Hz


class MaskConsumer:
    """Collects the class ids of each mask and of each LabelInfo.

    Attributes:
        masks: {stamp in nanoseconds: class ids in the mask}.
        labels: {stamp in nanoseconds: class ids that LabelInfo names}.
    """

    def __init__(self) -> None:
        """Subscribe and spin in a thread."""
        self.masks: dict[int, set[int]] = {}
        self.labels: dict[int, set[int]] = {}
        self._node = rclpy.create_node('consumer')
        self._node.create_subscription(Image, '/lgseg/mask', self._on_mask, reliable_qos(50))
        self._node.create_subscription(LabelInfo, '/lgseg/label_info', self._on_labels, latched_qos(50))
        self._thread = ExecutorThread(self._node)

    def close(self) -> None:
        """Unsubscribe; what has been collected stays."""
        self._thread.close()
        self._node.destroy_node()

    def _on_mask(self, message: Image) -> None:
        self.masks[stamp_ns(message)] = set(np.unique(np.frombuffer(message.data, np.uint8)).tolist()) - {255}

    def _on_labels(self, message: LabelInfo) -> None:
        self.labels[stamp_ns(message)] = {entry.class_id for entry in message.class_map}

    def count_mislabelled(self) -> int:
        """Return the number of masks that hold an id that their LabelInfo does not name."""
        stamps = sorted(self.labels)
        return sum(not ids <= self.labels[stamps[max(bisect_right(stamps, stamp) - 1, 0)]]
                   for stamp, ids in self.masks.items())


class VocabularyClient:
    """Calls ~/set_vocabulary and times the responses."""

    def __init__(self) -> None:
        """Wait for the service. Raises TimeoutError after 20 s."""
        self.node, self.milliseconds = rclpy.create_node('vocabulary_client'), list[float]()
        self._client = self.node.create_client(SetVocabulary, '/lgseg/set_vocabulary')
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self.node)
        if not self._client.wait_for_service(20):
            raise TimeoutError('~/set_vocabulary is not available after 20 s; the log of the node has the reason')

    def set_vocabulary(self, classes: list[str]) -> None:
        """Change the vocabulary once. Raises RuntimeError if it is rejected or there is no response within 5 s."""
        start = time.perf_counter()
        future = self._client.call_async(SetVocabulary.Request(classes=classes, confidence_threshold=-1.0))
        self._executor.spin_until_future_complete(future, 5)
        self.milliseconds.append((time.perf_counter() - start) * 1e3)
        if not (future.done() and future.result().success):
            reason = future.result().message if future.done() else 'no response within 5 s'
            raise RuntimeError(f'the vocabulary {classes} was not set: {reason}')


def run(arguments: Namespace, image: str) -> dict[str, Any]:
    """Run both halves; return the results, see `summarize`."""
    node, camera = start_node(f'max_inference_pixels:={arguments.max_inference_pixels}', *arguments.parameters), None
    consumer = MaskConsumer()
    try:
        client = VocabularyClient()
        vocabularies = cycle(VOCABULARIES)
        client.set_vocabulary(next(vocabularies))
        camera = start_camera(image, arguments.size, RATE, int(RATE * (2 * arguments.seconds + 1)))
        while not consumer.masks:
            time.sleep(0.02)
        time.sleep(1)
        start_ns = time.time_ns()
        time.sleep(arguments.seconds)
        changes_ns = time.time_ns()
        client.milliseconds.clear()
        while camera.poll() is None:
            client.set_vocabulary(next(vocabularies))
            time.sleep(0.25)
        sent = frames_sent(camera)
        time.sleep(1)
    finally:
        for process in filter(None, (camera, node)):
            stop_process(process)
        consumer.close()
    return summarize(consumer, client.milliseconds, sent, start_ns, changes_ns)


def summarize(
    consumer: MaskConsumer, milliseconds: list[float], sent: int, start_ns: int, changes_ns: int
) -> dict[str, Any]:
    """Return the results.

    Args:
        consumer: has collected the masks.
        milliseconds: round trip of each vocabulary change.
        sent: number of images.
        start_ns: start of the half without changes.
        changes_ns: start of the half with changes.
    """
    stamps = np.array(sorted(consumer.masks))
    p50, p95, p99 = np.percentile(milliseconds, [50, 95, 99])
    return {'changes': len(milliseconds), 'round_trip_ms_p50': round(float(p50), 2),
            'round_trip_ms_p95': round(float(p95), 2), 'round_trip_ms_p99': round(float(p99), 2),
            'round_trip_ms_max': round(max(milliseconds), 2), 'sent': sent, 'masks': len(stamps),
            'missing_without_changes': count_missing(stamps[(stamps >= start_ns) & (stamps < changes_ns)]),
            'missing_with_changes': count_missing(stamps[stamps >= changes_ns]),
            'mislabelled': consumer.count_mislabelled()}


def count_missing(stamps: npt.NDArray[np.int64]) -> int:
    """Return how many frames between the first and the last have no mask, from the gaps of the stamps at RATE."""
    return int(sum(max(round(gap * RATE / 1e9) - 1, 0) for gap in np.diff(stamps)))


def main() -> int:
    """Measure, print, write JSON."""
    parser = make_parser(__doc__)
    parser.add_argument('--size', default='640x480', metavar='WxH', help='of the images (default: %(default)s)')
    parser.add_argument('--seconds', type=float, default=20, help='of each half (default: %(default)s)')
    parser.add_argument('--max-inference-pixels', type=int, default=240 * 180, metavar='N',
                        help='pixels of the image that the network sees (default: %(default)s)')
    add_parameters_option(parser)
    add_json_option(parser)
    arguments = parser.parse_args()
    prepare_ros()
    with tempfile.TemporaryDirectory() as folder:
        results = run(arguments, write_street_image(folder, arguments.size))
    rclpy.try_shutdown()
    print(f'{results["changes"]} changes: round trip {results["round_trip_ms_p50"]} ms median, '
          f'{results["round_trip_ms_p95"]} p95, {results["round_trip_ms_p99"]} p99, '
          f'{results["round_trip_ms_max"]} max\n'
          f'{results["masks"]} masks of {results["sent"]} frames; missing: {results["missing_without_changes"]} in the '
          f'half without changes, {results["missing_with_changes"]} with; mislabelled: {results["mislabelled"]}')
    write_json(arguments.json, {'benchmark': 'vocabulary', 'machine': machine(), 'size': arguments.size,
                                'rate_hz': RATE, 'max_inference_pixels': arguments.max_inference_pixels,
                                'parameters': list(arguments.parameters), **results})
    return 0


if __name__ == '__main__':
    sys.exit(main())

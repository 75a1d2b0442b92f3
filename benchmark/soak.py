"""Run the real node for minutes with two cameras, vocabulary changes and injected faults; report memory and rates.

    python benchmark/soak.py --minutes 20        (after: source scripts/activate.sh)

The node is a process of its own. This process plays two cameras, a consumer and the faults. The results, printed and in
the JSON file: memory after the warm-up and at the end, file descriptors, threads, rates, drops, failures, and
mismatches. A mismatch is a mask with an id that the newest LabelInfo stamped no later does not name, or an id whose
name has changed.

One fault is injected every --fault-every seconds, in turn: five corrupt images, bytes that are no message, an invalid
request, a request of 1 MB, invalid parameters, a subscriber that joins and leaves, a camera that pauses, an image of
another size.

The exit code is 1 if there was a mismatch, the node ended early or did not end on request, or memory grew by more than
2 % after the warm-up.
"""

import json
import os
import random
import statistics
import sys
import threading
import time
from argparse import Namespace
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from node_harness import (
    ExecutorThread,
    Process,
    latched_qos,
    make_parser,
    prepare_ros,
    reliable_qos,
    stamp_ns,
    start_node,
)
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.parameter_client import AsyncParameterClient
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image
from std_msgs.msg import Header
from vision_msgs.msg import LabelInfo

from lgseg_ros.cli.json_output import add_json_option, write_json
from lgseg_ros.demo.street import StreetCamera
from lgseg_ros.node.image_conversions import image_message
from lgseg_ros.srv import SetVocabulary
from lgseg_ros.utils.hardware import machine
from lgseg_ros.utils.subprocesses import stop_process

CAMERAS = {'front': (480, 360), 'left': (320, 240)}   # width, height
NODE = '/soak'
# No class is in two of the vocabularies, so a mask of the wrong version is detected.
VOCABULARIES = (['road', 'car', 'sky'], ['person', 'building', 'tree'], ['fence', 'pole', 'vehicle=car|truck'],
                ['grass', 'wall', 'ground=road|pavement', 'walker=pedestrian'])
COUNTERS = ('received', 'segmented', 'dropped', 'failed')   # of the node's diagnostics
LATE_S = 2.0        # masks are checked this long after they arrive: LabelInfo is on another topic and can arrive later
MAX_GROWTH = 2.0    # percent of resident memory after the warm-up
MINUTE = 60.0       # seconds

Pixels = npt.NDArray[np.uint8]


class CameraPeer:
    """One camera, and the consumer of its masks.

    Attributes:
        sent: number of images sent.
        masks: number of masks received.
        mismatches: number of masks and ids that LabelInfo does not explain.
        paused_until: monotonic time until which the camera is silent, in seconds.
        corrupt_field: (field, value, number of images): a fault to inject into the next images.
    """

    def __init__(self, node: Node, name: str, size: tuple[int, int]) -> None:
        """Publish images of `size`, width and height, and subscribe to masks and LabelInfo."""
        self.name, self.sent, self.masks, self.mismatches = name, 0, 0, 0
        self.paused_until = 0.0
        self.corrupt_field: tuple[str, object, int] | None = None
        street = StreetCamera(width=size[0], height=size[1], seed=3)
        self.images = [street.render(frame)[0] for frame in range(0, 240, 30)]
        self.publisher = node.create_publisher(Image, f'{name}/image', qos_profile_sensor_data)
        node.create_subscription(Image, f'{NODE}/{name}/mask', self._on_mask, reliable_qos(20))
        node.create_subscription(LabelInfo, f'{NODE}/{name}/label_info', self._on_labels, latched_qos(20))
        self._unchecked: deque[tuple[float, int, set[int]]] = deque()
        self._labels: deque[tuple[int, set[int]]] = deque(maxlen=1000)
        self._names: dict[int, str] = {}

    def send(self, image: Pixels, node: Node) -> None:
        """Publish an image, corrupt if a fault asked for it."""
        header = Header(stamp=node.get_clock().now().to_msg(), frame_id=self.name)
        message = image_message(image, 'bgr8', header)
        if self.corrupt_field:
            field, value, left = self.corrupt_field
            setattr(message, field, value)
            self.corrupt_field = (field, value, left - 1) if left > 1 else None
        self.publisher.publish(message)
        self.sent += 1

    def _on_mask(self, message: Image) -> None:
        self.masks += 1
        present = np.flatnonzero(np.bincount(np.frombuffer(message.data, np.uint8), minlength=256)[:255])
        self._unchecked.append((time.monotonic(), stamp_ns(message), set(present.tolist())))

    def _on_labels(self, message: LabelInfo) -> None:
        names = {entry.class_id: entry.class_name for entry in message.class_map}
        self._labels.append((stamp_ns(message), set(names)))
        self.mismatches += sum(self._names.setdefault(i, name) != name for i, name in names.items())

    def check_masks(self, now: float) -> None:
        """Compare the masks that have waited long enough with the LabelInfo of their time."""
        while self._unchecked and now - self._unchecked[0][0] > LATE_S:
            _, stamp, present = self._unchecked.popleft()
            known = [ids for label_stamp, ids in self._labels if label_stamp <= stamp]
            self.mismatches += not known or not present <= known[-1]


class Soak:
    """The peer of the node: cameras, vocabulary changes, faults and measurements."""

    def __init__(self, node: Node, process: Process, rate: float, seed: int) -> None:
        """Create the clients of the node.

        Args:
            node: of this process.
            process: the segmentation node.
            rate: of each camera, Hz.
            seed: of the choice of faults.
        """
        self.node, self.process, self.rate, self.random = node, process, rate, random.Random(seed)
        self.peers = [CameraPeer(node, name, size) for name, size in CAMERAS.items()]
        self.set_vocabulary = node.create_client(SetVocabulary, f'{NODE}/set_vocabulary')
        self.parameters = AsyncParameterClient(node, NODE)
        self.counters: dict[str, dict[str, int]] = {}
        self.samples: list[tuple[float, float, int, int]] = []   # seconds, resident MB, file descriptors, threads
        self.changes = self.rejected = self.wrong_responses = self.faults = 0
        self._stop, self._pending = threading.Event(), deque[tuple[Any, bool]]()
        node.create_subscription(DiagnosticArray, '/diagnostics', self._on_diagnostics, 10)

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            camera = status.name.partition(': camera ')[2]
            if status.name.startswith(NODE) and camera:
                values = {entry.key: entry.value for entry in status.values}
                self.counters[camera] = {key: int(values[key]) for key in COUNTERS}

    def wait_for_node(self, timeout_s: float = 60) -> None:
        """Wait until service and cameras are connected. Raises SystemExit if the node ends or after the time-out."""
        deadline = time.monotonic() + timeout_s
        while not (self.set_vocabulary.service_is_ready()
                   and all(peer.publisher.get_subscription_count() for peer in self.peers)):
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f'the node did not start within {timeout_s} s; its log above has the reason')
            time.sleep(0.1)

    def run(self, seconds: float, change_every: float, fault_every: float, warmup_s: float,
            show: Callable[[float, 'Soak'], object]) -> dict[str, Any]:
        """Run cameras, vocabulary changes and faults for `seconds`; return the results.

        Args:
            seconds: duration.
            change_every: seconds between vocabulary changes.
            fault_every: seconds between faults.
            warmup_s: seconds after which memory is compared.
            show: is called with the elapsed seconds and this object after each sample.
        """
        start = time.monotonic()
        faults, vocabularies = cycle(self._fault_list()), cycle(VOCABULARIES)
        next_change, next_fault, next_sample = start + change_every, start + fault_every, start
        cameras = [threading.Thread(target=self._publish_images, args=(peer,)) for peer in self.peers]
        for camera in cameras:
            camera.start()
        try:
            while (now := time.monotonic()) < start + seconds and self.process.poll() is None:
                if now >= next_change:
                    self._call(SetVocabulary.Request(classes=next(vocabularies)), True)
                    next_change += change_every
                if now >= next_fault:
                    next(faults)()
                    self.faults += 1
                    next_fault += fault_every
                if now >= next_sample:
                    self.samples.append((now - start, *self._measure()))
                    show(now - start, self)
                    next_sample += max(1.0, seconds / 600)
                for peer in self.peers:
                    peer.check_masks(now)
                time.sleep(0.01)
        finally:
            self._stop.set()
            for camera in cameras:
                camera.join()
        time.sleep(LATE_S + 0.5)
        for peer in self.peers:
            peer.check_masks(time.monotonic() + LATE_S)
        self._collect(10.0)
        self.samples.append((time.monotonic() - start, *self._measure()))
        return self.summary(time.monotonic() - start, warmup_s)

    def _publish_images(self, peer: CameraPeer) -> None:
        for image in cycle(peer.images):
            if self._stop.wait(1 / self.rate):
                return
            if time.monotonic() > peer.paused_until:
                peer.send(image, self.node)

    def _call(self, request: SetVocabulary.Request, expected_success: bool) -> None:
        self._pending.append((self.set_vocabulary.call_async(request), expected_success))
        self._collect(0.0)

    def _collect(self, timeout_s: float) -> None:
        """Count the responses that have arrived; with a time-out, wait for the others and count what is missing."""
        deadline = time.monotonic() + timeout_s
        while self._pending and (self._pending[0][0].done() or time.monotonic() < deadline):
            future, expected = self._pending[0]
            if not future.done():
                time.sleep(0.05)
                continue
            self._pending.popleft()
            self.changes += future.result().success
            self.rejected += not future.result().success
            self.wrong_responses += future.result().success != expected
        self.wrong_responses += len(self._pending) if timeout_s else 0

    # --- faults

    def _fault_list(self) -> Sequence[Callable[[], None]]:
        return (self._corrupt_image, self._no_message, self._invalid_classes, self._huge_request,
                self._invalid_parameter, self._short_subscription, self._pause, self._other_size)

    def _corrupt_image(self) -> None:
        # Several in a row: a single one can be replaced by the next frame before the node reads it.
        self.random.choice(self.peers).corrupt_field = self.random.choice((
            ('height', 2**32 - 1, 5), ('step', 0, 5), ('encoding', 'nonsense', 5), ('width', 0, 5)))

    def _no_message(self) -> None:
        self.random.choice(self.peers).publisher.publish(self.random.randbytes(2000))

    def _invalid_classes(self) -> None:
        self._call(SetVocabulary.Request(classes=['road', 'flumph']), False)

    def _huge_request(self) -> None:
        self._call(SetVocabulary.Request(classes=['x|' * 500_000]), False)

    def _invalid_parameter(self) -> None:
        self.parameters.set_parameters([Parameter('confidence_threshold', value=7.0)])

    def _short_subscription(self) -> None:
        topic = f'{NODE}/{self.random.choice(self.peers).name}/overlay'
        subscription = self.node.create_subscription(Image, topic, lambda message: None, reliable_qos(20))
        threading.Timer(3.0, self.node.destroy_subscription, (subscription,)).start()

    def _pause(self) -> None:
        self.random.choice(self.peers).paused_until = time.monotonic() + 2.0

    def _other_size(self) -> None:
        peer = self.random.choice(self.peers)
        peer.send(cv2.resize(peer.images[0], self.random.choice(((161, 121), (640, 480), (64, 200)))), self.node)

    # --- measurements

    def _measure(self) -> tuple[float, int, int]:
        """Return resident MB, file descriptors and threads of the node's process; zeros once it has ended."""
        folder = Path(f'/proc/{self.process.pid}')
        try:
            pages = int((folder / 'statm').read_text().split()[1])
            return (pages * os.sysconf('SC_PAGE_SIZE') / 1e6, len(os.listdir(folder / 'fd')),
                    len(os.listdir(folder / 'task')))
        except OSError:
            return 0.0, 0, 0

    def _memory(self, steady: Sequence[tuple[float, float, int, int]]) -> dict[str, Any]:
        """Return the resident memory in MB; steady: the samples after the warm-up.

        Medians of a minute, because frames in work and requests of a megabyte come and go between two samples.
        """
        first, last = (statistics.median(sample[1] for sample in steady if abs(sample[0] - edge[0]) <= MINUTE)
                       for edge in (steady[0], steady[-1]))
        minutes: dict[float, list[float]] = {}
        for elapsed, memory, *_ in self.samples:
            minutes.setdefault(elapsed // MINUTE, []).append(memory)
        return {'after_warmup': round(first, 1), 'end': round(last, 1),
                'peak': round(max(sample[1] for sample in self.samples), 1),
                'growth_percent': round((last / first - 1) * 100, 2) if first else None,
                'by_minute': [round(statistics.median(values), 1) for values in minutes.values()]}

    def summary(self, seconds: float, warmup_s: float) -> dict[str, Any]:
        """Return all results of a run of `seconds`."""
        steady = [sample for sample in self.samples if sample[0] >= min(warmup_s, seconds / 2)]
        first, last = steady[0], steady[-1]
        return {
            'benchmark': 'soak', 'machine': machine(),
            'seconds': round(seconds), 'node_alive': self.process.poll() is None,
            'memory_mb': self._memory(steady),
            'file_descriptors': {'after_warmup': first[2], 'end': last[2]},
            'num_threads': {'after_warmup': first[3], 'end': last[3]},
            'vocabulary_changes': self.changes, 'requests_rejected': self.rejected,
            'wrong_or_missing_responses': self.wrong_responses,
            'faults': self.faults, 'mismatches': sum(peer.mismatches for peer in self.peers),
            'cameras': {peer.name: {'sent': peer.sent, 'masks': peer.masks, 'masks_hz': round(peer.masks / seconds, 1),
                                    'mismatches': peer.mismatches, **self.counters.get(peer.name, {})}
                        for peer in self.peers},
        }


def find_problems(result: Mapping[str, Any]) -> list[str]:
    """Return the reasons for which this run has failed."""
    problems = []
    if not result['node_alive']:
        problems.append('the node ended early')
    if result['exit_code'] != 0:
        problems.append(f'the node did not end on request (exit code {result["exit_code"]})')
    if result['mismatches']:
        problems.append(f'{result["mismatches"]} masks or ids that LabelInfo does not explain')
    if result['wrong_or_missing_responses']:
        problems.append(f'{result["wrong_or_missing_responses"]} requests with a wrong or no response')
    growth = result['memory_mb']['growth_percent']
    if growth is None or growth > MAX_GROWTH:
        problems.append(f'memory grew by {growth} % after the warm-up')
    problems += [f'no masks of camera {name}' for name, camera in result['cameras'].items() if not camera['masks']]
    return problems


def show_progress(elapsed: float, soak: Soak) -> None:
    """Print one line for each sample; on a terminal in place."""
    masks = '  '.join(f'{peer.name} {peer.masks}' for peer in soak.peers)
    mismatches = sum(peer.mismatches for peer in soak.peers)
    print(f'{elapsed:7.0f} s  masks: {masks}  changes: {soak.changes}  faults: {soak.faults}  '
          f'mismatches: {mismatches}  memory: {soak.samples[-1][1]:.1f} MB', file=sys.stderr, flush=True,
          end='\r' if sys.stderr.isatty() else '\n')


def parse_arguments() -> Namespace:
    """Parse the command line."""
    parser = make_parser(__doc__)
    parser.add_argument('--minutes', type=float, default=20.0, metavar='M', help='duration (default: %(default)s)')
    parser.add_argument('--rate', type=float, default=15.0, metavar='HZ', help='of each camera (default: %(default)s)')
    parser.add_argument('--change-every', type=float, default=1.0, metavar='S',
                        help='seconds between vocabulary changes (default: %(default)s)')
    parser.add_argument('--fault-every', type=float, default=2.0, metavar='S',
                        help='seconds between faults (default: %(default)s)')
    parser.add_argument('--warmup-minutes', type=float, default=5.0, metavar='M',
                        help='memory growth counts from then on; at most half the run is used. Each camera has had '
                             'each fault after about four minutes (default: %(default)s)')
    parser.add_argument('--seed', type=int, default=0, metavar='N', help='of the choice of faults')
    add_json_option(parser)
    return parser.parse_args()


def main() -> int:
    """Run, print the results. The exit code is 1 if the run has failed."""
    arguments = parse_arguments()
    prepare_ros()
    process = start_node(f'cameras:=[{", ".join(CAMERAS)}]', remap=f'__node:={NODE[1:]}', log_level='fatal')
    node = rclpy.create_node('soak_peer')
    spinner = ExecutorThread(node)
    try:
        soak = Soak(node, process, arguments.rate, arguments.seed)
        soak.wait_for_node()
        result = soak.run(arguments.minutes * MINUTE, arguments.change_every, arguments.fault_every,
                          arguments.warmup_minutes * MINUTE, show_progress)
    finally:
        exit_code = stop_process(process, timeout=30)   # long, because a busy machine is not a failure of the node
        spinner.close()
        rclpy.try_shutdown()
    result['exit_code'] = exit_code
    write_json(arguments.json, result)
    print(json.dumps(result, indent=2))
    problems = find_problems(result)
    print('FAILED: ' + '; '.join(problems) if problems else 'passed')
    return 1 if problems else 0


if __name__ == '__main__':
    sys.exit(main())

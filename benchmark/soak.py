"""Run the real node for minutes with two cameras, changing words and faults mixed in, and say what it cost.

    python benchmark/soak.py --minutes 20        (after: source scripts/activate.sh)

The node runs as a process of its own; this process plays two cameras, a consumer and the faults. At the end, and in
the JSON file: memory after the warm-up and at the end, open handles, threads, rates, drops, failures, and mismatches:
masks that hold an id which the newest LabelInfo stamped no later does not name, or ids that came to mean another name.

Faults, one every --fault-every seconds in turn: five corrupt pictures, bytes that are no message, a refused request, a
request of 1 MB, parameters that are refused, a consumer that joins and leaves, a camera that pauses, a size that
changes.

Exit code 1 when there was a mismatch, the node ended too early or not when told, or memory grew by more than 2 % after
the warm-up.
"""

import argparse
import json
import os
import random
import statistics
import sys
import threading
import time
from collections import deque
from itertools import cycle
from pathlib import Path

import cv2
import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.parameter import Parameter
from rclpy.parameter_client import AsyncParameterClient
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy, qos_profile_sensor_data
from sensor_msgs.msg import Image
from std_msgs.msg import Header
from vision_msgs.msg import LabelInfo

from lgseg_ros.cli.json_output import add_json_option, write_json
from lgseg_ros.demo.run import process_environment
from lgseg_ros.utils.subprocesses import start_module, stop_process
from lgseg_ros.engines.cpu import machine
from lgseg_ros.node.image_conversions import image_message
from lgseg_ros.demo.street import StreetCamera
from lgseg_ros.srv import SetVocabulary

CAMERAS = {'front': (480, 360), 'left': (320, 240)}   # width, height
NODE = '/soak'
RELIABLE = QoSProfile(depth=20, reliability=ReliabilityPolicy.RELIABLE)
LATCHED = QoSProfile(depth=20, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL)
# Words of one vocabulary are in no other, so that a mask of the wrong version shows.
VOCABULARIES = (['road', 'car', 'sky'], ['person', 'building', 'tree'], ['fence', 'pole', 'vehicle=car|truck'],
                ['grass', 'wall', 'ground=road|pavement', 'walker=pedestrian'])
COUNTERS = ('received', 'segmented', 'dropped', 'failed')   # of the node's diagnostics
LATE_S = 2.0        # masks are judged this long after they came: LabelInfo is on another topic and may come later
MOST_GROWTH = 2.0   # percent of resident memory after the warm-up
MINUTE = 60.0


class View:
    """One camera and what a consumer sees of it."""

    def __init__(self, node, name, size):
        self.name, self.size, self.sent, self.masks, self.mismatches = name, size, 0, 0, 0
        self.paused_until, self.spoil = 0.0, None   # spoil: (field, value, how many frames)
        street = StreetCamera(width=size[0], height=size[1], seed=3)
        self.pictures = [street.render(frame)[0] for frame in range(0, 240, 30)]
        self.publisher = node.create_publisher(Image, f'{name}/image', qos_profile_sensor_data)
        node.create_subscription(Image, f'{NODE}/{name}/mask', self._on_mask, RELIABLE)
        node.create_subscription(LabelInfo, f'{NODE}/{name}/label_info', self._on_labels, LATCHED)
        self._waiting, self._told, self._owners = deque(), deque(maxlen=1000), {}

    def send(self, picture, node):
        """Publish a picture, spoilt if a fault asked for it."""
        header = Header(stamp=node.get_clock().now().to_msg(), frame_id=self.name)
        message = image_message(picture, 'bgr8', header)
        if self.spoil:
            field, value, left = self.spoil
            setattr(message, field, value)
            self.spoil = (field, value, left - 1) if left > 1 else None
        self.publisher.publish(message)
        self.sent += 1

    def _on_mask(self, message):
        self.masks += 1
        present = np.flatnonzero(np.bincount(np.frombuffer(message.data, np.uint8), minlength=256)[:255])
        self._waiting.append((time.monotonic(), stamp_of(message), set(present.tolist())))

    def _on_labels(self, message):
        names = {entry.class_id: entry.class_name for entry in message.class_map}
        self._told.append((stamp_of(message), set(names)))
        self.mismatches += sum(self._owners.setdefault(i, name) != name for i, name in names.items())

    def judge(self, now):
        """Compare the masks that have waited long enough with the LabelInfo of their time."""
        while self._waiting and now - self._waiting[0][0] > LATE_S:
            _, stamp, present = self._waiting.popleft()
            known = [ids for when, ids in self._told if when <= stamp]
            self.mismatches += not known or not present <= known[-1]


def stamp_of(message):
    return message.header.stamp.sec, message.header.stamp.nanosec


class Soak:
    """The other end of the node: cameras, words, faults and figures."""

    def __init__(self, node, process, rate, seed):
        self.node, self.process, self.rate, self.random = node, process, rate, random.Random(seed)
        self.views = [View(node, name, size) for name, size in CAMERAS.items()]
        self.set_words = node.create_client(SetVocabulary, f'{NODE}/set_vocabulary')
        self.parameters = AsyncParameterClient(node, NODE)
        self.counters, self.samples = {}, []
        self.changes = self.refused = self.unanswered = self.faults = 0
        self._stop, self._pending = threading.Event(), deque()
        node.create_subscription(DiagnosticArray, '/diagnostics', self._on_diagnostics, 10)

    def _on_diagnostics(self, message):
        for status in message.status:
            camera = status.name.partition(': camera ')[2]
            if status.name.startswith(NODE) and camera:
                values = {entry.key: entry.value for entry in status.values}
                self.counters[camera] = {key: int(values[key]) for key in COUNTERS}

    def wait_for_node(self, seconds=60):
        """Until service and cameras are connected.  Raises SystemExit with the reason."""
        deadline = time.monotonic() + seconds
        while not (self.set_words.service_is_ready() and all(v.publisher.get_subscription_count() for v in self.views)):
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f'the node did not come up within {seconds} s; its log above says why')
            time.sleep(0.1)

    def play(self, seconds, change_every, fault_every, warm_up, show):
        """Everything at once for `seconds`."""
        began = time.monotonic()
        faults, words = cycle(self._fault_list()), cycle(VOCABULARIES)
        next_change, next_fault, next_sample = began + change_every, began + fault_every, began
        cameras = [threading.Thread(target=self._camera, args=(view,)) for view in self.views]
        for camera in cameras:
            camera.start()
        try:
            while (now := time.monotonic()) < began + seconds and self.process.poll() is None:
                if now >= next_change:
                    self._ask(SetVocabulary.Request(classes=next(words)), True)
                    next_change += change_every
                if now >= next_fault:
                    next(faults)()
                    self.faults += 1
                    next_fault += fault_every
                if now >= next_sample:
                    self.samples.append((now - began, *self._measure()))
                    show(now - began, self)
                    next_sample += max(1.0, seconds / 600)
                for view in self.views:
                    view.judge(now)
                time.sleep(0.01)
        finally:
            self._stop.set()
            for camera in cameras:
                camera.join()
        time.sleep(LATE_S + 0.5)
        for view in self.views:
            view.judge(time.monotonic() + LATE_S)
        self._collect(10.0)
        self.samples.append((time.monotonic() - began, *self._measure()))
        return self.summary(time.monotonic() - began, warm_up)

    def _camera(self, view):
        for picture in cycle(view.pictures):
            if self._stop.wait(1 / self.rate):
                return
            if time.monotonic() > view.paused_until:
                view.send(picture, self.node)

    def _ask(self, request, expected):
        self._pending.append((self.set_words.call_async(request), expected))
        self._collect(0.0)

    def _collect(self, seconds):
        deadline = time.monotonic() + seconds
        while self._pending and (self._pending[0][0].done() or time.monotonic() < deadline):
            future, expected = self._pending[0]
            if not future.done():
                time.sleep(0.05)
                continue
            self._pending.popleft()
            self.changes += future.result().success
            self.refused += not future.result().success
            self.unanswered += future.result().success != expected   # the wrong answer counts as none
        self.unanswered += len(self._pending) if seconds else 0

    # --- faults

    def _fault_list(self):
        return (self._corrupt_picture, self._no_message, self._bad_words, self._huge_words, self._bad_parameter,
                self._visitor, self._pause, self._other_size)

    def _corrupt_picture(self):
        # Several in a row: a single one may be replaced by the next frame before anybody looks at it.
        self.random.choice(self.views).spoil = self.random.choice((
            ('height', 2**32 - 1, 5), ('step', 0, 5), ('encoding', 'nonsense', 5), ('width', 0, 5)))

    def _no_message(self):
        self.random.choice(self.views).publisher.publish(self.random.randbytes(2000))

    def _bad_words(self):
        self._ask(SetVocabulary.Request(classes=['road', 'flumph']), False)

    def _huge_words(self):
        self._ask(SetVocabulary.Request(classes=['x|' * 500_000]), False)

    def _bad_parameter(self):
        self.parameters.set_parameters([Parameter('confidence_threshold', value=7.0)])

    def _visitor(self):
        view = self.random.choice(self.views)
        topic = f'{NODE}/{view.name}/overlay'
        subscription = self.node.create_subscription(Image, topic, lambda message: None, RELIABLE)
        threading.Timer(3.0, self.node.destroy_subscription, (subscription,)).start()

    def _pause(self):
        self.random.choice(self.views).paused_until = time.monotonic() + 2.0

    def _other_size(self):
        view = self.random.choice(self.views)
        view.send(cv2.resize(view.pictures[0], self.random.choice(((161, 121), (640, 480), (64, 200)))), self.node)

    # --- figures

    def _measure(self):
        """(resident MB, handles, threads) of the node's process; zeros once it ended."""
        folder = Path(f'/proc/{self.process.pid}')
        try:
            pages = int((folder / 'statm').read_text().split()[1])
            return (pages * os.sysconf('SC_PAGE_SIZE') / 1e6, len(os.listdir(folder / 'fd')),
                    len(os.listdir(folder / 'task')))
        except OSError:
            return 0.0, 0, 0

    def _memory(self, steady):
        """Resident MB; steady: the samples after the warm-up.

        Medians of a minute: frames in work and requests of a megabyte come and go between two samples.
        """
        first, last = (statistics.median(sample[1] for sample in steady if abs(sample[0] - edge[0]) <= MINUTE)
                       for edge in (steady[0], steady[-1]))
        minutes = {}
        for when, memory, *_ in self.samples:
            minutes.setdefault(when // MINUTE, []).append(memory)
        return {'after_warm_up': round(first, 1), 'end': round(last, 1),
                'most': round(max(sample[1] for sample in self.samples), 1),
                'growth_percent': round((last / first - 1) * 100, 2) if first else None,
                'by_minute': [round(statistics.median(values), 1) for values in minutes.values()]}

    def summary(self, seconds, warm_up):
        """All figures as a plain dict."""
        steady = [sample for sample in self.samples if sample[0] >= min(warm_up, seconds / 2)]
        first, last = steady[0], steady[-1]
        return {
            'benchmark': 'soak', 'machine': machine(),
            'seconds': round(seconds), 'node_lives': self.process.poll() is None,
            'memory_mb': self._memory(steady),
            'handles': {'after_warm_up': first[2], 'end': last[2]},
            'num_threads': {'after_warm_up': first[3], 'end': last[3]},
            'vocabulary_changes': self.changes, 'requests_refused': self.refused,
            'wrong_or_no_answers': self.unanswered,
            'faults': self.faults, 'mismatches': sum(view.mismatches for view in self.views),
            'cameras': {view.name: {'sent': view.sent, 'masks': view.masks, 'masks_hz': round(view.masks / seconds, 1),
                                    'mismatches': view.mismatches, **self.counters.get(view.name, {})}
                        for view in self.views},
        }


def problems(result):
    """What makes this a failed run, in words."""
    found = []
    if not result['node_lives']:
        found.append('the node ended')
    if result['exit_code'] != 0:
        found.append(f'the node did not end as told (exit code {result["exit_code"]})')
    if result['mismatches']:
        found.append(f'{result["mismatches"]} masks or ids that LabelInfo does not explain')
    if result['wrong_or_no_answers']:
        found.append(f'{result["wrong_or_no_answers"]} requests with a wrong answer or none')
    growth = result['memory_mb']['growth_percent']
    if growth is None or growth > MOST_GROWTH:
        found.append(f'memory grew by {growth} % after the warm-up')
    found += [f'no masks of camera {name}' for name, camera in result['cameras'].items() if not camera['masks']]
    return found


def show_progress(elapsed, soak):
    """One line a sample; on a terminal in place."""
    masks = '  '.join(f'{view.name} {view.masks}' for view in soak.views)
    wrong = sum(view.mismatches for view in soak.views)
    print(f'{elapsed:7.0f} s  masks: {masks}  changes: {soak.changes}  faults: {soak.faults}  mismatches: {wrong}  '
          f'memory: {soak.samples[-1][1]:.1f} MB', file=sys.stderr, flush=True,
          end='\r' if sys.stderr.isatty() else '\n')


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--minutes', type=float, default=20.0, help='how long (default: %(default)s)')
    parser.add_argument('--rate', type=float, default=15.0, help='Hz of each camera (default: %(default)s)')
    parser.add_argument('--change-every', type=float, default=1.0, metavar='S', help='words (default: %(default)s)')
    parser.add_argument('--fault-every', type=float, default=2.0, metavar='S', help='faults (default: %(default)s)')
    parser.add_argument('--warm-up', type=float, default=5.0, metavar='MINUTES',
                        help='memory is compared from then on, at most half the run; it takes four minutes until '
                             'each camera has met each fault (default: %(default)s)')
    parser.add_argument('--seed', type=int, default=0, help='of the choice of faults')
    add_json_option(parser)
    return parser.parse_args()


def main():
    """Parse the command line, run, print the last lines."""
    arguments = parse_arguments()
    os.environ.setdefault('ROS_DOMAIN_ID', str(random.randint(1, 101)))   # not to meet a robot by chance
    os.environ.update(process_environment())
    process = start_module('lgseg_ros.node.main', '--ros-args', '-r', f'__node:={NODE[1:]}', '--log-level', 'fatal',
                    '-p', f'cameras:=[{", ".join(CAMERAS)}]', env=os.environ)
    rclpy.init()
    node, executor = rclpy.create_node('soak_peer'), SingleThreadedExecutor()
    executor.add_node(node)

    def spin():
        try:
            executor.spin()
        except ExternalShutdownException:
            pass
    spinner = threading.Thread(target=spin, daemon=True)
    spinner.start()
    try:
        soak = Soak(node, process, arguments.rate, arguments.seed)
        soak.wait_for_node()
        result = soak.play(arguments.minutes * 60, arguments.change_every, arguments.fault_every, arguments.warm_up * 60,
                           show_progress)
    finally:
        code = stop_process(process, timeout=30)   # patient: a busy machine is no fault of the node
        executor.shutdown()
        spinner.join(5)
        rclpy.try_shutdown()
    result['exit_code'] = code
    write_json(arguments.json, result)
    print(json.dumps(result, indent=2))
    found = problems(result)
    print('FAILED: ' + '; '.join(found) if found else 'passed: nothing to remark')
    return 1 if found else 0


if __name__ == '__main__':
    sys.exit(main())

"""The node at fixed rates and at its peak: latency, jitter, drops, CPU, and what it adds to the bare engine.

A camera process publishes one picture size at 10 and 30 Hz, best effort, with the shipped transport profile; this
process subscribes to the mask.  Before, the engine alone is timed in this process on the same picture.  `beyond` is
the node's own time for a frame less the engine's, both told by its diagnostics.  The peak is the highest rate of
PEAK_RATES at which less than 5 % of the frames are dropped, found by halving; a rate that fails is tried once more,
because one hiccup of the machine costs 5 %.

    python benchmark/node.py --json benchmark/results/node.json
"""

import argparse
import json
import os
import random
import sys
import tempfile
import time
from argparse import Namespace
from pathlib import Path

import cv2
import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image

from lgseg_ros.cli.json_output import add_json_option, write_json
from lgseg_ros.demo.run import process_environment
from lgseg_ros.utils.subprocesses import start_module, stop_process
from lgseg_ros.engines.cpu import machine
from lgseg_ros.engines.selection import close_engine, create_engine
from lgseg_ros.engines.preprocessing import DEFAULT_PIXELS, Frame
from lgseg_ros.engines.weights import DEFAULT_WEIGHTS, load_weights
from lgseg_ros.demo.street import StreetCamera
from lgseg_ros.vocabulary.vocabulary import VocabularyState

SIZES = ('640x480', '1280x720', '1920x1080')
# The node's parameters that its engine depends on, and their defaults.
ENGINE = {'weights': DEFAULT_WEIGHTS, 'engine': 'auto', 'precision': 'auto', 'num_threads': 0, 'max_inference_pixels': DEFAULT_PIXELS}
PEAK_RATES = (5, 10, 15, 20, 25, 30, 40, 50)


def cpu_seconds(pid):
    """User and system time of a process so far, seconds."""
    numbers = Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()
    return (int(numbers[11]) + int(numbers[12])) / os.sysconf('SC_CLK_TCK')


class Listener:
    """Collects the masks' latencies and the node's own figures."""

    def __init__(self, mask='/lgseg/mask'):
        self.node = rclpy.create_node('listener' + mask.replace('/', '_'))
        self.latencies, self.arrivals, self.ticks = [], [], []
        qos = QoSProfile(depth=5, reliability=ReliabilityPolicy.RELIABLE)
        self.node.create_subscription(Image, mask, self._on_mask, qos)
        self.node.create_subscription(DiagnosticArray, '/diagnostics', self._on_diagnostics, 10)

    def _on_mask(self, message):
        stamp = message.header.stamp.sec * 10**9 + message.header.stamp.nanosec
        self.latencies.append((self.node.get_clock().now().nanoseconds - stamp) / 1e6)
        self.arrivals.append(time.monotonic())

    def _on_diagnostics(self, message):
        self.ticks += [{v.key: v.value for v in s.values} for s in message.status if ': camera' in s.name]

    def spin(self, done, seconds):
        """Spin until `done()` or for `seconds`."""
        deadline = time.monotonic() + seconds
        while not done() and time.monotonic() < deadline:
            rclpy.spin_once(self.node, timeout_sec=0.05)


def start_node(*parameters, remap='image:=/camera/image_raw'):
    """The real node as a process; parameters: 'name:=value'."""
    words = [word for parameter in parameters for word in ('-p', parameter)]
    return start_module('lgseg_ros.node.main', '--ros-args', '-r', remap, '--log-level', 'warn', *words, env=os.environ)


def start_camera(picture, size, rate, seconds, topic='/camera/image_raw'):
    """A process that publishes one picture; prints how many at the end."""
    return start_module('lgseg_ros.demo.camera', '--source', picture, '--topic', topic, '--size', size, '--fps', str(rate),
                 '--frames', str(int(rate * seconds)), '--loop', env=os.environ, stdout=-1)


def bare_engine(picture, size, parameters=(), rounds=40):
    """The engine that the node would take, alone in this process, on the same picture; a dict of figures."""
    given = {**ENGINE, **dict(parameter.split(':=', 1) for parameter in parameters)}
    settings = Namespace(engine=given['engine'], precision=given['precision'], num_threads=int(given['num_threads']),
                         max_inference_pixels=int(given['max_inference_pixels']))
    weights = load_weights(given['weights'])
    vocabulary = VocabularyState(weights.text_embeddings).replace([], 'camvid')
    engine, frame = create_engine(settings, weights, vocabulary=vocabulary), Frame(cv2.imread(picture), 'bgr')
    times = []
    for _ in range(rounds + 5):   # the first five warm up
        began = time.perf_counter()
        engine.run([frame], vocabulary)
        times.append((time.perf_counter() - began) * 1e3)
    summary = engine.summary()
    close_engine(engine)
    milliseconds = float(np.median(times[5:]))
    return {'size': size, 'engine': summary, 'ms': round(milliseconds, 1), 'fps': round(1e3 / milliseconds, 1)}


def measure(picture, size, rate, seconds, parameters=()):
    """One run of camera and node; a dict of figures."""
    node = start_node(*parameters)
    listener = Listener()
    try:
        listener.spin(lambda: listener.ticks, 20)
        listener.spin(lambda: False, 0.5)   # until the node knows that somebody listens
        camera = start_camera(picture, size, rate, seconds)
        listener.spin(lambda: listener.latencies, 20)
        began, used = time.monotonic(), cpu_seconds(node.pid)
        listener.spin(lambda: camera.poll() is not None, seconds * 3 + 20)
        share = (cpu_seconds(node.pid) - used) / (time.monotonic() - began)
        listener.spin(lambda: False, 1.5)   # the last counters
        sent = json.loads(camera.communicate()[0].splitlines()[-1])['frames_sent']
    finally:
        stop_process(node)
        listener.node.destroy_node()
    return summarise(size, rate, sent, listener, share)


def summarise(size, rate, sent, listener, share):
    """Figures of one run.  Raises RuntimeError where there is nothing to tell of."""
    if len(listener.arrivals) < 2 or not listener.ticks:
        raise RuntimeError(f'{len(listener.arrivals)} masks came of {sent} pictures of {size}; the log of the node says why')
    last = listener.ticks[-1]
    busy = [tick for tick in listener.ticks if float(tick['frame_ms']) > 0]
    engine = np.median([float(tick['engine_ms']) for tick in busy])
    beyond = np.median([float(tick['frame_ms']) - float(tick['engine_ms']) for tick in busy])
    p50, p95 = np.percentile(listener.latencies, [50, 95])
    return {'size': size, 'rate_hz': rate, 'sent': sent, 'received': int(last['received']),
            'masks': len(listener.latencies), 'dropped': int(last['dropped']),
            'latency_ms_p50': round(p50, 1), 'latency_ms_p95': round(p95, 1),
            'masks_per_s': round((len(listener.arrivals) - 1) / (listener.arrivals[-1] - listener.arrivals[0]), 1),
            'jitter_ms': round(float(np.std(np.diff(listener.arrivals)) * 1e3), 1),
            'engine_ms': round(float(engine), 1), 'beyond_ms': round(float(beyond), 1),
            'cpu_percent': round(100 * share)}


def show(row, label=''):
    """One line of the table."""
    print(f'{row["size"]:>10} {row["rate_hz"]:>4} Hz  received {row["received"]:>4} of {row["sent"]:<4} '
          f'masks {row["masks"]:>4}  latency {row["latency_ms_p50"]:>6.1f} / {row["latency_ms_p95"]:>6.1f} ms  '
          f'jitter {row["jitter_ms"]} ms  engine {row["engine_ms"]} ms  beyond {row["beyond_ms"]} ms  '
          f'cpu {row["cpu_percent"]} % {label}', flush=True)


def peak(picture, size, seconds, parameters=()):
    """The row of the highest of PEAK_RATES at which under 5 % of the frames sent gave no mask, or None."""
    best, low, high = None, 0, len(PEAK_RATES)
    while low < high:
        middle = (low + high) // 2
        tries = (measure(picture, size, PEAK_RATES[middle], seconds, parameters) for _ in range(2))
        row = next((row for row in tries if row['masks'] >= 0.95 * row['sent']), None)
        if row:
            best, low = row, middle + 1
        else:
            high = middle
    return best


def prepare_ros():
    """A domain of our own and the shipped transport profile, for this process and its children."""
    os.environ.setdefault('ROS_DOMAIN_ID', str(random.randint(1, 101)))
    os.environ.update(process_environment())
    rclpy.init(args=[])   # the command line is not for ROS


def draw(folder, size):
    """The path of a street picture of that size in `folder`."""
    path = str(Path(folder) / f'{size}.png')
    cv2.imwrite(path, StreetCamera(*map(int, size.split('x')), seed=1).render(30)[0])
    return path


def main():
    """Measure, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--sizes', nargs='+', default=SIZES)
    parser.add_argument('--rates', type=int, nargs='+', default=(10, 30))
    parser.add_argument('--seconds', type=float, default=6, help='of each run (default: %(default)s)')
    parser.add_argument('--no-peak', action='store_true', help='leave the search for the peak rate out')
    parser.add_argument('--parameters', nargs='+', default=(), metavar='NAME:=VALUE',
                        help='of the node, such as engine:=openvino precision:=int8')
    add_json_option(parser)
    arguments = parser.parse_args()
    result = {'benchmark': 'node', 'machine': machine(), 'parameters': list(arguments.parameters),
              'bare': [], 'fixed': [], 'peak': []}
    prepare_ros()
    with tempfile.TemporaryDirectory() as folder:
        for size in arguments.sizes:
            picture = draw(folder, size)
            result['bare'].append(bare_engine(picture, size, arguments.parameters))
            print('{size:>10} the engine alone: {ms} ms, {fps} a second ({engine})'.format(**result['bare'][-1]), flush=True)
            for rate in arguments.rates:
                result['fixed'].append(measure(picture, size, rate, arguments.seconds, arguments.parameters))
                show(result['fixed'][-1])
            if not arguments.no_peak and (row := peak(picture, size, arguments.seconds, arguments.parameters)):
                result['peak'].append(row)
                show(row, '<- peak with under 5 % drops')
    rclpy.try_shutdown()
    write_json(arguments.json, result)
    return 0


if __name__ == '__main__':
    sys.exit(main())

"""The node at fixed rates and at its peak: latency, jitter, drops, CPU, and what it adds to the bare engine.

A camera process publishes one picture size at 10 and 30 Hz, best effort, with the shipped transport profile; this
process subscribes to the mask.  `beyond` is the node's own time for a frame less the engine's, both told by its
diagnostics.  The peak is the highest rate tried at which less than 5 % of the frames are dropped.

    python benchmark/node.py --json benchmark/results/node.json
"""

import argparse
import json
import os
import platform
import random
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image

from lgseg_ros.demo.run import environment, start, stop
from lgseg_ros.engines.onnxruntime import usable_cores
from lgseg_ros.sim.street import StreetCamera

SIZES = ('640x480', '1280x720', '1920x1080')
PEAK_RATES = (5, 10, 15, 20, 25, 30, 40, 50)


def cpu_seconds(pid):
    """User and system time of a process so far, seconds."""
    fields = Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf('SC_CLK_TCK')


class Listener:
    """Collects the masks' latencies and the node's own figures."""

    def __init__(self):
        self.node, self.latencies, self.arrivals, self.ticks = rclpy.create_node('listener'), [], [], []
        qos = QoSProfile(depth=5, reliability=ReliabilityPolicy.RELIABLE)
        self.node.create_subscription(Image, '/lgseg/mask', self._on_mask, qos)
        self.node.create_subscription(DiagnosticArray, '/diagnostics', self._on_diagnostics, 10)

    def _on_mask(self, message):
        stamp = message.header.stamp.sec * 10**9 + message.header.stamp.nanosec
        self.latencies.append((self.node.get_clock().now().nanoseconds - stamp) / 1e6)
        self.arrivals.append(time.monotonic())

    def _on_diagnostics(self, message):
        self.ticks += [{v.key: v.value for v in s.values} for s in message.status if s.name.endswith(': camera')]

    def spin(self, done, seconds):
        """Spin until `done()` or for `seconds`."""
        deadline = time.monotonic() + seconds
        while not done() and time.monotonic() < deadline:
            rclpy.spin_once(self.node, timeout_sec=0.05)


def measure(picture, size, rate, seconds):
    """One run of camera and node; a dict of figures."""
    node = start('lgseg_ros.node.main', '--ros-args', '-r', 'image:=/camera/image_raw', '--log-level', 'warn', env=os.environ)
    listener = Listener()
    try:
        listener.spin(lambda: listener.ticks, 20)
        listener.spin(lambda: False, 0.5)   # until the node knows that somebody listens
        camera = start('lgseg_ros.demo.camera', '--source', picture, '--size', size, '--fps', str(rate), '--frames',
                       str(int(rate * seconds)), '--loop', env=os.environ, stdout=-1)
        listener.spin(lambda: listener.latencies, 20)
        began, used = time.monotonic(), cpu_seconds(node.pid)
        listener.spin(lambda: camera.poll() is not None, seconds * 3 + 20)
        share = (cpu_seconds(node.pid) - used) / (time.monotonic() - began)
        listener.spin(lambda: False, 1.5)   # the last counters
        sent = json.loads(camera.communicate()[0].splitlines()[-1])['frames_sent']
    finally:
        stop(node)
        listener.node.destroy_node()
    return summarise(size, rate, sent, listener, share)


def summarise(size, rate, sent, listener, share):
    """Figures of one run."""
    last = listener.ticks[-1]
    busy = [tick for tick in listener.ticks if float(tick['frame_ms']) > 0]
    engine = np.median([float(tick['engine_ms']) for tick in busy])
    beyond = np.median([float(tick['frame_ms']) - float(tick['engine_ms']) for tick in busy])
    p50, p95 = np.percentile(listener.latencies, [50, 95])
    return {'size': size, 'rate_hz': rate, 'sent': sent, 'received': int(last['received']),
            'masks': len(listener.latencies), 'dropped': int(last['dropped']),
            'latency_ms_p50': round(p50, 1), 'latency_ms_p95': round(p95, 1),
            'jitter_ms': round(float(np.std(np.diff(listener.arrivals)) * 1e3), 1) if len(listener.arrivals) > 2 else None,
            'engine_ms': round(float(engine), 1), 'beyond_ms': round(float(beyond), 1),
            'cpu_percent': round(100 * share)}


def show(row, label=''):
    """One line of the table."""
    print(f'{row["size"]:>10} {row["rate_hz"]:>4} Hz  received {row["received"]:>4} of {row["sent"]:<4} masks {row["masks"]:>4}'
          f'  latency {row["latency_ms_p50"]:>6.1f} / {row["latency_ms_p95"]:>6.1f} ms  jitter {row["jitter_ms"]} ms'
          f'  engine {row["engine_ms"]} ms  beyond {row["beyond_ms"]} ms  cpu {row["cpu_percent"]} % {label}', flush=True)


def peak(picture, size, seconds):
    """The last row, by rising rate, in which under 5 % of the frames sent gave no mask; None if there is none."""
    best = None
    for rate in PEAK_RATES:
        row = measure(picture, size, rate, seconds)
        if row['masks'] < 0.95 * row['sent']:
            break
        best = row
    return best


def main():
    """Measure, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--sizes', nargs='+', default=SIZES)
    parser.add_argument('--rates', type=int, nargs='+', default=(10, 30))
    parser.add_argument('--seconds', type=float, default=8, help='of each run (default: %(default)s)')
    parser.add_argument('--no-peak', action='store_true', help='leave the search for the peak rate out')
    parser.add_argument('--json', metavar='FILE')
    arguments = parser.parse_args()
    os.environ.setdefault('ROS_DOMAIN_ID', str(random.randint(1, 101)))
    os.environ.update(environment())
    result = {'benchmark': 'node', 'machine': f'{platform.machine()}, {usable_cores()} cores', 'fixed': [], 'peak': []}
    rclpy.init()
    with tempfile.TemporaryDirectory() as folder:
        for size in arguments.sizes:
            picture = str(Path(folder) / f'{size}.png')
            cv2.imwrite(picture, StreetCamera(*map(int, size.split('x')), seed=1).render(30)[0])
            for rate in arguments.rates:
                result['fixed'].append(measure(picture, size, rate, arguments.seconds))
                show(result['fixed'][-1])
            if not arguments.no_peak and (row := peak(picture, size, arguments.seconds)):
                result['peak'].append(row)
                show(row, '<- peak with under 5 % drops')
    rclpy.try_shutdown()
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(result, indent=2) + '\n')
    return 0


if __name__ == '__main__':
    sys.exit(main())

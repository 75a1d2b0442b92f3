"""What more cameras cost: one node, one model, 1, 2 and 4 cameras at 10 Hz each, then as fast as they come.

For every number of cameras: frames sent and masks received, the worst camera's share of the masks (1 / cameras is
fair), latency from stamp to mask over all cameras, and the node's processor time.

    python benchmark/cameras.py --json benchmark/results/cameras.json
"""

import argparse
import json
import sys
import tempfile
import time

import numpy as np
import rclpy
from rclpy.executors import SingleThreadedExecutor

from lgseg_ros.cli.json_output import add_json_option, write_json
from lgseg_ros.utils.subprocesses import stop_process
from lgseg_ros.engines.cpu import machine

from node import Listener, cpu_seconds, draw, prepare_ros, start_camera, start_node


def measure(picture, size, cameras, rate, seconds, parameters):
    """One run; a dict of figures."""
    names = [f'camera{n}' for n in range(cameras)]
    node = start_node(f'cameras:=[{", ".join(names)}]', *parameters, remap='unused:=unused')
    listeners, executor, senders = [Listener(f'/lgseg/{name}/mask') for name in names], SingleThreadedExecutor(), []
    for listener in listeners:
        executor.add_node(listener.node)
    try:
        spin(executor, lambda: all(listener.ticks for listener in listeners), 20)
        spin(executor, lambda: False, 0.5)   # until the node knows that somebody listens
        senders = [start_camera(picture, size, rate, seconds, f'/{name}/image') for name in names]
        spin(executor, lambda: all(listener.latencies for listener in listeners), 20)
        began, used = time.monotonic(), cpu_seconds(node.pid)
        before = sum(len(listener.latencies) for listener in listeners)
        spin(executor, lambda: any(sender.poll() is not None for sender in senders), seconds * 3 + 20)
        passed, share = time.monotonic() - began, cpu_seconds(node.pid) - used
        masks = sum(len(listener.latencies) for listener in listeners) - before
        spin(executor, lambda: all(sender.poll() is not None for sender in senders), 20)
        spin(executor, lambda: False, 0.5)
        sent = sum(json.loads(sender.communicate()[0].splitlines()[-1])['frames_sent'] for sender in senders)
    finally:
        for process in (*senders, node):
            stop_process(process)
        for listener in listeners:
            listener.node.destroy_node()
    counts = [len(listener.latencies) for listener in listeners]
    p50, p95 = np.percentile([ms for listener in listeners for ms in listener.latencies], [50, 95])
    return {'cameras': cameras, 'rate_hz': rate, 'size': size, 'sent': sent, 'masks': sum(counts),
            'masks_per_second': round(masks / passed, 1), 'worst_share': round(min(counts) / sum(counts), 3),
            'latency_ms_p50': round(float(p50), 1), 'latency_ms_p95': round(float(p95), 1),
            'cpu_ms_per_mask': round(1e3 * share / max(masks, 1), 1), 'cpu_percent': round(100 * share / passed)}


def spin(executor, done, seconds):
    """Spin until `done()` or for `seconds`."""
    deadline = time.monotonic() + seconds
    while not done() and time.monotonic() < deadline:
        executor.spin_once(timeout_sec=0.05)


def show(row):
    """One line of the table."""
    print(f'{row["cameras"]} x {row["rate_hz"]:>2} Hz  masks {row["masks"]:>4} of {row["sent"]:<4} '
          f'{row["masks_per_second"]:>5} a second, worst camera {row["worst_share"]:.0%}  latency '
          f'{row["latency_ms_p50"]:>6} / {row["latency_ms_p95"]:>6} ms  cpu {row["cpu_ms_per_mask"]} ms a mask',
          flush=True)


def main():
    """Measure, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--cameras', type=int, nargs='+', default=(1, 2, 4))
    parser.add_argument('--rates', type=int, nargs='+', default=(10, 30), help='of each camera (default: 10 30)')
    parser.add_argument('--size', default='640x480')
    parser.add_argument('--seconds', type=float, default=8, help='of each run (default: %(default)s)')
    parser.add_argument('--parameters', nargs='+', default=(), metavar='NAME:=VALUE', help='of the node')
    add_json_option(parser)
    arguments = parser.parse_args()
    result = {'benchmark': 'cameras', 'machine': machine(), 'parameters': list(arguments.parameters), 'rows': []}
    prepare_ros()
    with tempfile.TemporaryDirectory() as folder:
        picture = draw(folder, arguments.size)
        for rate in arguments.rates:
            for cameras in arguments.cameras:
                result['rows'].append(measure(picture, arguments.size, cameras, rate, arguments.seconds,
                                              arguments.parameters))
                show(result['rows'][-1])
    rclpy.try_shutdown()
    write_json(arguments.json, result)
    return 0


if __name__ == '__main__':
    sys.exit(main())

"""From nothing to the first mask: import times, and the time from starting the node to its first mask.

A camera is running before the node starts; discovery, loading, compiling and the first frame are all in the time.
The second start of an engine may be faster than the first where it keeps compiled graphs: with --fresh the user's
cache is an empty folder, and the first start is told too.

    python benchmark/startup.py --json benchmark/results/startup.json
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import rclpy

from lgseg_ros.cli.json_output import add_json_option, write_json
from lgseg_ros.utils.subprocesses import stop_process
from lgseg_ros.engines.cpu import machine

from node import Listener, draw, prepare_ros, start_camera, start_node

IMPORTS = ('lgseg_ros.node.main', 'lgseg_ros.engines.onnxruntime_engine', 'lgseg_ros.cli.main', 'onnxruntime', 'rclpy')


def import_seconds(module, times):
    """Median seconds of importing a module in a new Python, less the Python's own start."""
    def once(code):
        began = time.perf_counter()
        subprocess.run([sys.executable, '-c', code], check=True)
        return time.perf_counter() - began
    return statistics.median(once(f'import {module}') - once('pass') for _ in range(times))


def first_mask_seconds(picture, size, parameters):
    """Seconds from starting the node's process to its first mask, while a camera runs at 30 Hz."""
    listener = Listener()
    camera = start_camera(picture, size, 30, 60)
    try:
        spin_until(listener, lambda: listener.node.count_publishers('/camera/image_raw'), 20)
        began = time.monotonic()
        node = start_node(*parameters)
        try:
            spin_until(listener, lambda: listener.arrivals, 60)
            return listener.arrivals[0] - began
        finally:
            stop_process(node)
    finally:
        camera.kill()
        camera.communicate()
        listener.node.destroy_node()


def spin_until(listener, done, seconds):
    """Spin until `done()`.  Raises TimeoutError after `seconds`."""
    listener.spin(done, seconds)
    if not done():
        raise TimeoutError(f'nothing came within {seconds} s')


def main():
    """Measure, print, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--engines', nargs='+', default=('auto',), help='default: auto')
    parser.add_argument('--size', default='640x480')
    parser.add_argument('--times', type=int, default=5, help='of each (default: %(default)s)')
    parser.add_argument('--fresh', action='store_true', help='begin with an empty cache')
    add_json_option(parser)
    arguments = parser.parse_args()
    result = {'benchmark': 'startup', 'machine': machine(), 'import_s': {}, 'first_mask_s': {}}
    for module in IMPORTS:
        result['import_s'][module] = round(import_seconds(module, arguments.times), 3)
        print(f'import {module:<32} {result["import_s"][module]:.2f} s', flush=True)
    prepare_ros()
    with tempfile.TemporaryDirectory() as folder:
        if arguments.fresh:
            os.environ['LGSEG_CACHE'] = str(Path(folder) / 'cache')
        picture = draw(folder, arguments.size)
        for engine in arguments.engines:
            times = [first_mask_seconds(picture, arguments.size, [f'engine:={engine}'])
                     for _ in range(arguments.times)]
            result['first_mask_s'][engine] = {'first': round(times[0], 2), 'median': round(statistics.median(times), 2),
                                              'worst': round(max(times), 2)}
            print(f'first mask, engine {engine:<12} first {times[0]:.2f} s, median of {len(times)} '
                  f'{statistics.median(times):.2f} s, worst {max(times):.2f} s', flush=True)
    rclpy.try_shutdown()
    write_json(arguments.json, result)
    return 0


if __name__ == '__main__':
    sys.exit(main())

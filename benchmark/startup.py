"""Import times, and the time from the start of the node to its first mask.

A camera runs before the node starts. The time includes discovery, loading, compiling and the first frame. The second
start of an engine can be faster than the first because it caches compiled graphs. With --fresh the cache is an empty
folder; the time of the first start is then that of a new machine.

    python benchmark/startup.py --json benchmark/results/startup.json
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import rclpy
from node_harness import (
    IMAGE_TOPIC,
    MaskListener,
    make_parser,
    prepare_ros,
    start_camera,
    start_node,
    write_street_image,
)

from lgseg_ros.cli.json_output import add_json_option, write_json
from lgseg_ros.utils.hardware import machine
from lgseg_ros.utils.subprocesses import stop_process

MODULES = ('lgseg_ros.node.main', 'lgseg_ros.engines.onnxruntime_engine', 'lgseg_ros.cli.main', 'onnxruntime', 'rclpy')
RATE = 30   # of the camera, Hz


def import_seconds(module: str, iterations: int) -> float:
    """Return the median seconds of importing a module in a new Python, less the start of Python itself."""
    def run_python(code: str) -> float:
        start = time.perf_counter()
        subprocess.run([sys.executable, '-c', code], check=True)
        return time.perf_counter() - start
    return statistics.median(run_python(f'import {module}') - run_python('pass') for _ in range(iterations))


def first_mask_seconds(image: str, size: str, parameters: Sequence[str]) -> float:
    """Return the seconds from the start of the node's process to its first mask, while a camera runs at 30 Hz."""
    listener = MaskListener()
    camera = start_camera(image, size, RATE, RATE * 60)
    try:
        spin_until(listener, lambda: listener.node.count_publishers(IMAGE_TOPIC), 20)
        start = time.monotonic()
        node = start_node(*parameters)
        try:
            spin_until(listener, lambda: listener.arrivals, 60)
            return listener.arrivals[0] - start
        finally:
            stop_process(node)
    finally:
        camera.kill()
        camera.communicate()
        listener.close()


def spin_until(listener: MaskListener, done: Callable[[], object], timeout_s: float) -> None:
    """Spin until `done()` is true. Raises TimeoutError after `timeout_s` seconds."""
    listener.spin(done, timeout_s)
    if not done():
        raise TimeoutError(f'no image publisher or no mask within {timeout_s} s; the log of the node has the reason')


def main() -> int:
    """Measure, print, write JSON."""
    parser = make_parser(__doc__)
    parser.add_argument('--engines', nargs='+', default=('auto',), help='default: auto')
    parser.add_argument('--size', default='640x480', metavar='WxH', help='of the images (default: %(default)s)')
    parser.add_argument('--iterations', type=int, default=5, metavar='N',
                        help='of each measurement (default: %(default)s)')
    parser.add_argument('--fresh', action='store_true', help='start with an empty cache')
    add_json_option(parser)
    arguments = parser.parse_args()
    result: dict[str, Any] = {'benchmark': 'startup', 'machine': machine(), 'import_s': {}, 'first_mask_s': {}}
    for module in MODULES:
        result['import_s'][module] = round(import_seconds(module, arguments.iterations), 3)
        print(f'import {module:<38} {result["import_s"][module]:.2f} s', flush=True)
    prepare_ros()
    with tempfile.TemporaryDirectory() as folder:
        if arguments.fresh:
            os.environ['LGSEG_CACHE'] = str(Path(folder) / 'cache')
        image = write_street_image(folder, arguments.size)
        for engine in arguments.engines:
            times = [first_mask_seconds(image, arguments.size, [f'engine:={engine}'])
                     for _ in range(arguments.iterations)]
            result['first_mask_s'][engine] = {'first': round(times[0], 2), 'median': round(statistics.median(times), 2),
                                              'max': round(max(times), 2)}
            print(f'first mask, engine {engine:<12} first {times[0]:.2f} s, median of {len(times)} '
                  f'{statistics.median(times):.2f} s, max {max(times):.2f} s', flush=True)
    rclpy.try_shutdown()
    write_json(arguments.json, result)
    return 0


if __name__ == '__main__':
    sys.exit(main())

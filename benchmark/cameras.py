"""The cost of more cameras: one node and one model with 1, 2 and 4 cameras, at 10 and 30 Hz each.

For each number of cameras: frames sent, masks received, the smallest share of the masks that one camera got
(1 / cameras is fair), latency from stamp to mask over all cameras, and the CPU time of the node.

    python benchmark/cameras.py --json benchmark/results/cameras.json
"""

import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import rclpy
from node_harness import (
    DISCOVERY_S,
    MaskListener,
    Process,
    add_parameters_option,
    cpu_seconds,
    frames_sent,
    make_parser,
    never,
    prepare_ros,
    spin,
    start_camera,
    start_node,
    write_street_image,
)
from rclpy.executors import SingleThreadedExecutor

from lgseg_ros.cli.json_output import add_json_option, write_json
from lgseg_ros.utils.hardware import machine
from lgseg_ros.utils.subprocesses import stop_process


def measure(
    image: str, size: str, num_cameras: int, rate: int, seconds: float, parameters: Sequence[str]
) -> dict[str, Any]:
    """Run the node with so many cameras; return the results."""
    names = [f'camera{n}' for n in range(num_cameras)]
    node = start_node(f'cameras:=[{", ".join(names)}]', *parameters, remap=None)
    executor, cameras = SingleThreadedExecutor(), list[Process]()
    listeners = [MaskListener(f'/lgseg/{name}/mask', executor) for name in names]
    try:
        spin(executor, lambda: all(listener.diagnostics for listener in listeners), 20)
        spin(executor, never, DISCOVERY_S)
        cameras = [start_camera(image, size, rate, int(rate * seconds), f'/{name}/image') for name in names]
        spin(executor, lambda: all(listener.latencies_ms for listener in listeners), 20)
        start, used = time.monotonic(), cpu_seconds(node.pid)
        before = sum(len(listener.latencies_ms) for listener in listeners)
        spin(executor, lambda: any(camera.poll() is not None for camera in cameras), seconds * 3 + 20)
        elapsed, cpu_s = time.monotonic() - start, cpu_seconds(node.pid) - used
        masks = sum(len(listener.latencies_ms) for listener in listeners) - before
        spin(executor, lambda: all(camera.poll() is not None for camera in cameras), 20)
        spin(executor, never, 0.5)   # the last masks
        sent = sum(frames_sent(camera) for camera in cameras)
    finally:
        for process in (*cameras, node):
            stop_process(process)
        for listener in listeners:
            listener.close()
    counts = [len(listener.latencies_ms) for listener in listeners]
    p50, p95 = np.percentile([ms for listener in listeners for ms in listener.latencies_ms], [50, 95])
    return {'cameras': num_cameras, 'rate_hz': rate, 'size': size, 'sent': sent, 'masks': sum(counts),
            'masks_per_s': round(masks / elapsed, 1), 'min_share': round(min(counts) / sum(counts), 3),
            'latency_ms_p50': round(float(p50), 1), 'latency_ms_p95': round(float(p95), 1),
            'cpu_ms_per_mask': round(1e3 * cpu_s / max(masks, 1), 1), 'cpu_percent': round(100 * cpu_s / elapsed)}


def show(row: dict[str, Any]) -> None:
    """Print one line of the table."""
    print(f'{row["cameras"]} x {row["rate_hz"]:>2} Hz  masks {row["masks"]:>4} of {row["sent"]:<4} '
          f'{row["masks_per_s"]:>5} masks/s  smallest share {row["min_share"]:.0%}  latency '
          f'{row["latency_ms_p50"]:>6} / {row["latency_ms_p95"]:>6} ms  CPU {row["cpu_ms_per_mask"]} ms per mask',
          flush=True)


def main() -> int:
    """Measure, print a table, write JSON."""
    parser = make_parser(__doc__)
    parser.add_argument('--cameras', type=int, nargs='+', default=(1, 2, 4), metavar='N', help='default: 1 2 4')
    parser.add_argument('--rates', type=int, nargs='+', default=(10, 30), metavar='HZ',
                        help='of each camera (default: 10 30)')
    parser.add_argument('--size', default='640x480', metavar='WxH', help='of the images (default: %(default)s)')
    parser.add_argument('--seconds', type=float, default=8, help='of each run (default: %(default)s)')
    add_parameters_option(parser)
    add_json_option(parser)
    arguments = parser.parse_args()
    rows = []
    prepare_ros()
    with tempfile.TemporaryDirectory() as folder:
        image = write_street_image(folder, arguments.size)
        for rate in arguments.rates:
            for num_cameras in arguments.cameras:
                rows.append(measure(image, arguments.size, num_cameras, rate, arguments.seconds, arguments.parameters))
                show(rows[-1])
    rclpy.try_shutdown()
    write_json(arguments.json, {'benchmark': 'cameras', 'machine': machine(),
                                'parameters': list(arguments.parameters), 'rows': rows})
    return 0


if __name__ == '__main__':
    sys.exit(main())

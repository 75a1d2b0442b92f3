"""Flame graph of the Python stacks of the node while a camera runs.

py-spy samples the node's process from outside.

    python benchmark/profile_node.py --out out/node.svg
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import rclpy
from node_harness import (
    MaskListener,
    add_parameters_option,
    make_parser,
    prepare_ros,
    start_camera,
    start_node,
    write_street_image,
)

from lgseg_ros.utils.subprocesses import stop_process


def main() -> int:
    """Run a camera and the node, and py-spy beside them; return the exit code of py-spy."""
    parser = make_parser(__doc__)
    parser.add_argument('--size', default='1280x720', metavar='WxH', help='of the images (default: %(default)s)')
    parser.add_argument('--rate', type=int, default=10, metavar='HZ', help='of the camera (default: %(default)s)')
    parser.add_argument('--seconds', type=int, default=15, help='of profiling (default: %(default)s)')
    parser.add_argument('--format', choices=('flamegraph', 'raw', 'speedscope'), default='flamegraph')
    add_parameters_option(parser)
    parser.add_argument('--out', default='out/node.svg', metavar='FILE', help='default: %(default)s')
    arguments = parser.parse_args()
    Path(arguments.out).parent.mkdir(parents=True, exist_ok=True)
    prepare_ros()
    with tempfile.TemporaryDirectory() as folder:
        node, listener = start_node(*arguments.parameters), MaskListener()
        camera = start_camera(write_street_image(folder, arguments.size), arguments.size, arguments.rate,
                              arguments.rate * (arguments.seconds + 10))
        try:
            listener.spin(lambda: listener.latencies_ms, 30)
            profiler = subprocess.Popen(['py-spy', 'record', '--pid', str(node.pid), '--duration',
                                         str(arguments.seconds), '--rate', '50', '--format', arguments.format,
                                         '--output', arguments.out])
            listener.spin(lambda: profiler.poll() is not None, arguments.seconds + 30)
        finally:
            for process in (camera, node):
                stop_process(process)
            listener.close()
    rclpy.try_shutdown()
    return int(profiler.returncode or 0)


if __name__ == '__main__':
    sys.exit(main())

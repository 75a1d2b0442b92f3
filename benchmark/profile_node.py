"""Where the node's time goes: a flame graph of its Python stacks while a camera runs, by py-spy.

    python benchmark/profile_node.py --out out/node.svg
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import rclpy

from lgseg_ros.utils.subprocesses import stop_process

from node import Listener, draw, prepare_ros, start_camera, start_node


def main():
    """Run camera and node, and py-spy beside them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--size', default='1280x720')
    parser.add_argument('--rate', type=int, default=10)
    parser.add_argument('--seconds', type=int, default=15)
    parser.add_argument('--format', choices=('flamegraph', 'raw', 'speedscope'), default='flamegraph')
    parser.add_argument('--parameters', nargs='+', default=(), metavar='NAME:=VALUE', help='of the node')
    parser.add_argument('--out', default='out/node.svg', metavar='FILE')
    arguments = parser.parse_args()
    Path(arguments.out).parent.mkdir(parents=True, exist_ok=True)
    prepare_ros()
    with tempfile.TemporaryDirectory() as folder:
        node, listener = start_node(*arguments.parameters), Listener()
        camera = start_camera(draw(folder, arguments.size), arguments.size, arguments.rate, arguments.seconds + 10)
        try:
            listener.spin(lambda: listener.latencies, 30)
            profiler = subprocess.Popen(['py-spy', 'record', '--pid', str(node.pid), '--duration',
                                         str(arguments.seconds), '--rate', '50', '--format', arguments.format,
                                         '--output', arguments.out])
            listener.spin(lambda: profiler.poll() is not None, arguments.seconds + 30)
        finally:
            for process in (camera, node):
                stop_process(process)
            listener.node.destroy_node()
    rclpy.try_shutdown()
    return profiler.returncode


if __name__ == '__main__':
    sys.exit(main())

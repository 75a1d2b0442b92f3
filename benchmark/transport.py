"""Frames that the node receives from another process, with and without the shipped Fast DDS profile.

A camera process publishes images at 30 Hz, best effort. The node counts the images that arrive; the count is in its
diagnostics. Each size runs without and with the profile, one after the other.

    python benchmark/transport.py            (after: source scripts/activate.sh)
"""

import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from node_harness import SIZES, frames_sent, make_parser, prepare_ros, start_camera, start_node

from lgseg_ros.cli.json_output import add_json_option, write_json
from lgseg_ros.utils.hardware import machine
from lgseg_ros.utils.paths import find_share
from lgseg_ros.utils.subprocesses import stop_process

RATE = 30   # of the camera, Hz
VARIABLES = ('FASTDDS_DEFAULT_PROFILES_FILE', 'FASTRTPS_DEFAULT_PROFILES_FILE')


def count_received(timeout_s: float) -> int | None:
    """Return the node's count of frames received once it no longer changes, None without diagnostics."""
    node, counts = rclpy.create_node('counter'), list[int]()

    def append_count(message: DiagnosticArray) -> None:
        counts.extend(int(v.value) for s in message.status for v in s.values if v.key == 'received')
    node.create_subscription(DiagnosticArray, '/diagnostics', append_count, 10)
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline and (len(counts) < 3 or counts[-1] != counts[-3]):
        rclpy.spin_once(node, timeout_sec=0.2)
    node.destroy_node()
    return counts[-1] if counts else None


def measure(image: str, size: str, frames: int, profile: str | Path | None) -> dict[str, Any]:
    """Return the frames sent and received at one size; profile: path of the XML file, None for the defaults."""
    env = {key: value for key, value in os.environ.items() if key not in VARIABLES}
    if profile:
        env.update(dict.fromkeys(VARIABLES, str(profile)))
    node = start_node(env=env)
    try:
        sent = frames_sent(start_camera(image, size, RATE, frames, env=env), timeout_s=frames / RATE * 10 + 60)
        return {'size': size, 'dds_profile': bool(profile), 'sent': sent, 'received': count_received(10)}
    finally:
        stop_process(node)


def main() -> int:
    """Measure, print a table, write JSON."""
    parser = make_parser(__doc__)
    parser.add_argument('--frames', type=int, default=150, metavar='N', help='of each run (default: %(default)s)')
    parser.add_argument('--sizes', nargs='+', default=SIZES, metavar='WxH', help='of the images')
    add_json_option(parser)
    arguments = parser.parse_args()
    shipped, rows = find_share('config', 'fastdds.xml'), []
    prepare_ros(dds_profile=False)
    with tempfile.TemporaryDirectory() as folder:
        image = str(Path(folder) / 'noise.png')
        cv2.imwrite(image, np.random.default_rng(0).integers(0, 256, (1080, 1920, 3)).astype(np.uint8))
        for size in arguments.sizes:
            for profile in (None, shipped):
                rows.append(measure(image, size, arguments.frames, profile))
                print(f'{size:>10}  {"shipped profile" if profile else "default transport":<18} '
                      f'{rows[-1]["received"]} of {rows[-1]["sent"]} frames', flush=True)
    rclpy.try_shutdown()
    write_json(arguments.json, {'benchmark': 'transport', 'machine': machine(), 'rows': rows})
    return 0


if __name__ == '__main__':
    sys.exit(main())

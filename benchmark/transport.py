"""How many camera frames reach the node, with and without the shipped transport profile.

A camera process publishes N pictures at 30 Hz, best effort; the real node counts what arrives (its own
diagnostics).  Each size is run with the profile and without, in turn, in one run.

    python benchmark/transport.py            (after: source scripts/activate.sh)
"""

import argparse
import json
import os
import random
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray

from lgseg_ros.cli.json_output import add_json_option, write_json
from lgseg_ros.utils.ros_utils import limit_discovery_to_localhost
from lgseg_ros.utils.subprocesses import start_module, stop_process
from lgseg_ros.engines.cpu import machine
from lgseg_ros.utils.paths import find_share

SIZES = ('640x480', '1280x720', '1920x1080')
VARIABLES = ('FASTDDS_DEFAULT_PROFILES_FILE', 'FASTRTPS_DEFAULT_PROFILES_FILE')


def received(seconds):
    """The node's counter of frames received, once it has stood still; None when no diagnostics came."""
    node, counts = rclpy.create_node('counter'), []

    def note(message):
        counts.extend(int(v.value) for s in message.status for v in s.values if v.key == 'received')
    node.create_subscription(DiagnosticArray, '/diagnostics', note, 10)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and (len(counts) < 3 or counts[-1] != counts[-3]):
        rclpy.spin_once(node, timeout_sec=0.2)
    node.destroy_node()
    return counts[-1] if counts else None


def measure(picture, size, frames, profile):
    """Frames sent and received at one size; profile: path of the XML file or None."""
    env = {key: value for key, value in os.environ.items() if key not in VARIABLES}
    if profile:
        env.update(dict.fromkeys(VARIABLES, str(profile)))
    node = start_module('lgseg_ros.node.main', '--ros-args', '-r', 'image:=/camera/image_raw', '--log-level', 'warn', env=env)
    try:
        camera = start_module('lgseg_ros.demo.camera', '--source', picture, '--size', size, '--fps', '30', '--frames',
                       str(frames), '--loop', env=env, stdout=-1)
        sent = json.loads(camera.communicate(timeout=frames / 30 * 10 + 60)[0].splitlines()[-1])['frames_sent']
        return {'size': size, 'profile': bool(profile), 'sent': sent, 'received': received(10)}
    finally:
        stop_process(node)


def main():
    """Measure and print a table; --json writes the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--frames', type=int, default=150, help='a run (default: %(default)s)')
    parser.add_argument('--sizes', nargs='+', default=SIZES)
    add_json_option(parser)
    arguments = parser.parse_args()
    os.environ.setdefault('ROS_DOMAIN_ID', str(random.randint(1, 101)))
    limit_discovery_to_localhost(os.environ)
    profile, rows = find_share('config', 'fastdds.xml'), []
    with tempfile.TemporaryDirectory() as folder:
        picture = str(Path(folder) / 'noise.png')
        cv2.imwrite(picture, np.random.default_rng(0).integers(0, 256, (1080, 1920, 3)).astype(np.uint8))
        rclpy.init()
        for size in arguments.sizes:
            for used in (None, profile):
                rows.append(measure(picture, size, arguments.frames, used))
                print(f'{size:>10}  {"shipped profile" if used else "default transport":<18} '
                      f'{rows[-1]["received"]} of {rows[-1]["sent"]} frames', flush=True)
        rclpy.try_shutdown()
    write_json(arguments.json, {'benchmark': 'transport', 'machine': machine(), 'rows': rows})
    return 0


if __name__ == '__main__':
    sys.exit(main())

"""Run the node on a real ROS graph: a camera process plays a source, the node segments it, a third process records.

Half-way a service call changes the vocabulary. The node is /lgseg_demo and its camera /lgseg_demo/camera/image_raw, so
that a node /lgseg that runs on this robot is not disturbed.

Writes overlay.mp4, before.png, after.png and summary.json to --out.

Examples:
  lgseg demo
  lgseg demo --source drive.mp4 --vocabulary "road,car,sky,tree"
  lgseg demo --source /camera/image_raw --duration 20        (a topic that is published already)
"""

import argparse
import json

from ..demo.run import SECOND_VOCABULARY, DemoOptions, run_demo
from .options import add_engine_options, add_weights_option, size


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `lgseg demo`."""
    parser.add_argument('--source', default='demo', metavar='S',
                        help='video, image, folder of images, camera device (0, /dev/video0), ROS topic, street[:SEED] '
                             '(procedural), photo, or demo (street, then a photograph; the default)')
    parser.add_argument('--vocabulary', default='', metavar='LIST',
                        help='classes, "road,car=car|van,sky" (default: those of the preset camvid)')
    parser.add_argument('--preset', default='', help='named vocabulary: camvid, cityscapes, autoware, nav2')
    parser.add_argument('--second-vocabulary', default=SECOND_VOCABULARY, metavar='LIST',
                        help='classes after the change (default: %(default)s)')
    parser.add_argument('--out', default='out/demo', metavar='DIR',
                        help='output folder; the files of an earlier demo in it are removed (default: %(default)s)')
    add_weights_option(parser)
    add_engine_options(parser)
    parser.add_argument('--fps', type=float, metavar='F', help="frame rate (default: the source's own)")
    parser.add_argument('--size', type=size, metavar='WxH',
                        help='scale the source, e.g. to 1280x720')
    parser.add_argument('--frames', dest='max_frames', type=int, metavar='N', help='stop after N frames')
    parser.add_argument('--duration', type=float, metavar='S',
                        help='seconds to record (default: the whole source; 20 of a topic, a camera or the street)')
    parser.add_argument('--json', action='store_true', help='print the summary as JSON instead of a table')


def run(arguments: argparse.Namespace) -> int:
    """Run the demo and print its summary. Returns 0."""
    options = {name: value for name, value in vars(arguments).items() if name != 'json'}
    summary = run_demo(DemoOptions(**options))
    if arguments.json:
        print(json.dumps(summary))
        return 0
    latency = summary['latency_ms']
    rows = [
        ('source', summary['source']),
        ('engine', summary['engine']),
        ('image size', 'x'.join(map(str, summary['size']))),
        ('frames sent / received', f'{summary["frames_sent"]} / {summary["frames_received"]}'),
        ('masks', f'{summary["masks"]} ({summary["fps"]} a second), {summary["dropped"]} frames dropped'),
        ('latency', f'{latency["p50"]} ms median, {latency["p95"]} ms 95th percentile'),
        ('vocabulary changed in', f'{summary["service_ms"]} ms: {summary["service"]["message"]}'),
        ('masks with unknown ids', summary['masks_with_unknown_ids']),
        ('written to', f'{arguments.out}: overlay.mp4, before.png, after.png, summary.json'),
    ]
    print('\n'.join(f'{name:<28}{value}' for name, value in rows))
    return 0

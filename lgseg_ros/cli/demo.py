"""Run the main job on a real ROS graph: a camera process plays a source, the node segments, a third process
records.  Half-way the words are changed by a service call.  The node is /lgseg_demo and its camera
/lgseg_demo/camera/image_raw, so that a /lgseg that runs on this robot is left alone.

Writes overlay.mp4, before.png, after.png and summary.json to --out.

Examples:
  lgseg demo
  lgseg demo --source drive.mp4 --vocabulary "road,car,sky,tree"
  lgseg demo --source /camera/image_raw --duration 20        (a topic that is there already)
"""

import json

from ..demo.run import SECOND, run_demo
from ..engines.factory import add_engine_arguments
from ..engines.weights import DEFAULT_WEIGHTS
from ..sizes import size


def add_arguments(parser):
    """The command line of `lgseg demo`."""
    parser.add_argument('--source', default='demo', metavar='S',
                        help='video, image, folder of images, camera device (0, /dev/video0), ROS topic, street[:SEED] '
                             '(procedural), photo, or demo (street, then a photograph; the default)')
    parser.add_argument('--vocabulary', metavar='LIST',
                        help='first words, "road,car=car|van,sky" (default: preset camvid)')
    parser.add_argument('--preset', default='', help='first words by name: camvid, cityscapes, autoware, nav2')
    parser.add_argument('--then', default=SECOND, metavar='LIST', help='words after the change (default: %(default)s)')
    parser.add_argument('--out', default='out/demo',
                        help='folder to write; the files of an earlier demo there go (default: %(default)s)')
    parser.add_argument('--weights', default=DEFAULT_WEIGHTS,
                        help='shipped name or .safetensors (default: %(default)s)')
    add_engine_arguments(parser)
    parser.add_argument('--fps', type=float, help="play at this rate instead of the source's own")
    parser.add_argument('--size', type=size, default=(None, None), metavar='WxH', help='scale the source, e.g. 1280x720')
    parser.add_argument('--frames', type=int, help='stop after this many frames')
    parser.add_argument('--duration', type=float, metavar='S',
                        help='seconds to record (default: the whole source; 20 of a topic, a camera or the street)')
    parser.add_argument('--json', action='store_true', help='print the summary as JSON instead of a table')


def run(arguments):
    """Run the demo and print what came of it."""
    summary = run_demo(arguments)
    if arguments.json:
        print(json.dumps(summary))
        return 0
    latency = summary['latency_ms']
    rows = [
        ('source', summary['source']), ('engine', summary['engine']), ('picture', 'x'.join(map(str, summary['size']))),
        ('frames sent / received', f'{summary["frames_sent"]} / {summary["frames_received"]}'),
        ('masks', f'{summary["masks"]} ({summary["fps"]} a second), {summary["dropped"]} frames dropped'),
        ('latency', f'{latency["p50"]} ms median, {latency["p95"]} ms 95th percentile'),
        ('words changed in', f'{summary["service_ms"]} ms: {summary["service"]["message"]}'),
        ('masks with unexplained ids', summary['masks_unexplained']),
        ('written to', f'{arguments.out}: overlay.mp4, before.png, after.png, summary.json'),
    ]
    print('\n'.join(f'{name:<28}{value}' for name, value in rows))
    return 0

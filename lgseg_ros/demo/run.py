"""Run the demo: start camera and node as processes, record, change the words half-way, sum up."""

import json
import math
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

from ..utils.subprocesses import python_module
from ..launch_support.dds_profile import dds_profile_variables
from ..vocabulary.classes import split_classes

FIRST = {'preset': 'camvid', 'classes': []}
SECOND = 'road,vehicle=car|truck|bus,person=person|pedestrian|cyclist,plants=tree|vegetation|grass,building,sky'
READY_S = 30      # how long the node may take to offer its service
NODE = '/lgseg_demo'   # and not /lgseg, which may run on this robot
CAMERA = f'{NODE}/camera/image_raw'
FILES = ('overlay.mp4', 'before.png', 'after.png', 'summary.json')   # that the demo writes


class DemoError(RuntimeError):
    """The demo could not run; the message says why and what to do."""


def is_topic(source):
    """Whether a --source names a ROS topic rather than a file."""
    return bool(re.fullmatch(r'(/[A-Za-z_]\w*)+', source)) and not Path(source).exists() \
        and not source.startswith('/dev/')


def keep_to_this_host(env):
    """Set the variable that hides a ROS graph from other machines, unless it is set."""
    if env.get('ROS_DISTRO') == 'humble':   # later ones warn of its variable
        env.setdefault('ROS_LOCALHOST_ONLY', '1')
    else:
        env.setdefault('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')


def environment(own_camera=True):
    """Variables for all processes: the shipped transport profile, and this host alone if the camera is our own."""
    env = dict(os.environ)
    if own_camera:
        keep_to_this_host(env)
    return {**env, **dds_profile_variables(env)}


def start(module, *arguments, env, **options):
    """Start a module of this package as a process of this Python."""
    return subprocess.Popen([*python_module(module), *arguments], env=env, text=True, **options)


def stop(process, timeout=5):
    """SIGINT, then kill.  Returns the exit code."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(timeout)
        except subprocess.TimeoutExpired:
            process.kill()
    return process.wait()


def run_demo(arguments):
    """Run with parsed arguments (see cli.demo).  Returns the summary.  Raises DemoError, SourceError."""
    from ..media.sources import open_source
    if arguments.frames is not None and arguments.frames < 1:
        raise DemoError(f'--frames is {arguments.frames}; give at least 1')
    own_camera = not is_topic(arguments.source)
    topic = CAMERA if own_camera else arguments.source
    fps, seconds, ends = 15.0, arguments.duration or 20.0, False
    if own_camera:
        width, height = arguments.size
        with open_source(arguments.source, width=width, height=height, fps=arguments.fps) as source:   # tells faults early
            fps, total = source.fps, arguments.frames or source.frame_count
            ends = not arguments.duration and bool(arguments.frames or not source.endless)
        if total:
            seconds = min(arguments.duration or math.inf, total / fps)
        os.environ.setdefault('ROS_DOMAIN_ID', str(random.randint(1, 101)))   # not to meet a robot by chance
    out = _make_room(Path(arguments.out).expanduser(), arguments.source)
    os.environ.update(environment(own_camera))
    summary = _record(arguments, topic, out, fps, seconds, ends)
    (out / 'summary.json').write_text(json.dumps(summary, indent=2) + '\n')
    return summary


def _make_room(out, source):
    """The folder `out` without the files of an earlier demo; others stay.  Raises DemoError if one is the source."""
    out.mkdir(parents=True, exist_ok=True)
    for path in (out / name for name in FILES):
        if path.exists() and path.resolve() == Path(source).expanduser().resolve():
            raise DemoError(f'--source {source} is a file that the demo writes to --out; give another --out')
        path.unlink(missing_ok=True)
    return out


def _node_arguments(arguments, topic):
    classes = split_classes(arguments.vocabulary)
    given = {'weights': arguments.weights, 'engine': arguments.engine, 'precision': arguments.precision,
             'vocabulary': classes or FIRST['classes'],
             'preset': arguments.preset if arguments.preset or classes else FIRST['preset']}
    words = ['--ros-args', '-r', f'__node:={NODE[1:]}', '-r', f'image:={topic}']
    for name, value in given.items():
        if value not in (None, [], ''):
            words += ['-p', f'{name}:={json.dumps(value)}']
    return words


def _record(arguments, topic, out, fps, seconds, ends):
    import rclpy   # before any process is started that could only say the same of a machine without ROS
    from rclpy.executors import SingleThreadedExecutor

    from .recorder import Recorder
    rclpy.init()
    ros = rclpy.create_node(f'{NODE[1:]}_recorder')
    executor = SingleThreadedExecutor()
    executor.add_node(ros)
    recorder = Recorder(ros, out, fps, NODE)
    camera = None
    node = start('lgseg_ros.node.main', *_node_arguments(arguments, topic), env=os.environ)
    try:
        _wait_for_node(recorder, node)
        if topic != arguments.source:
            camera = _start_camera(arguments, topic)
        _spin(executor, recorder, arguments, camera, seconds, READY_S if ends else 0)
        sent = _frames_sent(camera) if camera else None
        recorder.finish()
    finally:
        if camera:
            stop(camera)
        stop(node)
        ros.destroy_node()
        rclpy.try_shutdown()
    if not recorder.mask_times:
        raise DemoError(f'no mask came from {topic} within {READY_S} s; is anything published '
                        'there? (ros2 topic hz, and see the log above)')
    if not recorder.change:
        raise DemoError('the vocabulary service did not answer; see the node\'s log above')
    return {'source': arguments.source, **recorder.summary(), 'frames_sent': sent,
            'service': {'success': recorder.change[0].success, 'message': recorder.change[0].message,
                        'names': list(recorder.change[0].names), 'ids': list(recorder.change[0].ids)}}


def _wait_for_node(recorder, process):
    deadline = time.monotonic() + READY_S
    while not recorder.client.wait_for_service(timeout_sec=0.2):
        if process.poll() is not None:
            raise DemoError(f'the node ended with code {process.returncode}; its log above says why')
        if time.monotonic() > deadline:
            raise DemoError(f'the node offered no service within {READY_S} s; its log above says why')


def _start_camera(arguments, topic):
    words = ['--source', arguments.source, '--topic', topic]
    given = {'fps': arguments.fps, 'frames': arguments.frames,
             'size': arguments.size[0] and '{}x{}'.format(*arguments.size)}
    for option, value in given.items():
        words += [f'--{option}', str(value)] if value else []
    return start('lgseg_ros.demo.camera', *words, env=os.environ, stdout=subprocess.PIPE)


def _frames_sent(camera):
    """End the camera if it still plays, and read what it says then.  Raises DemoError if that is nothing."""
    code = stop(camera)
    lines = camera.stdout.read().splitlines()
    if not lines:
        raise DemoError(f'the camera process ended with code {code}; its messages above say why')
    return json.loads(lines[-1])['frames_sent']


def _spin(executor, recorder, arguments, camera, seconds, grace):
    """Record for `seconds`, or until the camera ends, with the change of words half-way.

    grace: seconds more that a camera which ends by itself may take, being late on a busy machine.
    """
    def ended():
        return camera is not None and camera.poll() is not None

    def spin(limit, done=ended):
        began = shown = time.monotonic()
        while not done() and time.monotonic() - began < limit:
            executor.spin_once(timeout_sec=0.05)
            if time.monotonic() - shown > 0.5:
                shown = time.monotonic()
                _progress(recorder, seconds)

    spin(READY_S, lambda: recorder.mask_times or ended())
    spin(seconds / 2)
    if recorder.mask_times:
        recorder.change_vocabulary(split_classes(arguments.second_vocabulary))
    spin(seconds / 2 + grace)
    spin(1.5, lambda: False)   # the last masks, and the node's last counters
    _progress(recorder, seconds, end='\n')


def _progress(recorder, seconds, end=''):
    if not (sys.stderr.isatty() or end):
        return
    elapsed = time.monotonic() - recorder.mask_times[0] if recorder.mask_times else 0.0
    bar = '#' * int(24 * min(elapsed / seconds, 1))
    print(f'\r[{bar:<24}] {min(elapsed, seconds):4.1f}/{seconds:.1f} s  {len(recorder.mask_times)} masks'
          f'{"  vocabulary changed" if recorder.change else ""}   ', end=end, file=sys.stderr, flush=True)

"""Run the demo: start camera and node as processes, record, change the vocabulary half-way, summarize."""

import json
import math
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..launch_support.dds_profile import dds_profile_variables
from ..media.sources import open_source
from ..model.weights import DEFAULT_WEIGHTS
from ..utils.ros_utils import is_topic_name, limit_discovery_to_localhost
from ..utils.subprocesses import start_module, stop_process
from ..vocabulary.classes import split_classes
from ..vocabulary.presets import DEFAULT_PRESET

if TYPE_CHECKING:
    from rclpy.executors import Executor

    from .recorder import Recorder

SECOND_VOCABULARY = ('road,vehicle=car|truck|bus,person=person|pedestrian|cyclist,plants=tree|vegetation|grass,'
                     'building,sky')
READY_S = 30.0
"""How long the node may take to offer its service, and then to publish its first mask."""
DEFAULT_DURATION_S = 20.0
NODE = '/lgseg_demo'
"""Not /lgseg, which may run on this robot."""
CAMERA_TOPIC = f'{NODE}/camera/image_raw'
FILES = ('overlay.mp4', 'before.png', 'after.png', 'summary.json')
"""What the demo writes."""


class DemoError(RuntimeError):
    """The demo cannot run. The message gives the reason and a fix."""


@dataclass(frozen=True)
class DemoOptions:
    """What the demo runs.

    Attributes:
        source: any source of `open_source`, or a ROS topic.
        vocabulary: classes before the change, as one text; '' for those of the preset.
        preset: named vocabulary; '' for camvid, where `vocabulary` is empty.
        second_vocabulary: classes after the change, as one text.
        out: output folder; the files of an earlier demo in it are removed.
        weights: name of shipped weights, or path of a .safetensors file.
        engine: inference engine, 'auto' for the fastest.
        precision: its precision, 'auto' for the fastest.
        fps: frame rate of the camera; None for that of the source.
        size: (width, height) of the camera, pixels; None for that of the source.
        max_frames: stop after this many frames, at least 1; None for no limit.
        duration: seconds to record; None for the whole source, or 20 s where it has no end.
    """

    source: str = 'demo'
    vocabulary: str = ''
    preset: str = ''
    second_vocabulary: str = SECOND_VOCABULARY
    out: str | Path = 'out/demo'
    weights: str = DEFAULT_WEIGHTS
    engine: str = 'auto'
    precision: str = 'auto'
    fps: float | None = None
    size: tuple[int, int] | None = None
    max_frames: int | None = None
    duration: float | None = None


@dataclass(frozen=True)
class _Plan:
    """How the demo proceeds: the image topic, whether a camera process is started, and how long it takes."""

    topic: str
    own_camera: bool
    fps: float
    seconds: float
    ends: bool   # the camera ends by itself


def run_demo(options: DemoOptions) -> dict[str, Any]:
    """Run the demo.

    Args:
        options: what to run.

    Returns:
        The summary, which is also in summary.json.

    Raises:
        DemoError: an option is out of range, or the camera or the node does not work.
        SourceError: the source cannot be opened.
        OSError: the output folder cannot be written.
    """
    if options.max_frames is not None and options.max_frames < 1:
        raise DemoError(f'max_frames is {options.max_frames}; give at least 1')
    plan = _make_plan(options)
    if plan.own_camera:
        os.environ.setdefault('ROS_DOMAIN_ID', str(random.randint(1, 101)))   # not that of a robot nearby
    out = _prepare_folder(Path(options.out).expanduser(), options.source)
    os.environ.update(process_environment(plan.own_camera))
    summary = _record(options, plan, out)
    (out / 'summary.json').write_text(json.dumps(summary, indent=2) + '\n')
    return summary


def process_environment(localhost_only: bool = True) -> dict[str, str]:
    """Return the environment for processes of a ROS graph: the shipped DDS profile and, by default, this host only."""
    environment = dict(os.environ)
    if localhost_only:
        limit_discovery_to_localhost(environment)
    return {**environment, **dds_profile_variables(environment)}


def _make_plan(options: DemoOptions) -> _Plan:
    duration = options.duration
    if is_topic_name(options.source):
        return _Plan(options.source, False, 15.0, duration or DEFAULT_DURATION_S, False)
    width, height = options.size or (None, None)
    # Opened here too, so that a source that cannot be read is reported before any process starts.
    with open_source(options.source, width=width, height=height, fps=options.fps) as source:
        fps, total = source.fps, options.max_frames or source.frame_count
        ends = not duration and bool(options.max_frames or not source.endless)
    seconds = min(duration or math.inf, total / fps) if total else duration or DEFAULT_DURATION_S
    return _Plan(CAMERA_TOPIC, True, fps, seconds, ends)


def _prepare_folder(out: Path, source: str) -> Path:
    """Create the folder and remove the files of an earlier demo. Raises DemoError if one of them is the source."""
    out.mkdir(parents=True, exist_ok=True)
    for path in (out / name for name in FILES):
        if path.exists() and path.resolve() == Path(source).expanduser().resolve():
            raise DemoError(f'{source} is a file that the demo would overwrite; give another `out`')
        path.unlink(missing_ok=True)
    return out


def _node_arguments(options: DemoOptions, topic: str) -> list[str]:
    """Return the command line of the node."""
    classes = split_classes(options.vocabulary)
    given = {'weights': options.weights, 'engine': options.engine, 'precision': options.precision,
             'vocabulary': classes, 'preset': options.preset if options.preset or classes else DEFAULT_PRESET}
    arguments = ['--ros-args', '-r', f'__node:={NODE[1:]}', '-r', f'image:={topic}']
    for name, value in given.items():
        if value:
            arguments += ['-p', f'{name}:={json.dumps(value)}']
    return arguments


def _record(options: DemoOptions, plan: _Plan, out: Path) -> dict[str, Any]:
    """Start the processes, record and return the summary."""
    import rclpy  # before any process starts that would report its absence later
    from rclpy.executors import SingleThreadedExecutor

    from .recorder import Recorder
    rclpy.init()
    ros_node = rclpy.create_node(f'{NODE[1:]}_recorder')
    executor = SingleThreadedExecutor()
    executor.add_node(ros_node)
    recorder = Recorder(ros_node, out, plan.fps, NODE)
    camera = None
    node = start_module('lgseg_ros.node.main', *_node_arguments(options, plan.topic), env=os.environ)
    try:
        _wait_for_node(recorder, node)
        if plan.own_camera:
            camera = _start_camera(options, plan.topic)
        _spin(executor, recorder, options, camera, plan)
        sent = _frames_sent(camera) if camera else None
        recorder.finish()
    finally:
        if camera:
            stop_process(camera)
        stop_process(node)
        ros_node.destroy_node()
        rclpy.try_shutdown()
    if not recorder.mask_times:
        raise DemoError(f'no mask came from {plan.topic} within {READY_S:g} s; is anything published there? (ros2 '
                        'topic hz, and see the log above)')
    if recorder.change is None:
        raise DemoError("the vocabulary service did not answer; see the node's log above")
    response = recorder.change.response
    return {'source': options.source, **recorder.summary(), 'frames_sent': sent,
            'service': {'success': response.success, 'message': response.message, 'names': list(response.names),
                        'ids': list(response.ids)}}


def _wait_for_node(recorder: 'Recorder', process: 'subprocess.Popen[str]') -> None:
    deadline = time.monotonic() + READY_S
    while not recorder.client.wait_for_service(timeout_sec=0.2):
        if process.poll() is not None:
            raise DemoError(f'the node ended with code {process.returncode}; its log above says why')
        if time.monotonic() > deadline:
            raise DemoError(f'the node offered no service within {READY_S:g} s; its log above says why')


def _start_camera(options: DemoOptions, topic: str) -> 'subprocess.Popen[str]':
    arguments = ['--source', options.source, '--topic', topic]
    given = {'fps': options.fps, 'frames': options.max_frames,
             'size': options.size and '{}x{}'.format(*options.size)}
    for name, value in given.items():
        arguments += [f'--{name}', str(value)] if value else []
    return start_module('lgseg_ros.demo.camera', *arguments, env=os.environ, stdout=subprocess.PIPE)


def _frames_sent(camera: 'subprocess.Popen[str]') -> int:
    """End the camera if it still runs and return how many frames it has sent. Raises DemoError if it does not tell."""
    code = stop_process(camera)
    lines = camera.stdout.read().splitlines() if camera.stdout else []
    if not lines:
        raise DemoError(f'the camera process ended with code {code}; its messages above say why')
    return int(json.loads(lines[-1])['frames_sent'])


def _spin(executor: 'Executor', recorder: 'Recorder', options: DemoOptions, camera: 'subprocess.Popen[str] | None',
          plan: _Plan) -> None:
    """Record for the planned time, or until the camera ends, and change the vocabulary half-way."""
    def ended() -> bool:
        return camera is not None and camera.poll() is not None

    def spin(limit: float, done: Callable[[], object] = ended) -> None:
        began = shown = time.monotonic()
        while not done() and time.monotonic() - began < limit:
            executor.spin_once(timeout_sec=0.05)
            if time.monotonic() - shown > 0.5:
                shown = time.monotonic()
                _show_progress(recorder, plan.seconds)

    spin(READY_S, lambda: recorder.mask_times or ended())
    spin(plan.seconds / 2)
    if recorder.mask_times:
        recorder.change_vocabulary(split_classes(options.second_vocabulary))
    # A camera that ends by itself may be late on a busy machine.
    spin(plan.seconds / 2 + (READY_S if plan.ends else 0))
    spin(1.5, lambda: False)   # the last masks, and the node's last counters
    _show_progress(recorder, plan.seconds, end='\n')


def _show_progress(recorder: 'Recorder', seconds: float, end: str = '') -> None:
    if not (sys.stderr.isatty() or end):
        return
    elapsed = time.monotonic() - recorder.mask_times[0] if recorder.mask_times else 0.0
    bar = '#' * int(24 * min(elapsed / seconds, 1))
    print(f'\r[{bar:<24}] {min(elapsed, seconds):4.1f}/{seconds:.1f} s  {len(recorder.mask_times)} masks'
          f'{"  vocabulary changed" if recorder.change else ""}   ', end=end, file=sys.stderr, flush=True)

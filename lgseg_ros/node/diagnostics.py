"""What the node says of itself on /diagnostics (diagnostic_msgs/DiagnosticArray, REP 107)."""

import re
import resource
import time
from pathlib import Path
from typing import NamedTuple

from diagnostic_msgs.msg import DiagnosticStatus

from ..engines.self_test import SelfTest
from .updater import create_updater, fill

STUCK_S = 5.0   # an engine that works on one frame for longer hangs
GAPS = 3        # a camera that is silent for so many of its usual gaps has stopped
LONGEST_S = 60.0   # however long it was away before


class Seen(NamedTuple):
    """A camera's counts when the last pictures came.

    rates: of pictures in, masks out and failures, per second, over the time before; patience: seconds for which no
    further picture means nothing.
    """

    time: float
    counts: tuple = (0, 0, 0)
    rates: tuple = (0.0, 0.0, 0.0)
    patience: float = 0.0


class Diagnostics:
    """One status for the node, and one for each camera that is watched."""

    def __init__(self, node):
        """node: SegmentNode; its state, engine and vocabulary are read at each tick."""
        self._node = node
        self._seen = {}        # camera -> Seen
        self._updater = create_updater(node, 'lgseg')
        self._updater.add('segmentation', lambda status: fill(status, *self._node_status()))

    def watch(self, camera):
        """Say how this camera does from now on."""
        self._seen[camera] = Seen(time.monotonic())
        self._updater.add(_title(camera), lambda status: fill(status, *self._camera_status(camera)))

    def forget(self, camera):
        """Say nothing of it any more."""
        self._updater.removeByName(_title(camera))
        self._seen.pop(camera, None)

    def _node_status(self):
        """(level, message, values) of the node."""
        node = self._node
        engine = node.engine_summary()
        values = {'engine': engine or 'not loaded'}
        if engine:
            vocabulary = node.words.vocabulary.current
            values.update(engine_choice=str(node.engine_choice), vocabulary_version=vocabulary.version,
                          classes=len(vocabulary.names), vocabulary=', '.join(vocabulary.texts)[:300],
                          **self_test_values(node.engine_self_test()))
        values['peak_memory_mb'] = peak_memory_mb()
        values['bond'] = node.bond_state()
        values['last_error'] = node.last_error or 'none'
        busy = node.busy_seconds()
        if busy > STUCK_S:
            return DiagnosticStatus.ERROR, f'the engine has not finished its frame for {busy:.0f} s', values
        if failure := node.engine_failure():
            return DiagnosticStatus.ERROR, failure, values
        if engine and node.engine_choice.self_test_failures:
            return DiagnosticStatus.ERROR, f'{node.state_label()}; self-test failed: {node.engine_choice}', values
        if engine and node.engine_choice.fell_back:
            return DiagnosticStatus.WARN, f'{node.state_label()}; {node.engine_choice}', values
        return DiagnosticStatus.OK if engine else DiagnosticStatus.WARN, node.state_label(), values

    def _camera_status(self, camera):
        """(level, message, values) of one camera."""
        counts = camera.received, camera.segmented, camera.failed
        self._seen[camera], rates = look_again(self._seen[camera], counts, time.monotonic())
        rate_in, rate_out, rate_failed = rates
        level, text = DiagnosticStatus.OK, f'{rate_in:.1f} Hz in, {rate_out:.1f} Hz out'
        if rate_failed:
            level, text = DiagnosticStatus.ERROR, f'{rate_failed:.1f} frames a second fail: {camera.last_error}'
        elif not rate_in and (inputs := self._node.inputs_of(camera)):
            level, text = ((DiagnosticStatus.WARN, f'no pictures on {inputs.topic}') if inputs.subscribed
                           else (DiagnosticStatus.OK, f'nobody listens, so {inputs.topic} is left alone'))
        elif camera.info_problem and camera.is_watched():
            level, text = DiagnosticStatus.WARN, f'{text}; {camera.info_problem}'
        elif rate_in and not camera.is_watched():
            text = f'{rate_in:.1f} Hz in; nobody listens, so nothing is segmented'
        values = {'received': camera.received, 'segmented': camera.segmented, 'dropped': camera.dropped,
                  'failed': camera.failed, 'rate_in_hz': f'{rate_in:.2f}', 'rate_out_hz': f'{rate_out:.2f}',
                  'frame_ms': f'{camera.frame_ms:.1f}', 'engine_ms': f'{camera.engine_ms:.1f}',
                  'latency_ms': f'{camera.latency_ms:.1f}', 'watched': camera.is_watched(),
                  'camera_info': f'{camera.info.width}x{camera.info.height}' if camera.info else 'none'}
        return level, text, values


def self_test_values(self_test: SelfTest | None) -> dict[str, str]:
    """What the diagnostics hold of an engine's self-test, None for an engine that has none."""
    if self_test is None:
        return {'self_test': 'not tested: this engine has none'}
    values = {'self_test': str(self_test)}
    if worst := self_test.worst:
        values.update(self_test_agreement=f'{worst.agreement:.4f}', self_test_ms=f'{worst.milliseconds:.0f}')
    return values


def look_again(seen, counts, now):
    """(what is seen from now on, rates) where a camera has come to `counts` by the time `now`.

    The rates are those since the tick before or, of a slow camera, between its last pictures.
    """
    seconds = max(now - seen.time, 1e-3)
    pictures, masks, failures = (a - b for a, b in zip(counts, seen.counts))
    if pictures:
        rates = pictures / seconds, masks / seconds, failures / seconds
        return Seen(now, counts, rates, min(GAPS * seconds / pictures, LONGEST_S)), rates
    if seconds > seen.patience:
        return seen, (0.0, 0.0, 0.0)
    return seen, (*seen.rates[:2], max(seen.rates[2], failures / seconds))   # the last one may have failed since


def peak_memory_mb():
    """The most memory that this process had, MiB."""
    try:   # getrusage's figure begins with what the process that started this one had
        return int(re.search(r'VmHWM:\s*(\d+)', Path('/proc/self/status').read_text())[1]) // 1024
    except (OSError, TypeError):   # not Linux
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def _title(camera):
    return f'camera {camera.name}'.rstrip()

"""The node's statuses on /diagnostics (diagnostic_msgs/DiagnosticArray, REP 107)."""

import time
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.node import Node

from ..engines.selection import EngineSelection
from ..engines.self_test import SelfTest
from .image_subscriber import ImageSubscriber
from .memory import peak_memory_mb
from .output_publisher import OutputPublisher
from .updater import create_updater, fill_status
from .vocabulary_services import VocabularyServices

INFERENCE_TIMEOUT_S = 5.0   # an engine that works on one frame for longer hangs
SILENT_GAPS = 3             # a camera that is silent for so many of its usual gaps has stopped
LONGEST_PATIENCE_S = 60.0   # however long it was away before


class Counts(NamedTuple):
    """Frames of one camera: received, segmented and failed."""

    received: int = 0
    segmented: int = 0
    failed: int = 0


class Rates(NamedTuple):
    """The same per second."""

    received: float = 0.0
    segmented: float = 0.0
    failed: float = 0.0


NO_COUNTS, NO_RATES = Counts(), Rates()


class StatusSummary(NamedTuple):
    """What a DiagnosticStatus is filled with."""

    level: bytes
    message: str
    values: dict[str, object]


@dataclass(frozen=True)
class CameraStats:
    """A camera's counts when its last images arrived.

    Attributes:
        time: that moment, s, monotonic.
        counts: at that moment.
        rates: over the time before.
        patience: seconds for which no further image means nothing.
    """

    time: float
    counts: Counts = NO_COUNTS
    rates: Rates = NO_RATES
    patience: float = 0.0


def update_rates(stats: CameraStats, counts: Counts, now: float) -> tuple[CameraStats, Rates]:
    """Compute a camera's rates: those since the tick before or, of a slow camera, between its last images.

    Args:
        stats: the camera's stats so far.
        counts: its counts now.
        now: the time of this tick, s, monotonic.

    Returns:
        The stats from now on, and the rates.
    """
    seconds = max(now - stats.time, 1e-3)
    new = Counts(*(a - b for a, b in zip(counts, stats.counts, strict=True)))
    if new.received:
        rates = Rates(*(count / seconds for count in new))
        patience = min(SILENT_GAPS * seconds / new.received, LONGEST_PATIENCE_S)
        return CameraStats(now, counts, rates, patience), rates
    if seconds > stats.patience:
        return stats, NO_RATES
    # The last image may have failed since.
    return stats, stats.rates._replace(failed=max(stats.rates.failed, new.failed / seconds))


class NodeState(Protocol):
    """What the diagnostics read of the segmentation node."""

    vocabulary: VocabularyServices
    last_error: str

    @property
    def engine_selection(self) -> EngineSelection | None:
        """The engine that was requested and the one that runs."""

    def engine_summary(self) -> str:
        """One line on the engine, '' before it is loaded."""

    def engine_self_test(self) -> SelfTest | None:
        """The self-test of the engine."""

    def engine_failure(self) -> str:
        """Why the engine was replaced while frames came, or ''."""

    def state_label(self) -> str:
        """State of the life cycle."""

    def image_subscriber_of(self, camera: OutputPublisher) -> ImageSubscriber | None:
        """The subscriber whose images a camera's outputs are of."""

    def busy_seconds(self) -> float:
        """How long the engine has worked on the current frame, s."""

    def bond_state(self) -> str:
        """State of the bond with a lifecycle manager."""


class Diagnostics:
    """One status for the node, and one for each of its cameras."""

    def __init__(self, node: Node, state: NodeState) -> None:
        """Begin to publish.

        Args:
            node: publishes the statuses.
            state: read at each tick.
        """
        self._state = state
        self._stats: dict[OutputPublisher, CameraStats] = {}
        self._updater = create_updater(node, 'lgseg')
        self._updater.add('segmentation', lambda status: fill_status(status, *self._node_status()))

    def add_camera(self, camera: OutputPublisher) -> None:
        """Publish a status of this camera from now on."""
        self._stats[camera] = CameraStats(time.monotonic())
        self._updater.add(_status_name(camera), lambda status: fill_status(status, *self._camera_status(camera)))

    def remove_camera(self, camera: OutputPublisher) -> None:
        """Publish no status of this camera any more."""
        self._updater.removeByName(_status_name(camera))
        self._stats.pop(camera, None)

    def _node_status(self) -> StatusSummary:
        node, values = self._state, dict[str, object]()
        engine = node.engine_summary()
        values['engine'] = engine or 'not loaded'
        vocabulary, selection = node.vocabulary.current, node.engine_selection
        if engine and vocabulary:
            values.update(engine_selection=str(selection), vocabulary_version=vocabulary.version,
                          classes=len(vocabulary.names), vocabulary=', '.join(vocabulary.texts)[:300],
                          **self_test_values(node.engine_self_test()))
        values['peak_memory_mb'] = peak_memory_mb()
        values['bond'] = node.bond_state()
        values['last_error'] = node.last_error or 'none'
        busy = node.busy_seconds()
        if busy > INFERENCE_TIMEOUT_S:
            return StatusSummary(DiagnosticStatus.ERROR,
                                 f'inference timeout: the engine has worked on one frame for {busy:.0f} s', values)
        if failure := node.engine_failure():
            return StatusSummary(DiagnosticStatus.ERROR, failure, values)
        if engine and selection and selection.self_test_failures:
            return StatusSummary(DiagnosticStatus.ERROR, f'{node.state_label()}; self-test failed: {selection}', values)
        if engine and selection and selection.fell_back:
            return StatusSummary(DiagnosticStatus.WARN, f'{node.state_label()}; {selection}', values)
        return StatusSummary(DiagnosticStatus.OK if engine else DiagnosticStatus.WARN, node.state_label(), values)

    def _camera_status(self, camera: OutputPublisher) -> StatusSummary:
        counters, has_subscribers = camera.counters, camera.has_subscribers()
        counts = Counts(counters.received, counters.segmented, counters.failed)
        self._stats[camera], rates = update_rates(self._stats[camera], counts, time.monotonic())
        level, text = DiagnosticStatus.OK, f'{rates.received:.1f} Hz in, {rates.segmented:.1f} Hz out'
        if rates.failed:
            level, text = DiagnosticStatus.ERROR, f'{rates.failed:.1f} frames per second fail: {counters.last_error}'
        elif not rates.received and (subscriber := self._state.image_subscriber_of(camera)):
            level, text = ((DiagnosticStatus.WARN, f'no images on {subscriber.topic}') if subscriber.subscribed
                           else (DiagnosticStatus.OK, f'no subscribers, so not subscribed to {subscriber.topic}'))
        elif camera.camera_info_problem and has_subscribers:
            level, text = DiagnosticStatus.WARN, f'{text}; {camera.camera_info_problem}'
        elif rates.received and not has_subscribers:
            text = f'{rates.received:.1f} Hz in; no subscribers, so nothing is segmented'
        info = camera.camera_info
        return StatusSummary(level, text, {
            'received': counters.received, 'segmented': counters.segmented, 'dropped': counters.dropped,
            'failed': counters.failed, 'rate_in_hz': f'{rates.received:.2f}', 'rate_out_hz': f'{rates.segmented:.2f}',
            'frame_ms': f'{counters.frame_ms:.1f}', 'engine_ms': f'{counters.engine_ms:.1f}',
            'latency_ms': f'{counters.latency_ms:.1f}', 'has_subscribers': has_subscribers,
            'camera_info': f'{info.width}x{info.height}' if info else 'none'})


def self_test_values(self_test: SelfTest | None) -> dict[str, str]:
    """Return what the diagnostics hold of an engine's self-test, None for an engine that has none."""
    if self_test is None:
        return {'self_test': 'not tested: this engine has none'}
    values = {'self_test': str(self_test)}
    if worst := self_test.worst:
        values.update(self_test_agreement=f'{worst.agreement:.4f}', self_test_ms=f'{worst.milliseconds:.0f}')
    return values


def _status_name(camera: OutputPublisher) -> str:
    return f'camera {camera.name}'.rstrip()

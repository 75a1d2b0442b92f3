"""What the node says of itself on /diagnostics (diagnostic_msgs/DiagnosticArray, REP 107)."""

import resource
import time

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.clock import Clock, ClockType

PERIOD_S = 1.0
TOPIC = '/diagnostics'


class Diagnostics:
    """Publishes one status for the node and one a camera, every `PERIOD_S` seconds."""

    def __init__(self, node):
        """node: SegmentNode; its cameras, engine and vocabulary are read at each tick."""
        self._node = node
        self._before = {}      # camera name -> (time, received, segmented, failed)
        self._publisher = node.create_publisher(DiagnosticArray, TOPIC, 10)
        # Steady: with use_sim_time and a clock that stands still, the state is needed all the more.
        self._timer = node.create_timer(PERIOD_S, self.publish, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def publish(self):
        """Publish the present state."""
        message = DiagnosticArray()
        message.header.stamp = self._node.get_clock().now().to_msg()
        message.status = [self._node_status(), *(self._camera_status(camera) for camera in self._node.cameras)]
        self._publisher.publish(message)

    def _node_status(self):
        engine = self._node.engine_summary()
        values = {'engine': engine or 'not loaded'}
        if engine:
            vocabulary = self._node.vocabulary.current
            values.update(vocabulary_version=vocabulary.version, classes=len(vocabulary.names),
                          vocabulary=', '.join(vocabulary.texts)[:300])
        values['peak_memory_mb'] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        values['last_error'] = self._node.last_error or 'none'
        state = self._node.state_label()
        return self._status('', DiagnosticStatus.OK if engine else DiagnosticStatus.WARN, state, values)

    def _camera_status(self, camera):
        now = time.monotonic()
        counts = camera.received, camera.segmented, camera.failed
        then, *past = self._before.get(camera.name, (now - PERIOD_S, 0, 0, 0))
        self._before[camera.name] = now, *counts
        seconds = max(now - then, 1e-3)
        rate_in, rate_out, rate_failed = ((a - b) / seconds for a, b in zip(counts, past))
        level, text = DiagnosticStatus.OK, f'{rate_in:.1f} Hz in, {rate_out:.1f} Hz out'
        if rate_failed:
            level, text = DiagnosticStatus.ERROR, f'{rate_failed:.1f} frames a second fail: {camera.last_error}'
        elif not rate_in and self._node.is_active():
            topic = self._node.resolve_topic_name(camera.topic('image'))
            level, text = DiagnosticStatus.WARN, f'no pictures on {topic}'
        values = {'received': camera.received, 'segmented': camera.segmented, 'dropped': camera.dropped,
                  'failed': camera.failed, 'rate_in_hz': f'{rate_in:.2f}', 'rate_out_hz': f'{rate_out:.2f}',
                  'frame_ms': f'{camera.frame_ms:.1f}', 'engine_ms': f'{camera.engine_ms:.1f}',
                  'latency_ms': f'{camera.latency_ms:.1f}',
                  'watched': camera.is_watched()}
        return self._status(f': camera {camera.name}' if camera.name else ': camera', level, text, values)

    def _status(self, suffix, level, text, values):
        return DiagnosticStatus(name=f'{self._node.get_fully_qualified_name()}{suffix}', level=level, message=text,
                                hardware_id='lgseg', values=[KeyValue(key=key, value=str(value))
                                                             for key, value in values.items()])

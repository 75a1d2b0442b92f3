"""The node's end of a bond: heartbeats by which Nav2's lifecycle manager notices that this process is gone.

It uses the message of the package `bond` alone and follows bondcpp, as Nav2's own servers do: topic `bond`, the node's
name as id, no timeout on this side. The heartbeats come from a thread of their own: a parameter whose classes need the
text encoder holds the executor for seconds, and a manager would take the node for dead and stop the robot.
"""

import contextlib
import importlib
import threading
import uuid
from typing import Any

from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.qos import QoSProfile

TOPIC = 'bond'
TIMEOUT_S = 4.0          # reported to the other end, as Nav2's servers do; the manager has its own bond_timeout
GOODBYE_TIMEOUT_S = 0.1  # how long to wait until the goodbye has arrived
SHORTEST_PERIOD_S = 0.02
QOS = QoSProfile(depth=5)


class Bond:
    """One bond, from activation to deactivation."""

    def __init__(self, node: Node, period: float) -> None:
        """Start the heartbeats.

        Args:
            node: the ROS node.
            period: seconds between heartbeats.

        Raises:
            ImportError: the package bond is missing.
        """
        try:
            self._kind: Any = importlib.import_module('bond.msg').Status
        except ImportError as error:
            raise ImportError(f'bond_heartbeat_period is {period:g}, but the package bond cannot be imported '
                              f'({error}); install ros-$ROS_DISTRO-bond, or set bond_heartbeat_period:=0.0') from error
        self._node, self._period = node, period
        self._id, self._instance = node.get_name(), str(uuid.uuid4())
        self.state = 'waiting'   # then formed, then broken
        self._end = threading.Event()
        self._publisher = node.create_publisher(self._kind, TOPIC, QOS)
        self._subscription = node.create_subscription(self._kind, TOPIC, self._on_status, QOS)
        self._thread = threading.Thread(target=self._beat, name='lgseg-bond', daemon=True)
        self._thread.start()

    def _beat(self) -> None:
        while not self._end.is_set():
            self._publish(True)
            self._end.wait(self._period)

    def _publish(self, active: bool) -> None:
        message = self._kind(id=self._id, instance_id=self._instance, active=active, heartbeat_timeout=TIMEOUT_S,
                             heartbeat_period=self._period)
        message.header.stamp = self._node.get_clock().now().to_msg()
        try:
            self._publisher.publish(message)
        except Exception:   # rclpy's own kinds: its context has ended; the manager notices by its timeout
            self._end.set()

    def _on_status(self, message: Any) -> None:
        """Follow the state of the other end; the topic carries the bonds of all nodes."""
        if message.id != self._id or message.instance_id == self._instance or self.state == 'broken':
            return
        if message.active and self.state == 'waiting':
            self.state = 'formed'
            self._node.get_logger().info('bond with the lifecycle manager formed')
        elif not message.active:
            self.state = 'broken'
            self._end.set()
            self._publish(False)   # the other end waits for this answer
            self._node.get_logger().warning('the lifecycle manager ended its bond; this node goes on')

    def close(self) -> None:
        """Say goodbye, so that the manager need not wait for its timeout, and leave the topic."""
        self._end.set()
        self._thread.join()
        if self.state != 'broken':
            self._publish(False)
            with contextlib.suppress(Exception):   # as in _publish
                self._publisher.wait_for_all_acked(Duration(seconds=GOODBYE_TIMEOUT_S))
        self._node.destroy_subscription(self._subscription)
        self._node.destroy_publisher(self._publisher)

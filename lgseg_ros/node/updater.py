"""Publishes statuses on /diagnostics: diagnostic_updater, or where that is missing the little of it needed."""

import importlib
from collections.abc import Callable, Mapping
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rcl_interfaces.msg import FloatingPointRange, ParameterDescriptor
from rclpy.node import Node
from rclpy.timer import Timer

from .rclpy_compat import create_steady_timer

TOPIC = '/diagnostics'
PERIOD, USE_FQN = 'diagnostic_updater.period', 'diagnostic_updater.use_fqn'   # the package's own parameters
SHORTEST_PERIOD_S, LONGEST_PERIOD_S = 0.1, 60.0
Task = Callable[[DiagnosticStatus], DiagnosticStatus]


def create_updater(node: Node, hardware_id: str) -> Any:
    """Create an updater that runs its tasks every `diagnostic_updater.period` seconds and publishes what they return.

    Args:
        node: the ROS node.
        hardware_id: the `hardware_id` of every status.

    Returns:
        An updater with `add(name, task)` and `removeByName(name)`; a task takes a DiagnosticStatus, fills it and
        returns it.
    """
    node.declare_parameter(USE_FQN, True, ParameterDescriptor(   # two robots on one graph have nodes of one name
        description='Name the statuses by the node\'s full name, with its namespace', read_only=True))
    updater = _find_updater()(node)
    if hasattr(updater, 'node_name'):   # the package has it since its 3.2
        updater.node_name = updater.node_name.replace('//', '/')   # as it spells the root namespace
    updater.setHardwareID(hardware_id)
    updater.addedTaskCallback = lambda task: None   # it would publish a status without any of its values
    if updater.timer:
        node.destroy_timer(updater.timer)
    # The package's own timer stands still where use_sim_time is set and no clock runs.
    period = min(max(updater.period, SHORTEST_PERIOD_S), LONGEST_PERIOD_S)
    updater.timer = create_steady_timer(node, period, updater.update)
    return updater


def _find_updater() -> Any:
    try:
        return importlib.import_module('diagnostic_updater').Updater
    except ImportError:   # the wheels have none
        return PlainUpdater


def fill_status(status: DiagnosticStatus, level: bytes, message: str, values: Mapping[str, object]) -> DiagnosticStatus:
    """Fill a DiagnosticStatus.

    Args:
        status: changed in place.
        level: DiagnosticStatus.OK, WARN or ERROR.
        message: one line.
        values: what `str` can show, by key.

    Returns:
        The same status.
    """
    status.level, status.message = level, message
    status.values = [KeyValue(key=key, value=str(value)) for key, value in values.items()]
    return status


class PlainUpdater:
    """Same parameters, names and messages as diagnostic_updater.Updater."""

    def __init__(self, node: Node) -> None:
        """Declare the parameter and create the publisher.

        Args:
            node: the ROS node.
        """
        self.period: float = node.declare_parameter(PERIOD, 1.0, ParameterDescriptor(
            description='Seconds between two messages on /diagnostics', read_only=True,
            floating_point_range=[FloatingPointRange(from_value=SHORTEST_PERIOD_S, to_value=LONGEST_PERIOD_S)])).value
        full = node.get_parameter(USE_FQN).value
        self.node_name = node.get_fully_qualified_name() if full else node.get_name()
        self.timer: Timer | None = None
        self._node = node
        self._tasks: dict[str, Task] = {}
        self._hardware_id = ''
        self._publisher = node.create_publisher(DiagnosticArray, TOPIC, 1)

    def setHardwareID(self, text: str) -> None:   # noqa: N802 (the package's spelling, here and below)
        """Set the `hardware_id` of every status."""
        self._hardware_id = text

    def add(self, name: str, task: Task) -> None:
        """Run `task` at every tick; its status is named `name`."""
        self._tasks[name] = task

    def removeByName(self, name: str) -> None:   # noqa: N802
        """Run the task of that name no more."""
        self._tasks.pop(name, None)

    def update(self) -> None:
        """Run all tasks and publish."""
        message = DiagnosticArray()
        message.header.stamp = self._node.get_clock().now().to_msg()
        message.status = [task(DiagnosticStatus(name=f'{self.node_name}: {name}', hardware_id=self._hardware_id))
                          for name, task in self._tasks.items()]
        self._publisher.publish(message)

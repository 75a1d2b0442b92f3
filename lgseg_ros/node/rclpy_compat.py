"""Work-arounds for rclpy: its differences between distributions, and defaults that would end or mute the node."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from lifecycle_msgs.srv import ChangeState
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode
from rclpy.node import Node
from rclpy.timer import Timer
from rclpy.topic_endpoint_info import TopicEndpointInfo

try:
    from rclpy.event_handler import SubscriptionEventCallbacks as SubscriptionEventCallbacks
except ImportError:   # Humble
    from rclpy.qos_event import SubscriptionEventCallbacks as SubscriptionEventCallbacks

UNKNOWN_NODE_NAME = '_NODE_NAME_UNKNOWN_'
"""The name that rmw gives for a participant whose nodes it has not heard of yet."""


def create_steady_timer(node: Node, period_s: float, callback: Callable[[], Any]) -> Timer:
    """Create a timer on the steady clock: `use_sim_time` neither stops nor hurries it.

    Args:
        node: the node that owns the timer.
        period_s: seconds between calls.
        callback: what to call.

    Returns:
        The timer, which `node.destroy_timer` ends.
    """
    return node.create_timer(period_s, callback, clock=Clock(clock_type=ClockType.STEADY_TIME))


def names_are_known(endpoints: Iterable[TopicEndpointInfo]) -> bool:
    """Check that the node names of all endpoints have arrived; on a busy machine they arrive late.

    Args:
        endpoints: publishers or subscriptions of a topic.

    Returns:
        Whether no name is still missing.
    """
    return all(endpoint.node_name != UNKNOWN_NODE_NAME for endpoint in endpoints)


def refuse_invalid_transitions(node: LifecycleNode, state_label: Callable[[], str]) -> None:
    """Answer a transition that the state does not allow with a failure: rclpy raises, which would end the process.

    Args:
        node: the managed node.
        state_label: gives the present lifecycle state, for the log.
    """
    def change_state(original: Callable[..., Any], request: ChangeState.Request,
                     response: ChangeState.Response) -> ChangeState.Response:
        try:
            return original(request, response)
        except RuntimeError as error:   # rclpy's RCLError; what goes wrong within a transition never gets here
            node.get_logger().error(f'transition {request.transition.id} refused while {state_label()}: {error}')
            response.success = False
            return response

    for service in node.services:
        if service.srv_type is ChangeState:
            service.callback = partial(change_state, service.callback)

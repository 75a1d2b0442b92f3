"""Timers of the node itself, which run on whether or not a simulated clock does."""

from rclpy.clock import Clock, ClockType


def create_steady_timer(node, period_s, callback):
    """A timer of `node` on the steady clock; `use_sim_time` neither stops nor hurries it."""
    return node.create_timer(period_s, callback, clock=Clock(clock_type=ClockType.STEADY_TIME))

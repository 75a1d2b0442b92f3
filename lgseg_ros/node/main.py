"""Entry point of the executable `segment_node`."""

import os
import signal
import sys
import traceback

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.signals import SignalHandlerOptions

from .segment_node import SegmentNode

LOOK_S = 0.1   # how often the executor looks for a signal


def main(args=None):
    """Run the node until it is told to stop.  Returns the exit code: 1 when it could not start."""
    signals = []

    def remember(number, _):
        signals.append(number)
        for either in before:   # a second one, of whichever kind, ends the process at once, whatever it is doing
            signal.signal(either, signal.SIG_DFL)

    # Not rclpy's handlers: they end its context under the node, so that no goodbye can be sent, and raise from
    # wherever the interpreter happens to be.
    before = {number: signal.signal(number, remember) for number in (signal.SIGINT, signal.SIGTERM)}
    rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    node, code = None, 1
    try:
        node = SegmentNode()
        if node.settings.autostart and not node.start():
            return 1
        executor = SingleThreadedExecutor()
        executor.add_node(node)
        while not signals and rclpy.ok():
            executor.spin_once(timeout_sec=LOOK_S)
        code = 0
    except ValueError as error:
        rclpy.logging.get_logger('lgseg').fatal(str(error))
    finally:
        if node is not None:
            node.close()
        rclpy.try_shutdown()
        for number, handler in before.items():
            signal.signal(number, handler)
        if node is not None and node.engine_runs():
            leave_at_once(code)
    return code


def leave_at_once(code):
    """End the process, its goodbyes said, without taking libraries down under a thread that still runs in one of them:
    OpenVINO aborts then.  An exception on its way out is told first."""
    if sys.exc_info()[0]:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == '__main__':
    sys.exit(main())

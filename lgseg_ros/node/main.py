"""Entry point of the executable `segment_node`."""

import os
import signal
import sys
import traceback
from types import FrameType

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.signals import SignalHandlerOptions

from .segmentation_node import SegmentationNode

SIGNAL_POLL_S = 0.1   # how often the executor looks for a signal


def main(args: list[str] | None = None) -> int:
    """Run the node until it is told to stop.

    Args:
        args: the command line, by default that of the process.

    Returns:
        The exit code: 1 when it could not start.
    """
    signals = []

    def remember(number: int, _: FrameType | None) -> None:
        signals.append(number)
        for either in before:   # a second one, of whichever kind, ends the process at once, whatever it is doing
            signal.signal(either, signal.SIG_DFL)

    # Not rclpy's handlers: they end its context under the node, so that no goodbye can be sent, and raise from
    # wherever the interpreter happens to be.
    before = {number: signal.signal(number, remember) for number in (signal.SIGINT, signal.SIGTERM)}
    rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    node, code = None, 1
    try:
        node = SegmentationNode()
        if node.settings.autostart and not node.start():
            return 1
        executor = SingleThreadedExecutor()
        executor.add_node(node)
        while not signals and rclpy.ok():
            executor.spin_once(timeout_sec=SIGNAL_POLL_S)
        code = 0
    except ValueError as error:
        rclpy.logging.get_logger('lgseg').fatal(str(error))
    finally:
        if node is not None:
            node.close()
        rclpy.try_shutdown()
        for number, handler in before.items():
            signal.signal(number, handler)
        if node is not None and node.engine_is_running():
            exit_immediately(code)
    return code


def exit_immediately(code: int) -> None:
    """End the process, although a thread still runs in a library: OpenVINO aborts when it is taken down then.

    An exception on its way out is printed first.

    Args:
        code: the exit code.
    """
    if sys.exc_info()[0]:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == '__main__':
    sys.exit(main())

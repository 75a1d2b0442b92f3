"""Entry point of the executable `segment_node`."""

import signal
import sys

import rclpy
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor

from .segment_node import SegmentNode


def main(args=None):
    """Run the node until it is told to stop.  Returns the exit code: 1 when it could not start."""
    interrupts = []

    def interrupt(number, _):
        interrupts.append(number)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, interrupt)   # rclpy.init keeps it, and calls it after its own
    rclpy.init(args=args)
    node = None
    try:
        node = SegmentNode()
        if node.settings.autostart and not node.start():
            return 1
        executor = SingleThreadedExecutor()
        executor.add_node(node)
        executor.spin()
    except (KeyboardInterrupt, ExternalShutdownException):
        pass   # SIGINT raises the one, SIGTERM the other
    except ValueError as error:
        rclpy.logging.get_logger('lgseg').fatal(str(error))
        return 1
    except Exception:
        # A signal that meets rclpy in the middle of its own code comes out as another error: SIGINT while a message
        # is converted as a failed conversion, SIGTERM between two waits as an invalid context.
        if rclpy.ok() and not interrupts:
            raise
    finally:
        if node is not None:
            node.close()
        rclpy.try_shutdown()
        signal.signal(signal.SIGINT, before)
    return 0


if __name__ == '__main__':
    sys.exit(main())

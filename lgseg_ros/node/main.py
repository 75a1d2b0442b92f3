"""Entry point of the executable `segment_node`."""

import sys

import rclpy
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor

from .segment_node import SegmentNode


def main(args=None):
    """Run the node until it is told to stop.  Returns the exit code: 1 when it could not start."""
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
    finally:
        if node is not None:
            node.close()
        rclpy.try_shutdown()
    return 0


if __name__ == '__main__':
    sys.exit(main())

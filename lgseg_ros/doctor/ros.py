"""Checks of the ROS 2 installation and of the interfaces that the node needs."""

import os
from pathlib import Path

from ..utils.subprocesses import run_code
from .check_result import CheckResult, fail, ok, skip, warn

SUPPORTED = ('humble', 'jazzy', 'kilted')
# In a child: rcl ends the whole process when RMW_IMPLEMENTATION names something that is not there.
IDENTIFY = 'import rclpy; rclpy.init(); print(rclpy.get_rmw_implementation_identifier())'
INTERFACES = {'sensor_msgs.msg': 'Image', 'diagnostic_msgs.msg': 'DiagnosticArray', 'lifecycle_msgs.msg': 'Transition',
              'vision_msgs.msg': 'LabelInfo', 'lgseg_ros.srv': 'SetVocabulary'}
IMPORT_ALL = '''
import importlib, sys
for module, name in zip(sys.argv[1::2], sys.argv[2::2]):
    print(module.split('.')[0], flush=True)
    getattr(importlib.import_module(module), name)
'''


class RosInstallation:
    """The sourced ROS 2 installation, which all checks of ROS start from.

    Attributes:
        distribution: ROS_DISTRO, '' where ROS is not sourced.
        usable: whether rclpy starts.
        rmw: identifier of the RMW implementation, '' where rclpy does not start.
        reason: why rclpy does not start, '' where it does.
    """

    def __init__(self) -> None:
        """Start rclpy in a child process."""
        result = run_code(IDENTIFY)
        self.distribution = os.environ.get('ROS_DISTRO', '')
        self.rmw = result.answer if result.succeeded else ''
        self.reason = result.reason
        self.usable = result.succeeded


def distribution(ros: RosInstallation) -> CheckResult:
    """Check whether ROS 2 is sourced and this Python can use it."""
    if ros.usable and ros.distribution in SUPPORTED:
        return ok(ros.distribution)
    if ros.usable:
        return warn(f'{ros.distribution or "unnamed (ROS_DISTRO is not set)"}',
                    f'tested with {", ".join(SUPPORTED)}: others may behave differently')
    if ros.distribution:
        wanted = os.environ.get('RMW_IMPLEMENTATION', '')
        if wanted and 'rclpy' not in ros.reason:
            return fail(f'{ros.distribution} does not start with RMW_IMPLEMENTATION={wanted}: {ros.reason}',
                        f'apt install ros-$ROS_DISTRO-{wanted.replace("_", "-")}, or unset RMW_IMPLEMENTATION')
        return fail(f'{ros.distribution} is sourced, but rclpy cannot be imported: {ros.reason}',
                    'use the Python it was built for (usually /usr/bin/python3; virtual environments: '
                    'python3 -m venv --system-site-packages)')
    installed = sorted(path.parent for path in Path('/opt/ros').glob('*/setup.bash'))
    source = f'source {installed[-1]}/setup.bash' if installed else 'in a clone: source scripts/activate.sh'
    return warn('ROS 2 is not sourced; the node cannot run; segmenting files and training can', source)


def interfaces(ros: RosInstallation) -> CheckResult:
    """Check whether all message and service packages can be imported."""
    if not ros.usable:
        return skip('ROS 2 is not usable here')
    result = run_code(IMPORT_ALL, *(word for pair in INTERFACES.items() for word in pair))
    if result.succeeded:
        return ok(', '.join(sorted(module.split('.')[0] for module in INTERFACES)))
    package = result.answer   # the one whose import began last
    if package == 'lgseg_ros':
        return fail(f'the services of this package are not built: {result.reason}',
                    'colcon build, then source install/setup.bash; in a clone: scripts/setup.sh')
    return fail(f'{package} cannot be imported: {result.reason}',
                f'apt install ros-$ROS_DISTRO-{package.replace("_", "-")}')

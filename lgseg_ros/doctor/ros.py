"""The ROS 2 installation and the interfaces that the node needs."""

import os
from pathlib import Path

from .child import run_python
from .verdict import fail, ok, skip, warn

MADE_FOR = ('humble', 'jazzy', 'kilted')
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


class Ros:
    """What one look at the installation told; all checks of ROS begin with it."""

    def __init__(self):
        outcome = run_python('-c', IDENTIFY)
        self.distribution = os.environ.get('ROS_DISTRO', '')
        self.rmw = outcome.answer if outcome.worked else ''
        self.reason = outcome.reason
        self.works = outcome.worked


def distribution(ros):
    """Whether a ROS 2 is sourced, and this Python can use it."""
    if ros.works and ros.distribution in MADE_FOR:
        return ok(ros.distribution)
    if ros.works:
        return warn(f'{ros.distribution or "unnamed (ROS_DISTRO is not set)"}',
                    f'made for {", ".join(MADE_FOR)}: expect differences, or use one of them')
    if ros.distribution:
        wanted = os.environ.get('RMW_IMPLEMENTATION', '')
        if wanted and 'rclpy' not in ros.reason:
            return fail(f'{ros.distribution} does not start with RMW_IMPLEMENTATION={wanted}: {ros.reason}',
                        f'apt install ros-$ROS_DISTRO-{wanted.replace("_", "-")}, or unset RMW_IMPLEMENTATION')
        return fail(f'{ros.distribution} is sourced, but rclpy cannot be imported: {ros.reason}',
                    'use the Python it was built for (mostly /usr/bin/python3; virtual environments: '
                    'python3 -m venv --system-site-packages)')
    installed = sorted(path.parent for path in Path('/opt/ros').glob('*/setup.bash'))
    source = f'source {installed[-1]}/setup.bash' if installed else 'in a clone: source scripts/activate.sh'
    return warn('ROS 2 is not sourced; the node cannot run, pictures and training can', source)


def interfaces(ros):
    """Whether all message and service packages can be imported."""
    if not ros.works:
        return skip('ROS 2 is not usable here')
    outcome = run_python('-c', IMPORT_ALL, *(word for pair in INTERFACES.items() for word in pair))
    if outcome.worked:
        return ok(', '.join(sorted(module.split('.')[0] for module in INTERFACES)))
    package = outcome.answer   # the one that was begun last
    if package == 'lgseg_ros':
        return fail(f'the services of this package are not built: {outcome.reason}',
                    'colcon build, then source install/setup.bash; in a clone: scripts/setup.sh')
    return fail(f'{package} cannot be imported: {outcome.reason}',
                f'apt install ros-$ROS_DISTRO-{package.replace("_", "-")}')

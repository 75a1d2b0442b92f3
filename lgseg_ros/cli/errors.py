"""Errors of the library as one line for the terminal."""

import argparse
import re
import sys

HINTS = {
    ('lgseg_ros.srv',): 'colcon build, then source install/setup.bash (in a clone: scripts/setup.sh)',
    ('rclpy', 'rcl_interfaces', 'sensor_msgs', 'std_msgs', 'diagnostic_msgs', 'lifecycle_msgs'):
        'source your ROS 2 distribution (in a clone: source scripts/activate.sh)',
    ('vision_msgs', 'bond', 'diagnostic_updater'):
        'rosdep install --from-paths src --ignore-src (in a clone: scripts/setup.sh, source scripts/activate.sh)',
    ('cv2', 'numpy', 'yaml'):
        'pip install -r requirements/run-without-ros.txt; with a ROS distribution, rosdep install --from-paths src '
        '--ignore-src (in a clone: scripts/setup.sh)',
    ('onnxruntime', 'safetensors', 'tqdm'): 'pip install -r requirements/run.txt (in a clone: scripts/setup.sh)',
    ('PIL',): 'pip install pillow',
    ('torch', 'torchvision', 'timm', 'open_clip', 'onnx', 'onnxscript'):
        'pip install -r requirements/train.txt (in a clone: scripts/setup.sh --with train)',
}
"""How to install the modules that some commands need."""


def explain_missing(module: str) -> str | None:
    """Explain how to install a missing module.

    Args:
        module: the name in a ModuleNotFoundError.

    Returns:
        What is missing and how to install it, in one line; None for a module that is not optional.
    """
    for name in (module, module.partition('.')[0]):
        for modules, hint in HINTS.items():
            if name in modules:
                return f'{name} is not installed for {sys.executable}; to install it: {hint}'
    return None


def name_options(message: str, parser: argparse.ArgumentParser) -> str:
    """Translate the argument names in an error of the library to the options of a command.

    An argument is known by the parser's `dest`. Names in backticks are translated, and a name at the start of the
    message that `is` follows: "max_frames is 0; give another `out`" becomes "--frames is 0; give another --out".

    Args:
        message: text of the error.
        parser: parser of the command that called the library.

    Returns:
        The message for the terminal.
    """
    options = {action.dest: action.option_strings[-1] if action.option_strings else str(action.metavar or action.dest)
               for action in parser._actions}
    message = re.sub(r'`(\w+)`', lambda match: options.get(match[1], match[0]), message)
    return re.sub(r'^(\w+)(?= is )', lambda match: options.get(match[1], match[0]), message)

"""What to do about a package that a command needs and this Python does not have."""

import sys

CURES = {
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


def explain_missing(module):
    """What is missing and the cure, in one line, or None where `module` is no package that a command may lack.

    module: the name in a ModuleNotFoundError.
    """
    for name in (module, module.partition('.')[0]):
        for modules, cure in CURES.items():
            if name in modules:
                return f'{name} is not installed for {sys.executable}; to cure it: {cure}'
    return None

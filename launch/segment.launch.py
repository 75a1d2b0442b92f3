"""Start the segmentation node: ros2 launch lgseg_ros segment.launch.py image_topic:=/camera/image_raw"""

import os

import yaml
from ament_index_python.packages import get_package_share_directory
from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction, SetEnvironmentVariable
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

SHARE = get_package_share_directory('lgseg_ros')
PROFILE_VARIABLES = ('FASTDDS_DEFAULT_PROFILES_FILE', 'FASTRTPS_DEFAULT_PROFILES_FILE')
ARGUMENTS = {
    'image_topic': ('/camera/image_raw', 'Topic of the camera pictures (sensor_msgs/Image)'),
    'camera_info_topic': ('', 'Topic of its sensor_msgs/CameraInfo; empty: camera_info beside image_topic'),
    'vocabulary': ('', 'Classes as a list, e.g. "[road, car, person=person|pedestrian]"; empty: those of the preset'),
    'preset': ('', 'Named vocabulary: camvid, cityscapes, autoware, nav2; empty: as params_file says'),
    'weights': ('', 'Shipped name or path of a .safetensors file; empty: as params_file says'),
    'engine': ('', 'What runs the network: auto, onnxruntime; empty: as params_file says'),
    'params_file': (os.path.join(SHARE, 'config', 'segment.yaml'), 'YAML file with the node\'s parameters'),
    'namespace': ('', 'Namespace of the node'),
    'log_level': ('info', 'debug, info, warn, error or fatal'),
}


def parse_classes(text):
    """'[road, car]' or 'road, car' as a list of strings.  Raises ValueError that shows how to write it."""
    try:
        value = yaml.safe_load(text if text.lstrip().startswith('[') else f'[{text}]')
    except yaml.YAMLError:
        value = None
    if not isinstance(value, list) or not all(isinstance(item, (str, int, float, bool)) for item in value):
        raise ValueError(f'vocabulary:={text} is not a list of classes; write vocabulary:="[road, car, sky]"')
    return [str(item) for item in value]


def make_node(context):
    """The node's action; a launch argument that is given wins over the parameter file."""
    given = {name: LaunchConfiguration(name).perform(context) for name in ARGUMENTS}
    overrides = {name: given[name] for name in ('preset', 'weights', 'engine') if given[name]}
    if given['vocabulary']:
        overrides['vocabulary'] = parse_classes(given['vocabulary'])
    info_topic = given['camera_info_topic'] or given['image_topic'].rpartition('/')[0] + '/camera_info'
    return [Node(package='lgseg_ros', executable='segment_node', name='lgseg', namespace=given['namespace'],
                 parameters=[given['params_file'], overrides],
                 remappings=[('image', given['image_topic']), ('camera_info', info_topic)],
                 arguments=['--ros-args', '--log-level', given['log_level']], output='screen', emulate_tty=True)]


def generate_launch_description():
    """Declare the arguments, bring the transport profile unless the user has one, start the node."""
    profile = []
    if not any(os.environ.get(name) for name in PROFILE_VARIABLES):
        profile = [SetEnvironmentVariable(name, os.path.join(SHARE, 'config', 'fastdds.xml'))
                   for name in PROFILE_VARIABLES]
    declared = [DeclareLaunchArgument(name, default_value=default, description=text)
                for name, (default, text) in ARGUMENTS.items()]
    return LaunchDescription([*declared, *profile, OpaqueFunction(function=make_node)])

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
    'cameras': ('', 'Several cameras in place of image_topic, e.g. "{front: /front/image_raw, left: /left/image_raw}"'),
    'vocabulary': ('', 'Classes as a list, e.g. "[road, car, person=person|pedestrian]"; empty: those of the preset'),
    'preset': ('', 'Named vocabulary: camvid, cityscapes, autoware, nav2; empty: as params_file says'),
    'weights': ('', 'Shipped name or path of a .safetensors file; empty: as params_file says'),
    'engine': ('', 'What runs the network: auto, tensorrt, torch, openvino, onnxruntime; empty: as params_file says'),
    'precision': ('', 'Numbers it computes with: auto, fp32, fp16, int8; empty: as params_file says'),
    'params_file': (os.path.join(SHARE, 'config', 'segment.yaml'), 'YAML file with the node\'s parameters'),
    'autostart': ('', 'true, or false to wait for a lifecycle manager; empty: as params_file says'),
    'use_sim_time': ('', 'true to take the time from /clock; empty: as params_file says'),
    'namespace': ('', 'Namespace of the node'),
    'log_level': ('info', 'debug, info, warn, error or fatal'),
}

TRUTH = ['', 'true', 'false', 'True', 'False']
CHOICES = {'autostart': TRUTH, 'use_sim_time': TRUTH}


def parse_classes(text):
    """'[road, car]' or 'road, car' as a list of strings.  Raises ValueError that shows how to write it."""
    try:
        value = yaml.safe_load(text if text.lstrip().startswith('[') else f'[{text}]')
    except yaml.YAMLError:
        value = None
    if not isinstance(value, list) or not all(isinstance(item, (str, int, float, bool)) for item in value):
        raise ValueError(f'vocabulary:={text} is not a list of classes; write vocabulary:="[road, car, sky]"')
    return [str(item) for item in value]


def parse_cameras(text):
    """'{front: /front/image_raw}' as a dict of name and topic.  Raises ValueError that shows how to write it."""
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        value = None
    words = [word for pair in value.items() for word in pair] if isinstance(value, dict) else []
    if not words or not all(isinstance(word, str) for word in words):
        raise ValueError(f'cameras:={text} is not names with topics; write cameras:="{{front: /front/image_raw}}"')
    return value


def beside(image_topic):
    """The CameraInfo topic that a camera driver publishes beside its pictures."""
    head, slash, _ = image_topic.rpartition('/')
    return f'{head}{slash}camera_info'


def make_node(context):
    """The node's action; a launch argument that is given wins over the parameter file."""
    given = {name: LaunchConfiguration(name).perform(context) for name in ARGUMENTS}
    overrides = {name: given[name] for name in ('preset', 'weights', 'engine', 'precision') if given[name]}
    overrides.update({name: given[name].lower() == 'true' for name in ('autostart', 'use_sim_time') if given[name]})
    if given['vocabulary']:
        overrides['vocabulary'] = parse_classes(given['vocabulary'])
    remappings = [('image', given['image_topic']),
                  ('camera_info', given['camera_info_topic'] or beside(given['image_topic']))]
    if given['cameras']:
        cameras = parse_cameras(given['cameras'])
        overrides['cameras'] = list(cameras)
        remappings = [pair for name, topic in cameras.items()
                      for pair in ((f'{name}/image', topic), (f'{name}/camera_info', beside(topic)))]
    return [Node(package='lgseg_ros', executable='segment_node', name='lgseg', namespace=given['namespace'],
                 parameters=[given['params_file'], overrides], remappings=remappings,
                 arguments=['--ros-args', '--log-level', given['log_level']], output='screen', emulate_tty=True)]


def generate_launch_description():
    """Declare the arguments, bring the transport profile unless the user has one, start the node."""
    profile = []
    if not any(os.environ.get(name) for name in PROFILE_VARIABLES):
        profile = [SetEnvironmentVariable(name, os.path.join(SHARE, 'config', 'fastdds.xml'))
                   for name in PROFILE_VARIABLES]
    declared = [DeclareLaunchArgument(name, default_value=default, description=text, choices=CHOICES.get(name))
                for name, (default, text) in ARGUMENTS.items()]
    return LaunchDescription([*declared, *profile, OpaqueFunction(function=make_node)])

"""The arguments of segment.launch.py: what they are called, and what of the node they set.  Needs no launch."""

import os

import yaml

from .paths import find_share

# Parameters of the node with their types: one that is given wins over the file. `cameras` is written otherwise, below.
# Not read from node.settings, whose imports (OpenCV, rclpy) would delay every launch; a test compares the two.
PARAMETERS = {
    'vocabulary': (list, 'Classes as a list, e.g. "[road, car, person=person|pedestrian]"'),
    'preset': (str, 'Named vocabulary: camvid, cityscapes, autoware, nav2'),
    'threshold': (float, 'Least confidence of a labelled pixel, 0.0 to 1.0'),
    'weights': (str, 'Shipped name or path of a .safetensors file'),
    'engine': (str, 'What runs the network: auto, tensorrt, torch, openvino, onnxruntime'),
    'precision': (str, 'Numbers it computes with: auto, fp32, fp16, int8'),
    'threads': (int, 'CPU threads of the engine; 0: all cores'),
    'network_pixels': (int, 'Pixels of the picture that the network sees; fewer is faster'),
    'output_size': (str, 'Size of masks: input or network'),
    'transport': (str, 'Kind of pictures: raw, or compressed (JPEG or PNG on IMAGE_TOPIC/compressed)'),
    'image_reliability': (str, 'Reliability asked of the camera: best_effort or reliable'),
    'lazy_subscription': (bool, 'true to leave the camera alone while nobody listens'),
    'overlay_alpha': (float, 'Opacity of the classes in the overlay, 0.0 to 1.0'),
    'bond_heartbeat_period': (float, "Seconds between heartbeats to Nav2's lifecycle manager; 0.0: no bond"),
    'autostart': (bool, 'true, or false to wait for a lifecycle manager'),
    'use_sim_time': (bool, 'true to take the time from /clock'),
}
ARGUMENTS = {
    'image_topic': ('/camera/image_raw', 'Topic of the camera pictures (sensor_msgs/Image)'),
    'camera_info_topic': ('', 'Topic of its sensor_msgs/CameraInfo; empty: camera_info beside image_topic'),
    'cameras': ('', 'Several cameras in place of image_topic, e.g. "{front: /front/image_raw, left: /left/image_raw}"'),
    'params_file': (str(find_share('config', 'segment.yaml')), "YAML file with the node's parameters"),
    'namespace': ('', 'Namespace of the node'),
    'log_level': ('info', 'debug, info, warn, error or fatal'),
    **{name: ('', f'{text}; empty: as params_file says') for name, (_, text) in PARAMETERS.items()},
}


def parse_classes(text):
    """'[road, car]' or 'road, car' as a list of strings.  Raises ValueError."""
    try:
        value = yaml.safe_load(text if text.lstrip().startswith('[') else f'[{text}]')
    except yaml.YAMLError:
        value = None
    if not isinstance(value, list) or not all(isinstance(item, (str, int, float, bool)) for item in value):
        raise ValueError(text)
    return [str(item) for item in value] or ['']   # ROS has no empty list; no names are no words


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


def parse_truth(text):
    """'true' or 'False' as a bool.  Raises ValueError."""
    if text.lower() not in ('true', 'false'):
        raise ValueError(text)
    return text.lower() == 'true'


READERS = {list: (parse_classes, 'a list of classes, as in "[road, car, sky]"'), str: (str, 'text'),
           int: (int, 'a whole number, as in 2'), float: (float, 'a number, as in 0.5'),
           bool: (parse_truth, 'true or false')}


def parse(name, text):
    """The text of a launch argument as a value of the parameter's type.  Raises ValueError that shows how to write it."""
    read, example = READERS[PARAMETERS[name][0]]
    try:
        return read(text)
    except ValueError:
        raise ValueError(f'{name}:={text}: write {example}') from None


def beside(image_topic):
    """The CameraInfo topic that a camera driver publishes beside its pictures."""
    head, slash, _ = image_topic.rpartition('/')
    return f'{head}{slash}camera_info'


def params_files(given):
    """[path] of params_file, [] where it is empty.  Raises ValueError for one that is not there: launch would only warn,
    and the node run with other words, whose ids mean something else to whoever reads the masks."""
    path = os.path.expanduser(given['params_file'])
    if path and not os.path.isfile(path):
        raise ValueError(f'params_file:={path} is not there; give the path of a YAML file, from the root or from here')
    return [path] if path else []


def overrides(given):
    """{parameter: value} that win over the parameter file.  given: {argument: text}.  Raises ValueError."""
    values = {name: parse(name, given[name]) for name in PARAMETERS if given[name]}
    if given['cameras']:
        values['cameras'] = list(parse_cameras(given['cameras']))
    return values


def remappings(given):
    """(from, to) of the camera topics.  given: {argument: text}.  Raises ValueError."""
    if not given['cameras']:
        return [('image', given['image_topic']),
                ('camera_info', given['camera_info_topic'] or beside(given['image_topic']))]
    return [pair for name, topic in parse_cameras(given['cameras']).items()
            for pair in ((f'{name}/image', topic), (f'{name}/camera_info', beside(topic)))]

"""The arguments of segment.launch.py: their names, and what they set on the node. Needs no launch."""

import os
from collections.abc import Callable, Mapping
from typing import Any

import yaml

from ..utils.paths import find_share

# Not read from node.parameters, whose imports (OpenCV, rclpy) would delay every launch; a test compares the two.
PARAMETERS: dict[str, tuple[type, str]] = {
    'vocabulary': (list, 'Classes to segment, e.g. "[road, car, person=person|pedestrian]"'),
    'preset': (str, 'Named vocabulary: camvid, cityscapes, autoware, nav2'),
    'confidence_threshold': (float, 'Minimum confidence of a labelled pixel, 0.0 to 1.0'),
    'weights': (str, 'Shipped name or path of a .safetensors file'),
    'engine': (str, 'Inference engine: auto, tensorrt, torch, openvino, onnxruntime'),
    'precision': (str, 'Numeric precision: auto, fp32, fp16, int8'),
    'num_threads': (int, 'CPU threads of the engine; 0: all cores'),
    'max_inference_pixels': (int, 'Maximum number of pixels at the network input; fewer is faster'),
    'output_size': (str, 'Size of masks: input or network'),
    'image_transport': (str, 'Type of the images: raw, or compressed (JPEG or PNG on IMAGE_TOPIC/compressed)'),
    'image_reliability': (str, 'QoS reliability of the image subscription: best_effort or reliable'),
    'lazy_subscription': (bool, 'true to subscribe to images only while an output has subscribers'),
    'overlay_alpha': (float, 'Opacity of the classes in the overlay, 0.0 to 1.0'),
    'bond_heartbeat_period': (float, "Seconds between heartbeats to Nav2's lifecycle manager; 0.0: no bond"),
    'autostart': (bool, 'true, or false to wait for a lifecycle manager'),
    'use_sim_time': (bool, 'true to take the time from /clock'),
}
"""Node parameters that are launch arguments, with type and description. `cameras` is an argument of its own below."""

ARGUMENTS: dict[str, tuple[str, str]] = {
    'image_topic': ('/camera/image_raw', 'Topic of the camera images (sensor_msgs/Image)'),
    'camera_info_topic': ('', 'Topic of its sensor_msgs/CameraInfo; empty: camera_info beside image_topic'),
    'cameras': ('', 'Several cameras in place of image_topic, e.g. "{front: /front/image_raw, left: /left/image_raw}"'),
    'params_file': (str(find_share('config', 'segment.yaml')), "YAML file with the node's parameters"),
    'namespace': ('', 'Namespace of the node'),
    'log_level': ('info', 'debug, info, warn, error or fatal'),
    **{name: ('', f'{text}; empty: the value in params_file') for name, (_, text) in PARAMETERS.items()},
}
"""All launch arguments, with default and description."""


def parse_classes(text: str) -> list[str]:
    """Parse '[road, car]' or 'road, car'.

    Raises:
        ValueError: it is no list of classes.
    """
    try:
        value = yaml.safe_load(text if text.lstrip().startswith('[') else f'[{text}]')
    except yaml.YAMLError:
        value = None
    if not isinstance(value, list) or not all(isinstance(item, (str, int, float, bool)) for item in value):
        raise ValueError(text)
    return [str(item) for item in value] or ['']   # ROS has no empty list; [''] is no classes


def parse_cameras(text: str) -> dict[str, str]:
    """Parse '{front: /front/image_raw}' into camera names and topics.

    Raises:
        ValueError: it is no such mapping; the message shows how to write it.
    """
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        value = None
    strings = [string for pair in value.items() for string in pair] if isinstance(value, dict) else []
    if not strings or not all(isinstance(string, str) for string in strings):
        raise ValueError(f'cameras:={text} is not names with topics; write cameras:="{{front: /front/image_raw}}"')
    return dict(value)


def parse_bool(text: str) -> bool:
    """Parse 'true' or 'False'.

    Raises:
        ValueError: it is neither.
    """
    if text.lower() not in ('true', 'false'):
        raise ValueError(text)
    return text.lower() == 'true'


PARSERS: dict[type, tuple[Callable[[str], Any], str]] = {
    list: (parse_classes, 'a list of classes, as in "[road, car, sky]"'), str: (str, 'text'),
    int: (int, 'a whole number, as in 2'), float: (float, 'a number, as in 0.5'), bool: (parse_bool, 'true or false')}
"""For each type of parameter its parser, and an example for the error message."""


def parse_parameter(name: str, text: str) -> Any:
    """Parse a launch argument as a value of the parameter's type.

    Args:
        name: of the parameter.
        text: the argument.

    Returns:
        A value of the type in `PARAMETERS`.

    Raises:
        ValueError: it is not of that type; the message shows how to write it.
    """
    parser, example = PARSERS[PARAMETERS[name][0]]
    try:
        return parser(text)
    except ValueError:
        raise ValueError(f'{name}:={text}: write {example}') from None


def camera_info_topic_of(image_topic: str) -> str:
    """Return the CameraInfo topic that a camera driver publishes beside its images."""
    head, slash, _ = image_topic.rpartition('/')
    return f'{head}{slash}camera_info'


def parameter_files(arguments: Mapping[str, str]) -> list[str]:
    """Return [path] of params_file, [] where it is empty.

    Args:
        arguments: the launch arguments as text.

    Raises:
        ValueError: it does not exist. Launch would only warn, and the node would run with another vocabulary, whose ids
            mean something else to the consumers of the masks.
    """
    path = os.path.expanduser(arguments['params_file'])
    if path and not os.path.isfile(path):
        raise ValueError(f'params_file:={path} does not exist; give the path of a YAML file, absolute or relative to '
                         'the present folder')
    return [path] if path else []


def parameter_overrides(arguments: Mapping[str, str]) -> dict[str, Any]:
    """Return the parameters that win over the parameter file.

    Args:
        arguments: the launch arguments as text.

    Returns:
        Values by name of parameter, of the arguments that are not empty.

    Raises:
        ValueError: one cannot be parsed.
    """
    values = {name: parse_parameter(name, arguments[name]) for name in PARAMETERS if arguments[name]}
    if arguments['cameras']:
        values['cameras'] = list(parse_cameras(arguments['cameras']))
    return values


def remappings(arguments: Mapping[str, str]) -> list[tuple[str, str]]:
    """Return (from, to) of the camera topics.

    Args:
        arguments: the launch arguments as text.

    Raises:
        ValueError: cameras cannot be parsed.
    """
    if not arguments['cameras']:
        image_topic = arguments['image_topic']
        return [('image', image_topic),
                ('camera_info', arguments['camera_info_topic'] or camera_info_topic_of(image_topic))]
    return [pair for name, topic in parse_cameras(arguments['cameras']).items()
            for pair in ((f'{name}/image', topic), (f'{name}/camera_info', camera_info_topic_of(topic)))]

"""Checks of topics and of the clock on the ROS graph.

Runs as a process of its own (`python -m lgseg_ros.doctor.topics SECONDS TOPIC ...`), because an incompatible
middleware ends its process. Prints a list of check results as JSON.
"""

import difflib
import json
import os
import sys
import time
from collections.abc import Sequence

import rclpy
from rclpy.node import Node
from rclpy.qos import QoSCompatibility, QoSProfile, ReliabilityPolicy, qos_check_compatible
from rclpy.topic_endpoint_info import TopicEndpointInfo

from ..node.rclpy_compat import names_are_known
from .check_result import CheckResult, fail, ok, warn

IMAGE_TYPES = ('sensor_msgs/msg/Image', 'sensor_msgs/msg/CompressedImage')
CAMERA_INFO_TYPE = 'sensor_msgs/msg/CameraInfo'
NODE_QOS = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)   # the node's default for camera topics
SETTLE_S = 2.0   # discovery takes time; sooner, "no publishers" would be a guess


def check_graph(node: Node, topics: Sequence[str], seconds: float) -> list[CheckResult]:
    """Check topics and the clock.

    Args:
        node: a node that looks at the graph.
        topics: names of topics, relative ones are resolved by the node.
        seconds: how long to wait for publishers of all topics.

    Returns:
        A result for each topic, then that of the clock.
    """
    began = time.monotonic()
    names = {topic: node.resolve_topic_name(topic) for topic in topics}
    while (elapsed := time.monotonic() - began) < seconds:
        if elapsed > SETTLE_S and all(_is_known(node, name) for name in names.values()):
            break
        time.sleep(0.1)
    results = [check_topic(node, name)._replace(name=f'topic {topic}') for topic, name in names.items()]
    return [*results, check_clock(node)._replace(name='clock')]


def _is_known(node: Node, topic: str) -> bool:
    """Return whether the topic has publishers, and the names of all of them are known."""
    publishers = node.get_publishers_info_by_topic(topic)
    return bool(publishers) and names_are_known(publishers)


def check_topic(node: Node, topic: str) -> CheckResult:
    """Check whether images on `topic` can reach the segmentation node and the topic's other subscribers."""
    publishers = node.get_publishers_info_by_topic(topic)
    if not publishers:
        return _no_publishers(node, topic)
    kinds = sorted({publisher.topic_type for publisher in publishers})
    found = f'{", ".join(kinds)} from {", ".join(f"{_name(p)} ({_policies(p)})" for p in publishers)}'
    if len(kinds) > 1:
        return warn(f'{found}: two types on one topic', 'remap one of the publishers')
    if kinds[0] not in (*IMAGE_TYPES, CAMERA_INFO_TYPE):
        return fail(f'{found}: not a type that the node subscribes to', f'give a topic of {" or ".join(IMAGE_TYPES)}')
    for subscriber in node.get_subscriptions_info_by_topic(topic):
        if subscriber.topic_type != kinds[0]:
            return fail(f'{found}, but {_name(subscriber)} subscribes to {subscriber.topic_type}',
                        f'let it subscribe to {kinds[0]}; this node: {_launch_arguments(topic, kinds[0])}')
    return _check_qos(node, topic, publishers) or ok(f'{found}; for this node {_launch_arguments(topic, kinds[0])}')


def _launch_arguments(topic: str, kind: str) -> str:
    """Return the launch arguments with which the node subscribes to the topic."""
    if kind != IMAGE_TYPES[1]:
        return f'{"image" if kind == IMAGE_TYPES[0] else "camera_info"}_topic:={topic}'
    plain = topic.removesuffix('/compressed')
    return f'image_transport:=compressed image_topic:={plain}' + ('' if plain != topic else ', with the topic renamed '
                                                             f'to {plain}/compressed')


def _check_qos(node: Node, topic: str, publishers: list[TopicEndpointInfo]) -> CheckResult | None:
    """Return a failure where a subscriber requests more than a publisher offers, else None."""
    for publisher in publishers:
        for subscriber, qos in _subscribers(node, topic):
            compatibility, reason = qos_check_compatible(publisher.qos_profile, qos)
            if compatibility == QoSCompatibility.ERROR:
                return fail(f'{_name(publisher)} and {subscriber} cannot connect: {reason.strip()}',
                            f'let {subscriber} request no more than is offered ({_policies(publisher)}); for this '
                            'node: image_reliability:=best_effort')
    return None


def _subscribers(node: Node, topic: str) -> list[tuple[str, QoSProfile]]:
    """Return (name, QoS) of the topic's subscribers and of this package's node."""
    return [(_name(s), s.qos_profile) for s in node.get_subscriptions_info_by_topic(topic)] + [('lgseg', NODE_QOS)]


def _no_publishers(node: Node, topic: str) -> CheckResult:
    images = [name for name, types in node.get_topic_names_and_types()
                if set(types) & set(IMAGE_TYPES) and node.count_publishers(name)]
    near = difflib.get_close_matches(topic, images, 3, cutoff=0.3) or images[:3]
    return fail('no publishers', f'did you mean {", ".join(near)}?' if near else
                'no image topic has publishers: start the camera; both ends need the same ROS_DOMAIN_ID and '
                'must discover each other (ROS_AUTOMATIC_DISCOVERY_RANGE)')


def check_clock(node: Node) -> CheckResult:
    """Check whether /clock is published where nodes use simulated time."""
    followers = sorted({_name(info) for info in node.get_subscriptions_info_by_topic('/clock')})
    if followers and not node.count_publishers('/clock'):
        return warn(f'{", ".join(followers)} use simulated time, but /clock has no publishers: their time stands still',
                    'ros2 bag play --clock, or use_sim_time:=false')
    return ok('simulated, from /clock' if followers else 'system time')


def _name(info: TopicEndpointInfo) -> str:
    return f'{info.node_namespace.rstrip("/")}/{info.node_name}'


def _policies(info: TopicEndpointInfo) -> str:
    return f'{info.qos_profile.reliability.name.lower()}, {info.qos_profile.durability.name.lower()}'


def main(seconds: str, *topics: str) -> None:
    """Check the graph and print the results."""
    rclpy.init()
    node = rclpy.create_node(f'lgseg_doctor_{os.getpid()}', enable_rosout=False, start_parameter_services=False)
    try:
        print(json.dumps(check_graph(node, topics, float(seconds))))
    finally:
        node.destroy_node()
        rclpy.try_shutdown()


if __name__ == '__main__':
    main(*sys.argv[1:])

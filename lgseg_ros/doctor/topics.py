"""What a look at the ROS graph tells of topics and of the clock.

Runs as a process of its own (`python -m lgseg_ros.doctor.topics SECONDS TOPIC ...`), because a middleware that
does not fit ends its process.  Prints {check: verdict} as JSON.
"""

import difflib
import json
import os
import sys
import time

import rclpy
from rclpy.qos import QoSCompatibility, QoSProfile, ReliabilityPolicy, qos_check_compatible

from ..node.inputs import names_are_known
from .verdict import fail, ok, warn

PICTURES = ('sensor_msgs/msg/Image', 'sensor_msgs/msg/CompressedImage')
INFO = 'sensor_msgs/msg/CameraInfo'
NODE_QOS = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)   # the node's default for camera topics
SETTLE_S = 2.0   # a graph is known bit by bit; sooner, "nobody publishes" would be a guess


def look(node, topics, seconds):
    """{check: Verdict} of the topics and the clock, within about `seconds`."""
    began = time.monotonic()
    names = {topic: node.resolve_topic_name(topic) for topic in topics}
    while (elapsed := time.monotonic() - began) < seconds:
        if elapsed > SETTLE_S and all(_is_known(node, name) for name in names.values()):
            break
        time.sleep(0.1)
    return {**{f'topic {topic}': check_topic(node, name) for topic, name in names.items()}, 'clock': check_clock(node)}


def _is_known(node, topic):
    """Whether somebody publishes the topic, and the names of all who do have come."""
    publishers = node.get_publishers_info_by_topic(topic)
    return publishers and names_are_known(publishers)


def check_topic(node, topic):
    """Whether pictures on `topic` can reach the node, and its other readers."""
    publishers = node.get_publishers_info_by_topic(topic)
    if not publishers:
        return _nobody(node, topic)
    kinds = sorted({publisher.topic_type for publisher in publishers})
    found = f'{", ".join(kinds)} from {", ".join(f"{_name(p)} ({_policies(p)})" for p in publishers)}'
    if len(kinds) > 1:
        return warn(f'{found}: two types on one topic', 'remap one of the publishers')
    if kinds[0] not in (*PICTURES, INFO):
        return fail(f'{found}: nothing that the node reads', f'give a topic of {" or ".join(PICTURES)}')
    for reader in node.get_subscriptions_info_by_topic(topic):
        if reader.topic_type != kinds[0]:
            return fail(f'{found}, but {_name(reader)} waits for {reader.topic_type}',
                        f'let it read {kinds[0]}; this node: {_launch_arguments(topic, kinds[0])}')
    return _check_qos(node, topic, publishers) or ok(f'{found}; for this node {_launch_arguments(topic, kinds[0])}')


def _launch_arguments(topic, kind):
    """By what the launch file has the node read the topic."""
    if kind != PICTURES[1]:
        return f'{"image" if kind == PICTURES[0] else "camera_info"}_topic:={topic}'
    plain = topic.removesuffix('/compressed')
    return f'transport:=compressed image_topic:={plain}' + ('' if plain != topic else ', and its topic named '
                                                             f'{plain}/compressed')


def _check_qos(node, topic, publishers):
    """A failure where a reader asks for more than a publisher offers, else None."""
    for publisher in publishers:
        for reader, qos in _readers(node, topic, publisher):
            compatibility, reason = qos_check_compatible(publisher.qos_profile, qos)
            if compatibility == QoSCompatibility.ERROR:
                return fail(f'{_name(publisher)} and {reader} cannot connect: {reason.strip()}',
                            f'let {reader} ask for no more than is offered ({_policies(publisher)}); of this node: '
                            'image_reliability:=best_effort')
    return None


def _readers(node, topic, publisher):
    """(name, QoS) of those that read the topic, and of this package's node."""
    return [(_name(s), s.qos_profile) for s in node.get_subscriptions_info_by_topic(topic)] + [('lgseg', NODE_QOS)]


def _nobody(node, topic):
    pictures = [name for name, types in node.get_topic_names_and_types()
                if set(types) & set(PICTURES) and node.count_publishers(name)]
    near = difflib.get_close_matches(topic, pictures, 3, cutoff=0.3) or pictures[:3]
    return fail('nobody publishes it', f'did you mean {", ".join(near)}?' if near else
                'nobody publishes any picture: start the camera; both ends need one ROS_DOMAIN_ID and reach '
                'each other (ROS_AUTOMATIC_DISCOVERY_RANGE)')


def check_clock(node):
    """Whether nodes that follow /clock are given one."""
    followers = sorted({_name(info) for info in node.get_subscriptions_info_by_topic('/clock')})
    if followers and not node.count_publishers('/clock'):
        return warn(f'{", ".join(followers)} follow /clock, and nobody publishes it: their time stands still',
                    'ros2 bag play --clock, or use_sim_time:=false')
    return ok('simulated, from /clock' if followers else "the machine's own")


def _name(info):
    return f'{info.node_namespace.rstrip("/")}/{info.node_name}'


def _policies(info):
    return f'{info.qos_profile.reliability.name.lower()}, {info.qos_profile.durability.name.lower()}'


def main(seconds, *topics):
    """Look and print."""
    rclpy.init()
    node = rclpy.create_node(f'lgseg_doctor_{os.getpid()}', enable_rosout=False, start_parameter_services=False)
    try:
        print(json.dumps(look(node, topics, float(seconds))))
    finally:
        node.destroy_node()
        rclpy.try_shutdown()


if __name__ == '__main__':
    main(*sys.argv[1:])

"""The shipped Fast DDS profiles."""

import re

import psutil
import pytest
from rclpy.utilities import get_rmw_implementation_identifier

from lgseg_ros.utils.paths import find_share
from ros_graph import NodeProcess, wait_until

LOOPBACK = {'127.0.0.1', '239.255.0.1'}   # and the multicast group of discovery
WHITE_LIST = '<interfaceWhiteList><address>127.0.0.1</address></interfaceWhiteList>'


def text_of(name):
    """A profile without comments and white space."""
    return re.sub(r'<!--.*?-->|\s', '', find_share('config', name).read_text(), flags=re.DOTALL)


def udp_addresses(process):
    """The UDP addresses that a node has bound."""
    return {connection.laddr.ip for connection in psutil.Process(process.pid).net_connections('udp4')}


def test_the_profiles_differ_only_in_the_udp_interfaces():
    assert text_of('fastdds_localhost.xml').replace(WHITE_LIST, '') == text_of('fastdds.xml')


@pytest.mark.parametrize('profile, localhost_only', [('fastdds.xml', False), ('fastdds_localhost.xml', True)])
def test_the_interfaces_that_a_node_binds(profile, localhost_only, monkeypatch):
    """As on Humble, which limits discovery by the transport; later distributions do so above it."""
    if 'fastrtps' not in get_rmw_implementation_identifier():
        pytest.skip('the profiles are for Fast DDS')
    monkeypatch.delenv('ROS_AUTOMATIC_DISCOVERY_RANGE', raising=False)
    monkeypatch.setenv('FASTRTPS_DEFAULT_PROFILES_FILE', str(find_share('config', profile)))
    monkeypatch.setenv('FASTDDS_DEFAULT_PROFILES_FILE', str(find_share('config', profile)))
    with NodeProcess('autostart:=false') as node:
        addresses = wait_until(lambda: udp_addresses(node.process) & {'0.0.0.0', '239.255.0.1'}
                           and udp_addresses(node.process), 'its sockets')
        assert (addresses <= LOOPBACK) == localhost_only

"""The shipped Fast DDS profiles."""

import re

import psutil
import pytest
from rclpy.utilities import get_rmw_implementation_identifier

from lgseg_ros.utils.paths import find_share
from ros_graph import NodeProcess, wait_until

LOOPBACK = {'127.0.0.1', '239.255.0.1'}   # and discovery's multicast group
WHITE_LIST = '<interfaceWhiteList><address>127.0.0.1</address></interfaceWhiteList>'


def text_of(name):
    """A profile without its comments and white space."""
    return re.sub(r'<!--.*?-->|\s', '', find_share('config', name).read_text(), flags=re.DOTALL)


def udp_addresses(process):
    """Addresses that a node listens on."""
    return {connection.laddr.ip for connection in psutil.Process(process.pid).net_connections('udp4')}


def test_the_profiles_differ_by_where_udp_listens():
    assert text_of('fastdds_localhost.xml').replace(WHITE_LIST, '') == text_of('fastdds.xml')


@pytest.mark.parametrize('profile, alone', [('fastdds.xml', False), ('fastdds_localhost.xml', True)])
def test_where_a_node_listens(profile, alone, monkeypatch):
    """As Humble, where keeping to this host is the transport's affair; later ones do it above the transport."""
    if 'fastrtps' not in get_rmw_implementation_identifier():
        pytest.skip('the profiles are Fast DDS\'s')
    monkeypatch.delenv('ROS_AUTOMATIC_DISCOVERY_RANGE', raising=False)
    monkeypatch.setenv('FASTRTPS_DEFAULT_PROFILES_FILE', str(find_share('config', profile)))
    monkeypatch.setenv('FASTDDS_DEFAULT_PROFILES_FILE', str(find_share('config', profile)))
    with NodeProcess('autostart:=false') as node:
        found = wait_until(lambda: udp_addresses(node.process) & {'0.0.0.0', '239.255.0.1'}
                           and udp_addresses(node.process), 'its sockets')
        assert (found <= LOOPBACK) == alone

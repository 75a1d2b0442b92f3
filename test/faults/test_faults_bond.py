"""The bond with Nav2's lifecycle manager, as a manager observes it on the topic; and rows of the fault table."""

import signal
import sys
import time

import cv2
import numpy as np
import pytest
import rclpy
from bond.msg import Status

from faults_table import fault
from lgseg_ros.node.bond import Bond
from lifecycle_manager import ACTIVATE, CLEANUP, CONFIGURE, DEACTIVATE, Manager
from ros_graph import NodeProcess, Peer, wait_until

BOND = "Bond with Nav2's lifecycle manager"
PERIOD = 0.1


class BondPeer:
    """The lifecycle manager's side of the bond of the node `name`."""

    def __init__(self, peer, name):
        self.name, self.peer, self.received = name, peer, []
        self._publisher = peer.node.create_publisher(Status, 'bond', 10)
        peer.node.create_subscription(Status, 'bond', self._receive, 100)

    def _receive(self, message):
        if message.id == self.name and message.instance_id != 'manager':
            self.received.append(message)

    def send(self, active):
        self._publisher.publish(Status(id=self.name, instance_id='manager', active=active))

    def heartbeats(self):
        return [message for message in self.received if message.active]

    def breaks(self):
        return [message for message in self.received if not message.active]

    def quiet_for(self, seconds):
        before = len(self.received)
        time.sleep(seconds)
        return len(self.received) == before

    def form(self):
        wait_until(self.heartbeats, 'a heartbeat')
        wait_until(lambda: self.send(True) or self.state() == 'formed', 'the bond to form')

    def state(self):
        """The bond's state in the node's latest diagnostics."""
        return next((value.value for array in self.peer.diagnostics[-1:] for status in array.status
                     for value in status.values if value.key == 'bond'), None)


@pytest.fixture
def image(street):
    return cv2.resize(street[0], (160, 120))


def test_heartbeats_are_sent_while_the_node_is_active():
    """As Nav2 expects: topic bond, id is the node's name, from activation to deactivation, each time a new instance."""
    with (
        NodeProcess('num_threads:=1', 'autostart:=false', f'bond_heartbeat_period:={PERIOD}', name='bonded') as process,
        Peer('/bonded', subscribe=()) as peer,
    ):
        manager, bond_peer = Manager(peer, 'bonded'), BondPeer(peer, 'bonded')
        assert manager.change(CONFIGURE) and bond_peer.quiet_for(0.5) and not bond_peer.received
        assert manager.change(ACTIVATE)
        bond_peer.form()
        wait_until(lambda: 'bond with the lifecycle manager formed' in process.log, 'the log')
        first = len(bond_peer.heartbeats())
        wait_until(lambda: len(bond_peer.heartbeats()) >= first + 10, 'ten more heartbeats')
        stamps = [
            message.header.stamp.sec + message.header.stamp.nanosec / 1e9 for message in bond_peer.heartbeats()[first:]
        ]
        assert np.diff(stamps).mean() > 0.7 * PERIOD and not bond_peer.breaks(), (
            'heartbeats are not more frequent than configured'
        )
        assert (
            bond_peer.received[0].heartbeat_period == pytest.approx(PERIOD)
            and bond_peer.received[0].heartbeat_timeout == 4.0
        )
        assert manager.change(DEACTIVATE)
        wait_until(bond_peer.breaks, 'the message that breaks the bond')
        assert bond_peer.quiet_for(0.5) and {message.instance_id for message in bond_peer.received} == {
            bond_peer.received[0].instance_id
        }
        assert manager.change(ACTIVATE)
        wait_until(lambda: bond_peer.received[-1].active, 'heartbeats after reactivation')
        assert bond_peer.received[-1].instance_id != bond_peer.received[0].instance_id
        count = len(bond_peer.breaks())
        code, _ = process.end()
        assert code == 0 and 'Traceback' not in process.log
        wait_until(lambda: len(bond_peer.breaks()) > count, 'the message that breaks the bond at the end')


def test_no_bond_by_default():
    with NodeProcess('num_threads:=1', name='unbound') as process, Peer('/unbound', subscribe=()) as peer:
        peer.connect(process)
        assert peer.node.count_publishers('/bond') == 0


def test_a_heartbeat_period_out_of_range_is_refused():
    with NodeProcess('bond_heartbeat_period:=0.001', name='hasty') as process:
        assert process.process.wait(30) == 1
        wait_until(
            lambda: 'bond_heartbeat_period is 0.001; give 0 (no bond) or at least 0.02' in process.log, 'the reason'
        )


def test_heartbeats_do_not_wait_for_the_executor():
    """A service may block the executor for seconds; here nothing spins the node at all."""
    context = rclpy.Context()
    rclpy.init(context=context)
    node = rclpy.create_node('blocked', context=context)
    with Peer(subscribe=()) as peer:
        bond_peer, bond = BondPeer(peer, 'blocked'), Bond(node, PERIOD)
        wait_until(lambda: len(bond_peer.heartbeats()) >= 3, 'heartbeats')
        bond.close()
        wait_until(bond_peer.breaks, 'the message that breaks the bond')
    node.destroy_node()
    rclpy.try_shutdown(context=context)


@fault(
    BOND,
    'the package bond is not installed, but a bond is configured',
    'activate fails and names the package to install',
)
def test_without_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, 'bond.msg', None)
    with pytest.raises(ImportError, match=r'install ros-\$ROS_DISTRO-bond, or set bond_heartbeat_period:=0.0'):
        Bond(None, PERIOD)


@fault(
    BOND,
    'the node is killed with SIGKILL',
    'heartbeats stop without a message that breaks the bond: the manager reports a crash',
)
def test_the_bonded_node_is_killed():
    with NodeProcess('num_threads:=1', f'bond_heartbeat_period:={PERIOD}', name='victim') as process, \
            Peer('/victim', subscribe=()) as peer:
        bond_peer = BondPeer(peer, 'victim')
        bond_peer.form()
        process.process.send_signal(signal.SIGKILL)
        process.process.wait()
        time.sleep(0.3)
        assert bond_peer.quiet_for(1.0) and not bond_peer.breaks()


@fault(BOND, 'the manager breaks the bond or shuts down', 'the node breaks its side, logs it and continues to segment')
def test_the_manager_breaks_the_bond(image):
    with NodeProcess('num_threads:=1', f'bond_heartbeat_period:={PERIOD}', name='left') as process, \
            Peer('/left') as peer:
        peer.connect(process)
        bond_peer = BondPeer(peer, 'left')
        bond_peer.form()
        bond_peer.send(False)
        wait_until(bond_peer.breaks, 'the answer of the node')
        assert bond_peer.quiet_for(0.5)
        wait_until(lambda: 'the lifecycle manager ended its bond' in process.log, 'the log')
        assert peer.mask_of(image)


@fault(BOND, 'messages of other bonds and malformed messages on the topic', 'heartbeats continue')
def test_other_bonds_on_the_topic():
    with NodeProcess('num_threads:=1', f'bond_heartbeat_period:={PERIOD}', name='calm') as process, \
            Peer('/calm', subscribe=()) as peer:
        bond_peer, other = BondPeer(peer, 'calm'), BondPeer(peer, 'x' * 100_000)
        bond_peer.form()
        for _ in range(20):
            other.send(False)
            bond_peer._publisher.publish(b'\x00\x01\x00\x00nonsense')
        before = len(bond_peer.heartbeats())
        wait_until(lambda: len(bond_peer.heartbeats()) >= before + 5, 'heartbeats')
        assert bond_peer.state() == 'formed' and process.process.poll() is None


def test_against_the_real_bondpy():
    """The bondpy of the distribution, with the timeouts of Nav2's lifecycle manager."""
    real = pytest.importorskip('bondpy.bondpy', reason='bondpy (bond_core) is not installed')
    with (
        NodeProcess('num_threads:=1', 'autostart:=false', f'bond_heartbeat_period:={PERIOD}', name='real') as process,
        Peer('/real', subscribe=()) as peer,
    ):
        manager = Manager(peer, 'real')
        assert manager.change(CONFIGURE) and manager.change(ACTIVATE)
        bond = real.Bond(peer.node, 'bond', 'real')
        bond.heartbeat_period, bond.heartbeat_timeout = 0.25, 4.0
        bond.start()
        assert bond.wait_until_formed(rclpy.duration.Duration(seconds=2))
        time.sleep(5)   # longer than the timeout: only heartbeats keep the bond
        assert not bond.is_broken()
        assert manager.change(DEACTIVATE)
        assert bond.wait_until_broken(rclpy.duration.Duration(seconds=1))
        assert manager.change(CLEANUP) and process.end()[0] == 0

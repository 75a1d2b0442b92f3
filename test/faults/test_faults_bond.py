"""The bond with Nav2's lifecycle manager, as a manager sees it on the topic, and rows of the fault table about it."""

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

BOND = "The bond with Nav2's lifecycle manager"
PERIOD = 0.1


class OtherEnd:
    """A manager's end of the bond of the node `name`."""

    def __init__(self, peer, name):
        self.name, self.peer, self.heard = name, peer, []
        self._publisher = peer.node.create_publisher(Status, 'bond', 10)
        peer.node.create_subscription(Status, 'bond', self._hear, 100)

    def _hear(self, message):
        if message.id == self.name and message.instance_id != 'manager':
            self.heard.append(message)

    def send(self, active):
        self._publisher.publish(Status(id=self.name, instance_id='manager', active=active))

    def beats(self):
        return [message for message in self.heard if message.active]

    def goodbyes(self):
        return [message for message in self.heard if not message.active]

    def quiet_for(self, seconds):
        before = len(self.heard)
        time.sleep(seconds)
        return len(self.heard) == before

    def form(self):
        wait_until(self.beats, 'a heartbeat')
        wait_until(lambda: self.send(True) or self.state() == 'formed', 'the bond to form')

    def state(self):
        """The bond's state by the node's newest diagnostics."""
        return next((value.value for array in self.peer.diagnostics[-1:] for status in array.status
                     for value in status.values if value.key == 'bond'), None)


@pytest.fixture
def small(street):
    return cv2.resize(street[0], (160, 120))


def test_heartbeats_come_while_the_node_is_active():
    """Nav2's rule: topic bond, the node's name as id, from activation to deactivation, a new instance each time."""
    with NodeProcess('num_threads:=1', 'autostart:=false', f'bond_heartbeat_period:={PERIOD}', name='bonded') as process, \
            Peer('/bonded', listen=()) as peer:
        manager, end = Manager(peer, 'bonded'), OtherEnd(peer, 'bonded')
        assert manager.change(CONFIGURE) and end.quiet_for(0.5) and not end.heard
        assert manager.change(ACTIVATE)
        end.form()
        wait_until(lambda: 'bond with the lifecycle manager formed' in process.log, 'the log')
        first = len(end.beats())
        wait_until(lambda: len(end.beats()) >= first + 10, 'ten more heartbeats')
        stamps = [message.header.stamp.sec + message.header.stamp.nanosec / 1e9 for message in end.beats()[first:]]
        assert np.diff(stamps).mean() > 0.7 * PERIOD and not end.goodbyes(), 'no more often than asked for'
        assert end.heard[0].heartbeat_period == pytest.approx(PERIOD) and end.heard[0].heartbeat_timeout == 4.0
        assert manager.change(DEACTIVATE)
        wait_until(end.goodbyes, 'the goodbye')
        assert end.quiet_for(0.5) and {message.instance_id for message in end.heard} == {end.heard[0].instance_id}
        assert manager.change(ACTIVATE)
        wait_until(lambda: end.heard[-1].active, 'heartbeats again')
        assert end.heard[-1].instance_id != end.heard[0].instance_id
        goodbyes = len(end.goodbyes())
        code, _ = process.end()
        assert code == 0 and 'Traceback' not in process.log
        wait_until(lambda: len(end.goodbyes()) > goodbyes, 'the goodbye at the end')


def test_no_bond_unless_asked_for():
    with NodeProcess('num_threads:=1', name='unbound') as process, Peer('/unbound', listen=()) as peer:
        peer.connect(process)
        assert peer.node.count_publishers('/bond') == 0


def test_a_period_that_makes_no_sense():
    with NodeProcess('bond_heartbeat_period:=0.001', name='hasty') as process:
        assert process.process.wait(30) == 1
        wait_until(lambda: 'bond_heartbeat_period is 0.001; give 0 (no bond) or at least 0.02' in process.log, 'why')


def test_heartbeats_do_not_wait_for_the_executor():
    """A service may hold the executor for seconds; nothing spins the bond's node here at all."""
    context = rclpy.Context()
    rclpy.init(context=context)
    node = rclpy.create_node('held', context=context)
    with Peer(listen=()) as peer:
        end, bond = OtherEnd(peer, 'held'), Bond(node, PERIOD)
        wait_until(lambda: len(end.beats()) >= 3, 'heartbeats')
        bond.close()
        wait_until(end.goodbyes, 'the goodbye')
    node.destroy_node()
    rclpy.try_shutdown(context=context)


@fault(BOND, 'the package bond is missing, and a bond is asked for', 'activate fails with the package to install')
def test_without_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, 'bond.msg', None)
    with pytest.raises(ImportError, match=r'install ros-\$ROS_DISTRO-bond, or set bond_heartbeat_period:=0.0'):
        Bond(None, PERIOD)


@fault(BOND, 'the node killed with -9', 'the heartbeats end without a goodbye, so the manager counts it as a crash')
def test_the_bonded_node_is_killed():
    with NodeProcess('num_threads:=1', f'bond_heartbeat_period:={PERIOD}', name='victim') as process, \
            Peer('/victim', listen=()) as peer:
        end = OtherEnd(peer, 'victim')
        end.form()
        process.process.send_signal(signal.SIGKILL)
        process.process.wait()
        time.sleep(0.3)
        assert end.quiet_for(1.0) and not end.goodbyes()


@fault(BOND, 'the manager ends its bond, or dies politely', 'it gets its answer; the node logs it and segments on')
def test_the_manager_leaves(small):
    with NodeProcess('num_threads:=1', f'bond_heartbeat_period:={PERIOD}', name='left') as process, \
            Peer('/left') as peer:
        peer.connect(process)
        end = OtherEnd(peer, 'left')
        end.form()
        end.send(False)
        wait_until(end.goodbyes, 'the answer')
        assert end.quiet_for(0.5)
        wait_until(lambda: 'the lifecycle manager ended its bond' in process.log, 'the log')
        assert peer.mask_of(small)


@fault(BOND, 'messages of other bonds and nonsense on the topic', 'heartbeats go on')
def test_other_bonds_on_the_topic():
    with NodeProcess('num_threads:=1', f'bond_heartbeat_period:={PERIOD}', name='calm') as process, \
            Peer('/calm', listen=()) as peer:
        end, stranger = OtherEnd(peer, 'calm'), OtherEnd(peer, 'x' * 100_000)
        end.form()
        for _ in range(20):
            stranger.send(False)
            end._publisher.publish(b'\x00\x01\x00\x00nonsense')
        before = len(end.beats())
        wait_until(lambda: len(end.beats()) >= before + 5, 'heartbeats')
        assert end.state() == 'formed' and process.process.poll() is None


def test_against_the_real_bondpy():
    """The distribution's own other end, with the timeouts of Nav2's manager."""
    real = pytest.importorskip('bondpy.bondpy', reason='bondpy (bond_core) is not installed')
    with NodeProcess('num_threads:=1', 'autostart:=false', f'bond_heartbeat_period:={PERIOD}', name='real') as process, \
            Peer('/real', listen=()) as peer:
        manager = Manager(peer, 'real')
        assert manager.change(CONFIGURE) and manager.change(ACTIVATE)
        bond = real.Bond(peer.node, 'bond', 'real')
        bond.heartbeat_period, bond.heartbeat_timeout = 0.25, 4.0
        bond.start()
        assert bond.wait_until_formed(rclpy.duration.Duration(seconds=2))
        time.sleep(5)   # longer than the timeout: only heartbeats keep it
        assert not bond.is_broken()
        assert manager.change(DEACTIVATE)
        assert bond.wait_until_broken(rclpy.duration.Duration(seconds=1))
        assert manager.change(CLEANUP) and process.end()[0] == 0

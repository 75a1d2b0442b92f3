"""The managed node through its real lifecycle services, as Nav2's lifecycle manager drives it."""

import cv2
import numpy as np
import pytest

from lifecycle_manager import (
    ACTIVATE,
    ACTIVE,
    CLEANUP,
    CONFIGURE,
    DEACTIVATE,
    FINALIZED,
    INACTIVE,
    SHUTDOWN,
    UNCONFIGURED,
    Manager,
)
from ros_graph import NodeProcess, Peer, counters, wait_until


@pytest.fixture(scope='module')
def process():
    with NodeProcess('num_threads:=1', 'autostart:=false', 'engine:=onnxruntime', name='cycled') as process:
        yield process


@pytest.fixture
def manager(process):
    """A lifecycle manager; the node is unconfigured before and after the test."""
    with Peer('/cycled') as peer:
        manager = Manager(peer, 'cycled')
        assert manager.state() == UNCONFIGURED
        yield manager
        for transition, state in ((DEACTIVATE, ACTIVE), (CLEANUP, INACTIVE)):
            if manager.state() == state:
                assert manager.change(transition)
        assert process.process.poll() is None


@pytest.fixture(scope='module')
def image(street):
    return cv2.resize(street[0], (160, 120))


def services(peer):
    """Which of the node's two services are available."""
    return {client.srv_name for client in (peer.set_client, peer.get_client) if client.service_is_ready()}


def set_parameter(peer, name, value):
    return peer.set_parameters('/cycled', **{name: value})[0]


def test_the_node_waits_for_its_lifecycle_manager(process, manager):
    assert not services(manager.peer) and manager.peer.publisher.get_subscription_count() == 0
    assert manager.available() == {'configure', 'shutdown'}
    assert 'onnxruntime' not in process.log   # nothing is loaded before configure


def test_a_preset_replaces_the_vocabulary_before_configure(manager):
    peer = manager.peer
    assert set_parameter(peer, 'vocabulary', ['road', 'car']).successful
    assert set_parameter(peer, 'preset', 'nav2').successful
    assert list(peer.get_parameter('/cycled', 'vocabulary')) == [''], 'the vocabulary that configure will use'
    assert set_parameter(peer, 'preset', 'camvid').successful


def test_the_lifecycle_can_be_repeated(process, manager, image):
    """As Nav2's lifecycle manager does: configure, activate, deactivate, cleanup; twice."""
    peer = manager.peer
    for _ in range(2):
        assert manager.change(CONFIGURE) and manager.state() == INACTIVE
        wait_until(lambda: len(services(peer)) == 2, 'the services')
        assert peer.publisher.get_subscription_count() == 0   # inactive: no subscription to the camera
        assert manager.change(ACTIVATE) and manager.state() == ACTIVE
        peer.connect(process)
        assert peer.mask_of(image)
        assert manager.change(DEACTIVATE) and manager.state() == INACTIVE
        wait_until(lambda: peer.publisher.get_subscription_count() == 0, 'the node to unsubscribe from the camera')
        assert peer.set_vocabulary(['road', 'sky']).success   # allowed while inactive
        assert manager.change(CLEANUP) and manager.state() == UNCONFIGURED
        wait_until(
            lambda: not services(peer) and not peer.node.count_publishers('/cycled/mask'), 'the topics to be removed'
        )
    goals = [event.goal_state.id for event in manager.events]   # published for monitoring tools
    assert {UNCONFIGURED, INACTIVE, ACTIVE} <= set(goals)


def test_deactivation_keeps_the_vocabulary(process, manager, image):
    """As Nav2's lifecycle manager does on pause and resume."""
    peer = manager.peer
    assert manager.change(CONFIGURE) and manager.change(ACTIVATE)
    peer.connect(process)
    assert peer.set_vocabulary(['car', 'road']).success
    before = peer.get_vocabulary()
    for _ in range(5):
        assert manager.change(DEACTIVATE)
        assert manager.change(ACTIVATE)
    assert peer.get_vocabulary() == before
    assert peer.mask_of(image)


def test_ids_are_kept_after_cleanup(manager):
    """Subscribers cache ids for seconds; a name keeps its id while the process runs."""
    peer, ids, versions = manager.peer, {}, []
    for classes in (['fence', 'pole'], ['tree', 'fence'], ['pole', 'grass', 'tree']):
        assert manager.change(CONFIGURE)
        wait_until(peer.set_client.service_is_ready, 'the service')
        answer = peer.set_vocabulary(classes)
        assert answer.success
        versions.append(answer.version)
        for name, i in zip(answer.names, answer.ids, strict=True):
            assert ids.setdefault(name, i) == i
        assert manager.change(CLEANUP)
        wait_until(lambda: not services(peer), 'the services to be removed')
    assert len(set(ids.values())) == len(ids)
    assert versions == sorted(set(versions)), 'a version is not reused either'


def test_transitions_that_are_not_allowed_change_nothing(process, manager):
    assert not manager.change(ACTIVATE) and manager.state() == UNCONFIGURED
    assert not manager.change(CLEANUP) and manager.state() == UNCONFIGURED
    assert manager.change(CONFIGURE)
    assert not manager.change(CONFIGURE) and manager.state() == INACTIVE
    assert not manager.change(99) and manager.state() == INACTIVE
    wait_until(lambda: 'transition 99 refused while inactive' in process.log, 'the reason in the log')


def last_error(peer):
    """The key last_error of the latest diagnostics."""
    errors = [value.value for array in peer.diagnostics for status in array.status for value in status.values
            if value.key == 'last_error']
    return errors[-1] if errors else ''


def test_a_failed_configure_is_reported_and_can_be_fixed(process, manager, image):
    """Unknown classes: FAILURE, the reason in log and diagnostics, and success once the parameter is corrected."""
    for name, value, reason in (('preset', 'nonsense', "preset 'nonsense'"),
                                ('vocabulary', ['road', 'road'], 'named twice')):
        answer = set_parameter(manager.peer, name, value)
        assert not answer.successful and reason in answer.reason
    assert set_parameter(
        manager.peer, 'vocabulary', ['flumph']
    ).successful  # unconfigured: there are no text embeddings to check it against
    assert not manager.change(CONFIGURE) and manager.state() == UNCONFIGURED
    wait_until(lambda: "'flumph' is not known" in process.log, 'the reason in the log')
    wait_until(lambda: "'flumph' is not known" in last_error(manager.peer), 'the reason in the diagnostics')
    assert set_parameter(manager.peer, 'vocabulary', ['road', 'sky']).successful
    assert manager.change(CONFIGURE) and manager.change(ACTIVATE)
    manager.peer.connect(process)
    assert list(manager.peer.get_vocabulary().names) == ['road', 'sky']
    assert manager.peer.mask_of(image)
    wait_until(lambda: last_error(manager.peer) == 'none', 'the reason to be cleared')


def test_transitions_while_a_camera_publishes(process, manager, image):
    """A camera that publishes all the time does not disturb transitions; nothing is segmented while inactive."""
    peer = manager.peer
    assert manager.change(CONFIGURE)
    for _ in range(4):
        assert manager.change(ACTIVATE)
        wait_until(peer.publisher.get_subscription_count, 'the camera subscription')
        for _ in range(10):
            peer.send(image)
        assert manager.change(DEACTIVATE)
    wait_until(lambda: counters(peer, 'segmented', 'cycled: camera'), 'counters')
    ticks = len(peer.diagnostics)
    wait_until(lambda: len(peer.diagnostics) > ticks + 1, 'the counters to settle')
    segmented = counters(peer, 'segmented', 'cycled: camera')[-1]
    for _ in range(5):
        peer.send(np.ascontiguousarray(image[::-1]))
    ticks = len(peer.diagnostics)
    wait_until(lambda: len(peer.diagnostics) > ticks + 1, 'the counters again')
    assert counters(peer, 'segmented', 'cycled: camera')[-1] == segmented
    assert 'Traceback' not in process.log


@pytest.mark.parametrize('state', [UNCONFIGURED, INACTIVE, ACTIVE], ids=['unconfigured', 'inactive', 'active'])
def test_shutdown_by_the_manager(state):
    """The shutdown transition leads to finalized from every state; the process then exits on a signal."""
    name = f'finished{state}'   # unique: a node that was killed stays on the graph for a while
    with NodeProcess('num_threads:=1', 'autostart:=false', name=name) as process, \
            Peer(f'/{name}', subscribe=()) as peer:
        manager = Manager(peer, name)
        steps = {UNCONFIGURED: [], INACTIVE: [CONFIGURE], ACTIVE: [CONFIGURE, ACTIVATE]}[state]
        assert all(manager.change(step) for step in steps) and manager.state() == state
        assert manager.change(SHUTDOWN[state]) and manager.state() == FINALIZED
        assert not manager.change(CONFIGURE)
        code, _ = process.end()
        assert code == 0 and 'Traceback' not in process.log, process.log

"""Rows of the fault table: what goes wrong while words become text rows."""

import pytest
from faults_pictures import picture
from faults_table import fault, fault_rows
from ros_graph import NodeHere, Peer, wait_until

ENCODER = 'Words that have to be embedded (in the test\'s own process: real node, real services)'
NO_MEMORY = RuntimeError('[enforce fail at alloc_cpu.cpp:127]\n DefaultCPUAllocator: not enough memory')
TOLD = 'RuntimeError: [enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: not enough memory'


class FailingSource:
    """The real source of text rows, except that it raises at one of the next calls."""

    def __init__(self, source):
        self.source, self.at, self.error = source, 0, None

    def fail(self, at, error):
        """at: 1 for the next call."""
        self.at, self.error = at, error

    def rows(self, phrases):
        self.at -= 1
        if self.at == 0:
            raise self.error
        return self.source.rows(phrases)


@pytest.fixture(scope='module')
def here():
    with NodeHere('embedding', 'threads:=1', 'engine:=onnxruntime', 'precision:=fp32') as here:
        here.source = here.node.vocabulary._source = FailingSource(here.node.vocabulary._source)
        yield here


@pytest.fixture(scope='module')
def peer(here):
    with Peer('/embedding') as peer:
        yield peer.connect()


def assert_unchanged(here, peer, before):
    """Words and parameters are those of `before`, and frames and words go on."""
    assert peer.get_vocabulary() == before
    assert list(peer.get_parameter('/embedding', 'vocabulary')) == list(before.classes)
    assert peer.get_parameter('/embedding', 'threshold') == pytest.approx(before.threshold)
    assert here.node.settings.threshold == pytest.approx(before.threshold)
    assert peer.set_vocabulary(list(before.classes)).success
    message = picture()
    peer.masks.clear()
    wait_until(lambda: peer.publisher.publish(message) or peer.masks, 'a mask')
    assert here.error is None


@fault_rows(ENCODER, 'error, told', [
    ('embedding runs out of memory, asked by the service', 'refused with kind and text; nothing changed; the node lives',
     NO_MEMORY, TOLD),
    ('embedding raises what nobody thought of', 'refused with kind and text; nothing changed; the node lives',
     KeyError('text.positional_embedding'), "KeyError: 'text.positional_embedding'"),
])
def test_embedding_fails_in_the_service(here, peer, error, told):
    assert peer.set_vocabulary(['road', 'sky']).success
    before = peer.get_vocabulary()
    here.source.fail(1, error)
    answer = peer.set_vocabulary(['car'])
    assert not answer.success and answer.message == f'{told}; nothing was changed'
    assert (answer.version, list(answer.names)) == (before.version, list(before.names))
    assert_unchanged(here, peer, before)


@fault(ENCODER, 'embedding runs out of memory, asked by a parameter',
       'refused with kind and text; nothing changed; the node lives')
def test_embedding_fails_in_a_parameter(here, peer):
    assert peer.set_vocabulary(['road', 'sky']).success
    before = peer.get_vocabulary()
    here.source.fail(1, NO_MEMORY)
    result, = peer.set_parameters('/embedding', vocabulary=['car'])
    assert not result.successful and result.reason == f'{TOLD}; nothing was changed'
    assert_unchanged(here, peer, before)


@fault(ENCODER, 'embedding runs out of memory after a parameter has passed its check',
       'said in the log; parameters and words are as before; the node lives')
def test_embedding_fails_after_the_check(here, peer):
    assert peer.set_vocabulary(['road', 'sky']).success
    before = peer.get_vocabulary()
    here.source.fail(2, NO_MEMORY)
    peer.set_parameters('/embedding', vocabulary=['car'])   # rclpy has set it, so this cannot be answered with no
    assert_unchanged(here, peer, before)

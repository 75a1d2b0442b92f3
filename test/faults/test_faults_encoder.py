"""Rows of the fault table: what goes wrong while phrases are embedded."""

import threading
import time

import cv2
import pytest
from lifecycle_msgs.msg import Transition

from faults_table import fault, fault_rows
from hostile_images import noise_image
from lgseg_ros.srv import SetVocabulary
from lifecycle_manager import Manager
from ros_graph import NodeHere, Peer, wait_until

ENCODER = 'New phrases that have to be embedded (in the test\'s own process: real node, real services)'
NO_MEMORY = RuntimeError('[enforce fail at alloc_cpu.cpp:127]\n DefaultCPUAllocator: not enough memory')
REPORTED = 'RuntimeError: [enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: not enough memory'


class FailingSource:
    """The real source of text embeddings, except that it raises at one of the next calls."""

    def __init__(self, source):
        self.source, self.at, self.error = source, 0, None

    def fail(self, at, error):
        """at: 1 for the next call."""
        self.at, self.error = at, error

    def rows(self, phrases):
        self.at -= 1
        if self.at == 0:
            raise self.error
        return self.source.lookup(phrases)

    def new_phrases(self, phrases):
        return self.source.new_phrases(phrases)


@pytest.fixture(scope='module')
def here():
    with NodeHere('embedding', 'num_threads:=1', 'engine:=onnxruntime', 'precision:=fp32') as here:
        state = here.node.vocabulary.pipeline.state
        here.source = state._source = FailingSource(state._source)
        yield here


@pytest.fixture(scope='module')
def peer(here):
    with Peer('/embedding') as peer:
        yield peer.connect()


@pytest.fixture
def before(peer):
    """The vocabulary in force, which a request that fails must leave."""
    assert peer.set_vocabulary(['road', 'sky']).success
    return peer.get_vocabulary()


def assert_unchanged(here, peer, before):
    """Vocabulary and parameters are those of `before`, and frames and requests go on."""
    assert peer.get_vocabulary() == before
    assert list(peer.get_parameter('/embedding', 'vocabulary')) == list(before.classes)
    assert peer.get_parameter('/embedding', 'confidence_threshold') == pytest.approx(before.confidence_threshold)
    assert here.node.settings.confidence_threshold == pytest.approx(before.confidence_threshold)
    assert peer.set_vocabulary(list(before.classes)).success
    message = noise_image()
    peer.masks.clear()
    wait_until(lambda: peer.publisher.publish(message) or peer.masks, 'a mask')
    assert here.error is None


@fault_rows(ENCODER, 'error, reported', [
    ('embedding runs out of memory, asked by the service',
     'refused with kind and text; nothing changed; the node lives', NO_MEMORY, REPORTED),
    ('embedding raises an unforeseen error',
     'refused with kind and text; nothing changed; the node lives',
     KeyError('text.positional_embedding'), "KeyError: 'text.positional_embedding'"),
])
def test_embedding_fails_in_the_service(here, peer, before, error, reported):
    here.source.fail(1, error)
    answer = peer.set_vocabulary(['car'])
    assert not answer.success and answer.message == f'{reported}; nothing was changed'
    assert (answer.version, list(answer.names)) == (before.version, list(before.names))
    assert_unchanged(here, peer, before)


@fault(ENCODER, 'embedding runs out of memory, asked by a parameter',
       'refused with kind and text; nothing changed; the node lives')
def test_embedding_fails_in_a_parameter(here, peer, before):
    here.source.fail(1, NO_MEMORY)
    result, = peer.set_parameters('/embedding', vocabulary=['car'])
    assert not result.successful and result.reason == f'{REPORTED}; nothing was changed'
    assert_unchanged(here, peer, before)


@fault(ENCODER, 'embedding runs out of memory after a parameter has passed its check',
       'logged; parameters and vocabulary are as before; the node lives')
def test_embedding_fails_after_the_check(here, peer, before):
    here.source.fail(2, NO_MEMORY)
    peer.set_parameters('/embedding', vocabulary=['car'])   # rclpy has set it, so this cannot be answered with no
    assert_unchanged(here, peer, before)


# --- a text encoder that takes its time: the very small CLIP, held back

class HeldEncoder:
    """The real encoder, except that it waits for `go` before each answer, and raises `error` where there is one."""

    def __init__(self, encoder):
        self.encoder, self.go, self.error, self.asked = encoder, threading.Event(), None, []

    def embed(self, phrases, templates):
        self.asked.append(list(phrases))
        assert self.go.wait(60)
        if self.error:
            raise self.error
        return self.encoder.embed(phrases, templates)


@pytest.fixture
def held(tiny_clip_weights, request):
    """(node, peer, its encoder), the node's name being that of the test."""
    name = request.node.name
    with NodeHere(name, f'weights:={tiny_clip_weights.path}', 'engine:=torch', 'max_inference_pixels:=4096',
                  'vocabulary:=[road, car]', 'preset:=""', 'num_threads:=1') as here, Peer(f'/{name}') as peer:
        source = here.node.vocabulary.pipeline.text_source
        encoder = source._encoder = HeldEncoder(source._load_encoder(source.space))
        try:
            yield here, peer.connect(), encoder
        finally:
            encoder.go.set()


def ask(peer, *classes):
    """A request of the service that is not waited for."""
    return peer.set_client.call_async(SetVocabulary.Request(classes=list(classes)))


@fault(ENCODER, 'a text encoder that takes long, asked by the service',
       'masks go on with the old vocabulary, other services answer; further requests are answered in their order')
def test_frames_go_on_while_the_encoder_works(held, street):
    here, peer, encoder = held
    image, before = cv2.resize(street[0], (96, 64)), peer.get_vocabulary()
    first, second = ask(peer, 'forklift', 'road'), ask(peer, 'sky')
    wait_until(lambda: encoder.asked, 'the encoder to be asked')
    for _ in range(5):
        assert peer.mask_of(image)
    assert all(result.successful for result in peer.set_parameters(here.node.get_name(), overlay_alpha=0.25))
    assert peer.get_vocabulary() == before and not first.done() and not second.done()
    turns, seconds = here.turns, here.cpu_seconds()
    time.sleep(3)   # rclpy looks at callbacks that wait again and again: once a turn, and it must not turn for them
    turns, seconds = here.turns - turns, here.cpu_seconds() - seconds
    print(f'{turns} turns and {seconds:.2f} s of processor time in 3 s')
    assert turns < 150 and seconds < 0.5
    encoder.go.set()
    wait_until(lambda: first.done() and second.done(), 'both answers')
    answers = [future.result() for future in (first, second)]
    assert [(answer.version - before.version, list(answer.names)) for answer in answers] == [
        (1, ['forklift', 'road']), (2, ['sky'])], [answer.message for answer in answers]
    assert list(peer.get_parameter(here.node.get_name(), 'vocabulary')) == ['sky']
    assert peer.set_vocabulary(['forklift']).success and len(encoder.asked) == 1   # known from now on
    assert peer.mask_of(image) and here.error is None


@fault(ENCODER, 'the text encoder runs out of memory in its thread', 'refused with kind and text; nothing changed')
def test_the_encoder_fails(held):
    here, peer, encoder = held
    before = peer.get_vocabulary()
    encoder.error = NO_MEMORY
    encoder.go.set()
    answer = peer.set_vocabulary(['forklift'])
    assert not answer.success and answer.message == f'{REPORTED}; nothing was changed'
    assert peer.get_vocabulary() == before
    encoder.error = None
    assert peer.set_vocabulary(['forklift']).success and here.error is None


@fault(ENCODER, 'a clean-up while a request waits for the text encoder',
       'the request is refused with that reason; the node can be configured and used again')
def test_a_clean_up_while_the_encoder_works(held, street):
    here, peer, encoder = held
    manager, answer = Manager(peer, here.node.get_name()), ask(peer, 'forklift')
    wait_until(lambda: encoder.asked, 'the encoder to be asked')
    for transition in (Transition.TRANSITION_DEACTIVATE, Transition.TRANSITION_CLEANUP):
        assert manager.change(transition)
    wait_until(answer.done, 'the refusal')
    assert not answer.result().success and 'the node was cleaned up' in answer.result().message
    wait_until(lambda: not peer.set_client.service_is_ready(), 'the service to go')
    for transition in (Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_ACTIVATE):
        assert manager.change(transition)
    peer.connect()
    assert peer.set_vocabulary(['sky']).success and list(peer.get_vocabulary().names) == ['sky']
    encoder.go.set()   # of the node before: its answer goes nowhere
    assert peer.mask_of(cv2.resize(street[0], (96, 64))) and here.error is None
    assert list(peer.get_vocabulary().names) == ['sky']


@fault(ENCODER, 'the node is stopped while a request waits for the text encoder',
       'the request is refused with that reason; the process ends once the encoder does')
def test_the_end_while_the_encoder_works(held):
    here, peer, encoder = held
    answer = ask(peer, 'forklift')
    wait_until(lambda: encoder.asked, 'the encoder to be asked')
    end = threading.Thread(target=here.end)
    end.start()
    wait_until(answer.done, 'the refusal')
    assert not answer.result().success and answer.result().message == 'the node ends; nothing was changed'
    encoder.go.set()
    end.join(20)
    assert not end.is_alive() and here.error is None


@fault(ENCODER, 'a new phrase in a parameter',
       'taken once it is embedded; frames wait for it, because ROS answers parameters in place')
def test_a_new_phrase_in_a_parameter(held):
    here, peer, encoder = held
    encoder.go.set()
    result, = peer.set_parameters(here.node.get_name(), vocabulary=['forklift', 'road'])
    assert result.successful and list(peer.get_vocabulary().names) == ['forklift', 'road']
    assert len(encoder.asked) == 1

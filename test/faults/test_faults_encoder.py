"""Rows of the fault table: failures while phrases are embedded."""

import threading
import time

import cv2
import pytest
from lifecycle_msgs.msg import Transition

from faults_table import fault, fault_rows
from hostile_images import noise_image
from lgseg_ros.srv import SetVocabulary
from lifecycle_manager import Manager
from ros_graph import NodeRunner, Peer, wait_until

ENCODER = 'Text encoder (in the test process: real node, real services)'
OUT_OF_MEMORY = RuntimeError('[enforce fail at alloc_cpu.cpp:127]\n DefaultCPUAllocator: not enough memory')
REPORTED = 'RuntimeError: [enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: not enough memory'


class FailingSource:
    """The real source of text embeddings; one of the next calls of `lookup` raises."""

    def __init__(self, source):
        self.source, self.call, self.error = source, 0, None

    def fail(self, call, error):
        """call: 1 for the next call."""
        self.call, self.error = call, error

    def lookup(self, phrases):
        self.call -= 1
        if self.call == 0:
            raise self.error
        return self.source.lookup(phrases)

    def new_phrases(self, phrases):
        return self.source.new_phrases(phrases)


@pytest.fixture(scope='module')
def runner():
    with NodeRunner('embedding', 'num_threads:=1', 'engine:=onnxruntime', 'precision:=fp32') as runner:
        state = runner.node.vocabulary.pipeline.state
        runner.source = state._source = FailingSource(state._source)
        yield runner


@pytest.fixture(scope='module')
def peer(runner):
    with Peer('/embedding') as peer:
        yield peer.connect()


@pytest.fixture
def before(peer):
    """The active vocabulary, which a failed request must not change."""
    assert peer.set_vocabulary(['road', 'sky']).success
    return peer.get_vocabulary()


def assert_unchanged(runner, peer, before):
    """Vocabulary and parameters are those of `before`; frames and requests are still processed."""
    assert peer.get_vocabulary() == before
    assert list(peer.get_parameter('/embedding', 'vocabulary')) == list(before.classes)
    assert peer.get_parameter('/embedding', 'confidence_threshold') == pytest.approx(before.confidence_threshold)
    assert runner.node.settings.confidence_threshold == pytest.approx(before.confidence_threshold)
    assert peer.set_vocabulary(list(before.classes)).success
    message = noise_image()
    peer.masks.clear()
    wait_until(lambda: peer.publisher.publish(message) or peer.masks, 'a mask')
    assert runner.error is None


@fault_rows(ENCODER, 'error, reported', [
    ('embedding runs out of memory in a service call',
     'refused with type and text of the error; nothing is changed; the node keeps running', OUT_OF_MEMORY, REPORTED),
    ('embedding raises an unexpected error in a service call',
     'refused with type and text of the error; nothing is changed; the node keeps running',
     KeyError('text.positional_embedding'), "KeyError: 'text.positional_embedding'"),
])
def test_embedding_fails_in_the_service(runner, peer, before, error, reported):
    runner.source.fail(1, error)
    answer = peer.set_vocabulary(['car'])
    assert not answer.success and answer.message == f'{reported}; nothing was changed'
    assert (answer.version, list(answer.names)) == (before.version, list(before.names))
    assert_unchanged(runner, peer, before)


@fault(ENCODER, 'embedding runs out of memory while a parameter is set',
       'refused with type and text of the error; nothing is changed; the node keeps running')
def test_embedding_fails_in_a_parameter(runner, peer, before):
    runner.source.fail(1, OUT_OF_MEMORY)
    result, = peer.set_parameters('/embedding', vocabulary=['car'])
    assert not result.successful and result.reason == f'{REPORTED}; nothing was changed'
    assert_unchanged(runner, peer, before)


@fault(ENCODER, 'embedding runs out of memory after a parameter has been validated',
       'logged; parameters and vocabulary are unchanged; the node keeps running')
def test_embedding_fails_after_validation(runner, peer, before):
    runner.source.fail(2, OUT_OF_MEMORY)
    peer.set_parameters('/embedding', vocabulary=['car'])  # rclpy has set the parameter, so it can no longer be refused
    assert_unchanged(runner, peer, before)


# --- a slow text encoder: the very small CLIP, blocked

class BlockingEncoder:
    """The real encoder, except that each call waits for `resume`, and raises `error` if it is set."""

    def __init__(self, encoder):
        self.encoder, self.resume, self.error, self.calls = encoder, threading.Event(), None, []

    def embed(self, phrases, templates):
        self.calls.append(list(phrases))
        assert self.resume.wait(60)
        if self.error:
            raise self.error
        return self.encoder.embed(phrases, templates)


@pytest.fixture
def blocking_encoder(tiny_clip_weights, request):
    """(node, peer, encoder): a node named after the test, and its encoder, which blocks."""
    name = request.node.name
    with NodeRunner(name, f'weights:={tiny_clip_weights.path}', 'engine:=torch', 'max_inference_pixels:=4096',
                  'vocabulary:=[road, car]', 'preset:=""', 'num_threads:=1') as runner, Peer(f'/{name}') as peer:
        source = runner.node.vocabulary.pipeline.text_source
        encoder = source._encoder = BlockingEncoder(source._load_encoder(source.space))
        try:
            yield runner, peer.connect(), encoder
        finally:
            encoder.resume.set()


def call_async(peer, *classes):
    """The future of a service call."""
    return peer.set_client.call_async(SetVocabulary.Request(classes=list(classes)))


@fault(ENCODER, 'a slow text encoder in a service call',
       'masks continue with the old vocabulary; other services answer; further requests are answered in order')
def test_frames_are_segmented_while_the_encoder_works(blocking_encoder, street):
    runner, peer, encoder = blocking_encoder
    image, before = cv2.resize(street[0], (96, 64)), peer.get_vocabulary()
    first, second = call_async(peer, 'forklift', 'road'), call_async(peer, 'sky')
    wait_until(lambda: encoder.calls, 'the encoder to be called')
    for _ in range(5):
        assert peer.mask_of(image)
    assert all(result.successful for result in peer.set_parameters(runner.node.get_name(), overlay_alpha=0.25))
    assert peer.get_vocabulary() == before and not first.done() and not second.done()
    iterations, seconds = runner.iterations, runner.cpu_seconds()
    time.sleep(3)   # rclpy polls waiting callbacks once per executor iteration; they must not wake the executor
    iterations, seconds = runner.iterations - iterations, runner.cpu_seconds() - seconds
    print(f'{iterations} executor iterations and {seconds:.2f} s of CPU time in 3 s')
    assert iterations < 150 and seconds < 0.5
    encoder.resume.set()
    wait_until(lambda: first.done() and second.done(), 'both answers')
    answers = [future.result() for future in (first, second)]
    assert [(answer.version - before.version, list(answer.names)) for answer in answers] == [
        (1, ['forklift', 'road']), (2, ['sky'])], [answer.message for answer in answers]
    assert list(peer.get_parameter(runner.node.get_name(), 'vocabulary')) == ['sky']
    assert peer.set_vocabulary(['forklift']).success and len(encoder.calls) == 1   # cached now
    assert peer.mask_of(image) and runner.error is None


@fault(
    ENCODER,
    'the text encoder runs out of memory in its thread',
    'refused with type and text of the error; nothing is changed',
)
def test_the_encoder_fails(blocking_encoder):
    runner, peer, encoder = blocking_encoder
    before = peer.get_vocabulary()
    encoder.error = OUT_OF_MEMORY
    encoder.resume.set()
    answer = peer.set_vocabulary(['forklift'])
    assert not answer.success and answer.message == f'{REPORTED}; nothing was changed'
    assert peer.get_vocabulary() == before
    encoder.error = None
    assert peer.set_vocabulary(['forklift']).success and runner.error is None


@fault(ENCODER, 'a cleanup transition while a request waits for the text encoder',
       'the request is refused with that reason; the node can be configured again')
def test_cleanup_while_the_encoder_works(blocking_encoder, street):
    runner, peer, encoder = blocking_encoder
    manager, answer = Manager(peer, runner.node.get_name()), call_async(peer, 'forklift')
    wait_until(lambda: encoder.calls, 'the encoder to be called')
    for transition in (Transition.TRANSITION_DEACTIVATE, Transition.TRANSITION_CLEANUP):
        assert manager.change(transition)
    wait_until(answer.done, 'the refusal')
    assert not answer.result().success and 'the node was cleaned up' in answer.result().message
    wait_until(lambda: not peer.set_client.service_is_ready(), 'the service to be removed')
    for transition in (Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_ACTIVATE):
        assert manager.change(transition)
    peer.connect()
    assert peer.set_vocabulary(['sky']).success and list(peer.get_vocabulary().names) == ['sky']
    encoder.resume.set()   # of the pipeline before the cleanup: its result is discarded
    assert peer.mask_of(cv2.resize(street[0], (96, 64))) and runner.error is None
    assert list(peer.get_vocabulary().names) == ['sky']


@fault(ENCODER, 'the node is stopped while a request waits for the text encoder',
       'the request is refused with that reason; the process exits once the encoder returns')
def test_shutdown_while_the_encoder_works(blocking_encoder):
    runner, peer, encoder = blocking_encoder
    answer = call_async(peer, 'forklift')
    wait_until(lambda: encoder.calls, 'the encoder to be called')
    end = threading.Thread(target=runner.end)
    end.start()
    wait_until(answer.done, 'the refusal')
    assert not answer.result().success and answer.result().message == 'the node ends; nothing was changed'
    encoder.resume.set()
    end.join(20)
    assert not end.is_alive() and runner.error is None


@fault(ENCODER, 'a new phrase in a parameter',
       'applied once it is embedded; frames wait, because ROS handles parameters synchronously')
def test_a_new_phrase_in_a_parameter(blocking_encoder):
    runner, peer, encoder = blocking_encoder
    encoder.resume.set()
    result, = peer.set_parameters(runner.node.get_name(), vocabulary=['forklift', 'road'])
    assert result.successful and list(peer.get_vocabulary().names) == ['forklift', 'road']
    assert len(encoder.calls) == 1

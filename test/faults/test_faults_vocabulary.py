"""Rows of the fault table: hostile vocabularies, many clients, and 1,000 changes while frames are segmented."""

import random
import threading
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from rclpy.parameter import Parameter
from rclpy.parameter_client import AsyncParameterClient

from faults_table import fault, fault_rows
from lgseg_ros.srv import SetVocabulary
from ros_graph import NodeProcess, Peer, pixels_of, wait_until

VOCABULARY = 'Vocabulary (service and parameters)'
CHANGES = 1000
WARMUP = 200           # changes after which memory must have stopped growing
MAX_GROWTH = 1.03      # resident memory at the end, relative to that after the warm-up
HUGE = 10_000_000      # characters


@pytest.fixture(scope='module')
def process():
    with NodeProcess('num_threads:=1', name='vocabulary') as process:
        yield process


@pytest.fixture(scope='module')
def peer(process):
    with Peer('/vocabulary', subscribe=('mask', 'label_info')) as peer:
        yield peer.connect(process)


@pytest.fixture(scope='module')
def image(street):
    return cv2.resize(street[0], (160, 120))


def resident_kb(process):
    """Resident memory of the node's process in kB."""
    status = Path(f'/proc/{process.process.pid}/status').read_text()
    return int(next(line for line in status.splitlines() if line.startswith('VmRSS')).split()[1])


REFUSED = [
    ('no classes and no preset', 'the vocabulary is empty', {'classes': []}),
    ('an empty name among valid ones', 'empty name', {'classes': ['road', '']}),
    ('a name of 10 MB', 'the limit is', {'classes': ['x' * HUGE]}),
    ('a class of 5 million phrases', 'the limit is', {'classes': ['a=' + 'x|' * (HUGE // 2)]}),
    ('a class of 10 million vertical bars', 'the limit is', {'classes': ['a=' + '|' * HUGE]}),
    ('100,000 classes', 'the limit is 255', {'classes': [f'name {n}' for n in range(100_000)]}),
    ('100,000 times the same class', 'the limit is 255', {'classes': ['road'] * 100_000}),
    ('256 phrases', 'the limit is 255', {'classes': ['a=' + '|'.join(f'p{n}' for n in range(256))]}),
    ('a preset name of 10 MB', 'is unknown', {'preset': 'camvid' * (HUGE // 6)}),
    ('a path as preset name', "preset '../../etc/passwd' is unknown", {'preset': '../../etc/passwd'}),
    ('a control character (bell) in a name', 'control characters', {'classes': ['ro\x07ad=road']}),
    ('a newline in a name', 'control characters', {'classes': ['ro\nad=road']}),
    ('a right-to-left override in a name', 'control characters', {'classes': ['\u202edaor=road']}),
    ('a name that is not a known phrase', "'🚗' is not known", {'classes': ['🚗']}),
    ('an equals sign alone', 'empty name', {'classes': ['=']}),
    ('an equals sign without a phrase', 'empty name or phrase', {'classes': ['road=']}),
    ('vertical bars without phrases', 'empty name or phrase', {'classes': ['road=|road']}),
    ('two equals signs', "'=road' is not known", {'classes': ['road==road']}),
    ('a vertical bar without an equals sign', 'name=phrase|phrase', {'classes': ['car|truck']}),
    ('the same name twice, with different spaces', 'twice', {'classes': ['road', ' road ']}),
    ('a confidence threshold of infinity', 'above 1', {'classes': ['road'], 'confidence_threshold': float('inf')}),
]
# Description, expected behaviour, request, names that are published.
ACCEPTED = [
    ('an emoji as name', 'published as given', {'classes': ['🚗=car']}, ['🚗']),
    ('a right-to-left name', 'published as given', {'classes': ['דרך=road']}, ['דרך']),
    ('a NUL in a name', 'the name ends before it, as ROS strings do', {'classes': ['sky\0evil']}, ['sky']),
    ('spaces and capitals', 'published as given, without outer spaces', {'classes': ['  SKY  ']}, ['SKY']),
    ('the same phrase in two classes', 'both are published; response and log warn that only the first can win',
     {'classes': ['one=road', 'two=road']}, ['one', 'two']),
    ('a confidence threshold of NaN', 'the threshold is unchanged',
     {'classes': ['road'], 'confidence_threshold': float('nan')}, ['road']),
    ('a confidence threshold of minus infinity', 'the threshold is unchanged',
     {'classes': ['road'], 'confidence_threshold': -float('inf')}, ['road']),
]


@fault_rows(VOCABULARY, 'request_fields, reason', [(description, f'refused: "{reason}"', request, reason)
                                       for description, reason, request in REFUSED])
def test_hostile_vocabularies_are_refused(process, peer, image, request_fields, reason):
    before = peer.get_vocabulary()
    answer = peer.set_vocabulary(**request_fields)
    assert not answer.success and reason in answer.message and 'nothing was changed' in answer.message
    assert len(answer.message) < 600
    assert peer.get_vocabulary() == before
    assert peer.mask_of(image).width == 160
    assert len(max(process.log.splitlines(), key=len)) < 800


@fault_rows(
    VOCABULARY,
    'request_fields, names',
    [(description, expected, request, names) for description, expected, request, names in ACCEPTED],
)
def test_unusual_vocabularies_are_accepted(peer, image, request_fields, names):
    before = peer.get_vocabulary()
    answer = peer.set_vocabulary(**request_fields)
    assert answer.success, answer.message
    assert ('only the first can win' in answer.message) == (names == ['one', 'two'])
    assert list(answer.names) == names == list(peer.get_vocabulary().names)
    assert peer.get_vocabulary().confidence_threshold == before.confidence_threshold
    mask = peer.mask_of(image)
    labels = wait_until(lambda: next((m for m in peer.labels if m.header == mask.header), None), 'label info')
    assert [entry.class_name for entry in labels.class_map] == names
    assert set(np.unique(pixels_of(mask))) <= set(answer.ids) | {255}


@fault(VOCABULARY, 'all 10 MB requests above', "the node's memory does not grow")
def test_huge_requests_leak_no_memory(process, peer):
    huge = [fields for _, _, fields in REFUSED if any(len(text) > 1_000_000 for text in fields.get('classes', []))]
    peer.set_vocabulary(**huge[0])
    before = resident_kb(process)
    for fields in huge:
        assert not peer.set_vocabulary(**fields).success
    assert resident_kb(process) < before + 60_000   # the middleware keeps a buffer of the largest request


@fault(VOCABULARY, 'ten clients call the service at once', 'every call is answered; each version is used once')
def test_ten_clients_at_once(peer, image):
    clients = [peer.node.create_client(SetVocabulary, '/vocabulary/set_vocabulary') for _ in range(10)]
    wait_until(lambda: all(client.service_is_ready() for client in clients), 'ten clients')
    time.sleep(0.5)   # discovery on the node's side cannot be observed here
    names = ['road', 'car', 'sky', 'tree', 'fence', 'pole', 'building', 'person', 'grass', 'truck']
    before = peer.get_vocabulary().version
    futures = [client.call_async(SetVocabulary.Request(classes=[name]))
               for client, name in zip(clients, names, strict=True)]
    wait_until(lambda: all(future.done() for future in futures), 'ten answers')
    answers = [future.result() for future in futures]
    assert [list(answer.names) for answer in answers] == [[name] for name in names]
    assert sorted(answer.version for answer in answers) == list(range(before + 1, before + 11))
    assert peer.get_vocabulary().version == before + 10
    assert peer.mask_of(image)


@fault(VOCABULARY, '300 parameters set in a row, valid and invalid, mixed with service calls',
       'each is answered; a refused one changes nothing; parameter and service agree at the end')
def test_many_parameters_set_at_once(process, peer, image):
    client = AsyncParameterClient(peer.node, '/vocabulary')
    wait_until(client.services_are_ready, 'parameter services')
    random_ = random.Random(3)
    candidates = [
        ('vocabulary', ['road', 'car'], True),
        ('vocabulary', ['flumph'], False),
        ('confidence_threshold', 0.3, True),
        ('confidence_threshold', 7.0, False),
        ('confidence_threshold', 'high', False),
        ('preset', 'nope', False),
        ('preset', 'cityscapes', True),
        ('overlay_alpha', 0.1, True),
        ('weights', 'other', False),
        ('autostart', False, False),
        ('no_such_parameter', 1, False),
    ]
    pending = []
    for _ in range(300):
        name, value, good = random_.choice(candidates)
        pending.append((name, value, good, client.set_parameters([Parameter(name, value=value)])))
        if len(pending) % 10 == 0:
            wait_until(lambda: all(future.done() for *_, future in pending[-10:]), 'ten answers')
            assert peer.set_vocabulary(['sky', 'road']).success
    for name, value, good, future in pending:
        assert future.result().results[0].successful == good, (name, value)
    assert all(future.result().results[0].reason for *_, good, future in pending if not good)
    assert list(peer.get_vocabulary().names) == ['sky', 'road']
    assert peer.mask_of(image)
    assert process.process.poll() is None


@fault(VOCABULARY, f'{CHANGES:,} changes of the vocabulary while a camera publishes at 30 Hz',
       'the latest LabelInfo stamped no later names every id of a mask; no id gets another name; memory is constant')
def test_a_thousand_changes(process, peer, image):
    # Disjoint classes, so that a mask of the wrong version cannot be mistaken for one of the right version.
    vocabularies = [['road', 'car', 'sky'], ['person', 'building', 'tree'], ['fence', 'pole', 'vehicle=car|truck'],
                    ['grass', 'wall', 'ground=road|pavement']]
    stop, first, memory = threading.Event(), len(peer.masks), {}

    def stream():
        while not stop.is_set():
            peer.send(image)
            time.sleep(1 / 30)
    camera = threading.Thread(target=stream)
    camera.start()
    try:
        for change in range(CHANGES):
            answer = peer.set_vocabulary(vocabularies[change % len(vocabularies)])
            assert answer.success, answer.message
            if change in (WARMUP, CHANGES - 1):
                memory[change] = resident_kb(process)
    finally:
        stop.set()
        camera.join()
    time.sleep(0.5)   # the last masks
    masks = peer.masks[first:]
    assert len(masks) > 20
    assert masks_with_unknown_ids(masks, peer.labels) == 0
    owners = {}
    for message in peer.labels:
        for entry in message.class_map:
            assert owners.setdefault(entry.class_id, entry.class_name) == entry.class_name
    assert memory[CHANGES - 1] < memory[WARMUP] * MAX_GROWTH, memory


def masks_with_unknown_ids(masks, labels):
    """How many masks contain an id that the latest LabelInfo stamped no later does not name."""
    def stamp(message):
        return message.header.stamp.sec, message.header.stamp.nanosec
    reported = sorted(((stamp(label), {entry.class_id for entry in label.class_map}) for label in labels),
                  key=lambda entry: entry[0])
    wrong = 0
    for mask in masks:
        known = [ids for when, ids in reported if when <= stamp(mask)]
        wrong += not known or not set(np.unique(pixels_of(mask)).tolist()) <= known[-1] | {255}
    return wrong


@fault(VOCABULARY, 'more than 255 names in one run',
       'the 256th is refused with the hint to restart; earlier names can still be used')
def test_ids_run_out(peer, image):
    for n in range(40):
        answer = peer.set_vocabulary([f'name {n} {i}=road' for i in range(10)])
        if not answer.success:
            break
    assert not answer.success and 'restart the node' in answer.message and 'nothing was changed' in answer.message
    answer = peer.set_vocabulary(['road', 'sky'])
    assert answer.success and peer.mask_of(image)

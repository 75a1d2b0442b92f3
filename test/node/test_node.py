"""The real node in its own process, spoken to over DDS from this one."""

import importlib.util
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from sensor_msgs.msg import Image

from lgseg_ros.node import inference_thread
from lgseg_ros.node.image_conversions import frame_from_image
from lgseg_ros.vocabulary.presets import load_presets
from ros_graph import RELIABLE, NodeHere, NodeProcess, Peer, counters, pixels_of, wait_until


@pytest.fixture(scope='module')
def process():
    with NodeProcess('num_threads:=1', 'engine:=onnxruntime', 'precision:=fp32') as process:
        yield process


@pytest.fixture
def peer(process):
    with Peer(listen=('mask', 'confidence', 'overlay', 'label_info')) as peer:
        yield peer.connect(process)


def label_map(message):
    return {entry.class_id: entry.class_name for entry in message.class_map}


def test_mask_follows_the_conventions(peer, street):
    header = peer.mask_of(street[0]).header
    mask = next(m for m in peer.masks if m.header.stamp == header.stamp)
    confidence = wait_until(lambda: next((c for c in peer.confidences if c.header.stamp == header.stamp), None),
                            'confidence')
    overlay = wait_until(lambda: next((o for o in peer.overlays if o.header.stamp == header.stamp), None), 'overlay')
    assert mask.header.frame_id == confidence.header.frame_id == 'camera_optical'
    assert (mask.encoding, mask.height, mask.width, mask.step) == ('mono8', 360, 480, 480)
    assert (confidence.encoding, confidence.height, confidence.step) == ('mono8', 360, 480)
    assert (overlay.encoding, overlay.height, overlay.step) == ('bgr8', 360, 480 * 3)
    labels = wait_until(lambda: peer.labels, 'label info')[-1]
    assert set(np.unique(pixels_of(mask))) <= set(label_map(labels)) | {255}
    agree = pixels_of(mask) == street[1]
    assert agree[street[1] != 255].mean() > 0.7   # real weights on a real (drawn) street


@pytest.mark.parametrize('encoding, convert', [
    ('rgb8', lambda p: p[..., ::-1]), ('bgra8', lambda p: np.dstack([p, p[..., 0]])),
    ('rgba8', lambda p: np.dstack([p[..., ::-1], p[..., 0]])),
])
def test_encodings_give_the_same_mask(peer, street, encoding, convert):
    expected = pixels_of(peer.mask_of(street[0]))
    got = pixels_of(peer.mask_of(np.ascontiguousarray(convert(street[0])), encoding))
    assert (got == expected).mean() > 0.9999


def test_the_service_changes_and_reports_the_vocabulary(peer, street):
    answer = peer.set_vocabulary(['road', 'vehicle=car|truck', 'sky'], confidence_threshold=0.25)
    assert answer.success, answer.message
    assert list(answer.names) == ['road', 'vehicle', 'sky'] and len(set(answer.ids)) == 3
    present = peer.get_vocabulary()
    assert list(present.classes) == ['road', 'vehicle=car|truck', 'sky'] and list(present.ids) == list(answer.ids)
    assert present.version == answer.version and present.confidence_threshold == pytest.approx(0.25)
    mask = peer.mask_of(street[0])
    assert set(np.unique(pixels_of(mask))) <= set(answer.ids) | {255}
    kept = peer.set_vocabulary(['road', 'sky'])   # threshold not given
    assert kept.success and peer.get_vocabulary().confidence_threshold == pytest.approx(0.25)
    assert list(kept.ids) == [answer.ids[0], answer.ids[2]]
    assert peer.set_vocabulary(preset='camvid', confidence_threshold=0.0).success


@pytest.mark.parametrize('request_, reason', [
    ({'classes': []}, 'empty'), ({'classes': ['car', 'car']}, 'twice'), ({'classes': ['flumph']}, 'not known'),
    ({'classes': [f'c{n}' for n in range(300)]}, '300'), ({'classes': ['x' * 10_000]}, '10000'),
    ({'preset': 'camvit'}, 'did you mean'), ({'classes': ['road'], 'confidence_threshold': 7.0}, 'above 1'),
])
def test_refused_requests_change_nothing(peer, request_, reason):
    before = peer.get_vocabulary()
    answer = peer.set_vocabulary(**request_)
    assert not answer.success and reason in answer.message and 'nothing was changed' in answer.message
    assert len(answer.message) < 800
    assert peer.get_vocabulary() == before
    assert (answer.version, list(answer.names)) == (before.version, list(before.names))


def test_parameters_do_what_the_service_does(peer):
    assert peer.set_vocabulary(preset='camvid').success
    version = peer.get_vocabulary().version
    assert all(r.successful for r in peer.set_parameters('/lgseg', vocabulary=['road', 'person=person|pedestrian']))
    present = peer.get_vocabulary()
    assert list(present.classes) == ['road', 'person=person|pedestrian'] and present.version == version + 1
    result, = peer.set_parameters('/lgseg', vocabulary=['road', 'flumph'])
    assert not result.successful and 'flumph' in result.reason
    assert peer.get_vocabulary() == present
    assert all(r.successful for r in peer.set_parameters('/lgseg', preset='cityscapes'))
    assert len(peer.get_vocabulary().names) == 19
    result, = peer.set_parameters('/lgseg', confidence_threshold=3.0)
    assert not result.successful
    result, = peer.set_parameters('/lgseg', weights='other')
    assert not result.successful   # fixed while the node runs
    assert peer.set_vocabulary(['sky', 'road']).success
    assert list(peer.get_parameter('/lgseg', 'vocabulary')) == ['sky', 'road']
    assert peer.get_parameter('/lgseg', 'preset') == ''


def test_the_preset_in_force_does_not_undo_the_classes(peer):
    """ROS sets each parameter of a request, and of a file, by itself."""
    assert peer.set_vocabulary(preset='camvid').success
    for values in ({'vocabulary': ['road', 'car'], 'preset': 'camvid'},
                   {'preset': 'nav2', 'vocabulary': ['car', 'sky']}):
        assert all(result.successful for result in peer.set_parameters('/lgseg', **values))
        assert peer.get_vocabulary().classes[0] == values['vocabulary'][0]
        assert list(peer.get_parameter('/lgseg', 'vocabulary')) == values['vocabulary']
        assert (peer.get_vocabulary().preset, len(peer.get_vocabulary().names)) == (values['preset'], 2)
    assert all(result.successful for result in peer.set_parameters('/lgseg', vocabulary=['']))
    assert len(peer.get_vocabulary().names) == 11   # those of nav2


def test_the_shipped_parameters_load_one_by_one(peer):
    assert peer.set_vocabulary(['road']).success   # with classes of one's own, the preset is ''
    path = Path(__file__).resolve().parents[2] / 'config' / 'segment.yaml'
    shipped = yaml.safe_load(path.read_text())['/**']['ros__parameters']
    vocabulary = {name: value for name, value in shipped.items() if name in ('vocabulary', 'preset', 'confidence_threshold')}
    assert all(result.successful for result in peer.set_parameters('/lgseg', **vocabulary))
    assert peer.get_vocabulary().preset == shipped['preset'] and len(peer.get_vocabulary().names) == 11


def test_every_mask_is_explained_while_the_vocabulary_changes(peer, street):
    """The vocabulary changes while frames stream; the newest LabelInfo stamped no later names every id of a mask."""
    vocabularies = [['road', 'car', 'sky'], ['person', 'building', 'tree=tree|vegetation'], ['fence', 'pole', 'road'],
                    list(map(str, load_presets()['cityscapes'].classes.values()))]
    stop = threading.Event()
    frames = [street[0], np.ascontiguousarray(street[0][:, ::-1])]

    def stream():
        while not stop.is_set():
            peer.send(frames[peer._stamp % 2])
            time.sleep(1 / 30)

    first = len(peer.masks)
    camera = threading.Thread(target=stream)
    camera.start()
    try:
        for n in range(12):
            assert peer.set_vocabulary(vocabularies[n % len(vocabularies)]).success
            seen = len(peer.masks)
            wait_until(lambda: len(peer.masks) > seen + 1, 'masks of the new vocabulary')
    finally:
        stop.set()
        camera.join()
    time.sleep(0.5)
    stamp = lambda m: (m.header.stamp.sec, m.header.stamp.nanosec)   # noqa: E731
    labels = sorted(((stamp(label), label_map(label)) for label in peer.labels), key=lambda entry: entry[0])
    checked = peer.masks[first:]
    used = set()
    for mask in checked:
        known = [names for when, names in labels if when <= stamp(mask)][-1]
        ids = set(np.unique(pixels_of(mask)).tolist()) - {255}
        assert ids <= set(known), (ids, known)
        used.add(tuple(sorted(known.values())))
    assert len(checked) >= 24 and len(used) >= len(vocabularies)
    owner = {}
    for _, names in labels:
        for i, name in names.items():
            assert owner.setdefault(i, name) == name   # no id was ever given to another name


def test_a_late_consumer_still_gets_the_label_info(process, peer, street):
    peer.mask_of(street[0])
    with Peer(listen=('label_info',)) as late:
        labels = wait_until(lambda: late.labels, 'the latched label info')
        present = peer.get_vocabulary()
        assert label_map(labels[-1]) == dict(zip(present.ids, present.names, strict=True))


def corrupt(**fields):
    message = Image(height=8, width=8, encoding='bgr8', step=24, data=bytes(192))
    for name, value in fields.items():
        setattr(message, name, value)
    return message


@pytest.mark.parametrize('fields, reason', [
    ({'data': bytes(100)}, 'data has 100 bytes'), ({'step': 0}, 'step is 0'), ({'encoding': 'nonsense'}, 'nonsense'),
    ({'height': 0}, '8x0'), ({'height': 40000, 'width': 40000, 'step': 120000}, '40000x40000'),
])
def test_a_corrupt_image_costs_one_error_and_the_next_works(process, peer, street, fields, reason):
    peer.mask_of(street[0])
    bad = corrupt(**fields)
    wait_until(lambda: counters(peer, 'failed'), 'diagnostics')
    before = counters(peer, 'failed')[-1]
    for _ in range(20):
        bad.header = peer.header()
        peer.publisher.publish(bad)
        time.sleep(0.02)
    wait_until(lambda: counters(peer, 'failed')[-1] > before, 'the failure to be counted')
    reported = [s.message + v.value for d in peer.diagnostics for s in d.status for v in s.values]
    assert any(reason in text for text in reported) or reason in process.log
    assert process.log.count(reason) <= 2   # throttled
    assert pixels_of(peer.mask_of(street[0])).shape == (360, 480)


def test_an_encoding_that_needs_cv_bridge_is_logged_once(street):
    if importlib.util.find_spec('cv_bridge'):
        pytest.skip('cv_bridge is installed, so other encodings are read')
    with NodeProcess('num_threads:=1', name='plain') as process, Peer('/plain') as peer:
        peer.connect(process)
        began = time.monotonic()
        while time.monotonic() - began < 7:   # longer than other errors are held back
            peer.publisher.publish(corrupt(encoding='yuv422', step=16, header=peer.header()))
            time.sleep(0.2)
        wait_until(lambda: "encoding 'yuv422' needs cv_bridge" in process.log, 'the error')
        assert process.log.count('needs cv_bridge') == 1 and 'install ros-$ROS_DISTRO-cv-bridge' in process.log
        assert pixels_of(peer.mask_of(street[0])).shape == (360, 480)


def test_nothing_is_computed_without_subscribers(process, street):
    with Peer(listen=('label_info',)) as peer:
        peer.connect(process)
        wait_until(lambda: counters(peer, 'received'), 'diagnostics')
        start, received = counters(peer, 'segmented')[-1], counters(peer, 'received')[-1]
        for _ in range(10):
            peer.send(street[0])
            time.sleep(0.03)
        wait_until(lambda: counters(peer, 'received')[-1] > received, 'frames to arrive')
        assert counters(peer, 'segmented')[-1] == start


def test_nothing_is_decoded_without_subscribers(street, monkeypatch):
    """Images are not even read, but what the ids mean is published all the same."""
    read = []
    monkeypatch.setattr(inference_thread, 'frame_from_image',
                        lambda message: read.append(message) or frame_from_image(message))
    with NodeHere('unwatched', 'num_threads:=1', 'engine:=onnxruntime') as here, \
            Peer('/unwatched', listen=('label_info',)) as peer:
        peer.connect()
        header = peer.send(street[0])
        wait_until(lambda: peer.labels or (peer.send(street[0], header=header) and None), 'label info')
        assert peer.labels[0].header == header and not read
        masks = []
        peer.node.create_subscription(Image, '/unwatched/mask', masks.append, RELIABLE)
        wait_until(lambda: masks or (peer.send(street[0]) and None), 'a mask')
        assert read and here.node.cameras[0].counters.failed == 0


def test_time_may_jump_back(peer, street):
    """A bag that loops: label info is published again, so that it still explains the masks."""
    peer.mask_of(street[0])
    seen = len(peer.labels)
    early = peer.header()
    early.stamp.sec = 1
    deadline = time.monotonic() + 30
    while not any(m.header.stamp.sec == 1 for m in peer.masks) and time.monotonic() < deadline:
        peer.send(street[0], header=early)
        time.sleep(0.1)
    wait_until(lambda: len(peer.labels) > seen, 'label info after the jump')
    assert peer.labels[-1].header.stamp.sec == 1


def test_several_cameras_share_the_node(street):
    with NodeProcess('cameras:=[front, left]', 'num_threads:=1', name='rig') as process, \
            Peer('/rig', 'front', 'front/image') as front, Peer('/rig', 'left', 'left/image') as left:
        front.connect(process)
        left.connect(process)
        small = np.ascontiguousarray(street[0][::2, ::2])
        assert pixels_of(front.mask_of(street[0])).shape == (360, 480)
        assert pixels_of(left.mask_of(small)).shape == (180, 240)
        for _ in range(5):   # one camera sends rubbish; the other does not notice
            left.publisher.publish(corrupt(step=0))
        assert front.mask_of(street[0])
        assert len(front.masks) >= 2 and all(m.width == 480 for m in front.masks)


def test_cameras_whose_topics_are_swapped(street):
    """Mounted the other way round, say: a rule for one camera must not be followed by that for the other."""
    small = np.ascontiguousarray(street[0][::2, ::2])
    rules = [f'{mine}/{topic}:=/{other}/{topic}' for mine, other in (('left', 'right'), ('right', 'left'))
             for topic in ('image', 'camera_info')]
    with NodeProcess('cameras:=[left, right]', 'num_threads:=1', name='swapped', remap=rules) as process, \
            Peer('/swapped', camera='right', topic='/left/image', listen=('mask',)) as right, \
            Peer('/swapped', camera='left', topic='/right/image', listen=('mask',)) as left:
        for peer, pixels in ((right, street[0]), (left, small)):
            peer.connect(process)
            assert pixels_of(peer.mask_of(pixels)).shape == pixels.shape[:2]
        assert 'subscribed to /right/image, /left/image' in process.log


@pytest.mark.parametrize('how', [signal.SIGINT, signal.SIGTERM])
def test_signals_end_the_node_cleanly(street, how):
    with NodeProcess('num_threads:=1', name='brief') as process, Peer('/brief') as peer:
        peer.connect(process)
        peer.mask_of(street[0])
        for _ in range(5):
            peer.send(street[0])
        code, seconds = process.end(how)
        assert code == 0, process.log
        assert 'Traceback' not in process.log, process.log
        assert seconds < 10   # the budget is 2 s on a machine of its own; this one is shared


@pytest.mark.parametrize('parameter, reason', [
    ('weights:=/nowhere/w.safetensors', '/nowhere/w.safetensors does not exist'), ('weights:=nonsense', 'shipped: '),
    ('vocabulary:=[flumph]', "'flumph' is not known"), ('preset:=nope', 'unknown'), ('engine:=warp', 'give one of'),
    ('confidence_threshold:=2.0', 'confidence_threshold'), ('cameras:=[a, a]', 'twice'), ('cameras:=["no good"]', 'not a ROS name'),
])
def test_a_node_that_cannot_start_logs_why_and_fails(parameter, reason):
    with NodeProcess(parameter, name='doomed') as process:
        code = process.process.wait(40)
        process._reader.join(5)
        assert code == 1, process.log
        assert reason in process.log and 'Traceback' not in process.log, process.log


def test_damaged_weights_are_named(tmp_path):
    (tmp_path / 'w.safetensors').write_bytes(b'not weights')
    with NodeProcess(f'weights:={tmp_path / "w.safetensors"}', name='doomed') as process:
        assert process.process.wait(40) == 1
        process._reader.join(5)
        assert 'w.safetensors is damaged' in process.log

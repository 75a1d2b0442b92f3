"""The real node in its own process; the tests communicate with it over DDS."""

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
from ros_graph import RELIABLE, NodeProcess, NodeRunner, Peer, counters, pixels_of, wait_until


@pytest.fixture(scope='module')
def process():
    with NodeProcess('num_threads:=1', 'engine:=onnxruntime', 'precision:=fp32') as process:
        yield process


@pytest.fixture
def peer(process):
    with Peer(subscribe=('mask', 'confidence', 'overlay', 'label_info')) as peer:
        yield peer.connect(process)


def label_map(message):
    return {entry.class_id: entry.class_name for entry in message.class_map}


def test_outputs_follow_the_conventions(peer, street):
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
    correct = pixels_of(mask) == street[1]
    assert correct[street[1] != 255].mean() > 0.7   # the shipped weights on a procedural street


@pytest.mark.parametrize('encoding, convert', [
    ('rgb8', lambda p: p[..., ::-1]), ('bgra8', lambda p: np.dstack([p, p[..., 0]])),
    ('rgba8', lambda p: np.dstack([p[..., ::-1], p[..., 0]])),
])
def test_encodings_give_the_same_mask(peer, street, encoding, convert):
    expected = pixels_of(peer.mask_of(street[0]))
    mask = pixels_of(peer.mask_of(np.ascontiguousarray(convert(street[0])), encoding))
    assert (mask == expected).mean() > 0.9999


def test_the_service_changes_and_reports_the_vocabulary(peer, street):
    answer = peer.set_vocabulary(['road', 'vehicle=car|truck', 'sky'], confidence_threshold=0.25)
    assert answer.success, answer.message
    assert list(answer.names) == ['road', 'vehicle', 'sky'] and len(set(answer.ids)) == 3
    current = peer.get_vocabulary()
    assert list(current.classes) == ['road', 'vehicle=car|truck', 'sky'] and list(current.ids) == list(answer.ids)
    assert current.version == answer.version and current.confidence_threshold == pytest.approx(0.25)
    mask = peer.mask_of(street[0])
    assert set(np.unique(pixels_of(mask))) <= set(answer.ids) | {255}
    kept = peer.set_vocabulary(['road', 'sky'])   # threshold not given
    assert kept.success and peer.get_vocabulary().confidence_threshold == pytest.approx(0.25)
    assert list(kept.ids) == [answer.ids[0], answer.ids[2]]
    assert peer.set_vocabulary(preset='camvid', confidence_threshold=0.0).success


@pytest.mark.parametrize('request_fields, reason', [
    ({'classes': []}, 'empty'), ({'classes': ['car', 'car']}, 'twice'), ({'classes': ['flumph']}, 'not known'),
    ({'classes': [f'c{n}' for n in range(300)]}, '300'), ({'classes': ['x' * 10_000]}, '10000'),
    ({'preset': 'camvit'}, 'did you mean'), ({'classes': ['road'], 'confidence_threshold': 7.0}, 'above 1'),
])
def test_refused_requests_change_nothing(peer, request_fields, reason):
    before = peer.get_vocabulary()
    answer = peer.set_vocabulary(**request_fields)
    assert not answer.success and reason in answer.message and 'nothing was changed' in answer.message
    assert len(answer.message) < 800
    assert peer.get_vocabulary() == before
    assert (answer.version, list(answer.names)) == (before.version, list(before.names))


def test_parameters_and_service_have_the_same_effect(peer):
    assert peer.set_vocabulary(preset='camvid').success
    version = peer.get_vocabulary().version
    assert all(r.successful for r in peer.set_parameters('/lgseg', vocabulary=['road', 'person=person|pedestrian']))
    current = peer.get_vocabulary()
    assert list(current.classes) == ['road', 'person=person|pedestrian'] and current.version == version + 1
    result, = peer.set_parameters('/lgseg', vocabulary=['road', 'flumph'])
    assert not result.successful and 'flumph' in result.reason
    assert peer.get_vocabulary() == current
    assert all(r.successful for r in peer.set_parameters('/lgseg', preset='cityscapes'))
    assert len(peer.get_vocabulary().names) == 19
    result, = peer.set_parameters('/lgseg', confidence_threshold=3.0)
    assert not result.successful
    result, = peer.set_parameters('/lgseg', weights='other')
    assert not result.successful   # read-only while the node runs
    assert peer.set_vocabulary(['sky', 'road']).success
    assert list(peer.get_parameter('/lgseg', 'vocabulary')) == ['sky', 'road']
    assert peer.get_parameter('/lgseg', 'preset') == ''


def test_setting_a_preset_and_a_vocabulary_keeps_the_vocabulary(peer):
    """ROS sets the parameters of a request or a file one by one, in any order."""
    assert peer.set_vocabulary(preset='camvid').success
    for values in ({'vocabulary': ['road', 'car'], 'preset': 'camvid'},
                   {'preset': 'nav2', 'vocabulary': ['car', 'sky']}):
        assert all(result.successful for result in peer.set_parameters('/lgseg', **values))
        assert peer.get_vocabulary().classes[0] == values['vocabulary'][0]
        assert list(peer.get_parameter('/lgseg', 'vocabulary')) == values['vocabulary']
        assert (peer.get_vocabulary().preset, len(peer.get_vocabulary().names)) == (values['preset'], 2)
    assert all(result.successful for result in peer.set_parameters('/lgseg', vocabulary=['']))
    assert len(peer.get_vocabulary().names) == 11   # the classes of nav2


def test_the_shipped_parameters_can_be_set_one_by_one(peer):
    assert peer.set_vocabulary(['road']).success   # with a custom vocabulary, the preset is ''
    path = Path(__file__).resolve().parents[2] / 'config' / 'segment.yaml'
    shipped = yaml.safe_load(path.read_text())['/**']['ros__parameters']
    vocabulary = {
        name: value for name, value in shipped.items() if name in ('vocabulary', 'preset', 'confidence_threshold')
    }
    assert all(result.successful for result in peer.set_parameters('/lgseg', **vocabulary))
    assert peer.get_vocabulary().preset == shipped['preset'] and len(peer.get_vocabulary().names) == 11


def test_label_info_matches_every_mask_while_the_vocabulary_changes(peer, street):
    """While a camera publishes: the latest LabelInfo stamped no later names every id of a mask."""
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
            received = len(peer.masks)
            wait_until(lambda: len(peer.masks) > received + 1, 'masks of the new vocabulary')
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
            assert owner.setdefault(i, name) == name   # no id is ever given to another name


def test_a_late_subscriber_gets_the_label_info(process, peer, street):
    peer.mask_of(street[0])
    with Peer(subscribe=('label_info',)) as late:
        labels = wait_until(lambda: late.labels, 'the latched label info')
        current = peer.get_vocabulary()
        assert label_map(labels[-1]) == dict(zip(current.ids, current.names, strict=True))


def corrupt(**fields):
    message = Image(height=8, width=8, encoding='bgr8', step=24, data=bytes(192))
    for name, value in fields.items():
        setattr(message, name, value)
    return message


@pytest.mark.parametrize('fields, reason', [
    ({'data': bytes(100)}, 'data has 100 bytes'), ({'step': 0}, 'step is 0'), ({'encoding': 'nonsense'}, 'nonsense'),
    ({'height': 0}, '8x0'), ({'height': 40000, 'width': 40000, 'step': 120000}, '40000x40000'),
])
def test_a_corrupt_image_is_reported_and_the_next_is_segmented(process, peer, street, fields, reason):
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
        start = time.monotonic()
        while time.monotonic() - start < 7:   # longer than the throttling period of other errors
            peer.publisher.publish(corrupt(encoding='yuv422', step=16, header=peer.header()))
            time.sleep(0.2)
        wait_until(lambda: "encoding 'yuv422' needs cv_bridge" in process.log, 'the error')
        assert process.log.count('needs cv_bridge') == 1 and 'install ros-$ROS_DISTRO-cv-bridge' in process.log
        assert pixels_of(peer.mask_of(street[0])).shape == (360, 480)


def test_no_inference_without_subscribers(process, street):
    with Peer(subscribe=('label_info',)) as peer:
        peer.connect(process)
        wait_until(lambda: counters(peer, 'received'), 'diagnostics')
        start, received = counters(peer, 'segmented')[-1], counters(peer, 'received')[-1]
        for _ in range(10):
            peer.send(street[0])
            time.sleep(0.03)
        wait_until(lambda: counters(peer, 'received')[-1] > received, 'frames to arrive')
        assert counters(peer, 'segmented')[-1] == start


def test_no_decoding_without_subscribers(street, monkeypatch):
    """Images are not even converted, but LabelInfo is published."""
    converted = []
    monkeypatch.setattr(inference_thread, 'frame_from_image',
                        lambda message: converted.append(message) or frame_from_image(message))
    with NodeRunner('unsubscribed', 'num_threads:=1', 'engine:=onnxruntime') as runner, \
            Peer('/unsubscribed', subscribe=('label_info',)) as peer:
        peer.connect()
        header = peer.send(street[0])
        wait_until(lambda: peer.labels or (peer.send(street[0], header=header) and None), 'label info')
        assert peer.labels[0].header == header and not converted
        masks = []
        peer.node.create_subscription(Image, '/unsubscribed/mask', masks.append, RELIABLE)
        wait_until(lambda: masks or (peer.send(street[0]) and None), 'a mask')
        assert converted and runner.node.cameras[0].counters.failed == 0


def test_stamps_that_jump_back(peer, street):
    """As of a bag played in a loop: LabelInfo is published again, so that it precedes the masks."""
    peer.mask_of(street[0])
    received = len(peer.labels)
    early = peer.header()
    early.stamp.sec = 1
    deadline = time.monotonic() + 30
    while not any(m.header.stamp.sec == 1 for m in peer.masks) and time.monotonic() < deadline:
        peer.send(street[0], header=early)
        time.sleep(0.1)
    wait_until(lambda: len(peer.labels) > received, 'label info after the jump')
    assert peer.labels[-1].header.stamp.sec == 1


def test_several_cameras_share_the_node(street):
    with NodeProcess('cameras:=[front, left]', 'num_threads:=1', name='cameras') as process, \
            Peer('/cameras', 'front', 'front/image') as front, Peer('/cameras', 'left', 'left/image') as left:
        front.connect(process)
        left.connect(process)
        half_size = np.ascontiguousarray(street[0][::2, ::2])
        assert pixels_of(front.mask_of(street[0])).shape == (360, 480)
        assert pixels_of(left.mask_of(half_size)).shape == (180, 240)
        for _ in range(5):   # one camera sends corrupt images; the other is not affected
            left.publisher.publish(corrupt(step=0))
        assert front.mask_of(street[0])
        assert len(front.masks) >= 2 and all(m.width == 480 for m in front.masks)


def test_two_cameras_with_swapped_topics(street):
    """The remapping rule of one camera must not be applied to the result of the other's."""
    half_size = np.ascontiguousarray(street[0][::2, ::2])
    rules = [f'{camera}/{topic}:=/{other}/{topic}' for camera, other in (('left', 'right'), ('right', 'left'))
             for topic in ('image', 'camera_info')]
    with NodeProcess('cameras:=[left, right]', 'num_threads:=1', name='swapped', remap=rules) as process, \
            Peer('/swapped', camera='right', topic='/left/image', subscribe=('mask',)) as right, \
            Peer('/swapped', camera='left', topic='/right/image', subscribe=('mask',)) as left:
        for peer, pixels in ((right, street[0]), (left, half_size)):
            peer.connect(process)
            assert pixels_of(peer.mask_of(pixels)).shape == pixels.shape[:2]
        assert 'subscribed to /right/image, /left/image' in process.log


@pytest.mark.parametrize('how', [signal.SIGINT, signal.SIGTERM])
def test_the_node_exits_cleanly_on_signals(street, how):
    with NodeProcess('num_threads:=1', name='stopped') as process, Peer('/stopped') as peer:
        peer.connect(process)
        peer.mask_of(street[0])
        for _ in range(5):
            peer.send(street[0])
        code, seconds = process.end(how)
        assert code == 0, process.log
        assert 'Traceback' not in process.log, process.log
        assert seconds < 10   # the target is 2 s on an idle machine; test machines are shared


@pytest.mark.parametrize(
    'parameter, reason',
    [
        ('weights:=/nowhere/w.safetensors', '/nowhere/w.safetensors does not exist'),
        ('weights:=nonsense', 'shipped: '),
        ('vocabulary:=[flumph]', "'flumph' is not known"),
        ('preset:=nope', 'unknown'),
        ('engine:=warp', 'give one of'),
        ('confidence_threshold:=2.0', 'confidence_threshold'),
        ('cameras:=[a, a]', 'twice'),
        ('cameras:=["no good"]', 'not a ROS name'),
    ],
)
def test_a_node_that_cannot_start_exits_with_the_reason(parameter, reason):
    with NodeProcess(parameter, name='failing') as process:
        code = process.process.wait(40)
        process._reader.join(5)
        assert code == 1, process.log
        assert reason in process.log and 'Traceback' not in process.log, process.log


def test_damaged_weights_are_reported(tmp_path):
    (tmp_path / 'w.safetensors').write_bytes(b'not weights')
    with NodeProcess(f'weights:={tmp_path / "w.safetensors"}', name='failing') as process:
        assert process.process.wait(40) == 1
        process._reader.join(5)
        assert 'w.safetensors is damaged' in process.log

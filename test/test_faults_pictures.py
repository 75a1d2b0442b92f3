"""Rows of the fault table: hostile pictures, every row on a camera of its own in one running node."""

import pytest
from faults_lanes import Lanes
from faults_pictures import (ACCEPTED, COMPRESSED_ACCEPTED, COMPRESSED_REFUSED, RAW, REFUSED, encoded, packed, picture)
from faults_table import fault, fault_rows
from ros_graph import RELIABLE, counters, wait_until
from sensor_msgs.msg import CameraInfo, CompressedImage

PICTURES = 'Pictures (sensor_msgs/Image)'
WIRE = 'Bytes on the wire that are no message'
COMPRESSED = 'Compressed pictures and camera info'


@pytest.fixture(scope='module')
def raw_pictures():
    """Lanes after all rows were sent: {key: good frame sent afterwards} beside them."""
    rows = [broken for broken, *_ in (*REFUSED, *ACCEPTED, *RAW)]
    # OpenVINO compiles for each of the sizes, which is its own memory.
    with Lanes(rows, name='pictures', parameters=('engine:=onnxruntime',)) as lanes:
        messages = {broken: [message] for broken, _, message in REFUSED}
        messages.update({broken: sent for broken, _, sent in ACCEPTED})
        reasons = {broken: reason for broken, reason, _ in REFUSED}
        for _ in range(4):   # what the middleware drops leaves no trace to wait for
            for broken, raw in RAW:
                lanes.lanes[broken].publisher.publish(raw)
        lanes.play(messages, lambda key: lanes.lanes[key].status(lanes.peer.diagnostics, reasons[key])
                   if key in reasons else lanes.all_masked(messages, key))
        good = {key: [picture()] for key in rows}
        lanes.play(good, lambda key: lanes.all_masked(good, key))
        ticks = len(lanes.peer.diagnostics)
        wait_until(lambda: len(lanes.peer.diagnostics) > ticks + 1, 'the last counters')
        yield lanes, good


def assert_recovered(lanes, good, key):
    """The next good frame of that camera has its mask, and the process lives."""
    assert lanes.all_masked(good, key), 'no mask of the good frame that followed'
    assert lanes.process.process.poll() is None


@fault_rows(PICTURES, 'key, reason', [(broken, f'diagnostics: "{reason}"', broken, reason)
                                      for broken, reason, _ in REFUSED])
def test_a_corrupt_picture_is_named(raw_pictures, key, reason):
    lanes, good = raw_pictures
    said = lanes.lanes[key].status(lanes.peer.diagnostics, reason)
    assert said, [a.status for a in lanes.peer.diagnostics][-1]
    assert len(said) < 600
    assert len(lanes.lanes[key].masks) == len([m for m in lanes.lanes[key].masks if m.header == good[key][0].header])
    assert_recovered(lanes, good, key)


@fault_rows(PICTURES, 'key, messages', [(broken, seen, broken, messages) for broken, seen, messages in ACCEPTED])
def test_an_odd_picture_is_segmented(raw_pictures, key, messages):
    lanes, good = raw_pictures
    for message in messages:
        mask = lanes.lanes[key].mask_for(message)
        assert mask, f'no mask of stamp {message.header.stamp}'
        assert mask.header == message.header
        assert (mask.height, mask.width, len(mask.data)) == (
            message.height, message.width, message.height * message.width)
    assert lanes.lanes[key].failed(lanes.peer.diagnostics) == 0
    assert_recovered(lanes, good, key)


@fault_rows(WIRE, 'key', [(broken, 'nothing: no mask, no crash', broken) for broken, _ in RAW[:-1]] + [
    (RAW[-1][0], 'an encoding that is refused', RAW[-1][0])])
def test_bytes_that_are_no_message_do_nothing(raw_pictures, key):
    lanes, good = raw_pictures
    assert {m.header.stamp.nanosec for m in lanes.lanes[key].masks} == {good[key][0].header.stamp.nanosec}
    assert_recovered(lanes, good, key)


@fault(PICTURES, 'all of the above at once',
       'other cameras notice nothing; peak memory stays below 2 GB, where the headers promise 4.8; the log is throttled')
def test_nothing_was_allocated_for_promises(raw_pictures):
    lanes, _ = raw_pictures
    peak = counters(lanes.peer, 'peak_memory_mb', ': segmentation')[-1]
    assert peak < 2000
    assert 'Traceback' not in lanes.process.log
    errors = [line for line in lanes.process.log.splitlines() if '[ERROR]' in line]
    assert all(len(line) < 800 for line in errors)
    # Each camera says its first error, then at most one in 5 s: one noisy camera must not hide another's.
    for camera in (lanes.keys[broken] for broken, *_ in REFUSED):
        assert 1 <= sum(f'{camera}/image:' in line for line in errors) <= 12, camera


@pytest.fixture(scope='module')
def compressed_pictures():
    refused = {broken: reason for broken, reason, _ in COMPRESSED_REFUSED}
    messages = {broken: [message] for broken, _, message in (*COMPRESSED_REFUSED, *COMPRESSED_ACCEPTED)}
    with Lanes(messages, CompressedImage, 'packed', ('transport:=compressed', 'output_size:=network')) as lanes:
        lanes.play(messages, lambda key: lanes.lanes[key].status(lanes.peer.diagnostics, refused[key])
                   if key in refused else lanes.all_masked(messages, key))
        good = {key: [packed(encoded('.jpg'))] for key in messages}
        lanes.play(good, lambda key: lanes.all_masked(good, key))
        yield lanes, good


@fault_rows(COMPRESSED, 'key, reason', [(broken, f'diagnostics: "{reason}"', broken, reason)
                                        for broken, reason, _ in COMPRESSED_REFUSED])
def test_a_corrupt_compressed_picture_is_named(compressed_pictures, key, reason):
    lanes, good = compressed_pictures
    assert lanes.lanes[key].status(lanes.peer.diagnostics, reason), lanes.process.log
    assert_recovered(lanes, good, key)


@fault_rows(COMPRESSED, 'key, message', [(broken, seen, broken, message)
                                         for broken, seen, message in COMPRESSED_ACCEPTED])
def test_an_odd_compressed_picture_is_segmented(compressed_pictures, key, message):
    lanes, good = compressed_pictures
    mask = lanes.lanes[key].mask_for(message)
    assert mask and mask.header == message.header and len(mask.data) == mask.height * mask.width
    assert_recovered(lanes, good, key)


@fault(COMPRESSED, 'camera_info with NaN, infinities and a region of 4,294,967,295 pixels',
       'masks go on, camera_info is republished with the numbers that fit')
def test_hostile_camera_info(compressed_pictures):
    lanes, good = compressed_pictures
    key = COMPRESSED_ACCEPTED[0][0]
    camera, lane, infos = lanes.keys[key], lanes.lanes[key], []
    lanes.peer.node.create_subscription(CameraInfo, f'/packed/{camera}/camera_info', infos.append, RELIABLE)
    publisher = lanes.peer.node.create_publisher(CameraInfo, f'{camera}/camera_info', 1)
    hostile = CameraInfo(height=2**32 - 1, width=0, distortion_model='x' * 10_000, binning_x=2**32 - 1)
    hostile.k = [float('nan'), float('inf'), -1e308, *[1e308] * 6]
    hostile.roi.x_offset = hostile.roi.y_offset = hostile.roi.width = hostile.roi.height = 2**32 - 1

    def answered():
        publisher.publish(hostile)
        lane.publisher.publish(packed(encoded('.jpg')))
        return infos
    info = wait_until(answered, 'camera info')[0]
    assert (info.width, info.height) == (0, 2**32 - 1)   # what the camera claims, scaled, and not wrapped around
    assert info.roi.width == 2**32 - 1
    assert lane.failed(lanes.peer.diagnostics) == 0

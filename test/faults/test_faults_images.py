"""Rows of the fault table: hostile images, every row on a camera of its own in one running node."""

import pytest
from sensor_msgs.msg import CameraInfo, CompressedImage

from camera_harness import CameraHarness
from faults_table import fault, fault_rows
from hostile_images import ACCEPTED, COMPRESSED_ACCEPTED, COMPRESSED_REFUSED, RAW, REFUSED, encoded, noise_image, packed
from ros_graph import RELIABLE, counters, wait_until

IMAGES = 'Images (sensor_msgs/Image)'
WIRE = 'Bytes on the wire that are no message'
COMPRESSED = 'Compressed images and camera info'


@pytest.fixture(scope='module')
def raw_images():
    """The harness after all rows were sent: {key: good frame sent afterwards} beside them."""
    rows = [broken for broken, *_ in (*REFUSED, *ACCEPTED, *RAW)]
    # OpenVINO compiles for each of the sizes, which is its own memory.
    with CameraHarness(rows, name='images', parameters=('engine:=onnxruntime',)) as harness:
        messages = {broken: [message] for broken, _, message in REFUSED}
        messages.update({broken: sent for broken, _, sent in ACCEPTED})
        reasons = {broken: reason for broken, reason, _ in REFUSED}
        for _ in range(4):   # what the middleware drops leaves no trace to wait for
            for broken, raw in RAW:
                harness.cameras[broken].publisher.publish(raw)
        harness.play(messages, lambda key: harness.cameras[key].status(harness.peer.diagnostics, reasons[key])
                   if key in reasons else harness.all_masked(messages, key))
        good = {key: [noise_image()] for key in rows}
        harness.play(good, lambda key: harness.all_masked(good, key))
        ticks = len(harness.peer.diagnostics)
        wait_until(lambda: len(harness.peer.diagnostics) > ticks + 1, 'the last counters')
        yield harness, good


def assert_recovered(harness, good, key):
    """The next good frame of that camera has its mask, and the process lives."""
    assert harness.all_masked(good, key), 'no mask of the good frame that followed'
    assert harness.process.process.poll() is None


@fault_rows(IMAGES, 'key, reason', [(broken, f'diagnostics: "{reason}"', broken, reason)
                                      for broken, reason, _ in REFUSED])
def test_a_corrupt_image_is_named(raw_images, key, reason):
    harness, good = raw_images
    text = harness.cameras[key].status(harness.peer.diagnostics, reason)
    assert text, [a.status for a in harness.peer.diagnostics][-1]
    assert len(text) < 600
    assert all(mask.header == good[key][0].header for mask in harness.cameras[key].masks)
    assert_recovered(harness, good, key)


@fault_rows(IMAGES, 'key, messages', [(broken, seen, broken, messages) for broken, seen, messages in ACCEPTED])
def test_an_odd_image_is_segmented(raw_images, key, messages):
    harness, good = raw_images
    for message in messages:
        mask = harness.cameras[key].mask_for(message)
        assert mask, f'no mask of stamp {message.header.stamp}'
        assert mask.header == message.header
        assert (mask.height, mask.width, len(mask.data)) == (
            message.height, message.width, message.height * message.width)
    assert harness.cameras[key].failed(harness.peer.diagnostics) == 0
    assert_recovered(harness, good, key)


@fault_rows(WIRE, 'key', [(broken, 'nothing: no mask, no crash', broken) for broken, _ in RAW[:-1]] + [
    (RAW[-1][0], 'an encoding that is refused', RAW[-1][0])])
def test_bytes_that_are_no_message_do_nothing(raw_images, key):
    harness, good = raw_images
    assert {m.header.stamp.nanosec for m in harness.cameras[key].masks} == {good[key][0].header.stamp.nanosec}
    assert_recovered(harness, good, key)


@fault(IMAGES, 'all of the above at once',
       'other cameras are not affected; peak memory stays below 2 GB, where headers promise 4.8; the log is throttled')
def test_nothing_was_allocated_for_promises(raw_images):
    harness, _ = raw_images
    peak = counters(harness.peer, 'peak_memory_mb', ': segmentation')[-1]
    assert peak < 2000
    assert 'Traceback' not in harness.process.log
    errors = [line for line in harness.process.log.splitlines() if '[ERROR]' in line]
    assert all(len(line) < 800 for line in errors)
    # Each camera logs its first error, then at most one in 5 s: one noisy camera must not hide another's.
    for camera in (harness.keys[broken] for broken, *_ in REFUSED):
        assert 1 <= sum(f'{camera}/image:' in line for line in errors) <= 12, camera


@pytest.fixture(scope='module')
def compressed_images():
    refused = {broken: reason for broken, reason, _ in COMPRESSED_REFUSED}
    messages = {broken: [message] for broken, _, message in (*COMPRESSED_REFUSED, *COMPRESSED_ACCEPTED)}
    parameters = 'image_transport:=compressed', 'output_size:=network'
    with CameraHarness(messages, CompressedImage, 'packed', parameters) as harness:
        harness.play(messages, lambda key: harness.cameras[key].status(harness.peer.diagnostics, refused[key])
                   if key in refused else harness.all_masked(messages, key))
        good = {key: [packed(encoded('.jpg'))] for key in messages}
        harness.play(good, lambda key: harness.all_masked(good, key))
        yield harness, good


@fault_rows(COMPRESSED, 'key, reason', [(broken, f'diagnostics: "{reason}"', broken, reason)
                                        for broken, reason, _ in COMPRESSED_REFUSED])
def test_a_corrupt_compressed_image_is_named(compressed_images, key, reason):
    harness, good = compressed_images
    assert harness.cameras[key].status(harness.peer.diagnostics, reason), harness.process.log
    assert_recovered(harness, good, key)


@fault_rows(COMPRESSED, 'key, message', [(broken, seen, broken, message)
                                         for broken, seen, message in COMPRESSED_ACCEPTED])
def test_an_odd_compressed_image_is_segmented(compressed_images, key, message):
    harness, good = compressed_images
    mask = harness.cameras[key].mask_for(message)
    assert mask and mask.header == message.header and len(mask.data) == mask.height * mask.width
    assert_recovered(harness, good, key)


@fault(COMPRESSED, 'camera_info with NaN, infinities and a region of 4,294,967,295 pixels',
       'masks go on, camera_info is republished with the numbers that fit')
def test_hostile_camera_info(compressed_images):
    harness, _good = compressed_images
    key = COMPRESSED_ACCEPTED[0][0]
    name, camera, infos = harness.keys[key], harness.cameras[key], []
    harness.peer.node.create_subscription(CameraInfo, f'/packed/{name}/camera_info', infos.append, RELIABLE)
    publisher = harness.peer.node.create_publisher(CameraInfo, f'{name}/camera_info', 1)
    hostile = CameraInfo(height=2**32 - 1, width=0, distortion_model='x' * 10_000, binning_x=2**32 - 1)
    hostile.k = [float('nan'), float('inf'), -1e308, *[1e308] * 6]
    hostile.roi.x_offset = hostile.roi.y_offset = hostile.roi.width = hostile.roi.height = 2**32 - 1

    def answered():
        publisher.publish(hostile)
        camera.publisher.publish(packed(encoded('.jpg')))
        return infos
    info = wait_until(answered, 'camera info')[0]
    assert (info.width, info.height) == (0, 2**32 - 1)   # what the camera claims, scaled, and not wrapped around
    assert info.roi.width == 2**32 - 1
    assert camera.failed(harness.peer.diagnostics) == 0

"""Rows of the fault table: hostile images, each row on its own camera of one node."""

import pytest
from sensor_msgs.msg import CameraInfo, CompressedImage

from camera_harness import CameraHarness
from faults_table import fault, fault_rows
from hostile_images import (
    ACCEPTED,
    COMPRESSED_ACCEPTED,
    COMPRESSED_REFUSED,
    RAW,
    REFUSED,
    compressed_image,
    encoded,
    noise_image,
)
from ros_graph import RELIABLE, counters, wait_until

IMAGES = 'Images (sensor_msgs/Image)'
WIRE = 'Malformed messages on the wire'
COMPRESSED = 'Compressed images and camera info'


@pytest.fixture(scope='module')
def raw_images():
    """(harness, {key: valid image}), after the images of all rows were sent, each followed by a valid image."""
    rows = [description for description, *_ in (*REFUSED, *ACCEPTED, *RAW)]
    # OpenVINO compiles for each image size, which needs memory of its own.
    with CameraHarness(rows, name='images', parameters=('engine:=onnxruntime',)) as harness:
        messages = {description: [message] for description, _, message in REFUSED}
        messages.update({description: sent for description, _, sent in ACCEPTED})
        reasons = {description: reason for description, reason, _ in REFUSED}
        for _ in range(4):   # there is nothing to wait for if the middleware drops a message
            for description, raw in RAW:
                harness.cameras[description].publisher.publish(raw)
        harness.publish_until(messages, lambda key: harness.cameras[key].status(harness.peer.diagnostics, reasons[key])
                   if key in reasons else harness.all_masked(messages, key))
        good = {key: [noise_image()] for key in rows}
        harness.publish_until(good, lambda key: harness.all_masked(good, key))
        ticks = len(harness.peer.diagnostics)
        wait_until(lambda: len(harness.peer.diagnostics) > ticks + 1, 'the last counters')
        yield harness, good


def assert_recovered(harness, good, key):
    """The valid image that followed has its mask, and the process is alive."""
    assert harness.all_masked(good, key), 'no mask of the valid image that followed'
    assert harness.process.process.poll() is None


@fault_rows(IMAGES, 'key, reason', [(description, f'diagnostics: "{reason}"', description, reason)
                                      for description, reason, _ in REFUSED])
def test_a_corrupt_image_is_reported(raw_images, key, reason):
    harness, good = raw_images
    text = harness.cameras[key].status(harness.peer.diagnostics, reason)
    assert text, [a.status for a in harness.peer.diagnostics][-1]
    assert len(text) < 600
    assert all(mask.header == good[key][0].header for mask in harness.cameras[key].masks)
    assert_recovered(harness, good, key)


@fault_rows(
    IMAGES,
    'key, messages',
    [(description, expected, description, messages) for description, expected, messages in ACCEPTED],
)
def test_an_unusual_image_is_segmented(raw_images, key, messages):
    harness, good = raw_images
    for message in messages:
        mask = harness.cameras[key].mask_for(message)
        assert mask, f'no mask of stamp {message.header.stamp}'
        assert mask.header == message.header
        assert (mask.height, mask.width, len(mask.data)) == (
            message.height, message.width, message.height * message.width)
    assert harness.cameras[key].failed(harness.peer.diagnostics) == 0
    assert_recovered(harness, good, key)


@fault_rows(WIRE, 'key', [(description, 'ignored: no mask, no crash', description) for description, _ in RAW[:-1]] + [
    (RAW[-1][0], 'refused like an unknown encoding', RAW[-1][0])])
def test_malformed_messages_are_ignored(raw_images, key):
    harness, good = raw_images
    assert {m.header.stamp.nanosec for m in harness.cameras[key].masks} == {good[key][0].header.stamp.nanosec}
    assert_recovered(harness, good, key)


@fault(IMAGES, 'all faults above at once',
       'other cameras are not affected; peak memory is below 2 GB, although headers claim 4.8 GB; the log is throttled')
def test_no_memory_is_allocated_for_claimed_sizes(raw_images):
    harness, _ = raw_images
    peak = counters(harness.peer, 'peak_memory_mb', ': segmentation')[-1]
    assert peak < 2000
    assert 'Traceback' not in harness.process.log
    errors = [line for line in harness.process.log.splitlines() if '[ERROR]' in line]
    assert all(len(line) < 800 for line in errors)
    # Each camera logs its first error, then at most one per 5 s: one camera must not suppress the errors of another.
    for camera in (harness.keys[description] for description, *_ in REFUSED):
        assert 1 <= sum(f'{camera}/image:' in line for line in errors) <= 12, camera


@pytest.fixture(scope='module')
def compressed_images():
    refused = {description: reason for description, reason, _ in COMPRESSED_REFUSED}
    messages = {description: [message] for description, _, message in (*COMPRESSED_REFUSED, *COMPRESSED_ACCEPTED)}
    parameters = 'image_transport:=compressed', 'output_size:=network'
    with CameraHarness(messages, CompressedImage, 'compressed', parameters) as harness:
        harness.publish_until(messages, lambda key: harness.cameras[key].status(harness.peer.diagnostics, refused[key])
                   if key in refused else harness.all_masked(messages, key))
        good = {key: [compressed_image(encoded('.jpg'))] for key in messages}
        harness.publish_until(good, lambda key: harness.all_masked(good, key))
        yield harness, good


@fault_rows(COMPRESSED, 'key, reason', [(description, f'diagnostics: "{reason}"', description, reason)
                                        for description, reason, _ in COMPRESSED_REFUSED])
def test_a_corrupt_compressed_image_is_reported(compressed_images, key, reason):
    harness, good = compressed_images
    assert harness.cameras[key].status(harness.peer.diagnostics, reason), harness.process.log
    assert_recovered(harness, good, key)


@fault_rows(COMPRESSED, 'key, message', [(description, expected, description, message)
                                         for description, expected, message in COMPRESSED_ACCEPTED])
def test_an_unusual_compressed_image_is_segmented(compressed_images, key, message):
    harness, good = compressed_images
    mask = harness.cameras[key].mask_for(message)
    assert mask and mask.header == message.header and len(mask.data) == mask.height * mask.width
    assert_recovered(harness, good, key)


@fault(COMPRESSED, 'camera_info with NaN, infinities and a region of 4,294,967,295 pixels',
       'masks continue; camera_info is published with the values that can be represented')
def test_hostile_camera_info(compressed_images):
    harness, _good = compressed_images
    key = COMPRESSED_ACCEPTED[0][0]
    name, camera, infos = harness.keys[key], harness.cameras[key], []
    harness.peer.node.create_subscription(CameraInfo, f'/compressed/{name}/camera_info', infos.append, RELIABLE)
    publisher = harness.peer.node.create_publisher(CameraInfo, f'{name}/camera_info', 1)
    hostile = CameraInfo(height=2**32 - 1, width=0, distortion_model='x' * 10_000, binning_x=2**32 - 1)
    hostile.k = [float('nan'), float('inf'), -1e308, *[1e308] * 6]
    hostile.roi.x_offset = hostile.roi.y_offset = hostile.roi.width = hostile.roi.height = 2**32 - 1

    def published():
        publisher.publish(hostile)
        camera.publisher.publish(compressed_image(encoded('.jpg')))
        return infos
    info = wait_until(published, 'camera info')[0]
    assert (info.width, info.height) == (0, 2**32 - 1)   # the claimed size, scaled, without overflow
    assert info.roi.width == 2**32 - 1
    assert camera.failed(harness.peer.diagnostics) == 0

"""Every output format of a mask, decoded as its consumers do, and compressed input images."""

import struct

import cv2
import numpy as np
import pytest
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Float32, Header

from hostile_images import huge_png
from lgseg_ros.node.camera_info import camera_info_mismatch, scale_camera_info
from lgseg_ros.node.compressed_images import frame_from_compressed, png_message
from lgseg_ros.node.image_conversions import ImageError
from lgseg_ros.node.rle import rle_message
from ros_graph import RELIABLE, NodeProcess, Peer, counters, pixels_of, wait_until


def autoware_decode(message):
    """Decode RLE as Autoware's segmentation_pointcloud_fusion: 5-byte records of uint8 id and native int32 length."""
    assert message.encoding == 'mono8'
    data, pixels = bytes(message.data), []
    for at in range(0, len(data), 5):
        i, length = struct.unpack_from('=Bi', data, at)
        pixels += [i] * length
    return np.array(pixels, np.uint8).reshape(message.height, message.width)


@pytest.mark.parametrize('ids', [
    np.zeros((3, 4), np.uint8), np.arange(12, dtype=np.uint8).reshape(3, 4), np.full((1, 1), 9, np.uint8),
    np.random.default_rng(0).integers(0, 3, (37, 53)).astype(np.uint8),
])
def test_rle_decodes_to_the_mask(ids):
    header = Header(frame_id='front')
    message = rle_message(ids, header)
    assert message.header == header
    assert np.array_equal(autoware_decode(message), ids)


def test_unlabelled_pixels_are_unknown_for_autoware():
    decoded = autoware_decode(rle_message(np.array([[255, 7, 7]], np.uint8), Header()))
    assert decoded.tolist() == [[0, 7, 7]]


def test_png_masks_are_lossless():
    ids = np.random.default_rng(0).integers(0, 256, (40, 60)).astype(np.uint8)
    message = png_message(ids, Header())
    assert np.array_equal(cv2.imdecode(np.frombuffer(message.data, np.uint8), cv2.IMREAD_UNCHANGED), ids)


def compressed(pixels, kind='.jpg'):
    return CompressedImage(format=kind[1:], data=cv2.imencode(kind, pixels)[1].tobytes())


@pytest.mark.parametrize('kind', ['.jpg', '.png'])
def test_jpeg_and_png_are_decoded(street, kind):
    frame = frame_from_compressed(compressed(street[0], kind))
    assert frame.order == 'bgr' and np.abs(frame.pixels.astype(int) - street[0]).mean() < 4


@pytest.mark.parametrize('data, reason', [
    (b'', 'neither JPEG nor PNG'), (b'\xff\xd8' + b'\xff' * 50, 'neither JPEG nor PNG'), (b'BM' * 100, 'neither JPEG'),
    (huge_png(), '40000x40000'), (bytes(compressed(np.zeros((64, 64, 3), np.uint8), '.png').data)[:45], 'damaged'),
])
def test_invalid_compressed_images_are_refused(data, reason):
    with pytest.raises(ImageError, match=reason):
        frame_from_compressed(CompressedImage(format='x' * 1000, data=data))


def camera_info(width=480, height=360):
    info = CameraInfo(width=width, height=height, distortion_model='plumb_bob')
    info.k = [400.0, 0.0, width / 2, 0.0, 410.0, height / 2, 0.0, 0.0, 1.0]
    info.p = [400.0, 0.0, width / 2, -20.0, 0.0, 410.0, height / 2, 0.0, 0.0, 0.0, 1.0, 0.0]
    return info


def test_camera_info_scales_with_the_mask():
    scaled = scale_camera_info(camera_info(), Header(frame_id='a'), (360, 480), (180, 240))
    assert (scaled.width, scaled.height, scaled.header.frame_id) == (240, 180, 'a')
    assert scaled.k.tolist() == [200, 0, 120, 0, 205, 90, 0, 0, 1]
    assert scaled.p.tolist() == [200, 0, 120, -10, 0, 205, 90, 0, 0, 0, 1, 0]
    # A binned region of interest: width and height stay those of the full sensor.
    sensor = camera_info(1920, 1440)
    sensor.binning_x = sensor.binning_y = 2
    sensor.roi.x_offset, sensor.roi.y_offset, sensor.roi.width, sensor.roi.height = 480, 360, 960, 720
    half = scale_camera_info(sensor, Header(), (360, 480), (180, 240))
    assert (half.width, half.height, half.binning_x) == (960, 720, 2)
    assert (half.roi.x_offset, half.roi.y_offset, half.roi.width, half.roi.height) == (240, 180, 480, 360)
    same = scale_camera_info(camera_info(), Header(), (360, 480), (360, 480))
    assert same.k.tolist() == camera_info().k.tolist()


def test_camera_info_of_another_size_is_detected():
    """As after a restart of the camera with another resolution or without its calibration."""
    assert not camera_info_mismatch(camera_info(), (360, 480))
    assert 'for images of 480x360, but these are 640x480' in camera_info_mismatch(camera_info(), (480, 640))
    assert not camera_info_mismatch(CameraInfo(), (360, 480)), 'an uncalibrated driver gives no size'
    sensor = camera_info(1921, 1441)
    sensor.binning_x = sensor.binning_y = 2
    assert not any(camera_info_mismatch(sensor, size) for size in ((720, 960), (721, 961), (1441, 1921)))
    assert 'of 960x720' in camera_info_mismatch(sensor, (480, 640))
    sensor.roi.width, sensor.roi.height = 960, 720
    assert not camera_info_mismatch(sensor, (360, 480)) and 'of 480x360' in camera_info_mismatch(sensor, (720, 960))


def test_all_outputs_of_a_frame_agree(street):
    with NodeProcess('num_threads:=1', 'preset:=autoware', name='outputs') as process, \
            Peer('/outputs', subscribe=('mask', 'label_info')) as peer:
        rle_masks, png_masks, infos, latencies = [], [], [], []
        for topic, kind, store in (('mask/rle', Image, rle_masks), ('mask/compressed', CompressedImage, png_masks),
                                   ('camera_info', CameraInfo, infos), ('latency', Float32, latencies)):
            peer.node.create_subscription(kind, f'/outputs/{topic}', store.append, RELIABLE)
        info_publisher = peer.node.create_publisher(CameraInfo, 'camera_info', 1)
        peer.connect(process)
        wait_until(info_publisher.get_subscription_count, 'the camera info subscription')
        info_publisher.publish(camera_info())
        mask = peer.mask_of(street[0])
        outputs = {}
        for name, store in (('rle', rle_masks), ('png', png_masks), ('info', infos)):
            outputs[name] = wait_until(lambda: next((m for m in store if m.header == mask.header), None)
                                     or (peer.send(street[0], header=mask.header) and None), name)
        ids = pixels_of(mask)
        assert np.array_equal(autoware_decode(outputs['rle']), np.where(ids == 255, 0, ids))
        assert np.array_equal(cv2.imdecode(np.frombuffer(outputs['png'].data, np.uint8), cv2.IMREAD_UNCHANGED), ids)
        assert outputs['info'].k.tolist() == camera_info().k.tolist()
        assert latencies
        # Autoware deletes the points of given ids: the ids themselves are the interface.
        names = {entry.class_id: entry.class_name for entry in peer.labels[-1].class_map}
        assert names[7] == 'VEHICLE' and names[9] == 'ROAD' and names[15] == 'SKY' and 0 not in names


def test_masks_of_the_size_of_the_network(street):
    with (
        NodeProcess('num_threads:=1', 'output_size:=network', name='network_size') as process,
        Peer('/network_size') as peer,
    ):
        peer.connect(process)
        mask = peer.mask_of(cv2.resize(street[0], (1280, 720)))
        assert (mask.height, mask.width) == (312, 552)


def test_compressed_images_are_segmented(street):
    with NodeProcess('num_threads:=1', 'image_transport:=compressed', 'lazy_subscription:=true', name='jpeg',
                     remap=('image:=/cam/image_raw',)) as process, Peer('/jpeg') as peer:
        publisher = peer.node.create_publisher(CompressedImage, '/cam/image_raw/compressed', 1)
        peer.connect(process, camera=False)
        wait_until(publisher.get_subscription_count, 'the compressed subscription')
        message = compressed(street[0])

        def publish():
            message.header = peer.header()
            publisher.publish(message)
            return peer.masks
        wait_until(publish, 'a mask of a JPEG')
        correct = (pixels_of(peer.masks[0]) == street[1])[street[1] != 255]
        assert correct.mean() > 0.7
        message.data = b'not an image'
        publish()
        wait_until(lambda: counters(peer, 'failed') and counters(peer, 'failed')[-1], 'the failure to be counted')


def test_a_lazy_node_subscribes_on_demand(street):
    with NodeProcess('num_threads:=1', 'lazy_subscription:=true', name='lazy') as process, \
            Peer('/lazy', subscribe=('label_info',)) as peer:
        peer.connect(process, camera=False)
        assert peer.publisher.get_subscription_count() == 0
        masks = []
        subscription = peer.node.create_subscription(Image, '/lazy/mask', masks.append, RELIABLE)
        wait_until(peer.publisher.get_subscription_count, 'the node to subscribe')
        wait_until(lambda: masks or (peer.send(street[0]) and None), 'a mask')
        peer.node.destroy_subscription(subscription)
        wait_until(lambda: peer.publisher.get_subscription_count() == 0, 'the node to unsubscribe')


def test_a_qos_mismatch_names_publisher_and_fix(street):
    with NodeProcess('image_reliability:=reliable', name='strict') as process, Peer('/strict') as peer:
        wait_until(lambda: 'image_reliability:=best_effort' in process.log, 'the warning')
        assert '/peer publishes with reliability BEST_EFFORT' in process.log
        peer.connect(process, camera=False)

"""Masks, confidence and labels as Nav2's semantic_segmentation_layer reads them; the example configurations."""

import struct
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image, PointCloud2
from vision_msgs.msg import LabelInfo

from lgseg_ros.vocabulary.presets import load_presets
from ros_graph import RELIABLE, TIMEOUT_S, NodeProcess, Peer, wait_until

CONFIG = Path(__file__).resolve().parents[2] / 'config'
# The QoS of the layer's subscriptions: sensor data with depth 50, transient local labels with depth 5.
SENSOR = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=50, reliability=ReliabilityPolicy.BEST_EFFORT)
LABELS = QoSProfile(depth=5, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL)
AUTOWARE = ('UNKNOWN', 'BUILDING', 'WALL', 'OBSTACLE', 'TRAFFIC_LIGHT', 'TRAFFIC_SIGN', 'PERSON', 'VEHICLE', 'BIKE',
            'ROAD', 'SIDEWALK', 'ROAD_PAINT', 'CURBSTONE', 'CROSSWALK', 'VEGETATION', 'SKY')


def example(name):
    return yaml.safe_load((CONFIG / name).read_text())


def nav2_example():
    """(parameters of the node, parameters of the layer) of the example."""
    text = example('nav2_costmap.example.yaml')
    layer = text['local_costmap']['local_costmap']['ros__parameters']['semantic_segmentation_layer']
    return text['/lgseg']['ros__parameters'], layer


class Layer:
    """What Nav2's layer does with its topics, without the geometry: the rules of its source code."""

    def __init__(self, node, source, prefix):
        """source: the layer's parameters of one observation source; prefix: the node's name in place of /lgseg."""
        self.costs = {name: source[kind]['max_cost'] for kind in source['class_types']
                      for name in source[kind]['classes']}
        self.names, self.ignored, self.owners = {}, [], {}
        self.masks, self.confidences = {}, {}
        topics = {key: source[key].replace('/lgseg', prefix, 1)
                  for key in ('segmentation_topic', 'confidence_topic', 'labels_topic')}
        self.subscriptions = [
            node.create_subscription(Image, topics['segmentation_topic'], self._keep(self.masks), SENSOR),
            node.create_subscription(Image, topics['confidence_topic'], self._keep(self.confidences), SENSOR),
            node.create_subscription(LabelInfo, topics['labels_topic'], self._on_labels, LABELS)]

    @staticmethod
    def _keep(store):
        return lambda message: store.update({(message.header.stamp.sec, message.header.stamp.nanosec): message})

    def _on_labels(self, message):
        self.names = {}
        for entry in message.class_map:
            assert self.owners.setdefault(entry.class_id, entry.class_name) == entry.class_name, (
                'an id got another name'
            )
            if entry.class_name in self.costs:   # compared exactly, case included
                self.names[entry.class_id] = entry.class_name
            else:
                self.ignored.append(entry.class_name)

    def buffer(self, stamp, cloud):
        """{pixel (v, u): (name, confidence)} as the layer would use it, or None if it would reject the mask."""
        mask, confidence = self.masks[stamp], self.confidences[stamp]   # exactly equal stamps
        if mask.width * mask.height != cloud.width * cloud.height or len(mask.data) < mask.width * mask.height:
            return None
        if len(confidence.data) < mask.width * mask.height or not self.names:
            return None
        pixels = {}
        for v in range(0, mask.height, 7):
            for u in range(0, mask.width, 7):
                index = v * mask.width + u   # the layer ignores encoding and step
                if mask.data[index] in self.names:
                    pixels[v, u] = self.names[mask.data[index]], confidence.data[index]
        return pixels


@pytest.fixture(scope='module')
def process():
    with NodeProcess('num_threads:=1', 'preset:=nav2', name='nav2_camera') as process:
        yield process


@pytest.fixture
def layer(process):
    with Peer('/nav2_camera', subscribe=()) as peer:
        layer = Layer(peer.node, nav2_example()[1]['camera'], '/nav2_camera')
        peer.connect(process)
        yield peer, layer


def cloud_of(pixels):
    """An organized cloud that is registered to the image; the layer compares the sizes."""
    return PointCloud2(height=pixels.shape[0], width=pixels.shape[1])


def buffered(peer, layer, pixels):
    """The pixels that the layer buffers of one image."""
    header = peer.header()
    stamp = header.stamp.sec, header.stamp.nanosec

    deadline = time.monotonic() + TIMEOUT_S
    while not (stamp in layer.masks and stamp in layer.confidences):
        assert time.monotonic() < deadline, 'no mask with a confidence of its stamp'
        peer.send(pixels, header=header)
        time.sleep(0.3)   # best effort may lose an image
    return layer.buffer(stamp, cloud_of(pixels))


def test_the_layer_reads_road_and_sky(layer, street):
    peer, layer = layer
    pixels = buffered(peer, layer, street[0])
    assert pixels and not layer.ignored
    # The layer must read most road pixels of the labels as road, and most sky pixels as sky.
    truth = {(v, u): int(street[1][v, u]) for v, u in pixels}
    road = [pixels[at][0] == 'road' for at, i in truth.items() if i == 3]
    sky = [pixels[at][0] == 'sky' for at, i in truth.items() if i == 0]
    assert np.mean(road) > 0.7 and np.mean(sky) > 0.7
    assert {name for name, _ in pixels.values()} <= set(layer.costs)
    assert all(0 <= confidence <= 255 for _, confidence in pixels.values())


@pytest.mark.parametrize('size', [(641, 361), (1280, 720), (33, 17)])
def test_masks_have_the_size_of_the_cloud(layer, street, size):
    """Full resolution without padding, also for odd widths; a padded step would shear the mask."""
    peer, layer = layer
    image = cv2.resize(street[0], size)
    assert buffered(peer, layer, image) is not None
    mask = max(layer.masks.items())[1]
    assert len(mask.data) == size[0] * size[1] and (mask.encoding, mask.step) == ('mono8', size[0])


def test_a_layer_that_starts_late_gets_the_labels(process, street):
    with Peer('/nav2_camera', subscribe=('mask',)) as early:
        early.connect(process)
        early.mask_of(street[0])
        with Peer('/nav2_camera', subscribe=()) as peer:
            late = Layer(peer.node, nav2_example()[1]['camera'], '/nav2_camera')
            wait_until(lambda: late.names, 'the latched labels')   # no new frame is sent
            assert set(late.names.values()) == set(early.get_vocabulary().names)


def test_ids_are_never_reused_for_other_names(layer, street):
    """The layer caches ids for seconds; `Layer` fails at the first id that gets another name."""
    peer, layer = layer
    image = cv2.resize(street[0], (160, 120))
    for classes in (['grass', 'road'], ['person', 'pole', 'truck'], ['bus', 'sky'], ['road', 'truck', 'wall'], ['bus']):
        answer = peer.set_vocabulary(classes)
        assert answer.success
        assert buffered(peer, layer, image) is not None or not set(classes) & set(layer.costs)
        wait_until(lambda: set(answer.ids) <= set(layer.owners), 'the names')
    assert (
        'truck' in layer.ignored
    )  # the layer ignores names that are not in its parameters, as docs/how-to/nav2.md states
    assert peer.set_vocabulary(preset='nav2').success
    pixels = buffered(peer, layer, image)
    assert pixels and len(layer.owners) >= 11 + 3


def test_the_nav2_example_lists_the_classes_of_the_preset():
    node, layer = nav2_example()
    assert (node['preset'], node['output_size']) == ('nav2', 'input')
    camera = layer['camera']
    listed = [name for kind in camera['class_types'] for name in camera[kind]['classes']]
    assert sorted(listed) == sorted(spec.name for spec in load_presets()['nav2'].classes.values())
    assert all(0 <= camera[kind][cost] <= 254 for kind in camera['class_types'] for cost in ('base_cost', 'max_cost'))


def test_the_autoware_example_lists_the_labels_of_autoware():
    text = example('autoware.example.yaml')
    node = text['/lgseg']['ros__parameters']
    fusion = text['/segmentation_pointcloud_fusion']['ros__parameters']
    targets = fusion['filter_semantic_label_target']
    assert tuple(targets) == AUTOWARE
    ids = {i: spec.name for i, spec in load_presets()['autoware'].classes.items()}
    assert all(AUTOWARE[i] == name for i, name in ids.items()) and node['preset'] == 'autoware'
    # Deleted labels are classes of the preset; points of people, vehicles and unknown objects are kept.
    assert {name for name, deleted in targets.items() if deleted} <= set(ids.values())
    assert not any(targets[name] for name in ('UNKNOWN', 'OBSTACLE', 'PERSON', 'VEHICLE', 'BIKE', 'TRAFFIC_LIGHT'))
    camera, = node['cameras']
    assert fusion['input/rois0'] == f'/lgseg/{camera}/mask/rle'


def test_the_autoware_example_deletes_road_points(street):
    """The real node with the parameters of the example; Autoware's rule deletes road points and keeps those of cars."""
    targets = example('autoware.example.yaml')['/segmentation_pointcloud_fusion']['ros__parameters'][
        'filter_semantic_label_target']
    node = example('autoware.example.yaml')['/lgseg']['ros__parameters']
    with (
        NodeProcess(
            'num_threads:=1', *(f'{key}:={value}' for key, value in node.items()), name='autoware_node'
        ) as process,
        Peer('/autoware_node', 'camera0', 'camera0/image', subscribe=()) as peer,
    ):
        rle_masks = []
        peer.node.create_subscription(Image, '/autoware_node/camera0/mask/rle', rle_masks.append, RELIABLE)
        peer.connect(process)
        wait_until(lambda: rle_masks or (peer.send(street[0]) and None), 'an RLE mask')
        records = list(struct.iter_unpack('=Bi', bytes(rle_masks[0].data)))
        ids = np.repeat(np.array([i for i, _ in records], np.uint8), [length for _, length in records])
        ids = ids.reshape(rle_masks[0].height, rle_masks[0].width)
        assert ids.shape == street[1].shape and ids.max() < len(AUTOWARE)
        deleted = np.isin(ids, [i for i, name in enumerate(AUTOWARE) if targets[name]])
        assert deleted[street[1] == 3].mean() > 0.5   # road
        assert deleted[street[1] == 8].mean() < 0.5 or not (street[1] == 8).any()   # cars

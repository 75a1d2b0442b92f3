"""The recording end: collects masks, overlays and label info, and calls the service half-way."""

import time
from pathlib import Path

import cv2
import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image
from vision_msgs.msg import LabelInfo

from lgseg_ros.srv import SetVocabulary

from ..media.video_writer import open_video_writer
from ..node.updater import TOPIC as DIAGNOSTICS_TOPIC

RELIABLE = QoSProfile(depth=5, reliability=ReliabilityPolicy.RELIABLE)
LATCHED = QoSProfile(depth=5, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL)
AFTER_CHANGE = 10   # masks of the new vocabulary before after.png is taken


def stamp_ns(header):
    """A header's stamp in nanoseconds."""
    return header.stamp.sec * 10**9 + header.stamp.nanosec


class Recorder:
    """Subscribes to one node's outputs and writes overlay.mp4, before.png and after.png."""

    def __init__(self, node, out, fps, node_name):
        """node: rclpy node to subscribe with; out: folder; fps: of the video; node_name: '/lgseg', whose outputs."""
        self.node, self.out, self.fps, self.node_name = node, Path(out), fps, node_name
        self.latencies_ms, self.mask_times, self.vocabularies = [], [], []   # vocabularies: (stamp, {id: name})
        self.mask_ids = []        # (stamp, ids in the mask)
        self.size = None
        self.engine = None        # as the node's diagnostics name it
        self.counters = {}        # the node's own, from its diagnostics
        self.change = None        # response, milliseconds, masks seen before
        self._asked = None
        self._video = self._last_overlay = None
        node.create_subscription(Image, f'{node_name}/mask', self._on_mask, RELIABLE)
        node.create_subscription(Image, f'{node_name}/overlay', self._on_overlay, RELIABLE)
        node.create_subscription(LabelInfo, f'{node_name}/label_info', self._on_labels, LATCHED)
        node.create_subscription(DiagnosticArray, DIAGNOSTICS_TOPIC, self._on_diagnostics, 10)
        self.client = node.create_client(SetVocabulary, f'{node_name}/set_vocabulary')

    def _on_mask(self, message):
        now = self.node.get_clock().now().nanoseconds
        self.latencies_ms.append((now - stamp_ns(message.header)) / 1e6)
        self.mask_times.append(time.monotonic())
        self.size = [message.width, message.height]
        counts = cv2.calcHist([np.frombuffer(message.data, np.uint8)], [0], None, [256], [0, 256])
        self.mask_ids.append((stamp_ns(message.header), set(np.flatnonzero(counts).tolist()) - {255}))

    def _on_labels(self, message):
        self.vocabularies.append((stamp_ns(message.header),
                                  {entry.class_id: entry.class_name for entry in message.class_map}))

    def _on_overlay(self, message):
        image = np.frombuffer(message.data, np.uint8).reshape(message.height, message.width, 3)
        if self._video is None:
            size = message.width, message.height
            self._video = open_video_writer(self.out / 'overlay.mp4', self.fps, size)
            self._size = size
        if (message.width, message.height) == self._size:   # a video holds one size only
            self._video.write(image)
        self._last_overlay = image
        if self.change and len(self.mask_times) == self.change[2] + AFTER_CHANGE:
            self._save('after.png')

    def _on_diagnostics(self, message):
        for status in message.status:
            if not status.name.startswith(f'{self.node_name}: '):   # of another node, which may be a lgseg too
                continue
            values = {entry.key: entry.value for entry in status.values}
            self.engine = values.get('engine', self.engine)
            if 'received' in values:
                self.counters = {key: int(values[key]) for key in ('received', 'segmented', 'dropped', 'failed')}

    def change_vocabulary(self, classes):
        """Ask for another vocabulary without waiting; `change` holds the answer once it came."""
        self._save('before.png')
        self._asked = time.perf_counter()
        future = self.client.call_async(SetVocabulary.Request(classes=classes))
        future.add_done_callback(self._on_answer)

    def _on_answer(self, future):
        milliseconds = (time.perf_counter() - self._asked) * 1e3
        self.change = future.result(), milliseconds, len(self.mask_times)

    def _save(self, name):
        if self._last_overlay is not None:
            cv2.imwrite(str(self.out / name), self._last_overlay)

    def finish(self):
        """Close the video; make sure that after.png exists if anything came after the change."""
        if self._video is not None:
            self._video.release()
        if self.change and not (self.out / 'after.png').exists():
            self._save('after.png')

    def unexplained(self):
        """How many masks hold an id that the newest LabelInfo stamped no later does not name."""
        wrong = 0
        for stamp, ids in self.mask_ids:
            known = [names for when, names in self.vocabularies if when <= stamp]
            wrong += not known or not ids <= set(known[-1])
        return wrong

    def summary(self):
        """Figures of the run as a plain dict."""
        span = self.mask_times[-1] - self.mask_times[0] if len(self.mask_times) > 1 else 0
        latency = np.percentile(self.latencies_ms, [50, 95]).round(1).tolist() if self.latencies_ms else [None] * 2
        return {
            'engine': self.engine, 'size': self.size, 'frames_received': self.counters.get('received'), 'masks': len(self.mask_times),
            'dropped': self.counters.get('dropped'), 'failed': self.counters.get('failed'),
            'fps': round((len(self.mask_times) - 1) / span, 1) if span else None,
            'latency_ms': dict(zip(('p50', 'p95'), latency)),
            'vocabulary_versions': len(self.vocabularies), 'masks_unexplained': self.unexplained(),
            'service_ms': round(self.change[1], 1) if self.change else None,
        }

"""The recorder of the demo: collects masks, overlays and label info, and calls the service half-way."""

import time
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.task import Future
from sensor_msgs.msg import Image
from std_msgs.msg import Header
from vision_msgs.msg import LabelInfo

from lgseg_ros.srv import SetVocabulary

from ..media.video_writer import open_video_writer
from ..node.updater import TOPIC as DIAGNOSTICS_TOPIC
from ..utils.label_values import UNLABELLED

RELIABLE = QoSProfile(depth=5, reliability=ReliabilityPolicy.RELIABLE)
LATCHED = QoSProfile(depth=5, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL)
MASKS_BEFORE_AFTER_PNG = 10
"""Masks of the new vocabulary before after.png is taken."""


class VocabularyChange(NamedTuple):
    """The answer to the service call.

    Attributes:
        response: the answer of the node.
        milliseconds: from the call to the answer.
        masks_before: number of masks that had come by then.
    """

    response: SetVocabulary.Response
    milliseconds: float
    masks_before: int


class Recorder:
    """Subscribes to one node's outputs and writes overlay.mp4, before.png and after.png.

    Attributes:
        client: of the node's vocabulary service.
        mask_times: when each mask came, seconds of the monotonic clock.
        change: the answer to `change_vocabulary`; None until it has come.
    """

    def __init__(self, node: Node, out: Path, fps: float, node_name: str) -> None:
        """Subscribe.

        Args:
            node: subscribes and calls the service.
            out: folder to write to.
            fps: frame rate of the video, frames per second.
            node_name: the node whose outputs are recorded, e.g. '/lgseg'.
        """
        self.mask_times: list[float] = []
        self.change: VocabularyChange | None = None
        self._node, self._out, self._fps, self._node_name = node, out, fps, node_name
        self._latencies_ms: list[float] = []
        self._vocabularies: list[tuple[int, dict[int, str]]] = []   # (stamp, {id: name})
        self._mask_ids: list[tuple[int, set[int]]] = []             # (stamp, ids in the mask)
        self._mask_size: list[int] | None = None
        self._engine: str | None = None   # as the node's diagnostics name it
        self._counters: dict[str, int] = {}   # the node's own, from its diagnostics
        self._video: cv2.VideoWriter | None = None
        self._video_size = (0, 0)
        self._last_overlay: npt.NDArray[np.uint8] | None = None
        node.create_subscription(Image, f'{node_name}/mask', self._on_mask, RELIABLE)
        node.create_subscription(Image, f'{node_name}/overlay', self._on_overlay, RELIABLE)
        node.create_subscription(LabelInfo, f'{node_name}/label_info', self._on_label_info, LATCHED)
        node.create_subscription(DiagnosticArray, DIAGNOSTICS_TOPIC, self._on_diagnostics, 10)
        self.client = node.create_client(SetVocabulary, f'{node_name}/set_vocabulary')

    def change_vocabulary(self, classes: list[str]) -> None:
        """Request another vocabulary without waiting for the answer, which `change` will hold."""
        self._save('before.png')
        called = time.perf_counter()

        def on_answer(future: Future) -> None:
            self.change = VocabularyChange(future.result(), (time.perf_counter() - called) * 1e3, len(self.mask_times))
        self.client.call_async(SetVocabulary.Request(classes=classes)).add_done_callback(on_answer)

    def finish(self) -> None:
        """Close the video. Write after.png if it does not exist yet and anything came after the change."""
        if self._video is not None:
            self._video.release()
        if self.change and not (self._out / 'after.png').exists():
            self._save('after.png')

    def summary(self) -> dict[str, Any]:
        """Return the results as a plain dict."""
        masks = len(self.mask_times)
        span = self.mask_times[-1] - self.mask_times[0] if masks > 1 else 0
        latency = np.percentile(self._latencies_ms, [50, 95]).round(1).tolist() if self._latencies_ms else [None] * 2
        return {
            'engine': self._engine, 'size': self._mask_size, 'frames_received': self._counters.get('received'),
            'masks': masks, 'dropped': self._counters.get('dropped'), 'failed': self._counters.get('failed'),
            'fps': round((masks - 1) / span, 1) if span else None,
            'latency_ms': dict(zip(('p50', 'p95'), latency, strict=True)),
            'vocabulary_versions': len(self._vocabularies),
            'masks_with_unknown_ids': self._count_masks_with_unknown_ids(),
            'service_ms': round(self.change.milliseconds, 1) if self.change else None,
        }

    def _on_mask(self, message: Image) -> None:
        now = self._node.get_clock().now().nanoseconds
        self._latencies_ms.append((now - stamp_ns(message.header)) / 1e6)
        self.mask_times.append(time.monotonic())
        self._mask_size = [message.width, message.height]
        counts = cv2.calcHist([np.frombuffer(message.data, np.uint8)], [0], None, [256], [0, 256])
        self._mask_ids.append((stamp_ns(message.header), set(np.flatnonzero(counts).tolist()) - {UNLABELLED}))

    def _on_label_info(self, message: LabelInfo) -> None:
        self._vocabularies.append((stamp_ns(message.header),
                                   {entry.class_id: entry.class_name for entry in message.class_map}))

    def _on_overlay(self, message: Image) -> None:
        image = np.frombuffer(message.data, np.uint8).reshape(message.height, message.width, 3)
        if self._video is None:
            self._video_size = message.width, message.height
            self._video = open_video_writer(self._out / 'overlay.mp4', self._fps, self._video_size)
        if (message.width, message.height) == self._video_size:   # a video holds one size only
            self._video.write(image)
        self._last_overlay = image
        if self.change and len(self.mask_times) == self.change.masks_before + MASKS_BEFORE_AFTER_PNG:
            self._save('after.png')

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if not status.name.startswith(f'{self._node_name}: '):   # of another node, which may be an lgseg too
                continue
            values = {entry.key: entry.value for entry in status.values}
            self._engine = values.get('engine', self._engine)
            if 'received' in values:
                self._counters = {key: int(values[key]) for key in ('received', 'segmented', 'dropped', 'failed')}

    def _save(self, name: str) -> None:
        if self._last_overlay is not None:
            cv2.imwrite(str(self._out / name), self._last_overlay)

    def _count_masks_with_unknown_ids(self) -> int:
        """Return how many masks hold an id that the latest LabelInfo of their time does not name."""
        count = 0
        for stamp, ids in self._mask_ids:
            known = [names for published, names in self._vocabularies if published <= stamp]
            count += not known or not ids <= set(known[-1])
        return count


def stamp_ns(header: Header) -> int:
    """Return the stamp of a header in nanoseconds."""
    return int(header.stamp.sec) * 10**9 + int(header.stamp.nanosec)

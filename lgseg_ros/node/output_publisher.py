"""The outputs of one camera, computed only while they have subscribers, and the camera's frame counters."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Float32, Header
from vision_msgs.msg import LabelInfo, VisionClass

from ..engines.preprocessing import Frame, Mask
from ..media.overlay import draw_overlay
from ..vocabulary.vocabulary import Vocabulary
from .camera_info import camera_info_mismatch, scale_camera_info
from .compressed_images import png_message
from .image_conversions import frame_as_bgr, image_message
from .rle import rle_message

# Reliable publishers connect with reliable and best-effort readers alike; depth 1 keeps no old mask.
MASK_QOS = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=1, reliability=ReliabilityPolicy.RELIABLE)
LATCHED_QOS = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=1, reliability=ReliabilityPolicy.RELIABLE,
                         durability=DurabilityPolicy.TRANSIENT_LOCAL)
OUTPUTS: dict[str, type] = {'mask': Image, 'confidence': Image, 'overlay': Image, 'mask/compressed': CompressedImage,
                            'mask/rle': Image, 'camera_info': CameraInfo, 'latency': Float32}
"""Topics below ~/ or ~/NAME/, with their types."""


@dataclass(frozen=True)
class ImageFrame:
    """A decoded camera image: what the engine takes, and where its results go."""

    camera: 'OutputPublisher'
    header: Header
    image: Frame


@dataclass(frozen=True)
class Segmentation:
    """The engine's result for one `ImageFrame`, and the vocabulary that explains its class ids."""

    frame: ImageFrame
    mask: Mask
    vocabulary: Vocabulary


@dataclass
class FrameCounters:
    """Frames of one camera since the node was configured, and the times of the last one.

    Attributes:
        received: messages that arrived.
        dropped: messages that a newer one replaced.
        segmented: frames whose results were published.
        failed: frames that were lost to an error.
        frame_ms: milliseconds from the start of decoding to the end of publishing.
        engine_ms: milliseconds that the engine took, for all frames of a batch.
        latency_ms: milliseconds from the stamp of the image to its published mask.
        last_error: the reason of the last failure, or ''.
    """

    received: int = 0
    dropped: int = 0
    segmented: int = 0
    failed: int = 0
    frame_ms: float = 0.0
    engine_ms: float = 0.0
    latency_ms: float = 0.0
    last_error: str = ''


class OutputPublisher:
    """Publishers and counters of one camera; used by the inference thread only, counters and camera info aside."""

    def __init__(self, node: Node, name: str) -> None:
        """Create the publishers.

        Args:
            node: the ROS node.
            name: '' for the only camera (topics ~/mask, ...), else topics ~/NAME/mask, ...
        """
        self.name = name
        self.counters = FrameCounters()
        self.camera_info: CameraInfo | None = None   # the latest; set by the executor's thread
        self.camera_info_problem = ''                # why it was not republished with the last frame
        self._clock = node.get_clock()
        prefix = f'~/{name}/' if name else '~/'
        self._outputs = {output: node.create_publisher(kind, prefix + output, MASK_QOS)
                         for output, kind in OUTPUTS.items()}
        self._label_info = node.create_publisher(LabelInfo, prefix + 'label_info', LATCHED_QOS)
        self._labelled: tuple[int, tuple[int, int]] | None = None   # vocabulary version and stamp of the last LabelInfo

    def input_topic(self, name: str) -> str:
        """Return the topic of this camera's input `name`, before remapping."""
        return f'{self.name}/{name}' if self.name else name

    def has_subscribers(self) -> bool:
        """Return whether anything that segmenting would produce has a subscriber."""
        return any(publisher.get_subscription_count() for publisher in self._outputs.values())

    def publish_label_info(self, vocabulary: Vocabulary, header: Header) -> None:
        """Publish what the class ids mean, before the first mask that uses them, stamped with its frame.

        It is published again when time has jumped back (a looping bag), so that the newest LabelInfo stamped no later
        than a mask always explains it.

        Args:
            vocabulary: that of the frame.
            header: that of the frame.
        """
        stamp = (header.stamp.sec, header.stamp.nanosec)
        if self._labelled and self._labelled[0] == vocabulary.version and stamp >= self._labelled[1]:
            return
        message = LabelInfo(header=header, threshold=vocabulary.confidence_threshold)
        message.class_map = [VisionClass(class_id=class_id, class_name=name)
                             for class_id, name in zip(vocabulary.ids, vocabulary.names, strict=True)]
        self._label_info.publish(message)
        self._labelled = vocabulary.version, stamp

    def publish(self, segmentation: Segmentation, overlay_alpha: float) -> None:
        """Publish the results of one frame with the frame's own stamp and frame_id, each that has subscribers.

        Args:
            segmentation: the results.
            overlay_alpha: opacity of the classes in the overlay, 0 to 1.
        """
        header, image = segmentation.frame.header, segmentation.frame.image
        mask, vocabulary = segmentation.mask, segmentation.vocabulary
        self._publish('mask', lambda: image_message(mask.ids, 'mono8', header))
        self._publish('confidence', lambda: image_message(mask.confidence, 'mono8', header))
        self._publish_camera_info(segmentation)
        self._publish('mask/rle', lambda: rle_message(mask.ids, header))
        self._publish('mask/compressed', lambda: png_message(mask.ids, header))
        self._publish('overlay', lambda: image_message(
            draw_overlay(frame_as_bgr(image), mask.ids, vocabulary.names, vocabulary.ids, overlay_alpha),
            'bgr8', header))
        self.counters.segmented += 1
        # rclpy.time.Time refuses negative stamps, which a broken driver may well send.
        latency = self._clock.now().nanoseconds - header.stamp.sec * 10**9 - header.stamp.nanosec
        self.counters.latency_ms = latency / 1e6
        self._publish('latency', lambda: Float32(data=self.counters.latency_ms))

    def _publish(self, output: str, make_message: Callable[[], Any]) -> None:
        """Make and publish one output where it has subscribers."""
        if self._outputs[output].get_subscription_count() > 0:
            self._outputs[output].publish(make_message())

    def _publish_camera_info(self, segmentation: Segmentation) -> None:
        info = self.camera_info   # the executor's thread may replace it meanwhile
        if info is None:
            self.camera_info_problem = ''
            return
        height, width = segmentation.frame.image.pixels.shape[:2]
        self.camera_info_problem = camera_info_mismatch(info, (height, width))
        if not self.camera_info_problem:
            self._publish('camera_info', lambda: scale_camera_info(
                info, segmentation.frame.header, (height, width), segmentation.mask.ids.shape))

    def destroy(self, node: Node) -> None:
        """Take the publishers off the graph.

        Args:
            node: the node that has them.
        """
        for publisher in (*self._outputs.values(), self._label_info):
            node.destroy_publisher(publisher)

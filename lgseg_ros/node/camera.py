"""One camera's outputs: mask, confidence, overlay and label info, made only while somebody listens."""

from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image
from vision_msgs.msg import LabelInfo, VisionClass

from ..drawing import draw_overlay
from .images import frame_as_bgr, image_message

# Reliable publishers connect with reliable and best-effort readers alike; depth 1 keeps no old mask.
MASK_QOS = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=1, reliability=ReliabilityPolicy.RELIABLE)
LATCHED_QOS = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=1, reliability=ReliabilityPolicy.RELIABLE,
                         durability=DurabilityPolicy.TRANSIENT_LOCAL)


class Camera:
    """Publishers and counters of one camera; used by the worker thread only, counters aside."""

    def __init__(self, node, name):
        """name: '' for the only camera (topics ~/mask, ...), else topics ~/NAME/mask, ..."""
        self.name = name
        self.received = self.dropped = self.segmented = self.failed = 0
        self.frame_ms = self.engine_ms = 0.0    # of the last frame: message in hand to published; engine alone
        self.last_error = ''
        prefix = f'~/{name}/' if name else '~/'
        self._mask = node.create_publisher(Image, prefix + 'mask', MASK_QOS)
        self._confidence = node.create_publisher(Image, prefix + 'confidence', MASK_QOS)
        self._overlay = node.create_publisher(Image, prefix + 'overlay', MASK_QOS)
        self._label_info = node.create_publisher(LabelInfo, prefix + 'label_info', LATCHED_QOS)
        self._labelled = None   # (vocabulary version, stamp) of the last LabelInfo

    @property
    def image_topic(self):
        """Topic this camera's pictures come from, before remapping."""
        return f'{self.name}/image' if self.name else 'image'

    def is_watched(self):
        """Whether anybody subscribes to what segmenting would produce."""
        return any(publisher.get_subscription_count() for publisher in (self._mask, self._confidence, self._overlay))

    def publish_label_info(self, vocabulary, header):
        """Say what the ids mean, before the first mask that uses them, stamped with its frame.

        Said again when time has jumped back (a looping bag), so that the newest LabelInfo
        stamped no later than a mask always explains it.
        """
        stamp = (header.stamp.sec, header.stamp.nanosec)
        if self._labelled and self._labelled[0] == vocabulary.version and stamp >= self._labelled[1]:
            return
        message = LabelInfo(header=header, threshold=vocabulary.threshold)
        message.class_map = [VisionClass(class_id=i, class_name=name)
                             for i, name in zip(vocabulary.ids, vocabulary.names)]
        self._label_info.publish(message)
        self._labelled = vocabulary.version, stamp

    def publish(self, frame, mask, vocabulary, header, overlay_alpha):
        """Publish one frame's results with the frame's own stamp and frame_id."""
        if self._mask.get_subscription_count():
            self._mask.publish(image_message(mask.ids, 'mono8', header))
        if self._confidence.get_subscription_count():
            self._confidence.publish(image_message(mask.confidence, 'mono8', header))
        if self._overlay.get_subscription_count():
            drawn = draw_overlay(frame_as_bgr(frame), mask.ids, vocabulary.names, vocabulary.ids, overlay_alpha)
            self._overlay.publish(image_message(drawn, 'bgr8', header))
        self.segmented += 1

    def destroy(self, node):
        """Take the publishers off the graph."""
        for publisher in (self._mask, self._confidence, self._overlay, self._label_info):
            node.destroy_publisher(publisher)

"""One camera's outputs, made only while somebody listens, and its counters."""

import copy

from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Float32
from vision_msgs.msg import LabelInfo, VisionClass

from ..media.overlay import draw_overlay
from .encodings import png_message, run_length_message
from .images import frame_as_bgr, image_message

# Reliable publishers connect with reliable and best-effort readers alike; depth 1 keeps no old mask.
MASK_QOS = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=1, reliability=ReliabilityPolicy.RELIABLE)
LATCHED_QOS = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=1, reliability=ReliabilityPolicy.RELIABLE,
                         durability=DurabilityPolicy.TRANSIENT_LOCAL)
OUTPUTS = {'mask': Image, 'confidence': Image, 'overlay': Image, 'mask/compressed': CompressedImage,
           'mask/run_length': Image, 'camera_info': CameraInfo, 'latency': Float32}


class Camera:
    """Publishers and counters of one camera; used by the worker thread only, counters aside."""

    def __init__(self, node, name):
        """name: '' for the only camera (topics ~/mask, ...), else topics ~/NAME/mask, ..."""
        self.name = name
        self.received = self.dropped = self.segmented = self.failed = 0
        self.frame_ms = self.engine_ms = self.latency_ms = 0.0   # of the last frame, see docs/running.md
        self.last_error = ''
        self.info = None        # the newest CameraInfo
        self.info_problem = ''  # why it was not passed on with the last frame
        self._clock = node.get_clock()
        prefix = f'~/{name}/' if name else '~/'
        self._outputs = {output: node.create_publisher(kind, prefix + output, MASK_QOS)
                         for output, kind in OUTPUTS.items()}
        self._label_info = node.create_publisher(LabelInfo, prefix + 'label_info', LATCHED_QOS)
        self._labelled = None   # (vocabulary version, stamp) of the last LabelInfo

    def topic(self, name):
        """Topic of this camera's input `name`, before remapping."""
        return f'{self.name}/{name}' if self.name else name

    def is_watched(self):
        """Whether anybody subscribes to what segmenting would produce."""
        return any(publisher.get_subscription_count() for publisher in self._outputs.values())

    def _wanted(self, output):
        return self._outputs[output].get_subscription_count() > 0

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
        info = self.info   # the executor's thread may change it meanwhile
        problem = self.info_problem = '' if info is None else why_not_of(info, frame.pixels.shape[:2])
        makers = {
            'mask': lambda: image_message(mask.ids, 'mono8', header),
            'confidence': lambda: image_message(mask.confidence, 'mono8', header),
            'camera_info': lambda: None if problem else scaled_info(info, header, frame.pixels.shape[:2], mask.ids.shape),
            'mask/run_length': lambda: run_length_message(mask.ids, header),
            'mask/compressed': lambda: png_message(mask.ids, header),
            'overlay': lambda: image_message(
                draw_overlay(frame_as_bgr(frame), mask.ids, vocabulary.names, vocabulary.ids, overlay_alpha),
                'bgr8', header),
        }
        for output, make in makers.items():
            if self._wanted(output) and (message := make()) is not None:
                self._outputs[output].publish(message)
        self.segmented += 1
        # rclpy.time.Time refuses negative stamps, which a broken driver may well send.
        self.latency_ms = (self._clock.now().nanoseconds - header.stamp.sec * 10**9 - header.stamp.nanosec) / 1e6
        if self._wanted('latency'):
            self._outputs['latency'].publish(Float32(data=self.latency_ms))

    def destroy(self, node):
        """Take the publishers off the graph."""
        for publisher in (*self._outputs.values(), self._label_info):
            node.destroy_publisher(publisher)


def why_not_of(info, frame_size):
    """Why a CameraInfo is not of pictures of (height, width) `frame_size`, for which points would be projected wrongly;
    '' where it can be.

    They are its region of interest or the whole sensor, binned (sensor_msgs/CameraInfo); or, by drivers that say so, of
    its own height and width.  One that tells no size is believed.
    """
    whole = info.height, info.width
    seen = (info.roi.height or info.height) / max(info.binning_y, 1), (info.roi.width or info.width) / max(info.binning_x, 1)
    if not all(whole) or any(all(abs(a - b) < 1 for a, b in zip(size, frame_size)) for size in (whole, seen)):
        return ''   # drivers round either way
    return (f'camera_info is of {seen[1]:.0f}x{seen[0]:.0f}, not of these pictures of {frame_size[1]}x{frame_size[0]}, so '
            'it is not passed on')


def scaled_info(info, header, frame_size, mask_size):
    """CameraInfo for a mask: of the frame's stamp, scaled where the mask is smaller than the frame.

    info: the camera's own, or None (then None); frame_size, mask_size: (height, width).
    """
    if info is None:
        return None
    scaled = copy.deepcopy(info)
    scaled.header = header
    if tuple(frame_size) == tuple(mask_size):
        return scaled
    scale_y, scale_x = mask_size[0] / frame_size[0], mask_size[1] / frame_size[1]
    # Not the mask's size: with a region of interest or binning, width and height are those of the whole sensor.
    scaled.height, scaled.width = _scaled(info.height, scale_y), _scaled(info.width, scale_x)
    for matrix, columns in ((scaled.k, 3), (scaled.p, 4)):
        matrix[:columns] *= scale_x
        matrix[columns:2 * columns] *= scale_y
    for field, scale in (('x_offset', scale_x), ('width', scale_x), ('y_offset', scale_y), ('height', scale_y)):
        setattr(scaled.roi, field, _scaled(getattr(info.roi, field), scale))
    return scaled


def _scaled(pixels, scale):
    """A hostile number must not wrap around, or lose the frame, where the mask is larger than the picture."""
    return min(round(pixels * scale), 2**32 - 1)

"""Masks as run lengths, in the packed form that Autoware's segmentation_pointcloud_fusion reads."""

import numpy as np
import numpy.typing as npt
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from ..utils.label_values import UNLABELLED
from .image_conversions import image_message

RUN = np.dtype([('id', np.uint8), ('length', np.int32)])
"""One record: class id, then how many pixels it runs (row-major); packed, native byte order, 5 bytes."""
AUTOWARE_UNKNOWN = 0


def encode_rle(class_ids: npt.NDArray[np.uint8]) -> bytes:
    """Encode a mask as Autoware's records.

    Args:
        class_ids: uint8 [H, W]; unlabelled pixels (255) become Autoware's UNKNOWN (0).

    Returns:
        `RUN` records, whose lengths add up to H * W.
    """
    flat = np.where(class_ids == UNLABELLED, AUTOWARE_UNKNOWN, class_ids).astype(np.uint8).ravel()
    starts = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1])
    runs = np.empty(len(starts), RUN)
    runs['id'] = flat[starts]
    runs['length'] = np.diff(np.append(starts, flat.size))
    return runs.tobytes()


def rle_message(class_ids: npt.NDArray[np.uint8], header: Header) -> Image:
    """Make the sensor_msgs/Image that Autoware expects: the mask's size, encoding mono8, records as data.

    Args:
        class_ids: uint8 [H, W].
        header: put into the message as it is.

    Returns:
        The message.
    """
    message = image_message(np.frombuffer(encode_rle(class_ids), np.uint8)[None], 'mono8', header)
    message.height, message.width = class_ids.shape
    message.step = class_ids.shape[1]
    return message

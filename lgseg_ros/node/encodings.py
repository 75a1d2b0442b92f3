"""Masks in the forms that consumers read: PNG, and Autoware's run lengths; compressed pictures in."""

import struct

import cv2
import numpy as np
from sensor_msgs.msg import CompressedImage

from ..engines.frames import Frame
from .images import ImageError, check_size, image_message

UNLABELLED = 255
JPEG = b'\xff\xd8'
MOST_PIXELS_A_BYTE = 10_000   # no JPEG or PNG packs more
MOST_SEGMENTS = 1000   # before a JPEG's frame; an endless header must not hold the thread
# One record of Autoware's segmentation_pointcloud_fusion: id, then how many pixels it runs (row-major, native order).
RUN = np.dtype([('id', np.uint8), ('length', np.int32)])


def run_lengths(ids):
    """uint8 ids [H, W] as Autoware's packed 5-byte records; unlabelled pixels become its UNKNOWN, 0."""
    flat = np.where(ids == UNLABELLED, 0, ids).astype(np.uint8).ravel()
    starts = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1])
    runs = np.empty(len(starts), RUN)
    runs['id'] = flat[starts]
    runs['length'] = np.diff(np.append(starts, flat.size))
    return runs.tobytes()


def run_length_message(ids, header):
    """The sensor_msgs/Image that Autoware expects: the mask's size, encoding mono8, records as data."""
    message = image_message(np.frombuffer(run_lengths(ids), np.uint8)[None], 'mono8', header)
    message.height, message.width = ids.shape
    message.step = ids.shape[1]
    return message


def png_message(ids, header):
    """uint8 ids as a CompressedImage; PNG, because JPEG would alter labels."""
    # Level 1: masks are flat, so higher levels cost time and save little.
    done, data = cv2.imencode('.png', ids, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    if not done:
        raise ImageError(f'mask {ids.shape} cannot be written as PNG')
    return CompressedImage(header=header, format='mono8; png compressed mono8', data=data.tobytes())


def frame_from_compressed(message):
    """The picture of a sensor_msgs/CompressedImage (JPEG or PNG) as a BGR `Frame`.

    The size is read from the header before anything is allocated for it.
    Raises ImageError for other formats, damaged data and sizes out of bounds.
    """
    data = message.data.tobytes() if hasattr(message.data, 'tobytes') else bytes(message.data)
    size = _size_in_header(data)
    told = f'compressed picture of {len(data)} bytes, format {message.format[:40]!r},'
    if size is None:
        raise ImageError(f'{told} is neither JPEG nor PNG: have the camera publish one of these')
    check_size(*size)
    if size[0] * size[1] > MOST_PIXELS_A_BYTE * len(data):   # a few bytes would otherwise hold the thread for seconds
        raise ImageError(f'{told} is damaged: it is too short for {size[1]}x{size[0]} pixels')
    # Some versions of OpenCV fill what is missing of a cut JPEG with grey, which would be segmented as if it were seen.
    whole = data[:2] != JPEG or b'\xff\xd9' in data
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if whole else None
    if pixels is None:
        raise ImageError(f'{told} is damaged')
    return Frame(pixels, 'bgr')


def compressed_size(message):
    """(height, width) that a sensor_msgs/CompressedImage promises in its header, or None."""
    return _size_in_header(memoryview(message.data))


def _size_in_header(data):
    """(height, width) from the head of a PNG or JPEG, or None; data: bytes, or a view of them."""
    if data[:8] == b'\x89PNG\r\n\x1a\n' and len(data) >= 24:
        width, height = struct.unpack('>II', data[16:24])
        return height, width
    at = 2
    for _ in range(MOST_SEGMENTS):
        if data[:2] != JPEG or at + 9 > len(data) or data[at] != 0xFF:
            return None
        marker, length = data[at + 1], int.from_bytes(data[at + 2:at + 4], 'big')
        # Start of frame: every SOFn; C4, C8 and CC in that range are tables.
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            return struct.unpack('>HH', data[at + 5:at + 9])
        if 0xD0 <= marker <= 0xD7 or marker == 0x01:   # these have no length; taking one would skip the real frame
            at += 2
        else:
            at += 1 if marker == 0xFF else 2 + length
    return None

"""sensor_msgs/CompressedImage: JPEG and PNG camera images in, PNG masks out."""

import struct

import cv2
import numpy as np
import numpy.typing as npt
from sensor_msgs.msg import CompressedImage
from std_msgs.msg import Header

from ..engines.preprocessing import Frame
from .image_conversions import ImageError, check_image_size

JPEG_START = b'\xff\xd8'
JPEG_END = b'\xff\xd9'
PNG_START = b'\x89PNG\r\n\x1a\n'
MAX_PIXELS_PER_BYTE = 10_000   # no JPEG or PNG packs more
MAX_JPEG_SEGMENTS = 1000       # before a JPEG's frame; an endless header must not hold the thread


def png_message(class_ids: npt.NDArray[np.uint8], header: Header) -> CompressedImage:
    """Make a CompressedImage of a mask; PNG, because JPEG would alter labels.

    Args:
        class_ids: uint8 [H, W].
        header: put into the message as it is.

    Returns:
        The message.

    Raises:
        ImageError: OpenCV cannot write it.
    """
    # Level 1: masks are flat, so higher levels cost time and save little.
    done, data = cv2.imencode('.png', class_ids, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    if not done:
        raise ImageError(f'mask {class_ids.shape} cannot be written as PNG')
    return CompressedImage(header=header, format='mono8; png compressed mono8', data=data.tobytes())


def frame_from_compressed(message: CompressedImage) -> Frame:
    """Read a sensor_msgs/CompressedImage. The size is read from its header before anything is allocated for it.

    Args:
        message: a JPEG or PNG.

    Returns:
        The image, BGR, uint8 [H, W, 3].

    Raises:
        ImageError: another format, damaged data, or a size that no camera has.
    """
    data = message.data.tobytes() if hasattr(message.data, 'tobytes') else bytes(message.data)
    size = _size_in_header(data)
    what = f'compressed image of {len(data)} bytes, format {message.format[:40]!r},'
    if size is None:
        raise ImageError(f'{what} is neither JPEG nor PNG: have the camera publish one of these')
    check_image_size(*size)
    if size[0] * size[1] > MAX_PIXELS_PER_BYTE * len(data):   # a few bytes would otherwise hold the thread for seconds
        raise ImageError(f'{what} is damaged: it is too short for {size[1]}x{size[0]} pixels')
    # Some versions of OpenCV fill what is missing of a cut JPEG with grey, which would be segmented as if it were seen.
    whole = data[:2] != JPEG_START or JPEG_END in data
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if whole else None
    if pixels is None:
        raise ImageError(f'{what} is damaged')
    return Frame(pixels.astype(np.uint8, copy=False), 'bgr')


def compressed_size(message: CompressedImage) -> tuple[int, int] | None:
    """Return the (height, width) that a CompressedImage promises in its header, or None. Nothing is decoded."""
    return _size_in_header(memoryview(message.data))


def _size_in_header(data: bytes | memoryview) -> tuple[int, int] | None:
    """Read (height, width) from the head of a PNG or JPEG; None where there is no such head."""
    if data[:8] == PNG_START and len(data) >= 24:
        width, height = struct.unpack('>II', data[16:24])
        return height, width
    at = 2
    for _ in range(MAX_JPEG_SEGMENTS):
        if data[:2] != JPEG_START or at + 9 > len(data) or data[at] != 0xFF:
            return None
        marker, length = data[at + 1], int.from_bytes(data[at + 2:at + 4], 'big')
        # Start of frame: every SOFn; C4, C8 and CC in that range are tables.
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack('>HH', data[at + 5:at + 9])
            return height, width
        if 0xD0 <= marker <= 0xD7 or marker == 0x01:   # these have no length; taking one would skip the real frame
            at += 2
        else:
            at += 1 if marker == 0xFF else 2 + length
    return None

"""sensor_msgs/Image to NumPy and back, without a needless copy.

bgr8, rgb8, bgra8, rgba8 and mono8 are viewed in place. Every other encoding goes through cv_bridge where it is
installed.
"""

import array
import importlib

import cv2
import numpy as np
import numpy.typing as npt
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from ..engines.preprocessing import Frame

VIEWED_ENCODINGS = {'bgr8': ('bgr', 3), 'rgb8': ('rgb', 3), 'bgra8': ('bgra', 4), 'rgba8': ('rgba', 4),
                    'mono8': ('mono', 1)}
"""(order, channels) of the encodings that are read without a copy."""
MAX_SIDE = 16384            # pixels a side, and
MAX_IMAGE_PIXELS = 2**26    # in all; more is a corrupt header, and must not be allocated
TO_BGR = {'rgb': cv2.COLOR_RGB2BGR, 'rgba': cv2.COLOR_RGBA2BGR, 'bgra': cv2.COLOR_BGRA2BGR,
          'mono': cv2.COLOR_GRAY2BGR}


class ImageError(ValueError):
    """A message that holds no usable image; the text names the field, the reason and the fix."""

    persistent = False
    """Whether every image of this camera will fail alike until somebody acts."""


class EncodingError(ImageError):
    """An encoding that this machine cannot read, as opposed to one bad image."""

    persistent = True


def check_image_size(height: int, width: int) -> None:
    """Check an image size before anything is allocated for it.

    Args:
        height: pixels.
        width: pixels.

    Raises:
        ImageError: no camera has images of this size.
    """
    if not 0 < height <= MAX_SIDE or not 0 < width <= MAX_SIDE or height * width > MAX_IMAGE_PIXELS:
        raise ImageError(f'image is {width}x{height}; sides must be 1 to {MAX_SIDE} and pixels at most '
                         f'{MAX_IMAGE_PIXELS}: check the camera driver')


def frame_from_image(message: Image) -> Frame:
    """Read a sensor_msgs/Image.

    Args:
        message: an image in any encoding.

    Returns:
        Its pixels, uint8 [H, W, C] or [H, W]; a view of the message's memory for `VIEWED_ENCODINGS`.

    Raises:
        ImageError: size, step, data or encoding do not make an image.
    """
    height, width, encoding = message.height, message.width, message.encoding
    check_image_size(height, width)
    if encoding not in VIEWED_ENCODINGS:
        return _frame_from_cv_bridge(message)
    order, channels = VIEWED_ENCODINGS[encoding]
    if message.step < width * channels:
        raise ImageError(f'image step is {message.step}, but {width} pixels of {encoding} need '
                         f'{width * channels} bytes: check the camera driver')
    if len(message.data) < height * message.step:
        raise ImageError(f'image data has {len(message.data)} bytes, but height {height} x step {message.step} is '
                         f'{height * message.step}: the message was cut short')
    rows = np.frombuffer(message.data, np.uint8, height * message.step).reshape(height, message.step)
    pixels = rows[:, :width * channels]
    return Frame(pixels if channels == 1 else pixels.reshape(height, width, channels), order)


def _frame_from_cv_bridge(message: Image) -> Frame:
    try:
        bridge = importlib.import_module('cv_bridge').CvBridge()
    except ImportError as error:
        raise EncodingError(f'encoding {message.encoding[:40]!r} needs cv_bridge, which cannot be imported ({error}): '
                            'install ros-$ROS_DISTRO-cv-bridge, or have the camera publish one of '
                            f'{", ".join(VIEWED_ENCODINGS)}') from error
    try:
        return Frame(bridge.imgmsg_to_cv2(message, 'bgr8'), 'bgr')
    except Exception as error:  # cv_bridge raises its own kind, and OpenCV's and NumPy's for damaged data
        raise ImageError(f'cv_bridge cannot convert encoding {message.encoding[:40]!r}: {str(error)[:160]}') from error


def frame_as_bgr(frame: Frame) -> npt.NDArray[np.uint8]:
    """Return the frame's pixels as BGR, uint8 [H, W, 3]; a copy unless they are already."""
    if frame.order == 'bgr':
        return frame.pixels
    return cv2.cvtColor(frame.pixels, TO_BGR[frame.order]).astype(np.uint8, copy=False)


def image_message(pixels: npt.NDArray[np.uint8], encoding: str, header: Header) -> Image:
    """Make a sensor_msgs/Image.

    Args:
        pixels: uint8 [H, W] or [H, W, 3], of any memory layout.
        encoding: mono8 or bgr8, say.
        header: put into the message as it is.

    Returns:
        The message, without padding between rows.
    """
    message = Image(header=header, height=pixels.shape[0], width=pixels.shape[1], encoding=encoding)
    message.step = pixels.shape[1] * (pixels.shape[2] if pixels.ndim == 3 else 1)
    # An array.array is taken over as it is; NumPy or bytes would be checked byte by byte (up to a second at 1080p).
    data = array.array('B')
    data.frombytes(np.ascontiguousarray(pixels).data.cast('B'))
    message.data = data
    return message

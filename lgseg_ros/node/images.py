"""sensor_msgs/Image to numpy and back, without a needless copy.

bgr8, rgb8, bgra8, rgba8 and mono8 are viewed in place; every other encoding goes
through cv_bridge where it is installed.
"""

import array
import importlib

import cv2
import numpy as np
from sensor_msgs.msg import Image

from ..engines.frames import Frame

VIEWED = {'bgr8': ('bgr', 3), 'rgb8': ('rgb', 3), 'bgra8': ('bgra', 4), 'rgba8': ('rgba', 4), 'mono8': ('mono', 1)}
LONGEST_SIDE = 16384        # pixels a side, and
MOST_PIXELS = 2**26         # in all; more is a corrupt header, and must not be allocated
TO_BGR = {'rgb': cv2.COLOR_RGB2BGR, 'rgba': cv2.COLOR_RGBA2BGR, 'bgra': cv2.COLOR_BGRA2BGR,
          'mono': cv2.COLOR_GRAY2BGR}


class ImageError(ValueError):
    """A message that holds no usable picture; says which field, why and the cure."""

    lasting = False   # whether every picture of this camera will fail alike until somebody acts


class EncodingError(ImageError):
    """An encoding that this machine cannot read, as opposed to one bad picture."""

    lasting = True


def check_size(height, width):
    """Raise ImageError for a picture size that no camera has."""
    if not 0 < height <= LONGEST_SIDE or not 0 < width <= LONGEST_SIDE or height * width > MOST_PIXELS:
        raise ImageError(f'image is {width}x{height}; sides must be 1 to {LONGEST_SIDE} and pixels at most '
                         f'{MOST_PIXELS}: check the camera driver')


def frame_from_image(message):
    """The picture of a sensor_msgs/Image as a `Frame`; a view of the message's memory where possible.

    Raises ImageError for sizes, steps, data and encodings that do not make a picture.
    """
    height, width, encoding = message.height, message.width, message.encoding
    check_size(height, width)
    if encoding not in VIEWED:
        return _through_cv_bridge(message)
    order, channels = VIEWED[encoding]
    if message.step < width * channels:
        raise ImageError(f'image step is {message.step}, but {width} pixels of {encoding} need '
                         f'{width * channels} bytes: check the camera driver')
    if len(message.data) < height * message.step:
        raise ImageError(f'image data has {len(message.data)} bytes, but height {height} x step {message.step} is '
                         f'{height * message.step}: the message was cut short')
    rows = np.frombuffer(message.data, np.uint8, height * message.step).reshape(height, message.step)
    pixels = rows[:, :width * channels]
    return Frame(pixels if channels == 1 else pixels.reshape(height, width, channels), order)


def _through_cv_bridge(message):
    try:
        bridge = importlib.import_module('cv_bridge').CvBridge()
    except ImportError as error:
        raise EncodingError(f'encoding {message.encoding[:40]!r} needs cv_bridge, which cannot be imported ({error}): '
                            'install ros-$ROS_DISTRO-cv-bridge, or have the camera publish one of '
                            f'{", ".join(VIEWED)}') from error
    try:
        return Frame(bridge.imgmsg_to_cv2(message, 'bgr8'), 'bgr')
    except Exception as error:  # cv_bridge raises its own kind, and OpenCV's and numpy's for damaged data
        raise ImageError(f'cv_bridge cannot convert encoding {message.encoding[:40]!r}: {str(error)[:160]}') from error


def frame_as_bgr(frame):
    """The frame's pixels as BGR uint8 [H, W, 3]; a copy unless they are already."""
    return frame.pixels if frame.order == 'bgr' else cv2.cvtColor(frame.pixels, TO_BGR[frame.order])


def image_message(pixels, encoding, header):
    """uint8 [H, W] or [H, W, 3] as a sensor_msgs/Image with `header` unchanged."""
    message = Image(header=header, height=pixels.shape[0], width=pixels.shape[1], encoding=encoding)
    message.step = pixels.shape[1] * (pixels.shape[2] if pixels.ndim == 3 else 1)
    # An array.array is taken over as it is; numpy or bytes would be checked byte by byte (up to a second at 1080p).
    data = array.array('B')
    data.frombytes(np.ascontiguousarray(pixels).data.cast('B'))
    message.data = data
    return message

"""Conversion of image messages to frames and back: views, padded rows, corrupt messages."""

import array

import numpy as np
import pytest
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from lgseg_ros.node.image_conversions import VIEWED_ENCODINGS, ImageError, frame_as_bgr, frame_from_image, image_message


def message(height=4, width=6, encoding='bgr8', step=None, size=None):
    step = width * VIEWED_ENCODINGS.get(encoding, ('', 3))[1] if step is None else step
    data = array.array('B', [n % 251 for n in range(height * step if size is None else size)])
    return Image(height=height, width=width, encoding=encoding, step=step, data=data)


@pytest.mark.parametrize('encoding', VIEWED_ENCODINGS)
def test_pixels_are_viewed_in_place(encoding):
    image = message(encoding=encoding)
    order, channels = VIEWED_ENCODINGS[encoding]
    frame = frame_from_image(image)
    assert frame.order == order and frame.pixels.shape == ((4, 6, channels) if channels > 1 else (4, 6))
    image.data[0] = 99
    assert frame.pixels.reshape(-1)[0] == 99   # shares the memory of the message
    assert frame_as_bgr(frame).shape == (4, 6, 3)


def test_rows_may_be_padded():
    padded = frame_from_image(message(step=6 * 3 + 5)).pixels
    assert padded.shape == (4, 6, 3)
    assert padded[1, 0, 0] == (6 * 3 + 5) % 251 and padded[3, 5, 2] == (3 * 23 + 17) % 251


@pytest.mark.parametrize('image, reason', [
    (message(size=10), 'data has 10 bytes'), (message(size=0), 'data has 0 bytes'), (message(step=0), 'step is 0'),
    (message(step=17, size=400), 'step is 17'), (message(height=0), '6x0'), (message(width=0, size=9), '0x4'),
    (Image(height=40000, width=40000, encoding='bgr8', step=120000), '40000x40000'),
    (Image(height=2**32 - 1, width=2**32 - 1, encoding='mono8', step=2**32 - 1), '4294967295'),
    (Image(height=16000, width=16000, encoding='rgb8', step=48000), '16000x16000'),
    (Image(height=8000, width=8000, encoding='rgb8', step=24000), 'data has 0 bytes'),
    (message(encoding='bayer_rggb16x', size=99), "encoding 'bayer_rggb16x'"),
    (message(encoding='', size=72), "encoding ''"),
    (message(encoding='x' * 100_000, size=72), 'cv_bridge'),
])
def test_corrupt_messages_are_refused_with_the_reason(image, reason):
    with pytest.raises(ImageError, match=reason) as caught:
        frame_from_image(image)
    assert len(str(caught.value)) < 500


def test_messages_have_header_and_pixels():
    header = Header(frame_id='front')
    header.stamp.sec = 7
    pixels = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    sent = image_message(pixels, 'bgr8', header)
    assert (sent.header, sent.height, sent.width, sent.step, sent.encoding) == (header, 4, 6, 18, 'bgr8')
    assert np.array_equal(frame_from_image(sent).pixels, pixels)
    flipped = image_message(pixels[::-1, :, 0], 'mono8', header)   # not contiguous
    assert flipped.step == 6 and np.array_equal(frame_from_image(flipped).pixels, pixels[::-1, :, 0])


def test_other_encodings_are_converted_by_cv_bridge():
    pytest.importorskip('cv_bridge', reason='cv_bridge is not installed; it comes with a ROS distribution')
    image = message(encoding='mono16', step=12)
    assert frame_from_image(image).pixels.shape == (4, 6, 3)

"""Corrupt and hostile camera messages, one field at a time."""

import struct

import cv2
import numpy as np
from rclpy.serialization import serialize_message
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from lgseg_ros.node.image_conversions import image_message

HEIGHT, WIDTH = 24, 32
NOISE = np.random.default_rng(5).integers(0, 256, (HEIGHT, WIDTH, 3)).astype(np.uint8)
_stamps = iter(range(1, 10**9))


def header(**stamp):
    """A header with a stamp that was never used before; `sec` and `nanosec` override it."""
    result = Header(frame_id='camera_optical')
    result.stamp.sec, result.stamp.nanosec = divmod(next(_stamps) * 33_333_333, 10**9)
    for name, value in stamp.items():
        setattr(result.stamp, name, value)
    return result


def noise_image(height=HEIGHT, width=WIDTH, encoding='bgr8', **fields):
    """A valid image of noise, with `fields` of the message overridden."""
    pixels = np.resize(NOISE, (height, width, 3) if encoding != 'mono8' else (height, width))
    message = image_message(pixels, encoding, header())
    for name, value in fields.items():
        setattr(message, name, value)
    return message


def image_with_header(frame_id=None, **stamp):
    """A valid image with an unusual header."""
    message = image_message(NOISE, 'bgr8', header(**stamp))
    if frame_id is not None:
        message.header.frame_id = frame_id
    return message


def claimed_image(height, width):
    """An image that claims a size but has no data of it; no memory of that size may be allocated."""
    return Image(header=header(), height=height, width=width, encoding='bgr8', step=(width * 3) % 2**32, data=b'abc')


# Description, reason in /diagnostics, message.
REFUSED = [
    ('height is 0', 'image is 32x0; sides must be 1 to 16384', claimed_image(0, 32)),
    ('width is 0', 'image is 0x24', claimed_image(24, 0)),
    ('height is 4,294,967,295', 'image is 32x4294967295', claimed_image(2**32 - 1, 32)),
    ('a claimed size of 40000 x 40000', 'image is 40000x40000', claimed_image(40000, 40000)),
    ('a claimed size of 16384 x 16384', 'pixels at most 67108864', claimed_image(16384, 16384)),
    ('step is 0', 'step is 0, but 32 pixels of bgr8 need 96', noise_image(step=0)),
    ('step is one byte too small', 'step is 95', noise_image(step=95)),
    ('step is 4,294,967,295', 'data has 2304 bytes', noise_image(step=2**32 - 1)),
    ('data is empty', 'data has 0 bytes', noise_image(data=b'')),
    ('data is one byte too short', 'data has 2303 bytes', noise_image(data=bytes(2303))),
    ('encoding is empty', "encoding ''", Image(header=header(), height=2, width=2, step=6, data=bytes(12))),
    ('encoding is unknown', "encoding 'nonsense'", noise_image(encoding='nonsense')),
    ('encoding in capitals', "encoding 'BGR8'", noise_image(encoding='BGR8')),
    ('encoding of 100,000 characters', f"encoding '{'x' * 40}'", noise_image(encoding='x' * 100_000)),
    ('encoding in emoji and right-to-left letters', "encoding '🚗אבג'", noise_image(encoding='🚗אבג')),
]
# Description, expected behaviour, messages; each must get a mask.
ACCEPTED = [
    ('data longer than the image', 'a mask; the excess is ignored', [noise_image(data=bytes(5000))]),
    ('rows padded to a step of 101', 'a mask', [noise_image(step=101, data=bytes(101 * HEIGHT))]),
    ('is_bigendian is 255', 'a mask', [noise_image(is_bigendian=255)]),
    ('frame_id is empty', 'a mask with the same frame_id', [image_with_header('')]),
    ('frame_id of 100,000 characters', 'a mask with the same frame_id', [image_with_header('f' * 100_000)]),
    (
        'frame_id with slashes, emoji and newlines',
        'a mask with the same frame_id',
        [image_with_header('/a//🚗\n../שלום')],
    ),
    ('stamp is 0', 'a mask of stamp 0', [image_with_header(sec=0, nanosec=0)]),
    (
        'stamp is negative',
        'a mask of that stamp',
        [image_with_header(sec=-1), image_with_header(sec=-(2**31), nanosec=1)],
    ),
    ('stamp is in the far future', 'a mask of that stamp', [image_with_header(sec=2**31 - 1, nanosec=999_999_999)]),
    ('nanoseconds of more than a second', 'a mask of that stamp', [image_with_header(nanosec=2**32 - 1)]),
    (
        'stamps that jump back repeatedly',
        'a mask for every stamp',
        [image_with_header(sec=900), image_with_header(sec=5), image_with_header(sec=400)],
    ),
    ('an image of one pixel', 'a mask of one pixel', [noise_image(1, 1)]),
    ('an image of one row', 'a mask of one row', [noise_image(1, 4000)]),
    ('an image of odd sides', 'a mask of that size', [noise_image(7, 13)]),
    (
        'the size changes with every frame',
        'masks of each size',
        [noise_image(24, 32), noise_image(48, 20), noise_image(90, 160)],
    ),
    (
        'the encoding changes with every frame',
        'a mask of each frame',
        [noise_image(), noise_image(encoding='mono8'), noise_image(encoding='rgb8')],
    ),
]


def _edited(old, new):
    """A serialized image in which the bytes `old` are replaced."""
    raw = bytearray(serialize_message(noise_image()))
    at = bytes(raw).index(old)
    raw[at:at + len(new)] = new
    return bytes(raw)


_GOOD = bytes(serialize_message(noise_image()))
_LENGTH = struct.pack('<I', HEIGHT * WIDTH * 3)
# Malformed messages, as a faulty or hostile peer may send them.
RAW = [
    ('a message truncated in its header', _GOOD[:40]), ('a message truncated in its data', _GOOD[:-700]),
    ('a message of one byte', b'x'), ('3,000 random bytes', np.random.default_rng(0).bytes(3000)),
    ('a claimed data length of 4 GB', _edited(_LENGTH, struct.pack('<I', 2**32 - 16))),
    ('a claimed string length of 2 GB', _edited(struct.pack('<I', 5) + b'bgr8', struct.pack('<I', 2**31 - 1))),
    ('an encoding that is not UTF-8', _edited(b'bgr8', b'\xff\xfe\xc0\x80')),
]


def compressed_image(data, kind='jpeg'):
    """Bytes as a CompressedImage."""
    return CompressedImage(header=header(), format=kind, data=data)


def encoded(extension, shape=(HEIGHT, WIDTH)):
    """A real JPEG or PNG."""
    return cv2.imencode(extension, np.resize(NOISE, (*shape, 3)))[1].tobytes()


def huge_png():
    """A PNG whose header claims 40000 x 40000 pixels."""
    data = bytearray(encoded('.png'))
    data[16:24] = struct.pack('>II', 40000, 40000)
    return bytes(data)


def jpeg_with_hidden_size():
    """A JPEG of 30000 x 30000 that a parser reads as 8 x 8 if it takes a restart marker for a segment."""
    real = bytearray(encoded('.jpg'))
    frame = real.index(b'\xff\xc0')
    real[frame + 5:frame + 9] = struct.pack('>HH', 30000, 30000)
    # The bytes after the marker, ff e0, are the next marker. Read as a length, they lead to the false frame header.
    false = b'\xff\xc0\x00\x0b\x08' + struct.pack('>HH', 8, 8) + b'\x01\x01\x11\x00'
    comment = b'\xff\xe0' + struct.pack('>H', 65530)
    body = b'\xff\xd0' + comment
    body += bytes(0xFFE0 - len(body) + 2) + false
    return b'\xff\xd8' + body + bytes(65530 - 2 - (len(body) - 6)) + bytes(real[2:])


COMPRESSED_REFUSED = [
    ('compressed data is empty', 'neither JPEG nor PNG', compressed_image(b'')),
    ('compressed data is text', 'neither JPEG nor PNG', compressed_image(b'not an image' * 100)),
    ('compressed data is a GIF', 'neither JPEG nor PNG', compressed_image(b'GIF89a' + bytes(100), 'gif')),
    ('a JPEG of 20 bytes', 'neither JPEG nor PNG', compressed_image(encoded('.jpg')[:20])),
    ('a truncated PNG', 'damaged', compressed_image(encoded('.png')[:60], 'png')),
    ('a PNG that claims 40000 x 40000', 'image is 40000x40000', compressed_image(huge_png(), 'png')),
    ('a truncated JPEG', 'damaged', compressed_image(encoded('.jpg', (480, 640))[:40_000])),
    ('a JPEG with a hidden size of 30000 x 30000', 'image is 30000x30000', compressed_image(jpeg_with_hidden_size())),
]
COMPRESSED_ACCEPTED = [
    ('format of 100,000 characters', 'a mask', compressed_image(encoded('.jpg'), 'x' * 100_000)),
    ('format is png, data is a JPEG', 'a mask', compressed_image(encoded('.jpg'), 'png')),
    ('bytes after the end of a JPEG', 'a mask', compressed_image(encoded('.jpg') + bytes(5000))),
]

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
    """A header of a stamp never used before, unless `sec`, `nanosec` are given."""
    result = Header(frame_id='camera_optical')
    result.stamp.sec, result.stamp.nanosec = divmod(next(_stamps) * 33_333_333, 10**9)
    for name, value in stamp.items():
        setattr(result.stamp, name, value)
    return result


def noise_image(height=HEIGHT, width=WIDTH, encoding='bgr8', **fields):
    """A good image of noise, with `fields` of the message set to something else."""
    pixels = np.resize(NOISE, (height, width, 3) if encoding != 'mono8' else (height, width))
    message = image_message(pixels, encoding, header())
    for name, value in fields.items():
        setattr(message, name, value)
    return message


def framed(frame_id=None, **stamp):
    """A good image whose header is odd."""
    message = image_message(NOISE, 'bgr8', header(**stamp))
    if frame_id is not None:
        message.header.frame_id = frame_id
    return message


def claims(height, width):
    """A header that promises a huge image; nothing of that size may be allocated."""
    return Image(header=header(), height=height, width=width, encoding='bgr8', step=(width * 3) % 2**32, data=b'abc')


# What is wrong, what the user reads, the message.
REFUSED = [
    ('height is 0', 'image is 32x0; sides must be 1 to 16384', claims(0, 32)),
    ('width is 0', 'image is 0x24', claims(24, 0)),
    ('height is 4,294,967,295', 'image is 32x4294967295', claims(2**32 - 1, 32)),
    ('a header of 40000 x 40000', 'image is 40000x40000', claims(40000, 40000)),
    ('a header of 16384 x 16384', 'pixels at most 67108864', claims(16384, 16384)),
    ('step is 0', 'step is 0, but 32 pixels of bgr8 need 96', noise_image(step=0)),
    ('step is a byte short', 'step is 95', noise_image(step=95)),
    ('step is 4,294,967,295', 'data has 2304 bytes', noise_image(step=2**32 - 1)),
    ('data is empty', 'data has 0 bytes', noise_image(data=b'')),
    ('data is a byte short', 'data has 2303 bytes', noise_image(data=bytes(2303))),
    ('encoding is empty', "encoding ''", Image(header=header(), height=2, width=2, step=6, data=bytes(12))),
    ('encoding is unknown', "encoding 'nonsense'", noise_image(encoding='nonsense')),
    ('encoding in capitals', "encoding 'BGR8'", noise_image(encoding='BGR8')),
    ('encoding of 100,000 letters', f"encoding '{'x' * 40}'", noise_image(encoding='x' * 100_000)),
    ('encoding in emoji and right-to-left letters', "encoding '🚗אבג'", noise_image(encoding='🚗אבג')),
]
# What is odd, what the user gets, the messages; every one must have its mask.
ACCEPTED = [
    ('data longer than the image', 'a mask; the rest is ignored', [noise_image(data=bytes(5000))]),
    ('rows padded to a step of 101', 'a mask', [noise_image(step=101, data=bytes(101 * HEIGHT))]),
    ('is_bigendian is 255', 'a mask', [noise_image(is_bigendian=255)]),
    ('frame_id is empty', 'a mask with the same frame_id', [framed('')]),
    ('frame_id of 100,000 letters', 'a mask with the same frame_id', [framed('f' * 100_000)]),
    ('frame_id with slashes, emoji and newlines', 'a mask with the same frame_id', [framed('/a//🚗\n../שלום')]),
    ('stamp is 0', 'a mask of stamp 0', [framed(sec=0, nanosec=0)]),
    ('stamp is negative', 'a mask of that stamp, and no failure', [framed(sec=-1), framed(sec=-2**31, nanosec=1)]),
    ('stamp is in the far future', 'a mask of that stamp', [framed(sec=2**31 - 1, nanosec=999_999_999)]),
    ('nanoseconds above a second', 'a mask of that stamp', [framed(nanosec=2**32 - 1)]),
    ('time jumps back, again and again', 'a mask of every stamp', [framed(sec=900), framed(sec=5), framed(sec=400)]),
    ('an image of one pixel', 'a mask of one pixel', [noise_image(1, 1)]),
    ('an image of one row', 'a mask of one row', [noise_image(1, 4000)]),
    ('an image of odd sides', 'a mask of that size', [noise_image(7, 13)]),
    ('the size changes with every frame', 'masks of each size',
     [noise_image(24, 32), noise_image(48, 20), noise_image(90, 160)]),
    ('the encoding changes with every frame', 'a mask of each frame',
     [noise_image(), noise_image(encoding='mono8'), noise_image(encoding='rgb8')]),
]


def _edited(find, put):
    """A serialised image in which the bytes `find` are replaced."""
    raw = bytearray(serialize_message(noise_image()))
    at = bytes(raw).index(find)
    raw[at:at + len(put)] = put
    return bytes(raw)


_GOOD = bytes(serialize_message(noise_image()))
_LENGTH = struct.pack('<I', HEIGHT * WIDTH * 3)
# Not even a message: bytes that a broken or hostile peer puts on the wire.
RAW = [
    ('a message cut in its header', _GOOD[:40]), ('a message cut in its data', _GOOD[:-700]),
    ('a message of one byte', b'x'), ('3,000 random bytes', np.random.default_rng(0).bytes(3000)),
    ('a data length of 4 GB', _edited(_LENGTH, struct.pack('<I', 2**32 - 16))),
    ('a string length of 2 GB', _edited(struct.pack('<I', 5) + b'bgr8', struct.pack('<I', 2**31 - 1))),
    ('an encoding that is not UTF-8', _edited(b'bgr8', b'\xff\xfe\xc0\x80')),
]


def packed(data, kind='jpeg'):
    """Bytes as a CompressedImage."""
    return CompressedImage(header=header(), format=kind, data=data)


def encoded(extension, shape=(HEIGHT, WIDTH)):
    """A real JPEG or PNG."""
    return cv2.imencode(extension, np.resize(NOISE, (*shape, 3)))[1].tobytes()


def huge_png():
    """A PNG whose header promises 40000 x 40000 pixels."""
    data = bytearray(encoded('.png'))
    data[16:24] = struct.pack('>II', 40000, 40000)
    return bytes(data)


def hiding_jpeg():
    """A JPEG of 30000 x 30000 that shows 8 x 8 to a reader who takes a restart marker for a segment."""
    real = bytearray(encoded('.jpg'))
    frame = real.index(b'\xff\xc0')
    real[frame + 5:frame + 9] = struct.pack('>HH', 30000, 30000)
    # The marker's next bytes, ff e0, are no length but the next marker; as a length they lead to the false frame.
    false = b'\xff\xc0\x00\x0b\x08' + struct.pack('>HH', 8, 8) + b'\x01\x01\x11\x00'
    comment = b'\xff\xe0' + struct.pack('>H', 65530)
    body = b'\xff\xd0' + comment
    body += bytes(0xFFE0 - len(body) + 2) + false
    return b'\xff\xd8' + body + bytes(65530 - 2 - (len(body) - 6)) + bytes(real[2:])


COMPRESSED_REFUSED = [
    ('compressed data is empty', 'neither JPEG nor PNG', packed(b'')),
    ('compressed data is text', 'neither JPEG nor PNG', packed(b'not an image' * 100)),
    ('compressed data is a GIF', 'neither JPEG nor PNG', packed(b'GIF89a' + bytes(100), 'gif')),
    ('a JPEG of its first bytes', 'neither JPEG nor PNG', packed(encoded('.jpg')[:20])),
    ('a PNG cut short', 'damaged', packed(encoded('.png')[:60], 'png')),
    ('a PNG that promises 40000 x 40000', 'image is 40000x40000', packed(huge_png(), 'png')),
    ('a JPEG cut in half', 'damaged', packed(encoded('.jpg', (480, 640))[:40_000])),
    ('a JPEG that hides 30000 x 30000', 'image is 30000x30000', packed(hiding_jpeg())),
]
COMPRESSED_ACCEPTED = [
    ('format of 100,000 letters', 'a mask', packed(encoded('.jpg'), 'x' * 100_000)),
    ('format says PNG, data is a JPEG', 'a mask', packed(encoded('.jpg'), 'png')),
    ('bytes after the end of a JPEG', 'a mask', packed(encoded('.jpg') + bytes(5000))),
]

"""Picture sizes as people write them."""

from argparse import ArgumentTypeError


def size(text):
    """'640x480' as (640, 480), width first; for argparse.  Raises ArgumentTypeError."""
    width, _, height = text.lower().partition('x')
    if not (width.isdecimal() and height.isdecimal() and 16 <= int(width) <= 8192 and 16 <= int(height) <= 8192):
        raise ArgumentTypeError(f'{text!r} is not a size; give width x height of 16 to 8192 pixels, as in 640x480')
    return int(width), int(height)

"""Options that several commands share."""

import argparse

from ..engines.preprocessing import DEFAULT_PIXELS
from ..engines.selection import ENGINE_NAMES, PRECISIONS
from ..media.images import parse_size
from ..model.weights import DEFAULT_WEIGHTS


def add_weights_option(parser: argparse.ArgumentParser) -> None:
    """Declare --weights."""
    parser.add_argument('--weights', default=DEFAULT_WEIGHTS, metavar='W',
                        help='shipped name or .safetensors file (default: %(default)s)')


def add_engine_options(parser: argparse.ArgumentParser) -> None:
    """Declare --engine and --precision."""
    parser.add_argument('--engine', choices=ENGINE_NAMES, default='auto',
                        help='inference engine; auto: the fastest that is ready here (default: %(default)s)')
    parser.add_argument('--precision', choices=PRECISIONS, default='auto',
                        help='precision of its computation (default: %(default)s)')


def add_inference_options(parser: argparse.ArgumentParser) -> None:
    """Declare --num-threads and --max-inference-pixels."""
    parser.add_argument('--num-threads', type=int, default=0, metavar='N', help='CPU threads (default: all cores)')
    parser.add_argument('--max-inference-pixels', type=int, default=DEFAULT_PIXELS, metavar='N',
                        help='pixels of the image that the network sees; fewer is faster (default: %(default)s)')


def size(text: str) -> tuple[int, int]:
    """Parse '640x480' to (640, 480), width first; an argparse type."""
    try:
        return parse_size(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None

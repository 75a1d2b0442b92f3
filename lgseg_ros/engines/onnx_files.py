"""The ONNX files beside trained weights: NAME.onnx in fp32 and, where it was made, NAME.int8.onnx."""

import logging

from .cpu import has_int8_dot
from .weights import WeightsError, check_onnx

# Names in the graph. They stand in the ONNX files that are shipped, so those of older versions stay: `rows` are the text
# embeddings, `row_ids` the class id of each.
FRAMES_INPUT = 'frames'
"""uint8 [batch, height, width, 3], RGB; height and width are multiples of 8."""
TEXT_EMBEDDINGS_INPUT = 'rows'
"""float32 [K, embed_dim], projected text embeddings of unit length."""
CLASS_IDS_INPUT = 'row_ids'
"""int64 [K], class id of each text embedding, 0 to 254."""
CONFIDENCE_THRESHOLD_INPUT = 'threshold'
"""float32 scalar, 0 to 1."""
IDS_OUTPUT = 'ids'
"""uint8 [batch, height, width], class id of each pixel, 255 where unlabelled."""
CONFIDENCE_OUTPUT = 'confidence'
"""uint8 [batch, height, width], 255 is probability 1."""
INPUTS = (FRAMES_INPUT, TEXT_EMBEDDINGS_INPUT, CLASS_IDS_INPUT, CONFIDENCE_THRESHOLD_INPUT)
OUTPUTS = (IDS_OUTPUT, CONFIDENCE_OUTPUT)

NO_INT8_DOT = 'this CPU has no 8-bit dot products (VNNI, or dotprod on arm64), without which int8 is slow and saturates'


def int8_path(weights):
    """Where the 8-bit file of `weights` lies."""
    return weights.path.with_suffix('.int8.onnx')


def onnx_file(weights, precision):
    """Path of the file for `precision`: int8, or the one file for all others.

    Raises WeightsError when it is missing, with the command that makes it.
    """
    if precision != 'int8':
        return check_onnx(weights)
    path = int8_path(weights)
    if not path.is_file():
        raise WeightsError(f'{path} is missing; make it with: {maker(weights, precision)}')
    return path


def maker(weights, precision):
    """The command that makes a file again."""
    return f'lgseg {"quantize" if precision == "int8" else "export"} --weights {weights.path}'


def check_origin(path, made_for, weights, precision):
    """Raise WeightsError unless a file's `weights_sha256` is that of `weights`."""
    if made_for != weights.sha256:
        raise WeightsError(f'{path} was exported from other weights than {weights.path}; '
                           f'make it again with: {maker(weights, precision)}')


def cannot_load(path, error, weights, precision):
    """A WeightsError for whatever a library raised on loading a file."""
    reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return WeightsError(f'{path} cannot be loaded ({reason}); copy it again, or make it with: '
                        f'{maker(weights, precision)}')


def has_int8(weights):
    """Whether an 8-bit file of these weights is there and this CPU is good at it; tells of one of other weights."""
    path = int8_path(weights)
    if not path.is_file() or not has_int8_dot():
        return False
    if weights.sha256.encode() in path.read_bytes():   # as its metadata; libraries differ in how they show it
        return True
    logging.getLogger(__name__).warning('%s is damaged or of other weights and is not used; make it again with: %s',
                                        path, maker(weights, 'int8'))
    return False

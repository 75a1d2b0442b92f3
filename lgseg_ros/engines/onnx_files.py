"""The ONNX files beside trained weights, NAME.onnx in fp32 and optionally NAME.int8.onnx, and their inputs."""

import logging
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..model.graph_interface import CLASS_IDS_INPUT, CONFIDENCE_THRESHOLD_INPUT, FRAMES_INPUT, TEXT_EMBEDDINGS_INPUT
from ..model.weights import Weights, WeightsError, check_onnx
from ..utils.hardware import has_int8_dot
from ..vocabulary.vocabulary import Vocabulary
from .errors import first_line

NO_INT8_DOT = ('this CPU has no 8-bit dot products (VNNI, or dotprod on arm64), without which int8 is slow and '
               'saturates')


def graph_inputs(images: npt.NDArray[np.uint8], vocabulary: Vocabulary) -> dict[str, npt.NDArray[np.generic]]:
    """Return the inputs of the graph by name.

    Args:
        images: uint8 [B, H, W, 3], RGB, of a network size.
        vocabulary: text embeddings, class ids and confidence threshold.
    """
    return {FRAMES_INPUT: images, TEXT_EMBEDDINGS_INPUT: vocabulary.text_embeddings,
            CLASS_IDS_INPUT: vocabulary.class_ids,
            CONFIDENCE_THRESHOLD_INPUT: np.array(vocabulary.confidence_threshold, np.float32)}


def int8_path(weights: Weights) -> Path:
    """Return the path of the int8 file of weights."""
    return weights.path.with_suffix('.int8.onnx')


def onnx_file(weights: Weights, precision: str) -> Path:
    """Return the path of the ONNX file for a precision.

    Args:
        weights: from `load_weights`.
        precision: 'int8' has its own file; all others share one.

    Raises:
        WeightsError: the file is missing; the message has the command that makes it.
    """
    if precision != 'int8':
        return check_onnx(weights)
    path = int8_path(weights)
    if not path.is_file():
        raise WeightsError(f'{path} is missing; make it with: {make_command(weights, precision)}')
    return path


def make_command(weights: Weights, precision: str) -> str:
    """Return the command that makes the ONNX file for a precision again."""
    return f'lgseg {"quantize" if precision == "int8" else "export"} --weights {weights.path}'


def check_origin(path: Path, weights_sha256: str | None, weights: Weights, precision: str) -> None:
    """Check that an ONNX file was made for these weights.

    Args:
        path: of the ONNX file.
        weights_sha256: from the metadata of the file; None if it has none.
        weights: from `load_weights`.
        precision: of the file.

    Raises:
        WeightsError: it was made for other weights.
    """
    if weights_sha256 != weights.sha256:
        raise WeightsError(f'{path} was exported from other weights than {weights.path}; '
                           f'make it again with: {make_command(weights, precision)}')


def load_error(path: Path, error: Exception, weights: Weights, precision: str) -> WeightsError:
    """Return a WeightsError for what a library raised when it loaded an ONNX file."""
    return WeightsError(f'{path} cannot be loaded ({first_line(error)}); copy it again, or make it with: '
                        f'{make_command(weights, precision)}')


def has_int8(weights: Weights) -> bool:
    """Return whether there is an int8 file of these weights and this CPU has 8-bit dot products.

    A warning is logged if the file is of other weights.
    """
    path = int8_path(weights)
    if not path.is_file() or not has_int8_dot():
        return False
    if weights.sha256.encode() in path.read_bytes():   # in its metadata, which every library reads differently
        return True
    logging.getLogger(__name__).warning('%s is damaged or of other weights and is not used; make it again with: %s',
                                        path, make_command(weights, 'int8'))
    return False

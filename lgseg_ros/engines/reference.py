"""Expected masks of the self-test at sizes that the weights do not store, by ONNX Runtime in fp32."""

import hashlib
from contextlib import suppress

import numpy as np
import numpy.typing as npt

from ..model.weights import Weights, WeightsError
from ..utils.paths import cache_folder
from .cache_key import cache_key
from .onnxruntime_engine import OnnxRuntimeEngine
from .preprocessing import Mask, Size
from .self_test_data import GoldenData, mask_tensors, read_masks, read_tensors, write_tensors


def compute_expected(weights: Weights, golden: GoldenData, size: Size, image: npt.NDArray[np.uint8],
                     num_threads: int) -> tuple[Mask, ...]:
    """Compute the expected masks at a size that is not stored, with ONNX Runtime in fp32.

    ONNX Runtime must pass the stored self-test before. The masks are kept in the user's cache.

    Args:
        weights: from `load_weights`.
        golden: their golden data.
        size: (height, width) of the network's image.
        image: RGB, uint8 [*size, 3].
        num_threads: of ONNX Runtime, 0 for all cores.

    Returns:
        A mask for each vocabulary that is tested at this size.

    Raises:
        WeightsError: the ONNX file is missing, damaged or of other weights.
        SelfTestError: ONNX Runtime fails its self-test.
        ImportError: ONNX Runtime is not installed.
    """
    key = cache_key({'golden': golden.digest, 'size': size, 'image': _digest(image)})
    path = cache_folder() / 'self_test' / f'{weights.path.stem}-{size[0]}x{size[1]}-{key}.safetensors'
    try:
        tensors, _ = read_tensors(path, weights.path, weights.sha256)
        if masks := read_masks(tensors, size, path):
            return masks
    except (WeightsError, ValueError):   # missing or damaged: compute them again
        pass
    engine = OnnxRuntimeEngine(weights, num_threads, precision='fp32')
    masks = tuple(engine.infer(image[None], vocabulary)[0] for vocabulary in golden.vocabularies_at(size))
    with suppress(OSError):   # a cache that cannot be written only costs time
        write_tensors(path, mask_tensors(size, list(masks)), {'weights_sha256': weights.sha256})
    return masks


def _digest(image: npt.NDArray[np.uint8]) -> str:
    return hashlib.sha256(image.tobytes()).hexdigest()

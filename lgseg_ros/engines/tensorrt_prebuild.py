"""Build the TensorRT engine of weights ahead of time, so that a node that starts later finds it in the cache."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..model.weights import Weights
from .engine_cache import engine_folder, rejection_reason
from .errors import EngineError
from .preprocessing import DEFAULT_PIXELS, SMALLEST
from .tensorrt_build import EngineShapes, Progress, built_shapes, load_tensorrt_engine
from .tensorrt_engine import TensorRTEngine, identify

MAX_BATCH_LIMIT = 64
"""Images per batch; the working memory of all of them is allocated."""


@dataclass(frozen=True)
class PrebuiltEngine:
    """An engine in the cache.

    Attributes:
        path: the file.
        size_bytes: size of the engine.
        existed: whether it was in the cache already and was not built again.
        notes: what the builder noted: 'shapes' as of `EngineShapes`, and 'seconds' that the build took.
        identity: what it was built for: weights, TensorRT, GPU, precision.
    """

    path: Path
    size_bytes: int
    existed: bool
    notes: Mapping[str, Any]
    identity: Mapping[str, Any]


def prebuild_engine(weights: Weights, precision: str = 'fp16', max_inference_pixels: int = DEFAULT_PIXELS,
                    size: tuple[int, int] | None = None, max_batch: int | None = None, force: bool = False,
                    progress: Progress | None = None) -> PrebuiltEngine:
    """Build an engine for this machine's GPU, which takes minutes, unless a suitable one is in the cache.

    Args:
        weights: the trained weights.
        precision: 'fp16' or 'fp32'.
        max_inference_pixels: pixels of the image that the network sees.
        size: (width, height) of the camera's images, which the engine is optimized for; other sizes run too. None: that
            of the engine in the cache, else 640x480.
        max_batch: most images per batch, 1 to 64. None: that of the engine in the cache, else 4.
        force: build even if there is a suitable engine.
        progress: reports the build.

    Returns:
        The engine in the cache.

    Raises:
        ValueError: a number is out of range.
        EngineError: TensorRT cannot build here.
    """
    check_numbers(max_inference_pixels, max_batch)
    reason = TensorRTEngine.unavailable(precision)
    if reason:
        raise EngineError(f'cannot build here: {reason}')
    identity = identify(weights, max_inference_pixels, precision)
    path, built = engine_folder() / identity.file_name, built_shapes(identity)
    shapes = EngineShapes((size[1], size[0]) if size else built.size, max_batch or built.max_batch)
    force = force or shapes != built
    existed = not force and rejection_reason(path, identity) is None
    stored = load_tensorrt_engine(weights, identity, shapes, force, progress)
    return PrebuiltEngine(path, len(stored.engine), existed, stored.notes, stored.identity)


def check_numbers(max_inference_pixels: int, max_batch: int | None) -> None:
    """Raise ValueError for a number that is out of range; it names the argument."""
    if max_inference_pixels < SMALLEST ** 2:
        raise ValueError(f'max_inference_pixels is {max_inference_pixels}; give at least {SMALLEST ** 2}')
    if max_batch is not None and not 1 <= max_batch <= MAX_BATCH_LIMIT:
        raise ValueError(f'max_batch is {max_batch}; give 1 to {MAX_BATCH_LIMIT}')

"""Builds a TensorRT engine from the network file, with the same calls for TensorRT 10.3 to 11."""

import math
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from ..model.graph_interface import CLASS_IDS_INPUT, FRAMES_INPUT, TEXT_EMBEDDINGS_INPUT
from ..model.weights import Weights
from ..utils.atomic_write import atomic_write
from ..vocabulary.classes import MAX_PHRASES
from .engine_cache import (
    DamagedEngineError,
    EngineIdentity,
    Notes,
    StoredEngine,
    engine_folder,
    load_or_build,
    read_header,
)
from .errors import EngineError
from .preprocessing import SMALLEST, STEP, network_size
from .tensorrt_network import find_network, make_network

MAX_ASPECT_RATIO = 2.4
"""Width by height of the widest images that every engine accepts without squeezing them; the narrowest are square."""

OPT_PHRASES = 16
"""Number of text embeddings that the kernels are optimized for."""

MAX_BATCH = 4
"""Images per batch that an engine accepts by default."""

WORKSPACE_BYTES = 1 << 30
"""Limit of the kernels' workspace; more is seldom used, and a Jetson shares its memory with everything else."""

Profile = dict[str, tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]]
"""TensorRT's optimization profile: (min, opt, max) shape by input."""

Progress = Callable[[str, int, int], object]
"""Called with (phase, finished steps, number of steps): first with 0 finished steps, last with all. TensorRT calls it
from several threads."""


class EngineShapes(NamedTuple):
    """The shapes that an engine is built for.

    They are no part of its `EngineIdentity`: an engine in the cache serves until other shapes are asked for.

    Attributes:
        size: (height, width) of the camera images that it is optimized for.
        max_batch: most images per batch.
    """

    size: tuple[int, int] = (480, 640)
    max_batch: int = MAX_BATCH


def built_shapes(identity: EngineIdentity) -> EngineShapes:
    """Return the shapes of the engine in the cache, also of a stale one; the default ones where there is none."""
    try:
        shapes = read_header(engine_folder() / identity.file_name).notes['shapes']
        height, width = shapes['size']
        return EngineShapes((height, width), shapes['max_batch'])
    except (OSError, DamagedEngineError, KeyError, TypeError, ValueError):
        return EngineShapes()


def load_tensorrt_engine(weights: Weights, identity: EngineIdentity, shapes: EngineShapes | None = None,
                         force: bool = False, progress: Progress | None = None) -> StoredEngine:
    """Return an engine from the cache, or build it now, which takes minutes.

    Args:
        weights: from `load_weights`.
        identity: what the engine is needed for.
        shapes: to build for; None for those of `built_shapes`.
        force: build even if there is a usable engine.
        progress: reports the build.

    Raises:
        EngineError: TensorRT cannot build it; the message names the reason.
    """
    shapes = shapes or built_shapes(identity)

    def build() -> tuple[bytes, Notes]:
        folder = engine_folder()
        network = read_network(weights, identity.precision, folder)
        began = time.monotonic()
        engine = build_engine(network, profile_shapes(identity.max_inference_pixels, shapes, weights),
                              folder / f'timing-{identity.gpu_name}.cache', progress)
        return engine, {'shapes': shapes._asdict(), 'seconds': round(time.monotonic() - began, 1)}
    return load_or_build(identity, build, force=force)


def read_network(weights: Weights, precision: str, folder: Path) -> bytes:
    """Return the bytes of the network file, which is made and kept in `folder` if it is not found.

    Raises:
        EngineError: the file is not there and cannot be made.
    """
    found = find_network(weights, precision, folder)
    if found:
        return found.read_bytes()
    try:
        return make_network(weights, precision, folder).read_bytes()
    except OSError:   # the folder cannot be written, which `load_or_build` logs
        with tempfile.TemporaryDirectory() as temporary:
            return make_network(weights, precision, temporary).read_bytes()


def profile_shapes(pixels: int, shapes: EngineShapes, weights: Weights) -> Profile:
    """Return the profile for all images up to `MAX_ASPECT_RATIO`, and for those of `shapes`.

    Args:
        pixels: of the image that the network sees.
        shapes: what the engine is built for.
        weights: from `load_weights`.
    """
    def round_up(side: float) -> int:
        return math.ceil(side / STEP) * STEP
    height, width = network_size(*shapes.size, pixels)
    max_height = max(round_up(pixels ** 0.5), height)
    max_width = max(round_up((MAX_ASPECT_RATIO * pixels) ** 0.5), width)
    embed_dim = len(weights.projection[1])
    return {FRAMES_INPUT: ((1, SMALLEST, SMALLEST, 3), (1, height, width, 3),
                           (shapes.max_batch, max_height, max_width, 3)),
            TEXT_EMBEDDINGS_INPUT: ((1, embed_dim), (OPT_PHRASES, embed_dim), (MAX_PHRASES, embed_dim)),
            CLASS_IDS_INPUT: ((1,), (OPT_PHRASES,), (MAX_PHRASES,))}


def build_engine(network: bytes, profile: Profile, timing_path: Path, progress: Progress | None = None) -> bytes:
    """Build an engine for the GPU of this machine.

    Args:
        network: the ONNX file.
        profile: the shapes to build for.
        timing_path: TensorRT's timing cache, which is read and written.
        progress: reports the build.

    Returns:
        The serialized engine.

    Raises:
        EngineError: TensorRT cannot build it; the message names the reason.
    """
    import tensorrt as trt
    logger = make_logger()
    builder = trt.Builder(logger)
    # From TensorRT 11 on networks are always strongly typed, and the flag is accepted and ignored.
    definition = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(definition, logger)
    if not parser.parse(network):
        reasons = '; '.join(parser.get_error(i).desc() for i in range(min(parser.num_errors, 3)))
        raise EngineError(f'TensorRT {trt.__version__} cannot read the network: {reasons}')
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, WORKSPACE_BYTES)
    optimization_profile = builder.create_optimization_profile()
    for name, (min_shape, opt_shape, max_shape) in profile.items():
        optimization_profile.set_shape(name, min_shape, opt_shape, max_shape)
    if config.add_optimization_profile(optimization_profile) < 0:
        raise EngineError(f'TensorRT refuses the shapes {profile}: {logger.reason()}')
    timings = config.create_timing_cache(timing_path.read_bytes() if timing_path.is_file() else b'')
    if timings is None or not config.set_timing_cache(timings, False):   # of another GPU or version: start anew
        config.set_timing_cache(config.create_timing_cache(b''), False)
    monitor = progress and make_monitor(progress)
    if monitor:
        config.progress_monitor = monitor   # held here too: it must outlive the build
    engine = builder.build_serialized_network(definition, config)
    if engine is None:
        raise EngineError(f'TensorRT {trt.__version__} cannot build the engine: {logger.reason()}')
    _write_timings(config.get_timing_cache(), timing_path)
    return bytes(engine)


def _write_timings(timings: Any, path: Path) -> None:
    """Store kernel timings: the next build of a similar network is several times faster. Failure is not an error."""
    try:
        with atomic_write(path) as partial:
            partial.write_bytes(bytes(timings.serialize()))
    except OSError:
        pass


def make_logger() -> Any:
    """Return a TensorRT logger that keeps the errors; its `reason()` is the text for the exception that follows."""
    import tensorrt as trt

    class ErrorLogger(trt.ILogger):  # type: ignore[misc, unused-ignore]  # Any without TensorRT
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
                self.errors.append(message)

        def reason(self) -> str:
            return '; '.join(self.errors[-2:])[:400] or 'it gives no reason'
    return ErrorLogger()


def make_monitor(progress: Progress) -> Any:
    """Return a TensorRT progress monitor that calls `progress`; an interrupt ends the build."""
    import tensorrt as trt

    class ProgressMonitor(trt.IProgressMonitor):  # type: ignore[misc, unused-ignore]  # Any without TensorRT
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.steps: dict[str, int] = {}

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self.steps[phase_name] = num_steps
            progress(phase_name, 0, num_steps)

        def phase_finish(self, phase_name: str) -> None:
            steps = self.steps.pop(phase_name, 0)
            progress(phase_name, steps, steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            try:
                progress(phase_name, step, self.steps.get(phase_name, step))
                return True
            except KeyboardInterrupt:
                return False
    return ProgressMonitor()

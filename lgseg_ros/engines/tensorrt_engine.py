"""The TensorRT engine: one serialized engine (a TensorRT plan) from frame bytes to mask bytes, built once per GPU type.

It needs NVIDIA's tensorrt (10.3 or newer) and cuda-python; see docs/how-to/gpu.md.
"""

import importlib.util
import logging
import shlex
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..model.graph_interface import FRAMES_INPUT
from ..model.weights import DEFAULT_WEIGHTS, Weights
from ..utils.hardware import has_gpu_device
from ..utils.paths import find_share
from ..vocabulary.vocabulary import Vocabulary
from .cuda import Cuda
from .engine_cache import EngineIdentity, engine_folder, rejection_reason
from .errors import EngineError
from .preprocessing import DEFAULT_PIXELS, SMALLEST, Frame, Mask, network_size, to_output
from .reference import compute_expected
from .self_test import SelfTest
from .shape_cache import ShapeCache
from .tensorrt_build import load_tensorrt_engine, make_logger
from .tensorrt_context import TensorRTContext, TensorRTShape
from .tensorrt_network import NETWORK_FORMAT

LOG = logging.getLogger(__name__)

MAX_TENSORRT_CONTEXTS = 4
"""Contexts that are kept; each holds the network's working memory."""


def identify(weights: Weights, pixels: int, precision: str) -> EngineIdentity:
    """Return the identity of the engine that this machine needs.

    Args:
        weights: from `load_weights`.
        pixels: of the image that the network sees.
        precision: 'fp32', 'fp16', or 'auto' for fp16.

    Raises:
        ImportError: TensorRT is not installed.
        EngineError: there is no GPU, or cuda-python is not installed.
    """
    import tensorrt
    cuda = Cuda()
    gpu, capability = cuda.device()
    return EngineIdentity(weights.path.stem, weights.sha256, NETWORK_FORMAT, f'TensorRT {tensorrt.__version__}', gpu,
                          capability, 'fp16' if precision == 'auto' else precision, pixels, cuda.multiprocessors())


def build_command(weights: Weights, pixels: int, precision: str) -> str:
    """Return the `lgseg build-engine` that builds what these need, without the options that are the default."""
    command = ['lgseg', 'build-engine']
    if weights.path != find_share('weights', f'{DEFAULT_WEIGHTS}.safetensors'):
        command += ['--weights', str(weights.path.absolute())]
    if pixels != DEFAULT_PIXELS:
        command += ['--max-inference-pixels', str(pixels)]
    if precision == 'fp32':
        command += ['--precision', precision]
    return shlex.join(command)


class TensorRTEngine:
    """Segments frames with TensorRT. A vocabulary change replaces inputs and never the engine.

    Attributes:
        precision: 'fp16' or 'fp32'.
        pixels: of the image that the network sees.
        batch: the most frames in one run.
        self_test: the comparison with what PyTorch gave in fp32 at export.
    """

    NAME = 'tensorrt'

    @staticmethod
    def unavailable(precision: str = 'auto') -> str | None:
        """Return why this engine cannot work here at `precision`, or None."""
        if importlib.util.find_spec('tensorrt') is None:
            return 'tensorrt is not installed (docs/how-to/gpu.md)'
        if importlib.util.find_spec('cuda') is None:
            return 'cuda-python is not installed (pip install cuda-python)'
        if not has_gpu_device():
            return 'no NVIDIA GPU'
        return 'the TensorRT engine runs fp16 and fp32' if precision == 'int8' else None

    @staticmethod
    def not_ready(weights: Weights, pixels: int, precision: str = 'auto') -> str | None:
        """Return why 'auto' should not take this engine, or None: it is not built, and a build takes minutes."""
        try:
            identity = identify(weights, pixels, precision)
        except (EngineError, ImportError) as error:
            return str(error)
        reason = rejection_reason(engine_folder() / identity.file_name, identity)
        return reason and (f'{reason}; build it once with: {build_command(weights, pixels, precision)}, '
                           'or ask for engine tensorrt by name')

    def __init__(self, weights: Weights, num_threads: int = 0, pixels: int = DEFAULT_PIXELS,
                 precision: str = 'auto') -> None:
        """Load the engine from the cache. If it is not there, build it, which takes minutes.

        The self-test runs in `run` and `warm_up`, at every new network size.

        Args:
            weights: from `load_weights`.
            num_threads: CPU threads of ONNX Runtime where it computes what the self-test expects; 0 for all cores.
            pixels: of the image that the network sees; larger images are downsampled.
            precision: 'fp32', 'fp16', or 'auto' for fp16.

        Raises:
            EngineError: the engine cannot be built or loaded.
            WeightsError: the self-test's file is damaged or was made for other weights.
        """
        self.pixels, self._cuda = pixels, Cuda()
        self._identity = identity = identify(weights, pixels, precision)
        self.precision = identity.precision
        path = engine_folder() / identity.file_name
        reason = rejection_reason(path, identity)
        if reason:
            LOG.warning('TensorRT: %s; building it now, which takes minutes and happens once', reason)
        stored = load_tensorrt_engine(weights, identity)
        try:
            self._load(stored.engine)
        except EngineError as error:   # its digest is right, but it is not for this machine: e.g. another driver
            LOG.warning('TensorRT: %s does not load (%s); building it again', path, error)
            self._load(load_tensorrt_engine(weights, identity, force=True).engine)
        self._stream = self._cuda.new_stream()
        self.self_test = SelfTest(weights, self.NAME, self.precision, num_threads, compute_expected)
        self._tested_sizes: set[tuple[int, int]] = set()   # (height, width) of the network
        self._contexts: ShapeCache[TensorRTShape, TensorRTContext] = ShapeCache(self._create_context,
                                                                                MAX_TENSORRT_CONTEXTS)
        self.batch = self._max_frames_shape[0]
        self._build_command = build_command(weights, pixels, precision)
        self._warned_of_squeezing = False

    def _create_context(self, shape: TensorRTShape) -> TensorRTContext:
        """Return the context of a shape, after the self-test at its network size. Raises SelfTestError."""
        if shape.network not in self._tested_sizes:
            self.self_test.check(shape.network, self._infer)
            self._tested_sizes.add(shape.network)
        return TensorRTContext(self._cuda, self._engine, self._stream, shape)

    def _infer(self, image: npt.NDArray[np.uint8], vocabulary: Vocabulary) -> Mask:
        """Return the mask of an RGB image [H, W, 3] of a network size."""
        shape = TensorRTShape(1, (image.shape[0], image.shape[1]), len(vocabulary.text_embeddings))
        context = TensorRTContext(self._cuda, self._engine, self._stream, shape)
        try:
            ids, confidence = context.run([Frame(image, 'rgb')], vocabulary)
            return Mask(ids[0].copy(), confidence[0].copy())
        finally:
            context.close()

    def _load(self, serialized: bytes) -> None:
        import tensorrt as trt
        self._logger = make_logger()
        self._runtime: Any = trt.Runtime(self._logger)   # must outlive its engine
        self._engine: Any = self._runtime.deserialize_cuda_engine(serialized)
        if self._engine is None:
            raise EngineError(self._logger.reason())
        batch, height, width, _ = self._engine.get_tensor_profile_shape(FRAMES_INPUT, 0)[2]
        self._max_frames_shape: tuple[int, int, int] = int(batch), int(height), int(width)

    def run(self, frames: Sequence[Frame], vocabulary: Vocabulary, size: str | None = None) -> list[Mask]:
        """Segment a batch, of any size; see `FrameEngine.run`."""
        height, width = frames[0].pixels.shape[:2]
        network = self._network_size(height, width)
        target = network if size == 'network' else (height, width)
        max_batch = self._max_frames_shape[0]
        masks: list[Mask] = []
        for first in range(0, len(frames), max_batch):
            part = frames[first:first + max_batch]
            context = self._contexts.get(TensorRTShape(len(part), network, len(vocabulary.text_embeddings)))
            all_ids, all_confidences = context.run(part, vocabulary)
            # Copied: the next frame overwrites the context's buffers, and a resize would copy anyway.
            masks += [to_output(ids.copy(), confidence.copy(), target)
                      for ids, confidence in zip(all_ids, all_confidences, strict=True)]
        return masks

    def _network_size(self, height: int, width: int) -> tuple[int, int]:
        """Return (height, width) of the network for a frame; warns once if it has another shape than the frame."""
        wanted = network_size(height, width, self.pixels)
        size = clamp(wanted, self._max_frames_shape[1:3])
        if size != wanted and not self._warned_of_squeezing:
            self._warned_of_squeezing = True
            LOG.warning('TensorRT: images of %dx%d are squeezed to %dx%d for the network, because the engine was not '
                        'built for this shape; build it with: %s --size %dx%d', width, height, size[1], size[0],
                        self._build_command, width, height)
        return size

    def warm_up(self, vocabulary: Vocabulary, height: int = 480, width: int = 640) -> None:
        """Run once on a gray image, so that the first real one is not slow; see `Engine.warm_up`."""
        self.run([Frame(np.full((height, width, 3), 127, np.uint8), 'bgr')], vocabulary)

    def summary(self) -> str:
        """Return one line for logs."""
        identity = self._identity
        return f'tensorrt ({identity.runtime}, {identity.gpu}, {identity.precision}) with {identity.weights}'

    def close(self) -> None:
        """Release device memory. The engine cannot be used afterwards."""
        self._contexts.clear()
        self._cuda.StreamDestroy(self._stream)
        self._engine = self._runtime = None


def clamp(size: tuple[int, int], largest: tuple[int, int]) -> tuple[int, int]:
    """Limit (height, width) to `SMALLEST` and to the largest that the engine accepts."""
    (height, width), (max_height, max_width) = size, largest
    return min(max(height, SMALLEST), max_height), min(max(width, SMALLEST), max_width)

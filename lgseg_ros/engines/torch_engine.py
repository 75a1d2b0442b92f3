"""The torch engine: PyTorch, on an NVIDIA GPU with one CUDA graph per shape, elsewhere eager.

It needs PyTorch, timm and the .safetensors file, and neither an ONNX file nor a build.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ..model.weights import Weights
from ..vocabulary.vocabulary import Vocabulary
from .errors import EngineError
from .preprocessing import DEFAULT_PIXELS, Frame, Mask, network_size, to_network
from .reference import compute_expected
from .self_test import SelfTest
from .self_test_data import SMALL
from .shape_cache import ShapeCache, bucket

if TYPE_CHECKING:
    from ..model.network import SegmentationNetwork
    from .torch_context import TorchContext, TorchShape

MAX_BATCH = 4
"""Frames that one run may hold on a GPU; each number of them has its own CUDA graph."""


class TorchEngine:
    """Segments frames with PyTorch. A vocabulary change within a bucket of phrases keeps the CUDA graph.

    Attributes:
        device: 'cuda' or 'cpu'.
        precision: 'fp16' or 'fp32'.
        pixels: of the image that the network sees.
        path: the weights file.
        batch: the most frames in one run that it gains by.
        self_test: the comparison with what PyTorch gave in fp32 at export.
    """

    NAME = 'torch'

    @staticmethod
    def unavailable(precision: str = 'auto') -> str | None:
        """Return why this engine cannot work here at `precision`, or None."""
        for package in ('torch', 'timm'):
            if importlib.util.find_spec(package) is None:
                return f'{package} is not installed'
        return 'torch runs fp32 and fp16' if precision == 'int8' else None

    @staticmethod
    def not_ready(weights: Weights, pixels: int, precision: str = 'auto') -> str | None:
        """Return why 'auto' should not take this engine, or None: on a CPU, ONNX Runtime is several times faster."""
        import torch
        return None if torch.cuda.is_available() else 'this PyTorch sees no CUDA device'

    def __init__(self, weights: Weights, num_threads: int = 0, pixels: int = DEFAULT_PIXELS, precision: str = 'auto',
                 device: str = 'auto', use_cuda_graph: bool = True) -> None:
        """Load the network and run the self-test.

        Args:
            weights: from `load_weights`.
            num_threads: CPU threads, 0 for PyTorch's own choice.
            pixels: of the image that the network sees; larger images are downsampled.
            precision: 'fp32', 'fp16', or 'auto' for fp16 on CUDA and fp32 on a CPU.
            device: 'cuda', 'cpu', or 'auto' for CUDA where there is a device.
            use_cuda_graph: False runs eagerly on CUDA too, for comparison.

        Raises:
            ValueError: the weights do not fit their model card.
            EngineError: the device does not run the precision, or (SelfTestError) the masks are not those of the
                weights.
        """
        import torch

        from ..model.weights_file import load_network
        self.device = ('cuda' if torch.cuda.is_available() else 'cpu') if device == 'auto' else device
        self.precision = ('fp16' if self.device == 'cuda' else 'fp32') if precision == 'auto' else precision
        if self.precision == 'fp16' and self.device == 'cpu':
            raise EngineError('torch in fp16 needs a CUDA device; on a CPU it is slower than fp32')
        if num_threads:
            torch.set_num_threads(num_threads)
        self.pixels, self.path = pixels, weights.path
        self.batch = MAX_BATCH if self.device == 'cuda' else 1
        dtype = torch.float16 if self.precision == 'fp16' else torch.float32
        self._model: SegmentationNetwork | None = load_network(weights).to(  # type: ignore[call-overload]
            self.device, dtype, memory_format=torch.channels_last)
        self.self_test = SelfTest(weights, self.NAME, self.precision, num_threads, compute_expected)
        self.self_test.check(SMALL, self._infer)
        self._use_cuda_graph = use_cuda_graph and self.device != 'cpu'
        self._contexts: ShapeCache[TorchShape, TorchContext] = ShapeCache(self._create_context)

    def _network(self) -> SegmentationNetwork:
        if self._model is None:
            raise EngineError('the torch engine is closed; create another one')
        return self._model

    def _infer(self, image: npt.NDArray[np.uint8], vocabulary: Vocabulary) -> Mask:
        """Return the mask of an RGB image [H, W, 3] of a network size, without a CUDA graph."""
        from .torch_context import TorchContext, TorchShape
        height, width = size = image.shape[0], image.shape[1]
        shape = TorchShape(1, (height, width, 3), 'rgb', bucket(len(vocabulary.text_embeddings)), size, size)
        return TorchContext(self._network(), shape, use_cuda_graph=False).run([Frame(image, 'rgb')], vocabulary)[0]

    def _create_context(self, shape: TorchShape) -> TorchContext:
        """Return the context of a shape. One with a CUDA graph has passed the self-test. Raises SelfTestError."""
        from .torch_context import TorchContext
        context = TorchContext(self._network(), shape, self._use_cuda_graph)
        if self._use_cuda_graph:
            self.self_test.check_frames(
                shape.frame[:2], shape.order == 'mono', shape.network, shape.output,
                lambda image, vocabulary: context.run([from_rgb(image, shape.order)] * shape.batch, vocabulary)[0],
                max_phrases=shape.num_phrases)
        return context

    def run(self, frames: Sequence[Frame], vocabulary: Vocabulary, size: str | None = None) -> list[Mask]:
        """Segment a batch; see `FrameEngine.run`."""
        from .torch_context import TorchShape
        frames = _with_one_order(frames)
        pixels, order = frames[0]
        height, width = pixels.shape[:2]
        network = network_size(height, width, self.pixels)
        shape = TorchShape(len(frames), (height, width, pixels.size // (height * width)), order,
                           bucket(len(vocabulary.text_embeddings)), network,
                           network if size == 'network' else (height, width))
        return self._contexts.get(shape).run(frames, vocabulary)

    def warm_up(self, vocabulary: Vocabulary, height: int = 480, width: int = 640) -> None:
        """Run once on a gray image, so that the first real one is not slow; see `Engine.warm_up`."""
        self.run([Frame(np.full((height, width, 3), 127, np.uint8), 'bgr')], vocabulary)

    def summary(self) -> str:
        """Return one line for logs."""
        import torch
        if self.device == 'cpu':
            return f'torch (CPU, fp32, {torch.get_num_threads()} threads) with {self.path.name}'
        return f'torch ({torch.cuda.get_device_name()}, {self.precision}, CUDA graphs) with {self.path.name}'

    def close(self) -> None:
        """Release device memory. The engine cannot be used afterwards."""
        import torch
        self._contexts.clear()
        self._model = None
        if self.device != 'cpu':
            torch.cuda.empty_cache()   # PyTorch would keep it for itself, and another engine may come


def from_rgb(image: npt.NDArray[np.uint8], order: str) -> Frame:
    """Return an RGB image as a frame with another order of channels.

    Args:
        image: uint8 [H, W, 3], RGB; for 'mono' its first channel is taken.
        order: of the frame's channels, as in `Frame`.
    """
    if order == 'mono':
        return Frame(np.ascontiguousarray(image[..., :1]), order)
    channels: npt.NDArray[np.uint8] = image[..., ::-1] if order.startswith('bgr') else image
    if order.endswith('a'):
        channels = np.dstack([channels, np.full(image.shape[:2], 255, np.uint8)])
    return Frame(np.ascontiguousarray(channels), order)


def _with_one_order(frames: Sequence[Frame]) -> Sequence[Frame]:
    """Return the frames, converted to RGB where the orders of their channels differ."""
    if len({frame.order for frame in frames}) == 1:
        return frames
    return [Frame(to_network(frame, frame.pixels.shape[:2]), 'rgb') for frame in frames]

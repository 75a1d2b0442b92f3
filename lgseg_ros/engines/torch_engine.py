"""The torch engine: on an NVIDIA GPU one captured graph from the camera's bytes to the mask's; elsewhere eager.

Needs PyTorch, timm and the .safetensors file, and neither an ONNX file nor a build.
"""

import importlib.util
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ..vocabulary.vocabulary import Vocabulary
from .preprocessing import DEFAULT_PIXELS, Frame, Mask, network_size, to_network
from .gpu import EngineError
from .shape_cache import ShapeCache, bucket
from .resize import linear_matrix, nearest_indices, shrinking_matrices
from .self_test import SelfTest
from .self_test_data import SMALL

CHANNELS = {'bgr': (2, 1, 0), 'bgra': (2, 1, 0), 'rgb': (0, 1, 2), 'rgba': (0, 1, 2), 'mono': (0, 0, 0)}
BATCH = 4      # pictures that one run may hold: each number of them has its own graph
WARM_UPS = 3   # eager runs before a capture: libraries allocate and choose their kernels in the first ones


class Shape(NamedTuple):
    """All that a captured graph is fixed to."""

    batch: int
    frame: tuple     # (height, width, channels)
    order: str       # of the channels, as in Frame
    num_phrases: int        # a bucket
    network: tuple   # (height, width)
    output: tuple    # (height, width)


class TorchEngine:
    """Segments frames with the torch network; a change of words within a bucket keeps the captured graph."""

    NAME = 'torch'

    @staticmethod
    def unavailable(precision='auto'):
        """Why this engine cannot work here at `precision`, or None."""
        for package in ('torch', 'timm'):
            if importlib.util.find_spec(package) is None:
                return f'{package} is not installed'
        return 'torch runs fp32 and fp16' if precision == 'int8' else None

    @staticmethod
    def not_ready(weights, pixels, precision='auto'):
        """Why 'auto' should pass this engine over: on a CPU, ONNX Runtime does the same several times faster."""
        import torch
        return None if torch.cuda.is_available() else 'this PyTorch sees no CUDA device'

    def __init__(self, weights, num_threads=0, pixels=DEFAULT_PIXELS, precision='auto', device='auto',
                 graph=True):
        """weights: from `load_weights`; threads: of the CPU, 0 for torch's own choice; pixels: network size in all;
        precision: auto is fp16 on CUDA, fp32 on a CPU; device: auto, cpu or cuda; graph: False to run
        eagerly on CUDA too, for comparison.

        Raises ValueError when the weights do not fit their card, EngineError for a precision the device lacks,
        SelfTestError when the masks are not those of the weights.
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
        self.batch = BATCH if self.device == 'cuda' else 1   # most frames in one run that this gains by
        dtype = torch.float16 if self.precision == 'fp16' else torch.float32
        self._model = load_network(weights).to(self.device, dtype, memory_format=torch.channels_last)
        self.self_test = SelfTest(weights, self.NAME, self.precision, num_threads)
        self.self_test.check(SMALL, self._infer)
        self._captured = graph and self.device != 'cpu'
        self._shape_contexts = ShapeCache(self._make_plan)

    def _infer(self, image: npt.NDArray[np.uint8], vocabulary: Vocabulary) -> Mask:
        """The mask of an RGB image [H, W, 3] of a network size, without a captured graph."""
        size = image.shape[:2]
        plan = ShapeContext(self._model, Shape(1, image.shape, 'rgb', bucket(len(vocabulary.text_embeddings)), size, size), graph=False)
        return plan.run([Frame(image, 'rgb')], vocabulary)[0]

    def _make_plan(self, shape: Shape) -> 'ShapeContext':
        """A `ShapeContext`; one with a captured graph has passed the self-test.  Raises SelfTestError."""
        plan = ShapeContext(self._model, shape, self._captured)
        if self._captured:
            self.self_test.check_frames(
                shape.frame[:2], shape.order == 'mono', shape.network, shape.output,
                lambda image, vocabulary: plan.run([from_rgb(image, shape.order)] * shape.batch, vocabulary)[0],
                max_phrases=shape.num_phrases)
        return plan

    def run(self, frames, vocabulary, size=None):
        """Segment a batch; arguments and result as `OnnxRuntimeEngine.run`."""
        frames = _of_one_order(frames)
        pixels, order = frames[0]
        height, width, channels = *pixels.shape[:2], pixels.size // (pixels.shape[0] * pixels.shape[1])
        network = network_size(height, width, self.pixels)
        shape = Shape(len(frames), (height, width, channels), order, bucket(len(vocabulary.text_embeddings)), network,
                      network if size == 'network' else (height, width))
        return self._shape_contexts.get(shape).run(frames, vocabulary)

    def warm_up(self, vocabulary, height=480, width=640):
        """Run once on a grey frame, so that the first real one is not slow; captures its graph on a GPU."""
        self.run([Frame(np.full((height, width, 3), 127, np.uint8), 'bgr')], vocabulary)

    def summary(self):
        """One line for logs."""
        import torch
        if self.device == 'cpu':
            return f'torch (CPU, fp32, {torch.get_num_threads()} threads) with {self.path.name}'
        return f'torch ({torch.cuda.get_device_name()}, {self.precision}, CUDA graphs) with {self.path.name}'

    def close(self):
        """Give back the device memory; the engine cannot be used afterwards."""
        import torch
        self._shape_contexts.clear()
        self._model = None
        if self.device != 'cpu':
            torch.cuda.empty_cache()   # PyTorch would keep it for itself, and another engine may come


def from_rgb(image: npt.NDArray[np.uint8], order: str) -> Frame:
    """An RGB image [H, W, 3] as a frame whose channels are ordered otherwise; of mono its first channel."""
    if order == 'mono':
        return Frame(np.ascontiguousarray(image[..., :1]), order)
    channels = image[..., ::-1] if order.startswith('bgr') else image
    if order.endswith('a'):
        channels = np.dstack([channels, np.full(image.shape[:2], 255, np.uint8)])
    return Frame(np.ascontiguousarray(channels), order)


class ShapeContext:
    """Buffers for one `Shape` and, on CUDA, the captured graph between them."""

    def __init__(self, model, shape, graph=True):
        import torch
        parameter = next(model.parameters())
        self._torch, self._model, self._shape = torch, model, shape
        device, self._dtype, cuda = parameter.device, parameter.dtype, parameter.is_cuda
        batch, (height, width), rows = shape.batch, shape.output, shape.num_phrases
        # Only page-locked memory is copied without the processor's help.
        self._host_frames = torch.zeros(batch, *shape.frame, dtype=torch.uint8, pin_memory=cuda)
        self._host_masks = torch.zeros(2, batch, height, width, dtype=torch.uint8, pin_memory=cuda)
        self._frames = torch.zeros_like(self._host_frames, device=device)
        self._rows = torch.zeros(rows, model.config.embed_dim, dtype=self._dtype, device=device)
        self._real = torch.zeros(rows, dtype=torch.bool, device=device)
        self._class_ids = torch.zeros(rows, dtype=torch.int64, device=device)
        self._confidence_threshold = torch.zeros((), device=device)
        self._vocabulary_loaded = None   # the Vocabulary that rows, ids and threshold hold
        self._prepare_resizing(device)
        self._recorded = cuda and graph
        self._graph, self._masks = None, None

    def _prepare_resizing(self, device):
        """Constants of the graph; a capture must not copy any from the host."""
        def constant(array):
            return self._torch.as_tensor(array, device=device)
        shape, dtype = self._shape, self._dtype
        self._channels = constant(CHANNELS[shape.order])
        self._shrink = self._enlarge = None
        if shape.frame[:2] != shape.network:
            self._shrink = [constant(m).to(dtype) for m in shrinking_matrices(shape.frame[:2], shape.network)]
        if shape.output != shape.network:
            sides = list(zip(shape.network, shape.output))
            self._nearest = [constant(nearest_indices(*side)) for side in sides]
            self._enlarge = [constant(linear_matrix(*side)) for side in sides]

    def run(self, frames, vocabulary):
        """Frames of this shape -> list of `Mask`."""
        torch = self._torch
        # The device's context: what the model makes without naming a device must not come from the host.
        with torch.inference_mode(), self._frames.device:
            self._load_words(vocabulary)
            for place, frame in zip(self._host_frames.numpy(), frames):
                np.copyto(place, frame.pixels.reshape(place.shape))
            self._frames.copy_(self._host_frames, non_blocking=True)
            if self._recorded:
                if self._graph is None:
                    self._capture()
                self._graph.replay()
            else:
                self._masks = self._forward()
            self._host_masks.copy_(self._masks, non_blocking=True)
            if self._frames.is_cuda:
                torch.cuda.current_stream().synchronize()
        # Copied: the next frame overwrites these buffers.
        return [Mask(ids.copy(), confidence.copy()) for ids, confidence in zip(*self._host_masks.numpy())]

    def _load_words(self, vocabulary):
        """Fill rows, ids and threshold; rows beyond the vocabulary's are masked."""
        if vocabulary is self._vocabulary_loaded:
            return
        count = len(vocabulary.text_embeddings)
        self._rows.zero_()
        self._rows[:count] = self._torch.as_tensor(vocabulary.text_embeddings).to(self._rows)
        self._class_ids[:count] = self._torch.as_tensor(vocabulary.class_ids).to(self._class_ids)
        self._real.zero_()
        self._real[:count] = True
        self._confidence_threshold.fill_(vocabulary.confidence_threshold)
        self._vocabulary_loaded = vocabulary

    def _capture(self):
        """Record `_forward` once, after it has run on another stream, as PyTorch's notes on CUDA graphs ask."""
        torch = self._torch
        with torch.backends.cudnn.flags(enabled=True, benchmark=True):   # shapes are fixed: measure the kernels
            stream = torch.cuda.Stream()
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                for _ in range(WARM_UPS):
                    self._forward()
            torch.cuda.current_stream().wait_stream(stream)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                self._masks = self._forward()
        self._graph = graph

    def _forward(self):
        """From the frame buffer to ids and confidence, uint8 [2, B, height, width]; only shapes that are fixed."""
        from ..model.postprocessing import logits_to_mask
        torch, shape = self._torch, self._shape
        images = self._frames.permute(0, 3, 1, 2).index_select(1, self._channels).to(self._dtype)
        if self._shrink:
            rows, columns = self._shrink
            images = (rows @ images @ columns.T).round()   # the network was trained on whole numbers
        images = (images / 127.5 - 1).contiguous(memory_format=torch.channels_last)
        # Half floats resolve logits to 1/64 at best: what follows decides ties, so it is fp32.
        found = self._model(images, self._rows, self._real.expand(shape.batch, -1))
        ids, confidence = logits_to_mask(found.logits.float(), self._class_ids, self._confidence_threshold, found.upsample_logits,
                                      every_cell=True)
        if self._enlarge:
            (y, x), (rows, columns) = self._nearest, self._enlarge
            ids = ids.index_select(1, y).index_select(2, x)
            confidence = (rows @ confidence.float() @ columns.T + 0.5).to(torch.uint8)
        return torch.stack([ids, confidence])


def _of_one_order(frames):
    """The frames, as RGB where their channels are ordered differently."""
    if len({frame.order for frame in frames}) == 1:
        return frames
    return [Frame(to_network(frame, frame.pixels.shape[:2]), 'rgb') for frame in frames]

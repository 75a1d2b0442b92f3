"""Segmentation at one shape with PyTorch: on an NVIDIA GPU one CUDA graph from frame bytes to mask bytes, else eager.

This module imports torch, so it is itself imported only where the torch engine is used.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from ..model.network import BaseNetwork
from ..model.postprocessing import logits_to_mask
from ..vocabulary.vocabulary import Vocabulary
from .preprocessing import Frame, Mask
from .resize import downscale_matrices, linear_matrix, nearest_indices

CHANNELS = {'bgr': (2, 1, 0), 'bgra': (2, 1, 0), 'rgb': (0, 1, 2), 'rgba': (0, 1, 2), 'mono': (0, 0, 0)}
"""Which channels of a frame are red, green and blue, by the order of its channels."""

CAPTURE_WARMUP_RUNS = 3
"""Eager runs before a capture: in the first ones libraries allocate memory and choose their kernels."""


class TorchShape(NamedTuple):
    """All that a CUDA graph is fixed to.

    Attributes:
        batch: number of frames.
        frame: (height, width, channels) of the frames.
        order: of the channels, as in `Frame`.
        num_phrases: number of text embeddings, padded; one of `shape_cache.BUCKETS`.
        network: (height, width) of the image that the network sees.
        output: (height, width) of the masks.
    """

    batch: int
    frame: tuple[int, int, int]
    order: str
    num_phrases: int
    network: tuple[int, int]
    output: tuple[int, int]


class TorchContext:
    """The buffers for one `TorchShape` and, on CUDA, the graph between them."""

    def __init__(self, model: BaseNetwork, shape: TorchShape, use_cuda_graph: bool = True) -> None:
        """Allocate the buffers. The graph is captured in the first run.

        Args:
            model: the network, on the device and in the precision to use.
            shape: of the frames, the vocabulary and the masks.
            use_cuda_graph: on CUDA, replay a captured graph; False runs eagerly.
        """
        parameter = next(model.parameters())
        self._model, self._shape = model, shape
        self._device, self._dtype, cuda = parameter.device, parameter.dtype, parameter.is_cuda
        batch, (height, width), num_phrases = shape.batch, shape.output, shape.num_phrases
        # Only page-locked memory is copied without the CPU's help.
        self._host_frames = torch.zeros(batch, *shape.frame, dtype=torch.uint8, pin_memory=cuda)
        self._host_masks = torch.zeros(2, batch, height, width, dtype=torch.uint8, pin_memory=cuda)
        self._frames = torch.zeros_like(self._host_frames, device=self._device)
        self._text_embeddings = torch.zeros(num_phrases, model.config.embed_dim, dtype=self._dtype, device=self._device)
        self._is_phrase = torch.zeros(num_phrases, dtype=torch.bool, device=self._device)   # False: padding
        self._class_ids = torch.zeros(num_phrases, dtype=torch.int64, device=self._device)
        self._confidence_threshold = torch.zeros((), device=self._device)
        self._loaded_vocabulary: Vocabulary | None = None   # what these four buffers hold
        self._prepare_resizing()
        self._use_graph = cuda and use_cuda_graph
        self._graph: torch.cuda.CUDAGraph | None = None
        self._masks: torch.Tensor | None = None

    def _prepare_resizing(self) -> None:
        """Upload the constants of the graph; a capture must not copy any from the host."""
        shape = self._shape
        self._channels = self._constant(CHANNELS[shape.order])
        self._downscale: tuple[torch.Tensor, torch.Tensor] | None = None
        self._upscale: tuple[torch.Tensor, torch.Tensor] | None = None
        if shape.frame[:2] != shape.network:
            vertical, horizontal = downscale_matrices(shape.frame[:2], shape.network)
            self._downscale = self._constant(vertical).to(self._dtype), self._constant(horizontal).to(self._dtype)
        if shape.output != shape.network:
            (height, width), (output_height, output_width) = shape.network, shape.output
            self._nearest = (self._constant(nearest_indices(height, output_height)),
                             self._constant(nearest_indices(width, output_width)))
            self._upscale = (self._constant(linear_matrix(height, output_height)),
                             self._constant(linear_matrix(width, output_width)))

    def _constant(self, values: npt.ArrayLike) -> torch.Tensor:
        return torch.as_tensor(values, device=self._device)

    def run(self, frames: Sequence[Frame], vocabulary: Vocabulary) -> list[Mask]:
        """Segment frames.

        Args:
            frames: as many as the shape's batch, each of the shape's size and order.
            vocabulary: of at most the shape's number of phrases.

        Returns:
            A mask of the shape's output size for each frame.
        """
        # With the device as context: what the model creates without naming a device must not be on the host.
        with torch.inference_mode(), self._device:
            self._load_vocabulary(vocabulary)
            for buffer, frame in zip(self._host_frames.numpy(), frames, strict=True):
                np.copyto(buffer, frame.pixels.reshape(buffer.shape))
            self._frames.copy_(self._host_frames, non_blocking=True)
            self._host_masks.copy_(self._replay() if self._use_graph else self._forward(), non_blocking=True)
            if self._frames.is_cuda:
                torch.cuda.current_stream().synchronize()
        # Copied: the next frame overwrites these buffers.
        all_ids, all_confidences = self._host_masks.numpy()
        return [Mask(ids.copy(), confidence.copy()) for ids, confidence in zip(all_ids, all_confidences, strict=True)]

    def _load_vocabulary(self, vocabulary: Vocabulary) -> None:
        """Upload text embeddings, class ids and threshold; the padding is masked."""
        if vocabulary is self._loaded_vocabulary:
            return
        count = len(vocabulary.text_embeddings)
        self._text_embeddings.zero_()
        self._text_embeddings[:count] = torch.as_tensor(vocabulary.text_embeddings).to(self._text_embeddings)
        self._class_ids[:count] = torch.as_tensor(vocabulary.class_ids).to(self._class_ids)
        self._is_phrase.zero_()
        self._is_phrase[:count] = True
        self._confidence_threshold.fill_(vocabulary.confidence_threshold)
        self._loaded_vocabulary = vocabulary

    def _replay(self) -> torch.Tensor:
        """Run the graph, captured now if this is the first time; returns what `_forward` does."""
        if self._graph is None or self._masks is None:
            self._graph, self._masks = self._capture()
        self._graph.replay()
        return self._masks

    def _capture(self) -> tuple[torch.cuda.CUDAGraph, torch.Tensor]:
        """Capture `_forward`, after runs on another stream, as PyTorch's notes on CUDA graphs ask.

        Returns:
            The graph and the tensor that it writes its result to.
        """
        with torch.backends.cudnn.flags(enabled=True, benchmark=True):   # shapes are fixed: measure the kernels
            stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                for _ in range(CAPTURE_WARMUP_RUNS):
                    self._forward()
            torch.cuda.current_stream().wait_stream(stream)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                masks = self._forward()
        return graph, masks

    def _forward(self) -> torch.Tensor:
        """From the frame buffer to ids and confidence, uint8 [2, B, height, width], with fixed shapes only."""
        shape = self._shape
        images = self._frames.permute(0, 3, 1, 2).index_select(1, self._channels).to(self._dtype)
        if self._downscale:
            vertical, horizontal = self._downscale
            images = (vertical @ images @ horizontal.T).round()   # the network was trained on whole numbers
        images = (images / 127.5 - 1).contiguous(memory_format=torch.channels_last)
        output = self._model(images, self._text_embeddings, self._is_phrase.expand(shape.batch, -1))
        # fp16 resolves logits to 1/64 at best. What follows decides ties, so it runs in fp32.
        ids, confidence = logits_to_mask(output.logits.float(), self._class_ids, self._confidence_threshold,
                                         output.upsample_logits, every_cell=True)
        if self._upscale:
            (y, x), (vertical, horizontal) = self._nearest, self._upscale
            ids = ids.index_select(1, y).index_select(2, x)
            confidence = (vertical @ confidence.float() @ horizontal.T + 0.5).to(torch.uint8)
        return torch.stack([ids, confidence])

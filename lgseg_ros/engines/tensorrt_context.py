"""Inference at one shape with a TensorRT engine: buffers, an execution context and a CUDA graph."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..model.graph_interface import (
    CLASS_IDS_INPUT,
    CONFIDENCE_OUTPUT,
    CONFIDENCE_THRESHOLD_INPUT,
    FRAMES_INPUT,
    IDS_OUTPUT,
    TEXT_EMBEDDINGS_INPUT,
)
from ..vocabulary.vocabulary import Vocabulary
from .cuda import Cuda, DeviceBuffer
from .errors import EngineError
from .preprocessing import Frame, to_network

LOG = logging.getLogger(__name__)

SHAPED_INPUTS = (FRAMES_INPUT, TEXT_EMBEDDINGS_INPUT, CLASS_IDS_INPUT)
"""The inputs with dynamic dimensions; the confidence threshold is a scalar."""


class TensorRTShape(NamedTuple):
    """All that a CUDA graph is fixed to.

    Attributes:
        batch: number of frames.
        network: (height, width) of the image that the network sees.
        num_phrases: number of text embeddings.
    """

    batch: int
    network: tuple[int, int]
    num_phrases: int


class TensorRTContext:
    """The buffers, the execution context and the CUDA graph for one `TensorRTShape`."""

    def __init__(self, cuda: Cuda, engine: Any, stream: Any, shape: TensorRTShape) -> None:
        """Allocate the buffers. The graph is captured after the first run.

        Args:
            cuda: the CUDA runtime.
            engine: a TensorRT ICudaEngine, which must outlive the context.
            stream: a CUDA stream.
            shape: of the frames and the vocabulary.

        Raises:
            EngineError: there is not enough memory, or the engine does not accept the shape.
        """
        self._cuda, self._stream = cuda, stream
        self._graph: Any = None
        self._can_capture = True   # some layers of TensorRT cannot be captured
        self._loaded_vocabulary: Vocabulary | None = None   # what the buffers hold
        self._context: Any = None
        self._buffers: dict[str, DeviceBuffer] = {}
        embed_dim = int(engine.get_tensor_shape(TEXT_EMBEDDINGS_INPUT)[1])
        try:
            for name, (dims, dtype) in _buffer_specs(shape, embed_dim).items():
                self._buffers[name] = DeviceBuffer(cuda, dims, dtype)
            self._context = engine.create_execution_context()
            if self._context is None:
                raise EngineError('TensorRT creates no execution context: not enough memory on the GPU')
            for name, buffer in self._buffers.items():
                if name in SHAPED_INPUTS and not self._context.set_input_shape(name, buffer.shape):
                    raise EngineError(f'the engine does not accept {name} of shape {buffer.shape}')
                self._context.set_tensor_address(name, buffer.device)
        except EngineError:
            self.close()
            raise

    def run(self, frames: Sequence[Frame],
            vocabulary: Vocabulary) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
        """Segment frames.

        Args:
            frames: as many as the shape's batch; resized on the CPU.
            vocabulary: with the shape's number of phrases.

        Returns:
            Ids and confidence, uint8 [B, height, width] of the network size; valid until the next call.

        Raises:
            EngineError: CUDA or TensorRT fails.
        """
        frame_buffer, ids, confidence = (self._buffers[name] for name in (FRAMES_INPUT, IDS_OUTPUT, CONFIDENCE_OUTPUT))
        for target, frame in zip(frame_buffer.host, frames, strict=True):
            np.copyto(target, to_network(frame, target.shape[:2]))
        if vocabulary is not self._loaded_vocabulary:
            self._upload_vocabulary(vocabulary)
        frame_buffer.upload(self._stream)
        self._launch()
        ids.download(self._stream)
        confidence.download(self._stream)
        self._cuda.StreamSynchronize(self._stream)
        return ids.host, confidence.host

    def _upload_vocabulary(self, vocabulary: Vocabulary) -> None:
        inputs: Mapping[str, npt.ArrayLike] = {
            TEXT_EMBEDDINGS_INPUT: vocabulary.text_embeddings, CLASS_IDS_INPUT: vocabulary.class_ids,
            CONFIDENCE_THRESHOLD_INPUT: vocabulary.confidence_threshold}
        for name, value in inputs.items():
            self._buffers[name].host[...] = value
            self._buffers[name].upload(self._stream)
        self._loaded_vocabulary = vocabulary

    def _launch(self) -> None:
        """Send the network to the stream.

        The first run is eager: in it TensorRT settles what the shape fixes. The later ones replay a CUDA graph, which
        saves the launches of some hundred kernels.
        """
        if self._graph is not None:
            self._cuda.GraphLaunch(self._graph, self._stream)
            return
        self._enqueue()
        if self._can_capture:
            self._capture()

    def _capture(self) -> None:
        self._cuda.StreamSynchronize(self._stream)
        try:
            self._graph = self._cuda.capture(self._stream, self._enqueue)
        except EngineError as error:
            LOG.warning('TensorRT: runs without a CUDA graph, somewhat slower: %s', error)
            self._can_capture = False

    def _enqueue(self) -> None:
        if not self._context.execute_async_v3(int(self._stream)):
            raise EngineError('TensorRT refuses to run the network')

    def close(self) -> None:
        """Release the graph, the execution context and the buffers."""
        if self._graph is not None:
            self._cuda.GraphExecDestroy(self._graph)
        self._graph = self._context = None
        for buffer in self._buffers.values():
            buffer.close()


def _buffer_specs(shape: TensorRTShape, embed_dim: int) -> dict[str, tuple[tuple[int, ...], type[np.generic]]]:
    """Return shape and dtype of each input and output of the network."""
    batch, size, num_phrases = shape
    return {FRAMES_INPUT: ((batch, *size, 3), np.uint8),
            TEXT_EMBEDDINGS_INPUT: ((num_phrases, embed_dim), np.float32),
            CLASS_IDS_INPUT: ((num_phrases,), np.int64),
            CONFIDENCE_THRESHOLD_INPUT: ((), np.float32),
            IDS_OUTPUT: ((batch, *size), np.uint8),
            CONFIDENCE_OUTPUT: ((batch, *size), np.uint8)}

"""The TensorRT engine: from the network's bytes to mask bytes in one engine, which is built once for each kind of GPU.

Needs NVIDIA's tensorrt (10.3 or newer) and cuda-python; see docs/how-to/gpu.md.
"""

import importlib.util
import logging
import shlex
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ..utils.paths import find_share
from ..vocabulary.vocabulary import Vocabulary
from .engine_cache import Identity, engine_folder, why_not
from .preprocessing import DEFAULT_PIXELS, SMALLEST, Frame, Mask, network_size, to_network, to_output
from .gpu import EngineError, has_gpu_device
from .shape_cache import ShapeCache
from .self_test import SelfTest
from .tensorrt_network import FORMAT
from .weights import DEFAULT_WEIGHTS

LOG = logging.getLogger(__name__)
MAX_SHAPE_CONTEXTS = 4   # each holds the network's working memory
PLAIN = 'plain'  # in place of a graph that cannot be recorded


class Shape(NamedTuple):
    """All that a captured graph is fixed to."""

    batch: int
    network: tuple   # (height, width)
    num_phrases: int


def identify(weights, pixels, precision):
    """The `Identity` of the engine that this machine needs.  Raises EngineError without a GPU or cuda-python."""
    import tensorrt

    from .cuda import Cuda
    cuda = Cuda()
    gpu, capability = cuda.device()
    return Identity(weights.path.stem, weights.sha256, FORMAT, f'TensorRT {tensorrt.__version__}', gpu, capability,
                    'fp16' if precision == 'auto' else precision, pixels, cuda.multiprocessors())


def build_command(weights, pixels, precision):
    """The `lgseg build-engine` that builds what these need, without what is its default."""
    command = ['lgseg', 'build-engine']
    if weights.path != find_share('weights', f'{DEFAULT_WEIGHTS}.safetensors'):
        command += ['--weights', str(weights.path.absolute())]
    if pixels != DEFAULT_PIXELS:
        command += ['--max-inference-pixels', str(pixels)]
    if precision == 'fp32':
        command += ['--precision', precision]
    return shlex.join(command)


class TensorRTEngine:
    """Segments frames with a TensorRT engine; a change of words changes its inputs and never the engine."""

    NAME = 'tensorrt'

    @staticmethod
    def unavailable(precision='auto'):
        """Why this engine cannot work here at `precision`, or None."""
        if importlib.util.find_spec('tensorrt') is None:
            return 'tensorrt is not installed (docs/how-to/gpu.md)'
        if importlib.util.find_spec('cuda') is None:
            return 'cuda-python is not installed (pip install cuda-python)'
        if not has_gpu_device():
            return 'no NVIDIA GPU'
        return 'the TensorRT engine runs fp16 and fp32' if precision == 'int8' else None

    @staticmethod
    def not_ready(weights, pixels, precision='auto'):
        """Why 'auto' should not wait for this engine: a build takes minutes, and is for `lgseg build-engine`."""
        try:
            identity = identify(weights, pixels, precision)
        except (EngineError, ImportError) as error:
            return str(error)
        reason = why_not(engine_folder() / identity.file_name, identity)
        return reason and (f'{reason}; build it once with: {build_command(weights, pixels, precision)}, '
                           'or ask for engine tensorrt by name')

    def __init__(self, weights, num_threads=0, pixels=DEFAULT_PIXELS, precision='auto'):
        """weights: from `load_weights`; threads: not used; pixels: network size in all; precision: auto is fp16.

        Builds the engine where the cache has none, which takes minutes.  Raises EngineError with the reason.  `run` and
        `warm_up` raise SelfTestError when its masks are not those of the weights.
        """
        from .cuda import Cuda
        from .tensorrt_build import load_tensorrt_engine
        self.pixels, self._cuda = pixels, Cuda()
        self._identity = identity = identify(weights, pixels, precision)
        self.precision = identity.precision
        path = engine_folder() / identity.file_name
        reason = why_not(path, identity)
        if reason:
            LOG.warning('TensorRT: %s; building it now, which takes minutes and happens once', reason)
        stored = load_tensorrt_engine(weights, identity)
        try:
            self._load(stored.engine)
        except EngineError as error:   # whole by its digest, and yet not of this machine: a driver was changed, say
            LOG.warning('TensorRT: %s does not load (%s); building it again', path, error)
            self._load(load_tensorrt_engine(weights, identity, again=True).engine)
        self._stream = self._cuda.new_stream()
        self.self_test = SelfTest(weights, self.NAME, self.precision, num_threads)
        self._tested = set()   # network sizes
        self._shape_contexts = ShapeCache(self._make_plan, MAX_SHAPE_CONTEXTS)
        self.batch = self._largest[0]   # most frames in one run
        self._build_command = build_command(weights, pixels, precision)
        self._said_clamped = False

    def _make_plan(self, shape: Shape) -> 'ShapeContext':
        """A `ShapeContext`, once the engine has passed the self-test at its network size.  Raises SelfTestError."""
        if shape.network not in self._tested:
            self.self_test.check(shape.network, self._infer)
            self._tested.add(shape.network)
        return ShapeContext(self._cuda, self._engine, self._stream, shape)

    def _infer(self, image: npt.NDArray[np.uint8], vocabulary: Vocabulary) -> Mask:
        """The mask of an RGB image [H, W, 3] of a network size."""
        plan = ShapeContext(self._cuda, self._engine, self._stream, Shape(1, image.shape[:2], len(vocabulary.text_embeddings)))
        try:
            ids, confidence = plan.run([Frame(image, 'rgb')], vocabulary)
            return Mask(ids[0].copy(), confidence[0].copy())
        finally:
            plan.close()

    def _load(self, serialized):
        import tensorrt as trt

        from .tensorrt_build import make_logger
        self._logger = make_logger()
        self._runtime = trt.Runtime(self._logger)   # must live as long as its engine
        self._engine = self._runtime.deserialize_cuda_engine(serialized)
        if self._engine is None:
            raise EngineError(self._logger.reason())
        self._largest = tuple(self._engine.get_tensor_profile_shape('frames', 0)[2])   # (batch, height, width, 3)

    def run(self, frames, vocabulary, size=None):
        """Segment a batch; arguments and result as `OnnxRuntimeEngine.run`."""
        height, width = frames[0].pixels.shape[:2]
        network = self._network_size(height, width)
        target = network if size == 'network' else (height, width)
        most, masks = self._largest[0], []
        for first in range(0, len(frames), most):
            part = frames[first:first + most]
            plan = self._shape_contexts.get(Shape(len(part), network, len(vocabulary.text_embeddings)))
            ids, confidence = plan.run(part, vocabulary)
            # Copied: the next frame overwrites the plan's buffers, and a resize would copy anyway.
            masks += [to_output(i.copy(), c.copy(), target) for i, c in zip(ids, confidence)]
        return masks

    def _network_size(self, height, width):
        wanted = network_size(height, width, self.pixels)
        size = clamp(wanted, self._largest[1:3])
        if size != wanted and not self._said_clamped:
            self._said_clamped = True
            LOG.warning('TensorRT: pictures of %dx%d are squeezed to %dx%d for the network, because the engine was not '
                        'built for this shape; build it with: %s --size %dx%d', width, height, size[1], size[0],
                        self._build_command, width, height)
        return size

    def warm_up(self, vocabulary, height=480, width=640):
        """Run once on a grey frame, so that the first real one is not slow; captures its graph."""
        self.run([Frame(np.full((height, width, 3), 127, np.uint8), 'bgr')], vocabulary)

    def summary(self):
        """One line for logs."""
        identity = self._identity
        return f'tensorrt ({identity.runtime}, {identity.gpu}, {identity.precision}) with {identity.weights}'

    def close(self):
        """Give back the device memory; the engine cannot be used afterwards."""
        self._shape_contexts.clear()
        self._cuda.StreamDestroy(self._stream)
        self._engine = self._runtime = None


def clamp(size, largest):
    """(height, width) within what the engine takes."""
    return tuple(min(max(side, SMALLEST), most) for side, most in zip(size, largest))


class ShapeContext:
    """Buffers, an execution context and the captured graph for one `Shape`."""

    def __init__(self, cuda, engine, stream, shape):
        from .cuda import Buffer
        self._cuda, self._stream, self._graph, self._vocabulary_loaded = cuda, stream, None, None
        batch, size, rows = shape
        dim = engine.get_tensor_shape('rows')[1]
        specs = {'frames': ((batch, *size, 3), np.uint8), 'rows': ((rows, dim), np.float32),
                 'row_ids': ((rows,), np.int64), 'threshold': ((), np.float32),
                 'ids': ((batch, *size), np.uint8), 'confidence': ((batch, *size), np.uint8)}
        self._buffers = {}
        try:
            for name, (dims, dtype) in specs.items():
                self._buffers[name] = Buffer(cuda, dims, dtype)
            self._context = engine.create_execution_context()
            if self._context is None:
                raise EngineError('TensorRT gives no execution context: not enough memory on the GPU')
            for name, buffer in self._buffers.items():
                if name in ('frames', 'rows', 'row_ids') and not self._context.set_input_shape(name, buffer.shape):
                    raise EngineError(f'the engine does not take {name} of shape {buffer.shape}')
                self._context.set_tensor_address(name, buffer.device)
        except EngineError:
            self.close()
            raise

    def run(self, frames, vocabulary):
        """Frames of this shape -> ids and confidence, uint8 [B, h, w], valid until the next call."""
        buffers, stream = self._buffers, self._stream
        for place, frame in zip(buffers['frames'].host, frames):
            np.copyto(place, to_network(frame, place.shape[:2]))
        if vocabulary is not self._vocabulary_loaded:
            self._upload_words(vocabulary)
        buffers['frames'].upload(stream)
        self._launch()
        for name in ('ids', 'confidence'):
            buffers[name].download(stream)
        self._cuda.StreamSynchronize(stream)
        return buffers['ids'].host, buffers['confidence'].host

    def _upload_words(self, vocabulary):
        for name in ('rows', 'row_ids', 'threshold'):
            self._buffers[name].host[...] = getattr(vocabulary, name)
            self._buffers[name].upload(self._stream)
        self._vocabulary_loaded = vocabulary

    def _launch(self):
        """Send the network to the stream: the first time as it is, in which TensorRT settles what the shapes fix; then
        as a recorded graph, which saves the launches of some hundred kernels."""
        if self._graph is None:
            self._enqueue()
            self._capture()
        elif self._graph is PLAIN:
            self._enqueue()
        else:
            self._cuda.GraphLaunch(self._graph, self._stream)

    def _capture(self):
        self._cuda.StreamSynchronize(self._stream)
        try:
            self._graph = self._cuda.capture(self._stream, self._enqueue)
        except EngineError as error:   # TensorRT has layers that cannot be recorded; they run all the same
            LOG.warning('TensorRT: runs without a CUDA graph, somewhat slower: %s', error)
            self._graph = PLAIN

    def _enqueue(self):
        if not self._context.execute_async_v3(int(self._stream)):
            raise EngineError('TensorRT refuses to run the network')

    def close(self):
        """Give everything back."""
        if self._graph is not None and self._graph is not PLAIN:
            self._cuda.GraphExecDestroy(self._graph)
        self._graph = self._context = None
        for buffer in self._buffers.values():
            buffer.close()

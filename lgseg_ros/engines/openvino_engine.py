"""The OpenVINO engine: optional and faster on CPUs of x86-64 and arm64 (pip install openvino)."""

import importlib.util
import platform
from collections import OrderedDict
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ..model.graph_interface import FRAMES_INPUT, OUTPUTS
from ..model.weights import Weights, file_sha256
from ..utils.hardware import has_gpu_device, has_half, has_int8_dot, usable_cores
from ..utils.paths import cache_folder
from ..vocabulary.vocabulary import Vocabulary
from .cache_key import cache_key, cpu_parts, exclusive, remove_files
from .onnx_files import NO_INT8_DOT, check_origin, graph_inputs, has_int8, load_error, onnx_file
from .preprocessing import DEFAULT_PIXELS, Frame, Mask, Size, network_size, to_network, to_output
from .reference import compute_expected
from .self_test import SelfTest, SelfTestError

if TYPE_CHECKING:
    import openvino

MAX_SIZES = 4
"""Compiled graphs that are kept, one per network size."""
NO_HALF = 'this CPU has no half precision (AVX512-BF16 or AMX, or fp16 on arm64)'


class OpenVinoEngine:
    """Segments frames with the exported graph, compiled for each network size; an `Engine`.

    The first frame of a new size waits 1 to 2 s for the compilation. Later starts read it from the user's cache. A
    change of vocabulary needs no compilation.

    Attributes:
        precision: 'fp32', 'fp16' or 'int8'.
        batch: 1; frames are segmented one after the other.
        num_threads: CPU threads.
        path: the ONNX file.
        self_test: the self-test, which runs after every compilation.
    """

    NAME = 'openvino'

    @staticmethod
    def unavailable(precision: str = 'auto') -> str | None:
        """Return why this engine cannot work here at a precision, or None."""
        if importlib.util.find_spec('openvino') is None:
            return 'openvino is not installed (pip install openvino)'
        if precision == 'int8' and not has_int8_dot():
            return NO_INT8_DOT
        return NO_HALF if precision == 'fp16' and not has_half() else None

    @staticmethod
    def not_ready(weights: Weights, pixels: int, precision: str = 'auto') -> str | None:
        """Return why 'auto' should not take this engine: ONNX Runtime has the GPU. Else None."""
        if not has_gpu_device() or importlib.util.find_spec('onnxruntime') is None:
            return None
        import onnxruntime
        cuda = 'CUDAExecutionProvider' in onnxruntime.get_available_providers()
        return 'ONNX Runtime has CUDA here' if cuda else None

    def __init__(self, weights: Weights, num_threads: int = 0, pixels: int = DEFAULT_PIXELS,
                 precision: str = 'auto') -> None:
        """Read the graph.

        Args:
            weights: from `load_weights`.
            num_threads: CPU threads, 0 for all usable cores.
            pixels: of the image that the network sees; larger images are downsampled.
            precision: 'fp32', 'fp16' (bfloat16 on x86-64), 'int8', or 'auto': int8 if its file is there and the CPU is
                fast at it, else fp32.

        Raises:
            WeightsError: the ONNX file is missing, damaged or of other weights.
        """
        import openvino
        if precision == 'auto':
            precision = 'int8' if has_int8(weights) else 'fp32'
        self.pixels, self.num_threads, self.precision = pixels, num_threads or usable_cores(), precision
        self.batch = 1
        self.path = onnx_file(weights, precision)
        self._core, self._file_digest = openvino.Core(), file_sha256(self.path)
        try:
            self._model = self._core.read_model(self.path)
        except Exception as error:   # of whatever kind the ONNX reader raises
            raise load_error(self.path, error, weights, precision) from error
        check_origin(self.path, _weights_sha256(self._model), weights, precision)
        self.self_test = SelfTest(weights, self.NAME, precision, self.num_threads, compute_expected)
        self._requests: OrderedDict[Size, openvino.InferRequest] = OrderedDict()   # by network size, last used last

    def run(self, frames: list[Frame], vocabulary: Vocabulary, size: str | None = None) -> list[Mask]:
        """Segment a batch, one frame after the other; see `Engine.run`."""
        height, width = frames[0].pixels.shape[:2]
        network = network_size(height, width, self.pixels)
        request = self._request(network)
        target = network if size == 'network' else (height, width)
        return [to_output(*_infer(request, to_network(frame, network), vocabulary), target) for frame in frames]

    def warm_up(self, vocabulary: Vocabulary, height: int = 480, width: int = 640) -> None:
        """Compile for a frame size, and run unless the self-test has; see `Engine.warm_up`."""
        tests = len(self.self_test.results)
        self._request(network_size(height, width, self.pixels))
        if len(self.self_test.results) == tests:
            self.run([Frame(np.full((height, width, 3), 127, np.uint8), 'bgr')], vocabulary)

    def summary(self) -> str:
        """Return one line for logs."""
        return f'{self.NAME} (CPU, {self.precision}, {self.num_threads} threads) with {self.path.name}'

    def close(self) -> None:
        """Release the compiled graphs."""
        self._requests.clear()

    def _request(self, network: Size) -> 'openvino.InferRequest':
        """Return the infer request for a network size, compiled on first use; the least recently used is dropped."""
        if network not in self._requests:
            self._requests[network] = self._compile(network)
            if len(self._requests) > MAX_SIZES:
                self._requests.popitem(last=False)
        self._requests.move_to_end(network)
        return self._requests[network]

    def _settings(self) -> dict[str, object]:
        half = 'bf16' if platform.machine() in ('x86_64', 'AMD64') else 'f16'
        return {'INFERENCE_NUM_THREADS': self.num_threads, 'PERFORMANCE_HINT': 'LATENCY',
                'INFERENCE_PRECISION_HINT': half if self.precision == 'fp16' else 'f32',
                # The node's other threads, and DDS, use the same cores.
                'ENABLE_CPU_PINNING': False}

    def _compile(self, network: Size) -> 'openvino.InferRequest':
        """Return an infer request for a network size that has passed the self-test. Raises SelfTestError."""
        # A fixed image size is 10 to 20 % faster. With a free one, the int8 graph's results differ.
        model = self._model.clone()
        model.reshape({FRAMES_INPUT: [1, *network, 3]})
        folder = cache_folder() / 'openvino' / self._cache_name(network)
        try:
            with exclusive(folder):
                request = self._compile_with(model, {'CACHE_DIR': str(folder)})
        except OSError:   # no cache: every start compiles
            request = self._compile_with(model, {})
        try:
            self.self_test.check(network, lambda image, vocabulary: _infer(request, image, vocabulary))
        except SelfTestError as error:
            remove_files(folder)   # the next start must not load it again
            raise SelfTestError(f'{error}; its compile cache {folder} was emptied, so the next start compiles '
                                'again') from error
        return request

    def _compile_with(self, model: 'openvino.Model', more: dict[str, str]) -> 'openvino.InferRequest':
        return self._core.compile_model(model, 'CPU', {**self._settings(), **more}).create_infer_request()

    def _cache_name(self, network: Size) -> str:
        """Return the name of a cache folder that only graphs compiled in exactly this way share."""
        import openvino
        key = cache_key({'library': f'openvino {openvino.get_version()}', 'settings': self._settings(),
                         'onnx_sha256': self._file_digest, 'size': network, **cpu_parts()})
        return f'{self.precision}-{network[0]}x{network[1]}-{key}'


def _infer(request: 'openvino.InferRequest', image: npt.NDArray[np.uint8], vocabulary: Vocabulary) -> Mask:
    """Segment an RGB image, uint8 [H, W, 3], of the size that the request was compiled for."""
    request.infer(graph_inputs(image[None], vocabulary))
    # Copied: the next frame overwrites these buffers.
    ids, confidence = (request.get_tensor(name).data[0].copy() for name in OUTPUTS)
    return Mask(ids, confidence)


def _weights_sha256(model: 'openvino.Model') -> str | None:
    """Return the weights_sha256 in the metadata of an ONNX file, or None."""
    try:
        digest: str = model.get_rt_info(['framework', 'weights_sha256']).astype(str)
    except RuntimeError:
        return None
    return digest

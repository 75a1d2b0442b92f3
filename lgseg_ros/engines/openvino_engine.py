"""The OpenVINO engine: an optional, faster one for CPUs of x86-64 and arm64 (pip install openvino)."""

import importlib.util
import platform
from collections import OrderedDict
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ..utils.paths import cache_folder
from ..vocabulary.vocabulary import Vocabulary
from .cache_key import cache_key, cpu_parts, exclusive, remove_files
from .cpu import has_half, has_int8_dot, usable_cores
from .preprocessing import DEFAULT_PIXELS, Frame, Mask, network_size, to_network, to_output
from .gpu import has_gpu_device
from .onnx_files import NO_INT8_DOT, cannot_load, check_origin, has_int8, onnx_file
from .self_test import SelfTest, SelfTestError
from .self_test_data import Size
from .weights import file_sha256

if TYPE_CHECKING:
    import openvino

MAX_SIZES = 4   # compiled graphs that are kept, one a network size
NO_HALF = 'this CPU has no half precision (AVX512-BF16 or AMX, or fp16 on arm64)'


class OpenVinoEngine:
    """Segments frames with the exported graph, compiled for each network size; words may be of any number.

    A first frame of a new size waits for its compilation, 1 to 2 s, later starts read it from the user's cache.
    """

    NAME = 'openvino'

    @staticmethod
    def unavailable(precision='auto'):
        """Why this engine cannot work here at `precision`, or None."""
        if importlib.util.find_spec('openvino') is None:
            return 'openvino is not installed (pip install openvino)'
        if precision == 'int8' and not has_int8_dot():
            return NO_INT8_DOT
        return NO_HALF if precision == 'fp16' and not has_half() else None

    @staticmethod
    def not_ready(weights, pixels, precision='auto'):
        """Why 'auto' passes it over: where ONNX Runtime has the GPU."""
        if not has_gpu_device() or importlib.util.find_spec('onnxruntime') is None:
            return None
        import onnxruntime
        return 'ONNX Runtime has CUDA here' if 'CUDAExecutionProvider' in onnxruntime.get_available_providers() else None

    def __init__(self, weights, num_threads=0, pixels=DEFAULT_PIXELS, precision='auto'):
        """weights: from `load_weights`; threads: 0 for all usable cores; pixels: network size in all;
        precision: fp16 is bfloat16 on x86-64; auto is int8 where its file is there and the CPU is good at it, else
        fp32.

        Raises WeightsError when the ONNX file is missing, damaged or of other weights.  Each compiled graph is tested
        on its first use: `run` and `warm_up` raise SelfTestError when its masks are not those of the weights.
        """
        import openvino
        if precision == 'auto':
            precision = 'int8' if has_int8(weights) else 'fp32'
        self.pixels, self.num_threads, self.precision = pixels, num_threads or usable_cores(), precision
        self.path = onnx_file(weights, precision)
        self._core, self._file_digest = openvino.Core(), file_sha256(self.path)
        try:
            self._model = self._core.read_model(self.path)
        except Exception as error:   # of whatever kind the ONNX reader raises
            raise cannot_load(self.path, error, weights, precision) from error
        check_origin(self.path, _metadata(self._model), weights, precision)
        self.self_test = SelfTest(weights, self.NAME, precision, self.num_threads)
        self._requests = OrderedDict()   # network size -> infer request, the latest used last

    def run(self, frames, vocabulary, size=None):
        """Segment a batch, one frame after the other; arguments and result as `OnnxRuntimeEngine.run`."""
        height, width = frames[0].pixels.shape[:2]
        net = network_size(height, width, self.pixels)
        request = self._request(net)
        target = net if size == 'network' else (height, width)
        masks = []
        for frame in frames:
            masks.append(to_output(*_infer(request, to_network(frame, net), vocabulary), target))
        return masks

    def warm_up(self, vocabulary, height=480, width=640):
        """Compile for this frame size and run, so that the first real frame is not slow; the self-test is a run."""
        tests = len(self.self_test.results)
        self._request(network_size(height, width, self.pixels))
        if len(self.self_test.results) == tests:
            self.run([Frame(np.full((height, width, 3), 127, np.uint8), 'bgr')], vocabulary)

    def summary(self):
        """One line for logs."""
        return f'{self.NAME} (CPU, {self.precision}, {self.num_threads} threads) with {self.path.name}'

    def _request(self, net):
        """The infer request for a network size, compiled on first use; the one longest unused is dropped."""
        if net not in self._requests:
            self._requests[net] = self._compile(net)
            if len(self._requests) > MAX_SIZES:
                self._requests.popitem(last=False)
        self._requests.move_to_end(net)
        return self._requests[net]

    def _settings(self):
        half = 'bf16' if platform.machine() in ('x86_64', 'AMD64') else 'f16'
        return {'INFERENCE_NUM_THREADS': self.num_threads, 'PERFORMANCE_HINT': 'LATENCY',
                'INFERENCE_PRECISION_HINT': half if self.precision == 'fp16' else 'f32',
                # The node's other threads, and DDS, use the same cores.
                'ENABLE_CPU_PINNING': False}

    def _compile(self, net: Size) -> 'openvino.InferRequest':
        """An infer request for a network size that has passed the self-test.  Raises SelfTestError."""
        # A fixed image is 10 to 20 % faster; and with a free one the 8-bit graph's answers differ.
        model = self._model.clone()
        model.reshape({'frames': [1, *net, 3]})
        folder = cache_folder() / 'openvino' / self._cache_name(net)
        try:
            with exclusive(folder):
                request = self._compile_with(model, {'CACHE_DIR': str(folder)})
        except OSError:   # no cache: every start compiles
            request = self._compile_with(model, {})
        try:
            self.self_test.check(net, lambda image, vocabulary: _infer(request, image, vocabulary))
        except SelfTestError as error:
            remove_files(folder)   # what came of it must not be loaded again
            raise SelfTestError(f'{error}; its compile cache {folder} was emptied, so the next start compiles '
                                'again') from error
        return request

    def _compile_with(self, model: 'openvino.Model', more: dict[str, str]) -> 'openvino.InferRequest':
        return self._core.compile_model(model, 'CPU', {**self._settings(), **more}).create_infer_request()

    def _cache_name(self, net: Size) -> str:
        """The name of a folder that only graphs compiled exactly so may share."""
        import openvino
        key = cache_key({'library': f'openvino {openvino.get_version()}', 'settings': self._settings(),
                         'onnx_sha256': self._file_digest, 'size': net, **cpu_parts()})
        return f'{self.precision}-{net[0]}x{net[1]}-{key}'


def _infer(request: 'openvino.InferRequest', image: npt.NDArray[np.uint8], vocabulary: Vocabulary) -> Mask:
    """The mask of an RGB image uint8 [H, W, 3] of the request's size."""
    request.infer({'frames': image[None], 'rows': vocabulary.text_embeddings, 'row_ids': vocabulary.class_ids,
                   'threshold': np.array(vocabulary.confidence_threshold, np.float32)})
    # Copied: the next frame overwrites these buffers.
    return Mask(*(request.get_tensor(name).data[0].copy() for name in ('ids', 'confidence')))


def _metadata(model):
    """The weights_sha256 of an ONNX file, or None."""
    try:
        return model.get_rt_info(['framework', 'weights_sha256']).astype(str)
    except RuntimeError:
        return None

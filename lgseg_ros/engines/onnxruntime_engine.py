"""The ONNX Runtime engine: for CPUs, and for CUDA where that provider is installed."""

import importlib.util
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ..model.weights import Weights
from ..utils.hardware import has_int8_dot, usable_cores
from ..vocabulary.vocabulary import Vocabulary
from .onnx_files import NO_INT8_DOT, check_origin, graph_inputs, has_int8, load_error, onnx_file
from .preprocessing import DEFAULT_PIXELS, Frame, Mask, network_size, to_network, to_output
from .self_test import SelfTest
from .self_test_data import SMALL

if TYPE_CHECKING:
    import onnxruntime


class OnnxRuntimeEngine:
    """Segments frames with the exported graph; an `Engine`. It keeps no vocabulary between calls.

    Attributes:
        precision: 'fp32' or 'int8'.
        batch: 1; batches are possible and gain nothing on a CPU.
        num_threads: CPU threads.
        path: the ONNX file.
        self_test: the self-test, which has run.
    """

    NAME = 'onnxruntime'

    @staticmethod
    def unavailable(precision: str = 'auto') -> str | None:
        """Return why this engine cannot work here at a precision, or None."""
        if importlib.util.find_spec('onnxruntime') is None:
            return 'onnxruntime is not installed (pip install onnxruntime)'
        if precision == 'int8' and not has_int8_dot():
            return NO_INT8_DOT
        return 'ONNX Runtime runs fp32 and int8' if precision == 'fp16' else None

    @staticmethod
    def not_ready(weights: Weights, pixels: int, precision: str = 'auto') -> str | None:
        """Return None: this engine is always ready."""
        return None

    def __init__(self, weights: Weights, num_threads: int = 0, pixels: int = DEFAULT_PIXELS,
                 precision: str = 'auto') -> None:
        """Load the graph and run its self-test.

        Args:
            weights: from `load_weights`.
            num_threads: CPU threads, 0 for all usable cores.
            pixels: of the image that the network sees; larger images are downsampled.
            precision: 'fp32', 'int8', or 'auto': int8 if its file is there and the CPU is fast at it, else fp32.

        Raises:
            WeightsError: the ONNX file is missing, damaged or of other weights.
            SelfTestError: the masks are not those of the weights.
        """
        import onnxruntime
        providers = _providers(onnxruntime.get_available_providers())
        if precision == 'auto':
            precision = 'int8' if len(providers) == 1 and has_int8(weights) else 'fp32'
        self.pixels, self.num_threads, self.precision = pixels, num_threads or usable_cores(), precision
        self.batch = 1
        self.path = onnx_file(weights, precision)
        try:
            self._session = onnxruntime.InferenceSession(str(self.path), session_options(self.num_threads, precision),
                                                         providers=providers)
        except Exception as error:   # ONNX Runtime has an own kind of error for each kind of damage
            raise load_error(self.path, error, weights, precision) from error
        origin = self._session.get_modelmeta().custom_metadata_map.get('weights_sha256')
        check_origin(self.path, origin, weights, precision)
        self.self_test = SelfTest(weights, self.NAME, precision, self.num_threads)
        # One graph is for images of all sizes, so one test is enough.
        self.self_test.check(SMALL, lambda image, vocabulary: self.infer(image[None], vocabulary)[0])

    def run(self, frames: list[Frame], vocabulary: Vocabulary, size: str | None = None) -> list[Mask]:
        """Segment a batch; see `Engine.run`."""
        height, width = frames[0].pixels.shape[:2]
        network = network_size(height, width, self.pixels)
        target = network if size == 'network' else (height, width)
        masks = self.infer(np.stack([to_network(frame, network) for frame in frames]), vocabulary)
        return [to_output(*mask, target) for mask in masks]

    def infer(self, images: npt.NDArray[np.uint8], vocabulary: Vocabulary) -> list[Mask]:
        """Segment images of a network size.

        Args:
            images: uint8 [B, H, W, 3], RGB; H and W are multiples of 8.
            vocabulary: as in `run`.

        Returns:
            A mask [H, W] for each image.
        """
        ids, confidence = self._session.run(None, graph_inputs(images, vocabulary))
        return [Mask(*pair) for pair in zip(ids, confidence, strict=True)]

    def warm_up(self, vocabulary: Vocabulary, height: int = 480, width: int = 640) -> None:
        """Run once on a gray image; see `Engine.warm_up`."""
        self.run([Frame(np.full((height, width, 3), 127, np.uint8), 'bgr')], vocabulary)

    def summary(self) -> str:
        """Return one line for logs."""
        return (f'{self.NAME} ({self._session.get_providers()[0]}, {self.precision}, {self.num_threads} threads) '
                f'with {self.path.name}')

    def close(self) -> None:
        """Release nothing: the session is released with the object."""


def session_options(num_threads: int, precision: str = 'fp32') -> 'onnxruntime.SessionOptions':
    """Return the settings of ONNX Runtime for a node.

    Args:
        num_threads: CPU threads.
        precision: of the graph, 'fp32' or 'int8'.
    """
    import onnxruntime
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = num_threads
    # Workers that sleep between the operators of one frame cost it 4 to 12 %. Workers that spin on after it would take
    # the cores that DDS and the node need.
    options.add_session_config_entry('session.force_spinning_stop', '1')
    if precision == 'int8' and not has_int8_dot():
        # 8-bit products would saturate here: compute them in fp32 between the same roundings, slow but correct.
        options.add_session_config_entry('session.disable_quant_qdq', '1')
    options.log_severity_level = 3   # errors; its warnings are advice on how to export
    return options


def _providers(available: Sequence[str]) -> list[str]:
    """Return the fastest providers that are installed, the CPU last."""
    order = ('CUDAExecutionProvider', 'CPUExecutionProvider')
    return [name for name in order if name in available]

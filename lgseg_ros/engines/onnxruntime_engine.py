"""The ONNX Runtime engine: the default on a CPU, and on CUDA where that provider is installed."""

import importlib.util

import numpy as np
import numpy.typing as npt

from ..vocabulary.vocabulary import Vocabulary
from .cpu import has_int8_dot, usable_cores
from .preprocessing import DEFAULT_PIXELS, Frame, Mask, network_size, to_network, to_output
from .onnx_files import NO_INT8_DOT, cannot_load, check_origin, has_int8, onnx_file
from .self_test import SelfTest
from .self_test_data import SMALL


class OnnxRuntimeEngine:
    """Segments frames with the exported graph; stateless as to words, which come with every call."""

    NAME = 'onnxruntime'

    @staticmethod
    def unavailable(precision='auto'):
        """Why this engine cannot work here at `precision`, or None."""
        if importlib.util.find_spec('onnxruntime') is None:
            return 'onnxruntime is not installed (pip install onnxruntime)'
        if precision == 'int8' and not has_int8_dot():
            return NO_INT8_DOT
        return 'ONNX Runtime runs fp32 and int8' if precision == 'fp16' else None

    def __init__(self, weights, num_threads=0, pixels=DEFAULT_PIXELS, precision='auto'):
        """weights: from `load_weights`; threads: 0 for all usable cores; pixels: network size in all;
        precision: auto is int8 where its file is there and the CPU is good at it, else fp32.

        Raises WeightsError when the ONNX file is missing, damaged or of other weights, SelfTestError when its masks
        are not those of the weights.
        """
        import onnxruntime
        providers = _providers(onnxruntime.get_available_providers())
        if precision == 'auto':
            precision = 'int8' if len(providers) == 1 and has_int8(weights) else 'fp32'
        self.pixels, self.num_threads, self.precision = pixels, num_threads or usable_cores(), precision
        self.path = onnx_file(weights, precision)
        try:
            self._session = onnxruntime.InferenceSession(str(self.path), session_options(self.num_threads, precision),
                                                         providers=providers)
        except Exception as error:  # ONNX Runtime raises its own kinds for each sort of damage
            raise cannot_load(self.path, error, weights, precision) from error
        made_for = self._session.get_modelmeta().custom_metadata_map.get('weights_sha256')
        check_origin(self.path, made_for, weights, precision)
        self.self_test = SelfTest(weights, self.NAME, precision, self.num_threads)
        # One graph for images of all sizes: one test of it is enough.
        self.self_test.check(SMALL, lambda image, vocabulary: self.infer(image[None], vocabulary)[0])

    def run(self, frames, vocabulary, size=None):
        """Segment a batch.

        frames: list of `Frame`, all of one height and width; vocabulary: `Vocabulary`;
        size: None for masks of the frames' size, 'network' for the network's.
        Returns a list of `Mask`.
        """
        height, width = frames[0].pixels.shape[:2]
        net = network_size(height, width, self.pixels)
        target = net if size == 'network' else (height, width)
        masks = self.infer(np.stack([to_network(frame, net) for frame in frames]), vocabulary)
        return [to_output(*mask, target) for mask in masks]

    def infer(self, images: npt.NDArray[np.uint8], vocabulary: Vocabulary) -> list[Mask]:
        """Masks of RGB images uint8 [B, H, W, 3] of a network size, each of the images' size."""
        ids, confidence = self._session.run(None, {
            'frames': images, 'rows': vocabulary.text_embeddings, 'row_ids': vocabulary.class_ids,
            'threshold': np.array(vocabulary.confidence_threshold, np.float32)})
        return [Mask(*pair) for pair in zip(ids, confidence)]

    def warm_up(self, vocabulary, height=480, width=640):
        """Run once on a grey frame, so that the first real one is not slow."""
        self.run([Frame(np.full((height, width, 3), 127, np.uint8), 'bgr')], vocabulary)

    def summary(self):
        """One line for logs."""
        return (f'{self.NAME} ({self._session.get_providers()[0]}, {self.precision}, {self.num_threads} threads) '
                f'with {self.path.name}')


def session_options(num_threads, precision='fp32'):
    """How ONNX Runtime is to run a network in a node: with so many threads, and without its advice in the log."""
    import onnxruntime
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = num_threads
    # Workers that sleep between the operators of one frame cost it 4 to 12 %; workers that spin on after it would take
    # the cores that DDS and the node need.
    options.add_session_config_entry('session.force_spinning_stop', '1')
    if precision == 'int8' and not has_int8_dot():
        # 8-bit products would saturate here: compute them in fp32 between the same roundings, slow but right.
        options.add_session_config_entry('session.disable_quant_qdq', '1')
    options.log_severity_level = 3
    return options


def _providers(available):
    """The fastest providers that are installed, CPU always last."""
    order = ('CUDAExecutionProvider', 'CPUExecutionProvider')
    return [name for name in order if name in available]

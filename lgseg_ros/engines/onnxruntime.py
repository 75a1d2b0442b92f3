"""The ONNX Runtime engine: the default on a CPU, and on CUDA or TensorRT where its providers are installed."""

import importlib.util
import os

import numpy as np

from .frames import DEFAULT_PIXELS, Frame, network_size, to_network, to_output
from .weights import WeightsError, check_onnx

NAME = 'onnxruntime'


def usable_cores():
    """CPU cores this process may run on (containers and taskset counted)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1


class OnnxRuntimeEngine:
    """Segments frames with the exported graph; stateless as to words, which come with every call."""

    NAME = NAME

    @staticmethod
    def unavailable(precision='auto'):
        """Why this engine cannot work here at `precision`, or None."""
        if importlib.util.find_spec('onnxruntime') is None:
            return 'onnxruntime is not installed (pip install onnxruntime)'
        return None if precision in ('auto', 'fp32') else f'the exported file is fp32, not {precision}'

    def __init__(self, weights, threads=0, pixels=DEFAULT_PIXELS, precision='auto'):
        """weights: from `load_weights`; threads: 0 for all usable cores; pixels: network size in all;
        precision: one that `unavailable` passes.

        Raises WeightsError when the ONNX file is missing, damaged or of other weights.
        """
        import onnxruntime
        self.pixels, self.threads = pixels, threads or usable_cores()
        self.path = check_onnx(weights)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads
        # Spinning workers would take the cores that DDS and the node need between frames.
        options.add_session_config_entry('session.intra_op.allow_spinning', '0')
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(
                str(self.path), options, providers=_providers(onnxruntime.get_available_providers()))
        except Exception as error:  # ONNX Runtime raises its own kinds for each sort of damage
            reason = str(error).splitlines()[0]
            raise WeightsError(f'{self.path} cannot be loaded ({reason}); copy it again, or make it with: '
                               f'lgseg export --weights {weights.path}') from error
        made_for = self._session.get_modelmeta().custom_metadata_map.get('weights_sha256')
        if made_for != weights.sha256:
            raise WeightsError(f'{self.path} was exported from other weights than {weights.path}; '
                               f'make it again with: lgseg export --weights {weights.path}')

    def run(self, frames, vocabulary, size=None):
        """Segment a batch.

        frames: list of `Frame`, all of one height and width; vocabulary: `Vocabulary`;
        size: None for masks of the frames' size, 'network' for the network's.
        Returns a list of `Mask`.
        """
        height, width = frames[0].pixels.shape[:2]
        net = network_size(height, width, self.pixels)
        batch = np.stack([to_network(frame, net) for frame in frames])
        ids, confidence = self._session.run(None, {
            'frames': batch, 'rows': vocabulary.rows, 'row_ids': vocabulary.row_ids,
            'threshold': np.array(vocabulary.threshold, np.float32)})
        target = net if size == 'network' else (height, width)
        return [to_output(*pair, target) for pair in zip(ids, confidence)]

    def warm_up(self, vocabulary, height=480, width=640):
        """Run once on a grey frame, so that the first real one is not slow."""
        self.run([Frame(np.full((height, width, 3), 127, np.uint8), 'bgr')], vocabulary)

    def summary(self):
        """One line for logs."""
        return f'{NAME} ({self._session.get_providers()[0]}, {self.threads} threads) with {self.path.name}'


def _providers(available):
    """The fastest providers that are installed, CPU always last."""
    order = ('CUDAExecutionProvider', 'CPUExecutionProvider')
    return [name for name in order if name in available]

"""Quantize the exported fp32 graph: image convolutions in 8 bits between Quantize/Dequantize pairs.

Weights are quantized per output channel, activations by the range that calibration images give. Each convolution is
quantized together with its activation function: in front of a ReLU6, most of the 256 steps would go to values that it
cuts off. What depends on text embeddings stays in fp32: fusion blocks, cosine similarity, post-processing.
"""

import logging
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from inspect import signature
from itertools import accumulate
from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from ..model.graph_interface import IDS_OUTPUT
from ..model.weights import Weights
from ..utils.atomic_write import atomic_write
from ..utils.hardware import usable_cores
from ..vocabulary.classes import MAX_PHRASES, parse_class
from ..vocabulary.text_embeddings import TextEmbeddings
from ..vocabulary.vocabulary import Vocabulary, VocabularyState
from .onnx_files import graph_inputs
from .onnxruntime_engine import OnnxRuntimeEngine, session_options
from .preprocessing import Frame, network_size, to_network

QUANTIZED_OPS = ('Conv', 'Clip', 'Relu')
FUSION_SCOPE = '/fusion'
"""In the name of every node that combines text and image features."""
MAX_CALIBRATION_PHRASES = 40
"""Phrases of a calibration vocabulary."""

GraphInputs = Mapping[str, npt.NDArray[np.generic]]
"""The graph's inputs for one image, by name."""


class Quantizer:
    """Quantizes with different sets of convolutions left in fp32. Activation ranges are measured once."""

    def __init__(self, weights: Weights, frames: Sequence[Frame], checks: Sequence[Frame], seed: int = 0) -> None:
        """Prepare the inputs.

        Activation ranges are measured with random phrases of the weights, others for every image. Agreement is
        measured with the classes of the training: between random phrases with the same meaning, fp32 itself is
        undecided.

        Args:
            weights: with their fp32 ONNX file.
            frames: images to measure activation ranges on.
            checks: other images, to measure the agreement with fp32 on.
            seed: of the random phrases.

        Raises:
            WeightsError: the fp32 ONNX file is missing, damaged or of other weights.
            SelfTestError: it fails its self-test.
        """
        self.weights, rng = weights, np.random.default_rng(seed)
        self._folder = tempfile.TemporaryDirectory(prefix='lgseg-quantize-')
        self._source = OnnxRuntimeEngine(weights, precision='fp32').path
        self._calibration = [inputs_of(frame, random_vocabulary(weights.text_embeddings, rng)) for frame in frames]
        self._checks = [inputs_of(frame, training_vocabulary(weights)) for frame in checks]

    def __enter__(self) -> 'Quantizer':
        """Return itself; the temporary files are removed at the end of the block."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        """Remove the temporary files."""
        self._folder.cleanup()

    @cached_property
    def convolutions(self) -> list[str]:
        """Names of the convolutions that can be quantized."""
        nodes = onnx.load(self._source).graph.node
        return [node.name for node in nodes if node.op_type == 'Conv' and FUSION_SCOPE not in node.name]

    def quantize(self, keep: Iterable[str] = ()) -> Path:
        """Quantize the graph.

        Args:
            keep: names of convolutions that stay in fp32.

        Returns:
            A temporary file; the next call overwrites it.
        """
        path, options = Path(self._folder.name) / 'candidate.onnx', {}
        if 'calibration_cache_path' in signature(quantize_static).parameters:   # not in 1.23, the last for Python 3.10
            options['calibration_cache_path'] = Path(self._folder.name) / 'ranges.json'
        with _without_advice():
            quantize_static(
                self._source, path, _CalibrationReader(self._calibration), quant_format=QuantFormat.QDQ,
                op_types_to_quantize=list(QUANTIZED_OPS), per_channel=True, activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8, nodes_to_exclude=self._excluded(set(keep)), **options)
        return path

    def agreement(self, path: Path) -> float:
        """Return the share of the check images' pixels that get the id that fp32 gives, 0 to 1.

        Args:
            path: of a quantized file.
        """
        session = _session(path, 'int8')
        same = [np.mean(session.run([IDS_OUTPUT], inputs)[0] == ids)
                for inputs, ids in zip(self._checks, self._reference, strict=True)]
        return float(np.mean(same))

    def sensitivity(self, progress: Callable[[Sequence[str]], Iterable[str]] = iter) -> list[tuple[float, str]]:
        """Measure what each convolution costs if it is the only one that is quantized.

        Args:
            progress: wraps the names, as tqdm does.

        Returns:
            (share of the pixels that change, name), the most sensitive first.
        """
        costs: list[tuple[float, str]] = []
        for name in progress(self.convolutions):
            others = [other for other in self.convolutions if other != name]
            costs.append((1 - self.agreement(self.quantize(others)), name))
        return sorted(costs, reverse=True)

    def save(self, path: Path, target: Path, metadata: Mapping[str, object]) -> None:
        """Write a quantized file, atomically, with the digest of the weights.

        Args:
            path: from `quantize`.
            target: where to write.
            metadata: stored as strings in the file.

        Raises:
            OSError: the file cannot be written.
        """
        graph = onnx.load(path)
        metadata = {**metadata, 'weights_sha256': self.weights.sha256, 'precision': 'int8'}
        onnx.helper.set_model_props(graph, {key: str(value) for key, value in metadata.items()})
        with atomic_write(target) as partial:
            onnx.save(graph, partial)

    @cached_property
    def _reference(self) -> list[npt.NDArray[np.uint8]]:
        session = _session(self._source)
        return [session.run([IDS_OUTPUT], inputs)[0] for inputs in self._checks]

    def _excluded(self, keep: set[str]) -> list[str]:
        """Return the nodes that stay in fp32: fusion blocks, and the convolutions to keep with their activations."""
        nodes = onnx.load(self._source).graph.node
        kept = {name for node in nodes if node.name in keep for name in node.output}
        return [node.name for node in nodes
                if FUSION_SCOPE in node.name or node.name in keep
                or (kept & set(node.input) and node.op_type in QUANTIZED_OPS[1:])]


class _CalibrationReader(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime is untyped
    """Gives ONNX Runtime one image after the other."""

    def __init__(self, inputs: Iterable[GraphInputs]) -> None:
        self._inputs = iter(inputs)

    def get_next(self) -> GraphInputs | None:
        """Return the inputs of the next image; None after the last."""
        return next(self._inputs, None)


def inputs_of(frame: Frame, vocabulary: Vocabulary) -> GraphInputs:
    """Return the graph's inputs for one frame."""
    return graph_inputs(to_network(frame, network_size(*frame.pixels.shape[:2]))[None], vocabulary)


def random_vocabulary(text_embeddings: TextEmbeddings, rng: np.random.Generator) -> Vocabulary:
    """Return a vocabulary of 2 to `MAX_CALIBRATION_PHRASES` random phrases, each a class of its own."""
    count = min(int(rng.integers(2, MAX_CALIBRATION_PHRASES + 1)), len(text_embeddings))
    vectors = text_embeddings.vectors[rng.choice(len(text_embeddings), count, replace=False)]
    return Vocabulary(version=1, specs=(), ids=(), text_embeddings=vectors, class_ids=np.arange(count),
                      confidence_threshold=0.0, preset='')


def training_vocabulary(weights: Weights) -> Vocabulary:
    """Return the classes of the training, as many as fit into a vocabulary; without any, 11 phrases."""
    texts = weights.classes or weights.text_embeddings.names[:11]
    counts = accumulate(len(parse_class(text).phrases) for text in texts)
    fitting = [text for text, count in zip(texts, counts, strict=True) if count <= MAX_PHRASES]
    return VocabularyState(weights.text_embeddings).replace(fitting)


@contextmanager
def _without_advice() -> Iterator[None]:
    """Silence ONNX Runtime's advice to pre-process the graph, which the exporter has done."""
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def _session(path: Path, precision: str = 'fp32') -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(str(path), session_options(usable_cores(), precision),
                                        providers=['CPUExecutionProvider'])

"""From the exported fp32 graph to one of 8 bits: convolutions of the picture between Quantize/Dequantize pairs.

Weights are quantised per output channel, activations by the range that calibration pictures give, each convolution
together with its activation function: quantising in front of a ReLU6 would spend most of the 256 steps on values
that it cuts off.  What words reach stays in fp32: fusion blocks, cosine product, labels.
"""

import logging
import tempfile
from contextlib import contextmanager
from functools import cached_property
from inspect import signature
from itertools import accumulate
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from ..vocabulary.classes import MAX_PHRASES, parse_class
from ..vocabulary.vocabulary import Vocabulary, VocabularyState
from ..utils.atomic_write import atomic_write
from ..utils.hardware import usable_cores
from .preprocessing import network_size, to_network
from .onnxruntime_engine import OnnxRuntimeEngine, session_options

TYPES = ('Conv', 'Clip', 'Relu')
OF_WORDS = '/fusion'   # in the name of every node that mixes words and picture
MOST_WORDS = 40        # in a calibration vocabulary


class Quantizer:
    """Tries sets of convolutions to leave in fp32; ranges are measured once."""

    def __init__(self, weights, frames, checks, seed=0):
        """weights: with an fp32 ONNX file; frames: list of `Frame` to measure ranges on; checks: others to judge by.

        Ranges are measured with words drawn from the bank, others for every picture; judged is with the words of
        the training: between random words for the same thing fp32 itself hardly decides.
        """
        self.weights, rng = weights, np.random.default_rng(seed)
        self._folder = tempfile.TemporaryDirectory(prefix='lgseg-quantize-')
        self._source = OnnxRuntimeEngine(weights, precision='fp32').path
        self._feeds = [feed(frame, draw_words(weights.text_embeddings, rng)) for frame in frames]
        self._checks = [feed(frame, trained_words(weights)) for frame in checks]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._folder.cleanup()

    @cached_property
    def convolutions(self):
        """Names of those that are quantised unless kept."""
        nodes = onnx.load(self._source).graph.node
        return [node.name for node in nodes if node.op_type == 'Conv' and OF_WORDS not in node.name]

    def quantize(self, keep=()):
        """Quantise all but the convolutions named in `keep`; returns the path of a temporary file."""
        path, options = Path(self._folder.name) / 'candidate.onnx', {}
        if 'calibration_cache_path' in signature(quantize_static).parameters:   # not in 1.23, the last for Python 3.10
            options['calibration_cache_path'] = Path(self._folder.name) / 'ranges.json'
        with _no_advice():
            quantize_static(
                self._source, path, _Reader(self._feeds), quant_format=QuantFormat.QDQ,
                op_types_to_quantize=list(TYPES), per_channel=True, activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8, nodes_to_exclude=self._left_out(set(keep)), **options)
        return path

    def agreement(self, path):
        """Share of the check pictures' pixels, 0..1, that get the fp32 graph's id."""
        session = _session(path, 'int8')
        same = [np.mean(session.run(['ids'], f)[0] == ids) for f, ids in zip(self._checks, self._reference)]
        return float(np.mean(same))

    def sensitivity(self, progress=iter):
        """[(share of the pixels that change, name)]: what each convolution costs when it alone is quantised, worst
        first.  progress: wraps the list of names, as tqdm does."""
        costs = []
        for name in progress(self.convolutions):
            others = [other for other in self.convolutions if other != name]
            costs.append((1 - self.agreement(self.quantize(others)), name))
        return sorted(costs, reverse=True)

    def save(self, path, target, facts):
        """Put a candidate in its place, with the weights' digest and `facts` as metadata."""
        graph = onnx.load(path)
        facts = {**facts, 'weights_sha256': self.weights.sha256, 'precision': 'int8'}
        onnx.helper.set_model_props(graph, {key: str(value) for key, value in facts.items()})
        with atomic_write(target) as partial:
            onnx.save(graph, partial)

    @cached_property
    def _reference(self):
        session = _session(self._source)
        return [session.run(['ids'], f)[0] for f in self._checks]

    def _left_out(self, keep):
        """Nodes that stay in fp32: those of words, the kept convolutions and what directly follows them."""
        nodes = onnx.load(self._source).graph.node
        kept = {name for node in nodes if node.name in keep for name in node.output}
        return [node.name for node in nodes
                if OF_WORDS in node.name or node.name in keep or (kept & set(node.input) and node.op_type in TYPES[1:])]


class _Reader(CalibrationDataReader):
    def __init__(self, feeds):
        self._feeds = iter(feeds)

    def get_next(self):
        return next(self._feeds, None)


def feed(frame, vocabulary):
    """The graph's inputs for one frame."""
    picture = to_network(frame, network_size(*frame.pixels.shape[:2]))
    return {'frames': picture[None], 'rows': vocabulary.text_embeddings, 'row_ids': vocabulary.class_ids,
            'threshold': np.array(vocabulary.confidence_threshold, np.float32)}


def draw_words(text_embeddings, rng):
    """A `Vocabulary` of 2 to MOST_WORDS random words of the bank."""
    count = min(int(rng.integers(2, MOST_WORDS + 1)), len(text_embeddings))
    rows = text_embeddings.vectors[rng.choice(len(text_embeddings), count, replace=False)]
    return Vocabulary(version=1, specs=(), ids=(), text_embeddings=rows, class_ids=np.arange(count), confidence_threshold=0.0, preset='')


def trained_words(weights):
    """A `Vocabulary` of the classes that the weights' card names, as many as there can be, else of the first words of
    the bank."""
    texts = weights.classes or weights.text_embeddings.names[:11]
    rows = accumulate(len(parse_class(text).phrases) for text in texts)
    return VocabularyState(weights.text_embeddings).replace([text for text, count in zip(texts, rows) if count <= MAX_PHRASES])


@contextmanager
def _no_advice():
    """ONNX Runtime advises pre-processing at every call; the exporter has done all of it."""
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def _session(path, precision='fp32'):
    return onnxruntime.InferenceSession(str(path), session_options(usable_cores(), precision),
                                        providers=['CPUExecutionProvider'])

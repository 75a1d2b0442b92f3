"""Select the inference engine: the one that was requested, or the fastest that works here."""

import importlib
import logging
from collections.abc import Callable, Iterator
from itertools import product
from typing import NamedTuple

from ..model.weights import Weights, WeightsError
from ..utils.hardware import has_gpu_device
from ..vocabulary.vocabulary import Vocabulary, VocabularyState
from .base import Engine, EngineOptions, EngineType
from .errors import first_line
from .preprocessing import Frame, Mask
from .self_test import SelfTest, SelfTestError
from .self_test_data import read_golden

PRECISIONS = ('auto', 'fp32', 'fp16', 'int8')


class EngineEntry(NamedTuple):
    """Where the class of an engine is.

    Attributes:
        module: relative to this package.
        class_name: name of the class.
        needs_gpu: whether 'auto' considers it only where there is a GPU.
    """

    module: str
    class_name: str
    needs_gpu: bool


# The fastest first. A module is imported when its engine is tried.
ENGINES = {
    'tensorrt': EngineEntry('.tensorrt_engine', 'TensorRTEngine', True),
    'torch': EngineEntry('.torch_engine', 'TorchEngine', True),
    'openvino': EngineEntry('.openvino_engine', 'OpenVinoEngine', False),
    'onnxruntime': EngineEntry('.onnxruntime_engine', 'OnnxRuntimeEngine', False),
}
ENGINE_NAMES = ('auto', *ENGINES)


class EngineSelection(NamedTuple):
    """The engine that was requested and the one that runs.

    Attributes:
        requested_engine: one of `ENGINE_NAMES`.
        requested_precision: one of `PRECISIONS`.
        engine: one of `ENGINES`.
        precision: what the engine was created with, one of `PRECISIONS`.
        rejected: (engine and precision, reason) of those that were tried before.
        self_test_failures: those of them whose masks were wrong.
    """

    requested_engine: str
    requested_precision: str
    engine: str
    precision: str
    rejected: tuple[tuple[str, str], ...]
    self_test_failures: tuple[tuple[str, str], ...] = ()

    @property
    def fell_back(self) -> bool:
        """Whether the engine or precision is another one than was requested by name."""
        return (self.requested_engine not in ('auto', self.engine)
                or self.requested_precision != self.precision)

    def __str__(self) -> str:
        """Return one line for logs."""
        requested = _label(self.requested_engine, self.requested_precision)
        text = f'{requested} requested, {_label(self.engine, self.precision)} used'
        reasons = '; '.join(f'{label}: {reason}' for label, reason in self.rejected)
        return f'{text} ({reasons})' if reasons else text


def _label(engine: str, precision: str) -> str:
    return engine if precision == 'auto' else f'{engine} in {precision}'


def log_selection(selection: EngineSelection) -> None:
    """Log a selection: as an error if a self-test failed, as a warning if it is not what was requested."""
    level = (logging.ERROR if selection.self_test_failures
             else logging.WARNING if selection.fell_back else logging.INFO)
    logging.getLogger(__name__).log(level, 'engine: %s', selection)


def create_engine(options: EngineOptions, weights: Weights,
                  report: Callable[[EngineSelection], object] = log_selection,
                  vocabulary: Vocabulary | None = None) -> 'EngineWithFallback':
    """Create the requested engine, else the next one that works.

    Args:
        options: the request.
        weights: from `load_weights`.
        report: called with every selection: now, and when another engine takes over later.
        vocabulary: warm the engine up with it, so that one that loads but cannot run is rejected, too.

    Returns:
        The engine.

    Raises:
        WeightsError: no engine can run the weights.
        ValueError: the name of the engine or the precision is unknown.
    """
    _check_name('engine', options.engine, ENGINE_NAMES)
    _check_name('precision', options.precision, PRECISIONS)
    read_golden(weights)   # if it is damaged, no engine is at fault
    return EngineWithFallback(_Candidates(options, weights, report), vocabulary)


class _Candidates:
    """The engines that may run, in order; `take` gives each at most once."""

    def __init__(self, options: EngineOptions, weights: Weights,
                 report: Callable[[EngineSelection], object]) -> None:
        self._options, self._weights, self._report = options, weights, report
        self._taken = ''
        self._rejected: list[tuple[str, str]] = []
        self._self_test_failures: list[tuple[str, str]] = []
        self._errors: list[Exception] = []
        self._remaining = self._order()

    def _order(self) -> Iterator[tuple[str, str]]:
        """Yield (engine, precision); another precision is better than no masks."""
        names, precisions = candidates(self._options.engine), list(dict.fromkeys((self._options.precision, 'auto')))
        for precision in precisions:
            yield from ((name, precision) for name in names)
        if self._self_test_failures and 'fp32' not in precisions:   # the precision of 'auto' may be what is wrong here
            yield from ((name, 'fp32') for name in names)

    def take(self, vocabulary: Vocabulary | None = None) -> Engine:
        """Return the next engine that works, warmed up. Raises WeightsError when there is none."""
        requested = self._options.engine, self._options.precision
        for name, precision in self._remaining:
            self._taken = _label(name, precision)
            try:
                reason = _rejection_reason(name, precision, self._weights, self._options, by_name=name == requested[0])
                engine = None if reason else _build(name, precision, self._weights, self._options, vocabulary)
            except Exception as error:   # every library has its own kinds, even on import; the next engine may work
                self.reject(error)
                continue
            if engine is not None:
                self._report(EngineSelection(*requested, name, precision, tuple(self._rejected),
                                             tuple(self._self_test_failures)))
                return engine
            self._rejected.append((self._taken, str(reason)))
        if len(self._errors) == 1 and isinstance(self._errors[0], WeightsError):
            raise self._errors[0]
        raise WeightsError('no engine works here: ' + '; '.join(f'{label}: {text}' for label, text in self._rejected))

    def reject(self, error: Exception) -> None:
        """Record why the engine that was taken last is not used."""
        rejected = self._taken, first_line(error)
        self._rejected.append(rejected)
        self._errors.append(error)
        if isinstance(error, SelfTestError):
            self._self_test_failures.append(rejected)


class EngineWithFallback:
    """An `Engine` that is replaced by the next candidate if it fails its self-test at a new image size."""

    def __init__(self, candidates: _Candidates, vocabulary: Vocabulary | None = None) -> None:
        """Take the first candidate.

        Args:
            candidates: the engines that may run.
            vocabulary: warm the engine up with it.

        Raises:
            WeightsError: no candidate works.
        """
        self._candidates = candidates
        self._failure: WeightsError | None = None
        self._engine = candidates.take(vocabulary)

    @property
    def NAME(self) -> str:  # noqa: N802 (as the engines have it)
        """Name of the engine in use, one of `ENGINES`."""
        return self._engine.NAME

    @property
    def precision(self) -> str:
        """Precision of the engine in use: 'fp32', 'fp16' or 'int8'."""
        return self._engine.precision

    @property
    def batch(self) -> int:
        """The most frames in one run that the engine in use gains by."""
        return self._engine.batch

    @property
    def self_test(self) -> SelfTest:
        """The self-test of the engine in use."""
        return self._engine.self_test

    @property
    def failure(self) -> str:
        """Why nothing can be segmented any more; '' while there is an engine."""
        return str(self._failure or '')

    def run(self, frames: list[Frame], vocabulary: Vocabulary, size: str | None = None) -> list[Mask]:
        """Segment a batch; arguments and result are those of `Engine.run`.

        Raises:
            WeightsError: no engine is left that passes its self-test.
        """
        while self._failure is None:
            try:
                return self._engine.run(frames, vocabulary, size)
            except SelfTestError as error:
                self._replace(error, vocabulary)
        raise self._failure

    def warm_up(self, vocabulary: Vocabulary, height: int = 480, width: int = 640) -> None:
        """Warm the engine in use up; see `Engine.warm_up`."""
        self._engine.warm_up(vocabulary, height, width)

    def summary(self) -> str:
        """Return the engine in use in one line."""
        return self._engine.summary()

    def close(self) -> None:
        """Release device memory."""
        if self._failure is None:
            self._engine.close()

    def _replace(self, error: SelfTestError, vocabulary: Vocabulary) -> None:
        self._candidates.reject(error)
        self._engine.close()
        try:
            self._engine = self._candidates.take(vocabulary)
        except WeightsError as failure:
            self._failure = failure


def candidates(requested: str) -> list[str]:
    """Return the names of engines in the order in which they are tried.

    Args:
        requested: one of `ENGINE_NAMES`; unless it is 'auto', it comes first.
    """
    gpu = has_gpu_device()
    suitable = [name for name, entry in ENGINES.items() if gpu or not entry.needs_gpu]
    return list(dict.fromkeys(([] if requested == 'auto' else [requested]) + suitable))


def engine_class(name: str) -> EngineType:
    """Import the class of an engine.

    Args:
        name: one of `ENGINES`.
    """
    entry = ENGINES[name]
    engine_type: EngineType = getattr(importlib.import_module(entry.module, __package__), entry.class_name)
    return engine_type


def _rejection_reason(name: str, precision: str, weights: Weights, options: EngineOptions, by_name: bool) -> str | None:
    """Return why an engine is not even tried, or None. One that was requested by name may start slowly."""
    engine_type = engine_class(name)
    reason = engine_type.unavailable(precision)
    if reason is None and not by_name:
        reason = engine_type.not_ready(weights, options.max_inference_pixels, precision)
    return reason


def _build(name: str, precision: str, weights: Weights, options: EngineOptions,
           vocabulary: Vocabulary | None) -> Engine:
    engine = engine_class(name)(weights, options.num_threads, options.max_inference_pixels, precision)
    if vocabulary is not None:
        try:
            engine.warm_up(vocabulary)
        except Exception:
            engine.close()
            raise
    return engine


def run_self_tests(weights: Weights, num_threads: int = 0) -> dict[str, dict[str, str]]:
    """Test every engine that works here without a long build, in each precision, at the default image size.

    Args:
        weights: from `load_weights`.
        num_threads: CPU threads, 0 for all usable cores.

    Returns:
        {'openvino fp32': {'state': 'passed', 'failed' or 'not tested', 'text': one line}} and so on.
    """
    options = EngineOptions(num_threads=num_threads)
    vocabulary = VocabularyState(weights.text_embeddings).replace(weights.text_embeddings.names[:8])
    results: dict[str, dict[str, str]] = {}
    for name, precision in product(candidates('auto'), PRECISIONS[1:]):
        try:
            if _rejection_reason(name, precision, weights, options, by_name=False) is not None:
                continue
            engine = _build(name, precision, weights, options, vocabulary)
        except SelfTestError as error:
            results[f'{name} {precision}'] = {'state': 'failed', 'text': first_line(error)}
        except Exception:   # it cannot run here; other checks give the reason
            continue
        else:
            state = 'passed' if engine.self_test.passed else 'not tested'
            results[f'{name} {precision}'] = {'state': state, 'text': str(engine.self_test)}
            engine.close()
    return results


def _check_name(argument: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f'{argument} {value!r} is not known; give one of: {", ".join(allowed)}')

"""Pick the engine: the one that was asked for, or the fastest that works here.

An engine is a class with
    NAME              as in `ENGINES`
    unavailable(precision) -> None, or in a few words why it cannot work here; cheap, imports nothing heavy
    not_ready(weights, pixels, precision) -> the same, asked by 'auto' alone: for engines whose first start is slow
                                          (may be left out; what it raises is a reason too)
    __init__(weights, threads=0, pixels=DEFAULT_PIXELS, precision='auto')
    run(frames, vocabulary, size=None) -> list of `Mask`
    warm_up(vocabulary, height, width), summary() -> one line, close() where it holds what must be given back
    self_test         a `SelfTest`; whoever raises SelfTestError, from any of these, gives no mask
"""

import importlib
import logging
from collections.abc import Callable, Iterator
from itertools import product
from types import SimpleNamespace
from typing import NamedTuple

from ..vocabulary.vocabulary import VocabularyState
from .preprocessing import DEFAULT_PIXELS
from .gpu import has_gpu_device
from .self_test import SelfTest, SelfTestError
from .self_test_data import read_golden
from .weights import Weights, WeightsError

PRECISIONS = ('auto', 'fp32', 'fp16', 'int8')


class Entry(NamedTuple):
    """Where an engine's class lies, and whether 'auto' thinks of it where there is a GPU alone."""

    module: str
    class_name: str
    needs_gpu: bool


# The fastest first.  Modules are imported when their turn comes.
ENGINES = {
    'tensorrt': Entry('.tensorrt_engine', 'TensorRTEngine', True),
    'torch': Entry('.torch_engine', 'TorchEngine', True),
    'openvino': Entry('.openvino_engine', 'OpenVinoEngine', False),
    'onnxruntime': Entry('.onnxruntime_engine', 'OnnxRuntimeEngine', False),
}
ENGINE_NAMES = ('auto', *ENGINES)


def add_engine_arguments(parser):
    """--engine and --precision, the same for every command that segments."""
    parser.add_argument('--engine', choices=ENGINE_NAMES, default='auto',
                        help='what runs the network; auto: the fastest that is ready here (default: %(default)s)')
    parser.add_argument('--precision', choices=PRECISIONS, default='auto',
                        help='numbers it computes with (default: %(default)s)')


class EngineSelection(NamedTuple):
    """What was asked for and what runs.

    passed_over: (what, why not) of those that came before; self_test_failures: those of them whose masks were wrong.
    """

    asked: str          # engine
    asked_precision: str
    engine: str
    precision: str
    rejected: tuple
    self_test_failures: tuple = ()

    @property
    def fell_back(self):
        """Whether this is something else than what was asked for by name."""
        return self.asked not in ('auto', self.engine) or self.asked_precision != self.precision

    def __str__(self):
        wanted = _label(self.asked, self.asked_precision)
        told = f'{wanted} asked for, {_label(self.engine, self.precision)} used'
        reasons = '; '.join(f'{what}: {why}' for what, why in self.rejected)
        return f'{told} ({reasons})' if reasons else told


def _label(engine, precision):
    return engine if precision == 'auto' else f'{engine} in {precision}'


def log_selection(choice):
    """Say a choice in Python's log: as an error where a self-test failed, as a warning where it is not what was asked for."""
    level = logging.ERROR if choice.self_test_failures else logging.WARNING if choice.fell_back else logging.INFO
    logging.getLogger(__name__).log(level, 'engine: %s', choice)


def create_engine(settings, weights, report=log_selection, vocabulary=None):
    """The engine that `settings` asks for, else the next that works.

    settings: has engine, threads and max_inference_pixels, and may have precision.
    report: called once with the `Choice`.
    vocabulary: warm the engine up with it, so that one that builds but cannot run is passed over too.
    Returns an `EngineWithFallback`.
    Raises WeightsError when no engine can run the weights, ValueError for an unknown name.
    """
    _check('engine', settings.engine, ENGINE_NAMES)
    _check('precision', getattr(settings, 'precision', 'auto'), PRECISIONS)
    read_golden(weights)   # damaged, it is no engine's fault
    return EngineWithFallback(_Candidates(settings, weights, report), vocabulary)


class _Candidates:
    """What may run, in order; `take` gives each at most once."""

    def __init__(self, settings, weights: Weights, report: Callable[[EngineSelection], None]) -> None:
        self._settings, self._weights, self._report = settings, weights, report
        self._asked, self._precision = settings.engine, getattr(settings, 'precision', 'auto')
        self._taken = ''
        self._rejected, self._self_test_failures, self._errors = [], [], []
        self._left = self._order()

    def _order(self) -> Iterator[tuple[str, str]]:
        """(engine, precision): rather another precision than no masks."""
        precisions = list(dict.fromkeys((self._precision, 'auto')))
        for number in precisions:
            yield from ((name, number) for name in candidates(self._asked))
        if self._self_test_failures and 'fp32' not in precisions:   # what auto chose may be what is wrong here
            yield from ((name, 'fp32') for name in candidates(self._asked))

    def take(self, vocabulary=None):
        """The next engine that works, warmed up.  Raises WeightsError when there is none."""
        for name, number in self._left:
            self._taken = _label(name, number)
            try:
                reason = _rejection_reason(name, number, self._weights, self._settings, waits=name == self._asked)
                engine = None if reason else _build(name, number, self._weights, self._settings, vocabulary)
            except Exception as error:   # every library has its own kinds, on import already; the next engine may do
                self.reject(error)
                continue
            if reason is None:
                self._report(EngineSelection(self._asked, self._precision, name, number, tuple(self._rejected),
                                    tuple(self._self_test_failures)))
                return engine
            self._rejected.append((self._taken, reason))
        if len(self._errors) == 1 and isinstance(self._errors[0], WeightsError):
            raise self._errors[0]
        raise WeightsError('no engine works here: ' + '; '.join(f'{what}: {why}' for what, why in self._rejected))

    def reject(self, error: Exception) -> None:
        """Note why the engine that was taken last is not used."""
        rejected = self._taken, _first_line(error)
        self._rejected.append(rejected)
        self._errors.append(error)
        if isinstance(error, SelfTestError):
            self._self_test_failures.append(rejected)


class EngineWithFallback:
    """An engine, in whose place the next one comes when it fails its self-test at a new image size.

    Everything else is as the engine itself has it.  Not for several threads at once, as engines are not either.
    """

    def __init__(self, candidates: _Candidates, vocabulary=None) -> None:
        """Take the first candidate.  Raises WeightsError when none works."""
        self._candidates = candidates
        self._failure: WeightsError | None = None
        self._engine = candidates.take(vocabulary)

    def __getattr__(self, name: str):
        if name == '_engine':   # not there yet
            raise AttributeError(name)
        return getattr(self._engine, name)

    @property
    def failure(self) -> str:
        """Why nothing can be segmented any more; '' while an engine is there."""
        return str(self._failure or '')

    @property
    def self_test(self) -> SelfTest | None:
        """The self-test of the engine in use, None for an engine that has none."""
        return getattr(self._engine, 'self_test', None)

    def run(self, frames, vocabulary, size=None):
        """Segment a batch; arguments and result as `OnnxRuntimeEngine.run`.

        Raises WeightsError once no engine is left that passes its self-test.
        """
        while self._failure is None:
            try:
                return self._engine.run(frames, vocabulary, size)
            except SelfTestError as error:
                self._replace(error, vocabulary)
        raise self._failure

    def _replace(self, error: SelfTestError, vocabulary) -> None:
        self._candidates.reject(error)
        close_engine(self._engine)
        try:
            self._engine = self._candidates.take(vocabulary)
        except WeightsError as failure:
            self._failure = failure

    def close(self) -> None:
        """Give back what the engine holds."""
        if self._failure is None:
            close_engine(self._engine)


def candidates(asked):
    """Names in the order in which they are tried: the one asked for, then all that suit this machine."""
    gpu = has_gpu_device()
    suitable = [name for name, entry in ENGINES.items() if gpu or not entry.needs_gpu]
    return list(dict.fromkeys(([] if asked == 'auto' else [asked]) + suitable))


def engine_class(name):
    """The class of an engine by its name."""
    entry = ENGINES[name]
    return getattr(importlib.import_module(entry.module, __package__), entry.class_name)


def _rejection_reason(name, precision, weights, settings, waits):
    """Why an engine is not even tried, or None.  waits: it was asked for by name, so that a slow start is accepted."""
    kind = engine_class(name)
    reason = kind.unavailable(precision)
    if reason is None and not waits and hasattr(kind, 'not_ready'):
        reason = kind.not_ready(weights, settings.max_inference_pixels, precision)
    return reason


def _build(name, precision, weights, settings, vocabulary):
    engine = engine_class(name)(weights, settings.num_threads, settings.max_inference_pixels, precision)
    if vocabulary is not None:
        try:
            engine.warm_up(vocabulary)
        except Exception:
            close_engine(engine)
            raise
    return engine


def run_self_tests(weights: Weights, num_threads: int = 0) -> dict[str, dict[str, str]]:
    """Try every engine that works here without a long build, in each precision, at the default image size.

    Returns:
        {'openvino fp32': {'state': 'passed', 'failed' or 'not tested', 'text': one line}} and so on.
    """
    settings = SimpleNamespace(num_threads=num_threads, max_inference_pixels=DEFAULT_PIXELS)
    vocabulary, found = VocabularyState(weights.text_embeddings).replace(weights.text_embeddings.names[:8]), {}
    for name, precision in product(candidates('auto'), PRECISIONS[1:]):
        try:
            if _rejection_reason(name, precision, weights, settings, waits=False) is not None:
                continue
            engine = _build(name, precision, weights, settings, vocabulary)
        except SelfTestError as error:
            found[f'{name} {precision}'] = {'state': 'failed', 'text': _first_line(error)}
        except Exception:   # cannot run here at all: other checks say why
            continue
        else:
            state = 'passed' if engine.self_test.passed else 'not tested'
            found[f'{name} {precision}'] = {'state': state, 'text': str(engine.self_test)}
            close_engine(engine)
    return found


def close_engine(engine):
    """Give back what an engine holds, for those that hold device memory."""
    if hasattr(engine, 'close'):
        engine.close()


def _first_line(error):
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _check(what, value, allowed):
    if value not in allowed:
        raise ValueError(f'{what} {value!r} is not known; give one of: {", ".join(allowed)}')

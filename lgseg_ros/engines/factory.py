"""Pick the engine: the one that was asked for, or the fastest that works here.

An engine is a class with
    NAME              as in `ENGINES`
    unavailable(precision) -> None, or in a few words why it cannot work here; cheap, imports nothing heavy
    not_ready(weights, pixels, precision) -> the same, asked by 'auto' alone: for engines whose first start is slow
                                          (may be left out; what it raises is a reason too)
    __init__(weights, threads=0, pixels=DEFAULT_PIXELS, precision='auto')
    run(frames, vocabulary, size=None) -> list of `Mask`
    warm_up(vocabulary, height, width), summary() -> one line, close() where it holds what must be given back
"""

import importlib
import logging
from typing import NamedTuple

from .gpu import has_gpu_device
from .weights import WeightsError

PRECISIONS = ('auto', 'fp32', 'fp16', 'int8')


class Entry(NamedTuple):
    """Where an engine's class lies, and whether 'auto' thinks of it where there is a GPU alone."""

    module: str
    class_name: str
    needs_gpu: bool


# The fastest first.  Modules are imported when their turn comes.
ENGINES = {
    'tensorrt': Entry('.tensorrt', 'TensorRTEngine', True),
    'torch': Entry('.torch', 'TorchEngine', True),
    'openvino': Entry('.openvino', 'OpenVinoEngine', False),
    'onnxruntime': Entry('.onnxruntime', 'OnnxRuntimeEngine', False),
}
ENGINE_NAMES = ('auto', *ENGINES)


def add_engine_arguments(parser):
    """--engine and --precision, the same for every command that segments."""
    parser.add_argument('--engine', choices=ENGINE_NAMES, default='auto',
                        help='what runs the network; auto: the fastest that is ready here (default: %(default)s)')
    parser.add_argument('--precision', choices=PRECISIONS, default='auto',
                        help='numbers it computes with (default: %(default)s)')


class Choice(NamedTuple):
    """What was asked for and what runs.  passed_over: (what, why not) of those that came before."""

    asked: str          # engine
    asked_precision: str
    engine: str
    precision: str
    passed_over: tuple

    @property
    def fell_back(self):
        """Whether this is something else than what was asked for by name."""
        return self.asked not in ('auto', self.engine) or self.asked_precision != self.precision

    def __str__(self):
        wanted = _label(self.asked, self.asked_precision)
        told = f'{wanted} asked for, {_label(self.engine, self.precision)} used'
        reasons = '; '.join(f'{what}: {why}' for what, why in self.passed_over)
        return f'{told} ({reasons})' if reasons else told


def _label(engine, precision):
    return engine if precision == 'auto' else f'{engine} in {precision}'


def log_choice(choice):
    """Say a choice in Python's log, as a warning where it is not what was asked for."""
    logging.getLogger(__name__).log(logging.WARNING if choice.fell_back else logging.INFO, 'engine: %s', choice)


def create_engine(settings, weights, report=log_choice, vocabulary=None):
    """The engine that `settings` asks for, else the next that works.

    settings: has engine, threads and network_pixels, and may have precision.
    report: called once with the `Choice`.
    vocabulary: warm the engine up with it, so that one that builds but cannot run is passed over too.
    Raises WeightsError when no engine can run the weights, ValueError for an unknown name.
    """
    asked, precision = settings.engine, getattr(settings, 'precision', 'auto')
    _check('engine', asked, ENGINE_NAMES)
    _check('precision', precision, PRECISIONS)
    passed_over, errors = [], []
    for number in dict.fromkeys((precision, 'auto')):   # rather another precision than no masks
        for name in candidates(asked):
            try:
                reason = _why_not(name, number, weights, settings, waits=name == asked)
                engine = None if reason else _build(name, number, weights, settings, vocabulary)
            except Exception as error:   # every library has its own kinds, on import already; the next engine may do
                errors.append(error)
                reason = _first_line(error)
            if reason is None:
                report(Choice(asked, precision, name, number, tuple(passed_over)))
                return engine
            passed_over.append((_label(name, number), reason))
    if len(errors) == 1 and isinstance(errors[0], WeightsError):
        raise errors[0]
    raise WeightsError('no engine works here: ' + '; '.join(f'{what}: {why}' for what, why in passed_over))


def candidates(asked):
    """Names in the order in which they are tried: the one asked for, then all that suit this machine."""
    gpu = has_gpu_device()
    suitable = [name for name, entry in ENGINES.items() if gpu or not entry.needs_gpu]
    return list(dict.fromkeys(([] if asked == 'auto' else [asked]) + suitable))


def engine_class(name):
    """The class of an engine by its name."""
    entry = ENGINES[name]
    return getattr(importlib.import_module(entry.module, __package__), entry.class_name)


def _why_not(name, precision, weights, settings, waits):
    """Why an engine is not even tried, or None.  waits: it was asked for by name, so that a slow start is accepted."""
    kind = engine_class(name)
    reason = kind.unavailable(precision)
    if reason is None and not waits and hasattr(kind, 'not_ready'):
        reason = kind.not_ready(weights, settings.network_pixels, precision)
    return reason


def _build(name, precision, weights, settings, vocabulary):
    engine = engine_class(name)(weights, settings.threads, settings.network_pixels, precision)
    if vocabulary is not None:
        try:
            engine.warm_up(vocabulary)
        except Exception:
            close_engine(engine)
            raise
    return engine


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

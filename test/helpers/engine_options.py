"""What tests of the engines request."""

from lgseg_ros.engines.base import EngineOptions
from lgseg_ros.engines.selection import EngineSelection, EngineWithFallback, create_engine
from lgseg_ros.model.weights import Weights


def request(engine: str = 'auto', precision: str = 'auto') -> EngineOptions:
    """Request an engine with one thread."""
    return EngineOptions(engine, precision, num_threads=1)


def select(weights: Weights, *requested: str, **more: object) -> tuple[EngineWithFallback, EngineSelection]:
    """Create an engine; returns it and its selection."""
    selections: list[EngineSelection] = []
    engine = create_engine(request(*requested), weights, selections.append, **more)
    selection, = selections
    return engine, selection

"""Pick the engine by name."""

from .onnxruntime import OnnxRuntimeEngine


def create_engine(settings, weights):
    """The engine that `settings.engine` names; 'auto' is ONNX Runtime, which runs everywhere.

    Raises WeightsError when the weights cannot be run.
    """
    return OnnxRuntimeEngine(weights, settings.threads, settings.network_pixels)

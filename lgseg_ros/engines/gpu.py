"""Moved to `utils.hardware` and `engines.base`."""
from ..utils.hardware import has_gpu_device  # noqa: F401
from .base import EngineError  # noqa: F401

"""A procedural street with exact labels, for the demo, the tests and the default INT8 calibration."""

from .camera import StreetCamera
from .drawing import CLASS_NAMES, Label

__all__ = ['CLASS_NAMES', 'Label', 'StreetCamera']

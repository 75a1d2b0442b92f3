"""A procedural street with exact labels, for the demo, the tests and the default INT8 calibration."""

from .camera import StreetCamera
from .labels import NAMES as CLASS_NAMES

__all__ = ['CLASS_NAMES', 'StreetCamera']

"""Language-guided semantic segmentation for ROS 2.

The public Python API is in `lgseg_ros.api`; its names can be imported from here: `from lgseg_ros import Segmenter`.
"""

from pkgutil import extend_path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .api import (
        ClassInfo,
        EngineInfo,
        SegmentationResult,
        Segmenter,
        Vocabulary,
        VocabularyError,
        WeightsError,
    )

# colcon puts the generated services (lgseg_ros.srv) into the installed copy of this package. Searching every
# folder of that name on sys.path lets `from lgseg_ros.srv import SetVocabulary` work from the source tree too.
__path__ = extend_path(__path__, __name__)

__version__ = '0.1.0'

__all__ = ['ClassInfo', 'EngineInfo', 'SegmentationResult', 'Segmenter', 'Vocabulary', 'VocabularyError',
           'WeightsError', '__version__']


def __getattr__(name: str) -> object:
    """Import the public API when it is first used, so that the node and light commands start without it."""
    if name in __all__:
        from . import api
        return getattr(api, name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')


def __dir__() -> list[str]:
    """Return the names of the module with those of the public API."""
    return sorted({*globals(), *__all__})

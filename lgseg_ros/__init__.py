"""Language-guided semantic segmentation for ROS 2."""

from pkgutil import extend_path

# colcon puts the generated services (lgseg_ros.srv) into the installed copy of this package. Searching every
# folder of that name on sys.path lets `from lgseg_ros.srv import SetVocabulary` work from the source tree too.
__path__ = extend_path(__path__, __name__)

__version__ = '0.1.0'

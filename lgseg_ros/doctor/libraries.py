"""Python packages that are known to disagree with each other."""

import importlib.metadata

from .child import is_missing, run_python
from .machine import has_gpu
from .verdict import fail, ok, skip, warn

NUMPY = 'import numpy; print(numpy.__version__)'
# Converting, not importing, is what reaches cv_bridge's compiled half.
CV_BRIDGE = '''
import cv_bridge
from sensor_msgs.msg import Image
image = Image(height=2, width=2, step=4, encoding='mono16', data=bytes(8))
assert cv_bridge.CvBridge().imgmsg_to_cv2(image, 'bgr8').shape == (2, 2, 3)
print(cv_bridge.__file__)
'''
TORCHVISION = 'import torch, torchvision; print(torch.__version__, torchvision.__version__)'
REPAIRED = 'from lgseg_ros.model.torchvision_compat import ensure_torchvision; ensure_torchvision()'
ONNXRUNTIME = 'import onnxruntime; print(onnxruntime.__version__, *onnxruntime.get_available_providers())'
REQUIRED = {'numpy': 'numpy', 'cv2': 'opencv-python-headless', 'yaml': 'pyyaml', 'safetensors': 'safetensors'}
TRAIN = 'for those, in a clone: scripts/setup.sh --with train'


def required():
    """Whether the packages that everything here needs can be imported."""
    found = []
    for module, package in REQUIRED.items():
        outcome = run_python('-c', f'import {module}; print({module}.__version__)')
        if not outcome.worked:
            return fail(f'{module} cannot be imported: {outcome.reason}',
                        f'pip install {package} (with a ROS distribution, numpy, OpenCV and PyYAML are its own: '
                        'apt install python3-numpy python3-opencv python3-yaml)')
        found.append(f'{module} {outcome.answer}')
    return ok(', '.join(found))


def cv_bridge():
    """Whether cv_bridge works with the numpy that is installed (a distribution's is built for numpy 1)."""
    outcome, numpy = run_python('-c', CV_BRIDGE), run_python('-c', NUMPY).answer
    if is_missing(outcome, 'cv_bridge'):
        return skip(f'not installed (numpy {numpy}); only rare picture encodings need it',
                    'for those: apt install ros-$ROS_DISTRO-cv-bridge')
    if outcome.worked:
        return ok(f'converts with numpy {numpy} ({outcome.answer})')
    if not numpy.startswith('1.'):
        return fail(f'does not work with numpy {numpy}: {outcome.reason}',
                    "it was built for numpy 1: pip install 'numpy<2', in the environment that the node runs in")
    return fail(f'does not work: {outcome.reason}', 'reinstall it: apt install --reinstall ros-$ROS_DISTRO-cv-bridge')


def torchvision():
    """Whether torch and torchvision fit each other; only training, export and new words need them."""
    outcome = run_python('-c', TORCHVISION)
    if outcome.worked:
        return ok(f'torch and torchvision {outcome.answer}')
    for module in ('torch', 'torchvision'):
        if is_missing(outcome, module):
            return skip(f'{module} is not installed; only training, export and words new to the weights need it',
                        TRAIN)
    cure = 'install torch and torchvision from one source in one pip command (Jetson: both from NVIDIA)'
    if run_python('-c', REPAIRED).worked:
        return warn(f'do not fit each other ({outcome.reason}); this package works around it', cure)
    return fail(f'torch or torchvision cannot be imported: {outcome.reason}', cure)


def onnxruntime():
    """The default engine, and whether it uses the GPU that is there."""
    outcome = run_python('-c', ONNXRUNTIME)
    if is_missing(outcome, 'onnxruntime'):
        return fail('not installed; the node cannot run', 'pip install onnxruntime')
    if not outcome.worked:
        return fail(f'cannot be imported: {outcome.reason}',
                    'pip uninstall onnxruntime onnxruntime-gpu, then pip install onnxruntime')
    version, *providers = outcome.answer.split()
    found = f'{version} with {", ".join(name.removesuffix("ExecutionProvider") for name in providers)}'
    packages = [name for name in ('onnxruntime', 'onnxruntime-gpu') if _installed(name)]
    if len(packages) > 1:
        return warn(f'{found}; {" and ".join(packages)} are both installed and overwrite each other',
                    'pip uninstall both, then install the one you want')
    if has_gpu() and not any(name.startswith(('CUDA', 'Tensorrt')) for name in providers):
        return warn(f'{found}: the GPU stays unused',
                    'pip uninstall onnxruntime && pip install onnxruntime-gpu (Jetson: the wheel for your JetPack)')
    return ok(found)


def _installed(name):
    try:
        return bool(importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        return False

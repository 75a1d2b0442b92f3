"""Checks of Python packages, above all of those that are often incompatible with each other."""

import importlib.metadata

from ..utils.subprocesses import is_missing, run_code
from .check_result import CheckResult, fail, ok, skip, warn
from .machine import has_gpu

NUMPY = 'import numpy; print(numpy.__version__)'
# Only a conversion, not the import, calls the compiled half of cv_bridge.
CV_BRIDGE = '''
import cv_bridge
from sensor_msgs.msg import Image
image = Image(height=2, width=2, step=4, encoding='mono16', data=bytes(8))
assert cv_bridge.CvBridge().imgmsg_to_cv2(image, 'bgr8').shape == (2, 2, 3)
print(cv_bridge.__file__)
'''
TORCHVISION = 'import torch, torchvision; print(torch.__version__, torchvision.__version__)'
WORKAROUND = 'from lgseg_ros.utils.torchvision_compat import ensure_torchvision; ensure_torchvision()'
ONNXRUNTIME = 'import onnxruntime; print(onnxruntime.__version__, *onnxruntime.get_available_providers())'
REQUIRED = {'numpy': 'numpy', 'cv2': 'opencv-python-headless', 'yaml': 'pyyaml', 'safetensors': 'safetensors'}
TRAIN = 'for those, in a clone: scripts/setup.sh --with train'


def required() -> CheckResult:
    """Check whether the packages that every command needs can be imported."""
    found: list[str] = []
    for module, package in REQUIRED.items():
        result = run_code(f'import {module}; print({module}.__version__)')
        if not result.succeeded:
            return fail(f'{module} cannot be imported: {result.reason}',
                        f'pip install {package} (with a ROS distribution, numpy, OpenCV and PyYAML are its own: '
                        'apt install python3-numpy python3-opencv python3-yaml)')
        found.append(f'{module} {result.answer}')
    return ok(', '.join(found))


def cv_bridge() -> CheckResult:
    """Check whether cv_bridge works with the installed numpy: that of a ROS distribution is built for numpy 1."""
    result = run_code(CV_BRIDGE)
    numpy = run_code(NUMPY).answer
    if is_missing(result, 'cv_bridge'):
        return skip(f'not installed (numpy {numpy}); only rare image encodings need it',
                    'for those: apt install ros-$ROS_DISTRO-cv-bridge')
    if result.succeeded:
        return ok(f'converts with numpy {numpy} ({result.answer})')
    if not numpy.startswith('1.'):
        return fail(f'does not work with numpy {numpy}: {result.reason}',
                    "it was built for numpy 1: pip install 'numpy<2', in the environment that the node runs in")
    return fail(f'does not work: {result.reason}', 'reinstall it: apt install --reinstall ros-$ROS_DISTRO-cv-bridge')


def torchvision() -> CheckResult:
    """Check whether torch and torchvision are compatible; only training, export and new phrases need them."""
    result = run_code(TORCHVISION)
    if result.succeeded:
        return ok(f'torch and torchvision {result.answer}')
    for module in ('torch', 'torchvision'):
        if is_missing(result, module):
            return skip(f'{module} is not installed; only training, export and phrases new to the weights need it',
                        TRAIN)
    hint = 'install torch and torchvision from one source in one pip command (Jetson: both from NVIDIA)'
    if run_code(WORKAROUND).succeeded:
        return warn(f'are incompatible ({result.reason}); this package works around it', hint)
    return fail(f'torch or torchvision cannot be imported: {result.reason}', hint)


def onnxruntime() -> CheckResult:
    """Check the default engine, and whether it can use the GPU."""
    result = run_code(ONNXRUNTIME)
    if is_missing(result, 'onnxruntime'):
        return fail('not installed; the node cannot run', 'pip install onnxruntime')
    if not result.succeeded:
        return fail(f'cannot be imported: {result.reason}',
                    'pip uninstall onnxruntime onnxruntime-gpu, then pip install onnxruntime')
    version, *providers = result.answer.split()
    found = f'{version} with {", ".join(name.removesuffix("ExecutionProvider") for name in providers)}'
    packages = [name for name in ('onnxruntime', 'onnxruntime-gpu') if _is_installed(name)]
    if len(packages) > 1:
        return warn(f'{found}; {" and ".join(packages)} are both installed and overwrite each other',
                    'pip uninstall both, then install the one you want')
    if has_gpu() and not any(name.startswith(('CUDA', 'Tensorrt')) for name in providers):
        return warn(f'{found}: the GPU is not used',
                    'pip uninstall onnxruntime && pip install onnxruntime-gpu (Jetson: the wheel for your JetPack)')
    return ok(found)


def _is_installed(name: str) -> bool:
    try:
        return bool(importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        return False

"""Checks of PyTorch on CUDA and of the built TensorRT engines."""

from pathlib import Path

from ..utils.subprocesses import is_missing, run_code
from .check_result import CheckResult, ok, skip, warn
from .machine import has_gpu

CUDA = 'import torch; print(torch.__version__, torch.cuda.is_available() and torch.cuda.get_device_name())'
# What a build of now would be for; weights, precision and size differ from engine to engine.
RUNTIME = ('import tensorrt; from lgseg_ros.engines.cuda import Cuda; '
           'print(f"TensorRT {tensorrt.__version__}", *Cuda().device(), sep="|")')


def torch_cuda() -> CheckResult:
    """Check whether the torch engine would run on the GPU."""
    if not has_gpu():
        return skip('no NVIDIA GPU; the torch engine is not for CPUs')
    result = run_code(CUDA)
    hint = 'for the torch engine, pip install torch built for your CUDA (Jetson: NVIDIA\'s wheel), and timm'
    if is_missing(result, 'torch'):
        return skip('torch is not installed', hint)
    if not result.succeeded:
        return warn(f'torch cannot be imported: {result.reason}', hint)
    version, _, device = result.answer.partition(' ')
    if device == 'False':
        return warn(f'torch {version} does not see the GPU', hint)
    return ok(f'torch {version}, {device}')


def built_engines() -> CheckResult:
    """Check the engines in the cache: their number and size, and which of them this machine cannot use."""
    from ..engines.engine_cache import engine_folder  # here: this needs numpy, which may be missing
    folder = engine_folder()
    paths = sorted(folder.glob('*.engine'))
    if not paths:
        return skip(f'none in {folder}', 'for TensorRT: lgseg build-engine' if has_gpu() else '')
    size = sum(path.stat().st_size for path in paths) / 1e6
    found = f'{len(paths)}, {size:.1f} MB, in {folder}'
    result = run_code(RUNTIME)
    here = result.answer.split('|') if result.succeeded else None
    unusable = [path.name for path in paths if not _is_usable(path, here)]
    if unusable:
        return warn(f'{found}; damaged or stale: {", ".join(unusable)}',
                    f'rebuild them: lgseg build-engine --weights W, or remove them: rm {folder}/NAME.engine')
    return ok(found)


def _is_usable(path: Path, here: list[str] | None) -> bool:
    """Return whether an engine file is complete and, where TensorRT works, of this TensorRT and GPU (`here`)."""
    from ..engines.engine_cache import DamagedEngineError, read_engine
    from ..engines.tensorrt_network import NETWORK_FORMAT
    try:
        identity = read_engine(path).identity
    except (DamagedEngineError, OSError):
        return False
    built = [identity.get(name) for name in ('runtime', 'gpu', 'compute_capability')]
    return identity.get('network_format') == NETWORK_FORMAT and (here is None or built == here)

"""PyTorch on CUDA, and the engines that were built."""

from .child import is_missing, run_python
from .machine import has_gpu
from .verdict import ok, skip, warn

CUDA = 'import torch; print(torch.__version__, torch.cuda.is_available() and torch.cuda.get_device_name())'
# What a build would be for, here and now; without weights, precision and size, which every engine has its own of.
RUNTIME = ('import tensorrt; from lgseg_ros.engines.cuda import Cuda; '
           'print(f"TensorRT {tensorrt.__version__}", *Cuda().device(), sep="|")')


def torch_cuda():
    """Whether the torch engine would run on the GPU."""
    if not has_gpu():
        return skip('no NVIDIA GPU; the torch engine is not for CPUs')
    outcome = run_python('-c', CUDA)
    cure = 'for the torch engine, pip install torch built for your CUDA (Jetson: NVIDIA\'s wheel), and timm'
    if is_missing(outcome, 'torch'):
        return skip('torch is not installed', cure)
    if not outcome.worked:
        return warn(f'torch cannot be imported: {outcome.reason}', cure)
    version, _, device = outcome.answer.partition(' ')
    if device == 'False':
        return warn(f'torch {version} does not see the GPU', cure)
    return ok(f'torch {version}, {device}')


def built_engines():
    """Number and size of the engines in the cache, and which of them this machine would not use."""
    from ..engines.engine_cache import engine_folder   # here: this needs numpy, which may be missing
    folder = engine_folder()
    paths = sorted(folder.glob('*.engine'))
    if not paths:
        return skip(f'none in {folder}', 'for TensorRT: lgseg build-engine' if has_gpu() else '')
    size = sum(path.stat().st_size for path in paths) / 1e6
    found = f'{len(paths)}, {size:.1f} MB, in {folder}'
    outcome = run_python('-c', RUNTIME)
    here = outcome.answer.split('|') if outcome.worked else None
    unfit = [path.name for path in paths if not _fits(path, here)]
    if unfit:
        return warn(f'{found}; damaged or stale: {", ".join(unfit)}',
                    f'build them again: lgseg build-engine --weights W, or remove them: rm {folder}/NAME.engine')
    return ok(found)


def _fits(path, here):
    """Whether an engine is whole and, where TensorRT works, of this TensorRT and GPU."""
    from ..engines.engine_cache import DamagedEngine, read_engine
    from ..engines.tensorrt_network import FORMAT
    try:
        identity = read_engine(path).identity
    except (DamagedEngine, OSError):
        return False
    built = [identity.get(name) for name in ('runtime', 'gpu', 'compute_capability')]
    return identity.get('network') == FORMAT and (here is None or built == here)

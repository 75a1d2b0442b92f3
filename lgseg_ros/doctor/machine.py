"""Checks of Python, processor cores, GPU and TensorRT."""

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

from ..utils.subprocesses import is_missing, last_line, run_code
from .check_result import CheckResult, fail, ok, skip, warn

OLDEST, NEWEST = (3, 10), (3, 12)     # Humble's and Kilted's
OLDEST_TENSORRT = (10, 3)             # JetPack 6.2
CUDA_PYTHON = 'from lgseg_ros.engines.cuda import load_runtime; load_runtime()'


def python() -> CheckResult:
    """Check the version of this Python."""
    found = f'{platform.python_version()} at {sys.executable}'
    if sys.version_info[:2] < OLDEST:
        return fail(found, 'use Python 3.10, 3.11 or 3.12: the one of your ROS distribution')
    if sys.version_info[:2] > NEWEST:
        return warn(found, 'tested with 3.10 to 3.12 only: use the Python of your ROS distribution')
    return ok(found)


def cpu_quota(root: str | Path = '/sys/fs/cgroup', membership: str | Path = '/proc/self/cgroup') -> float | None:
    """Read the CPU quota of the container or slice from cgroup version 1 or 2.

    Args:
        root: where the cgroup file systems are mounted.
        membership: file with the cgroups of this process.

    Returns:
        The quota in cores, e.g. 1.5; None where there is no limit.
    """
    quotas: list[float] = []
    for line in Path(membership).read_text().splitlines() if Path(membership).exists() else ():
        _, controllers, inside = line.split(':', 2)
        if controllers and 'cpu' not in controllers.split(','):
            continue
        base = Path(root, controllers)
        # A container sees its own group at the top; elsewhere every group above limits too.
        for folder in (base / inside.lstrip('/'), *(base / inside.lstrip('/')).parents):
            if folder.is_relative_to(base):
                quotas += _quota_of(folder)
    return min(quotas, default=None)


def _quota_of(folder: Path) -> list[float]:
    try:
        if (folder / 'cpu.max').exists():
            quota, period = (folder / 'cpu.max').read_text().split()
        else:
            quota, period = ((folder / f'cpu.cfs_{name}_us').read_text().strip() for name in ('quota', 'period'))
    except OSError:
        return []
    return [] if quota in ('max', '-1') else [int(quota) / int(period)]


def cores() -> CheckResult:
    """Check whether a CPU quota allows less than the visible cores: the engine starts a thread for each core."""
    seen, quota = len(os.sched_getaffinity(0)), cpu_quota()
    found = f'{seen} usable of {os.cpu_count()}'
    if quota is not None and quota < seen:
        num_threads = max(int(quota), 1)
        return warn(f'{found}, but a quota of {quota:.1f} cores: more threads than that are throttled',
                    f'set the parameter num_threads:={num_threads}, or raise the container quota (docker --cpus)')
    return ok(found)


def gpu() -> CheckResult:
    """Check for an NVIDIA GPU or a Jetson with the tools of the driver."""
    jetson = Path('/etc/nv_tegra_release')
    if jetson.exists():
        return ok(f'Jetson, {jetson.read_text().splitlines()[0].lstrip("# ")[:60]}')
    if not shutil.which('nvidia-smi'):
        return skip('no NVIDIA GPU (no nvidia-smi); the engine runs on the CPU')
    query = ['nvidia-smi', '--query-gpu=name,driver_version,memory.total', '--format=csv,noheader']
    answer = subprocess.run(query, capture_output=True, text=True, timeout=30)
    if answer.returncode:
        return fail(f'nvidia-smi: {last_line(answer.stdout + answer.stderr)[:200]}',
                    'reinstall the NVIDIA driver and restart; in a container: docker run --gpus all')
    return ok('; '.join(answer.stdout.strip().splitlines()))


def has_gpu() -> bool:
    """Return whether an NVIDIA GPU is usable."""
    return gpu().status == 'ok'


def tensorrt() -> CheckResult:
    """Check TensorRT's Python module and its version."""
    result = run_code('import tensorrt; print(tensorrt.__version__)')
    if is_missing(result, 'tensorrt'):
        return skip('not installed; the engine runs on ONNX Runtime',
                    'for the fastest engine, pip install tensorrt cuda-python (Jetson: JetPack includes tensorrt)'
                    if has_gpu() else '')
    if not result.succeeded:
        return fail(f'cannot be imported: {result.reason}', 'reinstall it for this CUDA and this Python')
    if not run_code(CUDA_PYTHON).succeeded:
        return warn(f'version {result.answer}, but cuda-python is not installed: the engine cannot use it',
                    'pip install cuda-python of the version of your CUDA (JetPack 6: "cuda-python<13")')
    if tuple(map(int, result.answer.split('.')[:2])) < OLDEST_TENSORRT:
        return warn(f'version {result.answer}',
                    'versions before 10.3 are not tested: update JetPack, or pip install -U tensorrt')
    return ok(f'version {result.answer}')

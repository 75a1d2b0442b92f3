"""What CPU and GPU offer, found out without importing a heavy library."""

import os
import platform
from collections.abc import Iterable
from functools import cache
from pathlib import Path

# Names in /proc/cpuinfo. Without 8-bit dot products, products are accumulated in 16 bits and saturate.
INT8_DOT = {'avx512_vnni', 'avx_vnni', 'amx_int8', 'asimddp', 'i8mm'}
# The instruction sets that decide a network's speed, the best first, with their usual names.
VECTOR_EXTENSIONS = {'amx_int8': 'AMX', 'avx512_vnni': 'AVX-512 VNNI', 'avx512f': 'AVX-512', 'avx_vnni': 'AVX-VNNI',
                     'avx2': 'AVX2', 'i8mm': 'I8MM', 'asimddp': 'ASIMD dot products'}
HALF_PRECISION = {'avx512_bf16', 'amx_bf16', 'asimdhp'}   # bfloat16 on x86-64, fp16 on arm64
# Device nodes of NVIDIA's driver: a graphics card (Jetson Thor too), Jetson Orin and older, WSL 2.
GPU_DEVICES = ('/dev/nvidia0', '/dev/nvidiactl', '/dev/nvhost-gpu', '/dev/nvgpu', '/dev/dxg')


def usable_cores() -> int:
    """Return how many CPU cores this process may use; containers and taskset are taken into account."""
    return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1


@cache
def cpu_info() -> tuple[str, set[str]]:
    """Return model name and feature flags of the first core; both are empty where /proc/cpuinfo does not have them."""
    try:
        lines = Path('/proc/cpuinfo').read_text().split('\n\n')[0].splitlines()
    except OSError:
        lines = []
    fields = {key.strip(): value.strip() for key, _, value in (line.partition(':') for line in lines)}
    return fields.get('model name', ''), set((fields.get('flags') or fields.get('Features') or '').split())


def machine() -> str:
    """Describe this machine for tables and logs, e.g. 'x86_64, AMD EPYC, AVX2, 2 cores'."""
    name, flags = cpu_info()
    extension = next((title for flag, title in VECTOR_EXTENSIONS.items() if flag in flags), '')
    return ', '.join(filter(None, (platform.machine(), name, extension, f'{usable_cores()} cores')))


def has_int8_dot() -> bool:
    """Return whether this CPU has 8-bit dot products, with which int8 networks are fast and exact."""
    return bool(cpu_info()[1] & INT8_DOT)


def has_half() -> bool:
    """Return whether this CPU's vector units multiply in half precision."""
    return bool(cpu_info()[1] & HALF_PRECISION)


def has_gpu_device(devices: Iterable[str | Path] = GPU_DEVICES) -> bool:
    """Return whether the driver shows an NVIDIA GPU that this process may use; CUDA_VISIBLE_DEVICES counts.

    Args:
        devices: the driver's device nodes.
    """
    if os.environ.get('CUDA_VISIBLE_DEVICES', '0').strip() in ('', '-1', 'NoDevFiles'):
        return False
    return any(Path(device).exists() for device in devices)

"""What this processor offers, told without importing a library."""

import os
import platform
from functools import cache
from pathlib import Path

# Names in /proc/cpuinfo.  Without 8-bit dot products, products are added up in 16 bits and saturate.
INT8_DOT = {'avx512_vnni', 'avx_vnni', 'amx_int8', 'asimddp', 'i8mm'}
# The same names again, the best first, as people know what decides a network's speed.
VECTORS = {'amx_int8': 'AMX', 'avx512_vnni': 'AVX-512 VNNI', 'avx512f': 'AVX-512', 'avx_vnni': 'AVX-VNNI',
           'avx2': 'AVX2', 'i8mm': 'I8MM', 'asimddp': 'ASIMD dot products'}
HALF = {'avx512_bf16', 'amx_bf16', 'asimdhp'}   # bfloat16 on x86-64, fp16 on arm64


def usable_cores():
    """CPU cores this process may run on (containers and taskset counted)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1


@cache
def cpu_info():
    """(model name, set of feature flags) of the first core; empty where the system does not tell."""
    try:
        lines = Path('/proc/cpuinfo').read_text().split('\n\n')[0].splitlines()
    except OSError:
        lines = []
    fields = {key.strip(): value.strip() for key, _, value in (line.partition(':') for line in lines)}
    return fields.get('model name', ''), set((fields.get('flags') or fields.get('Features') or '').split())


def machine():
    """'x86_64, AMD EPYC, AVX2, 2 cores', for tables and logs."""
    name, flags = cpu_info()
    vectors = next((title for flag, title in VECTORS.items() if flag in flags), '')
    return ', '.join(filter(None, (platform.machine(), name, vectors, f'{usable_cores()} cores')))


def has_int8_dot():
    """Whether 8-bit networks are fast and exact here."""
    return bool(cpu_info()[1] & INT8_DOT)


def has_half():
    """Whether the vector units multiply in half precision here."""
    return bool(cpu_info()[1] & HALF)

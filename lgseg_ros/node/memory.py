"""The memory of the node's process: what it peaked at, and freed memory that the C library still keeps.

glibc gives back the end of its heaps only. Frames, masks and large requests of several threads that happened to be
alive at once leave holes for ever, so a node that runs for days would creep up to the sum of its worst moments.
"""

import ctypes
import re
import resource
from pathlib import Path

from rclpy.node import Node

from .rclpy_compat import create_steady_timer

TRIM_PERIOD_S = 10.0


def start_malloc_trim(node: Node) -> None:
    """Return freed memory to the system every `TRIM_PERIOD_S`; does nothing where the C library cannot (musl).

    Args:
        node: the node whose timer does it.
    """
    malloc_trim = getattr(ctypes.CDLL(None), 'malloc_trim', None)
    if malloc_trim:
        create_steady_timer(node, TRIM_PERIOD_S, lambda: malloc_trim(0))


def peak_memory_mb() -> int:
    """Return the peak resident memory of this process, MiB."""
    try:   # getrusage begins with what the process that started this one had
        found = re.search(r'VmHWM:\s*(\d+)', Path('/proc/self/status').read_text())
    except OSError:   # not Linux
        found = None
    kib = int(found[1]) if found else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kib // 1024

"""Memory of a training step on a CPU."""

import ctypes

# malloc.h of glibc
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4
MORE = 1 << 28   # bytes that the heap grows by


def keep_freed_memory():
    """Let the C library keep what is freed for the next step instead of giving it back to the system.

    By default glibc maps every large tensor anew and the kernel fills its pages with zeros, again and again: a sixth
    of a step on a CPU.  Returns whether the C library could be told (glibc; others are left as they are).
    """
    mallopt = getattr(ctypes.CDLL(None), 'mallopt', None)
    # A threshold of -1 is none at all.
    return bool(mallopt and mallopt(M_MMAP_MAX, 0) and mallopt(M_TRIM_THRESHOLD, -1) and mallopt(M_TOP_PAD, MORE))

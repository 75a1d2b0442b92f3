"""Memory that was freed and that the C library still keeps.

glibc gives back the end of its heaps only.  Frames, masks and large requests of several threads that happened to be
alive at once leave holes for ever, so a node that runs for days would creep up to the sum of its worst moments.
"""

import ctypes

from .timers import create_steady_timer

PERIOD_S = 10.0


def keep_trimmed(node):
    """Give holes back to the system every `PERIOD_S`; does nothing where the C library cannot (musl)."""
    trim = getattr(ctypes.CDLL(None), 'malloc_trim', None)
    if trim:
        create_steady_timer(node, PERIOD_S, lambda: trim(0))

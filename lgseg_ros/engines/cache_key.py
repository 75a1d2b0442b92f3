"""Names of compile caches, made of everything that shapes a compiled graph.

A library's own key may leave something out: OpenVINO 2026.4.1 leaves out the precision, and loads the graph of another
one.  So each combination has a folder of its own, in which only one kind of compiled graph can lie.
"""

import fcntl
import hashlib
import json
import os
import platform
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from ..utils.hardware import cpu_info

LOCK_SECONDS = 60.0   # longer than any compilation of a CPU graph takes; then go on without the cache


class CacheBusyError(OSError):
    """Another process has held the lock of a cache for too long."""


def cache_key(parts: Mapping[str, object]) -> str:
    """A name for what `parts` describe.

    Args:
        parts: everything that shapes the compiled graph, by name; values that JSON can hold.

    Returns:
        24 hexadecimal digits; equal only for equal parts, whatever their order.
    """
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:24]


def cpu_parts() -> dict[str, object]:
    """What a graph that was compiled for this CPU depends on: architecture, model name and instruction sets."""
    name, features = cpu_info()
    return {'architecture': platform.machine(), 'cpu': name, 'cpu_features': sorted(features)}


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Hold a cache folder alone, among all processes; the lock goes with its process, however that ends.

    Args:
        folder: made where it is missing; the lock file lies beside it.

    Raises:
        OSError: the folder cannot be made, or (CacheBusyError) its lock is not free within `LOCK_SECONDS`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder.with_name(f'{folder.name}.lock'), 'a') as file:
        deadline = time.monotonic() + LOCK_SECONDS
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise CacheBusyError(f'{folder} is held by another process') from None
                time.sleep(0.05)
        os.utime(folder)   # when it was last used
        yield


def remove_files(folder: Path) -> None:
    """Remove the compiled graphs in a cache folder; what cannot be removed stays."""
    for path in folder.glob('*'):
        with suppress(OSError):
            path.unlink()

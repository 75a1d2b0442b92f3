"""Names and locks of compile caches: one folder per combination of all that a compiled graph depends on.

A library's own key may be incomplete: OpenVINO 2026.4.1 leaves out the precision and loads the graph of another one.
With a folder per combination, only one compiled graph can be there.
"""

import hashlib
import json
import os
import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from ..utils.file_lock import file_lock
from ..utils.hardware import cpu_info

LOCK_SECONDS = 60.0
"""Longer than any compilation of a CPU graph takes; after it, the engine goes on without the cache."""


def cache_key(parts: Mapping[str, object]) -> str:
    """Return a name for a combination.

    Args:
        parts: all that the compiled graph depends on, by name; values that JSON can represent.

    Returns:
        24 hexadecimal digits; equal only for equal parts, whatever their order.
    """
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:24]


def cpu_parts() -> dict[str, object]:
    """Return what a graph compiled for this CPU depends on: architecture, model name and instruction sets."""
    name, features = cpu_info()
    return {'architecture': platform.machine(), 'cpu': name, 'cpu_features': sorted(features)}


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Lock a cache folder against other processes; the lock ends with its process at the latest.

    Args:
        folder: created where it is missing; the lock file is beside it.

    Raises:
        OSError: the folder cannot be created, or (LockTimeoutError) its lock is not free within `LOCK_SECONDS`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with file_lock(folder.with_name(f'{folder.name}.lock'), LOCK_SECONDS):
        os.utime(folder)   # the time of its last use
        yield


def remove_files(folder: Path) -> None:
    """Remove the compiled graphs in a cache folder; files that cannot be removed stay."""
    for path in folder.glob('*'):
        with suppress(OSError):
            path.unlink()

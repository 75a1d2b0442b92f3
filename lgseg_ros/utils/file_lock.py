"""Locks between processes, by files."""

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

POLL_S = 0.02


class LockTimeoutError(OSError):
    """Another process has held a lock for longer than the caller waits."""


@contextmanager
def file_lock(path: Path, timeout_s: float) -> Iterator[None]:
    """Hold a lock file; the kernel releases it however the process ends.

    Args:
        path: the lock file, created where it is missing.
        timeout_s: how long to wait for another process, s.

    Raises:
        OSError: the file cannot be opened, or (LockTimeoutError) another process holds the lock.
    """
    with open(path, 'a') as file:
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise LockTimeoutError(f'{path.name} is held by another process') from None
                time.sleep(POLL_S)
        yield

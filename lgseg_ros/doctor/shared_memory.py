"""Checks of shared memory: its size, and stale segments of killed processes."""

import fcntl
import os
import re
import shutil
import time
from pathlib import Path

from .check_result import CheckResult, ok, skip, warn

FOLDER = Path('/dev/shm')
NEEDED_BYTES = 256 << 20   # the shipped profile reserves 64 MB a participant; camera, node and two subscribers
MIN_AGE_S = 3.0            # a starting process creates its files before it locks them
MAX_LISTED = 4
# A segment is NAME and NAME_el; a port has sem.NAME_mutex too. A living owner holds a lock on NAME_el (or _sl).
LOCK_FILE = re.compile(r'((?:fastrtps|fastdds)_(?:port\d+|[0-9a-f]{16}))_[es]l')


def capacity(folder: Path = FOLDER) -> CheckResult:
    """Check whether /dev/shm exists and is large enough for images."""
    if not folder.is_dir():
        return skip(f'{folder} does not exist; Fast DDS uses UDP')
    status = os.statvfs(folder)
    total, free = status.f_blocks * status.f_frsize, status.f_bavail * status.f_frsize
    found = f'{total >> 20} MB, {free >> 20} MB free'
    if total < NEEDED_BYTES:
        return warn(f'{found}: images soon fill it', 'in a container: docker run --shm-size=1g (or --ipc=host); '
                    f'else sudo mount -o remount,size=1g {folder}')
    if free < NEEDED_BYTES:
        return warn(f'{found}: nearly full', 'remove the segments of killed processes: fastdds shm clean')
    return ok(found)


def stale_segments(folder: Path = FOLDER) -> CheckResult:
    """Check for Fast DDS segments of killed processes, which hold memory until they are removed."""
    if not folder.is_dir():
        return skip(f'{folder} does not exist')
    files = stale_files(folder)
    if not files:
        return ok('none')
    held = sum(path.stat().st_blocks * 512 for path in files)
    shown = ', '.join(path.name for path in files[:MAX_LISTED])
    if len(files) > MAX_LISTED:
        shown += f' and {len(files) - MAX_LISTED} more'
    command = 'fastdds shm clean' if shutil.which('fastdds') else f'rm -f {" ".join(map(str, files))}'
    return warn(f'{len(files)} files of killed processes hold {held / 1e6:.1f} MB: {shown}', command)


def stale_files(folder: Path = FOLDER) -> list[Path]:
    """Return the files in `folder` whose Fast DDS participant has ended, sorted."""
    files: set[Path] = set()
    for lock in folder.iterdir():
        match = LOCK_FILE.fullmatch(lock.name)
        if match and not _is_held(lock):
            files |= {lock, folder / match[1], folder / f'sem.{match[1]}_mutex'}
    return sorted(path for path in files if path.exists())


def _is_held(lock: Path) -> bool:
    """Return whether a live process holds the lock file, in any container that shares the folder; True when unknown."""
    try:
        with open(lock, 'rb') as file:
            if time.time() - os.fstat(file.fileno()).st_ctime < MIN_AGE_S:
                return True
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)   # released by closing; a _sl has several owners
    except OSError:
        return True
    return False

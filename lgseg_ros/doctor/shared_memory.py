"""Shared memory: room for pictures, and what killed processes left in it."""

import fcntl
import os
import re
import shutil
import time
from pathlib import Path

from .verdict import ok, skip, warn

FOLDER = Path('/dev/shm')
ROOM_BYTES = 256 << 20     # the shipped profile reserves 64 MB a participant; camera, node and two listeners
YOUNG_S = 3.0              # a process that just starts makes its files before it locks them
SHOWN = 4
# A segment is NAME and NAME_el; a port has sem.NAME_mutex too. A living owner holds a lock on NAME_el (or _sl).
LOCK_FILE = re.compile(r'((?:fastrtps|fastdds)_(?:port\d+|[0-9a-f]{16}))_[es]l')


def room(folder=FOLDER):
    """Whether /dev/shm exists and is large enough for pictures."""
    if not folder.is_dir():
        return skip(f'{folder} is not there; Fast DDS uses UDP')
    status = os.statvfs(folder)
    total, free = status.f_blocks * status.f_frsize, status.f_bavail * status.f_frsize
    found = f'{total >> 20} MB, {free >> 20} MB free'
    if total < ROOM_BYTES:
        return warn(f'{found}: pictures soon fill it', 'in a container: docker run --shm-size=1g (or --ipc=host); '
                    f'else sudo mount -o remount,size=1g {folder}')
    if free < ROOM_BYTES:
        return warn(f'{found}: nearly full', 'remove what killed processes left: fastdds shm clean')
    return ok(found)


def left_overs(folder=FOLDER):
    """Fast DDS files whose process was killed; they hold memory until somebody removes them."""
    if not folder.is_dir():
        return skip(f'{folder} is not there')
    files = abandoned_files(folder)
    if not files:
        return ok('none')
    kept = sum(path.stat().st_blocks * 512 for path in files)
    shown = ', '.join(path.name for path in files[:SHOWN])
    if len(files) > SHOWN:
        shown += f' and {len(files) - SHOWN} more'
    command = 'fastdds shm clean' if shutil.which('fastdds') else f'rm -f {" ".join(map(str, files))}'
    return warn(f'{len(files)} files of killed processes keep {kept / 1e6:.1f} MB: {shown}', command)


def abandoned_files(folder=FOLDER):
    """The existing files in `folder` that belong to Fast DDS participants which no longer live, sorted."""
    files = set()
    for lock in folder.iterdir():
        match = LOCK_FILE.fullmatch(lock.name)
        if match and not _is_held(lock):
            files |= {lock, folder / match[1], folder / f'sem.{match[1]}_mutex'}
    return sorted(path for path in files if path.exists())


def _is_held(lock):
    """Whether a living process holds the lock file, in any container that shares the folder; True when in doubt."""
    try:
        with open(lock, 'rb') as file:
            if time.time() - os.fstat(file.fileno()).st_ctime < YOUNG_S:
                return True
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)   # closing gives it back at once; owners share a _sl
    except OSError:
        return True
    return False

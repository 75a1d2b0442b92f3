"""What training asks of the machine: several processes as torchrun starts them, the device, the allocator."""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
from torch import distributed

TIMEOUT = timedelta(hours=2)  # the others wait at a barrier while the first evaluates
# malloc.h of glibc
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4
HEAP_STEP = 1 << 28   # bytes that the heap grows by


def rank_and_world() -> tuple[int, int]:
    """Return the rank of this process and the number of processes (torchrun's variables)."""
    return int(os.environ.get('RANK', 0)), int(os.environ.get('WORLD_SIZE', 1))


def select_device(name: str) -> torch.device:
    """Select the device of this process.

    Args:
        name: 'auto' for a GPU where there is one, else a name of torch. With several processes 'cuda' gives each its
            own GPU.

    Raises:
        ValueError: there is no such device here.
    """
    if name == 'auto':
        name = 'cuda' if torch.cuda.is_available() else 'cpu'
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f'device is {name!r}, which torch does not know; give auto, cpu, cuda or cuda:N') from error
    if device.type == 'cuda':
        if not torch.cuda.is_available():
            raise ValueError(f'device is {name}, and torch sees no CUDA device; give cpu, or install a CUDA build')
        if device.index is None:
            device = torch.device('cuda', int(os.environ.get('LOCAL_RANK', 0)))
        if device.index >= torch.cuda.device_count():
            raise ValueError(f'device is {device}, and there are {torch.cuda.device_count()} GPUs here; '
                             'start at most that many processes per machine')
        torch.cuda.set_device(device)
        torch.backends.cudnn.benchmark = True   # crops are of one size: the fastest convolution is worth a search
    return device


@contextmanager
def process_group(device: torch.device) -> Iterator[None]:
    """Join torchrun's other processes for the length of the block; does nothing where there is one process only."""
    if rank_and_world()[1] == 1:
        yield
        return
    distributed.init_process_group('nccl' if device.type == 'cuda' else 'gloo', timeout=TIMEOUT)
    try:
        yield
    finally:
        distributed.destroy_process_group()


def check_agreement(what: str, value: int, device: torch.device) -> None:
    """Check that all processes hold the same integer.

    Raises:
        ValueError: they do not.
    """
    if not distributed.is_initialized():
        return
    values = [torch.zeros(1, dtype=torch.int64, device=device) for _ in range(distributed.get_world_size())]
    distributed.all_gather(values, torch.tensor([value], dtype=torch.int64, device=device))
    found = [int(v) for v in values]
    if len(set(found)) > 1:
        raise ValueError(f'the processes are at different {what} {found}; '
                         'give all machines the same `out` on a shared file system')


def keep_freed_memory() -> bool:
    """Let the C library keep freed memory for the next step instead of returning it to the system.

    By default glibc maps every large tensor anew and the kernel fills its pages with zeros, again and again: a sixth of
    a step on a CPU.

    Returns:
        Whether the C library was configured (glibc; others are left as they are).
    """
    mallopt = getattr(ctypes.CDLL(None), 'mallopt', None)
    # A threshold of -1 is none at all.
    return bool(mallopt and mallopt(M_MMAP_MAX, 0) and mallopt(M_TRIM_THRESHOLD, -1) and mallopt(M_TOP_PAD, HEAP_STEP))

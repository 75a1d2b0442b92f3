"""Several processes, one per GPU or machine, as torchrun starts them."""

import os
from contextlib import contextmanager
from datetime import timedelta

import torch
from torch import distributed

PATIENCE = timedelta(hours=2)  # the others wait at a barrier while the first evaluates


def rank_and_world():
    """This process's rank and the number of processes (torchrun's variables)."""
    return int(os.environ.get('RANK', 0)), int(os.environ.get('WORLD_SIZE', 1))


def own_device(name):
    """The torch device of this process; 'auto' is a GPU where there is one.  With several processes, 'cuda' means
    each its own GPU.

    Raises ValueError when there is no such device here.
    """
    if name == 'auto':
        name = 'cuda' if torch.cuda.is_available() else 'cpu'
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f'--device {name!r} is none that torch knows; give auto, cpu, cuda or cuda:N') from error
    if device.type == 'cuda':
        if not torch.cuda.is_available():
            raise ValueError(f'--device {name}: torch sees no CUDA device; give --device cpu, or install a CUDA build')
        if device.index is None:
            device = torch.device('cuda', int(os.environ.get('LOCAL_RANK', 0)))
        if device.index >= torch.cuda.device_count():
            raise ValueError(f'--device {device}: there are {torch.cuda.device_count()} GPUs here; '
                             'start at most that many processes a machine')
        torch.cuda.set_device(device)
        torch.backends.cudnn.benchmark = True   # crops are of one size: the fastest convolution is worth a search
    return device


@contextmanager
def process_group(device):
    """Join torchrun's other processes for the length of the block; nothing where there is one process only."""
    if rank_and_world()[1] == 1:
        yield
        return
    distributed.init_process_group('nccl' if device.type == 'cuda' else 'gloo', timeout=PATIENCE)
    try:
        yield
    finally:
        distributed.destroy_process_group()


def check_agreement(what, value, device):
    """Raise ValueError unless all processes hold the same integer `value`."""
    if not distributed.is_initialized():
        return
    values = [torch.zeros(1, dtype=torch.int64, device=device) for _ in range(distributed.get_world_size())]
    distributed.all_gather(values, torch.tensor([value], dtype=torch.int64, device=device))
    found = [int(v) for v in values]
    if len(set(found)) > 1:
        raise ValueError(f'the processes are at different {what} {found}; '
                         'give all machines the same --out on a shared file system')

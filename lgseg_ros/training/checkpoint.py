"""Checkpoints: everything a run needs to go on, written atomically, never unpickled as code."""


import torch

from ..whole_file import whole_file


class CheckpointError(ValueError):
    """A checkpoint that cannot be used; the message names the file, the reason and the cure."""


def save_checkpoint(path, state):
    """Write `state` beside `path` and rename, so that a killed run leaves the last good file."""
    with whole_file(path) as partial:
        torch.save(state, partial)


def load_checkpoint(path):
    """Read a checkpoint, a dict of tensors and plain values.  Raises CheckpointError."""
    try:
        return dict(torch.load(path, map_location='cpu', weights_only=True))
    except FileNotFoundError:
        raise CheckpointError(f'{path} is missing; give the .pt file that "lgseg train" wrote') from None
    except Exception as error:  # torch raises many kinds for a damaged file
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise CheckpointError(f'{path} is damaged or no checkpoint ({reason}); delete it to start afresh') from error

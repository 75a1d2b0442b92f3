"""The folder of a training run: checkpoint.pt, log.jsonl (a line per epoch) and run.json (how it was started).

Checkpoints hold everything that a run needs to go on. They are written atomically and never unpickled as code.
"""

import importlib.metadata
import json
import math
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..model.baselines import create_model
from ..model.network import BaseNetwork, NetworkConfig
from ..utils.atomic_write import atomic_write
from ..vocabulary.compatibility import MIN_COSINE
from ..vocabulary.embedding_file import Embeddings, read_embeddings

CHECKPOINT, LOG, ORIGIN = 'checkpoint.pt', 'log.jsonl', 'run.json'
PACKAGES = ('torch', 'timm', 'numpy', 'opencv-python-headless')


class CheckpointError(ValueError):
    """A checkpoint that cannot be used; the message names the file, the reason and the fix."""


@dataclass(frozen=True)
class Run:
    """A run as far as it has come.

    Attributes:
        folder: of the run.
        model: its averaged network (EMA) in eval mode.
        config: the `TrainConfig` as a dict.
        epoch: number of finished epochs.
        log: one dict per epoch.
        origin: run.json: command, data, text_embeddings, versions; empty when there is none.
    """

    folder: Path
    model: BaseNetwork
    config: dict[str, Any]
    epoch: int
    log: list[dict[str, Any]]
    origin: dict[str, Any]

    @property
    def validation(self) -> dict[str, Any] | None:
        """The last validation metrics with their epoch, or None."""
        return last_validation(self.log)


def save_checkpoint(path: str | Path, state: dict[str, Any]) -> None:
    """Write `state` beside `path` and rename, so that a killed run leaves the last good file."""
    with atomic_write(path) as partial:
        torch.save(state, partial)


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint, a dict of tensors and plain values.

    Raises:
        CheckpointError: it is missing or damaged.
    """
    try:
        return dict(torch.load(path, map_location='cpu', weights_only=True))
    except FileNotFoundError:
        raise CheckpointError(f'{path} is missing; give the .pt file that "lgseg train" wrote') from None
    except Exception as error:  # torch raises many kinds for a damaged file
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise CheckpointError(f'{path} is damaged or no checkpoint ({reason}); delete it to start afresh') from error


def load_run(folder: str | Path) -> Run:
    """Read the folder of a run.

    Raises:
        CheckpointError: the checkpoint is missing, damaged or of another kind.
    """
    folder = Path(folder)
    path = folder / CHECKPOINT
    state = load_checkpoint(path)
    try:
        model = create_model(state['config'].get('head', 'ours'), NetworkConfig(**state['model_config']))
        model.load_state_dict(state['ema'])
        config, epoch = state['config'], state['epoch']
    except (KeyError, TypeError, RuntimeError) as error:
        raise CheckpointError(f'{path} is no checkpoint of this network ({str(error).splitlines()[0]})') from error
    return Run(folder, model.eval(), config, epoch, read_log(folder, epoch), read_origin(folder))


def read_text_embeddings(run: Run, file: str | Path | None = None) -> Embeddings:
    """Read the text embeddings that a run was trained with.

    Args:
        run: the run.
        file: another file of the same text encoder; default the run's own.

    Raises:
        ValueError: the run names no file, or the embeddings are of another width or encoder.
    """
    used = run.origin.get('text_embeddings')
    file = file or used
    if not file:
        raise ValueError(f'{run.folder} does not name its text embeddings; give `text_embeddings`, an .npz file')
    text_embeddings = read_embeddings(file)
    expected, width = run.model.config.text_dim, text_embeddings.vectors.shape[1]
    if expected != width:
        raise ValueError(f'{file} holds text embeddings of width {width}, {run.folder} was trained with {expected}; '
                         'give a file of the same text encoder')
    if file != used and used and Path(used).is_file():
        check_same_space(text_embeddings, read_embeddings(used), str(file), used)
    return text_embeddings


def check_same_space(text_embeddings: Embeddings, other: Embeddings, file: str, used: str) -> None:
    """Check that text embeddings from `file` and from `used` are of one text encoder.

    Raises:
        ValueError: they are not.
    """
    vectors = dict(zip(other.names, other.vectors, strict=True))
    shared = [i for i, name in enumerate(text_embeddings.names) if name in vectors]
    cosine = (
        float(np.median([text_embeddings.vectors[i] @ vectors[text_embeddings.names[i]] for i in shared]))
        if shared
        else 1.0
    )
    named = text_embeddings.space is None or other.space is None or text_embeddings.space.same_vectors(other.space)
    if not named or cosine < MIN_COSINE:
        raise ValueError(f'{file} is of another text encoder than {used}, which the run was trained with (median '
                         f'cosine {cosine:.3f} over {len(shared)} phrases of both); give a file of the same encoder '
                         'and template')


def read_log(folder: str | Path, epoch: float = math.inf) -> list[dict[str, Any]]:
    """Read the records up to `epoch`, the checkpoint's, in order.  One that a killed run wrote twice counts once."""
    path = Path(folder) / LOG
    lines = path.read_text().splitlines() if path.exists() else []
    records = {}
    for line in lines:
        try:
            record = json.loads(line)
        except ValueError:
            continue  # the half line of a killed process
        records[record['epoch']] = record
    return [records[number] for number in sorted(records) if number <= epoch]


def last_validation(log: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Return the last validation metrics of a log with their `epoch`, or None."""
    return next(({'epoch': record['epoch'], **record['validation']} for record in reversed(log)
                 if 'validation' in record), None)


def read_origin(folder: str | Path) -> dict[str, Any]:
    """Return run.json as a dict; empty where there is none."""
    path = Path(folder) / ORIGIN
    return json.loads(path.read_text()) if path.exists() else {}


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that a run's results depend on."""
    found = {'python': platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # a distribution's OpenCV has no package of that name
    return found

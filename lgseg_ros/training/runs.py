"""The folder of a training run: checkpoint.pt, log.jsonl (a line per epoch) and run.json (how it was made)."""

import importlib.metadata
import json
import math
import platform
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ..model.baselines import create_model
from ..model.network import NetworkConfig
from ..vocabulary.embedding_file import read_embeddings
from ..vocabulary.compatibility import MIN_COSINE
from .checkpoint import CheckpointError, load_checkpoint

PACKAGES = ('torch', 'timm', 'numpy', 'opencv-python-headless')


@dataclass(frozen=True)
class Run:
    """A run as far as it has come: `model` is its EMA in eval mode, `config` the recipe as a dict."""

    folder: Path
    model: torch.nn.Module
    config: dict
    epoch: int
    log: list           # one dict per epoch
    origin: dict        # run.json: command, data, bank, versions; empty when there is none

    @property
    def validation(self):
        """The last validation summary with its epoch, or None."""
        return last_validation(self.log)


def load_run(folder):
    """Read a run's folder.  Raises CheckpointError naming the file when it is missing, damaged or of another kind."""
    folder = Path(folder)
    path = folder / 'checkpoint.pt'
    state = load_checkpoint(path)
    try:
        model = create_model(state['config'].get('head', 'ours'), NetworkConfig(**state['model_config']))
        model.load_state_dict(state['ema'])
        config, epoch = state['config'], state['epoch']
    except (KeyError, TypeError, RuntimeError) as error:
        raise CheckpointError(f'{path} is no checkpoint of this network ({str(error).splitlines()[0]})') from error
    return Run(folder, model.eval(), config, epoch, read_log(folder, epoch), read_origin(folder))


def read_bank(run, file=None):
    """The `Embeddings` of the text bank that the run was trained with, or of another `file` of the same text encoder.

    Raises ValueError when there is none, or its embeddings are of another width or encoder.
    """
    used = run.origin.get('bank')
    file = file or used
    if not file:
        raise ValueError(f'{run.folder} does not say which text bank it used; give --bank FILE.npz')
    bank = read_embeddings(file)
    wanted, got = run.model.config.text_dim, bank.vectors.shape[1]
    if wanted != got:
        raise ValueError(f'{file} holds text embeddings of width {got}, {run.folder} was trained with {wanted}; '
                         'give the bank of the same text encoder')
    if file != used and used and Path(used).is_file():
        check_same_space(bank, read_embeddings(used), file, used)
    return bank


def check_same_space(bank, other, file, used):
    """Raises ValueError when the vectors of two `Embeddings`, read from `file` and `used`, are of different encoders."""
    theirs = dict(zip(other.names, other.vectors))
    shared = [i for i, name in enumerate(bank.names) if name in theirs]
    cosine = float(np.median([bank.vectors[i] @ theirs[bank.names[i]] for i in shared])) if shared else 1.0
    named = bank.space is None or other.space is None or bank.space.same_vectors(other.space)
    if not named or cosine < MIN_COSINE:
        raise ValueError(f'{file} is of another text encoder than {used}, which the run was trained with (median cosine '
                         f'{cosine:.3f} over {len(shared)} names of both); give a bank of the same encoder and template')


def read_log(folder, epoch=math.inf):
    """The records up to `epoch`, the checkpoint's, in order.  One that a killed run wrote twice counts once."""
    path = Path(folder) / 'log.jsonl'
    lines = path.read_text().splitlines() if path.exists() else []
    records = {}
    for line in lines:
        try:
            record = json.loads(line)
        except ValueError:
            continue  # the half line of a killed process
        records[record['epoch']] = record
    return [records[number] for number in sorted(records) if number <= epoch]


def last_validation(log):
    """The last validation summary of a log with its `epoch`, or None."""
    return next(({'epoch': record['epoch'], **record['validation']} for record in reversed(log)
                 if 'validation' in record), None)


def read_origin(folder):
    """run.json as a dict; empty where there is none."""
    path = Path(folder) / 'run.json'
    return json.loads(path.read_text()) if path.exists() else {}


def versions():
    """Versions of Python and of the packages that decide a run's numbers."""
    found = {'python': platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # a distribution's OpenCV has no package of that name
    return found

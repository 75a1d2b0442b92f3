"""The folder of a training run: checkpoint.pt, log.jsonl (a line per epoch) and run.json (how it was made)."""

import importlib.metadata
import json
import platform
from dataclasses import dataclass
from pathlib import Path

import torch

from ..model.baselines import create_model
from ..model.segmenter import SegmenterConfig
from ..vocabulary.embedding_file import read_embeddings
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
        model = create_model(state['config'].get('head', 'ours'), SegmenterConfig(**state['model_config']))
        model.load_state_dict(state['ema'])
        config, epoch = state['config'], state['epoch']
    except (KeyError, TypeError, RuntimeError) as error:
        raise CheckpointError(f'{path} is no checkpoint of this network ({str(error).splitlines()[0]})') from error
    return Run(folder, model.eval(), config, epoch, read_log(folder), read_origin(folder))


def read_bank(run, file=None):
    """The `Embeddings` of the text bank that the run was trained with, or of another `file` of the same text encoder.

    Raises ValueError when there is none, or its embeddings are of another width.
    """
    file = file or run.origin.get('bank')
    if not file:
        raise ValueError(f'{run.folder} does not say which text bank it used; give --bank FILE.npz')
    bank = read_embeddings(file)
    wanted, got = run.model.config.text_dim, bank.vectors.shape[1]
    if wanted != got:
        raise ValueError(f'{file} holds text embeddings of width {got}, {run.folder} was trained with {wanted}; '
                         'give the bank of the same text encoder')
    return bank


def read_log(folder):
    """The epochs' records in order.  An epoch that a killed run wrote twice counts once."""
    path = Path(folder) / 'log.jsonl'
    lines = path.read_text().splitlines() if path.exists() else []
    records = {}
    for line in lines:
        try:
            record = json.loads(line)
        except ValueError:
            continue  # the half line of a killed process
        records[record['epoch']] = record
    return [records[epoch] for epoch in sorted(records)]


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

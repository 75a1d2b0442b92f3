"""The training loop: one or several data sets, one or several processes, resumable.

    python -m lgseg_ros.cli.main train --data DIR --bank BANK.npz --out RUN
    torchrun --nproc-per-node 2 -m lgseg_ros.cli.main train ...
"""

import copy
import json
import math
import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from ..model.segmenter import Segmenter, SegmenterConfig
from .augment import augment
from .checkpoint import load_checkpoint, save_checkpoint
from .evaluate import evaluate
from .losses import balanced_weights, segmentation_loss
from .predict import to_input, torch_predictor
from .words import WordSampler


@dataclass(frozen=True)
class TrainConfig:
    """The whole recipe; stored in every checkpoint."""

    epochs: int = 60
    batch: int = 8                  # pictures per step and process
    height: int = 288               # crop, a multiple of 32
    width: int = 384
    learning_rate: float = 1.5e-3
    backbone_rate: float = 0.4      # backbone's learning rate over the head's
    weight_decay: float = 0.02
    warmup: int = 100               # steps
    ema: float = 0.998
    max_distractors: int = 100
    word_augmentation: bool = True
    evaluate_every: int = 5         # epochs
    seed: int = 0
    pretrained: str = 'imagenet'


def rank_and_world():
    """This process's rank and the number of processes (torchrun's variables)."""
    return int(os.environ.get('RANK', 0)), int(os.environ.get('WORLD_SIZE', 1))


def learning_rate_factor(step, total, warmup):
    """Linear warm-up, then a half cosine down to zero."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(total - warmup, 1)))


class Batches:
    """The batches of an epoch: each from one data set, drawn in proportion to its size.

    Every random choice comes from (seed, epoch, position), so a resumed run sees what an
    unbroken one would have.
    """

    def __init__(self, datasets, samplers, config):
        self.datasets, self.samplers, self.config = datasets, samplers, config
        self.rank, world = rank_and_world()
        self.share = config.batch * world
        self.per_epoch = sum(max(len(d) // self.share, 1) for d in datasets)

    def plan(self, epoch):
        """A list of (data set index, picture indices of all processes)."""
        rng = np.random.default_rng([self.config.seed, epoch])
        steps = []
        for which, dataset in enumerate(self.datasets):
            count = max(len(dataset) // self.share, 1) * self.share
            order = np.concatenate([rng.permutation(len(dataset)) for _ in range(-(-count // len(dataset)))])
            steps += [(which, part) for part in np.split(order[:count], count // self.share)]
        return [steps[i] for i in rng.permutation(len(steps))]

    def load(self, epoch, position, which, indices):
        """Images uint8 [B, h, w, 3], labels uint8 [B, h, w], and the step's words and grid phase."""
        config, dataset = self.config, self.datasets[which]
        step = np.random.default_rng([config.seed, epoch, position])  # the same in every process
        wording, phase = self.samplers[which].sample(step), tuple(step.integers(2, size=2))
        mine = indices[self.rank * config.batch:][:config.batch]
        views = [augment(dataset.images[i], dataset.labels[i], (config.height, config.width),
                         np.random.default_rng([config.seed, epoch, position, n, self.rank]))
                 for n, i in enumerate(mine)]
        images, labels = (torch.from_numpy(np.stack(part)) for part in zip(*views))
        return which, images, labels, wording, phase

    def epoch(self, epoch):
        """Yield the epoch's batches, the next two being made in a thread meanwhile."""
        plan = self.plan(epoch)
        with ThreadPoolExecutor(1) as pool:
            waiting = []
            for position, (which, indices) in enumerate(plan):
                waiting.append(pool.submit(self.load, epoch, position, which, indices))
                if len(waiting) > 2:
                    yield waiting.pop(0).result()
            yield from (future.result() for future in waiting)


class Step(torch.nn.Module):
    """Project the words and segment in one call, so that data parallelism sees every parameter."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, images, embeddings):
        return self.model(images, self.model.project_text(embeddings))


class Trainer:
    """Model, optimiser, EMA and position of one run."""

    def __init__(self, datasets, validation, bank, config, model_config=SegmenterConfig(), device='cpu'):
        """Raises VocabularyError for a class whose phrases the bank has not, before any work."""
        torch.manual_seed(config.seed)
        self.config, self.device, self.epoch = config, torch.device(device), 0
        self.samplers = [WordSampler(d.specs, bank, config.max_distractors, config.word_augmentation)
                         for d in datasets]
        self.validation = validation
        self.validation_words = WordSampler(validation.specs, bank).plain() if validation else None
        self.weights = [balanced_weights(d.class_frequencies()).to(self.device) for d in datasets]
        self.batches = Batches(datasets, self.samplers, config)
        self.model = Segmenter(model_config, config.pretrained).to(self.device, memory_format=torch.channels_last)
        self.ema = copy.deepcopy(self.model).requires_grad_(False)
        self.optimiser = self._optimiser()
        step = Step(self.model)
        self.step = DistributedDataParallel(step, find_unused_parameters=True) if rank_and_world()[1] > 1 else step

    def _optimiser(self):
        groups = {}
        for name, parameter in self.model.named_parameters():
            key = (name.startswith('backbone'), parameter.ndim > 1)  # no decay on biases and norms
            groups.setdefault(key, []).append(parameter)
        rate, config = self.config.learning_rate, self.config
        return torch.optim.AdamW([
            {'params': parameters, 'base': rate * (config.backbone_rate if backbone else 1),
             'weight_decay': config.weight_decay if decayed else 0}
            for (backbone, decayed), parameters in groups.items()])

    def train_epoch(self, progress=True):
        """One pass; returns the mean of each loss part."""
        self.model.train()
        count, total = self.batches.per_epoch, self.batches.per_epoch * self.config.epochs
        sums = {}
        bar = tqdm(self.batches.epoch(self.epoch), total=count, leave=False,
                   desc=f'epoch {self.epoch + 1}/{self.config.epochs}', disable=not progress)
        for position, batch in enumerate(bar):
            step = self.epoch * count + position
            for group in self.optimiser.param_groups:
                group['lr'] = group['base'] * learning_rate_factor(step, total, self.config.warmup)
            for name, value in self._train_step(*batch, step).items():
                sums[name] = sums.get(name, 0) + value / count
            bar.set_postfix(loss=f'{sums["cross_entropy"] * count / (position + 1):.3f}')
        self.epoch += 1
        return sums

    def _train_step(self, which, images, labels, wording, phase, step):
        embeddings = torch.from_numpy(wording.embeddings).to(self.device)
        row_class = torch.from_numpy(wording.row_class).to(self.device)
        pixels = to_input(images.to(self.device)).contiguous(memory_format=torch.channels_last)
        output = self.step(pixels, embeddings)
        loss, parts = segmentation_loss(output, labels.to(self.device), row_class, self.weights[which], phase)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 5.0)
        self.optimiser.step()
        self._update_ema(min(self.config.ema, (step + 1) / (step + 10)))
        return parts

    @torch.no_grad()
    def _update_ema(self, decay):
        for slow, fast in zip(self.ema.state_dict().values(), self.model.state_dict().values()):
            if slow.dtype.is_floating_point:
                slow.lerp_(fast, 1 - decay)
            else:
                slow.copy_(fast)

    def state(self):
        """Everything `restore` needs, as tensors and plain values."""
        return {'config': asdict(self.config), 'model_config': self.model.describe(), 'epoch': self.epoch,
                'model': self.model.state_dict(), 'ema': self.ema.state_dict(),
                'optimiser': self.optimiser.state_dict()}

    def restore(self, path):
        """Go on from a checkpoint of the same recipe.

        Raises CheckpointError for a damaged file and ValueError when the recipe differs.
        """
        state = load_checkpoint(path)
        for name, mine in (('config', asdict(self.config)), ('model_config', self.model.describe())):
            if state[name] != mine:
                changed = [key for key in mine if state[name].get(key) != mine[key]]
                raise ValueError(f'{path} was trained with another {", ".join(changed)}; '
                                 'give the same options to resume, or another --out to start afresh')
        self.model.load_state_dict(state['model'])
        self.ema.load_state_dict(state['ema'])
        self.optimiser.load_state_dict(state['optimiser'])
        self.epoch = state['epoch']


def train(trainer, out, progress=True, until=None):
    """Run `trainer` to the end (or to epoch `until`), resuming from OUT/checkpoint.pt where there is one.

    Writes OUT/checkpoint.pt after every epoch and OUT/log.jsonl, a JSON line per epoch.
    Returns the last validation summary, or None.
    """
    out, first = Path(out), rank_and_world()[0] == 0
    out.mkdir(parents=True, exist_ok=True)
    if (out / 'checkpoint.pt').exists():
        trainer.restore(out / 'checkpoint.pt')
    summary, config = None, trainer.config
    while trainer.epoch < min(until or config.epochs, config.epochs):
        start = time.monotonic()
        record = trainer.train_epoch(progress and first)
        record = {'epoch': trainer.epoch, 'seconds': round(time.monotonic() - start, 1), **record}
        last = trainer.epoch == config.epochs
        if first and trainer.validation and (last or trainer.epoch % config.evaluate_every == 0):
            summary = evaluate(trainer.ema, trainer.validation, trainer.validation_words, progress)
            record['validation'] = summary
        if first:
            save_checkpoint(out / 'checkpoint.pt', trainer.state())
            with open(out / 'log.jsonl', 'a') as log:
                log.write(json.dumps(record) + '\n')
        if distributed.is_initialized():
            distributed.barrier()
    return summary

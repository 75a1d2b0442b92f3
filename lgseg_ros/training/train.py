"""The training loop: one or several data sets, one or several processes, resumable.

    lgseg train --data DIR --bank BANK.npz --out RUN
    torchrun --nproc-per-node 2 -m lgseg_ros.cli.main train --data DIR --bank BANK.npz --out RUN
"""

import copy
import json
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from ..engines.frames import ALL_PIXELS, SMALLEST
from ..model.baselines import create_model
from ..model.network import NetworkConfig
from .batches import Batches
from .checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from .evaluate import evaluate
from .losses import balanced_weights, segmentation_loss
from .parallel import check_agreement, rank_and_world
from .predict import to_input, torch_predictor
from .runs import last_validation, read_log
from .words import WordSampler


@dataclass(frozen=True)
class TrainConfig:
    """The whole recipe; stored in every checkpoint.  A new field needs the default that old runs had."""

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
    head: str = 'ours'              # or a baseline: lseg, denseclip
    unseen: tuple = ()              # names of classes whose labels were hidden
    balance: float = 0.5            # class weights are frequency ** -balance; 0: every pixel alike
    smallest: float = 0.6           # pictures are scaled at random by this
    largest: float = 1.9            # to this
    others: float = 0.0             # weight of the loss by which unlabelled pixels are of none of the classes; 0: none
    paste: float = 0.0              # chance of each of the rarer half of the classes to be pasted from another picture
    network_pixels: int = 0         # larger pictures are shrunk to it, as a robot's engine shrinks them; 0: none are
    init: str = ''                  # name of the trained weights that the run began with


def learning_rate_factor(step, total, warmup):
    """Linear warm-up, of half the run at most, then a half cosine down to zero."""
    warmup = min(warmup, total // 2)   # many processes make few steps, and the rate would never get to its peak
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(total - warmup, 1)))


class Step(torch.nn.Module):
    """Project the words and segment in one call, so that data parallelism sees every parameter."""

    def __init__(self, model, precision=None):
        """precision: torch.bfloat16 for mixed precision, None for none."""
        super().__init__()
        self.model, self.precision = model, precision

    def forward(self, images, embeddings):
        rows = self.model.project_text(embeddings)
        with torch.autocast(images.device.type, self.precision, enabled=self.precision is not None):
            return self.model(images, rows)


class Trainer:
    """Model, optimiser, EMA and position of one run."""

    def __init__(self, datasets, validation, bank, config, model_config=NetworkConfig(), device='cpu', loaders=1,
                 start=None):
        """datasets: to train on; validation: Dataset or None; loaders: threads that make batches;
        start: a network of `model_config` to begin with.

        Raises VocabularyError for a class whose phrases the bank has not, and ValueError for a recipe that cannot
        work, before any training.
        """
        check_recipe(config)
        torch.manual_seed(config.seed)
        self.config, self.device, self.epoch = config, torch.device(device), 0
        self.classes = [[spec.name for spec in dataset.specs] for dataset in datasets]
        samplers = [WordSampler(d.specs, bank, config.max_distractors, config.word_augmentation, d.hidden)
                    for d in datasets]
        self.validation = validation
        self.validation_words = WordSampler(validation.specs, bank).plain() if validation else None
        self.weights = [balanced_weights(d.class_frequencies(), config.balance).to(self.device) for d in datasets]
        self.batches = Batches(datasets, samplers, config, loaders, pin=self.device.type == 'cuda')
        self.model = create_model(config.head, model_config, config.pretrained)
        if start is not None:
            self.model.load_state_dict(start.state_dict())
        self.model.to(self.device, memory_format=torch.channels_last)
        self.ema = copy.deepcopy(self.model).requires_grad_(False)
        self.optimiser = self._optimiser()
        step = Step(self.model, mixed_precision(self.device))
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
        """One pass; returns the mean of each loss part.  Raises ValueError when the loss is no longer a number."""
        self.model.train()
        # Layers that draw (drop path, dropout) then draw the same after a resume.
        torch.manual_seed(self.config.seed * 100_003 + self.epoch)
        count, total = self.batches.per_epoch, self.batches.per_epoch * self.config.epochs
        sums = {}
        bar = tqdm(self.batches.epoch(self.epoch), total=count, leave=False, disable=None if progress else True,
                   desc=f'epoch {self.epoch + 1}/{self.config.epochs}')
        for position, batch in enumerate(bar):
            step = self.epoch * count + position
            for group in self.optimiser.param_groups:
                group['lr'] = group['base'] * learning_rate_factor(step, total, self.config.warmup)
            for name, value in self._train_step(batch, step).items():
                sums[name] = sums.get(name, 0) + value
            if not bar.disable and position % 10 == 0:   # reading the value waits for a GPU
                bar.set_postfix(loss=f'{sums["cross_entropy"].item() / (position + 1):.3f}')
        self.epoch += 1
        means = {name: value.item() / count for name, value in sums.items()}
        if not all(map(math.isfinite, means.values())):
            raise ValueError(f'the loss became {means} in epoch {self.epoch}; start again with a lower --lr '
                             '(the checkpoint of the epoch before is kept)')
        return means

    def _train_step(self, batch, step):
        images, labels, embeddings = (
            tensor.to(self.device, non_blocking=True)
            for tensor in (batch.images, batch.labels, torch.from_numpy(batch.wording.vectors)))
        output = self.step(to_input(images).contiguous(memory_format=torch.channels_last), embeddings)
        row_class = torch.from_numpy(batch.wording.row_class)
        loss, parts = segmentation_loss(output, labels, row_class, self.weights[batch.which], batch.phase,
                                        self.config.others)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 5.0)
        self.optimiser.step()
        self._update_ema(min(self.config.ema, (step + 1) / (step + 10)))
        return parts

    @torch.no_grad()
    def _update_ema(self, decay):
        pairs = list(zip(self.ema.state_dict().values(), self.model.state_dict().values()))
        floats = [pair for pair in pairs if pair[0].dtype.is_floating_point]
        torch._foreach_lerp_(*map(list, zip(*floats)), 1 - decay)   # one kernel instead of hundreds
        for slow, fast in pairs:
            if not slow.dtype.is_floating_point:
                slow.copy_(fast)

    def evaluate(self, progress=True):
        """The EMA's metrics on the validation split, with the data set's own words."""
        return evaluate(self._predictor(), self.validation, progress)

    def _predictor(self):
        words = self.validation_words
        with torch.no_grad():
            rows = self.ema.project_text(torch.from_numpy(words.vectors).to(self.device))
        return torch_predictor(self.ema, rows, words.row_class, self.config.network_pixels or ALL_PIXELS)

    def rehearse(self):
        """Predict one validation picture, so that what would fail after the first epochs fails now."""
        if self.validation:
            self._predictor()(self.validation.images[0])

    def state(self):
        """Everything `restore` needs, as tensors and plain values."""
        return {'config': asdict(self.config), 'model_config': self.model.describe(), 'epoch': self.epoch,
                'classes': self.classes, 'model': self.model.state_dict(), 'ema': self.ema.state_dict(),
                'optimiser': self.optimiser.state_dict()}

    def restore(self, path):
        """Go on from a checkpoint of the same recipe.

        Raises CheckpointError for a damaged file and ValueError when the recipe or the data's classes differ.
        """
        state = load_checkpoint(path)
        missing = {'config', 'model_config', 'model', 'ema', 'optimiser', 'epoch'} - set(state)
        if missing:
            raise CheckpointError(f'{path} is of another program (it has no {", ".join(sorted(missing))}); '
                                  'give another --out')
        defaults = {'config': asdict(TrainConfig()), 'model_config': asdict(NetworkConfig())}
        for name, mine in (('config', asdict(self.config)), ('model_config', self.model.describe())):
            stored = {**defaults[name], **state[name]}   # what the run could not yet know had the default
            changed = [key for key in mine if stored[key] != mine[key]]
            if changed:
                raise ValueError(f'{path} was trained with another {", ".join(changed)}; '
                                 'give the same options to resume, or another --out to start afresh')
        if state.get('classes', self.classes) != self.classes:
            raise ValueError(f'{path} was trained on other classes; '
                             'give the same --data to resume, or another --out to start afresh')
        self.model.load_state_dict(state['model'])
        self.ema.load_state_dict(state['ema'])
        self.optimiser.load_state_dict(state['optimiser'])
        self.epoch = state['epoch']


def check_recipe(config):
    """Raise ValueError for options that no run can have."""
    if config.height % 32 or config.width % 32 or min(config.height, config.width) < 64:
        raise ValueError(f'crop {config.height}x{config.width}: give multiples of 32, at least 64x64')
    for name in ('epochs', 'batch', 'evaluate_every', 'warmup', 'learning_rate'):
        if not 0 < getattr(config, name) < math.inf:
            raise ValueError(f'{name.replace("_", " ")} is {getattr(config, name)}; give more than 0')
    if not 0 <= config.ema < 1:
        raise ValueError(f'ema is {config.ema}; give 0 (no average) or more, and less than 1')
    if config.network_pixels and config.network_pixels < SMALLEST ** 2:
        raise ValueError(f'network pixels is {config.network_pixels}; give at least {SMALLEST ** 2}, or 0 for all')
    if not 0.1 <= config.smallest <= config.largest <= 10:
        raise ValueError(f'scales {config.smallest} to {config.largest}: give a smaller and a larger one of 0.1 to 10')
    if not 0 <= config.paste <= 1:
        raise ValueError(f'paste is {config.paste}; give a chance of 0 to 1')
    if config.paste and config.batch < 2:
        raise ValueError(f'paste is {config.paste:g}, but a batch of 1 has no other picture to paste from; give a --batch '
                         'of 2 or more')
    for name in ('others', 'balance', 'max_distractors', 'seed'):
        if not 0 <= getattr(config, name) < math.inf:
            raise ValueError(f'{name.replace("max_", "")} is {getattr(config, name)}; give 0 or more')
    if config.others and not (config.word_augmentation and config.max_distractors):
        raise ValueError(f'others is {config.others:g}, but there are no absent names for unlabelled pixels to be of; '
                         'leave the word augmentation on, with 1 distractor or more')


def mixed_precision(device):
    """torch.bfloat16 on a GPU that computes with it, else None.  It has fp32's range, so the loss needs no scaling."""
    able = device.type == 'cuda' and torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.bfloat16 if able else None


def train(trainer, out, progress=True, until=None):
    """Run `trainer` to the end (or to epoch `until`), resuming from OUT/checkpoint.pt where there is one.

    Writes OUT/checkpoint.pt after every epoch and OUT/log.jsonl, a JSON line per epoch.
    Returns the run's last validation summary with its epoch, or None.
    """
    out, first = Path(out), rank_and_world()[0] == 0
    out.mkdir(parents=True, exist_ok=True)
    if (out / 'checkpoint.pt').exists():
        trainer.restore(out / 'checkpoint.pt')
    elif first:
        (out / 'log.jsonl').unlink(missing_ok=True)   # of a run whose checkpoint was deleted
    check_agreement('epochs', trainer.epoch, trainer.device)
    config = trainer.config
    if first:
        trainer.rehearse()
    while trainer.epoch < (config.epochs if until is None else min(until, config.epochs)):
        start = time.monotonic()
        record = trainer.train_epoch(progress and first)
        record = {'epoch': trainer.epoch, 'seconds': round(time.monotonic() - start, 1), **record}
        due = trainer.epoch == config.epochs or trainer.epoch % config.evaluate_every == 0
        if first and trainer.validation and due:
            record['validation'] = trainer.evaluate(progress)
        if first:
            # The line first: killed in between, the epoch is run and logged again, and the reader takes the last.
            with open(out / 'log.jsonl', 'a') as log:
                log.write(json.dumps(record) + '\n')
            save_checkpoint(out / 'checkpoint.pt', trainer.state())
        if distributed.is_initialized():
            distributed.barrier()
    return last_validation(read_log(out, trainer.epoch))

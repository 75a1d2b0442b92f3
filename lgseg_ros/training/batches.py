"""The batches of an epoch: planned from the seed, made by threads while the network works on earlier ones."""

from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import torch

from .augment import augment, paste
from .parallel import rank_and_world
from .words import Wording


class Batch(NamedTuple):
    """One step's input, from one data set."""

    which: int               # index of the data set
    images: torch.Tensor     # uint8 [B, h, w, 3] RGB
    labels: torch.Tensor     # uint8 [B, h, w] class indices, 255 void, 254 outside the picture
    wording: Wording
    phase: tuple             # (y, x), 0 or 1 each: where the loss's grid of pixels starts


class Batches:
    """Every random choice comes from (seed, epoch, position), so a resumed run sees what an unbroken one would have.

    Each batch is of one data set, since its labels are read by that data set's words; data sets take turns in
    proportion to their sizes.
    """

    def __init__(self, datasets, samplers, config, threads=1, pin=False):
        """datasets, samplers: one each; config: TrainConfig; threads: that make batches; pin: for a GPU's copies."""
        self.datasets, self.samplers, self.config, self.threads, self.pin = datasets, samplers, config, threads, pin
        self.rare = [rarer_half(d) for d in datasets]
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
        """The `Batch` at `position` of the epoch, this process's share of it."""
        config, dataset = self.config, self.datasets[which]
        step = np.random.default_rng([config.seed, epoch, position])  # the same in every process
        wording, phase = self.samplers[which].sample(step), tuple(step.integers(2, size=2))
        mine = indices[self.rank * config.batch:][:config.batch]
        draws = [np.random.default_rng([config.seed, epoch, position, n, self.rank]) for n in range(len(mine))]
        views = [augment(dataset.images[i], dataset.labels[i], (config.height, config.width), rng,
                         (config.smallest, config.largest))
                 for i, rng in zip(mine, draws)]
        if config.paste:
            views = [paste(view, views[n - 1], self.rare[which], config.paste, draws[n])
                     for n, view in enumerate(views)]
        images, labels = (torch.from_numpy(np.stack(part)) for part in zip(*views))
        if self.pin:
            images, labels = images.pin_memory(), labels.pin_memory()
        return Batch(which, images, labels, wording, phase)

    def epoch(self, epoch):
        """Yield the epoch's batches in order, two a thread being made ahead."""
        with ThreadPoolExecutor(self.threads) as pool:
            waiting = deque()
            try:
                for position, (which, indices) in enumerate(self.plan(epoch)):
                    waiting.append(pool.submit(self.load, epoch, position, which, indices))
                    if len(waiting) > 2 * self.threads:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:
                for future in waiting:   # an interrupt does not wait for what nobody will use
                    future.cancel()


def rarer_half(dataset):
    """Indices of the classes with fewer labelled pixels than the median of those that have any."""
    present = dataset.counts > 0
    return np.flatnonzero(present & (dataset.counts < np.median(dataset.counts[present])))

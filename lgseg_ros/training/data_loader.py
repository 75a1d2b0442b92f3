"""The batches of an epoch: planned from the seed, made by threads while the network works on earlier ones."""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from .augmentation import augment, copy_paste
from .config import TrainConfig
from .dataset import Dataset
from .distributed import rank_and_world
from .prompts import PromptBatch, PromptSampler


class Batch(NamedTuple):
    """The input of one step, from one data set."""

    which: int                # index of the data set
    images: torch.Tensor      # uint8 [B, h, w, 3] RGB
    labels: torch.Tensor      # uint8 [B, h, w] class indices, IGNORE or OUTSIDE
    prompts: PromptBatch
    phase: tuple[int, int]    # (y, x), 0 or 1 each: where the loss's grid of pixels starts


class PlannedBatch(NamedTuple):
    """What a batch is made of, for all processes together."""

    which: int                        # index of the data set
    indices: npt.NDArray[np.int64]    # of its images


class BatchLoader:
    """Makes the batches of each epoch.

    Every random choice comes from (seed, epoch, position), so a resumed run sees what an unbroken one would have seen.
    Each batch is of one data set, because its labels are read by the prompts of that data set.

    Attributes:
        per_epoch: number of batches of an epoch.
    """

    def __init__(self, datasets: Sequence[Dataset], samplers: Sequence[PromptSampler], config: TrainConfig,
                 num_workers: int = 1, pin: bool = False) -> None:
        """Plan how often each data set takes its turn.

        Args:
            datasets: to train on.
            samplers: one for each data set.
            config: seed, sizes and augmentation.
            num_workers: threads that make batches, from 1 on.
            pin: whether tensors are pinned, for copies to a GPU.
        """
        self.datasets, self.samplers, self.config = datasets, samplers, config
        self.num_workers, self.pin = num_workers, pin
        self.rare = [rarer_half(dataset) for dataset in datasets]
        self.rank, world = rank_and_world()
        self.images_per_step = config.batch_size * world
        self.steps = steps_per_dataset([len(dataset) for dataset in datasets], self.images_per_step,
                                       config.dataset_temperature, config.epoch_fraction)
        self.per_epoch = sum(self.steps)

    def plan(self, epoch: int) -> list[PlannedBatch]:
        """Draw the batches of an epoch, in order."""
        rng = np.random.default_rng([self.config.seed, epoch])
        planned = []
        for which, (dataset, steps) in enumerate(zip(self.datasets, self.steps, strict=True)):
            count = steps * self.images_per_step
            order = np.concatenate([rng.permutation(len(dataset)) for _ in range(-(-count // len(dataset)))])
            planned += [PlannedBatch(which, part) for part in np.split(order[:count], steps)]
        return [planned[i] for i in rng.permutation(len(planned))]

    def load(self, epoch: int, position: int, which: int, indices: npt.NDArray[np.int64]) -> Batch:
        """Make the `Batch` at `position` of the epoch, this process's share of it."""
        config, dataset = self.config, self.datasets[which]
        step = np.random.default_rng([config.seed, epoch, position])  # the same in every process
        prompts, (y, x) = self.samplers[which].sample(step), step.integers(2, size=2).tolist()
        own = indices[self.rank * config.batch_size:][:config.batch_size]
        generators = [np.random.default_rng([config.seed, epoch, position, n, self.rank]) for n in range(len(own))]
        views = [augment(dataset.images[i], dataset.labels[i], (config.height, config.width), rng,
                         (config.min_scale, config.max_scale))
                 for i, rng in zip(own, generators, strict=True)]
        if config.copy_paste_prob:
            views = [copy_paste(view, views[n - 1], self.rare[which], config.copy_paste_prob, generators[n])
                     for n, view in enumerate(views)]
        images, labels = (torch.from_numpy(np.stack(part)) for part in zip(*views, strict=True))
        if self.pin:
            images, labels = images.pin_memory(), labels.pin_memory()
        return Batch(which, images, labels, prompts, (y, x))

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """Yield the batches of an epoch in order; every thread makes two ahead."""
        with ThreadPoolExecutor(self.num_workers) as pool:
            waiting: deque[Future[Batch]] = deque()
            try:
                for position, (which, indices) in enumerate(self.plan(epoch)):
                    waiting.append(pool.submit(self.load, epoch, position, which, indices))
                    if len(waiting) > 2 * self.num_workers:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:
                for future in waiting:   # an interrupt does not wait for unused batches
                    future.cancel()


def steps_per_dataset(sizes: Sequence[int], images_per_step: int, temperature: float,
                      epoch_fraction: float = 1.0) -> list[int]:
    """Share the steps of an epoch among data sets by size ** temperature.

    Args:
        sizes: number of images of each.
        images_per_step: of all processes together.
        temperature: 1 for turns in proportion to the sizes, 0 for as many turns each.
        epoch_fraction: length of the epoch over one pass through all images.

    Returns:
        Steps of each, at least 1.
    """
    counts = np.array(sizes, float)
    weights = counts ** temperature
    steps = epoch_fraction * counts.sum() / images_per_step * (weights / weights.sum())
    return [max(round(value), 1) for value in steps.tolist()]


def rarer_half(dataset: Dataset) -> npt.NDArray[np.int64]:
    """Return the indices of the classes with fewer labelled pixels than the median of those that have any."""
    present = dataset.counts > 0
    return np.flatnonzero(present & (dataset.counts < np.median(dataset.counts[present])))

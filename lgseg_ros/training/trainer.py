"""The training loop: one or several data sets, one or several processes, resumable.

lgseg train --data DIR --text-embeddings EMBEDDINGS.npz --out RUN
torchrun --nproc-per-node 2 -m lgseg_ros.cli.main train --data DIR --text-embeddings EMBEDDINGS.npz --out RUN
"""

import copy
import json
import math
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from ..engines.preprocessing import ALL_PIXELS
from ..model.baselines import create_model
from ..model.network import DEFAULT_CONFIG, BaseNetwork, NetworkConfig, NetworkOutput, SegmentationNetwork
from ..vocabulary.relations import check_phrases_agree
from ..vocabulary.text_embeddings import TextEmbeddings
from .config import TrainConfig, validate_config
from .data_loader import Batch, BatchLoader
from .dataset import Dataset
from .distributed import check_agreement, rank_and_world
from .evaluation import Predictor, evaluate, to_input, torch_predictor
from .losses import balanced_weights, segmentation_loss
from .prompts import PromptSampler, make_prompts
from .run_directory import CHECKPOINT, LOG, CheckpointError, last_validation, load_checkpoint, read_log, save_checkpoint

PROGRESS_SECONDS = 30   # between two lines where the output is not a terminal
FIXED_TEXT_RATE = 0.1   # learning rate of the layers after a fixed text projection, over that of the head


def learning_rate_factor(step: int, total: int, warmup: int) -> float:
    """Linear warm-up, of half the run at most, then a half cosine down to zero."""
    warmup = min(warmup, total // 2)   # many processes make few steps, and the rate would never get to its peak
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(total - warmup, 1)))


class TrainStep(torch.nn.Module):
    """Project the text embeddings and segment in one call, so that data parallelism sees every parameter."""

    def __init__(self, model: BaseNetwork, precision: torch.dtype | None = None) -> None:
        """Take the network.

        Args:
            model: the network.
            precision: torch.bfloat16 for mixed precision, None for none.
        """
        super().__init__()
        self.model, self.precision = model, precision

    def forward(self, images: torch.Tensor, embeddings: torch.Tensor) -> NetworkOutput:
        """Segment images [B, 3, H, W] by text embeddings [K, text_dim]."""
        projected = self.model.project_text(embeddings)
        with torch.autocast(images.device.type, self.precision, enabled=self.precision is not None):
            return self.model(images, projected)


class Trainer:
    """Model, optimiser, averaged network (EMA) and position of one run."""

    def __init__(
        self,
        datasets: Sequence[Dataset],
        validation: Dataset | None,
        text_embeddings: TextEmbeddings,
        config: TrainConfig,
        model_config: NetworkConfig = DEFAULT_CONFIG,
        device: torch.device | str = 'cpu',
        num_workers: int = 1,
        start: BaseNetwork | None = None,
    ) -> None:
        """Check everything and build what a run needs.

        Args:
            datasets: to train on.
            validation: measured after every `evaluate_every` epochs; None for no validation.
            text_embeddings: text embeddings of the encoder.
            config: hyperparameters.
            model_config: of the network.
            device: to train on.
            num_workers: threads that make batches.
            start: a network of `model_config` to begin with.

        Raises:
            VocabularyError: a phrase of a class has no text embedding, or data sets contradict each other.
            ValueError: hyperparameters that cannot work.
            DatasetError: a data set has no labelled pixel.
        """
        validate_config(config)
        torch.manual_seed(config.seed)
        self.config, self.device, self.epoch = config, torch.device(device), 0
        self.classes = [[spec.name for spec in dataset.specs] for dataset in datasets]
        check_phrases_agree([(str(d.root / 'dataset.yaml'), d.specs) for d in datasets])
        labelled = {phrase for d in datasets for spec in d.specs for phrase in spec.phrases}
        samplers = [
            PromptSampler(
                d.specs, text_embeddings, config.num_negatives, config.prompt_augmentation, d.hidden, labelled
            )
            for d in datasets
        ]
        self.validation = validation
        self._validation_prompts = (make_prompts(text_embeddings, [spec.phrases for spec in validation.specs])
                                    if validation else None)
        self._class_weights = [balanced_weights(d.class_frequencies(), config.class_weight_power).to(self.device)
                               for d in datasets]
        self.batches = BatchLoader(datasets, samplers, config, num_workers, pin=self.device.type == 'cuda')
        self.model = create_model(config.head, model_config, config.pretrained)
        if start is not None:
            self.model.load_state_dict(start.state_dict())
        if config.text_projection != 'learned':
            fix_text_projection(self.model, text_embeddings.vectors if config.text_projection == 'pca' else None)
        self.model.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.ema = copy.deepcopy(self.model).requires_grad_(False)
        self.optimizer = self._optimizer()
        step = TrainStep(self.model, mixed_precision(self.device))
        self.step = DistributedDataParallel(step, find_unused_parameters=True) if rank_and_world()[1] > 1 else step

    def _optimizer(self) -> torch.optim.AdamW:
        config = self.config
        groups: dict[tuple[float, bool], list[torch.nn.Parameter]] = {}
        for name, parameter in self.model.named_parameters():
            if not parameter.requires_grad:
                continue
            rate = config.backbone_rate if name.startswith('backbone') else 1.0
            if config.text_projection != 'learned' and name.startswith(('to_pixel', 'to_deep')):
                rate = FIXED_TEXT_RATE
            groups.setdefault((rate, parameter.ndim > 1), []).append(parameter)   # no decay on biases and norms
        return torch.optim.AdamW([
            {'params': parameters, 'base': config.learning_rate * rate, 'weight_decay': config.weight_decay * decayed}
            for (rate, decayed), parameters in groups.items()])

    def train_epoch(self, progress: bool = True) -> dict[str, float]:
        """Train for one epoch.

        Args:
            progress: whether to show a bar, or where the output is not a terminal a line every half minute.

        Returns:
            The mean of each part of the loss.

        Raises:
            ValueError: the loss is no longer a number.
        """
        self.model.train()
        # Layers that draw (drop path, dropout) then draw the same after a resume.
        torch.manual_seed(self.config.seed * 100_003 + self.epoch)
        count, total = self.batches.per_epoch, self.batches.per_epoch * self.config.epochs
        sums: dict[str, torch.Tensor] = {}
        report = _Progress(self.epoch, self.config.epochs, count, progress)
        for position, batch in enumerate(report.track(self.batches.epoch(self.epoch))):
            step = self.epoch * count + position
            for group in self.optimizer.param_groups:
                group['lr'] = group['base'] * learning_rate_factor(step, total, self.config.warmup_steps)
            for name, value in self._train_step(batch, step).items():
                sums[name] = sums[name] + value if name in sums else value
            report.update(position + 1, sums)
        self.epoch += 1
        means = {name: value.item() / count for name, value in sums.items()}
        if not all(map(math.isfinite, means.values())):
            raise ValueError(f'the loss became {means} in epoch {self.epoch}; start again with a lower `learning_rate` '
                             '(the checkpoint of the epoch before is kept)')
        return means

    def _train_step(self, batch: Batch, step: int) -> dict[str, torch.Tensor]:
        images, labels, embeddings = (
            tensor.to(self.device, non_blocking=True)
            for tensor in (batch.images, batch.labels, torch.from_numpy(batch.prompts.vectors)))
        output = self.step(to_input(images).contiguous(memory_format=torch.channels_last), embeddings)
        class_indices = torch.from_numpy(batch.prompts.class_indices)
        loss = segmentation_loss(output, labels, class_indices, self._class_weights[batch.which], batch.phase,
                                 self.config.background_loss_weight)
        self.optimizer.zero_grad(set_to_none=True)
        loss.total.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 5.0)
        self.optimizer.step()
        self._update_ema(min(self.config.ema, (step + 1) / (step + 10)))
        return loss.parts

    @torch.no_grad()
    def _update_ema(self, decay: float) -> None:
        pairs = list(zip(self.ema.state_dict().values(), self.model.state_dict().values(), strict=True))
        floats = [pair for pair in pairs if pair[0].dtype.is_floating_point]
        # One kernel instead of hundreds.
        torch._foreach_lerp_([slow for slow, _ in floats], [fast for _, fast in floats], 1 - decay)
        for slow, fast in pairs:
            if not slow.dtype.is_floating_point:
                slow.copy_(fast)

    def evaluate(self, progress: bool = True) -> dict[str, Any]:
        """Return the metrics of the averaged network on the validation split, with the data set's own prompts.

        Raises:
            ValueError: the run has no validation split.
        """
        if self.validation is None:
            raise ValueError('validation is None; give the trainer a data set to measure')
        return evaluate(self._predictor(), self.validation, progress)

    def _predictor(self) -> Predictor:
        prompts = self._validation_prompts
        assert prompts is not None
        with torch.no_grad():
            projected = self.ema.project_text(torch.from_numpy(prompts.vectors).to(self.device))
        return torch_predictor(
            self.ema, projected, prompts.class_indices, self.config.max_inference_pixels or ALL_PIXELS
        )

    def sanity_check(self) -> None:
        """Predict one validation image, so that what would fail after the first epochs fails now."""
        if self.validation:
            self._predictor()(self.validation.images[0])

    def state(self) -> dict[str, Any]:
        """Return everything `restore` needs, as tensors and plain values."""
        return {'config': asdict(self.config), 'model_config': self.model.describe(), 'epoch': self.epoch,
                'classes': self.classes, 'model': self.model.state_dict(), 'ema': self.ema.state_dict(),
                'optimizer': self.optimizer.state_dict()}

    def restore(self, path: str | Path) -> None:
        """Go on from a checkpoint of the same hyperparameters.

        Raises:
            CheckpointError: the file is damaged or of another program.
            ValueError: the hyperparameters or the classes of the data differ.
        """
        state = load_checkpoint(path)
        missing = {'config', 'model_config', 'model', 'ema', 'optimizer', 'epoch'} - set(state)
        if missing:
            raise CheckpointError(f'{path} is of another program (it has no {", ".join(sorted(missing))}); '
                                  'give another `out`')
        defaults = {'config': asdict(TrainConfig()), 'model_config': asdict(DEFAULT_CONFIG)}
        for name, own in (('config', asdict(self.config)), ('model_config', self.model.describe())):
            stored = {**defaults[name], **state[name]}   # a field that the run did not know had the default
            changed = [key for key in own if stored[key] != own[key]]
            if changed:
                raise ValueError(f'{path} was trained with another {", ".join(changed)}; '
                                 'give the same options to resume, or another `out` to start afresh')
        if state.get('classes', self.classes) != self.classes:
            raise ValueError(f'{path} was trained on other classes; '
                             'give the same `data` to resume, or another `out` to start afresh')
        self.model.load_state_dict(state['model'])
        self.ema.load_state_dict(state['ema'])
        self.optimizer.load_state_dict(state['optimizer'])
        self.epoch = state['epoch']


class _Progress:
    """A bar on a terminal; elsewhere a line now and then, so that a log file shows that a run goes on."""

    def __init__(self, epoch: int, epochs: int, count: int, show: bool) -> None:
        self._title, self._count, self._show = f'epoch {epoch + 1}/{epochs}', count, show
        self._start = self._last = time.monotonic()

    def track(self, batches: Any) -> 'tqdm[Any]':
        quiet = None if self._show else True   # None: a bar on a terminal alone
        self._bar = tqdm(batches, total=self._count, leave=False, disable=quiet, desc=self._title)
        return self._bar

    def update(self, done: int, sums: dict[str, torch.Tensor]) -> None:
        """Report after `done` steps.  Reading a sum waits for a GPU, so it is not done at every step."""
        if not self._bar.disable:
            if done % 10 == 1:
                self._bar.set_postfix(loss=f'{sums["cross_entropy"].item() / done:.3f}')
        elif self._show and (now := time.monotonic()) - self._last >= PROGRESS_SECONDS:
            self._last = now
            means = ', '.join(f'{name} {value.item() / done:.3f}' for name, value in sums.items())
            seconds = (now - self._start) / done
            print(f'{self._title}, step {done}/{self._count}: {means}; {seconds:.2f} s a step, '
                  f'{seconds * (self._count - done) / 60:.0f} min left of the epoch', flush=True)


@torch.no_grad()
def fix_text_projection(model: BaseNetwork, embeddings: npt.NDArray[np.float32] | None = None) -> None:
    """Keep the text projection from being trained, and set it to a fixed linear map where embeddings are given.

    The map centres the text embeddings and takes their principal components, half whitened (divided by the square root
    of their singular values). CLIP's text embeddings lie in a narrow cone (mean cosine 0.76); centred, their cosines
    spread around 0, and a phrase near trained phrases behaves like them. The layers after it begin as identities.

    Args:
        model: a `SegmentationNetwork`, changed in place.
        embeddings: of all known phrases, unit length [N, text_dim]; None to keep the projection that the network has.

    Raises:
        ValueError: the network has no text projection, or there are fewer phrases than its width.
    """
    if not isinstance(model, SegmentationNetwork):
        raise ValueError(f'{type(model).__name__} has no text projection to fix; train it with a learned one')
    model.project.requires_grad_(False)
    if embeddings is None:
        return
    width = model.config.embed_dim
    if min(embeddings.shape) < width:
        raise ValueError(f'text_projection is pca, but {embeddings.shape[0]} text embeddings of {embeddings.shape[1]} '
                         f'numbers have no {width} principal components; give more phrases (lgseg embed)')
    mean = embeddings.mean(axis=0)
    _, scale, axes = np.linalg.svd(embeddings - mean, full_matrices=False)
    axes *= np.sign(axes[np.arange(len(axes)), np.abs(axes).argmax(axis=1)])[:, None]   # the sign is LAPACK's choice
    matrix = axes[:width] * (scale[:width, None] / scale[0]) ** -0.5
    model.project.weight.copy_(torch.from_numpy(matrix))
    model.project.bias.copy_(torch.from_numpy(-matrix @ mean))
    for layer in (model.to_pixel, model.to_deep):
        torch.nn.init.eye_(layer.weight)
        layer.bias.zero_()


def mixed_precision(device: torch.device) -> torch.dtype | None:
    """Return torch.bfloat16 on a GPU that computes with it, else None.

    It has the range of fp32, so the loss needs no scaling.
    """
    able = device.type == 'cuda' and torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.bfloat16 if able else None


def train(trainer: Trainer, out: str | Path, progress: bool = True,
          stop_epoch: int | None = None) -> dict[str, Any] | None:
    """Run a trainer to the end, resuming from OUT/checkpoint.pt where there is one.

    Writes OUT/checkpoint.pt after every epoch and OUT/log.jsonl, a JSON line per epoch.

    Args:
        trainer: the run.
        out: folder of the run.
        progress: whether to show progress.
        stop_epoch: stop after this epoch; the schedule stays that of the whole run.

    Returns:
        The last validation metrics of the run with their epoch, or None.

    Raises:
        CheckpointError: the checkpoint is damaged or of another program.
        ValueError: the checkpoint is of other hyperparameters or classes, or the loss is no longer a number.
    """
    out, first = Path(out), rank_and_world()[0] == 0
    out.mkdir(parents=True, exist_ok=True)
    if (out / CHECKPOINT).exists():
        trainer.restore(out / CHECKPOINT)
    elif first:
        (out / LOG).unlink(missing_ok=True)   # of a run whose checkpoint was deleted
    check_agreement('epochs', trainer.epoch, trainer.device)
    config = trainer.config
    if first:
        trainer.sanity_check()
    while trainer.epoch < (config.epochs if stop_epoch is None else min(stop_epoch, config.epochs)):
        start = time.monotonic()
        means = trainer.train_epoch(progress and first)
        record: dict[str, Any] = {'epoch': trainer.epoch, 'seconds': round(time.monotonic() - start, 1), **means}
        due = trainer.epoch == config.epochs or trainer.epoch % config.evaluate_every == 0
        if first and trainer.validation and due:
            record['validation'] = trainer.evaluate(progress)
        if first:
            # The line first: killed in between, the epoch is run and logged again, and the reader takes the last.
            with open(out / LOG, 'a') as log:
                log.write(json.dumps(record) + '\n')
            save_checkpoint(out / CHECKPOINT, trainer.state())
        if distributed.is_initialized():
            distributed.barrier()
    return last_validation(read_log(out, trainer.epoch))

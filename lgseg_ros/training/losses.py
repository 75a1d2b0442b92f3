"""Training losses on a sampled grid of pixels."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

from ..model.network import NetworkOutput
from ..model.upsampling import convex_upsample
from ..utils.label_values import IGNORE, OUTSIDE


class Loss(NamedTuple):
    """A scalar to minimise, and its parts by name without gradient."""

    total: torch.Tensor
    parts: dict[str, torch.Tensor]


def class_logits(logits: torch.Tensor, class_indices: torch.Tensor) -> torch.Tensor:
    """Reduce the logits of text embeddings to those of classes: of several prompts of a class the best one wins.

    Args:
        logits: [B, K, ...].
        class_indices: ascending class index per text embedding, int64 [K], on the CPU.

    Returns:
        [B, C, ...].
    """
    counts = torch.bincount(class_indices).tolist()
    if max(counts) == 1:
        return logits
    return torch.stack([part.amax(dim=1) for part in logits.split(counts, dim=1)], dim=1)


def merge_negatives(logits: torch.Tensor, num_classes: int) -> torch.Tensor:
    """Merge the logits of the negatives into one: the log of their summed exponents.

    In the losses negatives only count together. Merged before the interpolation, a hundred of them cost hardly more
    than none: a step with 100 negatives takes two thirds of the time.

    Args:
        logits: [B, C, ...], those of the negatives from `num_classes` on.
        num_classes: number of classes.

    Returns:
        [B, num_classes + 1, ...]; `logits` where there are no or one negative.
    """
    if logits.shape[1] <= num_classes + 1:
        return logits
    return torch.cat([logits[:, :num_classes], logits[:, num_classes:].logsumexp(dim=1, keepdim=True)], dim=1)


def sample_grid(logits: torch.Tensor, labels: torch.Tensor, phase: tuple[int, int], step: int = 2,
                upsample_logits: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """Take logits and labels at every `step`-th pixel of the full-size image.

    Interpolating all classes to full size costs more than the network's own forward pass. A grid with a random phase
    covers every pixel over time.

    Args:
        logits: [B, C, h, w].
        labels: [B, H, W].
        phase: (y, x), each below `step`.
        step: distance of the grid's pixels.
        upsample_logits: of `UpsampleHead`; None to interpolate bilinearly.

    Returns:
        Logits [B, C, H / step, W / step] and labels [B, H / step, W / step].
    """
    sampled_labels = labels[:, phase[0]::step, phase[1]::step]
    if upsample_logits is not None:
        return convex_upsample(logits, upsample_logits, phase, step), sampled_labels
    batch, height, width = labels.shape
    rows = torch.arange(phase[0], height, step, device=logits.device)
    columns = torch.arange(phase[1], width, step, device=logits.device)
    y = (rows + 0.5) / height * 2 - 1
    x = (columns + 0.5) / width * 2 - 1
    grid = torch.stack(torch.meshgrid(y, x, indexing='ij')[::-1], dim=-1).expand(batch, -1, -1, -1)
    return F.grid_sample(logits, grid.to(logits), padding_mode='border', align_corners=False), sampled_labels


def balanced_weights(frequencies: npt.NDArray[np.float64], power: float = 0.5) -> torch.Tensor:
    """Return class weights proportional to frequency ** -power, so that a pixel weighs 1 on average."""
    shares = torch.as_tensor(frequencies, dtype=torch.float32)
    weights = shares.clamp(min=1e-4) ** -power
    return weights / (weights * shares).sum()


def weighted_cross_entropy(logits: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Mean over the labelled pixels, each with the weight of its class; 0 where nothing is labelled."""
    total = F.cross_entropy(logits, labels, weights, ignore_index=IGNORE, reduction='sum')
    counted = weights[labels.clamp(max=len(weights) - 1)] * (labels != IGNORE)
    return total / counted.sum().clamp(min=1e-6)


def soft_jaccard(logits: torch.Tensor, labels: torch.Tensor, num_classes: int) -> torch.Tensor:
    """1 - soft intersection over union, averaged over the classes present in the batch; 1 where none is."""
    valid = labels != IGNORE
    probability = logits.softmax(dim=1)[:, :num_classes] * valid[:, None]
    one_hot = F.one_hot(labels.clamp(max=num_classes), num_classes + 1)
    target = one_hot[..., :num_classes].permute(0, 3, 1, 2).to(probability)
    intersection = (probability * target).sum(dim=(0, 2, 3))
    pixels = target.sum(dim=(0, 2, 3))
    union = (probability + target - probability * target).sum(dim=(0, 2, 3))
    present = (pixels > 0).to(probability)   # weights instead of an index: no waiting for a GPU
    return 1 - (intersection / union.clamp(min=1) * present).sum() / present.sum().clamp(min=1)


def background_loss(logits: torch.Tensor, labels: torch.Tensor, num_classes: int) -> torch.Tensor:
    """Mean over the ignored pixels of -log of the share of the negatives, logits `num_classes` and on.

    It is 0 where there are no such pixels or negatives. Which negative a pixel is given to does not matter: it is of
    none of the classes.
    """
    if logits.shape[1] == num_classes:
        return logits.new_zeros(())
    log_share = logits[:, num_classes:].logsumexp(dim=1) - logits.logsumexp(dim=1)
    ignored = (labels == IGNORE).to(log_share)
    return -(log_share * ignored).sum() / ignored.sum().clamp(min=1)


def segmentation_loss(output: NetworkOutput, labels: torch.Tensor, class_indices: torch.Tensor, weights: torch.Tensor,
                      phase: tuple[int, int], background_weight: float = 0.0) -> Loss:
    """Cross entropy + 0.5 soft Jaccard + 0.4 auxiliary cross entropy on the deep map (DenseCLIP's weight).

    Args:
        output: of the network in training mode.
        labels: class indices, `IGNORE` or `OUTSIDE`, uint8 [B, H, W].
        class_indices: ascending class index per text embedding, int64 [K], on the CPU.
        weights: of the classes, float [num_classes].
        phase: see `sample_grid`.
        background_weight: of `background_loss`; 0 for none.
    """
    if output.auxiliary is None:
        raise ValueError('the output has no auxiliary logits; put the network in training mode')
    num_classes = len(weights)
    fine, deep = (merge_negatives(class_logits(each, class_indices), num_classes)
                  for each in (output.logits, output.auxiliary))
    logits, found = sample_grid(fine, labels, phase, upsample_logits=output.upsample_logits)
    target = _outside_as_ignored(found).long()
    negatives = torch.ones(logits.shape[1] - num_classes, device=logits.device)
    weight = torch.cat([weights, negatives])  # no pixel is labelled with a negative; the length must fit
    cross = weighted_cross_entropy(logits, target, weight)
    jaccard = soft_jaccard(logits, target, num_classes)
    deep_logits, coarse = sample_grid(deep, labels, phase, step=8)
    auxiliary = weighted_cross_entropy(deep_logits, _outside_as_ignored(coarse).long(), weight)
    parts = {'cross_entropy': cross.detach(), 'jaccard': jaccard.detach(), 'auxiliary': auxiliary.detach()}
    total = cross + 0.5 * jaccard + 0.4 * auxiliary
    if background_weight:
        background = background_loss(logits, found, num_classes)
        parts['background'] = background.detach()
        total = total + background_weight * background
    return Loss(total, parts)


def _outside_as_ignored(labels: torch.Tensor) -> torch.Tensor:
    return labels.masked_fill(labels == OUTSIDE, IGNORE)

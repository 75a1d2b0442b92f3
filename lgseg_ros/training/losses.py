"""Training losses on a sampled grid of pixels."""

import torch
from torch.nn import functional as F

from ..model.upsampling import convex_upsample
from .augment import OUTSIDE

VOID = 255


def class_logits(logits, row_class):
    """Row logits [B, K, ...] -> class logits [B, C, ...]: of several rows of a class the best wins.

    row_class: [K] ascending class index per row, on the CPU (its counts are Python numbers here).
    """
    counts = torch.bincount(row_class).tolist()
    if max(counts) == 1:
        return logits
    return torch.stack([part.amax(dim=1) for part in logits.split(counts, dim=1)], dim=1)


def absent_as_one(logits, classes):
    """Logits [B, C, ...] with those of the absent names, `classes` and on, as one: the log of their summed exponents.

    In the losses absent names only count together.  Added up before the interpolation, a hundred of them cost hardly
    more than none: a step with 100 names takes two thirds of the time.
    """
    if logits.shape[1] <= classes + 1:
        return logits
    return torch.cat([logits[:, :classes], logits[:, classes:].logsumexp(dim=1, keepdim=True)], dim=1)


def sample_grid(logits, labels, phase, step=2, scores=None):
    """Logits and labels at every `step`-th pixel of the full-size picture.

    Interpolating all classes to full size costs more than the network's own forward
    pass; a grid with a random phase sees every pixel over time.
    logits: [B, C, h, w]; labels: [B, H, W]; phase: (y, x), each below `step`;
    scores: of `UpsampleHead`, None to interpolate bilinearly.
    Returns logits [B, C, H/step, W/step] and labels [B, H/step, W/step].
    """
    if scores is not None:
        return convex_upsample(logits, scores, phase, step), labels[:, phase[0]::step, phase[1]::step]
    batch, height, width = labels.shape
    rows = torch.arange(phase[0], height, step, device=logits.device)
    columns = torch.arange(phase[1], width, step, device=logits.device)
    y = (rows + 0.5) / height * 2 - 1
    x = (columns + 0.5) / width * 2 - 1
    grid = torch.stack(torch.meshgrid(y, x, indexing='ij')[::-1], dim=-1).expand(batch, -1, -1, -1)
    sampled = F.grid_sample(logits, grid.to(logits), padding_mode='border', align_corners=False)
    return sampled, labels[:, phase[0]::step, phase[1]::step]


def balanced_weights(frequencies, power=0.5):
    """Class weights proportional to frequency ** -power, so that a pixel weighs 1 on average."""
    weights = torch.as_tensor(frequencies, dtype=torch.float32).clamp(min=1e-4) ** -power
    return weights / (weights * torch.as_tensor(frequencies, dtype=torch.float32)).sum()


def weighted_cross_entropy(logits, labels, weights):
    """Mean over the labelled pixels, each weighing its class's weight; 0 where nothing is labelled."""
    total = F.cross_entropy(logits, labels, weights, ignore_index=VOID, reduction='sum')
    counted = weights[labels.clamp(max=len(weights) - 1)] * (labels != VOID)
    return total / counted.sum().clamp(min=1e-6)


def soft_jaccard(logits, labels, classes):
    """1 - soft intersection over union, averaged over the classes present in the batch; 1 where none is."""
    valid = labels != VOID
    chance = logits.softmax(dim=1)[:, :classes] * valid[:, None]
    target = F.one_hot(labels.clamp(max=classes), classes + 1)[..., :classes].permute(0, 3, 1, 2).to(chance)
    both = (chance * target).sum(dim=(0, 2, 3))
    pixels = target.sum(dim=(0, 2, 3))
    either = (chance + target - chance * target).sum(dim=(0, 2, 3))
    present = (pixels > 0).to(chance)   # weights instead of an index: no waiting for a GPU
    return 1 - (both / either.clamp(min=1) * present).sum() / present.sum().clamp(min=1)


def cross_entropy_of_others(logits, labels, classes):
    """Mean over the pixels labelled VOID of -log of the share of the absent names, rows `classes` and on; 0 where there
    are no such pixels or names.  Of which absent name a pixel is does not matter: it is of none of the classes."""
    if logits.shape[1] == classes:
        return logits.new_zeros(())
    absent = logits[:, classes:].logsumexp(dim=1) - logits.logsumexp(dim=1)
    void = (labels == VOID).to(absent)
    return -(absent * void).sum() / void.sum().clamp(min=1)


def segmentation_loss(output, labels, row_class, weights, phase, others=0.0):
    """Cross entropy at tau + 0.5 soft Jaccard + 0.4 auxiliary cross entropy on the score map.

    output: Segmentation; labels: [B, H, W], class indices, VOID or OUTSIDE; row_class: [K] on the CPU; weights: [classes];
    phase: see `sample_grid`; the auxiliary weight is DenseCLIP's; others: weight of `cross_entropy_of_others`.
    Returns a scalar and a dict of its parts, without gradient.
    """
    classes = len(weights)
    fine, deep = (absent_as_one(class_logits(each, row_class), classes) for each in (output.logits, output.auxiliary))
    logits, found = sample_grid(fine, labels, phase, scores=output.upsample_logits)
    target = _outside_as_void(found)
    absent = torch.ones(logits.shape[1] - classes, device=logits.device)
    weight = torch.cat([weights, absent])  # no pixel is labelled with a distractor; the length must fit
    cross = weighted_cross_entropy(logits, target.long(), weight)
    jaccard = soft_jaccard(logits, target.long(), classes)
    score, coarse = sample_grid(deep, labels, phase, step=8)
    auxiliary = weighted_cross_entropy(score, _outside_as_void(coarse).long(), weight)
    parts = {'cross_entropy': cross.detach(), 'jaccard': jaccard.detach(), 'auxiliary': auxiliary.detach()}
    total = cross + 0.5 * jaccard + 0.4 * auxiliary
    if others:
        unlabelled = cross_entropy_of_others(logits, found, classes)
        parts['others'] = unlabelled.detach()
        total = total + others * unlabelled
    return total, parts


def _outside_as_void(labels):
    return labels.masked_fill(labels == OUTSIDE, VOID)

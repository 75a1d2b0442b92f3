"""Evaluate a segmenter on a split: masks at the labels' size, single scale, no flip."""

import numpy as np
import torch
from torch.nn import functional as F
from tqdm import tqdm

from .losses import class_logits
from .metrics import Metrics


def to_input(images):
    """RGB uint8 [B, H, W, 3] -> float [B, 3, H, W] in [-1, 1], channels last."""
    return images.permute(0, 3, 1, 2).float().div(127.5).sub(1)


@torch.no_grad()
def predict(model, image, embeddings, row_class):
    """Exact prediction at the picture's size: logits interpolated, then the best class.

    image: RGB uint8 [H, W, 3], H and W multiples of 4; embeddings: [K, D].
    Returns class index uint8 [H, W] and its probability float32 [H, W].
    """
    device = next(model.parameters()).device
    pixels = to_input(torch.from_numpy(image)[None].to(device))
    logits = class_logits(model(pixels, model.project_text(embeddings)).logits, row_class)
    full = F.interpolate(logits, size=image.shape[:2], mode='bilinear', align_corners=False)[0]
    confidence, index = full.softmax(dim=0).max(dim=0)
    return index.to(torch.uint8).cpu().numpy(), confidence.cpu().numpy()


def evaluate(model, dataset, wording, progress=True):
    """Metrics summary (see `Metrics.summary`) of `model` on every picture of `dataset`."""
    model.eval()
    device = next(model.parameters()).device
    embeddings = torch.from_numpy(wording.embeddings).to(device)
    row_class = torch.from_numpy(wording.row_class).to(device)
    metrics = Metrics(spec.name for spec in dataset.specs)
    pairs = zip(dataset.images, dataset.labels)
    for image, label in tqdm(pairs, total=len(dataset), desc='evaluate', disable=not progress, leave=False):
        index, confidence = predict(model, np.ascontiguousarray(image), embeddings, row_class)
        metrics.add(label, index, confidence)
    return metrics.summary()

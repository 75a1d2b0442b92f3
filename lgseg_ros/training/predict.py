"""The torch network as a predictor (see evaluate.py): the exact answer that engines are held against."""

import numpy as np
import torch
from torch.nn import functional as F

from ..model.upsample import mix
from .losses import class_logits


def to_input(images):
    """RGB uint8 [B, H, W, 3] -> float32 [B, 3, H, W] in [-1, 1], channels last."""
    return images.permute(0, 3, 1, 2).float().div(127.5).sub(1)


def torch_predictor(model, rows, row_class):
    """A predictor that brings every class's logits to the picture's size, then takes the best.

    model: Segmenter, put in eval mode here; rows: [K, row_dim] from `project_text` or the weights' bank, on the
    model's device; row_class: ascending class index per row [K], int64 numpy, below 255.
    """
    model.eval()
    row_class = torch.from_numpy(row_class)

    @torch.no_grad()
    def predict(image):
        height, width = image.shape[:2]
        # The map at stride 8 is doubled exactly, so sizes must be multiples of 8.
        image = np.pad(image, ((0, -height % 8), (0, -width % 8), (0, 0)), mode='edge')
        pixels = to_input(torch.from_numpy(image)[None].to(rows.device))
        found = model(pixels, rows)
        logits = class_logits(found.logits, row_class)
        full = F.interpolate(logits, size=image.shape[:2], mode='bilinear', align_corners=False) \
            if found.scores is None else mix(logits, found.scores)
        full = full[0, :, :height, :width]
        confidence, index = full.softmax(dim=0).max(dim=0)
        return index.to(torch.uint8).cpu().numpy(), confidence.cpu().numpy()

    return predict

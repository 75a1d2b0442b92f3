"""The torch network as a predictor (see evaluate.py): the exact answer that engines are held against."""

import torch
from torch.nn import functional as F

from ..engines.frames import DEFAULT_PIXELS, Frame, network_size, to_network, to_output
from ..model.upsampling import convex_upsample
from .losses import class_logits


def to_input(images):
    """RGB uint8 [B, H, W, 3] -> float32 [B, 3, H, W] in [-1, 1], channels last."""
    return images.permute(0, 3, 1, 2).float().div(127.5).sub(1)


def torch_predictor(model, rows, row_class, pixels=DEFAULT_PIXELS):
    """A predictor that brings every class's logits to the network's picture's size, then takes the best.

    model: a network, put in eval mode here; rows: [K, row_dim] from `project_text` or the weights' bank, on the
    model's device; row_class: ascending class index per row [K], int64 numpy, below 255;
    pixels: of the picture that the network sees, shrunk and enlarged as by an engine.
    """
    model.eval()
    row_class = torch.from_numpy(row_class)

    @torch.no_grad()
    def predict(image):
        seen = to_network(Frame(image, 'rgb'), network_size(*image.shape[:2], pixels))
        found = model(to_input(torch.from_numpy(seen)[None].to(rows.device)), rows)
        logits = class_logits(found.logits, row_class)
        full = F.interpolate(logits, size=seen.shape[:2], mode='bilinear', align_corners=False) \
            if found.upsample_logits is None else convex_upsample(logits, found.upsample_logits)
        confidence, index = full[0].softmax(dim=0).max(dim=0)
        return to_output(index.to(torch.uint8).cpu().numpy(), confidence.cpu().numpy(), image.shape[:2])

    return predict

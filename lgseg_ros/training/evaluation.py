"""Measure a predictor on a split: masks at the labels' size, single scale, no flip.

Needs PyTorch in `torch_predictor` alone, so that engines are measured where it is not installed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from ..engines.base import Engine
from ..engines.preprocessing import DEFAULT_PIXELS, Frame, network_size, to_network, to_output
from ..vocabulary.vocabulary import Vocabulary
from .dataset import Dataset
from .metrics import Metrics
from .prompts import PromptBatch

if TYPE_CHECKING:
    import torch

    from ..model.network import BaseNetwork

Prediction = tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]
"""Class indices, uint8 [H, W], and their probability, 0 to 1, float32 [H, W]."""
Predictor = Callable[[npt.NDArray[np.uint8]], Prediction]
"""Takes an image, RGB uint8 [H, W, 3]."""


def evaluate(predict: Predictor, dataset: Dataset, progress: bool = True) -> dict[str, Any]:
    """Return the metrics (see `Metrics.summary`) of the predictor on every image of the data set."""
    metrics = Metrics(spec.name for spec in dataset.specs)
    pairs = zip(dataset.images, dataset.labels, strict=True)
    quiet = None if progress else True   # None: a bar on a terminal, nothing in a log file
    for image, label in tqdm(pairs, total=len(dataset), desc='evaluate', disable=quiet, leave=False):
        metrics.add(label, *predict(image))
    return metrics.summary()


def engine_predictor(engine: Engine, prompts: PromptBatch) -> Predictor:
    """Return a predictor that runs an engine exactly as the node does.

    Args:
        engine: an inference engine.
        prompts: of projected text embeddings, from the weights.
    """
    vocabulary = Vocabulary(
        version=1,
        specs=(),
        ids=(),
        text_embeddings=prompts.vectors,
        class_ids=prompts.class_indices,
        confidence_threshold=0.0,
        preset='',
    )

    def predict(image: npt.NDArray[np.uint8]) -> Prediction:
        mask = engine.run([Frame(image, 'rgb')], vocabulary)[0]
        return mask.ids, np.divide(mask.confidence, 255, dtype=np.float32)

    return predict


def to_input(images: torch.Tensor) -> torch.Tensor:
    """Convert RGB uint8 [B, H, W, 3] to float32 [B, 3, H, W] in [-1, 1], channels last."""
    return images.permute(0, 3, 1, 2).float().div(127.5).sub(1)


def torch_predictor(
    model: BaseNetwork,
    text_embeddings: torch.Tensor,
    class_indices: npt.NDArray[np.int64],
    max_pixels: int = DEFAULT_PIXELS,
) -> Predictor:
    """Return a predictor that interpolates every class's logits to the network's image, then takes the best.

    This is the exact answer that engines are held against.

    Args:
        model: a network; put in eval mode here.
        text_embeddings: text embeddings [K, embed_dim] from `project_text` or from weights, on the device of the model.
        class_indices: ascending class index per text embedding, int64 [K], below 255.
        max_pixels: of the image that the network sees; images are shrunk and masks enlarged as by an engine.
    """
    import torch
    from torch.nn import functional as F

    from ..model.upsampling import convex_upsample
    from .losses import class_logits
    model.eval()
    classes = torch.from_numpy(class_indices)

    @torch.no_grad()
    def predict(image: npt.NDArray[np.uint8]) -> Prediction:
        height, width = image.shape[:2]
        seen = to_network(Frame(image, 'rgb'), network_size(height, width, max_pixels))
        output = model(to_input(torch.from_numpy(seen)[None].to(text_embeddings.device)), text_embeddings)
        logits = class_logits(output.logits, classes)
        full = (F.interpolate(logits, size=seen.shape[:2], mode='bilinear', align_corners=False)
                if output.upsample_logits is None else convex_upsample(logits, output.upsample_logits))
        confidence, index = full[0].softmax(dim=0).max(dim=0)
        mask = to_output(index.to(torch.uint8).cpu().numpy(), confidence.cpu().numpy(), (height, width))
        return mask.ids, np.asarray(mask.confidence, np.float32)

    return predict

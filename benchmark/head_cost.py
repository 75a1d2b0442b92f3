"""What a head costs at run time: parameters, multiply-accumulates, and CPU milliseconds of its exported graph."""

import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.flop_counter import FlopCounterMode

from lgseg_ros.engines.onnxruntime_engine import session_options
from lgseg_ros.model.graph_interface import (
    CLASS_IDS_INPUT,
    CONFIDENCE_THRESHOLD_INPUT,
    FRAMES_INPUT,
    TEXT_EMBEDDINGS_INPUT,
)
from lgseg_ros.model.network import BaseNetwork
from lgseg_ros.model.onnx_export import export_onnx
from lgseg_ros.utils.hardware import usable_cores


def count_parameters(model: BaseNetwork) -> int:
    """Count the parameters that the mask depends on: those of the auxiliary loss alone do not count."""
    model.eval().zero_grad()
    output = model(torch.rand(1, 3, 64, 64), model.project_text(torch.rand(3, model.config.text_dim)))
    (output.logits.std() + (0 if output.upsample_logits is None else output.upsample_logits.std())).backward()
    count = sum(p.numel() for p in model.parameters() if p.grad is not None)
    model.zero_grad()
    return count


@torch.no_grad()
def count_gmacs(model: torch.nn.Module, rows: torch.Tensor, size: tuple[int, int]) -> float:
    """Count the multiply-accumulates of convolutions and matrix products for one image, in billions.

    Args:
        model: the network.
        rows: text embeddings [K, embed_dim], projected beforehand as at run time.
        size: (height, width).
    """
    with FlopCounterMode(display=False) as counter:
        model.eval()(torch.zeros(1, 3, *size), rows)
    return counter.get_total_flops() / 2e9   # the counter takes a multiply and an add as two


def time_heads(models: Mapping[str, BaseNetwork], embeddings: torch.Tensor, image: npt.NDArray[np.uint8],
               iterations: int = 30) -> dict[str, float]:
    """Measure the median milliseconds per image by ONNX Runtime on the CPU, from uint8 image to uint8 mask.

    The networks take turns, one image each, so that a busy machine slows all alike.

    Args:
        models: {name: torch network}.
        embeddings: text embeddings [K, text_dim].
        image: RGB uint8 [H, W, 3].
        iterations: of each network, after three for warm-up.
    """
    with tempfile.TemporaryDirectory() as folder:
        runs = {name: _session(model, embeddings, image, Path(folder) / f'{i}.onnx')
                for i, (name, model) in enumerate(models.items())}
        times: dict[str, list[float]] = {name: [] for name in runs}
        for number in range(iterations + 3):   # the first three warm up
            for name, run in runs.items():
                start = time.perf_counter()
                run()
                if number >= 3:
                    times[name].append(1000 * (time.perf_counter() - start))
    return {name: round(statistics.median(values), 1) for name, values in times.items()}


def _session(model: BaseNetwork, embeddings: torch.Tensor, image: npt.NDArray[np.uint8],
             path: Path) -> Callable[[], object]:
    """Return a function that segments the image once."""
    import onnxruntime
    export_onnx(model.eval(), path)
    session = onnxruntime.InferenceSession(str(path), session_options(usable_cores()),
                                           providers=['CPUExecutionProvider'])
    with torch.no_grad():
        projected = model.project_text(embeddings).numpy()
    feeds = {FRAMES_INPUT: image[None], TEXT_EMBEDDINGS_INPUT: projected, CLASS_IDS_INPUT: np.arange(len(projected)),
             CONFIDENCE_THRESHOLD_INPUT: np.array(0, np.float32)}
    return lambda: session.run(None, feeds)

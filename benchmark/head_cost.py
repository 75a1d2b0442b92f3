"""What a head costs at run time: parameters, multiply-accumulates, and CPU milliseconds of its exported graph."""

import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from lgseg_ros.engines.cpu import usable_cores
from lgseg_ros.engines.onnxruntime import session_options
from lgseg_ros.model.onnx_export import export_onnx


def count_parameters(model):
    """Parameters that the mask depends on: those of training's auxiliary loss alone do not count."""
    model.eval().zero_grad()
    found = model(torch.rand(1, 3, 64, 64), model.project_text(torch.rand(3, model.config.text_dim)))
    (found.logits.std() + (0 if found.upsample_logits is None else found.upsample_logits.std())).backward()
    count = sum(p.numel() for p in model.parameters() if p.grad is not None)
    model.zero_grad()
    return count


@torch.no_grad()
def count_gmacs(model, rows, size):
    """Billions of multiply-accumulates of convolutions and matrix products for one picture.

    rows: [K, row_dim] text rows, made beforehand as at run time; size: (height, width).
    """
    with FlopCounterMode(display=False) as counter:
        model.eval()(torch.zeros(1, 3, *size), rows)
    return counter.get_total_flops() / 2e9   # the counter takes a multiply and an add as two


def time_heads(models, embeddings, picture, rounds=30):
    """Median milliseconds a picture by ONNX Runtime on the CPU, from uint8 picture to uint8 mask.

    models: {name: torch network}; embeddings: [K, text_dim]; picture: RGB uint8 [H, W, 3].  The networks take turns,
    one picture each, so that a busy machine slows all alike.
    """
    with tempfile.TemporaryDirectory() as folder:
        runs = {name: _session(model, embeddings, picture, Path(folder) / f'{i}.onnx')
                for i, (name, model) in enumerate(models.items())}
        times = {name: [] for name in runs}
        for number in range(rounds + 3):   # the first three warm up
            for name, run in runs.items():
                start = time.perf_counter()
                run()
                if number >= 3:
                    times[name].append(1000 * (time.perf_counter() - start))
    return {name: round(statistics.median(values), 1) for name, values in times.items()}


def _session(model, embeddings, picture, path):
    """A function that segments the picture once."""
    import onnxruntime
    export_onnx(model.eval(), path)
    session = onnxruntime.InferenceSession(str(path), session_options(usable_cores()),
                                           providers=['CPUExecutionProvider'])
    with torch.no_grad():
        rows = model.project_text(embeddings).numpy()
    feeds = {'frames': picture[None], 'rows': rows, 'row_ids': np.arange(len(rows)),
             'threshold': np.array(0, np.float32)}
    return lambda: session.run(None, feeds)

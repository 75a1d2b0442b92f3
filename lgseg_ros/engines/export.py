"""Export a segmenter to one ONNX file: uint8 frames and text rows in, uint8 ids and confidence out.

Text rows, their ids and the threshold are inputs, so a change of vocabulary touches
neither this file nor an engine built from it.
"""

import warnings

import torch
from torch import nn

from ..model.postprocessing import logits_to_mask
from ..utils.atomic_write import atomic_write

INPUTS = ('frames', 'rows', 'row_ids', 'threshold')
OUTPUTS = ('ids', 'confidence')
OPSET = 17
DYNAMIC_AXES = {'frames': {0: 'batch', 1: 'height', 2: 'width'}, 'rows': {0: 'rows'}, 'row_ids': {0: 'rows'},
                'ids': {0: 'batch', 1: 'height', 2: 'width'}, 'confidence': {0: 'batch', 1: 'height', 2: 'width'}}


class Deployed(nn.Module):
    """The whole way from a camera's RGB bytes to mask bytes, as one graph."""

    def __init__(self, model, every_cell=False):
        super().__init__()
        self.model = model
        self.every_cell = every_cell

    def forward(self, frames, rows, row_ids, threshold):
        """frames: uint8 [B, H, W, 3] RGB, H and W multiples of 8; rows: [K, row_dim];
        row_ids: int64 [K], 0..254; threshold: scalar.  Returns ids and confidence, uint8 [B, H, W]."""
        images = frames.permute(0, 3, 1, 2).to(rows.dtype) / 127.5 - 1
        found = self.model(images, rows)
        return logits_to_mask(found.logits, row_ids, threshold, found.upsample_logits, self.every_cell)


def export_onnx(model, path, every_cell=False, size=(360, 480), metadata=None):
    """Write `model` to `path` atomically, with dynamic batch, size and rows.

    size: of the example, whose maps must have odd heights at strides 8 and 16: by them the export decides for all sizes
    whether this backbone rounds down (`double`); metadata: plain strings stored in the file (the engine checks
    `weights_sha256`).
    """
    # eval() on the wrapper too: the exporter afterwards restores the mode it found there.
    deployed = Deployed(model.float().cpu(), every_cell).eval()
    example = (torch.zeros(1, *size, 3, dtype=torch.uint8), torch.randn(5, model.config.row_dim),
               torch.arange(5), torch.tensor(0.0))
    with atomic_write(path) as partial, warnings.catch_warnings():
        # The tracer warns of every shape it reads; they stay dynamic, as the tests check.
        warnings.simplefilter('ignore')
        torch.onnx.export(deployed, example, str(partial), input_names=INPUTS, output_names=OUTPUTS,
                          dynamic_axes=DYNAMIC_AXES, opset_version=OPSET, dynamo=False)
        _add_metadata(partial, {**(metadata or {}), 'row_dim': str(model.config.row_dim)})


def _add_metadata(path, metadata):
    import onnx
    graph = onnx.load(path)
    onnx.helper.set_model_props(graph, {key: str(value) for key, value in metadata.items()})
    onnx.save(graph, path)

"""Export a network to one ONNX file: uint8 frames and text embeddings in, uint8 ids and confidence out.

Text embeddings, their class ids and the confidence threshold are inputs, so a change of vocabulary needs neither a new
file nor a new engine. Inputs and outputs are documented in `engines.onnx_files`.
"""

import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from ..model.graph_interface import (
    CLASS_IDS_INPUT,
    CONFIDENCE_OUTPUT,
    FRAMES_INPUT,
    IDS_OUTPUT,
    INPUTS,
    OUTPUTS,
    TEXT_EMBEDDINGS_INPUT,
)
from ..utils.atomic_write import atomic_write
from .network import BaseNetwork
from .postprocessing import logits_to_mask

OPSET = 17
_IMAGE_AXES = {0: 'batch', 1: 'height', 2: 'width'}
DYNAMIC_AXES = {FRAMES_INPUT: _IMAGE_AXES, IDS_OUTPUT: _IMAGE_AXES, CONFIDENCE_OUTPUT: _IMAGE_AXES,
                TEXT_EMBEDDINGS_INPUT: {0: 'num_phrases'}, CLASS_IDS_INPUT: {0: 'num_phrases'}}


class ExportWrapper(nn.Module):
    """Normalisation, network and post-processing as one graph, from RGB bytes to mask bytes."""

    def __init__(self, model: BaseNetwork, every_cell: bool = False) -> None:
        """Wrap a network.

        Args:
            model: the network; its attribute name here is part of the node names that quantization goes by.
            every_cell: see `logits_to_mask`; True for engines that need shapes which depend on no data.
        """
        super().__init__()
        self.model = model
        self.every_cell = every_cell

    def forward(self, frames: torch.Tensor, embeddings: torch.Tensor, class_ids: torch.Tensor,
                confidence_threshold: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Segment frames.

        Args:
            frames: uint8 [B, H, W, 3], RGB, H and W multiples of 8.
            embeddings: text embeddings from `project_text`, float [K, embed_dim].
            class_ids: int64 [K], class id of each text embedding, 0..254.
            confidence_threshold: scalar, 0..1.

        Returns:
            Ids and confidence, uint8 [B, H, W]; see `logits_to_mask`.
        """
        images = frames.permute(0, 3, 1, 2).to(embeddings.dtype) / 127.5 - 1
        found = self.model(images, embeddings)
        return logits_to_mask(found.logits, class_ids, confidence_threshold, found.upsample_logits, self.every_cell)


def export_onnx(model: BaseNetwork, path: str | Path, every_cell: bool = False, size: tuple[int, int] = (360, 480),
                metadata: Mapping[str, object] | None = None) -> None:
    """Write a network as an ONNX file, atomically, with dynamic batch, size and number of text embeddings.

    Args:
        model: the network.  It is moved to the CPU and to fp32.
        path: the file to write.
        every_cell: see `ExportWrapper`.
        size: height and width of the example in pixels.  Its maps must have odd heights at strides 8 and 16: by them
            the export decides for all sizes whether the backbone rounds sizes down (`upsample2x`).
        metadata: stored in the file as strings; engines check `weights_sha256`.

    Raises:
        OSError: the file cannot be written.
    """
    # eval() on the wrapper too: the exporter afterwards restores the mode it found there.
    wrapper = ExportWrapper(model.float().cpu(), every_cell).eval()
    example = (torch.zeros(1, *size, 3, dtype=torch.uint8), torch.randn(5, model.config.embed_dim),
               torch.arange(5), torch.tensor(0.0))
    with atomic_write(path) as partial, warnings.catch_warnings():
        # The tracer warns of every shape it reads; they stay dynamic, as the tests check.
        warnings.simplefilter('ignore')
        torch.onnx.export(wrapper, example, str(partial), input_names=INPUTS, output_names=OUTPUTS,
                          dynamic_axes=DYNAMIC_AXES, opset_version=OPSET, dynamo=False)
        _add_metadata(partial, {**(metadata or {}), 'embed_dim': str(model.config.embed_dim)})


def _add_metadata(path: Path, metadata: Mapping[str, object]) -> None:
    import onnx
    graph = onnx.load(path)
    onnx.helper.set_model_props(graph, {key: str(value) for key, value in metadata.items()})
    onnx.save(graph, path)

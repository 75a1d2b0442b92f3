"""Write and read trained weights: one safetensors file and its JSON model card."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from ..utils.atomic_write import atomic_write
from .network import NetworkConfig, SegmentationNetwork
from .weights import PHRASES_METADATA, TEXT_EMBEDDINGS_TENSOR

COPY_AGAIN = 'copy the .safetensors and .json files again'


class NamedEmbeddings(Protocol):
    """Text embeddings by phrase, such as a `TextEmbeddings`."""

    @property
    def names(self) -> Sequence[str]:
        """The N phrases."""

    @property
    def vectors(self) -> npt.NDArray[np.float32]:
        """Text embeddings [N, text_dim], unit length."""


class StoredWeights(Protocol):
    """Weights on disk, such as `model.weights.load_weights` gives."""

    @property
    def path(self) -> Path:
        """The .safetensors file."""

    @property
    def card(self) -> Mapping[str, Any]:
        """The model card beside it."""


def save_weights(
    model: SegmentationNetwork, text_embeddings: NamedEmbeddings, path: str | Path, card: Mapping[str, Any]
) -> None:
    """Write PATH.safetensors (fp16, with the projected text embeddings) and PATH.json, both readable by every user.

    Args:
        model: the trained network.  It is moved to the CPU and to fp32.
        text_embeddings: text embeddings of the network's text encoder.
        path: of the files, without suffix.
        card: of the model; the network's configuration is added as `model`.

    Raises:
        OSError: a file cannot be written.
    """
    from safetensors.torch import save_file
    tensors = {name: value for name, value in model.float().cpu().state_dict().items()
               if not name.endswith('num_batches_tracked')}
    with torch.no_grad():
        tensors[TEXT_EMBEDDINGS_TENSOR] = model.project_text(torch.from_numpy(text_embeddings.vectors))
    tensors = {name: _half(value).contiguous() for name, value in tensors.items()}
    with atomic_write(f'{path}.safetensors') as partial:
        save_file(tensors, partial, metadata={'format': 'lgseg', PHRASES_METADATA: json.dumps(text_embeddings.names)})
        partial.chmod(0o644)  # safetensors writes 0600, which another user's node cannot read
    with atomic_write(f'{path}.json') as partial:
        partial.write_text(json.dumps({**card, 'model': model.describe()}, indent=2) + '\n')


def _half(value: torch.Tensor) -> torch.Tensor:
    """`value` in fp16, unless it does not fit there (running variances of some backbones exceed 65504)."""
    small = value.half() if value.is_floating_point() else value
    return small if torch.isfinite(small).all() else value


def load_network(weights: StoredWeights) -> SegmentationNetwork:
    """Read the torch network of trained weights.

    Args:
        weights: from `model.weights.load_weights`.

    Returns:
        The network on the CPU, in eval mode, fp32.

    Raises:
        ValueError: card and tensors do not fit together; the message names the file.
    """
    from safetensors.torch import load_file
    known = {field.name for field in fields(NetworkConfig)}
    described = weights.card.get('model')
    if not isinstance(described, dict):
        raise ValueError(f'{weights.path.with_suffix(".json")} does not describe the network; {COPY_AGAIN}')
    model = SegmentationNetwork(NetworkConfig(**{key: value for key, value in described.items() if key in known}))
    tensors = {name: value.float() for name, value in load_file(weights.path).items() if not name.startswith('text.')}
    try:
        missing, unexpected = model.load_state_dict(tensors, strict=False)
    except RuntimeError as error:  # torch lists every tensor whose shape differs
        first = str(error).splitlines()[1].strip()
        raise ValueError(f'{weights.path} does not fit its card ({first}); {COPY_AGAIN}') from error
    missing = [name for name in missing if not name.endswith('num_batches_tracked')]
    if missing or unexpected:
        raise ValueError(f'{weights.path} does not fit its card (missing {missing[:3]}, unexpected {unexpected[:3]}); '
                         f'{COPY_AGAIN}')
    return model.eval()

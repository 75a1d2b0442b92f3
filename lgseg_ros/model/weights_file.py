"""Write and read trained weights: one safetensors file and its JSON model card."""

import json
from dataclasses import fields

import torch

from ..whole_file import whole_file
from .segmenter import Segmenter, SegmenterConfig

COPY_AGAIN = 'copy the .safetensors and .json files again'


def save_weights(model, bank, path, card):
    """Write PATH.safetensors (fp16, with the bank's projected rows) and PATH.json, readable by everybody.

    model: Segmenter; bank: TextBank of unit text embeddings; path: without its suffix; card: dict, to which the
    network's configuration is added.
    """
    from safetensors.torch import save_file
    tensors = {name: value for name, value in model.float().cpu().state_dict().items()
               if not name.endswith('num_batches_tracked')}
    with torch.no_grad():
        tensors['text.rows'] = model.project_text(torch.from_numpy(bank.vectors))
    tensors = {name: _half(value).contiguous() for name, value in tensors.items()}
    with whole_file(f'{path}.safetensors') as partial:
        save_file(tensors, partial, metadata={'format': 'lgseg', 'bank_names': json.dumps(bank.names)})
        partial.chmod(0o644)  # safetensors writes 0600, which another user's node cannot read
    with whole_file(f'{path}.json') as partial:
        partial.write_text(json.dumps({**card, 'model': model.describe()}, indent=2) + '\n')


def _half(value):
    """`value` in fp16, unless it does not fit there (running variances of some backbones pass 65504)."""
    small = value.half() if value.is_floating_point() else value
    return small if torch.isfinite(small).all() else value


def load_segmenter(weights):
    """The torch network of `Weights` (from engines.weights.load_weights), in eval mode, fp32.

    Raises ValueError naming the file when card and tensors do not fit.
    """
    from safetensors.torch import load_file
    known = {field.name for field in fields(SegmenterConfig)}
    described = weights.card.get('model')
    if not isinstance(described, dict):
        raise ValueError(f'{weights.path.with_suffix(".json")} does not describe the network; {COPY_AGAIN}')
    config = SegmenterConfig(**{key: value for key, value in described.items() if key in known})
    model = Segmenter(config)
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

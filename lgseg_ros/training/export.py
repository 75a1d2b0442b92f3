"""Export of a training run: weights with their model card, ONNX file and self-test."""

import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from ..demo.street import StreetCamera
from ..engines.onnxruntime_engine import OnnxRuntimeEngine
from ..engines.self_test import SelfTestError
from ..engines.self_test_export import write_self_test
from ..model import onnx_export
from ..model.network import SegmentationNetwork
from ..model.weights import Weights, load_weights
from ..model.weights_file import load_network, save_weights
from ..vocabulary.text_embeddings import TextEmbeddings
from ..vocabulary.text_space import TextSpace
from .dataset import read_description
from .evaluation import engine_predictor, torch_predictor
from .prompts import PromptBatch
from .run_directory import Run, load_run, read_text_embeddings, versions

TEXT_ENCODER = 'ViT-B-16 (OpenAI)'
"""Of text embeddings whose file does not name it."""

TEMPLATE = 'a photo of a X'
"""Likewise, with X for the phrase."""

MIN_AGREEMENT = 0.99
"""Least share of the pixels that the ONNX file must give the id that torch gives."""

NUM_PHRASES = 20
"""Phrases of the comparison with torch."""


class OnnxAgreement(NamedTuple):
    """How far an ONNX file agrees with the torch network on a test image.

    Attributes:
        same_graph: share of the pixels with the id that the same graph gives in torch, 0 to 1.
        exact: share of the pixels with the id that interpolating all classes at full size gives, 0 to 1.
    """

    same_graph: float
    exact: float


@dataclass(frozen=True)
class CardFields:
    """What a model card states besides what the run itself knows; empty fields are taken from the run.

    Attributes:
        data: folders of the data sets.
        command: training command.
        licence: licence of the data.
        limits: what the weights are bad at, or were not measured on.
        text_encoder: text encoder of the embeddings.
        template: template of their phrases.
    """

    data: Sequence[str] = ()
    command: str = ''
    licence: str = ''
    limits: str = ''
    text_encoder: str = ''
    template: str = ''


def export_run(run: str | Path, name: str = '', out: str | Path = 'weights',
               text_embeddings: str | Path | None = None, card: CardFields | None = None) -> Path:
    """Write the weights of a run and their model card.

    Args:
        run: folder of the training run; its averaged network is taken.
        name: of the weights; '' for that of the folder.
        out: folder to write to.
        text_embeddings: file whose phrases the weights hold; default that of the run.
        card: what the card states besides.

    Returns:
        Path of the .safetensors file.

    Raises:
        ValueError: the run cannot be exported; the message gives the reason.
    """
    trained = load_run(run)
    head = trained.config.get('head', 'ours')
    if not isinstance(trained.model, SegmentationNetwork):
        raise ValueError(f'{run} was trained with the head {head!r}, a baseline for comparison that no engine runs; '
                         "export a run with the head 'ours'")
    embeddings = read_text_embeddings(trained, text_embeddings)
    name = name or trained.folder.resolve().name
    path = Path(out) / name
    save_weights(trained.model, TextEmbeddings(embeddings.names, embeddings.vectors), path,
                 model_card(name, trained, embeddings.space, card or CardFields()))
    return Path(f'{path}.safetensors')


def export_onnx_file(path: str | Path) -> OnnxAgreement:
    """Make the ONNX file and the self-test of weights, beside them, and compare the file with torch.

    Args:
        path: the .safetensors file.

    Returns:
        How far the ONNX file agrees with torch.

    Raises:
        ValueError: the exported graph does not do what the network does. The ONNX file is removed.
    """
    weights = load_weights(path)
    model = load_network(weights)
    export_self_test(weights, model)
    onnx_export.export_onnx(model, weights.onnx_path, metadata={'weights_sha256': weights.sha256})
    try:
        agreement = compare_with_torch(model, weights)
        reason = f'agrees with torch on only {agreement.same_graph:.1%} of the pixels'
        if agreement.same_graph >= MIN_AGREEMENT:
            return agreement
    except SelfTestError as error:
        reason = f'is not the torch network ({error})'
    weights.onnx_path.unlink()
    raise ValueError(f'{weights.onnx_path} {reason}, so it was removed; requirements/train.txt lists the versions that '
                     'are known to work')


def export_self_test(weights: Weights, model: SegmentationNetwork | None = None) -> Path:
    """Write the self-test of weights for the engines.

    Args:
        weights: from `load_weights`.
        model: their torch network, if it is loaded already.

    Returns:
        The file.
    """
    return write_self_test(model or load_network(weights), weights)


def compare_with_torch(model: SegmentationNetwork, weights: Weights) -> OnnxAgreement:
    """Compare the ONNX file of weights with their torch network, on a street image with 20 phrases of the weights."""
    image = np.ascontiguousarray(StreetCamera(480, 360).render(0)[0][..., ::-1])
    vectors = weights.text_embeddings.vectors[:NUM_PHRASES]
    prompts = PromptBatch(vectors, np.arange(len(vectors)))
    embeddings, class_ids = torch.from_numpy(prompts.vectors), torch.from_numpy(prompts.class_indices)
    ids = engine_predictor(OnnxRuntimeEngine(weights, precision='fp32'), prompts)(image)[0]
    wrapper = onnx_export.ExportWrapper(model.eval())
    with torch.no_grad():
        same = wrapper(torch.from_numpy(image[None]), embeddings, class_ids, torch.tensor(0.0))[0][0].numpy()
    exact = torch_predictor(model, embeddings, prompts.class_indices)(image)[0]
    return OnnxAgreement(float(np.mean(ids == same)), float(np.mean(ids == exact)))


def model_card(name: str, trained: Run, space: TextSpace | None, fields: CardFields) -> dict[str, Any]:
    """Return what a user must know of weights. Paths of this machine are cut to their last part.

    Args:
        name: of the weights.
        trained: the run.
        space: text encoder of its text embeddings, None where their file does not name it.
        fields: what the card states besides.

    Returns:
        The model card.
    """
    described = [read_description(folder) for folder in fields.data or trained.origin.get('data', ())]
    licences = dict.fromkeys(d.licence or 'not stated in dataset.yaml' for d in described)
    config = trained.config
    stage = {'command': portable(fields.command or trained.origin.get('command', '')),
             'hours': round(sum(record['seconds'] for record in trained.log) / 3600, 2)}
    return {
        'name': name,
        'backbone': trained.model.config.backbone,
        'parameters': sum(p.numel() for p in trained.model.parameters()),
        'data': [{'name': d.name, 'classes': [str(spec) for spec in d.specs]} for d in described],
        'licence': fields.licence or '; '.join(licences) or 'not stated',
        'limits': fields.limits or 'not stated',
        'text_encoder': fields.text_encoder or (str(space) if space else TEXT_ENCODER),
        'template': fields.template or (space.template if space else TEMPLATE),
        'metrics': trained.validation,
        'epoch': trained.epoch,
        'epochs': config['epochs'],
        'seed': config['seed'],
        'stages': [*trained.origin.get('before', []), stage],
        'recipe': config,
        'versions': trained.origin.get('versions') or versions(),
    }


def portable(command: str) -> str:
    """Return a command without the folders of this machine: absolute paths are cut to their last part."""
    return shlex.join(Path(word).name if os.path.isabs(word) else word for word in shlex.split(command))

"""Make weights from a training run: NAME.safetensors, its model card NAME.json, NAME.onnx and the engines'
self-test NAME.selftest.safetensors.

The run's averaged (EMA) network is taken, with the projected text rows of every name in the bank, so
that all of them work at run time without a text encoder.  With --weights only the ONNX file and the
self-test are made again, for example after a change of the export; with --self-test-only the latter alone.

Examples:
  lgseg export --run runs/street --name street --out weights
  lgseg export --weights weights/street.safetensors
"""

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from ..engines.weights import Weights
    from ..model.network import SegmentationNetwork

TEXT_ENCODER = 'ViT-B-16 (OpenAI)'
TEMPLATE = 'a photo of a X'


def add_arguments(parser):
    """The command line of `lgseg export`."""
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument('--run', metavar='DIR', help='folder that "lgseg train" wrote')
    source.add_argument('--weights', metavar='W',
                        help='shipped name or .safetensors: make only its ONNX file and self-test again')
    parser.add_argument('--self-test-only', action='store_true',
                        help='with --weights: make only the self-test of the engines, and leave the ONNX file')
    parser.add_argument('--name', help="of the weights (default: the run folder's)")
    parser.add_argument('--out', metavar='DIR', help='folder to write (default: weights)')
    parser.add_argument('--text-embeddings', metavar='NPZ',
                        help='text bank whose names travel in the weights (default: the run\'s)')
    parser.add_argument('--data', action='append', metavar='DIR',
                        help="data set of the run, for the card; may be repeated (default: the run's)")
    parser.add_argument('--command', metavar='TEXT', help="training command for the card (default: the run's)")
    parser.add_argument('--licence', help="for the card (default: from each data set's dataset.yaml)")
    parser.add_argument('--limits', help='for the card: what the weights are bad at or were not measured on')
    parser.add_argument('--text-encoder', help=f'that made the bank (default: what its file tells, or {TEXT_ENCODER})')
    parser.add_argument('--template', help=f"of the bank's phrases (default: what its file tells, or {TEMPLATE!r})")


def run(arguments):
    """Write the files and say which."""
    from ..engines.weights import load_weights
    if arguments.weights and (arguments.name or arguments.out):
        raise ValueError('--name and --out are for --run; with --weights the ONNX file is made beside the weights')
    if arguments.self_test_only:
        if not arguments.weights:
            raise ValueError('--self-test-only is for --weights; with --run the self-test is always made')
        path = make_self_test(load_weights(arguments.weights))
        print(f'{path}  {path.stat().st_size / 1e6:.1f} MB')
        return 0
    path = load_weights(arguments.weights).path if arguments.weights else _weights_of_run(arguments)
    same, exact = make_onnx(path)
    for suffix in ('.safetensors', '.json', '.onnx', '.selftest.safetensors'):
        file = path.with_suffix(suffix)
        print(f'{file}  {file.stat().st_size / 1e6:.1f} MB')
    print(f'On a test picture ONNX Runtime gives {same:.2%} of the pixels what torch gives, '
          f'and {exact:.2%} what interpolating every class everywhere gives')
    return 0


def make_onnx(path):
    """Export ONNX file and self-test beside the .safetensors at `path`.  Returns what `compare` does.

    Raises ValueError, and leaves no file, when the exported graph does not do what the network does.
    """
    from ..engines.self_test import SelfTestError
    from ..engines.weights import load_weights
    from ..model.onnx_export import export_onnx
    from ..model.weights_file import load_network
    weights = load_weights(path)
    model = load_network(weights)
    make_self_test(weights, model)
    export_onnx(model, weights.onnx_path, metadata={'weights_sha256': weights.sha256})
    try:
        same, exact = compare(model, weights)
        reason = f'agrees with torch on only {same:.1%} of the pixels' if same < 0.99 else ''
    except SelfTestError as error:
        reason = f'is not the torch network ({error})'
    if reason:
        weights.onnx_path.unlink()
        raise ValueError(f'{weights.onnx_path} {reason}, so it was removed; requirements/train.txt lists the versions '
                         'that are known to work')
    return same, exact


def make_self_test(weights: 'Weights', model: 'SegmentationNetwork | None' = None) -> Path:
    """Write the self-test file of `weights`; returns its path.

    Args:
        weights: from `load_weights`.
        model: their torch network, where it is loaded already.
    """
    from ..model.self_test_export import write_self_test
    from ..model.weights_file import load_network
    return write_self_test(model or load_network(weights), weights)


def compare(model, weights):
    """Hold the ONNX file against the torch network on a street picture with 20 names of the bank.

    Returns the shares of pixels, 0..1, where it gives the id that the same graph gives in torch, and the id that
    interpolating every class's logits to full size gives.
    """
    import torch

    from ..demo.street import StreetCamera
    from ..engines.onnxruntime_engine import OnnxRuntimeEngine
    from ..model.onnx_export import ExportWrapper
    from ..training.evaluation import engine_predictor, torch_predictor
    from ..training.prompts import PromptBatch
    picture = np.ascontiguousarray(StreetCamera(480, 360).render(0)[0][..., ::-1])
    prompts = PromptBatch(weights.text_embeddings.vectors[:20], np.arange(len(weights.text_embeddings.vectors[:20])))
    rows, class_ids = torch.from_numpy(prompts.vectors), torch.from_numpy(prompts.class_indices)
    ids = engine_predictor(OnnxRuntimeEngine(weights, precision='fp32'), prompts)(picture)[0]
    with torch.no_grad():
        wrapper = ExportWrapper(model.eval())
        same = wrapper(torch.from_numpy(picture[None]), rows, class_ids, torch.tensor(0.0))[0][0].numpy()
    exact = torch_predictor(model, rows, prompts.class_indices)(picture)[0]
    return float(np.mean(ids == same)), float(np.mean(ids == exact))


def _weights_of_run(arguments):
    """Write the .safetensors and the card; returns the path of the former."""
    from ..model.weights_file import save_weights
    from ..training.run_directory import load_run, read_text_embeddings
    from ..vocabulary.text_embeddings import TextEmbeddings
    trained = load_run(arguments.run)
    head = trained.config.get('head', 'ours')
    if head != 'ours':
        raise ValueError(f'{arguments.run} was trained with --head {head}, a baseline for comparison that no engine '
                         'runs; export a run of --head ours')
    text_embeddings = read_text_embeddings(trained, arguments.text_embeddings)
    name = arguments.name or trained.folder.resolve().name
    path = Path(arguments.out or 'weights') / name
    save_weights(trained.model, TextEmbeddings(text_embeddings.names, text_embeddings.vectors), path,
                 model_card(name, trained, text_embeddings.space, arguments))
    return Path(f'{path}.safetensors')


def model_card(name, trained, space, arguments):
    """What a user must know of the weights, as a dict.  Paths of this machine are cut to their last part.

    trained: Run; space: the bank's TextSpace, or None where its file does not tell.
    """
    from ..training.dataset import read_description
    from ..training.run_directory import versions
    described = [read_description(folder) for folder in arguments.data or trained.origin.get('data', ())]
    licences = dict.fromkeys(d.licence or 'not stated in dataset.yaml' for d in described)
    config = trained.config
    stage = {'command': portable(arguments.command or trained.origin.get('command', '')),
             'hours': round(sum(record['seconds'] for record in trained.log) / 3600, 2)}
    return {
        'name': name,
        'backbone': trained.model.config.backbone,
        'parameters': sum(p.numel() for p in trained.model.parameters()),
        'data': [{'name': d.name, 'classes': [str(spec) for spec in d.specs]} for d in described],
        'licence': arguments.licence or '; '.join(licences) or 'not stated',
        'limits': arguments.limits or 'not stated',
        'text_encoder': arguments.text_encoder or (str(space) if space else TEXT_ENCODER),
        'template': arguments.template or (space.template if space else TEMPLATE),
        'metrics': trained.validation,
        'epoch': trained.epoch,
        'epochs': config['epochs'],
        'seed': config['seed'],
        'stages': [*trained.origin.get('before', []), stage],
        'recipe': config,
        'versions': trained.origin.get('versions') or versions(),
    }


def portable(command):
    """A command without the folders of this machine: absolute paths are cut to their last part."""
    return shlex.join(Path(word).name if os.path.isabs(word) else word for word in shlex.split(command))

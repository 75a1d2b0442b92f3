"""Measure weights, or a training run, on a labelled split.

Prints IoU per class, mIoU, pixel accuracy, frequency-weighted IoU, boundary F1 and expected calibration error: single
scale, no flip, masks at the labels' size.

The prompts are the data set's own.  --prompts names classes by other phrases, and --num-negatives adds phrases of
nothing in the data: a network that has learned what phrases mean loses little by either.

Examples:
  lgseg eval --data ../shared/data/camvid --split val
  lgseg eval --data DIR --split val --prompts "car=large family car,pedestrian=person" --num-negatives 100
  lgseg eval --run runs/street --data DIR --split val --json street.json
"""

from __future__ import annotations

import argparse
import time
from argparse import Namespace
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .json_output import add_json_option, write_json

if TYPE_CHECKING:
    from ..engines.base import Engine
    from ..engines.selection import EngineSelection
    from ..model.network import BaseNetwork
    from ..model.weights import Weights
    from ..training.evaluation import Predictor
    from ..training.prompts import PromptBatch
    from ..vocabulary.text_embeddings import TextEmbeddings

    Prepare = Callable[[PromptBatch], Predictor]

EXACT = 'exact'
TORCH = {'engine': EXACT, 'precision': 'fp32'}
ROWS = (('mIoU', 'miou'), ('pixel accuracy', 'pixel_accuracy'), ('frequency-weighted IoU', 'frequency_weighted_iou'),
        ('boundary F1', 'boundary_f1'), ('expected calibration error', 'expected_calibration_error'),
        ('unassigned pixels', 'unassigned_pixels'))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line of `lgseg eval`."""
    from ..engines.preprocessing import DEFAULT_PIXELS
    from ..engines.selection import ENGINE_NAMES, PRECISIONS
    from ..model.weights import DEFAULT_WEIGHTS
    source = parser.add_mutually_exclusive_group()
    source.add_argument('--weights', default=DEFAULT_WEIGHTS, metavar='W',
                        help='shipped name or .safetensors (default: %(default)s)')
    source.add_argument('--run', metavar='DIR', help='folder of a training run: its averaged network, by torch')
    parser.add_argument('--data', required=True, metavar='DIR',
                        help='data set: dataset.yaml, SPLIT/images, SPLIT/labels')
    parser.add_argument('--split', default='val', help='default: %(default)s')
    parser.add_argument('--prompts', default='', metavar='LIST',
                        help='other phrases for classes, "class=phrase|phrase,class=phrase"')
    parser.add_argument('--num-negatives', type=int, default=0, metavar='N',
                        help='add N phrases of nothing in the data')
    parser.add_argument('--seed', type=int, default=0, help='that draws the negatives (default: %(default)s)')
    parser.add_argument('--engine', choices=(*ENGINE_NAMES, EXACT), default='auto',
                        help='inference engine; auto: as the node selects it; exact: torch, with every class '
                             "interpolated to the network's image, and always with --run (default: %(default)s)")
    parser.add_argument('--precision', choices=PRECISIONS, default='auto',
                        help='precision of its computation (default: %(default)s)')
    parser.add_argument('--max-inference-pixels', type=int, metavar='N',
                        help=f"pixels of the image that the network sees (default: the run's, or {DEFAULT_PIXELS})")
    parser.add_argument('--text-embeddings', metavar='NPZ', help="text embeddings of --run (default: the run's)")
    parser.add_argument('--device', default='auto', help='of --engine exact: auto, cpu, cuda (default: %(default)s)')
    add_json_option(parser)


def run(arguments: Namespace) -> int:
    """Evaluate, print a table, write the JSON."""
    from ..engines.preprocessing import SMALLEST
    from ..training.dataset import load_dataset
    from ..training.evaluation import evaluate
    from ..training.prompts import evaluation_prompts
    from ..vocabulary.classes import parse_classes
    pixels = arguments.max_inference_pixels
    if pixels is not None and pixels < SMALLEST ** 2:
        raise ValueError(f'max_inference_pixels is {pixels}; give at least {SMALLEST ** 2}')
    renamed = parse_classes(arguments.prompts.split(',')) if arguments.prompts.strip() else ()
    text_embeddings, prepare, facts = _network(arguments)
    dataset = load_dataset(arguments.data, arguments.split)
    prompts = evaluation_prompts(dataset.specs, text_embeddings, renamed, arguments.num_negatives, arguments.seed)
    predict = prepare(prompts)
    start = time.perf_counter()
    metrics = evaluate(predict, dataset)
    seconds = time.perf_counter() - start
    result = {**facts, 'data': dataset.name, 'split': arguments.split, 'images': len(dataset),
              'prompts': {spec.name: list(spec.phrases) for spec in renamed},
              'num_negatives': arguments.num_negatives, 'seed': arguments.seed, **metrics}
    print_table(metrics)
    print(f'{len(dataset)} images of {dataset.name} {arguments.split} in {seconds:.0f} s, '
          f'{facts["engine"]} in {facts["precision"]}')
    write_json(arguments.json, result)
    return 0


def print_table(metrics: dict[str, Any]) -> None:
    """Print percentages, a class or a metric per line."""
    width = max(len(name) for name in (*metrics['iou'], *(title for title, _ in ROWS)))
    for name, value in metrics['iou'].items():
        print(f'{name:<{width}}  {"-" if value is None else format(value, ".2f"):>6}')
    for title, key in ROWS:
        print(f'{title:<{width}}  {metrics[key]:>6.2f}')


def _network(arguments: Namespace) -> tuple[TextEmbeddings, Prepare, dict[str, Any]]:
    """The text embeddings, a function from prompts to a predictor, and facts for the JSON."""
    if arguments.run:
        return _torch_run(arguments)
    from ..engines.preprocessing import DEFAULT_PIXELS
    from ..model.weights import load_weights
    weights, pixels = load_weights(arguments.weights), arguments.max_inference_pixels or DEFAULT_PIXELS
    facts = {'weights': weights.path.stem, 'weights_sha256': weights.sha256, 'max_inference_pixels': pixels}
    if arguments.engine == EXACT:
        from ..model.weights_file import load_network
        return weights.text_embeddings, _torch(load_network(weights), arguments.device, pixels), {**facts, **TORCH}
    from ..training.evaluation import engine_predictor
    engine = _engine(arguments, weights, pixels)
    facts.update(engine=engine.NAME, precision=engine.precision)
    return weights.text_embeddings, lambda prompts: engine_predictor(engine, prompts), facts


def _engine(arguments: Namespace, weights: Weights, pixels: int) -> Engine:
    """Create the requested engine and no other, whose metrics would be taken for its own. Raises ValueError."""
    from ..engines.base import EngineOptions
    from ..engines.onnxruntime_engine import OnnxRuntimeEngine
    from ..engines.selection import create_engine
    from ..utils.hardware import has_int8_dot
    if arguments.precision == 'int8' and arguments.engine in ('auto', 'onnxruntime') and not has_int8_dot():
        # Too slow for a robot here, but as accurate as where the CPU has the instructions.
        return OnnxRuntimeEngine(weights, 0, pixels, 'int8')

    def refuse_fallback(selection: EngineSelection) -> None:
        if selection.fell_back:
            raise ValueError(f'{selection}; only the engine and precision that were asked for are measured')

    options = EngineOptions(arguments.engine, arguments.precision, max_inference_pixels=pixels)
    return create_engine(options, weights, refuse_fallback)


def _torch_run(arguments: Namespace) -> tuple[TextEmbeddings, Prepare, dict[str, Any]]:
    import torch

    from ..engines.preprocessing import ALL_PIXELS
    from ..training.run_directory import load_run, read_text_embeddings
    from ..vocabulary.text_embeddings import TextEmbeddings
    trained = load_run(arguments.run)
    pixels = arguments.max_inference_pixels or trained.config.get('max_inference_pixels', 0)
    text_embeddings = read_text_embeddings(trained, arguments.text_embeddings)
    with torch.no_grad():
        projected = trained.model.project_text(torch.from_numpy(text_embeddings.vectors)).numpy()
    facts = {'run': trained.folder.resolve().name, 'epoch': trained.epoch, 'max_inference_pixels': pixels, **TORCH}
    return (
        TextEmbeddings(text_embeddings.names, projected),
        _torch(trained.model, arguments.device, pixels or ALL_PIXELS),
        facts,
    )


def _torch(model: BaseNetwork, device: str, pixels: int) -> Prepare:
    import torch

    from ..training.distributed import select_device
    from ..training.evaluation import torch_predictor
    own_device = select_device(device)
    model = model.to(own_device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return lambda prompts: torch_predictor(
        model, torch.from_numpy(prompts.vectors).to(own_device), prompts.class_indices, pixels
    )

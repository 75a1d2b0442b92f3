"""What the bridges of trained weights are worth: mIoU with each of them silenced, nothing trained again.

    python benchmark/bridges.py --data ../shared/data/camvid --text-embeddings ../shared/text/clip_vit_b16_bank.npz

The output of a silenced bridge is 0.  An even one attends to all text embeddings alike, so that it still adds what they
have in common but no longer separates them.  Exact interpolation in torch, the data set's own prompts.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch

from lgseg_ros.cli.json_output import add_json_option, write_json
from lgseg_ros.model.weights import Weights, load_weights
from lgseg_ros.model.weights_file import load_network
from lgseg_ros.training.dataset import Dataset, load_dataset
from lgseg_ros.training.evaluation import evaluate, torch_predictor
from lgseg_ros.training.prompts import PromptBatch, evaluation_prompts
from lgseg_ros.vocabulary.text_embeddings import load_text_embeddings


def zero(*layers: Any) -> None:
    """Set the parameters of linear layers to 0, so that their output is 0."""
    for layer in layers:
        layer.weight.data.zero_()
        layer.bias.data.zero_()


CHANGES: dict[str, Callable[[Any], object]] = {
    'as trained': lambda model: None,
    'image to text silent': lambda model: zero(*(block.to_text.out for block in model.fusion if block.to_text)),
    'class embeddings not refined (gamma 0)': lambda model: model.gamma.data.zero_(),
    'text to image silent': lambda model: zero(*(block.to_image.value for block in model.fusion if block.to_image)),
    'text to image even': lambda model: zero(*(block.to_image.key for block in model.fusion if block.to_image)),
}


def measure(weights: Weights, dataset: Dataset, prompts: PromptBatch, change: str, progress: bool = True) -> float:
    """Return the mIoU, percent, of the weights after a change of `CHANGES`."""
    model = load_network(weights).eval()
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    CHANGES[change](model)
    with torch.no_grad():
        rows = model.project_text(torch.from_numpy(prompts.vectors))
    return evaluate(torch_predictor(model, rows, prompts.class_indices), dataset, progress)['miou']


def main(argv: Sequence[str] | None = None) -> int:
    """Measure all changes, print them and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--weights', default='lgseg_lite0', help='default: %(default)s')
    parser.add_argument('--data', required=True, metavar='DIR')
    parser.add_argument('--split', default='val', help='default: %(default)s')
    parser.add_argument('--text-embeddings', required=True, metavar='NPZ')
    add_json_option(parser)
    arguments = parser.parse_args(argv)
    weights, dataset = load_weights(arguments.weights), load_dataset(arguments.data, arguments.split)
    prompts = evaluation_prompts(dataset.specs, load_text_embeddings(arguments.text_embeddings))
    result = {'benchmark': 'bridges', 'weights_sha256': weights.sha256, 'split': arguments.split, 'miou': {}}
    for change in CHANGES:
        result['miou'][change] = measure(weights, dataset, prompts, change)
        print(f'{result["miou"][change]:6.2f}  {change}', flush=True)
    write_json(arguments.json, result)
    return 0


if __name__ == '__main__':
    sys.exit(main())

"""What the bridges of trained weights are worth: mIoU with each of them silenced, nothing trained again.

    python benchmark/bridges.py --data ../shared/data/camvid --bank ../shared/text/clip_vit_b16_bank.npz

A silenced bridge reads zeros; an even one attends to all words alike, so that it still adds what is common to them but
no longer tells them apart.  Exact interpolation in torch, the data set's own words.
"""

import argparse
import sys

import torch

from lgseg_ros.cli.figures import add_json, write_json
from lgseg_ros.engines.weights import load_weights
from lgseg_ros.model.weights_file import load_network
from lgseg_ros.training.dataset import load_dataset
from lgseg_ros.training.evaluate import evaluate
from lgseg_ros.training.predict import torch_predictor
from lgseg_ros.training.words import WordSampler
from lgseg_ros.vocabulary.text_embeddings import load_npz_bank


def zero(*layers):
    """Make linear layers answer 0."""
    for layer in layers:
        layer.weight.data.zero_()
        layer.bias.data.zero_()


CHANGES = {
    'as trained': lambda model: None,
    'image to text silent': lambda model: zero(*(block.to_text.out for block in model.fusion if block.to_text)),
    'class rows not refined (gamma 0)': lambda model: model.gamma.data.zero_(),
    'text to image silent': lambda model: zero(*(block.to_image.value for block in model.fusion if block.to_image)),
    'text to image even': lambda model: zero(*(block.to_image.key for block in model.fusion if block.to_image)),
}


def measure(weights, dataset, words, change, progress=True):
    """mIoU, percent, of the weights after a change of `CHANGES`."""
    model = load_network(weights).eval().to(memory_format=torch.channels_last)
    CHANGES[change](model)
    with torch.no_grad():
        rows = model.project_text(torch.from_numpy(words.vectors))
    return evaluate(torch_predictor(model, rows, words.row_class), dataset, progress)['miou']


def main(argv=None):
    """Measure all changes, print them and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--weights', default='lgseg_lite0', help='default: %(default)s')
    parser.add_argument('--data', required=True, metavar='DIR')
    parser.add_argument('--split', default='val', help='default: %(default)s')
    parser.add_argument('--bank', required=True, metavar='NPZ')
    add_json(parser)
    arguments = parser.parse_args(argv)
    weights, dataset = load_weights(arguments.weights), load_dataset(arguments.data, arguments.split)
    words = WordSampler(dataset.specs, load_npz_bank(arguments.bank)).plain()
    result = {'benchmark': 'bridges', 'weights_sha256': weights.sha256, 'split': arguments.split, 'miou': {}}
    for change in CHANGES:
        result['miou'][change] = measure(weights, dataset, words, change)
        print(f'{result["miou"][change]:6.2f}  {change}', flush=True)
    write_json(arguments.json, result)
    return 0


if __name__ == '__main__':
    sys.exit(main())

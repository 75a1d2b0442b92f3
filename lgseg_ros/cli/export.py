"""Export weights of a training run.

Writes NAME.safetensors, its model card NAME.json, NAME.onnx and the self-test of the engines,
NAME.selftest.safetensors. The averaged (EMA) network of the run is taken, with the projected text embeddings of all
its phrases, so that these can be used without a text encoder. With --weights only the ONNX file and the self-test are
made again, for example after a change of the export; with --self-test-only the self-test alone.

Examples:
  lgseg export --run runs/street --name street --out weights
  lgseg export --weights weights/street.safetensors
"""

import argparse
import json
from pathlib import Path

from ..model.weights import load_weights
from .json_output import add_json_flag

SUFFIXES = ('.safetensors', '.json', '.onnx', '.selftest.safetensors')


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `lgseg export`."""
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument('--run', metavar='DIR', help='folder that "lgseg train" wrote')
    source.add_argument('--weights', metavar='W',
                        help='shipped name or .safetensors file: make only its ONNX file and self-test again')
    parser.add_argument('--self-test-only', action='store_true',
                        help='with --weights: make only the self-test of the engines, and keep the ONNX file')
    parser.add_argument('--name', default='', help="of the weights (default: the run folder's)")
    parser.add_argument('--out', metavar='DIR', help='output folder (default: weights)')
    parser.add_argument('--text-embeddings', metavar='NPZ',
                        help="text embeddings whose phrases the weights hold (default: the run's)")
    parser.add_argument('--data', action='append', metavar='DIR', default=[],
                        help="data set of the run, for the card; may be repeated (default: the run's)")
    parser.add_argument('--command', metavar='TEXT', default='',
                        help="training command for the card (default: the run's)")
    parser.add_argument('--licence', default='', help="for the card (default: from each data set's dataset.yaml)")
    parser.add_argument('--limits', default='',
                        help='for the card: what the weights are bad at or were not measured on')
    parser.add_argument('--text-encoder', default='', help='for the card: text encoder of the embeddings (default: '
                                                           'what their file names, or ViT-B-16 of OpenAI)')
    parser.add_argument('--template', default='', help='for the card: template of the phrases (default: what the file '
                                                       'names, or "a photo of a X")')
    add_json_flag(parser)


def run(arguments: argparse.Namespace) -> int:
    """Write the files and print them. Returns 0."""
    check(arguments)
    from ..training.export import CardFields, export_onnx_file, export_run, export_self_test  # needs torch
    if arguments.self_test_only:
        report(arguments, [export_self_test(load_weights(arguments.weights))])
        return 0
    if arguments.weights:
        path = load_weights(arguments.weights).path
    else:
        card = CardFields(arguments.data, arguments.command, arguments.licence, arguments.limits,
                          arguments.text_encoder, arguments.template)
        path = export_run(arguments.run, arguments.name, arguments.out or 'weights', arguments.text_embeddings, card)
    agreement = export_onnx_file(path)
    report(arguments, [path.with_suffix(suffix) for suffix in SUFFIXES], **agreement._asdict())
    if not arguments.json:
        print(f'On a test image ONNX Runtime gives {agreement.same_graph:.2%} of the pixels the id that torch gives, '
              f'and {agreement.exact:.2%} the id that interpolating all classes at full size gives')
    return 0


def check(arguments: argparse.Namespace) -> None:
    """Raise ValueError for options that exclude each other."""
    if arguments.weights and (arguments.name or arguments.out):
        raise ValueError('--name and --out are for --run; with --weights the files are made beside the weights')
    if arguments.self_test_only and not arguments.weights:
        raise ValueError('--self-test-only is for --weights; with --run the self-test is always made')


def report(arguments: argparse.Namespace, files: list[Path], **results: float) -> None:
    """Print the files with their sizes, as JSON with the results."""
    sizes = {str(file): file.stat().st_size for file in files}
    if arguments.json:
        print(json.dumps({'files': sizes, **results}))
        return
    for file, size in sizes.items():
        print(f'{file}  {size / 1e6:.1f} MB')

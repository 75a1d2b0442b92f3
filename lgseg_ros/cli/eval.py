"""Measure weights, or a training run, on a labelled split: IoU per class, mIoU, pixel accuracy, frequency-weighted
IoU, boundary F1 and expected calibration error.  Single scale, no flip, masks at the labels' size.

The words are the data set's own.  --names calls classes by other words, and --distractors adds names that are in no
picture: a model that has learnt words loses little by either.

Examples:
  lgseg eval --data ../shared/data/camvid --split val
  lgseg eval --data DIR --split val --names "car=large family car,pedestrian=person" --distractors 100
  lgseg eval --run runs/street --data DIR --split val --json street.json
"""

import time
from argparse import Namespace

from .figures import add_json, write_json

EXACT = 'exact'
TORCH = {'engine': EXACT, 'precision': 'fp32'}
ROWS = (('mIoU', 'miou'), ('pixel accuracy', 'pixel_accuracy'), ('frequency-weighted IoU', 'frequency_weighted_iou'),
        ('boundary F1', 'boundary_f1'), ('expected calibration error', 'expected_calibration_error'),
        ('pixels given to other names', 'other_pixels'))


def add_arguments(parser):
    """The command line of `lgseg eval`."""
    from ..engines.factory import ENGINE_NAMES, PRECISIONS
    from ..engines.frames import DEFAULT_PIXELS
    from ..engines.weights import DEFAULT_WEIGHTS
    source = parser.add_mutually_exclusive_group()
    source.add_argument('--weights', default=DEFAULT_WEIGHTS, metavar='W',
                        help='shipped name or .safetensors (default: %(default)s)')
    source.add_argument('--run', metavar='DIR', help='folder of a training run: its averaged network, by torch')
    parser.add_argument('--data', required=True, metavar='DIR',
                        help='data set: dataset.yaml, SPLIT/images, SPLIT/labels')
    parser.add_argument('--split', default='val', help='default: %(default)s')
    parser.add_argument('--names', default='', metavar='LIST', help='other words, "class=phrase|phrase,class=phrase"')
    parser.add_argument('--distractors', type=int, default=0, metavar='N', help='add N names of things not in the data')
    parser.add_argument('--seed', type=int, default=0, help='that draws the distractors (default: %(default)s)')
    parser.add_argument('--engine', choices=(*ENGINE_NAMES, EXACT), default='auto',
                        help='what runs the network; auto: as the node chooses; exact: by torch, every class '
                             "interpolated to the network's picture, and always with --run (default: %(default)s)")
    parser.add_argument('--precision', choices=PRECISIONS, default='auto',
                        help='numbers the engine computes with (default: %(default)s)')
    parser.add_argument('--network-pixels', type=int, metavar='N',
                        help=f"pixels of the picture that the network sees (default: the run's, or {DEFAULT_PIXELS})")
    parser.add_argument('--bank', metavar='NPZ', help="text bank of --run (default: the run's)")
    parser.add_argument('--device', default='auto', help='of --engine exact: auto, cpu, cuda (default: %(default)s)')
    add_json(parser)


def run(arguments):
    """Evaluate, print a table, write the JSON."""
    from ..engines.frames import check_numbers
    from ..training.dataset import load_dataset
    from ..training.evaluate import evaluate
    from ..training.words import WordSampler, evaluation_wording
    from ..vocabulary.classes import parse_classes
    if arguments.network_pixels is not None:
        check_numbers(arguments.network_pixels)
    renames = parse_classes(arguments.names.split(',')) if arguments.names.strip() else ()
    bank, prepare, facts = _network(arguments)
    dataset = load_dataset(arguments.data, arguments.split)
    wording = evaluation_wording(WordSampler(dataset.specs, bank), renames, arguments.distractors, arguments.seed)
    predict = prepare(wording)
    start = time.perf_counter()
    figures = evaluate(predict, dataset)
    seconds = time.perf_counter() - start
    result = {**facts, 'data': dataset.name, 'split': arguments.split, 'pictures': len(dataset),
              'names': {spec.name: list(spec.phrases) for spec in renames},
              'distractors': arguments.distractors, 'seed': arguments.seed, **figures}
    print_table(figures)
    print(f'{len(dataset)} pictures of {dataset.name} {arguments.split} in {seconds:.0f} s, '
          f'{facts["engine"]} in {facts["precision"]}')
    write_json(arguments.json, result)
    return 0


def print_table(figures):
    """Percentages, a class or a figure a line."""
    width = max(len(name) for name in (*figures['iou'], *(title for title, _ in ROWS)))
    for name, value in figures['iou'].items():
        print(f'{name:<{width}}  {"-" if value is None else format(value, ".2f"):>6}')
    for title, key in ROWS:
        print(f'{title:<{width}}  {figures[key]:>6.2f}')


def _network(arguments):
    """The bank of words, a function from a wording to a predictor, and facts for the JSON."""
    if arguments.run:
        return _torch_run(arguments)
    from ..engines.frames import DEFAULT_PIXELS
    from ..engines.weights import load_weights
    weights, pixels = load_weights(arguments.weights), arguments.network_pixels or DEFAULT_PIXELS
    facts = {'weights': weights.path.stem, 'weights_sha256': weights.sha256, 'network_pixels': pixels}
    if arguments.engine == EXACT:
        from ..model.weights_file import load_network
        return weights.bank, _torch(load_network(weights), arguments.device, pixels), {**facts, **TORCH}
    from ..training.evaluate import engine_predictor
    engine = _engine(arguments, weights, pixels)
    facts.update(engine=engine.NAME, precision=engine.precision)
    return weights.bank, lambda wording: engine_predictor(engine, wording), facts


def _engine(arguments, weights, pixels):
    """What was asked for and nothing else, whose figures would be taken for its own.  Raises ValueError."""
    from ..engines.cpu import has_int8_dot
    from ..engines.factory import create_engine
    from ..engines.onnxruntime import OnnxRuntimeEngine
    if arguments.precision == 'int8' and arguments.engine in ('auto', 'onnxruntime') and not has_int8_dot():
        # Too slow for a robot here, but as accurate as where the CPU has them.
        return OnnxRuntimeEngine(weights, 0, pixels, 'int8')

    def refuse_another(choice):
        if choice.fell_back:
            raise ValueError(f'{choice}; only what was asked for is measured')
    settings = Namespace(engine=arguments.engine, precision=arguments.precision, threads=0, network_pixels=pixels)
    return create_engine(settings, weights, refuse_another)


def _torch_run(arguments):
    import torch

    from ..engines.frames import ALL_PIXELS
    from ..training.runs import load_run, read_bank
    from ..vocabulary.text_embeddings import TextBank
    trained = load_run(arguments.run)
    pixels = arguments.network_pixels or trained.config.get('network_pixels', 0)
    bank = read_bank(trained, arguments.bank)
    with torch.no_grad():
        rows = trained.model.project_text(torch.from_numpy(bank.vectors)).numpy()
    facts = {'run': trained.folder.resolve().name, 'epoch': trained.epoch, 'network_pixels': pixels, **TORCH}
    return TextBank(bank.names, rows), _torch(trained.model, arguments.device, pixels or ALL_PIXELS), facts


def _torch(model, device, pixels):
    import torch

    from ..training.parallel import own_device
    from ..training.predict import torch_predictor
    device = own_device(device)
    model = model.to(device, memory_format=torch.channels_last)
    return lambda wording: torch_predictor(model, torch.from_numpy(wording.vectors).to(device), wording.row_class, pixels)

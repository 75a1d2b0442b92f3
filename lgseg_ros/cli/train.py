"""Train a segmenter on one or several data sets laid out as: dataset.yaml, SPLIT/images, SPLIT/labels.

Data sets may have different classes: language is what joins them.  The same command again goes on where the run
stopped.  Everything is checked before the first step.  OUT gets checkpoint.pt, log.jsonl (a line an epoch) and
run.json; "lgseg export --run OUT" makes weights of it.

Examples:
  lgseg train --data ../shared/data/camvid --bank ../shared/text/clip_vit_b16_bank.npz --out runs/street
  lgseg train --data a --data b --val a --bank BANK.npz --out runs/ab --batch 32 --crop 512x768
  lgseg train --data DIR --bank BANK.npz --out RUN --init lgseg_lite0 --epochs 20 --lr 5e-4     (fine-tuning)
  torchrun --nproc-per-node 4 -m lgseg_ros.cli.main train --data DIR --bank BANK.npz --out RUN
"""

import argparse
import json
import os
import shlex
import sys
import time
from pathlib import Path

import cv2


def add_arguments(parser):
    """The command line of `lgseg train`."""
    data = parser.add_argument_group('data')
    data.add_argument('--data', action='append', required=True, metavar='DIR',
                      help='data set to train on; may be repeated')
    data.add_argument('--split', default='train', help='of the data sets to train on (default: %(default)s)')
    data.add_argument('--val', metavar='DIR',
                      help='data set to validate on (default: the first --data, if it has the split)')
    data.add_argument('--val-split', default='val', help='default: %(default)s')
    data.add_argument('--bank', required=True, metavar='NPZ', help='text bank: names and their text embeddings')
    data.add_argument('--unseen', default='', metavar='LIST',
                      help='classes whose labels are hidden in training, "car,tree"')
    data.add_argument('--out', required=True, metavar='RUN', help='folder of the run; an old run there is continued')
    _add_recipe(parser.add_argument_group('recipe'))
    _add_network(parser.add_argument_group('network'))
    machine = parser.add_argument_group('machine')
    machine.add_argument('--device', default='auto', help='auto (a GPU where torch sees one), cpu, cuda or cuda:N '
                                                          '(default: %(default)s)')
    machine.add_argument('--loaders', type=int,
                         help='threads that make batches (default: 1; on a GPU one a core, up to 12)')
    machine.add_argument('--until', type=int, metavar='EPOCH',
                         help='stop after this epoch; the schedule stays that of --epochs')


def _add_recipe(group):
    from ..engines.frames import DEFAULT_PIXELS
    from ..training.train import TrainConfig
    default = TrainConfig()
    group.add_argument('--epochs', type=int, default=default.epochs, help='default: %(default)s')
    group.add_argument('--batch', type=int, default=default.batch,
                       help='pictures a step and process (default: %(default)s)')
    group.add_argument('--crop', type=crop, default=(default.height, default.width), metavar='HxW',
                       help=f'multiples of 32 (default: {default.height}x{default.width})')
    group.add_argument('--scales', type=float, nargs=2, default=(default.smallest, default.largest),
                       metavar=('LOW', 'HIGH'), help='pictures are scaled at random between these (default: '
                                                     f'{default.smallest} {default.largest})')
    group.add_argument('--network-pixels', type=int, default=DEFAULT_PIXELS, metavar='N',
                       help='larger pictures are shrunk to about N pixels, as the node shrinks them for the network; give '
                            "the node's parameter network_pixels; 0: none are shrunk (default: %(default)s)")
    group.add_argument('--paste', type=float, default=default.paste, metavar='P',
                       help='chance of each of the rarer half of the classes to be pasted in from another picture; 0: '
                            'never (default: %(default)s)')
    group.add_argument('--lr', type=float, default=default.learning_rate,
                       help='peak learning rate (default: %(default)s)')
    group.add_argument('--balance', type=float, default=default.balance, metavar='P',
                       help='class weights are frequency to the power -P; 0: every pixel alike (default: %(default)s)')
    group.add_argument('--ema', type=float, default=default.ema, help='of the average (default: %(default)s)')
    group.add_argument('--warmup', type=int, default=default.warmup, help='steps (default: %(default)s)')
    group.add_argument('--distractors', type=int, default=default.max_distractors, metavar='N',
                       help='most absent names a step (default: %(default)s)')
    group.add_argument('--others', type=float, default=default.others, metavar='W',
                       help='weight by which pixels that nobody labelled are taught to be of none of the classes, where '
                            'absent names stand for the rest of the world; 0: they teach nothing (default: '
                            '%(default)s)')
    group.add_argument('--word-augmentation', action=argparse.BooleanOptionalAction, default=True,
                       help='other words and absent names in training (default: on)')
    group.add_argument('--evaluate-every', type=int, default=default.evaluate_every, metavar='N',
                       help='epochs (default: %(default)s)')
    group.add_argument('--seed', type=int, default=default.seed, help='default: %(default)s')


def _add_network(group):
    from ..model.baselines import HEADS
    from ..model.network import NetworkConfig
    default = NetworkConfig()
    group.add_argument('--backbone', default=default.backbone, help='any timm model with maps at strides 4 to 32 '
                                                                    '(default: %(default)s)')
    group.add_argument('--pretrained', choices=('imagenet', 'none'), default='imagenet', help='default: %(default)s')
    group.add_argument('--init', metavar='W', help='go on from trained weights, a shipped name or a .safetensors; they '
                                                   'decide the network, whatever the other options of this group say, '
                                                   'but may get the upsampling that they had not')
    group.add_argument('--upsample', type=int, default=64, metavar='C', help='channels of the learned upsampling; 0: '
                                                                            'bilinear (default: %(default)s)')
    group.add_argument('--blocks', type=int, default=default.blocks, help='fusion blocks (default: %(default)s)')
    for bridge in ('image-to-text', 'text-to-image'):
        group.add_argument(f'--{bridge}', action=argparse.BooleanOptionalAction, default=True,
                           help='bridge of the fusion blocks (default: on)')
    group.add_argument('--head', choices=tuple(HEADS), default='ours', help='default: %(default)s; the others are '
                                                                            'baselines for comparison')


def crop(text):
    """'288x384' -> (288, 384), height first."""
    height, _, width = text.lower().partition('x')
    try:
        return int(height), int(width)
    except ValueError:
        raise argparse.ArgumentTypeError(f'{text!r} is no size; write height x width as in 288x384') from None


def run(arguments, argv=None):
    """Train, then print what the run has come to.  argv: what follows "lgseg", where it is not this process's."""
    from ..training.allocator import keep_freed_memory
    from ..training.parallel import own_device, process_group, rank_and_world
    from ..training.train import train
    device = own_device(arguments.device)
    if device.type == 'cpu':
        keep_freed_memory()
    first = rank_and_world()[0] == 0
    start = time.monotonic()
    with process_group(device):
        trainer = make_trainer(arguments, device)
        if first:
            write_origin(arguments, argv or sys.argv[1:])
        figures = train(trainer, arguments.out, progress=first, until=arguments.until)
    if first:
        _report(arguments, trainer, figures, time.monotonic() - start)
    return 0


def make_trainer(arguments, device):
    """Load and check all that the arguments name.  Raises ValueErrors that name file, phrase or option."""
    from ..engines.frames import ALL_PIXELS
    from ..training.dataset import MEMORY, hide_classes, load_dataset
    from ..training.train import Trainer
    from ..vocabulary.text_embeddings import TextBank
    from ..vocabulary.embedding_file import read_embeddings
    embeddings = read_embeddings(arguments.bank)
    bank = TextBank(embeddings.names, embeddings.vectors)
    check_same_bank(arguments)
    start = _start(arguments, embeddings) if arguments.init else None
    config, model_config = recipe(arguments, bank.vectors.shape[1])
    memory = MEMORY // int(os.environ.get('LOCAL_WORLD_SIZE', 1))   # every process of a machine reads all
    datasets = [load_dataset(folder, arguments.split, memory, config.network_pixels or ALL_PIXELS)
                for folder in arguments.data]
    if config.unseen:
        datasets = hide_classes(datasets, config.unseen)
    loaders = default_loaders(device) if arguments.loaders is None else arguments.loaders
    if loaders < 1:
        raise ValueError(f'--loaders is {loaders}; give 1 thread or more')
    if loaders > 1:
        cv2.setNumThreads(1)   # else each of them brings as many again
    return Trainer(datasets, _validation(arguments), bank, config, start.config if start else model_config, device,
                   loaders, start)


def check_same_bank(arguments):
    """Raises ValueError when the run in --out began with a bank of other content."""
    from ..engines.weights import file_sha256
    from ..training.runs import read_origin
    begun = read_origin(arguments.out) if (Path(arguments.out) / 'checkpoint.pt').exists() else {}
    if begun.get('bank_sha256') not in (None, file_sha256(arguments.bank)):
        raise ValueError(f'{arguments.bank} is not the text bank that {arguments.out} began with ({begun["bank"]}, perhaps '
                         'changed since); give that one to resume, or another --out to start afresh')


def _start(arguments, bank):
    """The network of the weights of --init, with learned upsampling where it has none.

    Raises VocabularyError when the bank, `Embeddings`, is of another text encoder than they.
    """
    from ..engines.weights import load_weights
    from ..model.network import with_upsampling
    from ..model.weights_file import load_network
    from ..vocabulary.compatibility import check_bank
    weights = load_weights(arguments.init)
    check_bank(weights, bank, arguments.bank)
    model = load_network(weights)
    return model if model.upsample or not arguments.upsample else with_upsampling(model, arguments.upsample)


def recipe(arguments, text_dim):
    """TrainConfig and NetworkConfig of the arguments; text_dim: width of the bank's embeddings."""
    from ..model.network import NetworkConfig
    from ..training.train import TrainConfig
    height, width = arguments.crop
    config = TrainConfig(
        epochs=arguments.epochs, batch=arguments.batch, height=height, width=width, learning_rate=arguments.lr,
        warmup=arguments.warmup, balance=arguments.balance, ema=arguments.ema,
        max_distractors=arguments.distractors, word_augmentation=arguments.word_augmentation,
        evaluate_every=arguments.evaluate_every, seed=arguments.seed, others=arguments.others, paste=arguments.paste,
        smallest=arguments.scales[0], largest=arguments.scales[1],
        network_pixels=arguments.network_pixels,
        pretrained=None if arguments.pretrained == 'none' or arguments.init else arguments.pretrained,
        head='ours' if arguments.init else arguments.head, init=Path(arguments.init).stem if arguments.init else '',
        unseen=tuple(name.strip() for name in arguments.unseen.split(',') if name.strip()))
    model_config = NetworkConfig(
        backbone=arguments.backbone, text_dim=text_dim, blocks=arguments.blocks,
        image_to_text=arguments.image_to_text, text_to_image=arguments.text_to_image, upsample_dim=arguments.upsample)
    return config, model_config


def _validation(arguments):
    """The data set to validate on, or None where none was named and the first has no such split.

    The first process validates, so no other reads it.
    """
    from ..training.dataset import load_dataset
    from ..training.parallel import rank_and_world
    if rank_and_world()[0]:
        return None
    if arguments.val is None and not (Path(arguments.data[0]) / arguments.val_split).is_dir():
        return None
    return load_dataset(arguments.val or arguments.data[0], arguments.val_split)


def default_loaders(device):
    """Threads that make batches: one beside a CPU's own work, enough to keep a GPU busy."""
    from ..engines.cpu import usable_cores
    processes = int(os.environ.get('LOCAL_WORLD_SIZE', 1))
    return max(1, min(12, usable_cores() // processes)) if device.type == 'cuda' else 1


def write_origin(arguments, argv):
    """OUT/run.json: how the run was started, for "lgseg export" and "lgseg eval".  A resumed run keeps the first.

    `before`: the stages of training that the weights of --init have behind them, from their card.
    """
    from ..engines.weights import file_sha256, load_weights
    from ..training.runs import versions
    path = Path(arguments.out) / 'run.json'
    path.parent.mkdir(parents=True, exist_ok=True)
    if not (path.exists() and (path.parent / 'checkpoint.pt').exists()):   # a run that ended before its first epoch
        before = load_weights(arguments.init).card.get('stages', []) if arguments.init else []
        path.write_text(json.dumps({'command': shlex.join(['lgseg', *argv]), 'data': arguments.data,
                                    'bank': arguments.bank, 'bank_sha256': file_sha256(arguments.bank),
                                    'before': before, 'versions': versions()}, indent=2) + '\n')


def _report(arguments, trainer, figures, seconds):
    from .eval import print_table
    if figures:
        print(f'validation after epoch {figures["epoch"]}, percent:')
        print_table(figures)
    parameters = sum(p.numel() for p in trainer.model.parameters())
    print(f'epoch {trainer.epoch} of {trainer.config.epochs}, {parameters / 1e6:.2f} M parameters, '
          f'{seconds / 60:.1f} minutes; run: {arguments.out}')

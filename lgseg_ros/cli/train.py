"""Train a network on one or several data sets laid out as: dataset.yaml, SPLIT/images, SPLIT/labels.

Data sets may have different classes: language is what joins them.  The same command again goes on where the run
stopped.  Everything is checked before the first step.  OUT gets checkpoint.pt, log.jsonl (a line per epoch) and
run.json; "lgseg export --run OUT" makes weights of it.

Examples:
  lgseg train --data ../shared/data/camvid --text-embeddings ../shared/text/clip_vit_b16_bank.npz --out runs/street
  lgseg train --data a --data b --val a --text-embeddings EMBEDDINGS.npz --out runs/ab --batch-size 32 --crop 512x768
  lgseg train --data DIR --text-embeddings EMBEDDINGS.npz --out RUN --init lgseg_lite0 --epochs 20 --lr 5e-4
  torchrun --nproc-per-node 4 -m lgseg_ros.cli.main train --data DIR --text-embeddings EMBEDDINGS.npz --out RUN
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2

if TYPE_CHECKING:
    import torch

    from ..model.network import NetworkConfig, SegmentationNetwork
    from ..training.config import TrainConfig
    from ..training.dataset import Dataset, ImageCache
    from ..training.trainer import Trainer
    from ..vocabulary.embedding_file import Embeddings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line of `lgseg train`; options are stored under the names of the library's arguments."""
    data = parser.add_argument_group('data')
    data.add_argument('--data', action='append', required=True, metavar='DIR',
                      help='data set to train on; may be repeated')
    data.add_argument('--split', default='train', help='of the data sets to train on (default: %(default)s)')
    data.add_argument('--val', metavar='DIR',
                      help='data set to validate on (default: the first --data, if it has the split)')
    data.add_argument('--val-split', default='val', help='default: %(default)s')
    data.add_argument(
        '--text-embeddings', required=True, metavar='NPZ', help='text embeddings: phrases and their vectors'
    )
    data.add_argument('--unseen', default='', metavar='LIST',
                      help='classes whose labels are hidden in training, "car,tree"')
    data.add_argument('--image-cache', type=float, metavar='GB', dest='cache_gigabytes',
                      help='memory for images of all data sets together; the rest is decoded at every use '
                           '(default: 4, at most half of the free memory)')
    data.add_argument('--out', required=True, metavar='RUN', help='folder of the run; an old run there is continued')
    _add_hyperparameters(parser.add_argument_group('hyperparameters'))
    _add_network(parser.add_argument_group('network'))
    machine = parser.add_argument_group('machine')
    machine.add_argument('--device', default='auto', help='auto (a GPU where torch sees one), cpu, cuda or cuda:N '
                                                          '(default: %(default)s)')
    machine.add_argument('--num-workers', type=int,
                         help='threads that make batches (default: 1; on a GPU one per core, up to 12)')
    machine.add_argument('--stop-epoch', type=int, metavar='EPOCH',
                         help='stop after this epoch; the schedule stays that of --epochs')


def _add_hyperparameters(group: argparse._ArgumentGroup) -> None:
    from ..engines.preprocessing import DEFAULT_PIXELS
    from ..training.config import TEXT_PROJECTIONS, TrainConfig
    default = TrainConfig()
    group.add_argument('--epochs', type=int, default=default.epochs, help='default: %(default)s')
    group.add_argument('--batch-size', type=int, default=default.batch_size,
                       help='images per step and process (default: %(default)s)')
    group.add_argument('--crop', type=crop, default=(default.height, default.width), metavar='HxW',
                       help=f'multiples of 32 (default: {default.height}x{default.width})')
    group.add_argument('--scales', type=float, nargs=2, default=(default.min_scale, default.max_scale),
                       metavar=('LOW', 'HIGH'), help='images are scaled at random between these (default: '
                                                     f'{default.min_scale} {default.max_scale})')
    group.add_argument('--max-inference-pixels', type=int, default=DEFAULT_PIXELS, metavar='N',
                       help='larger images are shrunk to about N pixels, as the node shrinks them for the network; 0: '
                            'none are shrunk (default: %(default)s)')
    group.add_argument('--dataset-temperature', type=float, default=default.dataset_temperature, metavar='T',
                       help='data sets take turns in proportion to their size to the power T; 1: in proportion, 0: '
                            'equally often (default: %(default)s)')
    group.add_argument('--epoch-fraction', type=float, default=default.epoch_fraction, metavar='F',
                       help='length of an epoch over one pass through all images; below 1 checkpoints of a large '
                            'mixture come more often (default: %(default)s)')
    group.add_argument('--copy-paste-prob', type=float, default=default.copy_paste_prob, metavar='P',
                       help='probability that objects of a class of the rarer half are pasted from another image; 0: '
                            'never (default: %(default)s)')
    group.add_argument('--lr', type=float, default=default.learning_rate, dest='learning_rate', metavar='LR',
                       help='peak learning rate (default: %(default)s)')
    group.add_argument('--class-weight-power', type=float, default=default.class_weight_power, metavar='P',
                       help='class weights are frequency to the power -P; 0: every pixel alike (default: %(default)s)')
    group.add_argument('--ema', type=float, default=default.ema,
                       help='decay of the averaged network (default: %(default)s)')
    group.add_argument('--warmup-steps', type=int, default=default.warmup_steps, help='default: %(default)s')
    group.add_argument('--num-negatives', type=int, default=default.num_negatives, metavar='N',
                       help='largest number of negatives of a step (default: %(default)s)')
    group.add_argument('--background-loss-weight', type=float, default=default.background_loss_weight, metavar='W',
                       help='weight of the loss that gives ignored pixels to the negatives; 0: ignored pixels are '
                            'excluded (default: %(default)s)')
    group.add_argument('--prompt-augmentation', action=argparse.BooleanOptionalAction, default=True,
                       help='synonyms and negatives in training (default: on)')
    group.add_argument('--text-projection', choices=TEXT_PROJECTIONS, default=default.text_projection,
                       help='learned; pca: a fixed map from all text embeddings; keep: fixed, of the weights of --init '
                            '(default: %(default)s)')
    group.add_argument('--evaluate-every', type=int, default=default.evaluate_every, metavar='N',
                       help='epochs (default: %(default)s)')
    group.add_argument('--seed', type=int, default=default.seed, help='default: %(default)s')


def _add_network(group: argparse._ArgumentGroup) -> None:
    from ..model.baselines import HEADS
    from ..model.network import NetworkConfig
    default = NetworkConfig()
    group.add_argument('--backbone', default=default.backbone, help='any timm model with maps at strides 4 to 32 '
                                                                    '(default: %(default)s)')
    group.add_argument('--pretrained', choices=('imagenet', 'none'), default='imagenet', help='default: %(default)s')
    group.add_argument('--init', metavar='W', help='go on from trained weights, a shipped name or a .safetensors; they '
                                                   'decide the network, whatever the other options of this group say, '
                                                   'but may get learned upsampling if they have none')
    group.add_argument('--upsample', type=int, default=64, metavar='C', help='channels of the learned upsampling; 0: '
                                                                            'bilinear (default: %(default)s)')
    group.add_argument('--blocks', type=int, default=default.blocks, help='fusion blocks (default: %(default)s)')
    for bridge in ('image-to-text', 'text-to-image'):
        group.add_argument(f'--{bridge}', action=argparse.BooleanOptionalAction, default=True,
                           help='bridge of the fusion blocks (default: on)')
    group.add_argument('--head', choices=tuple(HEADS), default='ours', help='default: %(default)s; the others are '
                                                                            'baselines for comparison')


def crop(text: str) -> tuple[int, int]:
    """Parse '288x384' to (288, 384), height first; an argparse type."""
    height, _, width = text.lower().partition('x')
    try:
        return int(height), int(width)
    except ValueError:
        raise argparse.ArgumentTypeError(f'{text!r} is no size; write height x width as in 288x384') from None


def run(arguments: argparse.Namespace, argv: Sequence[str] | None = None) -> int:
    """Train, then print what the run has come to.

    Args:
        arguments: the parsed options.
        argv: what follows "lgseg", where it is not this process's.
    """
    from ..training.distributed import keep_freed_memory, process_group, rank_and_world, select_device
    from ..training.trainer import train
    device = select_device(arguments.device)
    if device.type == 'cpu':
        keep_freed_memory()
    first = rank_and_world()[0] == 0
    start = time.monotonic()
    with process_group(device):
        trainer = make_trainer(arguments, device)
        if first:
            write_origin(arguments, argv or sys.argv[1:])
        metrics = train(trainer, arguments.out, progress=first, stop_epoch=arguments.stop_epoch)
    if first:
        _report(arguments, trainer, metrics, time.monotonic() - start)
    return 0


def make_trainer(arguments: argparse.Namespace, device: torch.device) -> Trainer:
    """Load and check all that the options name.

    Raises:
        ValueError: something cannot be used; the message names file, phrase or argument.
    """
    from ..engines.preprocessing import ALL_PIXELS
    from ..training.config import validate_config
    from ..training.dataset import hide_classes, load_dataset
    from ..training.trainer import Trainer
    from ..vocabulary.embedding_file import read_embeddings
    from ..vocabulary.text_embeddings import TextEmbeddings
    embeddings = read_embeddings(arguments.text_embeddings)
    text_embeddings = TextEmbeddings(embeddings.names, embeddings.vectors)
    check_same_text_embeddings(arguments)
    start = _start(arguments, embeddings) if arguments.init else None
    config, model_config = make_configs(arguments, text_embeddings.vectors.shape[1])
    validate_config(config)   # before minutes are spent on reading images
    cache = _image_cache(arguments.cache_gigabytes)
    datasets = [load_dataset(folder, arguments.split, cache, config.max_inference_pixels or ALL_PIXELS)
                for folder in arguments.data]
    if config.unseen:
        datasets = hide_classes(datasets, config.unseen)
    workers = default_workers(device) if arguments.num_workers is None else arguments.num_workers
    if workers < 1:
        raise ValueError(f'num_workers is {workers}; give 1 thread or more')
    if workers > 1:
        cv2.setNumThreads(1)  # else each of them brings as many again
    return Trainer(
        datasets,
        _validation(arguments, cache),
        text_embeddings,
        config,
        start.config if start else model_config,
        device,
        workers,
        start,
    )


def _image_cache(gigabytes: float | None) -> ImageCache:
    from ..training.dataset import ImageCache
    if gigabytes is not None and not 0 <= gigabytes < 2**20:
        raise ValueError(f'cache_gigabytes is {gigabytes}; give 0 (nothing is kept) or more')
    return ImageCache(None if gigabytes is None else int(gigabytes * 2**30))


def check_same_text_embeddings(arguments: argparse.Namespace) -> None:
    """Check that a run goes on with the text embeddings that it began with.

    Raises:
        ValueError: the run in `out` began with a file of other content.
    """
    from ..model.weights import file_sha256
    from ..training.run_directory import CHECKPOINT, read_origin
    origin = read_origin(arguments.out) if (Path(arguments.out) / CHECKPOINT).exists() else {}
    if origin.get('text_embeddings_sha256') not in (None, file_sha256(arguments.text_embeddings)):
        raise ValueError(
            f'{arguments.text_embeddings} does not hold the text embeddings that {arguments.out} began with '
            f'({origin["text_embeddings"]}, perhaps changed since); give those to resume, or another `out` to start '
            'afresh'
        )


def _start(arguments: argparse.Namespace, text_embeddings: Embeddings) -> SegmentationNetwork:
    """The network of the weights of --init, with learned upsampling where it has none.

    Raises VocabularyError when the text embeddings are of another text encoder.
    """
    from ..model.network import with_upsampling
    from ..model.weights import load_weights
    from ..model.weights_file import load_network
    from ..vocabulary.compatibility import check_text_embeddings
    weights = load_weights(arguments.init)
    check_text_embeddings(weights, text_embeddings, arguments.text_embeddings)
    model = load_network(weights)
    return model if model.upsample is not None or not arguments.upsample else with_upsampling(model, arguments.upsample)


def make_configs(arguments: argparse.Namespace, text_dim: int) -> tuple[TrainConfig, NetworkConfig]:
    """Translate the options to configurations.

    Args:
        arguments: the parsed options.
        text_dim: width of the text embeddings.
    """
    from dataclasses import fields

    from ..model.network import NetworkConfig
    from ..training.config import TrainConfig
    height, width = arguments.crop
    special = {
        'height': height, 'width': width, 'min_scale': arguments.scales[0], 'max_scale': arguments.scales[1],
        'pretrained': None if arguments.pretrained == 'none' or arguments.init else arguments.pretrained,
        'head': 'ours' if arguments.init else arguments.head,
        'init': Path(arguments.init).stem if arguments.init else '',
        'unseen': tuple(name.strip() for name in arguments.unseen.split(',') if name.strip())}
    same = {field.name: getattr(arguments, field.name) for field in fields(TrainConfig)
            if field.name not in special and hasattr(arguments, field.name)}
    model_config = NetworkConfig(
        backbone=arguments.backbone, text_dim=text_dim, blocks=arguments.blocks,
        image_to_text=arguments.image_to_text, text_to_image=arguments.text_to_image, upsample_dim=arguments.upsample)
    return TrainConfig(**special, **same), model_config


def _validation(arguments: argparse.Namespace, cache: ImageCache) -> Dataset | None:
    """The data set to validate on, or None where none was named and the first has no such split.

    The first process validates, so no other reads it.
    """
    from ..training.dataset import load_dataset
    from ..training.distributed import rank_and_world
    if rank_and_world()[0]:
        return None
    if arguments.val is None and not (Path(arguments.data[0]) / arguments.val_split).is_dir():
        return None
    return load_dataset(arguments.val or arguments.data[0], arguments.val_split, cache)


def default_workers(device: torch.device) -> int:
    """Threads that make batches: one beside a CPU's own work, enough to keep a GPU busy."""
    from ..utils.hardware import usable_cores
    processes = int(os.environ.get('LOCAL_WORLD_SIZE', 1))
    return max(1, min(12, usable_cores() // processes)) if device.type == 'cuda' else 1


def write_origin(arguments: argparse.Namespace, argv: Sequence[str]) -> None:
    """Write OUT/run.json: how the run was started, for "lgseg export" and "lgseg eval".  A resumed run keeps the first.

    Its `before` holds the earlier stages of training of the weights of --init, from their card.
    """
    from ..model.weights import file_sha256, load_weights
    from ..training.run_directory import CHECKPOINT, ORIGIN, versions
    path = Path(arguments.out) / ORIGIN
    path.parent.mkdir(parents=True, exist_ok=True)
    if not (path.exists() and (path.parent / CHECKPOINT).exists()):   # a run that ended before its first epoch
        before = load_weights(arguments.init).card.get('stages', []) if arguments.init else []
        path.write_text(
            json.dumps(
                {
                    'command': shlex.join(['lgseg', *argv]),
                    'data': arguments.data,
                    'text_embeddings': arguments.text_embeddings,
                    'text_embeddings_sha256': file_sha256(arguments.text_embeddings),
                    'before': before,
                    'versions': versions(),
                },
                indent=2,
            )
            + '\n'
        )


def _report(arguments: argparse.Namespace, trainer: Trainer, metrics: dict[str, Any] | None, seconds: float) -> None:
    from .eval import print_table
    if metrics:
        print(f'validation after epoch {metrics["epoch"]}, percent:')
        print_table(metrics)
    parameters = sum(p.numel() for p in trainer.model.parameters())
    print(f'epoch {trainer.epoch} of {trainer.config.epochs}, {parameters / 1e6:.2f} M parameters, '
          f'{seconds / 60:.1f} minutes; run: {arguments.out}')

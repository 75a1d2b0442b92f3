"""The hyperparameters of a training run, and what is checked of them before the first step."""

import math
from dataclasses import dataclass

from ..engines.preprocessing import SMALLEST

TEXT_PROJECTIONS = ('learned', 'pca', 'keep')


@dataclass(frozen=True)
class TrainConfig:
    """All hyperparameters; stored in every checkpoint.  A new field needs the default that old runs had."""

    epochs: int = 60
    batch_size: int = 8             # images per step and process
    height: int = 288               # of the crop, a multiple of 32
    width: int = 384
    learning_rate: float = 1.5e-3
    backbone_rate: float = 0.4      # learning rate of the backbone over that of the head
    weight_decay: float = 0.02
    warmup_steps: int = 100
    ema: float = 0.998              # decay of the averaged network
    num_negatives: int = 100        # largest number of negatives of a step
    prompt_augmentation: bool = True
    evaluate_every: int = 5         # epochs
    seed: int = 0
    pretrained: str | None = 'imagenet'
    head: str = 'ours'              # or a baseline: lseg, denseclip
    unseen: tuple[str, ...] = ()    # names of classes whose labels were hidden
    class_weight_power: float = 0.5  # class weights are frequency ** -power; 0: every pixel alike
    min_scale: float = 0.6          # images are scaled at random by this
    max_scale: float = 1.9          # to this
    background_loss_weight: float = 0.0   # of the loss that gives ignored pixels to the negatives; 0: none
    copy_paste_prob: float = 0.0    # probability that a class of the rarer half is pasted from another image
    max_inference_pixels: int = 0   # larger images are shrunk to it, as an engine shrinks them; 0: none are
    dataset_temperature: float = 0.5      # data sets take turns in proportion to size ** this
    epoch_fraction: float = 1.0     # length of an epoch over one pass through all images
    text_projection: str = 'learned'      # 'pca': fixed, from all text embeddings; 'keep': fixed, that of `init`
    init: str = ''                  # name of the trained weights that the run began with


def validate_config(config: TrainConfig) -> None:
    """Check that a run can have these hyperparameters.

    Raises:
        ValueError: it cannot; the message begins with the field.
    """
    _check_numbers(config)
    if config.height % 32 or config.width % 32 or min(config.height, config.width) < 64:
        raise ValueError(f'crop is {config.height}x{config.width}; give multiples of 32, at least 64x64')
    if config.max_inference_pixels and config.max_inference_pixels < SMALLEST ** 2:
        raise ValueError(f'max_inference_pixels is {config.max_inference_pixels}; give at least {SMALLEST ** 2}, or 0 '
                         'for all')
    if not 0.1 <= config.min_scale <= config.max_scale <= 10:
        raise ValueError(f'scales is {config.min_scale} to {config.max_scale}; give a smaller and a larger one of 0.1 '
                         'to 10')
    if config.copy_paste_prob and config.batch_size < 2:
        raise ValueError(f'copy_paste_prob is {config.copy_paste_prob:g}, but a batch of 1 has no other image to copy '
                         'from; give a `batch_size` of 2 or more')
    if config.background_loss_weight and not (config.prompt_augmentation and config.num_negatives):
        raise ValueError(f'background_loss_weight is {config.background_loss_weight:g}, but there are no negatives '
                         'that ignored pixels could be given to; leave `prompt_augmentation` on, with `num_negatives` '
                         '1 or more')
    if config.text_projection not in TEXT_PROJECTIONS:
        raise ValueError(f'text_projection is {config.text_projection!r}; give one of {", ".join(TEXT_PROJECTIONS)}')
    if config.text_projection != 'learned' and config.head != 'ours':
        raise ValueError(f'text_projection is {config.text_projection!r}, but head {config.head!r} has no text '
                         'projection; '
                         "give 'learned', or head 'ours'")
    if config.text_projection == 'keep' and not config.init:
        raise ValueError("text_projection is 'keep', but there are no trained weights with a projection to keep; give "
                         "`init`, or 'pca'")


def _check_numbers(config: TrainConfig) -> None:
    for name in ('epochs', 'batch_size', 'evaluate_every', 'warmup_steps', 'learning_rate'):
        if not 0 < getattr(config, name) < math.inf:
            raise ValueError(f'{name} is {getattr(config, name)}; give more than 0')
    if not 0 < config.epoch_fraction <= 100:
        raise ValueError(f'epoch_fraction is {config.epoch_fraction}; give more than 0, 1 for all images')
    if not 0 <= config.ema < 1:
        raise ValueError(f'ema is {config.ema}; give 0 (no average) or more, and less than 1')
    if not 0 <= config.copy_paste_prob <= 1:
        raise ValueError(f'copy_paste_prob is {config.copy_paste_prob}; give a probability of 0 to 1')
    for name in ('background_loss_weight', 'class_weight_power', 'num_negatives', 'seed', 'dataset_temperature'):
        if not 0 <= getattr(config, name) < math.inf:
            raise ValueError(f'{name} is {getattr(config, name)}; give 0 or more')

"""A small training configuration, and a trainer with it."""

import yaml

from lgseg_ros.training.config import TrainConfig
from lgseg_ros.training.dataset import load_dataset
from lgseg_ros.training.trainer import Trainer
from small_network import SMALL_NETWORK

SMALL_RUN = TrainConfig(epochs=2, batch_size=2, height=64, width=96, warmup_steps=2, evaluate_every=1, pretrained=None)


def make_trainer(folder, text_embeddings, config=SMALL_RUN, validation=True, **options):
    measured = load_dataset(folder, 'val') if validation else None
    return Trainer([load_dataset(folder, 'train')], measured, text_embeddings, config, SMALL_NETWORK, **options)


def edit_dataset_yaml(folder, **changes):
    path = folder / 'dataset.yaml'
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), **changes}))

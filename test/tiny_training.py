"""What the tests of training share: small data, a bank of words, a recipe and a trainer."""

import pytest
import yaml
from tiny import SMALL, write_bank, write_dataset

from lgseg_ros.training.dataset import load_dataset
from lgseg_ros.training.train import TrainConfig, Trainer
from lgseg_ros.vocabulary.bank import load_npz_bank

RECIPE = TrainConfig(epochs=2, batch=2, height=64, width=96, warmup=2, evaluate_every=1, pretrained=None)


@pytest.fixture(scope='module')
def bank(tmp_path_factory):
    return load_npz_bank(write_bank(tmp_path_factory.mktemp('bank') / 'bank.npz'))


@pytest.fixture(scope='module')
def street_data(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp('data') / 'street')


@pytest.fixture
def own_data(tmp_path):
    """A data set that the test may damage."""
    return write_dataset(tmp_path / 'own', train=2, val=1)


def trainer_of(folder, bank, config=RECIPE, validation=True, **options):
    measured = load_dataset(folder, 'val') if validation else None
    return Trainer([load_dataset(folder, 'train')], measured, bank, config, SMALL, **options)


def edit_yaml(folder, **changes):
    path = folder / 'dataset.yaml'
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), **changes}))

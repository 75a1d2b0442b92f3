"""Small data sets and text embeddings for the tests of training; needs PyTorch (scripts/setup.sh --with train)."""

from pathlib import Path

import pytest

from lgseg_ros.vocabulary.text_embeddings import TextEmbeddings, load_text_embeddings
from street_dataset import write_dataset, write_text_embeddings


@pytest.fixture(autouse=True, scope='module')
def on_one_thread(one_torch_thread: None) -> None:
    """All tests of this folder run PyTorch on one thread."""


@pytest.fixture(scope='module')
def text_embeddings(tmp_path_factory: pytest.TempPathFactory) -> TextEmbeddings:
    """Random text embeddings of the street classes, their synonyms and some negatives."""
    return load_text_embeddings(write_text_embeddings(tmp_path_factory.mktemp('text') / 'embeddings.npz'))


@pytest.fixture(scope='module')
def street_dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a data set with 4 training images and 1 validation image."""
    return write_dataset(tmp_path_factory.mktemp('data') / 'street')


@pytest.fixture
def editable_dataset(tmp_path: Path) -> Path:
    """The folder of a data set that the test may damage."""
    return write_dataset(tmp_path / 'own', train=2, val=1)

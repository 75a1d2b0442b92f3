"""A very small CLIP of the real architecture with random weights, and network weights that were made with it."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lgseg_ros.model.weights import load_weights

ROOT = Path(__file__).resolve().parents[2]
CONFIG = {
    'embed_dim': 16,
    'vision_cfg': {'image_size': 16, 'layers': 1, 'width': 16, 'head_width': 8, 'patch_size': 8},
    'text_cfg': {'context_length': 32, 'vocab_size': 49408, 'width': 16, 'heads': 2, 'layers': 1},
}
CLASS_NAMES = ['road', 'car', 'truck', 'sky', 'tree', 'person', 'cyclist', 'fence', 'traffic light', 'sidewalk', 'fork']


def make_clip(folder):
    """Write tiny.json, right.safetensors and other.safetensors (other random weights) to `folder`."""
    from lgseg_ros.utils.torchvision_compat import ensure_torchvision
    ensure_torchvision()
    import open_clip
    import torch
    from safetensors.torch import save_file
    (folder / 'tiny.json').write_text(json.dumps(CONFIG))
    open_clip.add_model_config(folder / 'tiny.json')
    for seed, name in enumerate(('right', 'other')):
        torch.manual_seed(seed)
        save_file(open_clip.create_model('tiny').state_dict(), folder / f'{name}.safetensors')


def make_weights(folder):
    """Write small.safetensors and its card: an untrained network with CLASS_NAMES embedded by the tiny CLIP."""
    import torch

    from lgseg_ros.cli.main import main
    from lgseg_ros.model.network import NetworkConfig, SegmentationNetwork
    from lgseg_ros.model.weights_file import save_weights
    from lgseg_ros.vocabulary.embedding_file import read_embeddings
    from lgseg_ros.vocabulary.text_embeddings import TextEmbeddings
    assert main(['embed', *CLASS_NAMES, '--model', str(folder / 'tiny.json'), '--out', str(folder / 'embeddings.npz'),
                 '--pretrained', str(folder / 'right.safetensors')]) == 0
    text_embeddings = read_embeddings(folder / 'embeddings.npz')
    torch.manual_seed(0)
    model = SegmentationNetwork(NetworkConfig(text_dim=16, embed_dim=8, pyramid_dim=8, pixel_dim=8, blocks=1))
    save_weights(
        model,
        TextEmbeddings(text_embeddings.names, text_embeddings.vectors),
        folder / 'small',
        {'text_encoder': text_embeddings.space.as_dict()},
    )


@pytest.fixture(scope='session')
def tiny_clip_folder(tmp_path_factory):
    """Folder of the tiny CLIP and the weights made with it."""
    if not all(map(importlib.util.find_spec, ('torch', 'open_clip', 'timm'))):
        pytest.skip('needs PyTorch and open_clip (scripts/setup.sh --with train)')
    folder = tmp_path_factory.mktemp('tiny')
    make_clip(folder)
    make_weights(folder)
    return folder


@pytest.fixture
def tiny_clip_weights(tiny_clip_folder, monkeypatch, tmp_path):
    """The weights of `tiny_clip_folder`; its text encoder and an empty cache are set in the environment."""
    monkeypatch.setenv('LGSEG_CLIP_WEIGHTS', str(tiny_clip_folder / 'right.safetensors'))
    monkeypatch.setenv('LGSEG_CACHE', str(tmp_path / 'cache'))
    return load_weights(tiny_clip_folder / 'small.safetensors')


def run_python(code, *arguments, **environment):
    """Run `code` in a new Python process; returns the CompletedProcess."""
    return subprocess.run([sys.executable, '-c', code, *map(str, arguments)], cwd=ROOT, text=True, capture_output=True,
                          timeout=100, env={**os.environ, 'PYTHONPATH': str(ROOT), **environment})


# As on a machine without open_clip and torch.
WITHOUT_CLIP = "import sys; sys.modules['open_clip'] = sys.modules['torch'] = None\n"

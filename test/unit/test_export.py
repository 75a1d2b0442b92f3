"""Weights, model card and ONNX file: what is exported does what the torch network does."""

import json
import stat
from dataclasses import replace

import numpy as np
import pytest
import torch

from lgseg_ros.cli.main import main
from lgseg_ros.engines.onnxruntime_engine import OnnxRuntimeEngine
from lgseg_ros.model.network import SegmentationNetwork
from lgseg_ros.model.onnx_export import ExportWrapper, export_onnx
from lgseg_ros.model.weights import WeightsError, load_weights
from lgseg_ros.model.weights_file import load_network, save_weights
from lgseg_ros.training.export import compare_with_torch, export_onnx_file, portable
from lgseg_ros.vocabulary.text_embeddings import load_text_embeddings
from small_network import SMALL_NETWORK, randomize_zero_init
from street_dataset import PHRASES, TEXT_DIM, write_text_embeddings

pytestmark = pytest.mark.usefixtures('one_torch_thread')

CONFIGS = {'cnn': SMALL_NETWORK, 'transformer': replace(SMALL_NETWORK, backbone='efficientvit_b0'),
           'no bridge': replace(SMALL_NETWORK, image_to_text=False, text_to_image=False)}


@pytest.fixture(scope='module', params=CONFIGS)
def exported(request, tmp_path_factory):
    """A network and an ONNX Runtime session of its export."""
    import onnxruntime
    torch.manual_seed(0)
    model = randomize_zero_init(SegmentationNetwork(CONFIGS[request.param]))
    path = tmp_path_factory.mktemp('onnx') / 'small.onnx'
    export_onnx(model, path, size=(64, 96))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return model, onnxruntime.InferenceSession(str(path), options, providers=['CPUExecutionProvider'])


@pytest.mark.parametrize('rows', [1, 11, 100])
@pytest.mark.parametrize('size, batch', [((96, 128), 1), ((72, 152), 2)])
def test_onnx_agrees_with_torch(exported, rows, size, batch):
    """At sizes, batches and numbers of rows that the exporter did not see."""
    model, session = exported
    rng = np.random.default_rng(rows)
    frames = rng.integers(256, size=(batch, *(side // 8 for side in size), 3), dtype=np.uint8).repeat(8, 1).repeat(8, 2)
    with torch.no_grad():
        vectors = model.project_text(torch.from_numpy(rng.normal(size=(rows, TEXT_DIM)).astype(np.float32)))
        class_ids = torch.arange(rows) // 2 + 3
        wanted = ExportWrapper(model)(torch.from_numpy(frames), vectors, class_ids, torch.tensor(0.3))
    ids, confidence = session.run(None, {'frames': frames, 'rows': vectors.numpy(), 'row_ids': class_ids.numpy(),
                                         'threshold': np.array(0.3, np.float32)})
    assert ids.shape == confidence.shape == (batch, *size) and ids.dtype == confidence.dtype == np.uint8
    assert (ids == wanted[0].numpy()).mean() >= 0.995
    assert np.abs(confidence.astype(int) - wanted[1].numpy()).mean() < 0.5
    if rows > 1:
        assert len(np.unique(ids)) > 1, 'a mask of one id would agree with anything'


def test_weights_come_back_as_they_were_saved(tmp_path):
    text_embeddings = load_text_embeddings(write_text_embeddings(tmp_path / 'bank.npz'))
    torch.manual_seed(0)
    model = randomize_zero_init(SegmentationNetwork(SMALL_NETWORK))
    save_weights(model, text_embeddings, tmp_path / 'new' / 'tiny.v2', {'name': 'tiny'})
    weights = load_weights(tmp_path / 'new' / 'tiny.v2.safetensors')
    assert weights.card['model'] == model.describe()
    assert weights.text_embeddings.names == list(PHRASES)
    again = load_network(weights)
    for name, value in model.state_dict().items():
        if not name.endswith('num_batches_tracked'):
            torch.testing.assert_close(again.state_dict()[name], value, rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(weights.project(text_embeddings.vectors), weights.text_embeddings.vectors, atol=2e-3)
    for path in (tmp_path / 'new').iterdir():
        assert stat.S_IMODE(path.stat().st_mode) & 0o444 == 0o444, f'{path.name} must be readable by every user'


def test_values_beyond_fp16_survive(tmp_path):
    """Running variances of some backbones pass 65504; as infinity they would silence the channel."""
    torch.manual_seed(0)
    model = SegmentationNetwork(SMALL_NETWORK)
    large = next(module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d))
    large.running_var.fill_(1e6)
    save_weights(model, load_text_embeddings(write_text_embeddings(tmp_path / 'bank.npz')), tmp_path / 'large', {})
    again = load_network(load_weights(tmp_path / 'large.safetensors'))
    assert any((value == 1e6).all() for value in again.state_dict().values())


@pytest.fixture
def tiny_weights(tmp_path):
    torch.manual_seed(0)
    model = randomize_zero_init(SegmentationNetwork(SMALL_NETWORK))
    text_embeddings = load_text_embeddings(write_text_embeddings(tmp_path / 'bank.npz'))
    save_weights(model, text_embeddings, tmp_path / 'tiny', {'name': 'tiny'})
    return tmp_path / 'tiny.safetensors'


def test_export_writes_a_missing_or_foreign_onnx_file_again(tiny_weights, capsys):
    with pytest.raises(WeightsError, match=f'lgseg export --weights {tiny_weights}'):
        OnnxRuntimeEngine(load_weights(tiny_weights))
    assert main(['export', '--weights', str(tiny_weights)]) == 0
    printed = capsys.readouterr().out
    assert 'tiny.onnx' in printed and 'tiny.selftest.safetensors' in printed
    stamp = tiny_weights.with_suffix('.onnx').stat().st_mtime_ns
    tiny_weights.with_suffix('.selftest.safetensors').write_bytes(b'damaged')
    assert main(['export', '--weights', str(tiny_weights), '--self-test-only']) == 0
    assert tiny_weights.with_suffix('.onnx').stat().st_mtime_ns == stamp, 'only the self-test is made'
    assert OnnxRuntimeEngine(load_weights(tiny_weights)).self_test.passed
    assert main(['export', '--run', str(tiny_weights), '--self-test-only']) == 1
    assert main(['export', '--weights', str(tiny_weights), '--name', 'other']) == 1
    assert 'are for --run' in capsys.readouterr().err
    weights = load_weights(tiny_weights)
    OnnxRuntimeEngine(weights)
    foreign = replace(weights, sha256='0' * 64)
    with pytest.raises(WeightsError, match='exported from other weights'):
        OnnxRuntimeEngine(foreign)


def test_export_refuses_a_graph_that_is_not_the_network(tiny_weights, monkeypatch):
    """As if an exporter had dropped part of the network: the file holds another one."""
    import lgseg_ros.model.onnx_export as module
    honest = module.export_onnx
    torch.manual_seed(9)   # the fixture's is 0
    other = randomize_zero_init(SegmentationNetwork(SMALL_NETWORK))
    monkeypatch.setattr(module, 'export_onnx', lambda _, *rest, **options: honest(other, *rest, **options))
    with pytest.raises(ValueError, match='so it was removed'):
        export_onnx_file(tiny_weights)
    assert not load_weights(tiny_weights).onnx_path.exists()


@pytest.mark.parametrize('damage, reason', [
    (lambda path: path.with_suffix('.json').unlink(), 'is missing beside'),
    (lambda path: path.write_bytes(path.read_bytes()[:5000]), 'damaged'),
    (lambda path: path.with_suffix('.json').write_text(json.dumps({'model': {'blocks': 3}})), 'does not fit its card'),
])
def test_damaged_weights_are_named(tiny_weights, damage, reason, capsys):
    damage(tiny_weights)
    assert main(['export', '--weights', str(tiny_weights)]) == 1
    message = capsys.readouterr().err
    assert reason in message and str(tiny_weights.with_suffix('')) in message


def test_the_model_card_has_no_path_of_this_machine():
    command = "lgseg train --data /home/someone/camvid --text-embeddings ../clip.npz --prompts 'car=family car'"
    assert portable(command) == "lgseg train --data camvid --text-embeddings ../clip.npz --prompts 'car=family car'"


def test_shipped_weights_agree_with_torch(weights):
    """The exact answer interpolates every class everywhere; the graph does so where it is needed."""
    same, exact = compare_with_torch(load_network(weights), weights)
    assert same >= 0.999 and exact >= 0.995

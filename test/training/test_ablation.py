"""The comparison of heads: calculations by hand, and the whole command on small images."""

import json
import shutil
import statistics
import sys
from pathlib import Path

import pytest
import torch

from small_network import SMALL_NETWORK
from street_dataset import write_dataset, write_text_embeddings

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / 'benchmark'))

import ablation
import bridges
import head_cost

from lgseg_ros.model.baselines import create_model
from lgseg_ros.training.run_directory import load_checkpoint


def test_harmonic_mean_and_spread_by_hand():
    assert ablation.harmonic(60, 30) == pytest.approx(40)
    assert ablation.harmonic(0, 0) == 0
    assert ablation.spread([70.0, 72.0, 74.0]) == {'values': [70.0, 72.0, 74.0], 'mean': 72.0, 'std': 2.0}
    assert ablation.spread([70.0])['std'] is None


def test_metrics_of_seen_and_unseen_classes(tmp_path):
    """A class without IoU in the log counts as 0 in the mean."""
    iou = {'sky': 90.0, 'road': 70.0, 'car': 20.0, 'tree': None}
    (tmp_path / 'log.jsonl').write_text(json.dumps({'epoch': 1, 'validation': {'miou': 45.0, 'iou': iou}}))
    metrics = ablation.metrics_of(tmp_path, ['car', 'tree'])
    assert (metrics['seen'], metrics['unseen'], metrics['miou']) == (80, 10, 45.0)
    assert metrics['harmonic'] == pytest.approx(2 * 80 * 10 / 90)
    assert 'seen' not in ablation.metrics_of(tmp_path, [])


def test_multiply_accumulates_by_hand():
    """A 3x3 convolution from 3 to 8 channels at stride 2, and a product with the text embeddings."""
    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = torch.nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False)

        def forward(self, images, text_embeddings):
            return text_embeddings @ self.conv(images).flatten(2)

    expected = 32 * 48 * 8 * 27 + 5 * 8 * 32 * 48
    assert head_cost.count_gmacs(Net(), torch.zeros(1, 5, 8), (64, 96)) == pytest.approx(expected / 1e9)


def test_parameters_used_only_in_training_are_not_counted():
    model = create_model('lseg', SMALL_NETWORK)
    auxiliary = sum(p.numel() for p in model.deep_to_text.parameters())
    assert head_cost.count_parameters(model) == sum(p.numel() for p in model.parameters()) - auxiliary


def test_runs_differ_only_in_the_head(tmp_path):
    arguments, rest = ablation.parse(['--data', 'd', '--text-embeddings', 'b', '--batch-size', '4'])
    commands = {head: ablation.train_command(arguments, rest, ablation.Entry(head, 1, tmp_path))
                for head in ablation.HEADS}
    for head, command in commands.items():
        own = ablation.HEADS[head][1]
        assert [text for text in command if text not in own] == [text for text in commands['both'] if text not in own]
        assert command[-2:] == ['--batch-size', '4']


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_whole_command(tmp_path, capsys):
    """All heads, two seeds, two unseen classes; a second call trains nothing and reports the same results."""
    data, text_embeddings = (
        write_dataset(tmp_path / 'data', train=2, val=1),
        write_text_embeddings(tmp_path / 'embeddings.npz'),
    )
    command = [
        '--data',
        str(data),
        '--text-embeddings',
        str(text_embeddings),
        '--epochs',
        '1',
        '--crop',
        '64x96',
        '--seeds',
        '2',
        '--runs',
        str(tmp_path / 'runs'),
        '--results',
        str(tmp_path / 'results'),
        '--iterations',
        '2',
        '--unseen',
        'car,tree',
        '--prompts',
        'road=street',
        '--backbone',
        SMALL_NETWORK.backbone,
        '--pretrained',
        'none',
        '--batch-size',
        '2',
        '--warmup-steps',
        '1',
    ]
    ablation.main(command)
    assert 'ours, both bridges' in capsys.readouterr().out
    result = json.loads((tmp_path / 'results/ablation.json').read_text())
    assert [row['head'] for row in result['rows']] == list(ablation.HEADS)
    for row in result['rows']:
        assert all(len(row[key]['values']) == 2 for key in ('miou', 'seen', 'unseen', 'harmonic', 'renamed'))
        assert row['miou']['mean'] == pytest.approx(statistics.mean(row['miou']['values']), abs=0.01)
        assert row['cpu_ms'] > 0 and row['gmacs'] > 0 and row['rows'] == 12
    cost = {row['head']: row['parameters'] for row in result['rows']}
    assert cost['lseg'] < cost['none'] < cost['image-to-text'] < cost['both']
    assert cost['none'] < cost['text-to-image'] < cost['both']
    runs = {path.name: path for path in (tmp_path / 'runs/ablation').iterdir()}
    assert len(runs) == 12
    assert all('car' not in load_checkpoint(path / 'checkpoint.pt')['classes'][0] for path in runs.values())
    assert load_checkpoint(runs['denseclip-seed1'] / 'checkpoint.pt')['config']['head'] == 'denseclip'
    assert str(tmp_path) not in (tmp_path / 'results/ablation.json').read_text(), (
        'results are committed to the repository'
    )
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / 'runs').rglob('checkpoint.pt')}
    ablation.main([*command, '--heads', 'lseg', 'both', '--iterations', '0'])
    assert times == {path: path.stat().st_mtime_ns for path in (tmp_path / 'runs').rglob('checkpoint.pt')}
    assert json.loads((tmp_path / 'results/ablation.json').read_text()) == result
    # As on another machine: results without runs. Results of other options are not overwritten.
    shutil.rmtree(tmp_path / 'runs')
    ablation.main(command)
    assert not (tmp_path / 'runs').exists()
    assert json.loads((tmp_path / 'results/ablation.json').read_text()) == result
    with pytest.raises(SystemExit, match='give another --name'):
        ablation.main([*command, '--lr', '1e-4'])
    assert json.loads((tmp_path / 'results/ablation.json').read_text()) == result and not (tmp_path / 'runs').exists()


def test_silenced_bridges_have_no_effect():
    """With all bridges silenced, the text affects the mask only by the class embeddings."""
    torch.manual_seed(0)
    model = create_model('ours', SMALL_NETWORK).eval()
    model.gamma.data.fill_(0.1)
    images, projected, recorded = (
        torch.randn(1, 3, 64, 96),
        model.project_text(torch.randn(4, SMALL_NETWORK.text_dim)),
        {},
    )
    for block in model.fusion:
        block.cnn.register_forward_hook(lambda module, inputs, image: recorded.setdefault('image', []).append(image))
        block.register_forward_hook(lambda module, inputs, both: recorded.setdefault('both', []).append(both))

    def run(change):
        recorded.clear()
        bridges.CHANGES[change](model)
        with torch.no_grad():
            return model(images, projected).logits

    before = run('as trained')
    assert not torch.equal(run('image to text silent'), before)
    tokens = [both[1] for both in recorded['both']]
    model.fusion[0].cnn.reduce[0].weight.data.neg_()   # changes what the tokens read from the image
    run('as trained')
    assert torch.equal(tokens[-1], recorded['both'][-1][1]), 'tokens are independent of the image'
    run('text to image even')
    image, (read, _) = recorded['image'][0], recorded['both'][0]
    added = (read - image).flatten(2)
    torch.testing.assert_close(added, added[..., :1].expand_as(added), msg='the same at every position')
    run('text to image silent')
    assert all(torch.equal(image, both[0]) for image, both in zip(recorded['image'], recorded['both'], strict=True))
    silent = run('class embeddings not refined (gamma 0)')
    model.gamma.data.fill_(0.5)
    assert not torch.equal(run('as trained'), silent)

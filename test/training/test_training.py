"""Training runs on small images: outputs, resuming, errors, several data sets and processes."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from lgseg_ros.training.data_loader import BatchLoader, steps_per_dataset
from lgseg_ros.training.dataset import load_dataset
from lgseg_ros.training.prompts import PromptSampler
from lgseg_ros.training.run_directory import CheckpointError, load_checkpoint, load_run, read_log
from lgseg_ros.training.trainer import Trainer, fix_text_projection, train
from lgseg_ros.utils.label_values import OUTSIDE
from lgseg_ros.vocabulary.classes import VocabularyError, parse_classes
from small_network import SMALL_NETWORK
from street_dataset import CLASSES, TEXT_DIM, write_dataset, write_text_embeddings
from training_harness import SMALL_RUN, edit_dataset_yaml, make_trainer


def equal(a, b):
    """Whether two nested states are exactly equal, tensors included."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(equal, a, b))
    return a == b


def test_a_run_reduces_the_loss_and_is_logged(street_dataset, text_embeddings, tmp_path):
    trainer = make_trainer(street_dataset, text_embeddings,
                           replace(SMALL_RUN, epochs=16, learning_rate=5e-3, evaluate_every=8))
    before = trainer.evaluate(progress=False)
    metrics = train(trainer, tmp_path, progress=False)
    log = read_log(tmp_path)
    assert [record['epoch'] for record in log] == list(range(1, 17))
    assert log[-1]['cross_entropy'] < 0.75 * log[0]['cross_entropy']
    assert [record['epoch'] for record in log if 'validation' in record] == [8, 16]
    assert metrics['epoch'] == 16 and metrics['pixel_accuracy'] > before['pixel_accuracy'] + 5
    run = load_run(tmp_path)
    assert run.validation == metrics and run.epoch == 16 and not run.model.training
    assert equal(run.model.state_dict(), trainer.ema.state_dict())
    assert not equal(trainer.ema.state_dict(), trainer.model.state_dict())


@pytest.mark.parametrize('head', ['ours', 'denseclip'])   # the decoder of DenseCLIP has dropout, ours does not
def test_a_resumed_run_equals_an_uninterrupted_one(street_dataset, text_embeddings, tmp_path, head):
    config = replace(SMALL_RUN, epochs=3, head=head)
    train(make_trainer(street_dataset, text_embeddings, config), tmp_path / 'uninterrupted', progress=False)
    for stop_epoch in (1, 2, None):   # each with another random state, as in a new process
        torch.rand(stop_epoch or 5)
        metrics = train(make_trainer(street_dataset, text_embeddings, config, num_workers=3), tmp_path / 'resumed',
                        progress=False, stop_epoch=stop_epoch)
    uninterrupted, resumed = (
        load_checkpoint(tmp_path / name / 'checkpoint.pt') for name in ('uninterrupted', 'resumed')
    )
    assert uninterrupted['epoch'] == 3
    assert equal(uninterrupted, resumed)
    assert metrics == load_run(tmp_path / 'uninterrupted').validation
    other = replace(config, seed=1)
    train(make_trainer(street_dataset, text_embeddings, other), tmp_path / 'other', progress=False)
    assert not equal(uninterrupted['ema'], load_checkpoint(tmp_path / 'other' / 'checkpoint.pt')['ema'])


def test_stop_epoch_0_only_validates(street_dataset, text_embeddings, tmp_path):
    assert train(make_trainer(street_dataset, text_embeddings), tmp_path, progress=False, stop_epoch=0) is None
    assert not (tmp_path / 'log.jsonl').exists()


def test_a_restarted_run_does_not_report_the_previous_one(street_dataset, text_embeddings, tmp_path):
    """The checkpoint was deleted, as the error about a damaged one advises."""
    train(make_trainer(street_dataset, text_embeddings), tmp_path, progress=False)
    (tmp_path / 'checkpoint.pt').unlink()
    metrics = train(make_trainer(street_dataset, text_embeddings), tmp_path, progress=False, stop_epoch=1)
    assert metrics['epoch'] == 1 and [record['epoch'] for record in read_log(tmp_path)] == [1]
    with open(tmp_path / 'log.jsonl', 'a') as log:   # as if killed between writing the log and the checkpoint
        log.write('{"epoch": 2, "seconds": 1, "validation": {}}\n')
    assert load_run(tmp_path).validation == metrics


def test_a_complete_run_is_not_changed(street_dataset, text_embeddings, tmp_path):
    config = replace(SMALL_RUN, epochs=1)
    metrics = train(make_trainer(street_dataset, text_embeddings, config), tmp_path, progress=False)
    content = (tmp_path / 'checkpoint.pt').read_bytes()
    assert train(make_trainer(street_dataset, text_embeddings, config), tmp_path, progress=False) == metrics
    assert (tmp_path / 'checkpoint.pt').read_bytes() == content


def test_checkpoints_without_newer_fields_are_resumed(street_dataset, text_embeddings, tmp_path):
    trainer = make_trainer(street_dataset, text_embeddings, validation=False)
    train(trainer, tmp_path, progress=False, stop_epoch=1)
    state = torch.load(tmp_path / 'checkpoint.pt', weights_only=True)
    for name in ('head', 'unseen'):
        del state['config'][name]
    del state['classes']
    torch.save(state, tmp_path / 'checkpoint.pt')
    resumed = make_trainer(street_dataset, text_embeddings, validation=False)
    resumed.restore(tmp_path / 'checkpoint.pt')
    assert resumed.epoch == 1 and equal(resumed.model.state_dict(), trainer.model.state_dict())


def test_other_hyperparameters_or_other_classes_are_not_resumed(street_dataset, editable_dataset, text_embeddings,
                                                                tmp_path):
    train(make_trainer(street_dataset, text_embeddings), tmp_path, progress=False, stop_epoch=1)
    with pytest.raises(ValueError, match='another batch_size, learning_rate.*same options'):
        make_trainer(street_dataset, text_embeddings,
                     replace(SMALL_RUN, batch_size=1, learning_rate=1.0)).restore(tmp_path / 'checkpoint.pt')
    edit_dataset_yaml(editable_dataset, classes={**CLASSES, 8: 'van'})
    with pytest.raises(ValueError, match='other classes.*same `data`'):
        make_trainer(editable_dataset, text_embeddings).restore(tmp_path / 'checkpoint.pt')


@pytest.mark.parametrize('content', [b'', b'PK\x03\x04 truncated', None])
def test_a_damaged_checkpoint_is_reported_with_the_fix(street_dataset, text_embeddings, tmp_path, content):
    train(make_trainer(street_dataset, text_embeddings), tmp_path, progress=False, stop_epoch=1)
    path = tmp_path / 'checkpoint.pt'
    path.write_bytes(path.read_bytes()[:-1000] if content is None else content)
    with pytest.raises(CheckpointError, match='checkpoint.pt is damaged.*delete it'):
        train(make_trainer(street_dataset, text_embeddings), tmp_path, progress=False)


def test_a_checkpoint_of_another_program_is_refused(street_dataset, text_embeddings, tmp_path):
    torch.save({'weights': torch.zeros(3)}, tmp_path / 'checkpoint.pt')
    with pytest.raises(CheckpointError, match='no checkpoint of this network'):
        load_run(tmp_path)
    with pytest.raises(CheckpointError, match='is of another program.*another `out`'):
        train(make_trainer(street_dataset, text_embeddings), tmp_path, progress=False)
    with pytest.raises(CheckpointError, match='checkpoint.pt is missing.*lgseg train'):
        load_run(tmp_path / 'nowhere')


def test_the_log_of_a_killed_run_is_read(tmp_path):
    lines = '{"epoch": 1, "x": 1}', '{"epoch": 2, "x": 1}', '{"epoch": 2, "x": 2}', '{"epoch": 3, "se'
    (tmp_path / 'log.jsonl').write_text('\n'.join(lines))
    assert read_log(tmp_path) == [{'epoch': 1, 'x': 1}, {'epoch': 2, 'x': 2}]


def test_a_phrase_without_text_embedding_is_reported_at_once(editable_dataset, text_embeddings):
    edit_dataset_yaml(editable_dataset, classes={**CLASSES, 8: 'cars=hovercraft|suvs'})
    with pytest.raises(VocabularyError,
                       match="'hovercraft' is not known; 'suvs' is not known .near: suv.*lgseg embed --from"):
        make_trainer(editable_dataset, text_embeddings)


@pytest.mark.parametrize('change, message', [
    ({'height': 100}, 'multiples of 32'), ({'width': 32}, 'at least 64x64'), ({'batch_size': 0}, 'batch_size is 0'),
    ({'epochs': 0}, 'epochs is 0'), ({'learning_rate': 0.0}, 'learning_rate is 0'), ({'seed': -1}, 'seed is -1'),
    ({'min_scale': 2.0}, 'scales is 2.0 to 1.9'), ({'max_scale': 20.0}, 'scales is 0.6 to 20.0'),
    ({'head': 'sam'}, "head 'sam' is unknown"), ({'num_negatives': -1}, 'num_negatives is -1'),
    ({'background_loss_weight': 0.5, 'num_negatives': 0}, 'no negatives'),
    ({'max_inference_pixels': 100}, 'at least 4096'),
    ({'ema': 998}, 'ema is 998'), ({'ema': float('nan')}, 'ema is nan'),
    ({'class_weight_power': -2.0}, 'class_weight_power is -2'),
    ({'learning_rate': float('inf')}, 'learning_rate is inf'),
    ({'background_loss_weight': 0.5, 'prompt_augmentation': False}, 'no negatives'),
    ({'copy_paste_prob': 1.5}, 'copy_paste_prob is 1.5; give a probability of 0 to 1'),
    ({'copy_paste_prob': 0.5, 'batch_size': 1}, 'no other image to copy from'),
    ({'epoch_fraction': 0.0}, 'epoch_fraction is 0.0'),
    ({'dataset_temperature': float('nan')}, 'dataset_temperature is nan'),
    ({'text_projection': 'svd'}, "text_projection is 'svd'; give one of learned, pca, keep"),
    ({'text_projection': 'keep'}, 'no trained weights'),
    ({'text_projection': 'pca', 'head': 'lseg'}, "head 'lseg' has no text projection"),
])
def test_invalid_hyperparameters_are_refused(street_dataset, text_embeddings, change, message):
    with pytest.raises(ValueError, match=message):
        make_trainer(street_dataset, text_embeddings, replace(SMALL_RUN, **change))


def test_a_nan_loss_stops_the_run(street_dataset, text_embeddings, tmp_path):
    trainer = make_trainer(street_dataset, text_embeddings)
    train(trainer, tmp_path, progress=False, stop_epoch=1)
    content = (tmp_path / 'checkpoint.pt').read_bytes()
    with torch.no_grad():
        trainer.model.gamma.fill_(float('nan'))
    with pytest.raises(ValueError, match='lower `learning_rate`'):
        trainer.train_epoch(progress=False)
    assert (tmp_path / 'checkpoint.pt').read_bytes() == content


def test_data_sets_with_different_classes_in_one_run(street_dataset, text_embeddings, tmp_path):
    """Each batch has the prompts of its own data set."""
    coarse = write_dataset(tmp_path / 'coarse', train=6, seed=5,
                           classes={0: 'sky', 1: 'vehicle=car|van', 2: 'road', 3: 'kite'},
                           merge={0: 0, 8: 1, 3: 2, **dict.fromkeys((1, 2, 4, 5, 6, 7, 9, 10), 255)})
    datasets = [load_dataset(street_dataset, 'train'), load_dataset(coarse, 'train')]
    trainer = Trainer(datasets, load_dataset(street_dataset, 'val'), text_embeddings, SMALL_RUN, SMALL_NETWORK)
    batches = list(trainer.batches.epoch(0))
    assert sorted(batch.which for batch in batches) == [0, 0, 1, 1, 1], 'in proportion to their sizes'
    for batch in batches:
        class_indices = set(range(len(datasets[batch.which].specs)))
        assert set(batch.labels.unique().tolist()) <= class_indices | {OUTSIDE, 255}
        assert class_indices <= set(batch.prompts.class_indices)
    metrics = train(trainer, tmp_path / 'run', progress=False)
    assert len(metrics['iou']) == 11
    assert load_checkpoint(tmp_path / 'run/checkpoint.pt')['classes'][1] == ['sky', 'vehicle', 'road', 'kite']


def test_steps_of_data_sets_depend_on_sizes_and_temperature():
    assert steps_per_dataset([367], 8, 0.5) == [46]
    assert steps_per_dataset([900, 100], 10, 1.0) == [90, 10]
    assert steps_per_dataset([900, 100], 10, 0.5) == [75, 25]
    assert steps_per_dataset([900, 100], 10, 0.0) == [50, 50]
    assert steps_per_dataset([900, 100], 10, 0.0, epoch_fraction=0.5) == [25, 25]
    assert steps_per_dataset([10_000, 1], 10, 1.0)[1] == 1, 'every data set has at least one step'


def test_a_pca_text_projection_is_centred_and_fixed(street_dataset, text_embeddings):
    """The variances of the half-whitened components are the singular values; training does not change them."""
    trainer = make_trainer(street_dataset, text_embeddings, replace(SMALL_RUN, text_projection='pca'))
    weight = trainer.model.project.weight.detach().clone()
    projected = trainer.model.project(torch.from_numpy(text_embeddings.vectors)).detach().numpy()
    np.testing.assert_allclose(projected.mean(axis=0), 0, atol=1e-5)
    deviations = np.linalg.svd(text_embeddings.vectors - text_embeddings.vectors.mean(axis=0), compute_uv=False)[:16]
    np.testing.assert_allclose(np.linalg.norm(projected, axis=0), (deviations * deviations[0]) ** 0.5, rtol=1e-4)
    rates = {id(p): group['base'] for group in trainer.optimizer.param_groups for p in group['params']}
    assert id(trainer.model.project.weight) not in rates
    assert rates[id(trainer.model.to_pixel.weight)] == pytest.approx(0.1 * SMALL_RUN.learning_rate)
    assert rates[id(trainer.model.gamma)] == SMALL_RUN.learning_rate
    before = trainer.model.to_pixel.weight.detach().clone()
    trainer.train_epoch(progress=False)
    assert torch.equal(trainer.model.project.weight, weight)
    assert not torch.equal(trainer.model.to_pixel.weight, before)
    with pytest.raises(ValueError, match='have no 16 principal components'):
        fix_text_projection(trainer.model, text_embeddings.vectors[:9])


def test_the_text_projection_of_initial_weights_is_kept(street_dataset, text_embeddings):
    first = make_trainer(street_dataset, text_embeddings).model
    trainer = make_trainer(street_dataset, text_embeddings,
                           replace(SMALL_RUN, text_projection='keep', init='first', seed=9),
                           start=first)
    trainer.train_epoch(progress=False)
    assert torch.equal(trainer.model.project.weight, first.project.weight)


def test_progress_is_printed_if_the_output_is_not_a_terminal(street_dataset, text_embeddings, monkeypatch, capsys):
    monkeypatch.setattr('lgseg_ros.training.trainer.PROGRESS_SECONDS', 0)
    make_trainer(street_dataset, text_embeddings).train_epoch()
    assert 'epoch 1/2, step 1/2: cross_entropy ' in capsys.readouterr().out
    make_trainer(street_dataset, text_embeddings).train_epoch(progress=False)
    assert not capsys.readouterr().out


def test_data_sets_with_contradicting_classes_are_reported_at_once(street_dataset, editable_dataset,
                                                                        text_embeddings):
    edit_dataset_yaml(editable_dataset, classes={**CLASSES, 8: 'car=giraffe'})
    datasets = [load_dataset(folder, 'train') for folder in (street_dataset, editable_dataset)]
    with pytest.raises(VocabularyError,
                       match="class 'car' is 'car' in .*street/dataset.yaml and 'giraffe' in .*own/data.*rename"):
        Trainer(datasets, None, text_embeddings, SMALL_RUN, SMALL_NETWORK)


def test_every_image_is_used_once_per_epoch(street_dataset, text_embeddings):
    batches = make_trainer(street_dataset, text_embeddings).batches
    for epoch in (0, 1):
        indices_of_epoch = np.concatenate([indices for _, indices in batches.plan(epoch)])
        assert sorted(indices_of_epoch) == [0, 1, 2, 3]
    assert [list(i) for _, i in batches.plan(0)] != [list(i) for _, i in batches.plan(1)]


def test_the_number_of_workers_does_not_change_the_batches(street_dataset, text_embeddings):
    one, many = (list(make_trainer(street_dataset, text_embeddings, num_workers=n).batches.epoch(3)) for n in (1, 4))
    for a, b in zip(one, many, strict=True):
        assert torch.equal(a.images, b.images) and torch.equal(a.labels, b.labels) and a.phase == b.phase


def test_processes_share_each_batch(street_dataset, text_embeddings, monkeypatch):
    """Four images, two processes: each process loads two, and none is loaded twice."""
    monkeypatch.setenv('WORLD_SIZE', '2')
    shares = []
    for rank in '01':
        monkeypatch.setenv('RANK', rank)
        batches = BatchLoader([load_dataset(street_dataset, 'train')],
                              [PromptSampler(parse_classes(CLASSES.values()), text_embeddings)], SMALL_RUN)
        (which, indices), = batches.plan(0)
        assert sorted(indices) == [0, 1, 2, 3]
        loaded = []
        monkeypatch.setattr('lgseg_ros.training.data_loader.augment',
                            lambda image, *rest: (loaded.append(image), (image, image))[1])
        batches.load(0, 0, which, indices)
        shares.append({image.tobytes() for image in loaded})
    assert len(shares[0]) == len(shares[1]) == 2 and not shares[0] & shares[1]


SYNCHRONY_SCRIPT = """
import sys
from dataclasses import replace
from pathlib import Path
import torch
from lgseg_ros.training.distributed import check_agreement, process_group, rank_and_world
sys.path.insert(0, sys.argv[3])
from training_harness import SMALL_RUN, make_trainer
from lgseg_ros.vocabulary.text_embeddings import load_text_embeddings
with process_group(torch.device('cpu')):
    trainer = make_trainer(Path(sys.argv[1]), load_text_embeddings(sys.argv[2]), replace(SMALL_RUN, batch_size=1),
                           validation=False)
    trainer.train_epoch(progress=False)
    parameters = torch.cat([p.detach().flatten() for p in trainer.model.parameters()])
    check_agreement('weights', parameters.view(torch.int32).long().sum().item(), torch.device('cpu'))
    running_mean = next(b for name, b in trainer.model.named_buffers() if name.endswith('running_mean'))
    if rank_and_world()[0] == 0:
        print('weights agree')
    check_agreement('images', running_mean.view(torch.int32).long().sum().item(), torch.device('cpu'))
"""


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_processes_have_equal_weights_after_different_images(street_dataset, tmp_path):
    """After an epoch all parameters are bitwise equal; batch norm statistics, of each process's images, are not."""
    script = tmp_path / 'synchrony.py'
    script.write_text(SYNCHRONY_SCRIPT)
    completed = subprocess.run(
        [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc-per-node', '2', str(script),
         str(street_dataset), str(write_text_embeddings(tmp_path / 'embeddings.npz')),
         str(Path(__file__).resolve().parents[1] / 'helpers')],
        env={**os.environ, 'OMP_NUM_THREADS': '1'}, capture_output=True, text=True)
    assert completed.stdout.count('weights agree') == 1, completed.stderr
    assert completed.returncode != 0 and 'different images' in completed.stderr


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_two_processes_train_one_network(street_dataset, tmp_path):
    """torchrun with gloo, stopped and resumed: only one process writes and prints."""
    text_embeddings = write_text_embeddings(tmp_path / 'embeddings.npz')
    run = tmp_path / 'run'
    command = [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc-per-node', '2',
               '-m', 'lgseg_ros.cli.main', 'train', '--data', str(street_dataset),
               '--text-embeddings', str(text_embeddings), '--out', str(run),
               '--backbone', SMALL_NETWORK.backbone, '--pretrained', 'none', '--crop', '64x96', '--batch-size', '1',
               '--warmup-steps', '2', '--epochs', '2', '--device', 'cpu']
    for options, message in ((['--stop-epoch', '1'], 'epoch 1 of 2'), ([], 'epoch 2 of 2')):
        completed = subprocess.run(
            [*command, *options], env={**os.environ, 'OMP_NUM_THREADS': '1'}, capture_output=True, text=True
        )
        assert completed.returncode == 0, completed.stderr
        assert completed.stdout.count(message) == 1, 'only one process prints'
    log = read_log(run)
    assert [record['epoch'] for record in log] == [1, 2] and 'validation' in log[-1]
    assert load_run(run).model.config.text_dim == TEXT_DIM

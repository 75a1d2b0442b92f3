"""Training on small real pictures: data and its errors, words, losses, resuming, several processes."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from tiny import ABSENT, CLASSES, SMALL, TEXT_DIM, WORDS, one_thread, write_bank, write_dataset  # noqa: F401
from torch.nn import functional as F

from lgseg_ros.engines.frames import Frame, network_size, to_network
from lgseg_ros.training.augment import OUTSIDE, augment
from lgseg_ros.training.batches import Batches
from lgseg_ros.training.checkpoint import CheckpointError, load_checkpoint
from lgseg_ros.training.dataset import DatasetError, hide_classes, load_dataset
from lgseg_ros.training.losses import (absent_as_one, balanced_weights, class_logits, cross_entropy_of_others,
                                       sample_grid, segmentation_loss, soft_jaccard, weighted_cross_entropy)
from lgseg_ros.training.predict import torch_predictor
from lgseg_ros.training.runs import load_run, read_log
from lgseg_ros.training.train import TrainConfig, Trainer, learning_rate_factor, train
from lgseg_ros.training.words import WordSampler, evaluation_wording
from lgseg_ros.vocabulary.bank import load_npz_bank
from lgseg_ros.vocabulary.classes import VocabularyError, parse_classes

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


# --- data ------------------------------------------------------------------------------------------------------


def test_labels_are_mapped_to_class_indices(tmp_path):
    """Ids with gaps and an ignore label of the data set's own."""
    folder = write_dataset(tmp_path / 'gaps', classes={7: 'road', 21: 'car', 30: 'tree'},
                           merge={3: 7, 8: 21, 5: 30, 0: 255, **dict.fromkeys((1, 2, 4, 6, 7, 9, 10), 255)})
    data = load_dataset(folder, 'train')
    raw = cv2.imread(str(folder / 'train/labels/000.png'), cv2.IMREAD_UNCHANGED)
    for index, label in enumerate((7, 21, 30)):
        assert np.array_equal(data.labels[0] == index, raw == label)
    assert set(np.unique(data.labels[0])) <= {0, 1, 2, 255}
    assert [spec.name for spec in data.specs] == ['road', 'car', 'tree']
    assert data.licence == 'Apache-2.0, procedural'
    assert data.class_frequencies().sum() == pytest.approx(1)


def test_a_data_set_that_does_not_fit_into_memory_is_the_same(street_data):
    kept, read = load_dataset(street_data, 'train'), load_dataset(street_data, 'train', memory=0)
    assert isinstance(kept.images, tuple) and not isinstance(read.images, tuple)
    assert len(kept) == len(read) == 4
    for part in ('images', 'labels'):
        assert all(map(np.array_equal, getattr(kept, part), getattr(read, part)))


def test_large_pictures_are_shrunk_as_an_engine_shrinks_them(street_data, bank):
    whole = load_dataset(street_data, 'train')
    for memory in (2**30, 0):
        small = load_dataset(street_data, 'train', memory, pixels=64 * 64)
        size = network_size(*whole.labels[0].shape, 64 * 64)
        assert small.images[1].shape == (*size, 3) and small.labels[1].shape == size != whole.labels[0].shape
        assert np.array_equal(small.images[1], to_network(Frame(whole.images[1], 'rgb'), size))
        shares = [np.bincount(d.labels[1].ravel(), minlength=11)[:11] / d.labels[1].size for d in (whole, small)]
        assert np.abs(shares[0] - shares[1]).max() < 0.03
    trainer = trainer_of(street_data, bank, replace(RECIPE, network_pixels=64 * 64))
    rows = trainer.model.project_text(torch.from_numpy(bank.vectors[:11])).detach()
    small = torch_predictor(trainer.model, rows, np.arange(11), 64 * 64)(whole.images[0])
    assert small[0].shape == small[1].shape == whole.labels[0].shape, 'masks are measured at the size of the labels'
    assert not np.array_equal(small[0], torch_predictor(trainer.model, rows, np.arange(11))(whole.images[0])[0])


def test_labels_with_a_palette_are_indices(own_data):
    """As VOC's and many annotation tools' are."""
    path = own_data / 'train/labels/000.png'
    ids = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    picture = Image.fromarray(ids)
    picture.putpalette([value for i in range(256) for value in (i, 255 - i, 7)])
    picture.save(path)
    assert cv2.imread(str(path), cv2.IMREAD_UNCHANGED).ndim == 3
    assert np.array_equal(load_dataset(own_data, 'train').labels[0], np.where(ids < 11, ids, 255))


def damage_label(folder):
    path = folder / 'train/labels/001.png'
    label = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    label[3, 4] = 77
    cv2.imwrite(str(path), label)


def damage_size(folder):
    path = folder / 'train/images/001.png'
    cv2.imwrite(str(path), cv2.imread(str(path))[:, :-8])


def edit_yaml(folder, **changes):
    path = folder / 'dataset.yaml'
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), **changes}))


@pytest.mark.parametrize('damage, named, cure', [
    (damage_label, 'labels/001.png', 'add them to its classes'),
    (damage_size, 'images/001.png is 120x96', 'make them the same size'),
    (lambda d: (d / 'train/images/001.png').unlink(), 'labels/001.png has no image',
     'add the image or remove the label'),
    (lambda d: (d / 'train/images/001.png').write_bytes(b'no picture'), 'images/001.png', 'copy it again'),
    (lambda d: cv2.imwrite(str(d / 'train/labels/001.png'), np.zeros((96, 128, 3), np.uint8)), 'labels/001.png',
     'one channel or a palette'),
    (lambda d: (d / 'dataset.yaml').unlink(), 'dataset.yaml is missing', '"id: name"'),
    (lambda d: (d / 'dataset.yaml').write_text('classes: ['), 'dataset.yaml', '"id: name"'),
    (lambda d: edit_yaml(d, classes={300: 'road'}), 'dataset.yaml', '0 to 255'),
    (lambda d: edit_yaml(d, classes={255: 'road'}), 'dataset.yaml', 'differ from ignore'),
    (lambda d: edit_yaml(d, classes={0: 'road', 1: 'road'}), 'dataset.yaml', 'named twice'),
])
def test_damaged_data_is_named_with_its_cure(own_data, damage, named, cure):
    damage(own_data)
    with pytest.raises(DatasetError) as error:
        load_dataset(own_data, 'train')
    assert named in str(error.value) and cure in str(error.value)


def test_a_split_that_is_not_there_is_named(own_data):
    with pytest.raises(DatasetError, match='test/labels holds no .png'):
        load_dataset(own_data, 'test')


def test_data_without_any_label_is_refused(own_data, bank):
    for path in (own_data / 'train/labels').iterdir():
        cv2.imwrite(str(path), np.full((96, 128), 255, np.uint8))
    with pytest.raises(DatasetError, match='no labelled pixel'):
        trainer_of(own_data, bank, validation=False)


def test_hidden_classes_become_void_and_their_words_are_not_used(street_data, bank):
    data = load_dataset(street_data, 'train')
    hidden = hide_classes(data, ('car', 'tree'))
    names = [spec.name for spec in data.specs]
    assert [spec.name for spec in hidden.specs] == [name for name in names if name not in ('car', 'tree')]
    for before, after in zip(data.labels, hidden.labels):
        gone = np.isin(before, [names.index('car'), names.index('tree'), 255])
        assert np.array_equal(after == 255, gone)
        road = before == names.index('road')
        assert (after[road] == [spec.name for spec in hidden.specs].index('road')).all()
    sampler = WordSampler(hidden.specs, bank, hidden=hidden.hidden)
    used = {*sampler.absent, *sum(sampler.phrases, [])}
    assert not {'car', 'suv', 'van', 'truck', 'bus', 'tree', 'vegetation', 'hedge'} & used
    with pytest.raises(DatasetError, match='no class ship; it has sky'):
        hide_classes(data, ('ship',))


def test_augmentation_keeps_picture_and_labels_together():
    """A picture whose colour is its label: after any view the labels still tell the colours apart."""
    label = np.zeros((90, 120), np.uint8)
    label[20:60, 30:80] = 1
    image = np.where(label[..., None] == 1, 220, 30).astype(np.uint8).repeat(3, axis=2)
    shares, flips = set(), set()
    for seed in range(20):
        view, seen = augment(image, label, (64, 96), np.random.default_rng(seed))
        assert view.shape == (64, 96, 3) and seen.shape == (64, 96) and set(np.unique(seen)) <= {0, 1, OUTSIDE}
        inner = {i: cv2.erode((seen == i).astype(np.uint8), np.ones((9, 9))) > 0 for i in (0, 1)}
        if inner[1].sum() > 50 and inner[0].sum() > 50:
            assert view[inner[1]].mean() > view[inner[0]].mean() + 40
        shares.add(round(float((seen == 1).mean()), 3))
        flips.add(int(np.argwhere(seen == 1)[:, 1].mean()) if (seen == 1).any() else None)
    assert len(shares) > 15 and len(flips) > 5, 'views must differ in scale and place'
    one, again = (augment(image, label, (64, 96), np.random.default_rng(3)) for _ in range(2))
    assert all(map(np.array_equal, one, again))


# --- words -----------------------------------------------------------------------------------------------------


def test_words_vary_and_distractors_are_never_related(bank):
    specs = parse_classes(CLASSES.values())
    sampler = WordSampler(specs, bank, max_distractors=6)
    assert set(sampler.absent) == ABSENT
    by_vector = {vector.tobytes(): name for name, vector in zip(bank.names, bank.vectors)}
    names_of_building, distractors, counts = set(), set(), set()
    rng = np.random.default_rng(0)
    for _ in range(200):
        wording = sampler.sample(rng)
        words = [by_vector[vector.tobytes()] for vector in wording.vectors]
        assert sorted(set(wording.row_class)) == list(range(max(wording.row_class) + 1)), 'every class has a row'
        assert list(wording.row_class) == sorted(wording.row_class)
        for i, word in zip(wording.row_class, words):
            if i < len(specs):
                assert word in sampler.phrases[i]
            else:
                distractors.add(word)
        names_of_building.add(words[list(wording.row_class).index(1)])
        counts.add(max(wording.row_class) + 1 - len(specs))
    assert names_of_building == {'building', 'house'}
    assert distractors == ABSENT
    assert min(counts) == 0 and max(counts) >= 4


def test_the_shared_bank_has_distractors_and_words_for_every_class(shared_bank):
    sampler = WordSampler(parse_classes(CLASSES.values()), shared_bank)
    assert len(sampler.absent) > 100
    assert sum(len(phrases) > 1 for phrases in sampler.phrases) >= 8
    assert not {'truck', 'bus', 'bicycle', 'wall', 'sidewalk', 'clouds'} & set(sampler.absent)


def test_what_is_known_of_one_word_holds_for_classes_of_other_names(shared_bank):
    """Cityscapes says sidewalk, rider and vegetation; their pixels are CamVid's pavement, bicyclist and tree."""
    sampler = WordSampler(parse_classes(['sidewalk', 'rider', 'vegetation', 'vehicle=car']), shared_bank)
    assert not {'pavement', 'cyclist', 'bicycle', 'tree', 'plant', 'truck', 'suv'} & set(sampler.absent)
    assert {'sky', 'book', 'traffic light'} <= set(sampler.absent)


@pytest.mark.parametrize('classes', [
    ['pedestrian', 'person'], ['tree', 'vegetation'], ['bicyclist=cyclist', 'rider'],
    ['road', 'sign=traffic sign', 'traffic light'], ['building', 'house', 'car', 'van', 'fence', 'wall']])
def test_two_classes_are_never_called_by_one_word(shared_bank, classes):
    sampler, rng = WordSampler(parse_classes(classes), shared_bank), np.random.default_rng(0)
    for _ in range(100):
        vectors = sampler.sample(rng).vectors
        assert len(np.unique(vectors, axis=0)) == len(vectors)


def test_without_augmentation_the_words_stay(bank):
    sampler = WordSampler(parse_classes(['car', 'sky']), bank, augment=False)
    rng = np.random.default_rng(0)
    assert all(sampler.sample(rng) is sampler.plain() for _ in range(5))


def test_evaluation_words(bank):
    sampler = WordSampler(parse_classes(['car', 'road', 'sign=traffic sign|traffic light']), bank)
    plain = evaluation_wording(sampler)
    assert list(plain.row_class) == [0, 1, 2, 2]
    other = parse_classes(['car=suv|van', 'sign=traffic light'])
    renamed = evaluation_wording(sampler, other, distractors=3, seed=1)
    assert list(renamed.row_class) == [0, 0, 1, 2, 3, 4, 5]
    assert np.array_equal(renamed.vectors[:4], bank.rows(['suv', 'van', 'road', 'traffic light']))
    assert np.array_equal(renamed.vectors, evaluation_wording(sampler, other, 3, 1).vectors)
    with pytest.raises(VocabularyError, match="cannot rename 'ship'"):
        evaluation_wording(sampler, parse_classes(['ship=boat']))
    with pytest.raises(VocabularyError, match="'lorri' is not known .near: lorry"):
        evaluation_wording(sampler, parse_classes(['car=lorri']))
    with pytest.raises(VocabularyError, match='give 0 to'):
        evaluation_wording(sampler, distractors=400)


# --- losses ----------------------------------------------------------------------------------------------------


def test_of_several_rows_the_best_wins():
    logits = torch.tensor([[1.0, 5.0, 2.0, 0.0]])[..., None, None]
    assert class_logits(logits, torch.tensor([0, 1, 1, 2])).flatten().tolist() == [1, 5, 0]


def test_the_grid_is_the_dense_interpolation():
    logits, labels = torch.randn(2, 3, 6, 8), torch.randint(3, (2, 24, 32))
    full = F.interpolate(logits, size=(24, 32), mode='bilinear', align_corners=False)
    for phase in ((0, 0), (0, 1), (1, 1)):
        sampled, picked = sample_grid(logits, labels, phase)
        torch.testing.assert_close(sampled, full[:, :, phase[0]::2, phase[1]::2], rtol=1e-4, atol=1e-5)
        assert torch.equal(picked, labels[:, phase[0]::2, phase[1]::2])


def test_absent_names_count_together():
    """As one logit they take the same share of the softmax; with none or one there is nothing to add up."""
    logits = torch.randn(2, 5, 3, 4)
    together = absent_as_one(logits, 2)
    assert together.shape == (2, 3, 3, 4)
    chance = logits.softmax(dim=1)
    torch.testing.assert_close(together.softmax(dim=1)[:, :2], chance[:, :2])
    torch.testing.assert_close(together.softmax(dim=1)[:, 2], chance[:, 2:].sum(dim=1))
    assert absent_as_one(logits, 5) is logits and absent_as_one(logits, 4) is logits


@pytest.mark.parametrize('classes', [4, 300])   # classes and absent names together may be more than a byte holds
def test_cross_entropy_is_torchs_weighted_mean(classes):
    logits, labels, weights = torch.randn(2, classes, 5, 6), torch.randint(4, (2, 5, 6)), torch.rand(classes) + 0.5
    labels[0, :2] = 255
    torch.testing.assert_close(weighted_cross_entropy(logits, labels, weights),
                               F.cross_entropy(logits, labels, weights, ignore_index=255))


def test_jaccard_by_hand():
    """Class 0: 2 pixels, given 0.9 and 0.6 of it, and 0.2 of the pixel of class 1."""
    chance = torch.tensor([[0.9, 0.6, 0.2, 0.5], [0.1, 0.4, 0.8, 0.5]])
    labels = torch.tensor([[[0, 0, 1, 255]]])
    loss = soft_jaccard(chance.log()[None, :, None], labels, 2)
    assert loss.item() == pytest.approx(1 - (1.5 / 2.2 + 0.8 / 1.5) / 2, abs=1e-5)


def test_a_batch_without_labels_teaches_nothing_and_breaks_nothing(street_data, bank):
    trainer = trainer_of(street_data, bank)
    output = trainer.model.train()(torch.randn(2, 3, 64, 96), trainer.model.project_text(torch.randn(13, TEXT_DIM)))
    loss, parts = segmentation_loss(output, torch.full((2, 64, 96), 255, dtype=torch.uint8), torch.arange(13),
                                    torch.ones(11), (0, 0))
    loss.backward()
    assert parts['cross_entropy'] == 0
    assert all(p.grad.abs().max() == 0 for p in trainer.model.parameters())


def test_unlabelled_pixels_are_of_none_of_the_classes_by_hand():
    """Two classes and two absent names; of the three pixels the first is labelled."""
    chance = torch.tensor([[0.7, 0.5, 0.1], [0.1, 0.2, 0.1], [0.1, 0.2, 0.3], [0.1, 0.1, 0.5]])
    logits, labels = chance.log()[None, :, None], torch.tensor([[[0, 255, 255]]])
    wanted = -(np.log(0.3) + np.log(0.8)) / 2
    assert cross_entropy_of_others(logits, labels, 2).item() == pytest.approx(wanted, abs=1e-5)
    assert cross_entropy_of_others(logits, labels, 4) == 0, 'no absent names'
    assert cross_entropy_of_others(logits, torch.zeros(1, 1, 3), 2) == 0, 'every pixel is labelled'


@pytest.mark.parametrize('others', [0.0, 0.5])
def test_unlabelled_pixels_teach_what_is_asked(street_data, bank, others):
    """With --others their pixels reach the network, else nothing does."""
    trainer = trainer_of(street_data, bank)
    rows = trainer.model.project_text(F.normalize(torch.randn(13, TEXT_DIM), dim=1))
    output = trainer.model.train()(torch.randn(2, 3, 64, 96), rows)
    void = torch.full((2, 64, 96), 255, dtype=torch.uint8)
    loss, parts = segmentation_loss(output, void, torch.arange(13), torch.ones(11), (0, 0), others)
    _, beyond = segmentation_loss(output, torch.full_like(void, OUTSIDE), torch.arange(13), torch.ones(11), (0, 0), others)
    loss.backward()
    assert ('others' in parts) == bool(others)
    assert beyond.get('others', 0) == 0, 'what lies beyond the picture is of nothing'
    assert any(p.grad is not None and p.grad.abs().max() > 0 for p in trainer.model.parameters()) == bool(others)


def test_class_weights_favour_the_rare_and_keep_the_scale():
    frequencies = np.array([0.64, 0.32, 0.04])
    weights = balanced_weights(frequencies).numpy()
    assert weights[2] / weights[0] == pytest.approx(4)
    assert (weights * frequencies).sum() == pytest.approx(1)


def test_freed_memory_is_used_again():
    """Page faults of ten tensors of 64 MB, one after the other, before and after glibc was told to keep memory."""
    code = """
import resource, torch
from lgseg_ros.training.allocator import keep_freed_memory
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        torch.ones(16 << 20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
usual = faults()
if keep_freed_memory():
    faults()   # the heap grows once
    print(usual, faults())
"""
    told = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout.split()
    if not told:
        pytest.skip('this C library has no mallopt')
    usual, kept = map(int, told)
    assert kept < usual / 10, (usual, kept)


def test_schedule():
    factors = [learning_rate_factor(step, 100, 10) for step in range(100)]
    assert factors[0] == 0.1 and max(factors) == factors[9] == factors[10] == 1
    assert factors[55] == pytest.approx(0.5) and 0 < factors[99] < 0.001


# --- runs ------------------------------------------------------------------------------------------------------


def equal(a, b):
    """Every tensor and value of two nested states, exactly."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(equal, a, b))
    return a == b


def test_a_run_learns_and_tells_of_it(street_data, bank, tmp_path):
    trainer = trainer_of(street_data, bank, replace(RECIPE, epochs=16, learning_rate=5e-3, evaluate_every=8))
    before = trainer.evaluate(progress=False)
    figures = train(trainer, tmp_path, progress=False)
    log = read_log(tmp_path)
    assert [record['epoch'] for record in log] == list(range(1, 17))
    assert log[-1]['cross_entropy'] < 0.75 * log[0]['cross_entropy']
    assert [record['epoch'] for record in log if 'validation' in record] == [8, 16]
    assert figures['epoch'] == 16 and figures['pixel_accuracy'] > before['pixel_accuracy'] + 5
    run = load_run(tmp_path)
    assert run.validation == figures and run.epoch == 16 and not run.model.training
    assert equal(run.model.state_dict(), trainer.ema.state_dict())
    assert not equal(trainer.ema.state_dict(), trainer.model.state_dict())


@pytest.mark.parametrize('head', ['ours', 'denseclip'])   # DenseCLIP's decoder draws dropout, ours nothing
def test_a_resumed_run_ends_equal_to_an_unbroken_one(street_data, bank, tmp_path, head):
    config = replace(RECIPE, epochs=3, head=head)
    train(trainer_of(street_data, bank, config), tmp_path / 'unbroken', progress=False)
    for until in (1, 2, None):   # each in a new process's state
        torch.rand(until or 5)
        figures = train(trainer_of(street_data, bank, config, loaders=3), tmp_path / 'broken', progress=False,
                        until=until)
    unbroken, broken = (load_checkpoint(tmp_path / name / 'checkpoint.pt') for name in ('unbroken', 'broken'))
    assert unbroken['epoch'] == 3
    assert equal(unbroken, broken)
    assert figures == load_run(tmp_path / 'unbroken').validation
    other = replace(config, seed=1)
    train(trainer_of(street_data, bank, other), tmp_path / 'other', progress=False)
    assert not equal(unbroken['ema'], load_checkpoint(tmp_path / 'other' / 'checkpoint.pt')['ema'])


def test_until_0_only_checks(street_data, bank, tmp_path):
    assert train(trainer_of(street_data, bank), tmp_path, progress=False, until=0) is None
    assert not (tmp_path / 'log.jsonl').exists()


def test_a_run_that_starts_afresh_does_not_tell_of_the_one_before(street_data, bank, tmp_path):
    """Its checkpoint was deleted, as the message on a damaged one says."""
    train(trainer_of(street_data, bank), tmp_path, progress=False)
    (tmp_path / 'checkpoint.pt').unlink()
    figures = train(trainer_of(street_data, bank), tmp_path, progress=False, until=1)
    assert figures['epoch'] == 1 and [record['epoch'] for record in read_log(tmp_path)] == [1]
    with open(tmp_path / 'log.jsonl', 'a') as log:   # killed between the line and the checkpoint
        log.write('{"epoch": 2, "seconds": 1, "validation": {}}\n')
    assert load_run(tmp_path).validation == figures


def test_a_run_that_is_complete_is_left_alone(street_data, bank, tmp_path):
    config = replace(RECIPE, epochs=1)
    figures = train(trainer_of(street_data, bank, config), tmp_path, progress=False)
    content = (tmp_path / 'checkpoint.pt').read_bytes()
    assert train(trainer_of(street_data, bank, config), tmp_path, progress=False) == figures
    assert (tmp_path / 'checkpoint.pt').read_bytes() == content


def test_checkpoints_from_before_a_field_existed_are_resumed(street_data, bank, tmp_path):
    trainer = trainer_of(street_data, bank, validation=False)
    train(trainer, tmp_path, progress=False, until=1)
    state = torch.load(tmp_path / 'checkpoint.pt', weights_only=True)
    for name in ('head', 'unseen'):
        del state['config'][name]
    del state['classes']
    torch.save(state, tmp_path / 'checkpoint.pt')
    again = trainer_of(street_data, bank, validation=False)
    again.restore(tmp_path / 'checkpoint.pt')
    assert again.epoch == 1 and equal(again.model.state_dict(), trainer.model.state_dict())


def test_another_recipe_or_other_classes_are_not_resumed(street_data, own_data, bank, tmp_path):
    train(trainer_of(street_data, bank), tmp_path, progress=False, until=1)
    with pytest.raises(ValueError, match='another batch, learning_rate.*same options'):
        trainer_of(street_data, bank, replace(RECIPE, batch=1, learning_rate=1.0)).restore(tmp_path / 'checkpoint.pt')
    edit_yaml(own_data, classes={**CLASSES, 8: 'van'})
    with pytest.raises(ValueError, match='other classes.*same --data'):
        trainer_of(own_data, bank).restore(tmp_path / 'checkpoint.pt')


@pytest.mark.parametrize('content', [b'', b'PK\x03\x04 half a file', None])
def test_a_damaged_checkpoint_is_named_with_its_cure(street_data, bank, tmp_path, content):
    train(trainer_of(street_data, bank), tmp_path, progress=False, until=1)
    path = tmp_path / 'checkpoint.pt'
    path.write_bytes(path.read_bytes()[:-1000] if content is None else content)
    with pytest.raises(CheckpointError, match='checkpoint.pt is damaged.*delete it'):
        train(trainer_of(street_data, bank), tmp_path, progress=False)


def test_a_checkpoint_of_something_else_is_refused(street_data, bank, tmp_path):
    torch.save({'weights': torch.zeros(3)}, tmp_path / 'checkpoint.pt')
    with pytest.raises(CheckpointError, match='no checkpoint of this network'):
        load_run(tmp_path)
    with pytest.raises(CheckpointError, match='is of another program.*another --out'):
        train(trainer_of(street_data, bank), tmp_path, progress=False)
    with pytest.raises(CheckpointError, match='checkpoint.pt is missing.*lgseg train'):
        load_run(tmp_path / 'nowhere')


def test_a_log_that_a_killed_run_left_is_read(tmp_path):
    lines = '{"epoch": 1, "x": 1}', '{"epoch": 2, "x": 1}', '{"epoch": 2, "x": 2}', '{"epoch": 3, "se'
    (tmp_path / 'log.jsonl').write_text('\n'.join(lines))
    assert read_log(tmp_path) == [{'epoch': 1, 'x': 1}, {'epoch': 2, 'x': 2}]


def test_a_phrase_that_no_bank_has_is_named_before_any_work(own_data, bank):
    edit_yaml(own_data, classes={**CLASSES, 8: 'cars=hovercraft|suvs'})
    with pytest.raises(VocabularyError, match="'hovercraft' is not known; 'suvs' is not known .near: suv"):
        trainer_of(own_data, bank)


@pytest.mark.parametrize('change, said', [
    ({'height': 100}, 'multiples of 32'), ({'width': 32}, 'at least 64x64'), ({'batch': 0}, 'batch is 0'),
    ({'epochs': 0}, 'epochs is 0'), ({'learning_rate': 0.0}, 'learning rate is 0'), ({'seed': -1}, 'seed is -1'),
    ({'smallest': 2.0}, 'scales 2.0 to 1.9'), ({'largest': 20.0}, 'scales 0.6 to 20.0'),
    ({'head': 'sam'}, "head 'sam' is unknown"), ({'max_distractors': -1}, 'distractors is -1'),
    ({'others': 0.5, 'max_distractors': 0}, 'no absent names'), ({'network_pixels': 100}, 'at least 4096'),
    ({'ema': 998}, 'ema is 998'), ({'ema': float('nan')}, 'ema is nan'), ({'balance': -2.0}, 'balance is -2'),
    ({'learning_rate': float('inf')}, 'learning rate is inf'),
    ({'others': 0.5, 'word_augmentation': False}, 'no absent names'),
])
def test_recipes_that_cannot_work_are_refused(street_data, bank, change, said):
    with pytest.raises(ValueError, match=said):
        trainer_of(street_data, bank, replace(RECIPE, **change))


def test_a_loss_that_is_no_number_stops_the_run(street_data, bank, tmp_path):
    trainer = trainer_of(street_data, bank)
    train(trainer, tmp_path, progress=False, until=1)
    content = (tmp_path / 'checkpoint.pt').read_bytes()
    with torch.no_grad():
        trainer.model.gamma.fill_(float('nan'))
    with pytest.raises(ValueError, match='lower --lr'):
        trainer.train_epoch(progress=False)
    assert (tmp_path / 'checkpoint.pt').read_bytes() == content


def test_data_sets_with_different_classes_in_one_run(street_data, bank, tmp_path):
    """What language makes possible: each picture is read by its own data set's words."""
    coarse = write_dataset(tmp_path / 'coarse', train=6, seed=5,
                           classes={0: 'sky', 1: 'vehicle=car|van', 2: 'road', 3: 'kite'},
                           merge={0: 0, 8: 1, 3: 2, **dict.fromkeys((1, 2, 4, 5, 6, 7, 9, 10), 255)})
    datasets = [load_dataset(street_data, 'train'), load_dataset(coarse, 'train')]
    trainer = Trainer(datasets, load_dataset(street_data, 'val'), bank, RECIPE, SMALL)
    batches = list(trainer.batches.epoch(0))
    assert sorted(batch.which for batch in batches) == [0, 0, 1, 1, 1], 'in proportion to their sizes'
    for batch in batches:
        known = set(range(len(datasets[batch.which].specs)))
        assert set(batch.labels.unique().tolist()) <= known | {OUTSIDE, 255}
        assert known <= set(batch.wording.row_class)
    figures = train(trainer, tmp_path / 'run', progress=False)
    assert len(figures['iou']) == 11
    assert load_checkpoint(tmp_path / 'run/checkpoint.pt')['classes'][1] == ['sky', 'vehicle', 'road', 'kite']


def test_every_picture_is_seen_once_an_epoch(street_data, bank):
    batches = trainer_of(street_data, bank).batches
    for epoch in (0, 1):
        seen = np.concatenate([indices for _, indices in batches.plan(epoch)])
        assert sorted(seen) == [0, 1, 2, 3]
    assert [list(i) for _, i in batches.plan(0)] != [list(i) for _, i in batches.plan(1)]


def test_threads_do_not_change_the_batches(street_data, bank):
    one, many = (list(trainer_of(street_data, bank, loaders=n).batches.epoch(3)) for n in (1, 4))
    for a, b in zip(one, many, strict=True):
        assert torch.equal(a.images, b.images) and torch.equal(a.labels, b.labels) and a.phase == b.phase


def test_processes_share_each_batch(street_data, bank, monkeypatch):
    """Four pictures, two processes with two each: between them every picture, and none twice."""
    monkeypatch.setenv('WORLD_SIZE', '2')
    shares = []
    for rank in '01':
        monkeypatch.setenv('RANK', rank)
        batches = Batches([load_dataset(street_data, 'train')], [WordSampler(parse_classes(CLASSES.values()), bank)], RECIPE)
        (which, indices), = batches.plan(0)
        assert sorted(indices) == [0, 1, 2, 3]
        seen = []
        monkeypatch.setattr('lgseg_ros.training.batches.augment', lambda image, *rest: (seen.append(image), (image, image))[1])
        batches.load(0, 0, which, indices)
        shares.append({image.tobytes() for image in seen})
    assert len(shares[0]) == len(shares[1]) == 2 and not shares[0] & shares[1]


SYNCHRONY = """
import sys
from dataclasses import replace
from pathlib import Path
import torch
from lgseg_ros.training.parallel import check_agreement, process_group, rank_and_world
sys.path.insert(0, sys.argv[3])
from test_training import RECIPE, trainer_of
from lgseg_ros.vocabulary.bank import load_npz_bank
with process_group(torch.device('cpu')):
    trainer = trainer_of(Path(sys.argv[1]), load_npz_bank(sys.argv[2]), replace(RECIPE, batch=1), validation=False)
    trainer.train_epoch(progress=False)
    learnt = torch.cat([p.detach().flatten() for p in trainer.model.parameters()])
    check_agreement('weights', learnt.view(torch.int32).long().sum().item(), torch.device('cpu'))
    seen = next(b for name, b in trainer.model.named_buffers() if name.endswith('running_mean'))
    if rank_and_world()[0] == 0:
        print('weights agree')
    check_agreement('pictures', seen.view(torch.int32).long().sum().item(), torch.device('cpu'))
"""


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_processes_learn_the_same_from_different_pictures(street_data, tmp_path):
    """After an epoch all weights are equal bit by bit; the statistics of batch norm, of each one's own pictures, not."""
    script = tmp_path / 'synchrony.py'
    script.write_text(SYNCHRONY)
    answer = subprocess.run(
        [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc-per-node', '2', str(script),
         str(street_data), str(write_bank(tmp_path / 'bank.npz')), str(Path(__file__).parent)],
        env={**os.environ, 'OMP_NUM_THREADS': '1'}, capture_output=True, text=True)
    assert answer.stdout.count('weights agree') == 1, answer.stderr
    assert answer.returncode != 0 and 'different pictures' in answer.stderr


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_two_processes_learn_one_network(street_data, tmp_path):
    """torchrun with gloo, stopped and resumed: one process writes and reports."""
    bank = write_bank(tmp_path / 'bank.npz')
    run = tmp_path / 'run'
    command = [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc-per-node', '2',
               '-m', 'lgseg_ros.cli.main', 'train', '--data', str(street_data), '--bank', str(bank), '--out', str(run),
               '--backbone', SMALL.backbone, '--pretrained', 'none', '--crop', '64x96', '--batch', '1',
               '--warmup', '2', '--epochs', '2', '--device', 'cpu']
    for extra, said in ((['--until', '1'], 'epoch 1 of 2'), ([], 'epoch 2 of 2')):
        answer = subprocess.run([*command, *extra], env={**os.environ, 'OMP_NUM_THREADS': '1'}, capture_output=True,
                                text=True)
        assert answer.returncode == 0, answer.stderr
        assert answer.stdout.count(said) == 1, 'one process reports'
    log = read_log(run)
    assert [record['epoch'] for record in log] == [1, 2] and 'validation' in log[-1]
    assert load_run(run).model.config.text_dim == TEXT_DIM

"""Labelled images: loading, errors, hidden classes and augmentation."""

import struct
import zlib
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from lgseg_ros.engines.preprocessing import Frame, network_size, to_network
from lgseg_ros.training.augmentation import augment, copy_paste
from lgseg_ros.training.data_loader import BatchLoader, rarer_half
from lgseg_ros.training.dataset import ImageCache, _shrink, hide_classes, load_dataset
from lgseg_ros.training.evaluation import torch_predictor
from lgseg_ros.training.labels import DatasetError, read_label
from lgseg_ros.training.prompts import PromptSampler
from lgseg_ros.utils.label_values import OUTSIDE
from lgseg_ros.vocabulary.classes import parse_classes
from street_dataset import write_dataset
from training_harness import SMALL_RUN, edit_dataset_yaml, make_trainer


def test_labels_are_mapped_to_class_indices(tmp_path):
    """Label ids with gaps, and an ignore label."""
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


def test_a_data_set_that_does_not_fit_into_memory_is_read_from_files(street_dataset):
    """The cache holds decoded images, encoded files, a part of them, or nothing; the images are the same."""
    kept = load_dataset(street_dataset, 'train')
    assert isinstance(kept.images, tuple) and isinstance(kept.labels, tuple)
    decoded = sum(part.nbytes for part in (*kept.images, *kept.labels))
    files = sum(path.stat().st_size for path in (street_dataset / 'train').rglob('*.png'))
    for limit in (decoded, files, 1000, 0):
        cache = ImageCache(limit)
        again = load_dataset(street_dataset, 'train', cache)
        assert cache.used <= limit and not isinstance(again.images, tuple)
        assert len(again) == len(kept) == 4
        for part in ('images', 'labels'):
            assert all(map(np.array_equal, getattr(kept, part), getattr(again, part)))


def test_data_sets_of_a_run_share_one_cache(street_dataset):
    one = ImageCache(2**30)
    load_dataset(street_dataset, 'train', one)
    shared = ImageCache(int(1.5 * one.used))
    first, second = (load_dataset(street_dataset, 'train', shared) for _ in range(2))
    assert isinstance(first.images, tuple) and not isinstance(second.images, tuple)
    assert shared.used <= shared.limit


def test_a_removed_image_that_is_not_cached_is_reported(editable_dataset):
    data = load_dataset(editable_dataset, 'train', ImageCache(0))
    (editable_dataset / 'train/images/001.png').unlink()
    data.images[0]
    with pytest.raises(DatasetError, match='images/001.png cannot be read'):
        data.images[1]


def test_large_images_are_downsampled_as_by_an_engine(street_dataset, text_embeddings):
    full = load_dataset(street_dataset, 'train')
    for limit in (2**30, 0):
        small = load_dataset(street_dataset, 'train', ImageCache(limit), max_pixels=64 * 64)
        size = network_size(*full.labels[0].shape, 64 * 64)
        assert small.images[1].shape == (*size, 3) and small.labels[1].shape == size != full.labels[0].shape
        assert np.array_equal(small.images[1], to_network(Frame(full.images[1], 'rgb'), size))
        shares = [np.bincount(d.labels[1].ravel(), minlength=11)[:11] / d.labels[1].size for d in (full, small)]
        assert np.abs(shares[0] - shares[1]).max() < 0.03
    edge = np.zeros((720, 1280), np.uint8)
    edge[:, 635:] = 200
    image, label = _shrink(np.dstack([edge] * 3), 172_800), _shrink(edge, 172_800)
    assert abs(image[100, :, 0].mean() - label[100].mean()) < 200 * 0.3 / label.shape[1], (
        'edges of image and label coincide'
    )
    trainer = make_trainer(street_dataset, text_embeddings, replace(SMALL_RUN, max_inference_pixels=64 * 64))
    projected = trainer.model.project_text(torch.from_numpy(text_embeddings.vectors[:11])).detach()
    small = torch_predictor(trainer.model, projected, np.arange(11), 64 * 64)(full.images[0])
    assert small[0].shape == small[1].shape == full.labels[0].shape, 'masks are evaluated at the size of the labels'
    assert not np.array_equal(small[0], torch_predictor(trainer.model, projected, np.arange(11))(full.images[0])[0])


def test_labels_with_a_palette_are_indices(editable_dataset):
    """As in VOC and of many annotation tools."""
    path = editable_dataset / 'train/labels/000.png'
    ids = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    image = Image.fromarray(ids)
    image.putpalette([value for i in range(256) for value in (i, 255 - i, 7)])
    image.save(path)
    assert cv2.imread(str(path), cv2.IMREAD_UNCHANGED).ndim == 3
    assert np.array_equal(load_dataset(editable_dataset, 'train').labels[0], np.where(ids < 11, ids, 255))


def damage_label(folder):
    path = folder / 'train/labels/001.png'
    label = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    label[3, 4] = 77
    cv2.imwrite(str(path), label)


def damage_size(folder):
    path = folder / 'train/images/001.png'
    cv2.imwrite(str(path), cv2.imread(str(path))[:, :-8])


@pytest.mark.parametrize('damage, reason, fix', [
    (damage_label, 'labels/001.png', 'add them to its classes'),
    (damage_size, 'images/001.png is 120x96', 'make them the same size'),
    (lambda d: (d / 'train/images/001.png').unlink(), 'labels/001.png has no image',
     'add the image or remove the label'),
    (lambda d: (d / 'train/images/001.png').write_bytes(b'no image'), 'images/001.png', 'copy it again'),
    (lambda d: cv2.imwrite(str(d / 'train/labels/001.png'), np.zeros((96, 128, 3), np.uint8)), 'labels/001.png',
     'one channel or a palette'),
    (lambda d: cv2.imwrite(str(d / 'train/labels/001.png'), np.zeros((96, 128, 4), np.uint8)),
     'labels/001.png is an RGBA',
     'one channel or a palette'),
    (lambda d: cv2.imwrite(str(d / 'train/labels/001.png'), np.full((96, 128), 700, np.uint16)),
     'labels/001.png has 16 bits per pixel (values up to 700)', "astype('uint8')"),
    (lambda d: (d / 'train/labels/001.png').write_bytes(b''), 'labels/001.png cannot be decoded', 'copy it again'),
    (lambda d: (d / 'dataset.yaml').unlink(), 'dataset.yaml is missing', '"id: name"'),
    (lambda d: (d / 'dataset.yaml').write_text('classes: ['), 'dataset.yaml', '"id: name"'),
    (lambda d: edit_dataset_yaml(d, classes={300: 'road'}), 'dataset.yaml', '0 to 255'),
    (lambda d: edit_dataset_yaml(d, classes={255: 'road'}), 'dataset.yaml', 'differ from ignore'),
    (lambda d: edit_dataset_yaml(d, classes={0: 'road', 1: 'road'}), 'dataset.yaml', 'named twice'),
    (lambda d: edit_dataset_yaml(d, classes={0: 'road', 1: 'street=street|road'}), 'dataset.yaml',
     'remove it from one of them'),
])
def test_damaged_data_is_reported_with_the_fix(editable_dataset, damage, reason, fix):
    damage(editable_dataset)
    with pytest.raises(DatasetError) as error:
        load_dataset(editable_dataset, 'train')
    assert reason in str(error.value) and fix in str(error.value)


def test_a_missing_split_is_reported(editable_dataset):
    with pytest.raises(DatasetError, match='test/labels holds no .png'):
        load_dataset(editable_dataset, 'test')


def test_data_without_any_label_is_refused(editable_dataset):
    for path in (editable_dataset / 'train/labels').iterdir():
        cv2.imwrite(str(path), np.full((96, 128), 255, np.uint8))
    with pytest.raises(DatasetError, match='dataset.yaml: no pixel has a label.*ignore line'):
        load_dataset(editable_dataset, 'train')


def test_hidden_classes_are_ignored_and_their_phrases_are_not_used(street_dataset, text_embeddings):
    data = load_dataset(street_dataset, 'train')
    hidden, = hide_classes([data], ('car', 'tree'))
    names = [spec.name for spec in data.specs]
    assert [spec.name for spec in hidden.specs] == [name for name in names if name not in ('car', 'tree')]
    for before, after in zip(data.labels, hidden.labels, strict=True):
        ignored = np.isin(before, [names.index('car'), names.index('tree'), 255])
        assert np.array_equal(after == 255, ignored)
        road = before == names.index('road')
        assert (after[road] == [spec.name for spec in hidden.specs].index('road')).all()
    sampler = PromptSampler(hidden.specs, text_embeddings, hidden=hidden.hidden)
    used = {*sampler.negatives, *(phrase for phrases in sampler.alternatives for phrase in phrases)}
    assert not {'car', 'suv', 'van', 'truck', 'bus', 'tree', 'vegetation', 'hedge'} & used
    with pytest.raises(DatasetError, match='no class ship; there are sky'):
        hide_classes([data], ('ship',))


def test_a_hidden_class_is_no_negative_of_other_data_sets(street_dataset, text_embeddings):
    one = load_dataset(street_dataset, 'train')
    other, = hide_classes([one], ('car',))
    first, second = hide_classes([one, replace(other, hidden=())], ('car',))
    assert len(first.specs) == len(second.specs) == len(one.specs) - 1
    assert all(map(np.array_equal, second.labels, other.labels)), 'data sets without the class are unchanged'
    for dataset in (first, second):
        assert not {'car', 'suv'} & {*PromptSampler(dataset.specs, text_embeddings, hidden=dataset.hidden).negatives}


def test_classes_with_capitals_have_the_same_synonyms(text_embeddings):
    lowercase, capitalized = (PromptSampler(parse_classes(names), text_embeddings).alternatives
                    for names in (('car', 'road'), ('Car', 'Road')))
    assert lowercase == capitalized and 'street' in lowercase[1]


@pytest.mark.parametrize('bits', [1, 2, 4])
def test_grey_labels_of_few_bits_keep_their_values(editable_dataset, bits):
    """OpenCV scales them to 0 to 255; the 1 of a binary mask would become 255, the usual ignore label."""
    path = next((editable_dataset / 'train/labels').iterdir())
    expected = np.random.default_rng(0).integers(2 ** bits, size=(96, 128), dtype=np.uint8)
    write_grey(path, expected, bits)
    assert np.array_equal(read_label(path), expected)


def write_grey(path, values, bits):
    """Write a grey PNG of 1, 2 or 4 bits per pixel; Pillow writes only 1 bit."""
    def chunk(kind, data):
        return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))
    value_bits = np.unpackbits(values[..., None], axis=-1)[..., -bits:]
    packed_rows = np.packbits(value_bits.reshape(len(values), -1), axis=1)
    height, width = values.shape
    path.write_bytes(b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', struct.pack('>IIBBBBB', width, height, bits, 0, 0, 0, 0))
                     + chunk(b'IDAT', zlib.compress(b''.join(b'\0' + row.tobytes() for row in packed_rows)))
                     + chunk(b'IEND', b''))


def test_augmentation_keeps_image_and_labels_aligned():
    """In an image whose brightness depends on the label, the labels separate the brightness after augmentation."""
    label = np.zeros((90, 120), np.uint8)
    label[20:60, 30:80] = 1
    image = np.where(label[..., None] == 1, 220, 30).astype(np.uint8).repeat(3, axis=2)
    shares, flips = set(), set()
    for seed in range(20):
        view, view_labels = augment(image, label, (64, 96), np.random.default_rng(seed))
        assert (
            view.shape == (64, 96, 3)
            and view_labels.shape == (64, 96)
            and set(np.unique(view_labels)) <= {0, 1, OUTSIDE}
        )
        inner = {i: cv2.erode((view_labels == i).astype(np.uint8), np.ones((9, 9))) > 0 for i in (0, 1)}
        if inner[1].sum() > 50 and inner[0].sum() > 50:
            assert view[inner[1]].mean() > view[inner[0]].mean() + 40
        shares.add(round(float((view_labels == 1).mean()), 3))
        flips.add(int(np.argwhere(view_labels == 1)[:, 1].mean()) if (view_labels == 1).any() else None)
    assert len(shares) > 15 and len(flips) > 5, 'views must differ in scale and position'
    one, again = (augment(image, label, (64, 96), np.random.default_rng(3)) for _ in range(2))
    assert all(map(np.array_equal, one, again))


def test_copy_paste_copies_image_and_label():
    """Where the other view has a chosen class, image and label are those of the other view; elsewhere unchanged."""
    rng = np.random.default_rng(0)
    views = [(rng.integers(256, size=(32, 48, 3), dtype=np.uint8), rng.integers(6, size=(32, 48), dtype=np.uint8))
             for _ in range(2)]
    before = [[part.copy() for part in view] for view in views]
    image, label = copy_paste(*views, np.array([2, 5]), 1.0, rng)
    pasted = np.isin(views[1][1], [2, 5])
    for result, own, other in zip((image, label), *views, strict=True):
        assert np.array_equal(result[pasted], other[pasted]) and np.array_equal(result[~pasted], own[~pasted])
        assert result.dtype == own.dtype
    for kept, view in zip(before, views, strict=True):
        assert all(map(np.array_equal, kept, view)), 'the inputs are unchanged'
    pasted_5 = [
        np.isin(copy_paste(*views, np.array([5]), 0.3, rng)[1][views[1][1] == 5], [5]).all() for _ in range(200)
    ]
    assert 0.2 < np.mean(pasted_5) < 0.4
    assert np.array_equal(copy_paste(*views, np.array([2, 5]), 0.0, rng)[0], views[0][0])


def test_copy_paste_increases_the_share_of_rare_classes(street_dataset, text_embeddings):
    data = load_dataset(street_dataset, 'train')
    rare = rarer_half(data)
    assert 0 < len(rare) <= len(data.counts) / 2 and data.counts[rare].max() < np.median(data.counts)
    with_absent_classes = replace(data, counts=np.concatenate([data.counts, np.zeros(20, np.int64)]))
    assert np.array_equal(rarer_half(with_absent_classes), rare), 'classes without pixels do not count'
    sampler, shares = PromptSampler(data.specs, text_embeddings), []
    for probability in (0.0, 1.0):
        batches = BatchLoader([data], [sampler], replace(SMALL_RUN, copy_paste_prob=probability))
        counts = [torch.bincount(batch.labels.ravel(), minlength=256) for epoch in range(4)
                for batch in batches.epoch(epoch)]
        shares.append(sum(counts)[rare].sum() / sum(counts).sum())
    assert shares[1] > 1.3 * shares[0]

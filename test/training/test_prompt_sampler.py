"""The words of a training step and of an evaluation."""

import numpy as np
import pytest

from lgseg_ros.training.words import WordSampler, evaluation_wording
from lgseg_ros.vocabulary.classes import VocabularyError, parse_classes
from street_dataset import CLASSES, NEGATIVES


def test_words_vary_and_distractors_are_never_related(text_embeddings):
    specs = parse_classes(CLASSES.values())
    sampler = WordSampler(specs, text_embeddings, max_distractors=6)
    assert set(sampler.absent) == NEGATIVES
    by_vector = {vector.tobytes(): name for name, vector in zip(text_embeddings.names, text_embeddings.vectors)}
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
    assert distractors == NEGATIVES
    assert min(counts) == 0 and max(counts) >= 4


def test_the_shared_bank_has_distractors_and_words_for_every_class(clip_text_embeddings):
    sampler = WordSampler(parse_classes(CLASSES.values()), clip_text_embeddings)
    assert len(sampler.absent) > 100
    assert sum(len(phrases) > 1 for phrases in sampler.phrases) >= 8
    assert not {'truck', 'bus', 'bicycle', 'wall', 'sidewalk', 'clouds'} & set(sampler.absent)


def test_what_is_known_of_one_word_holds_for_classes_of_other_names(clip_text_embeddings):
    """Cityscapes says sidewalk, rider and vegetation; their pixels are CamVid's pavement, bicyclist and tree."""
    sampler = WordSampler(parse_classes(['sidewalk', 'rider', 'vegetation', 'vehicle=car']), clip_text_embeddings)
    assert not {'pavement', 'cyclist', 'bicycle', 'tree', 'plant', 'truck', 'suv'} & set(sampler.absent)
    assert {'sky', 'book', 'traffic light'} <= set(sampler.absent)


@pytest.mark.parametrize('classes', [
    ['pedestrian', 'person'], ['tree', 'vegetation'], ['bicyclist=cyclist', 'rider'],
    ['road', 'sign=traffic sign', 'traffic light'], ['building', 'house', 'car', 'van', 'fence', 'wall']])
def test_two_classes_are_never_called_by_one_word(clip_text_embeddings, classes):
    sampler, rng = WordSampler(parse_classes(classes), clip_text_embeddings), np.random.default_rng(0)
    for _ in range(100):
        vectors = sampler.sample(rng).vectors
        assert len(np.unique(vectors, axis=0)) == len(vectors)


def test_without_augmentation_the_words_stay(text_embeddings):
    sampler = WordSampler(parse_classes(['car', 'sky']), text_embeddings, augment=False)
    rng = np.random.default_rng(0)
    assert all(sampler.sample(rng) is sampler.plain() for _ in range(5))


def test_evaluation_words(text_embeddings):
    sampler = WordSampler(parse_classes(['car', 'road', 'sign=traffic sign|traffic light']), text_embeddings)
    plain = evaluation_wording(sampler)
    assert list(plain.row_class) == [0, 1, 2, 2]
    other = parse_classes(['car=suv|van', 'sign=traffic light'])
    renamed = evaluation_wording(sampler, other, distractors=3, seed=1)
    assert list(renamed.row_class) == [0, 0, 1, 2, 3, 4, 5]
    assert np.array_equal(renamed.vectors[:4], text_embeddings.rows(['suv', 'van', 'road', 'traffic light']))
    assert np.array_equal(renamed.vectors, evaluation_wording(sampler, other, 3, 1).vectors)
    with pytest.raises(VocabularyError, match="cannot rename 'ship'"):
        evaluation_wording(sampler, parse_classes(['ship=boat']))
    with pytest.raises(VocabularyError, match="'lorri' is not known .near: lorry"):
        evaluation_wording(sampler, parse_classes(['car=lorri']))
    with pytest.raises(VocabularyError, match='give 0 to'):
        evaluation_wording(sampler, distractors=400)

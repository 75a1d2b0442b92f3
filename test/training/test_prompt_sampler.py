"""The prompts of training steps and evaluations."""

import numpy as np
import pytest

from lgseg_ros.training.prompts import PromptSampler, evaluation_prompts
from lgseg_ros.vocabulary.classes import VocabularyError, parse_classes
from lgseg_ros.vocabulary.text_embeddings import TextEmbeddings
from street_dataset import CLASSES, NEGATIVES


def phrases_of_batch(text_embeddings, prompts):
    pairs = zip(text_embeddings.names, text_embeddings.vectors, strict=True)
    by_vector = {vector.tobytes(): name for name, vector in pairs}
    return [by_vector[vector.tobytes()] for vector in prompts.vectors]


def test_prompts_vary_and_negatives_are_never_related(text_embeddings):
    specs = parse_classes(CLASSES.values())
    sampler = PromptSampler(specs, text_embeddings, max_negatives=6)
    assert set(sampler.negatives) == NEGATIVES
    names_of_building, negatives, counts = set(), set(), set()
    rng = np.random.default_rng(0)
    for _ in range(200):
        prompts = sampler.sample(rng)
        phrases = phrases_of_batch(text_embeddings, prompts)
        assert sorted(set(prompts.class_indices)) == list(range(max(prompts.class_indices) + 1)), (
            'every class has a prompt'
        )
        assert list(prompts.class_indices) == sorted(prompts.class_indices)
        for i, phrase in zip(prompts.class_indices, phrases, strict=True):
            if i < len(specs):
                assert phrase in sampler.alternatives[i] or phrase in specs[i].phrases
            else:
                negatives.add(phrase)
        names_of_building.add(phrases[list(prompts.class_indices).index(1)])
        counts.add(max(prompts.class_indices) + 1 - len(specs))
    assert names_of_building == {'building', 'house'}
    assert negatives == NEGATIVES
    assert min(counts) == 0 and max(counts) >= 3


def test_negatives_are_mostly_labels_of_other_data_sets(text_embeddings):
    """A phrase that is never a label would only be trained as a negative."""
    sampler = PromptSampler(parse_classes(['road']), text_embeddings, labelled={'zebra', 'cake', 'road'})
    rng, negatives = np.random.default_rng(0), []
    for _ in range(300):
        negatives += phrases_of_batch(text_embeddings, sampler.sample(rng))[1:]
    for phrase in ('zebra', 'cake'):
        assert negatives.count(phrase) > 1.5 * negatives.count('piano') > 0
    assert 'road' not in negatives and 'street' not in negatives


def test_a_subclass_is_never_the_only_prompt_of_a_class(clip_text_embeddings):
    specs = parse_classes(['animal=animal|dog|cat', 'background'])
    sampler, rng = PromptSampler(specs, clip_text_embeddings), np.random.default_rng(0)
    sampled = set()
    for _ in range(100):
        prompts = sampler.sample(rng)
        sampled.add(tuple(phrases_of_batch(clip_text_embeddings, prompts)))
    own = ('animal', 'dog', 'cat', 'background')
    assert sampled == {('animal', 'background'), own}, 'with "background" there are no negatives'


def test_clip_text_embeddings_have_negatives_and_synonyms(clip_text_embeddings):
    sampler = PromptSampler(parse_classes(CLASSES.values()), clip_text_embeddings)
    assert len(sampler.negatives) > 100
    assert sum(len(phrases) > 1 for phrases in sampler.alternatives) >= 5
    assert not {'truck', 'bus', 'bicycle', 'wall', 'sidewalk', 'clouds'} & set(sampler.negatives)


def test_related_classes_of_other_data_sets_are_no_negatives(clip_text_embeddings):
    """Sidewalk, rider and vegetation of Cityscapes are pavement, bicyclist and tree of CamVid."""
    sampler = PromptSampler(parse_classes(['sidewalk', 'rider', 'vegetation', 'vehicle=car']), clip_text_embeddings)
    assert not {'pavement', 'cyclist', 'bicycle', 'tree', 'plant', 'truck', 'suv'} & set(sampler.negatives)
    assert {'sky', 'pizza', 'keyboard'} <= set(sampler.negatives)


@pytest.mark.parametrize('classes', [
    ['pedestrian', 'person'], ['tree', 'vegetation'], ['bicyclist=cyclist', 'rider'],
    ['road', 'sign=traffic sign', 'traffic light'], ['building', 'house', 'car', 'van', 'fence', 'wall']])
def test_two_classes_never_share_a_prompt(clip_text_embeddings, classes):
    sampler, rng = PromptSampler(parse_classes(classes), clip_text_embeddings), np.random.default_rng(0)
    for _ in range(100):
        vectors = sampler.sample(rng).vectors
        assert len(np.unique(vectors, axis=0)) == len(vectors)


def test_phrases_without_relations_are_negatives_unless_they_are_similar():
    """Text embeddings of a user may contain phrases that are not in synonyms.yaml."""
    vectors = np.eye(6, dtype=np.float32)
    vectors[1] = vectors[0] + 0.2 * vectors[1]
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    text_embeddings = TextEmbeddings(['excavator', 'power shovel', 'crane', 'drill', 'pipe', 'cable'], vectors)
    assert PromptSampler(parse_classes(['excavator']), text_embeddings).negatives == ['crane', 'drill', 'pipe', 'cable']


def test_without_augmentation_the_prompts_are_constant(text_embeddings):
    sampler = PromptSampler(parse_classes(['car', 'sky']), text_embeddings, augment=False)
    rng = np.random.default_rng(0)
    assert all(sampler.sample(rng) is sampler.own for _ in range(5))


def test_evaluation_prompts(text_embeddings):
    specs = parse_classes(['car', 'road', 'sign=traffic sign|traffic light'])
    own = evaluation_prompts(specs, text_embeddings)
    assert list(own.class_indices) == [0, 1, 2, 2]
    other = parse_classes(['car=suv|van', 'sign=traffic light'])
    renamed = evaluation_prompts(specs, text_embeddings, other, num_negatives=3, seed=1)
    assert list(renamed.class_indices) == [0, 0, 1, 2, 3, 4, 5]
    assert np.array_equal(renamed.vectors[:4], text_embeddings.lookup(['suv', 'van', 'road', 'traffic light']))
    assert np.array_equal(renamed.vectors, evaluation_prompts(specs, text_embeddings, other, 3, 1).vectors)
    with pytest.raises(VocabularyError, match="cannot rename 'ship'"):
        evaluation_prompts(specs, text_embeddings, parse_classes(['ship=boat']))
    with pytest.raises(VocabularyError, match="'lorri' is not known .near: lorry"):
        evaluation_prompts(specs, text_embeddings, parse_classes(['car=lorri']))
    with pytest.raises(VocabularyError, match='num_negatives is 400; give 0 to'):
        evaluation_prompts(specs, text_embeddings, num_negatives=400)

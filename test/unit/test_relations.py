"""Relations between phrases (synonyms.yaml): consistent, complete, and correct in examples."""

import pytest

from lgseg_ros.vocabulary.classes import VocabularyError, parse_classes
from lgseg_ros.vocabulary.relations import (
    check_phrases_agree,
    kinds,
    load_relations,
    negative_phrases,
    parents,
    prompt_alternatives,
    related,
    synonyms,
)


@pytest.fixture(scope='module')
def phrases(weights):
    """The phrases of the shipped weights."""
    return weights.text_embeddings.names


def test_relations_cover_exactly_the_phrases_of_the_weights(phrases):
    relations = load_relations()
    assert len(phrases) == 350
    assert set(phrases) - relations.phrases == set(), 'phrases without relations would be negatives everywhere'
    assert relations.phrases - set(phrases) == set(), 'misspelled, or abstract and not listed as such'
    assert relations.abstract <= set(relations.kinds) and relations.abstract.isdisjoint(phrases)
    assert relations.broad <= set(relations.kinds) and relations.attributes <= set(phrases)


def test_kinds_have_no_cycle():
    table = load_relations().kinds

    def walk(phrase, path):
        assert phrase not in path, f'{" > ".join([*path, phrase])} is a cycle'
        for child in table.get(phrase, ()):
            walk(child, [*path, phrase])

    for phrase in table:
        walk(phrase, [])


def test_no_phrase_is_listed_twice():
    relations = load_relations()
    members = [phrase for group in relations.synonyms for phrase in group]
    assert len(members) == len(set(members)), 'groups that share a phrase must be merged'
    for groups in (relations.synonyms, relations.interchangeable, relations.overlaps,
                   relations.kinds.values(), relations.parts.values()):
        assert all(len(group) == len(set(group)) for group in groups)
        assert all(len(group) > 1 for group in groups if groups in (relations.synonyms, relations.overlaps))


def test_related_is_symmetric_and_reflexive(phrases):
    for phrase in phrases:
        assert phrase in related(phrase)
        for other in related(phrase):
            assert phrase in related(other), (phrase, other)


def test_kinds_and_parents_are_inverse(phrases):
    for phrase in phrases:
        assert all(phrase in parents(kind) for kind in kinds(phrase))
        assert all(phrase in kinds(parent) for parent in parents(phrase))
        assert synonyms(phrase) <= kinds(phrase) & parents(phrase)


@pytest.mark.parametrize('classes, related_phrases, negatives', [
    (['terrain'], ['grass', 'soil', 'field', 'rock'], ['car', 'sky', 'chair']),
    (['corridor floor=floor', 'wall', 'door', 'chair'], ['door-stuff', 'screen door', 'armchair', 'rug', 'painting'],
     ['boat', 'sky', 'car', 'horse']),
    (['building'], ['window', 'skyscraper', 'roof'], ['dog', 'boat', 'road']),
    (['person'], ['people', 'face', 'clothes', 'rider', 'pedestrian'], ['car', 'tree']),
    (['tree'], ['palm', 'leaves', 'bush', 'vegetation', 'moss'], ['car', 'person', 'road']),
    (['car'], ['van', 'suv', 'jeep', 'truck'], ['bicycle', 'person', 'tree']),
    (['Traffic_Sign'], ['stop sign', 'direction sign', 'sign pole'], ['car', 'dog', 'sky']),
])
def test_related_phrases_and_negatives_by_example(phrases, classes, related_phrases, negatives):
    negative = negative_phrases(parse_classes(classes), phrases)
    assert not set(related_phrases) & set(negative)
    assert set(negatives) & set(phrases) <= set(negative)
    assert not load_relations().attributes & set(negative)


def test_background_has_no_negatives(phrases):
    assert negative_phrases(parse_classes(['dog', 'background']), phrases) == []


def test_prompt_alternatives_cover_the_whole_class(phrases):
    specs = parse_classes(['animal=animal|dog|cat', 'sign=traffic sign|traffic light', 'road', 'person',
                           'plant=plant|vegetation'])
    animal, sign, road, person, plant = prompt_alternatives(specs, phrases)
    assert animal == ('animal',)
    assert sign == (), 'neither covers both'
    assert road == ('road', 'street')
    assert set(person) == {'person', 'pedestrian'}, 'people is plural'
    assert {'plant', 'vegetation'} <= set(plant)
    pedestrian, person = prompt_alternatives(parse_classes(['pedestrian', 'person']), phrases)
    assert (pedestrian, person) == (('pedestrian',), ('person',)), 'a phrase of another class is no alternative'


def test_data_sets_with_contradicting_classes_are_reported():
    def check(*data_sets):
        check_phrases_agree([(f'{i}/dataset.yaml', parse_classes(classes)) for i, classes in enumerate(data_sets)])

    check(['road', 'animal=animal|dog'], ['street=road', 'dog'], ['vegetation=tree|plant', 'road=street'])
    check(['tumour=lesion'], ['vessel=lesion']), 'no relations of these phrases exist'
    with pytest.raises(VocabularyError,
                       match="'sky' is a phrase of class 'car' in 0/dataset.yaml and of class 'sky' in 1/.*take"):
        check(['car=sky'], ['sky'])
    with pytest.raises(VocabularyError,
                       match="class 'sign' is 'banana' in 0/dataset.yaml and 'traffic sign' in 1/.*rename"):
        check(['sign=banana'], ['sign=traffic sign'])


def test_the_classes_of_the_data_sets_agree(shared):
    from lgseg_ros.training.dataset import read_description
    folders = sorted(path.parent for path in (shared / 'data').glob('*/dataset.yaml'))
    check_phrases_agree([(folder.name, read_description(folder).specs) for folder in folders])

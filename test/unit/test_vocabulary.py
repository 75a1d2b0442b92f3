"""Names, phrases, ids and presets: what is refused, and what is guaranteed for ids."""

import math

import numpy as np
import pytest

from lgseg_ros.vocabulary.classes import VocabularyError, parse_class, parse_classes, phrases_of
from lgseg_ros.vocabulary.presets import load_presets
from lgseg_ros.vocabulary.text_embeddings import TextEmbeddings, load_text_embeddings
from lgseg_ros.vocabulary.vocabulary import VocabularyState

PHRASES = sorted({phrase for preset in load_presets().values() for spec in preset.classes.values()
                for phrase in spec.phrases} | {f'class {n}' for n in range(300)})


@pytest.fixture
def text_embeddings():
    vectors = np.random.default_rng(0).normal(size=(len(PHRASES), 8))
    return TextEmbeddings(PHRASES, vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


@pytest.fixture
def state(text_embeddings):
    return VocabularyState(text_embeddings)


def test_a_class_is_read_and_written_as_text():
    assert parse_class('car').phrases == ('car',)
    spec = parse_class(' Vehicle = car | Pickup_Truck |car')
    assert (spec.name, spec.phrases) == ('Vehicle', ('car', 'pickup truck'))
    assert parse_class(str(spec)) == spec
    assert str(parse_class('car')) == 'car'


def test_composed_and_decomposed_accents_are_equal():
    """macOS writes accents decomposed; they look the same."""
    composed, decomposed = (parse_class(f'{name}=Fußgänger|{name}') for name in ('caf\u00e9', 'cafe\u0301'))
    assert composed == decomposed


@pytest.mark.parametrize('texts, reason', [
    ([], 'empty'), ([''], 'empty name'), (['=car'], 'empty name'), (['car='], 'empty name'), (['car=a||b'], 'empty'),
    (['car', 'car'], 'named twice'),
    (['x' * 10_000], '10000 characters'), (['a\nb'], 'control characters'),
    ([f'c{n}' for n in range(300)], '300 classes have 300 phrases'),
    (['a=' + '|'.join(f'p{n}' for n in range(256))], '1 classes have 256 phrases'),
])
def test_unusable_vocabularies_are_refused_with_the_reason(texts, reason):
    with pytest.raises(VocabularyError, match=reason) as caught:
        parse_classes(texts)
    assert len(str(caught.value)) < 400   # a long name is shortened in the message


def test_the_limit_is_255_phrases():
    assert len(parse_classes([f'c{n}' for n in range(255)])) == 255


def test_unknown_phrases_are_reported_with_similar_ones(state):
    with pytest.raises(VocabularyError, match="'sidewlk' is not known .near: sidewalk"):
        state.replace(['road', 'sidewlk'])
    assert state.current is None


def test_class_ids_of_the_text_embeddings(state, text_embeddings):
    vocabulary = state.replace(['vehicle=car|truck', 'sky'])
    assert vocabulary.class_ids.tolist() == [0, 0, 1]
    assert np.array_equal(vocabulary.text_embeddings, text_embeddings.lookup(['car', 'truck', 'sky']))
    assert vocabulary.texts == ('vehicle=car|truck', 'sky')


def test_an_id_is_never_given_to_another_name(state):
    rng = np.random.default_rng(1)
    owners = {}
    for _ in range(60):
        names = [f'class {n}' for n in rng.choice(200, size=rng.integers(1, 9), replace=False)]
        vocabulary = state.replace(names)
        assert len(set(vocabulary.ids)) == len(names)
        for name, i in zip(vocabulary.names, vocabulary.ids, strict=True):
            assert owners.setdefault(i, name) == name
            assert 0 <= i <= 254
    assert [v for v in owners.values() if list(owners.values()).count(v) > 1] == []


def test_when_ids_run_out_the_error_gives_the_fix(state):
    state.replace([f'class {n}' for n in range(255)])
    before = state.current
    with pytest.raises(VocabularyError, match='restart the node'):
        state.replace(['class 260'])
    assert state.current is before
    state.replace(['class 3'])   # an earlier name can still be used


def test_a_refusal_changes_nothing(state):
    before = state.replace(['road', 'car'])
    for classes in ([], ['road', 'road'], ['nonsense phrase'], [f'class {n}' for n in range(256)]):
        with pytest.raises(VocabularyError):
            state.replace(classes)
    with pytest.raises(VocabularyError, match='above 1'):
        state.replace(['sky'], confidence_threshold=1.5)
    with pytest.raises(VocabularyError, match='did you mean'):
        state.replace([], preset='cityscape')
    assert state.current is before
    assert state.replace(['sky']).ids == (2,)   # refused names got no ids


@pytest.mark.parametrize('classes, preset, shared', [
    (['car', 'Car'], '', "'car' is a phrase of 'car' and of 'Car'"),
    (['pavement=pavement|sidewalk', 'road', 'sidewalk'], '', "'sidewalk' is a phrase of 'pavement' and of 'sidewalk'"),
    (['sign', 'traffic light'], 'camvid', "'traffic light' is a phrase of 'sign' and of 'traffic light'"),
    (['car', 'truck'], '', ''), ([], 'cityscapes', ''), ([], 'autoware', ''), ([], 'nav2', '')])
def test_a_phrase_of_two_classes_gives_a_warning(state, classes, preset, shared):
    """Also a phrase that comes from the preset: in camvid a sign is a traffic sign or a traffic light."""
    warning = state.prepare(classes, preset).warning
    assert warning.startswith(shared) and bool(warning) == bool(shared)


def test_prepare_and_validate_change_nothing(state):
    state.prepare(['road', 'car'])
    state.validate(['road', 'car'])
    assert state.current is None
    assert state.replace(['sky']).ids == (0,)


def test_validate_checks_everything_except_the_text_embeddings(state):
    specs = state.validate(['vehicle=car|nonsense phrase', 'ROAD'], 'autoware', confidence_threshold=0.5)
    assert phrases_of(specs) == ['car', 'nonsense phrase', 'road']
    state.replace(['class 1'])
    for classes, preset, confidence_threshold, reason in (
        (['a', 'a'], '', None, 'named twice'),
        ([], 'nope', None, 'is unknown'),
        ([], 'autoware', None, 'needs id 0'),
        (['sky'], '', 2.0, 'above 1'),
    ):
        with pytest.raises(VocabularyError, match=reason):
            state.validate(classes, preset, confidence_threshold)


def test_the_threshold_is_kept_unless_it_is_given(state):
    assert state.replace(['sky'], confidence_threshold=0.3).confidence_threshold == 0.3
    for unset in (None, math.nan, -1.0):
        assert state.replace(['sky'], confidence_threshold=unset).confidence_threshold == 0.3
    assert state.replace(['sky'], confidence_threshold=0.0).confidence_threshold == 0.0


@pytest.mark.parametrize('name', load_presets())
def test_presets_have_their_own_ids(state, name):
    preset = load_presets()[name]
    vocabulary = state.replace([], preset.name)
    assert dict(zip(vocabulary.ids, vocabulary.names, strict=True)) == {i: s.name for i, s in preset.classes.items()}


def test_clip_text_embeddings_contain_all_phrases_of_the_presets(clip_text_embeddings):
    for preset in load_presets().values():
        clip_text_embeddings.lookup([phrase for spec in preset.classes.values() for phrase in spec.phrases])


def test_classes_of_a_preset_get_its_ids_and_phrases(state):
    vocabulary = state.replace(['VEHICLE', 'ROAD', 'class 5', 'SKY=class 6'], 'autoware')
    assert vocabulary.ids[:2] == (7, 9) and vocabulary.ids[3] == 15
    assert vocabulary.ids[2] == 16
    assert vocabulary.specs[0].phrases == ('car', 'truck', 'bus')
    assert vocabulary.specs[3].phrases == ('class 6',)
    own = state.prepare(['BUILDING=building', 'ROAD'], 'autoware').specs[0]
    assert own.phrases == ('building',), 'a given phrase is not replaced, even if it equals the name'
    assert state.prepare([str(own)], 'autoware').specs[0].phrases == ('building',), 'its text can be parsed again'


@pytest.mark.parametrize('taken', [['class 1', 'class 2'], ['class 1']])   # ids 0 and 1; only 0, Autoware's UNKNOWN
def test_fixed_ids_are_refused_when_taken(state, taken):
    before = state.replace(taken)
    with pytest.raises(VocabularyError, match='preset:=autoware'):
        state.replace(['SKY'], 'autoware')
    assert state.current is before
    assert state.replace(['class 9']).ids == (len(taken),)   # the refused preset reserved no ids


def test_the_ids_of_autoware_are_never_given_to_other_names(text_embeddings):
    """Autoware deletes points by id, including 0 and the labels that are not classes of the preset."""
    autoware = load_presets()['autoware']
    assert sorted(autoware.fixed.values()) == list(range(16))
    ids = {}
    state = VocabularyState(text_embeddings, ids)
    assert state.replace(['ROAD', 'class 1', 'class 2'], 'autoware').ids == (9, 16, 17)
    assert state.replace(['class 3', 'class 4']).ids == (18, 19)   # later vocabularies do not name the preset
    assert min(state.replace([], 'camvid').ids) == 20              # another preset does not get them either
    assert VocabularyState(text_embeddings, ids).replace(['class 5', 'SKY=sky']).ids[1] == 15
    assert state.replace(['ROAD_PAINT=class 6']).ids == (11,)      # a label of Autoware by its own name


def test_a_preset_that_was_only_prepared_reserves_no_ids(state):
    state.prepare([], 'autoware')
    assert state.replace(['class 1']).ids == (0,)


def test_presets_without_fixed_ids_share_the_ids_of_the_run(state):
    state.replace([], 'camvid')
    vocabulary = state.replace([], 'cityscapes')
    assert len(set(vocabulary.ids)) == 19
    assert dict(zip(vocabulary.names, vocabulary.ids, strict=True))['sky'] == 0   # the id that it got first in this run


def test_damaged_files_of_text_embeddings_are_refused(tmp_path):
    missing = tmp_path / 'missing.npz'
    with pytest.raises(VocabularyError, match='missing.npz'):
        load_text_embeddings(missing)
    (tmp_path / 'damaged.npz').write_bytes(b'PK\x03\x04 not really')
    with pytest.raises(VocabularyError, match='damaged.npz'):
        load_text_embeddings(tmp_path / 'damaged.npz')
    np.savez(tmp_path / 'pickle.npz', names=np.array(['a', None], object), embeddings=np.ones((2, 3)))
    with pytest.raises(VocabularyError, match='pickle.npz'):
        load_text_embeddings(tmp_path / 'pickle.npz')
    with pytest.raises(VocabularyError, match='not finite'):
        TextEmbeddings(['a'], [[np.nan, 1]])

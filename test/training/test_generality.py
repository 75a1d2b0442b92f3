"""The benchmark over many data sets: its prompts, its arithmetic by hand, and the whole command on small images."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from street_dataset import write_dataset, write_text_embeddings
from training_harness import SMALL_RUN, make_trainer

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / 'benchmark'))

import generality

from lgseg_ros.training.trainer import train
from lgseg_ros.vocabulary.classes import parse_classes
from lgseg_ros.vocabulary.relations import related


def test_other_prompts_are_related_phrases_of_the_weights(weights):
    for phrase, alternatives in generality.OTHER_PROMPTS.items():
        assert {phrase, *alternatives} <= set(weights.text_embeddings.names)
        assert set(alternatives) <= related(phrase), phrase


def test_prompts_of_each_variant(weights):
    specs, names = parse_classes(['road', 'sidewalk', 'tree=tree|vegetation']), weights.text_embeddings.names
    own = generality.choose_prompts(specs, names, 'own')
    assert own.classes == [('road',), ('sidewalk',), ('tree', 'vegetation')] and own.groups == []
    assert generality.choose_prompts(specs, names, 'renamed').classes == [('street',), ('pavement',), ('vegetation',)]
    negatives = generality.choose_prompts(specs, names, 'negatives')
    assert sum(map(len, negatives.groups)) == 100 and not negatives.related.any()
    every = generality.choose_prompts(specs, names, 'all')
    phrases = [phrase for group in every.groups for phrase in group]
    assert sorted(phrases) == sorted(set(names) - {'road', 'sidewalk', 'tree', 'vegetation'})
    related_classes = dict(
        zip(phrases, np.repeat(every.related, [len(group) for group in every.groups], axis=1).T.tolist(), strict=True)
    )
    assert related_classes['palm'] == [False, False, True] and related_classes['path'] == [True, True, False]
    assert len(every.classes) + len(every.groups) < 255
    assert generality.choose_prompts(parse_classes(['dog', 'background']), names, 'negatives') is None


def test_results_by_hand():
    """Two classes, one group related to the first: 10 of its pixels go there, 20 to the other group."""
    confusion = np.array([[70, 0, 10, 20], [0, 50, 30, 20]])
    results = generality.results_of(confusion, ['a', 'b'], np.array([[True, False], [False, False]]))
    assert results['iou'] == {'a': 70, 'b': 50} and results['miou'] == 60
    assert results['miou_without_related'] == pytest.approx((100 * 70 / 90 + 50) / 2, abs=0.01)
    assert results['to_related'] == 5 and results['to_unrelated'] == 35


def test_the_whole_command(tmp_path, text_embeddings, capsys):
    street = write_dataset(tmp_path / 'data/camvid', train=2, val=2)
    write_dataset(tmp_path / 'data/pets', train=1, val=1, classes={0: 'sky', 1: 'background=wood'},
                  merge={0: 0, **dict.fromkeys(range(1, 11), 1)})
    (tmp_path / 'data/notes').mkdir()
    write_text_embeddings(tmp_path / 'embeddings.npz')
    train(make_trainer(street, text_embeddings, SMALL_RUN, validation=False), tmp_path / 'run', progress=False,
          stop_epoch=1)
    command = [
        '--data',
        str(tmp_path / 'data'),
        '--run',
        str(tmp_path / 'run'),
        '--text-embeddings',
        str(tmp_path / 'embeddings.npz'),
    ]
    with pytest.raises(ValueError, match="'wood' is not known"):
        generality.main(command)
    assert generality.main([*command, '--sets', 'camvid', '--json', str(tmp_path / 'results.json')]) == 0
    results = json.loads((tmp_path / 'results.json').read_text())
    measured = results['sets']['camvid']
    assert set(measured) == set(generality.VARIANTS) and results['epoch'] == 1
    assert measured['own']['phrases'] == 12 and measured['own']['images'] == 2
    assert measured['negatives']['phrases'] == 17
    assert measured['renamed']['loss'] == pytest.approx(measured['own']['miou'] - measured['renamed']['miou'], abs=0.01)
    assert '| camvid | ' in (table := capsys.readouterr().out) and '| **mean** | ' in table
    with pytest.raises(SystemExit):
        generality.main([*command, '--sets', 'elsewhere'])

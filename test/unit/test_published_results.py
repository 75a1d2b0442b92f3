"""Figures in README, model card and benchmark page are those of the files that the commands wrote."""

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
EVALUATIONS = {'eval': 'mIoU, CamVid val', 'eval_renamed': 'called by other words', 'eval_distractors': '100 absent names',
               'eval_int8': 'in INT8'}


def result(name):
    return json.loads((ROOT / f'benchmark/results/{name}.json').read_text())


def figure_of(page, words):
    """The first cell of nothing but numbers in the first table row that holds `words`."""
    row = next(line for line in (ROOT / page).read_text().splitlines() if line.startswith('|') and words in line)
    cells = [cell for cell in row.strip('| ').split('|') if re.fullmatch(r'[\d., /]+', cell.strip())]
    return cells[0].strip()


@pytest.mark.parametrize('name', EVALUATIONS)
def test_the_readme_tells_the_measured_accuracy(name):
    assert figure_of('README.md', EVALUATIONS[name]) == f'{result(name)["miou"]:.1f}'


def test_the_model_card_tells_the_measured_accuracy():
    measured = result('eval')
    for words, key in (('mIoU |', 'miou'), ('pixel accuracy', 'pixel_accuracy'), ('boundary F1', 'boundary_f1'),
                       ('frequency-weighted IoU', 'frequency_weighted_iou'),
                       ('expected calibration error', 'expected_calibration_error')):
        assert figure_of('docs/reference/model_card.md', words) == f'{measured[key]:.1f}', words
    told = dict(re.findall(r'\| ([a-z]+) \| ([\d.]+) (?=\|)', (ROOT / 'docs/reference/model_card.md').read_text()))
    assert {name: told[name] for name in measured['iou']} == {name: f'{iou:.1f}' for name, iou in measured['iou'].items()}
    for name in ('eval_int8', 'eval_renamed', 'eval_distractors'):
        assert figure_of('docs/reference/model_card.md', f'{name}.json') == f'{result(name)["miou"]:.1f}', name


def test_they_are_of_the_shipped_weights():
    import hashlib
    digest = hashlib.sha256((ROOT / 'weights/lgseg_lite0.safetensors').read_bytes()).hexdigest()
    assert {result(name)['weights_sha256'] for name in EVALUATIONS} == {digest}


def test_the_readme_counts_the_faults():
    count = len(re.findall(r'^\| \d+ \|', (ROOT / 'docs/reference/faults.md').read_text(), re.MULTILINE))
    assert f'{count} ways to break the node' in ' '.join((ROOT / 'README.md').read_text().split())

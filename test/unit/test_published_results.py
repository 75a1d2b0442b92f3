"""Results in README and model card equal those in the result files."""

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
EVALUATIONS = {
    'eval': 'CamVid val, 480x360, fp32',
    'eval_renamed': 'eight classes renamed',
    'eval_negatives': '100 negative classes added',
    'eval_int8': 'mIoU (%), INT8',
}


def result(name):
    return json.loads((ROOT / f'benchmark/results/{name}.json').read_text())


def published_result(page, label):
    """The first numeric cell of the first table row that contains `label`."""
    row = next(line for line in (ROOT / page).read_text().splitlines() if line.startswith('|') and label in line)
    cells = [cell for cell in row.strip('| ').split('|') if re.fullmatch(r'[\d., /]+', cell.strip())]
    return cells[0].strip()


@pytest.mark.parametrize('name', EVALUATIONS)
def test_the_readme_has_the_measured_accuracy(name):
    assert published_result('README.md', EVALUATIONS[name]) == f'{result(name)["miou"]:.1f}'


def test_the_model_card_has_the_measured_accuracy():
    measured = result('eval')
    for label, key in (('mIoU |', 'miou'), ('pixel accuracy', 'pixel_accuracy'), ('boundary F1', 'boundary_f1'),
                       ('frequency-weighted IoU', 'frequency_weighted_iou'),
                       ('expected calibration error', 'expected_calibration_error')):
        assert published_result('docs/reference/model_card.md', label) == f'{measured[key]:.1f}', label
    listed = dict(re.findall(r'\| ([a-z]+) \| ([\d.]+) (?=\|)', (ROOT / 'docs/reference/model_card.md').read_text()))
    assert {name: listed[name] for name in measured['iou']} == {
        name: f'{iou:.1f}' for name, iou in measured['iou'].items()
    }
    for name in ('eval_int8', 'eval_renamed', 'eval_negatives'):
        assert published_result('docs/reference/model_card.md', f'{name}.json') == f'{result(name)["miou"]:.1f}', name


def test_results_are_of_the_shipped_weights():
    import hashlib
    digest = hashlib.sha256((ROOT / 'weights/lgseg_lite0.safetensors').read_bytes()).hexdigest()
    assert {result(name)['weights_sha256'] for name in EVALUATIONS} == {digest}


def test_the_readme_counts_the_faults():
    count = len(re.findall(r'^\| \d+ \|', (ROOT / 'docs/reference/faults.md').read_text(), re.MULTILINE))
    assert f'{count} ways to break the node' in ' '.join((ROOT / 'README.md').read_text().split())

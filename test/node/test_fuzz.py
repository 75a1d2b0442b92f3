"""Random and mutated messages and requests: only documented errors, no hangs, no memory growth."""

import importlib.util
import os
import random
import sys
from pathlib import Path

import pytest
import rclpy

CASES = int(os.environ.get('LGSEG_FUZZ', 21_000))   # more by hand: LGSEG_FUZZ=1000000, or benchmark/fuzz.py
MAX_GROWTH_MB = 40   # after the first tenth of the cases; the allocator keeps some memory of the largest image


@pytest.fixture(scope='module')
def fuzz():
    """benchmark/fuzz.py as a module."""
    path = Path(__file__).resolve().parents[2] / 'benchmark' / 'fuzz.py'
    spec = importlib.util.spec_from_file_location('fuzz', path)
    sys.modules['fuzz'] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope='module', autouse=True)
def context():
    rclpy.init()
    yield
    rclpy.try_shutdown()


@pytest.mark.timeout(max(120, CASES / 50))
def test_only_documented_errors_are_raised(fuzz, capsys):
    counts, growth = fuzz.fuzz(CASES)
    with capsys.disabled():
        print(f'\n{sum(counts.values()):,} fuzzed inputs, memory grew by {growth:.1f} MB', end=' ')
    assert sum(counts.values()) >= 20_000 or CASES < 20_000
    for kind, outcomes in {'images': ('read', 'rejected'), 'compressed': ('read', 'rejected'),
                           'class texts': ('parsed', 'rejected'), 'requests': ('accepted', 'rejected')}.items():
        # Both outcomes are frequent; otherwise the inputs would be too valid or too invalid to find anything.
        assert all(counts[kind, outcome] > 0.03 * CASES * fuzz.SHARES[kind] for outcome in outcomes), counts
    assert growth < MAX_GROWTH_MB


def test_an_undocumented_error_is_reported(fuzz, monkeypatch):
    """A test of the fuzzer: a reader that raises another error must not pass."""
    def broken(message):
        raise IndexError('out of range')
    monkeypatch.setattr(fuzz, 'frame_from_image', broken)
    with pytest.raises(AssertionError, match='images, case 0 of seed 0: IndexError: out of range'):
        fuzz.fuzz(100, only='images')


def test_cases_are_determined_by_their_seed(fuzz):
    assert fuzz.mutate(random.Random('a'), bytes(500)) == fuzz.mutate(random.Random('a'), bytes(500))
    texts = [[fuzz.class_text(random.Random(n)) for n in range(20)] for _ in range(2)]
    assert texts[0] == texts[1] and len(set(texts[0])) > 5

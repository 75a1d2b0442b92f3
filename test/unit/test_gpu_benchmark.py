"""The GPU benchmark's engines that run on a CPU, and its error where there is no GPU."""

import json
import os
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[2] / 'benchmark' / 'gpu.py'


def run(*arguments, **environment):
    return subprocess.run([sys.executable, str(SCRIPT), *arguments], capture_output=True, text=True,
                          env={**os.environ, **environment}, timeout=100)


def test_without_a_gpu_the_hint_is_what_to_install():
    done = run(CUDA_VISIBLE_DEVICES='')
    assert done.returncode == 1 and 'no NVIDIA GPU here' in done.stderr and 'pip install' in done.stderr


def test_results_on_a_cpu(tmp_path):
    """At a size that the network cannot have: its sides are no multiples of 8."""
    done = run('--device', 'cpu', '--iterations', '1', '--sizes', '170x126', '--batch-sizes', '1', '--no-node',
               '--json', str(tmp_path / 'gpu.json'))
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / 'gpu.json').read_text())['results']
    assert [(result['engine'], result.get('batch_size')) for result in results] == [
        ('torch eager', 1), ('ONNX Runtime CPU', 1)], results
    for result in results:
        assert result['agreement'] > 0.99 and result['frames_per_s'] > 0
        assert result['p50_ms'] <= result['p95_ms'] <= result['p99_ms']

"""The GPU benchmark's rows that run on a CPU, and what it says where there is no GPU."""

import json
import os
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[2] / 'benchmark' / 'gpu.py'


def run(*arguments, **environment):
    return subprocess.run([sys.executable, str(SCRIPT), *arguments], capture_output=True, text=True,
                          env={**os.environ, **environment}, timeout=100)


def test_without_a_gpu_it_says_what_to_install():
    done = run(CUDA_VISIBLE_DEVICES='')
    assert done.returncode == 1 and 'no NVIDIA GPU here' in done.stderr and 'pip install' in done.stderr


def test_rows_of_a_cpu(tmp_path):
    """At a size that no network has: its sides are no multiples of 8."""
    done = run('--device', 'cpu', '--rounds', '1', '--sizes', '170x126', '--batches', '1', '--no-node',
               '--json', str(tmp_path / 'gpu.json'))
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / 'gpu.json').read_text())['rows']
    assert [(row['engine'], row['batch']) for row in rows] == [
        ('torch eager', 1), ('ONNX Runtime CPU', 1)]
    for row in rows:
        assert row['agreement'] > 0.99 and row['frames_per_s'] > 0 and row['p50_ms'] <= row['p95_ms'] <= row['p99_ms']

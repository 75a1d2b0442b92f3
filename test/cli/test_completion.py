"""Tab completion, called as a shell calls it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

HOOK = Path(__file__).resolve().parents[2] / 'bin' / 'completion.bash'


def complete(line, folder):
    """The completions that argcomplete offers for a command line with the cursor at its end."""
    output = folder / 'completions'
    env = {**os.environ, '_ARGCOMPLETE': '1', '_ARGCOMPLETE_STDOUT_FILENAME': str(output), '_ARGCOMPLETE_IFS': '\n',
           'COMP_TYPE': '9', 'COMP_LINE': line, 'COMP_POINT': str(len(line))}
    subprocess.run([sys.executable, '-m', 'lgseg_ros.cli.main'], env=env, cwd=folder, check=True, timeout=60)
    return [line.strip() for line in output.read_text().split('\n')]


@pytest.mark.parametrize('line, offered, not_offered', [
    ('lgseg se', 'segment', 'eval'),
    ('lgseg segment x.png --pre', '--preset', '--alpha'),
    ('lgseg segment x.png --preset c', 'cityscapes', 'nav2'),
    ('lgseg segment x.png --vocabulary road,vehicle=tr', 'road,vehicle=truck', 'road,vehicle=car'),
    ('lgseg train --init lg', 'lgseg_lite0', 'train'),
    ('lgseg bench --engines o', 'openvino', 'torch'),
])
def test_commands_options_and_values_are_completed(line, offered, not_offered, tmp_path):
    completions = complete(line, tmp_path)
    assert offered in completions and not_offered not in completions


def test_the_hook_registers_completion_in_an_interactive_bash():
    done = subprocess.run(
        ['bash', '--norc', '-ic', f'source {HOOK}; complete -p lgseg'],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        start_new_session=True,
        timeout=60,
    )
    assert 'python_argcomplete lgseg' in done.stdout, done.stderr

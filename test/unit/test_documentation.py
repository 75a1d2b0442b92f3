"""README and docs name only files, options, parameters and terms that exist."""

import argparse
import importlib
import re
from dataclasses import fields
from functools import cache
from pathlib import Path

import pytest

from lgseg_ros.cli.main import COMMANDS

ROOT = Path(__file__).resolve().parents[2]
GENERATED = ('docs/reference/faults.md', 'docs/reference/parameters.md')
PAGES = sorted(str(path.relative_to(ROOT)) for path in [ROOT / 'README.md', *ROOT.glob('docs/**/*.md'),
                                                        ROOT / 'benchmark' / 'README.md'])
PATH = re.compile(r'`((?:lgseg_ros|test|config|scripts|benchmark|node|engines|vocabulary|model|training|media)/'
                  r'[\w./-]+\.\w+|pipeline\.py|api\.py)')
# Terms that the documentation of OpenCV, ROS, PyTorch and timm does not use for what we mean.
FOREIGN = re.compile(r'\b(pictures?|films?|cure|remarks?|words?|told|figures?|verdicts?|distractors?|wordings?)\b',
                     re.IGNORECASE)
CALL = re.compile(r'(?:^|\s)lgseg ([a-z][a-z-]*)|benchmark/(\w+\.py)|lgseg_ros\.cli\.main ([a-z][a-z-]*)')


def text_of(page):
    return (ROOT / page).read_text()


def commands_of(text):
    """The shell commands of all code blocks and of inline code, with continued lines joined."""
    blocks = re.findall(r'```(?:bash|console)?\n(.*?)```', text, re.DOTALL)
    lines = [line.strip() for block in blocks for line in block.replace('\\\n', ' ').splitlines()]
    return [*lines, *re.findall(r'`([^`\n]+)`', re.sub(r'```.*?```', '', text, flags=re.DOTALL))]


@cache
def options_of_command(name):
    parser = argparse.ArgumentParser()
    importlib.import_module(f'lgseg_ros.cli.{name.replace("-", "_")}').add_arguments(parser)
    return set(parser._option_string_actions)


@cache
def options_of_benchmark(name):
    """The options of a file in benchmark/, read from its source because its imports may not be installed."""
    source = (ROOT / 'benchmark' / name).read_text()
    if name == 'ablation.py':   # it passes other options to lgseg train
        return options_of_command('train') | set(re.findall(r"'(--[\w-]+)'", source))
    return set(re.findall(r"'(--[\w-]+)'", source)) | {'--json', '--help'}


@pytest.mark.parametrize('page', PAGES)
def test_files_exist(page):
    roots = ROOT, ROOT / 'lgseg_ros'
    paths = PATH.findall(text_of(page))
    assert [name for name in paths if not any((root / name).exists() for root in roots)
            and name not in ('benchmark/results/gpu.json', 'weights/street.safetensors')] == []


@pytest.mark.parametrize('page', [page for page in PAGES if page not in GENERATED])
def test_options_exist(page):
    unknown = []
    for line in commands_of(text_of(page)):
        for part in re.split(r'[;|]|&&', line.split(' #')[0]):
            call = CALL.search(part)
            if not call:
                continue
            command, script = call[1] or call[3], call[2]
            known = options_of_benchmark(script) if script else options_of_command(command)
            used = re.findall(r'(?<=\s)--[a-z][\w-]*', part[call.end():])
            unknown += [f'{command or script} {option}' for option in used if option not in known]
    assert unknown == []


@pytest.mark.parametrize('page', [page for page in PAGES if page not in GENERATED])
def test_parameters_exist(page):
    parameters = pytest.importorskip('lgseg_ros.node.parameters')
    arguments = importlib.import_module('lgseg_ros.launch_support.arguments').ARGUMENTS
    known = {entry.name for entry in fields(parameters.Settings)} | set(arguments) | {'image', '__node'}
    assert set(re.findall(r'\b(\w+):=', text_of(page))) <= known


def test_every_command_is_documented():
    text = ' '.join(text_of(page) for page in PAGES)
    assert [name for name in COMMANDS if f'lgseg {name}' not in text and f'{name}.sh' not in text] == []


@pytest.mark.parametrize('page', [page for page in PAGES if page not in GENERATED])
def test_terms_are_those_of_the_field(page):
    assert FOREIGN.findall(text_of(page)) == []


def test_the_readme_is_short():
    assert len(text_of('README.md').splitlines()) <= 200

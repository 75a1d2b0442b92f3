"""Tab completion of `lgseg` by argcomplete, which ros2 installs: options, presets, weights and class names.

scripts/activate.sh and the workspace's set-up files enable it for bash. To enable it elsewhere, for bash and zsh:
eval "$(register-python-argcomplete lgseg)"
"""

import argparse
import importlib
import os
from collections.abc import Callable, Mapping

import argcomplete

from ..vocabulary.presets import load_presets


def complete(commands: Mapping[str, str]) -> None:
    """Answer a shell that asks for completions, and end the process.

    Args:
        commands: {name: help} of the subcommands of `lgseg`.
    """
    parser = argparse.ArgumentParser(prog='lgseg')
    subparsers = parser.add_subparsers()
    typed = os.environ['COMP_LINE'].split()[1:2]
    for name, text in commands.items():
        command = subparsers.add_parser(name, help=text)
        if typed == [name]:   # importing the modules of all commands would take seconds
            add_completers(command, name)
    argcomplete.autocomplete(parser)


def add_completers(parser: argparse.ArgumentParser, name: str) -> None:
    """Declare the arguments of a subcommand, with completers for their values."""
    importlib.import_module('.' + name.replace('-', '_'), __package__).add_arguments(parser)
    for action in parser._actions:
        if action.dest in COMPLETERS:
            action.completer = COMPLETERS[action.dest]   # type: ignore[attr-defined]


def presets(prefix: str, **_: object) -> list[str]:
    """Return the names of presets."""
    return list(load_presets())


def weights(prefix: str, **_: object) -> list[str]:
    """Return the names of shipped weights, and weights files."""
    from ..model.weights import shipped_weights
    return [*shipped_weights(), *argcomplete.FilesCompleter(('safetensors',))(prefix)]


def classes(prefix: str, parsed_args: argparse.Namespace, **_: object) -> list[str]:
    """Complete the last class of a list with the phrases that the weights know: 'road,ca' to 'road,car'.

    Phrases with a comma are left out, because a comma separates classes here.
    """
    from ..model.weights import DEFAULT_WEIGHTS, load_weights
    known = load_weights(getattr(parsed_args, 'weights', None) or DEFAULT_WEIGHTS).text_embeddings.names
    start = max(prefix.rfind(mark) for mark in ',=|') + 1
    return [prefix[:start] + phrase for phrase in known if ',' not in phrase]


COMPLETERS: dict[str, Callable[..., list[str]]] = {
    'preset': presets, 'weights': weights, 'init': weights,
    'vocabulary': classes, 'second_vocabulary': classes, 'prompts': classes}
"""Completers by the argument's `dest`."""

"""Tab completion of `lgseg` by argcomplete, which ros2 brings: options, presets, weights, and the words that they know.

scripts/activate.sh and the workspace's set-up files switch it on for bash; elsewhere, for bash and zsh:
eval "$(register-python-argcomplete lgseg)"
"""

import argparse
import importlib
import os

import argcomplete

from ..vocabulary.presets import load_presets


def complete(commands):
    """Answer a shell that asks what could come next, and end the process.  commands: {name: help} of `lgseg`."""
    parser = argparse.ArgumentParser(prog='lgseg')
    subparsers = parser.add_subparsers()
    typed = os.environ['COMP_LINE'].split()[1:2]
    for name, text in commands.items():
        command = subparsers.add_parser(name, help=text)
        if typed == [name]:   # the others' modules are not worth their import
            fill(command, name)
    argcomplete.autocomplete(parser)


def fill(command, name):
    """Give the parser of a subcommand its arguments, and those the values that they can have."""
    importlib.import_module('.' + name.replace('-', '_'), __package__).add_arguments(command)
    for action in command._actions:
        if action.dest in COMPLETERS:
            action.completer = COMPLETERS[action.dest]


def presets(prefix, **_):
    """Names of presets."""
    return list(load_presets())


def weights(prefix, **_):
    """Names of shipped weights, and files."""
    from ..engines.weights import shipped_weights
    return [*shipped_weights(), *argcomplete.FilesCompleter(('safetensors',))(prefix)]


def words(prefix, parsed_args, **_):
    """'road,ca' -> 'road,car', ...: the last of the words, from those that the weights know and that hold no comma, which
    separates words here."""
    from ..engines.weights import DEFAULT_WEIGHTS, load_weights
    known = load_weights(getattr(parsed_args, 'weights', None) or DEFAULT_WEIGHTS).bank.names
    start = max(prefix.rfind(mark) for mark in ',=|') + 1
    return [prefix[:start] + word for word in known if ',' not in word]


COMPLETERS = {'preset': presets, 'weights': weights, 'init': weights, 'vocabulary': words, 'then': words, 'names': words}

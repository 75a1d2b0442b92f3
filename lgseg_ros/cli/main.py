"""The `lgseg` command: one module for each subcommand, imported only when its command runs."""

import argparse
import importlib
import os
import sys
from collections.abc import Sequence

from .errors import explain_missing, name_options

COMMANDS = {
    'demo': 'run camera, node and recorder on a real ROS graph, and change the vocabulary on the way',
    'segment': 'segment images and videos: masks and overlays',
    'embed': 'add new phrases with CLIP, here or for another machine',
    'train': 'train a segmentation network',
    'eval': 'evaluate weights on a labelled data set',
    'export': 'export weights of a training run, and their ONNX file',
    'quantize': 'make the 8-bit ONNX file of weights, for CPUs',
    'build-engine': "build the TensorRT engine of weights for this machine's GPU",
    'bench': 'benchmark the engines on this machine',
    'doctor': 'check this machine and suggest fixes',
    'params': "print the node's parameters as a table, or as a parameter file",
}
"""Subcommands with their help."""

EXAMPLES = '''Examples:
  lgseg segment street.jpg --vocabulary "road,car,person=person|pedestrian,sky"
  lgseg demo
  lgseg doctor
  lgseg segment --help                                       (options and examples of one command)
'''


def main(argv: Sequence[str] | None = None) -> int:
    """Run `lgseg COMMAND ...`.

    Args:
        argv: the words that follow `lgseg`; default: those of this process.

    Returns:
        The exit code: 0 success, 1 failure with a message, 2 wrong usage, 130 interrupted.
    """
    if '_ARGCOMPLETE' in os.environ:   # set by the shell's completion, which reads the answer
        from .completion import complete
        complete(COMMANDS)
    argv = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(
        prog='lgseg', formatter_class=argparse.RawDescriptionHelpFormatter, epilog=EXAMPLES,
        description='Language-guided semantic segmentation: images and class names in, masks out.')
    commands = parser.add_subparsers(dest='command', required=True, metavar='COMMAND')
    for name, text in COMMANDS.items():
        commands.add_parser(name, help=text, add_help=False)
    chosen, _ = parser.parse_known_args(argv[:1])
    try:
        return run_command(chosen.command, argv[1:])
    except ModuleNotFoundError as error:
        reason = explain_missing(error.name or '')
        if reason is None:
            raise
        print(f'lgseg {chosen.command}: {reason}', file=sys.stderr)
        return 1


def run_command(name: str, argv: Sequence[str]) -> int:
    """Run one command with the words that follow its name. Returns the exit code."""
    module = importlib.import_module('.' + name.replace('-', '_'), __package__)
    parser = argparse.ArgumentParser(prog=f'lgseg {name}', description=module.__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    module.add_arguments(parser)
    arguments = parser.parse_args(argv)
    try:
        exit_code: int = module.run(arguments)
        return exit_code
    except KeyboardInterrupt:
        return 130
    except (ValueError, OSError, RuntimeError) as error:   # with a message for users; all others are bugs
        print(f'lgseg {name}: {name_options(str(error), parser)}', file=sys.stderr)
        return 1


if __name__ == '__main__':
    sys.exit(main())

"""The `lgseg` command: one subcommand a file; a module is imported only when its command runs."""

import argparse
import importlib
import os
import sys

from .missing import explain_missing

COMMANDS = {
    'demo': 'camera, node and a change of words on a real ROS graph',
    'segment': 'pictures and videos to masks and overlays',
    'embed': 'teach new words with CLIP, here or for another machine',
    'train': 'train a segmenter',
    'eval': 'measure weights on a labelled data set',
    'export': 'weights from a training run, and their ONNX file',
    'quantize': 'the 8-bit ONNX file of weights, for CPUs',
    'build-engine': "the TensorRT engine of weights for this machine's GPU",
    'bench': 'time the engines on this machine',
    'doctor': 'check this machine: what is wrong, and the cure',
    'params': "the node's parameters as a table, or as a parameter file",
}


def main(argv=None):
    """Run `lgseg COMMAND ...`.  Returns the exit code: 0 done, 1 failed with a message, 2 wrong usage."""
    if '_ARGCOMPLETE' in os.environ:   # set by the shell's completion, which reads the answer
        from .completion import complete
        complete(COMMANDS)
    argv = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(prog='lgseg', description='Language-guided segmentation: pictures, words, masks.')
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


def run_command(name, argv):
    """Run one command with what follows its name.  Returns the exit code."""
    module = importlib.import_module('.' + name.replace('-', '_'), __package__)
    command = argparse.ArgumentParser(prog=f'lgseg {name}', description=module.__doc__,
                                      formatter_class=argparse.RawDescriptionHelpFormatter)
    module.add_arguments(command)
    arguments = command.parse_args(argv)
    try:
        return module.run(arguments)
    except KeyboardInterrupt:
        return 130
    except (ValueError, OSError, RuntimeError) as error:   # messages made for people; the rest is a bug and shows itself
        print(f'lgseg {name}: {error}', file=sys.stderr)
        return 1


if __name__ == '__main__':
    sys.exit(main())

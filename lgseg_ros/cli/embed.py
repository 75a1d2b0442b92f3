"""Add phrases that the weights do not know: embed them with the CLIP text encoder that the weights were trained with.

The text embeddings go into this user's cache, which the node reads; a running node can use them at once. With --out
they go into a file instead, for a machine without CLIP. A phrase may be written as a class of a vocabulary,
"vehicle=forklift|tugger": its phrases are embedded.

The text encoder needs open_clip (scripts/setup.sh --with train, or pip install open_clip_torch). Its weights come
from the caches of open_clip, from the file that LGSEG_CLIP_WEIGHTS or --pretrained names, or from the network.

Examples:
  lgseg embed forklift "euro pallet"
  lgseg embed --from phrases.txt --out phrases.npz    (on a machine with CLIP)
  lgseg embed --import phrases.npz                    (on the robot)
  lgseg embed --list
"""

import argparse
import json
import sys
from pathlib import Path

from ..model.weights import DEFAULT_WEIGHTS, Weights, load_weights
from ..vocabulary.embed_phrases import (
    CachedPhrases,
    add_to_cache,
    embed_phrases,
    import_embeddings,
    known_phrases,
    load_any_encoder,
    load_encoder_of_weights,
    read_phrases,
    read_templates,
)
from ..vocabulary.embedding_file import write_embeddings
from ..vocabulary.encoder import ENSEMBLE
from ..vocabulary.text_space import check_template


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `lgseg embed`."""
    parser.add_argument('phrases', nargs='*', metavar='PHRASE', help='"forklift", or "vehicle=forklift|tugger"')
    parser.add_argument('--from', dest='file', metavar='FILE', help='more phrases, one a line; # starts a comment')
    parser.add_argument('--out', metavar='FILE.npz', help='write this file instead of the cache')
    parser.add_argument('--import', dest='imported', metavar='FILE.npz', help="add a file's phrases to the cache")
    parser.add_argument('--list', action='store_true', help='list the phrases of the weights and of the cache')
    parser.add_argument('--json', action='store_true', help='with --list: print JSON')
    parser.add_argument('--weights', metavar='W', help='shipped name or .safetensors file whose text encoder is used '
                                                       f'(default: {DEFAULT_WEIGHTS})')
    parser.add_argument('--model', metavar='M', help="open_clip's name, or a JSON file of its format (default: that of "
                                                     'the weights). With --out and without --weights: any encoder')
    parser.add_argument('--pretrained', metavar='P',
                        help="open_clip's tag or a checkpoint file (default: that of the weights)")
    templates = parser.add_mutually_exclusive_group()
    templates.add_argument('--template', metavar='T', help='sentence with {} for the phrase (default: that of the '
                                                           'weights)')
    templates.add_argument('--templates', metavar='FILE', help='average over several templates, one a line; '
                                                               f'"ensemble": {len(ENSEMBLE)} built-in ones')


def run(arguments: argparse.Namespace) -> int:
    """Embed, import or list phrases. Returns 0, or 1 if the cache cannot be written."""
    modes = [arguments.list, bool(arguments.imported), bool(arguments.phrases or arguments.file)]
    if sum(modes) != 1:
        raise ValueError('give phrases (or --from FILE), or --import FILE.npz, or --list; --help shows examples')
    if arguments.list:
        return list_phrases(load_weights(arguments.weights or DEFAULT_WEIGHTS), arguments.json)
    if arguments.imported:
        weights = load_weights(arguments.weights or DEFAULT_WEIGHTS)
        return report(import_embeddings(weights, arguments.imported, warn), weights)
    return embed(arguments)


def embed(arguments: argparse.Namespace) -> int:
    """Embed phrases into a file or the cache. Returns the exit code."""
    phrases = read_phrases(arguments.phrases, arguments.file)
    templates = [check_template(arguments.template)] if arguments.template else []
    if arguments.templates:
        templates = read_templates(arguments.templates)
    weights = None
    if arguments.model and arguments.out and not arguments.weights:
        if arguments.templates:
            raise ValueError('text embeddings to train with have one template, which the weights will use later; '
                             'give --template instead of --templates')
        encoder, space = load_any_encoder(arguments.model, arguments.pretrained, warn)
    else:
        weights = load_weights(arguments.weights or DEFAULT_WEIGHTS)
        encoder, space = load_encoder_of_weights(weights, arguments.model, arguments.pretrained)
    embeddings = embed_phrases(encoder, space, phrases, templates)
    if weights is not None and not arguments.out:
        return report(add_to_cache(weights, embeddings, warn), weights)
    write_embeddings(arguments.out, embeddings)
    print(f'{len(phrases)} phrases of {space} in {arguments.out}; on the other machine: '
          f'lgseg embed --import {Path(arguments.out).name}')
    return 0


def report(added: CachedPhrases | None, weights: Weights) -> int:
    """Print what was added to the cache. Returns the exit code."""
    if added is None:
        return 1
    print(f'{len(added.phrases)} phrases in {added.path}')
    if added.in_weights:
        shown = ', '.join(added.in_weights[:3]) + (', ...' if len(added.in_weights) > 3 else '')
        print(f'{len(added.in_weights)} of them ({shown}) are also in {weights.path.stem}, whose text embeddings are '
              'used')
    return 0


def list_phrases(weights: Weights, as_json: bool) -> int:
    """Print the phrases that can be used here, and where each comes from. Returns 0."""
    known = known_phrases(weights)
    reason = known.encoder_unavailable
    if as_json:
        print(json.dumps({
            'weights': weights.path.stem, 'phrases': list(known.in_weights),
            'text_encoder': {**(known.space.as_dict() if known.space else {}),
                             'available': not reason, 'reason': reason},
            'cache': {'path': str(known.cache_path) if known.cache_path else None, 'phrases': known.cached}}))
        return 0
    print(f'{len(known.in_weights)} phrases of {weights.path.stem}: {", ".join(known.in_weights)}')
    if known.cache_path:
        print(f'{len(known.cached)} phrases in the cache {known.cache_path}: '
              f'{", ".join(sorted(known.cached)) or "none"}')
    print(f'other phrases: {f"refused, because {reason}" if reason else f"embedded here by {known.space}"}')
    return 0


def warn(message: str) -> None:
    """Print a warning."""
    print(f'lgseg embed: {message}', file=sys.stderr)

"""Teach this machine words: embed phrases with the CLIP text encoder that the weights were trained with.

Phrases go into this user's cache, which the node reads; a running node knows them at once. With --out they go
into a file instead, for a machine that has no CLIP. Every phrase may be written as in a vocabulary,
"vehicle=forklift|tugger": its phrases are embedded.

The text encoder needs open_clip (scripts/setup.sh --with train, or pip install open_clip_torch). Its weights
come from the caches of open_clip, from the file that LGSEG_CLIP_WEIGHTS or --pretrained names, or from the network.

Examples:
  lgseg embed forklift "euro pallet"
  lgseg embed --from words.txt --out words.npz        (on a machine with CLIP)
  lgseg embed --import words.npz                      (on the robot)
  lgseg embed --list
"""

import json
import sys
from dataclasses import replace
from pathlib import Path

from ..engines.weights import DEFAULT_WEIGHTS, load_weights
from ..vocabulary.classes import VocabularyError, parse_class
from ..vocabulary.embedding_file import Embeddings, read_embeddings, write_embeddings
from ..vocabulary.encoder import ENSEMBLE, load_encoder
from ..vocabulary.clip_checkpoint import (
    add_model_config,
    checkpoint_tag,
    find_checkpoint,
    quickgelu_variant,
    user_checkpoint,
)
from ..vocabulary.compatibility import check_bank, space_of_weights
from ..vocabulary.text_source import TextSource, load_matching_encoder
from ..vocabulary.text_space import TextSpace, check_template

MOST_PHRASES = 10_000   # what the cache holds


def add_arguments(parser):
    """The command line of `lgseg embed`."""
    parser.add_argument('phrases', nargs='*', metavar='PHRASE', help='"forklift", or "vehicle=forklift|tugger"')
    parser.add_argument('--from', dest='source', metavar='FILE', help='more phrases, one a line; # starts a comment')
    parser.add_argument('--out', metavar='BANK.npz', help='write this file and leave the cache alone')
    parser.add_argument('--import', dest='bank', metavar='BANK.npz', help="put a file's phrases into this user's cache")
    parser.add_argument('--list', action='store_true', help='what is known: the words of the weights and of the cache')
    parser.add_argument('--json', action='store_true', help='with --list: print JSON')
    parser.add_argument('--weights', metavar='W', help=f'shipped name or .safetensors whose text encoder is meant '
                                                       f'(default: {DEFAULT_WEIGHTS})')
    parser.add_argument('--model', metavar='M', help="open_clip's name, or a JSON file of its format (default: of the "
                                                     'weights). With --out, without --weights: a bank of any encoder')
    parser.add_argument('--pretrained', metavar='P',
                        help="open_clip's tag or a checkpoint file (default: of the weights)")
    wording = parser.add_mutually_exclusive_group()
    wording.add_argument('--template', metavar='T', help='the sentence, {} for the phrase (default: of the weights)')
    wording.add_argument('--templates', metavar='FILE', help=f'average over several sentences, one a line; "ensemble": '
                                                             f'{len(ENSEMBLE)} built-in ones')


def run(arguments):
    """Do what was asked for and say what came of it."""
    asked = [arguments.list, bool(arguments.bank), bool(arguments.phrases or arguments.source)]
    if sum(asked) != 1:
        raise ValueError('give phrases (or --from FILE), or --import BANK.npz, or --list; --help shows examples')
    if arguments.list:
        return list_words(arguments)
    if arguments.bank:
        return import_bank(arguments)
    return embed(arguments)


# --- phrases to vectors


def embed(arguments):
    """Embed the phrases into --out or the cache."""
    phrases = read_phrases(arguments.phrases, arguments.source)
    encoder, space, weights = open_encoder(arguments)
    templates = read_templates(arguments, space)
    vectors = encoder.embed(phrases, templates)
    label = templates[0] if len(templates) == 1 else f'{len(templates)} templates'
    if not arguments.out:
        return store(weights, phrases, vectors, [label] * len(phrases))
    if len(templates) == 1:
        space = replace(space, template=templates[0])   # what weights that are trained with the file will be known by
    write_embeddings(arguments.out, Embeddings(phrases, vectors, [label] * len(phrases), space))
    print(f'{len(phrases)} phrases of {space} in {arguments.out}; on the other machine: '
          f'lgseg embed --import {Path(arguments.out).name}')
    return 0


def open_encoder(arguments):
    """The encoder, its TextSpace, and the weights that it was tried with (None for a bank of any encoder)."""
    model, pretrained = arguments.model, arguments.pretrained
    if model and model.endswith('.json'):
        model = add_model_config(model)
    file = pretrained if pretrained and Path(pretrained).is_file() else None
    if model and arguments.out and not arguments.weights:
        return *open_any_encoder(arguments, model, file), None
    weights = load_weights(arguments.weights or DEFAULT_WEIGHTS)
    space = space_of_weights(weights)
    wanted = TextSpace(model or space.model, space.pretrained if file or not pretrained else pretrained)
    if not wanted.same_vectors(space):   # said before anything large is downloaded
        raise VocabularyError(f'the weights were trained with the text encoder {space}, and {wanted} makes other '
                              'vectors; leave out --model and --pretrained')
    found = find_checkpoint(space.model, space.pretrained, file or user_checkpoint(), download=True)
    return load_matching_encoder(weights, space, *found), space, weights


def open_any_encoder(arguments, model, file):
    """An encoder that no weights are compared with, for a bank to train with, and its TextSpace."""
    if not arguments.pretrained or arguments.templates:
        raise ValueError(f'a bank of {model} to train with needs --pretrained, a tag of open_clip or a checkpoint file, '
                         'and one --template at most, which the weights will then be known by')
    checkpoint, quick_gelu = find_checkpoint(model, arguments.pretrained, file, download=True)
    if file and (other := quickgelu_variant(model)):
        print(f'lgseg embed: {file} is taken for weights of {model}, with the usual GELU; if they were trained with the quick '
              f'one, as those of OpenAI, DFN and MetaCLIP were, give --model {other}', file=sys.stderr)
    return load_encoder(model, checkpoint, quick_gelu), TextSpace(model, checkpoint_tag(file) if file else arguments.pretrained)


def read_phrases(texts, source):
    """Phrases as banks store them, each once.  Raises VocabularyError, or OSError for a file that cannot be read."""
    lines = Path(source).read_text().splitlines() if source else []
    lines = [line.split('#')[0].strip() for line in lines]
    specs = map(parse_class, [*texts, *filter(None, lines)])
    phrases = list(dict.fromkeys(phrase for spec in specs for phrase in spec.phrases))
    if not 0 < len(phrases) <= MOST_PHRASES:
        raise VocabularyError(f'{len(phrases)} phrases; give 1 to {MOST_PHRASES}')
    return phrases


def read_templates(arguments, space):
    """The sentences asked for, or the weights' own."""
    if arguments.template:
        return [check_template(arguments.template)]
    if not arguments.templates:
        return [space.template]
    if arguments.templates == 'ensemble':
        return list(ENSEMBLE)
    lines = [line.strip() for line in Path(arguments.templates).read_text().splitlines()]
    templates = [check_template(line) for line in lines if line and not line.startswith('#')]
    if not templates:
        raise ValueError(f'{arguments.templates} holds no template')
    return templates


# --- into the cache


def import_bank(arguments):
    """Put a bank's phrases into the cache, if its vectors are of the weights' text space."""
    weights = load_weights(arguments.weights or DEFAULT_WEIGHTS)
    bank = read_embeddings(arguments.bank)
    check_bank(weights, bank, arguments.bank)
    return store(weights, bank.names, bank.vectors, bank.templates)


def store(weights, names, vectors, templates):
    """Add to the cache and tell what the weights know anyway."""
    cache = TextSource(weights, warn=lambda text: print(f'lgseg embed: {text}', file=sys.stderr)).cache
    if not cache.add(names, vectors, templates):
        return 1
    own = [name for name in names if name in weights.bank]
    print(f'{len(names)} phrases in {cache.path}')
    if own:
        print(f'{len(own)} of them ({", ".join(own[:3])}{", ..." if len(own) > 3 else ""}) are among the words of '
              f'{weights.path.stem}, whose own rows are used')
    return 0


def list_words(arguments):
    """Print where every known word comes from."""
    weights = load_weights(arguments.weights or DEFAULT_WEIGHTS)
    source = TextSource(weights)
    cached = source.cache.templates if source.cache else {}
    reason = source.encoder_unavailable()
    if arguments.json:
        print(json.dumps({
            'weights': weights.path.stem, 'words': sorted(weights.bank.names),
            'text_encoder': {**(source.space.as_dict() if source.space else {}),
                             'available': not reason, 'reason': reason},
            'cache': {'path': str(source.cache.path) if source.cache else None, 'words': cached}}))
        return 0
    print(f'{len(weights.bank)} words of {weights.path.stem}: {", ".join(sorted(weights.bank.names))}')
    if source.cache:
        print(f'{len(cached)} words in the cache {source.cache.path}: {", ".join(sorted(cached)) or "none"}')
    print(f'other phrases: {"refused, since " + reason if reason else f"embedded here by {source.space}"}')
    return 0

"""Which text encoder a vector comes from, and whether vectors fit the weights.

Two encoders of the same width give vectors that can be exchanged without any error, and a mask of nonsense.
So every bank and cache names its encoder, and numbers are compared before anything is believed.
"""

import re
from dataclasses import asdict, dataclass

import numpy as np

from .classes import VocabularyError

PROBES = 8             # names re-embedded to recognise a space
AGREEMENT = 0.99       # least median cosine of text rows; rows kept in fp16 agree with themselves at 0.99999
DEFAULT_TEMPLATE = 'a photo of a {}'


@dataclass(frozen=True)
class TextSpace:
    """A text encoder by open_clip's names.

    model: architecture, 'ViT-B-16'; pretrained: tag of its weights, 'openai';
    template: the sentence that the weights' own names were embedded in, {} for the name.
    """

    model: str
    pretrained: str
    template: str = DEFAULT_TEMPLATE

    def __str__(self):
        return f'{self.model}/{self.pretrained}'

    def as_dict(self):
        """What card['text_encoder'] and bank files hold."""
        return asdict(self)

    def same_vectors(self, other):
        """Whether both give vectors of one space, going by names; templates do not matter."""
        return self._key() == other._key()

    def _key(self):
        # open_clip lists some models a second time, with the activation that their weights need.
        return self.model.removesuffix('-quickgelu'), self.pretrained.lower()


def read_space(entry, template=None):
    """The TextSpace of {'model', 'pretrained', 'template'}, of 'ViT-B-16 (OpenAI)' or of 'ViT-B-16/openai'; else None.

    template: used where the entry has none; X stands for the name in older ones.
    """
    if isinstance(entry, dict):
        model, pretrained, template = (entry.get(key) for key in ('model', 'pretrained', 'template'))
    else:
        parts = re.fullmatch(r'\s*([^\s(/]+)\s*[(/]\s*([^)]+?)\s*\)?\s*', str(entry or ''))
        model, pretrained = parts.groups() if parts else ('', '')
        pretrained = pretrained.lower()
    if not (model and pretrained and isinstance(model, str) and isinstance(pretrained, str)):
        return None
    template = re.sub(r'\bX\b', '{}', template) if isinstance(template, str) and template else DEFAULT_TEMPLATE
    return TextSpace(model, pretrained, check_template(template))


def space_of_weights(weights):
    """The TextSpace that the weights' card names.  Raises VocabularyError when it names none."""
    space = read_space(weights.card.get('text_encoder'), weights.card.get('template'))
    if space is None:
        raise VocabularyError(f'the card of {weights.path.name} does not name its text encoder, so only its own '
                              f'{len(weights.bank)} words can be used')
    return space


def check_template(template):
    """`template` itself.  Raises VocabularyError unless it has exactly one {} for the name."""
    if template.count('{}') != 1:
        raise VocabularyError(f'template {template[:80]!r} needs {{}} once, where the name goes: "a photo of a {{}}"')
    return template


def probe_names(weights):
    """Names of the weights' bank, spread over all of it, whose rows tell one space from another."""
    names = weights.bank.names
    return [names[i] for i in np.unique(np.linspace(0, len(names) - 1, PROBES).astype(int))]


def check_bank(weights, bank, file):
    """Raises VocabularyError unless the `Embeddings` read from `file` are of the weights' text space."""
    space = read_space(weights.card.get('text_encoder'))
    named = space is not None and bank.space is not None
    if named and not bank.space.same_vectors(space):
        raise VocabularyError(f'{file} is of the text encoder {bank.space}, and the weights take {space}')
    check_vectors(weights, bank.names, bank.vectors, file, named)


def check_vectors(weights, names, embeddings, what, named=False):
    """Raises VocabularyError unless `embeddings` [N, text_dim] of `names` are of the weights' text space.

    Names that the weights do not know are passed over.  With fewer than three known ones nothing can be said, which
    is refused too unless the vectors are `named`: they name the right encoder.  what: whose they are, for the message.
    """
    width = weights.projection[0].shape[1]
    if embeddings.ndim != 2 or embeddings.shape[1] != width:
        raise VocabularyError(f'{what}: vectors of shape {embeddings.shape}, but {weights.path.name} takes {width} '
                              'numbers each: they come from another text encoder')
    known = [i for i, name in enumerate(names) if name in weights.bank]
    if len(known) < 3 and named:
        return
    if len(known) < 3:
        raise VocabularyError(f'{what}: neither its encoder nor three names that {weights.path.name} knows are in it, '
                              'so nothing tells which text encoder made it; make it again with "lgseg embed --out"')
    rows = weights.bank.rows([names[i] for i in known])
    # The median: single names of a bank may have been embedded from another spelling, a wrong space is wrong in all.
    cosine = float(np.median(np.sum(weights.project(embeddings[known]) * rows, axis=1)))
    if not cosine > AGREEMENT:
        raise VocabularyError(f'{what}: its text space does not match {weights.path.name} (median cosine {cosine:.3f} '
                              f'over {len(known)} known names, above {AGREEMENT} is needed): other model, other '
                              'weights or other template')

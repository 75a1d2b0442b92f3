"""Vocabulary augmentation: which words name the classes at a training step.

A class is named by a random one of its phrases and absent names from the bank
join as distractors, so that the model learns words rather than slots.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import yaml

from ..vocabulary.classes import MAX_PHRASES, VocabularyError, normalise

SYNONYMS = Path(__file__).parents[1] / 'vocabulary' / 'synonyms.yaml'


@dataclass(frozen=True)
class Wording:
    """The text rows of one step: the bank's vectors [K, D] and the ascending class index of each row, int64 [K].

    Vectors are unit text embeddings, or projected rows where the bank is that of trained weights.
    Indices from the number of classes on are distractors, one each.
    """

    vectors: np.ndarray
    row_class: np.ndarray


@cache
def load_synonyms():
    """synonyms.yaml: {class name: {'phrases': [...], 'related': [...]}}."""
    return yaml.safe_load(SYNONYMS.read_text())


def related_phrases(specs):
    """Every phrase whose pixels may belong to one of the classes: their own, other words for them, related things.

    What synonyms.yaml tells of a class counts for any class that shares a word with it (sidewalk, pavement).
    """
    related = set()
    for spec in specs:
        own = {normalise(spec.name), *map(normalise, spec.phrases)}
        related |= own
        for name, entry in load_synonyms().items():
            words = {normalise(word) for word in (name, *entry['phrases'])}
            if words & own:
                related |= words | {normalise(word) for word in entry['related']}
    return related


class WordSampler:
    """Draws a `Wording` for the classes of one data set."""

    def __init__(self, specs, bank, max_distractors=100, augment=True, hidden=()):
        """specs: ClassSpec per class; hidden: ClassSpecs of things that are in the pictures but not labelled, whose
        words are never distractors either.

        Raises VocabularyError for a phrase no bank has.
        """
        self.bank = bank
        self.specs = specs
        self.max_distractors = max_distractors
        self.augment = augment
        self.phrases = self._known_phrases()
        related = related_phrases((*specs, *hidden))
        self.absent = [name for name in bank.names if name not in related]
        self._plain = self.wording([spec.phrases for spec in specs])

    def _known_phrases(self):
        """For every class its own phrases, and those of its other words that the bank has and no class has yet.

        A word that two classes could be called by at once would teach that they are one (pedestrian, person).
        """
        taken = {normalise(phrase) for spec in self.specs for phrase in spec.phrases}
        lists = []
        for spec in self.specs:
            others = map(normalise, load_synonyms().get(normalise(spec.name), {}).get('phrases', ()))
            free = [word for word in others if word in self.bank and word not in taken]
            lists.append([*map(normalise, spec.phrases), *free])
            taken.update(lists[-1])
        return lists

    def wording(self, phrase_lists, distractors=()):
        """The rows of the given phrases per class, then of the distractors.  Raises VocabularyError with the cure."""
        row_class = [i for i, phrases in enumerate(phrase_lists) for _ in phrases]
        row_class += range(len(phrase_lists), len(phrase_lists) + len(distractors))
        phrases = [phrase for phrases in phrase_lists for phrase in phrases]
        try:
            return Wording(self.bank.rows([*phrases, *distractors]), np.array(row_class, np.int64))
        except VocabularyError as error:
            raise VocabularyError(f'{error}; use words of the text bank for the classes (dataset.yaml, --names), or make a '
                                  'bank that has these too: lgseg embed --from words.txt --out bank.npz') from error

    def plain(self):
        """The data set's own words, no distractors."""
        return self._plain

    def sample(self, rng):
        """Random words for this step; two times in five the data set's own ones."""
        if not self.augment:
            return self._plain
        if rng.random() < 0.4:
            lists = [spec.phrases for spec in self.specs]
        else:
            lists = [(phrases[rng.integers(len(phrases))],) for phrases in self.phrases]
        count = 0 if rng.random() < 0.25 else int(self.max_distractors ** rng.random())
        return self.wording(lists, self.draw_absent(rng, min(count, len(self.absent))))

    def draw_absent(self, rng, count):
        """`count` different names of the bank that belong to no class of the data set."""
        return [self.absent[i] for i in rng.choice(len(self.absent), size=count, replace=False)]


def evaluation_wording(sampler, renames=(), distractors=0, seed=0):
    """The rows for an evaluation: ClassSpecs in `renames` replace the phrases of the classes of those names, and
    `distractors` absent names join.

    Raises VocabularyError for a class that the data set has not, or more absent names than there are.
    """
    lists = {spec.name: spec.phrases for spec in sampler.specs}
    for spec in renames:
        if spec.name not in lists:
            raise VocabularyError(f'cannot rename {spec.name!r}: the data set has {", ".join(lists)}')
        lists[spec.name] = spec.phrases
    room = min(len(sampler.absent), MAX_PHRASES - sum(map(len, lists.values())))
    if not 0 <= distractors <= room:
        raise VocabularyError(f'{distractors} absent names were asked for; give 0 to {room} '
                              f'(the bank knows {len(sampler.absent)}, and there are at most {MAX_PHRASES} rows in all)')
    chosen = sampler.draw_absent(np.random.default_rng(seed), distractors)
    return sampler.wording(list(lists.values()), chosen)

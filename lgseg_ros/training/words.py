"""Vocabulary augmentation: which words name the classes at a training step.

A class is named by a random one of its phrases and absent names from the bank
join as distractors, so that the model learns words rather than slots.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml

from ..vocabulary.classes import VocabularyError, normalise

SYNONYMS = Path(__file__).parents[1] / 'vocabulary' / 'synonyms.yaml'


@dataclass(frozen=True)
class Wording:
    """The text rows of one step: unit embeddings [K, D] and the class index of each row [K].

    Indices from the number of classes on are distractors, one each.
    """

    embeddings: np.ndarray
    row_class: np.ndarray


class WordSampler:
    """Draws a `Wording` for the classes of one data set."""

    def __init__(self, specs, bank, max_distractors=100, augment=True):
        """specs: ClassSpec per class.  Raises VocabularyError for a phrase no bank has."""
        self.bank = bank
        self.specs = specs
        self.max_distractors = max_distractors
        self.augment = augment
        synonyms = yaml.safe_load(SYNONYMS.read_text())
        self.phrases = [self._known_phrases(spec, synonyms.get(spec.name, {})) for spec in specs]
        related = {normalise(word) for spec in specs for word in synonyms.get(spec.name, {}).get('related', ())}
        related.update(phrase for phrases in self.phrases for phrase in phrases)
        self.absent = [name for name in bank.names if name not in related]
        self._plain = self.wording([spec.phrases for spec in specs])

    def _known_phrases(self, spec, entry):
        words = dict.fromkeys(normalise(p) for p in (*spec.phrases, *entry.get('phrases', ())))
        known = [word for word in words if word in self.bank]
        if not known:
            self.bank.rows(spec.phrases)  # raises, naming the phrase and its neighbours
        return known

    def wording(self, phrase_lists, distractors=()):
        """The rows of the given phrases per class, then of the distractors."""
        row_class = [i for i, phrases in enumerate(phrase_lists) for _ in phrases]
        row_class += range(len(phrase_lists), len(phrase_lists) + len(distractors))
        phrases = [phrase for phrases in phrase_lists for phrase in phrases]
        return Wording(self.bank.rows([*phrases, *distractors]), np.array(row_class))

    def plain(self):
        """The data set's own words, no distractors."""
        return self._plain

    def sample(self, rng):
        """Random words for this step; half the time the data set's own ones."""
        if not self.augment:
            return self._plain
        if rng.random() < 0.4:
            lists = [spec.phrases for spec in self.specs]
        else:
            lists = [(phrases[rng.integers(len(phrases))],) for phrases in self.phrases]
        count = 0 if rng.random() < 0.25 else int(self.max_distractors ** rng.random())
        chosen = rng.choice(len(self.absent), size=min(count, len(self.absent)), replace=False)
        return self.wording(lists, [self.absent[i] for i in chosen])


def evaluation_wording(sampler, renames=None, distractors=0, seed=0):
    """The rows for an evaluation: `renames` {class: phrase}, and N absent names.

    Raises VocabularyError for a class that the data set has not.
    """
    lists = {spec.name: spec.phrases for spec in sampler.specs}
    for name, phrase in (renames or {}).items():
        if name not in lists:
            raise VocabularyError(f'cannot rename {name!r}: the data set has {", ".join(lists)}')
        lists[name] = tuple(phrase.split('|'))
    rng = np.random.default_rng(seed)
    chosen = rng.choice(len(sampler.absent), size=min(distractors, len(sampler.absent)), replace=False)
    return sampler.wording(list(lists.values()), [sampler.absent[i] for i in chosen])

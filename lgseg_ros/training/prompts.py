"""Prompt augmentation: the phrases that name the classes at a training step, and the prompts of an evaluation.

A class is named by a random one of its phrases, and phrases of nothing in the image join as negatives, so that the
network learns what phrases mean instead of learning one output per class.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..vocabulary.classes import MAX_PHRASES, ClassSpec, VocabularyError
from ..vocabulary.relations import load_relations, negative_phrases, prompt_alternatives
from ..vocabulary.text_embeddings import TextEmbeddings

MAX_NEGATIVE_COSINE = 0.6   # to a class's phrases, after centring; only for phrases without an entry in synonyms.yaml
OWN_PROMPTS, NO_NEGATIVES = 0.4, 0.2   # shares of the steps


@dataclass(frozen=True)
class PromptBatch:
    """The text embeddings of one step.

    Attributes:
        vectors: float32 [K, D], text embeddings of the encoder, or projected ones where weights gave them.
        class_indices: ascending class index of each, int64 [K]. Indices from the number of classes on are negatives.
    """

    vectors: npt.NDArray[np.float32]
    class_indices: npt.NDArray[np.int64]


class PromptSampler:
    """Draws a `PromptBatch` for the classes of one data set.

    Attributes:
        specs: the classes.
        alternatives: for every class the phrases that may stand alone for it.
        negatives: the phrases that no labelled pixel can be called by.
    """

    def __init__(
        self,
        specs: Sequence[ClassSpec],
        text_embeddings: TextEmbeddings,
        max_negatives: int = 100,
        augment: bool = True,
        hidden: Sequence[ClassSpec] = (),
        labelled: Collection[str] = (),
    ) -> None:
        """Look up what the relations of the classes allow.

        Args:
            specs: the classes of the data set.
            text_embeddings: text embeddings, unit vectors of the text encoder.
            max_negatives: largest number of negatives at a step.
            augment: False for the data set's own prompts at every step.
            hidden: classes that are in the images but not labelled; their phrases are never negatives either.
            labelled: phrases of the classes of all data sets of the run. Most negatives are drawn from these: a phrase
                that is never a label would only be taught to lose.

        Raises:
            VocabularyError: a phrase of a class has no text embedding.
        """
        self.specs, self.text_embeddings, self.max_negatives, self.augment = (
            tuple(specs),
            text_embeddings,
            max_negatives,
            augment,
        )
        self.own = make_prompts(text_embeddings, [spec.phrases for spec in specs])
        self.alternatives = prompt_alternatives(specs, text_embeddings.names)
        self.negatives = _without_near(
            negative_phrases((*specs, *hidden), text_embeddings.names), specs, text_embeddings
        )
        self._labelled = [phrase for phrase in self.negatives if phrase in labelled]
        self._unlabelled = [phrase for phrase in self.negatives if phrase not in labelled]

    def sample(self, rng: np.random.Generator) -> PromptBatch:
        """Draw the prompts of a step; two times in five the data set's own ones."""
        if not self.augment:
            return self.own
        if rng.random() < OWN_PROMPTS:
            lists: list[Sequence[str]] = [spec.phrases for spec in self.specs]
        else:
            lists = [(phrases[rng.integers(len(phrases))],) if phrases else spec.phrases
                     for spec, phrases in zip(self.specs, self.alternatives, strict=True)]
        if rng.random() < NO_NEGATIVES or not self.negatives:
            return make_prompts(self.text_embeddings, lists)
        return make_prompts(self.text_embeddings, lists, self._draw_negatives(rng))

    def _draw_negatives(self, rng: np.random.Generator) -> list[str]:
        """Phrases that are labels elsewhere, and a few that never are."""
        count = int(self.max_negatives ** rng.random())   # few are as frequent as many
        drawn: list[str] = []
        if self._labelled:
            drawn += rng.choice(self._labelled, min(count, len(self._labelled)), replace=False).tolist()
        rest = min(len(self._unlabelled), int(rng.integers(0, 4)) + (count - len(drawn)) // 4)
        return drawn + rng.choice(self._unlabelled, rest, replace=False).tolist()


def _without_near(phrases: list[str], specs: Sequence[ClassSpec], text_embeddings: TextEmbeddings) -> list[str]:
    """The phrases less those that nothing is known of and whose text embedding is near one of a class."""
    known = load_relations().phrases
    unknown = [phrase for phrase in phrases if phrase not in known]
    if not unknown:
        return phrases
    # the embeddings lie in a narrow cone; their distances show once they are centred
    mean = text_embeddings.vectors.mean(axis=0)
    candidates, own = (
        vectors - mean
        for vectors in (
            text_embeddings.lookup(unknown),
            text_embeddings.lookup([phrase for spec in specs for phrase in spec.phrases]),
        )
    )
    lengths = (np.linalg.norm(vectors, axis=1).clip(1e-9) for vectors in (candidates, own))
    cosine = candidates @ own.T / np.outer(*lengths)
    near = {phrase for phrase, best in zip(unknown, cosine.max(axis=1), strict=True) if best >= MAX_NEGATIVE_COSINE}
    return [phrase for phrase in phrases if phrase not in near]


def make_prompts(
    text_embeddings: TextEmbeddings, prompts: Sequence[Sequence[str]], negatives: Sequence[str] = ()
) -> PromptBatch:
    """Look up the text embeddings of the given phrases per class, then of the negatives.

    Raises:
        VocabularyError: a phrase has no text embedding.
    """
    class_indices = [i for i, phrases in enumerate(prompts) for _ in phrases]
    class_indices += range(len(prompts), len(prompts) + len(negatives))
    phrases = [phrase for part in prompts for phrase in part]
    try:
        return PromptBatch(text_embeddings.lookup([*phrases, *negatives]), np.array(class_indices, np.int64))
    except VocabularyError as error:
        raise VocabularyError(f'{error}; name the classes (dataset.yaml, `prompts`) by phrases that have text '
                              'embeddings, or embed these too: lgseg embed --from phrases.txt --out FILE.npz'
                              ) from error


def evaluation_prompts(specs: Sequence[ClassSpec], text_embeddings: TextEmbeddings, renamed: Sequence[ClassSpec] = (),
                       num_negatives: int = 0, seed: int = 0) -> PromptBatch:
    """Make the prompts of an evaluation.

    Args:
        specs: the classes of the data set.
        text_embeddings: text embeddings, or projected ones of weights.
        renamed: their phrases replace those of the classes of the same names.
        num_negatives: so many negatives join, drawn with `seed`.
        seed: any integer from 0 on.

    Raises:
        VocabularyError: the data set has no class of that name, a phrase has no text embedding, or there are fewer
            negatives.
    """
    prompts = {spec.name: spec.phrases for spec in specs}
    for spec in renamed:
        if spec.name not in prompts:
            raise VocabularyError(f'cannot rename {spec.name!r}: the data set has {", ".join(prompts)}')
        prompts[spec.name] = spec.phrases
    used = {phrase for phrases in prompts.values() for phrase in phrases}
    negatives = [phrase for phrase in negative_phrases(specs, text_embeddings.names) if phrase not in used]
    room = min(len(negatives), MAX_PHRASES - sum(map(len, prompts.values())))
    if not 0 <= num_negatives <= room:
        raise VocabularyError(f'num_negatives is {num_negatives}; give 0 to {room} ({len(negatives)} phrases are '
                              f'unrelated to the classes, and a vocabulary has at most {MAX_PHRASES} phrases)')
    drawn = np.random.default_rng(seed).choice(len(negatives), size=num_negatives, replace=False)
    return make_prompts(text_embeddings, list(prompts.values()), [negatives[i] for i in drawn])

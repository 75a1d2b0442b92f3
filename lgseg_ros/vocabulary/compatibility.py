"""Whether text embeddings belong to the text encoder that segmentation weights were trained with."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from .classes import VocabularyError
from .embedding_file import Embeddings
from .text_embeddings import TextEmbeddings
from .text_space import TextSpace, read_space

NUM_PROBES = 8
"""Names that are embedded again to recognise an encoder."""

MIN_COSINE = 0.99
"""Least median cosine similarity of text embeddings of one encoder. Those kept in fp16 have 0.99999 with themselves."""


class TextWeights(Protocol):
    """What this room uses of `model.weights.Weights`."""

    @property
    def path(self) -> Path:
        """The weights file."""

    @property
    def card(self) -> dict[str, Any]:
        """The model card."""

    @property
    def text_embeddings(self) -> TextEmbeddings:
        """Projected text embeddings [N, embed_dim] of the names that the weights know."""

    @property
    def projection(self) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Matrix [embed_dim, text_dim] and bias [embed_dim] from the encoder's vectors to text embeddings."""

    def project(self, embeddings: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """Return text embeddings float32 [K, embed_dim], unit length, of the encoder's vectors [K, text_dim]."""


def space_of_weights(weights: TextWeights) -> TextSpace:
    """Return the text encoder that the weights' card names.

    Raises:
        VocabularyError: it names none.
    """
    space = read_space(weights.card.get('text_encoder'), weights.card.get('template'))
    if space is None:
        raise VocabularyError(f'the card of {weights.path.name} does not name its text encoder, so only the '
                              f'{len(weights.text_embeddings)} phrases that it was exported with can be used')
    return space


def probe_names(weights: TextWeights) -> list[str]:
    """Return names that the weights know, evenly spaced over all of them, for `check_vectors`."""
    names = weights.text_embeddings.names
    return [names[i] for i in np.unique(np.linspace(0, len(names) - 1, NUM_PROBES).astype(int))]


def check_text_embeddings(weights: TextWeights, text_embeddings: Embeddings, file: str | Path) -> None:
    """Check the content of an embedding file against weights.

    Args:
        weights: the segmentation weights.
        text_embeddings: what `read_embeddings` has read.
        file: its path, for the message.

    Raises:
        VocabularyError: it is of another text encoder.
    """
    space = read_space(weights.card.get('text_encoder'))
    named = space is not None and text_embeddings.space is not None
    if space is not None and text_embeddings.space is not None and not text_embeddings.space.same_vectors(space):
        raise VocabularyError(f'{file} is of the text encoder {text_embeddings.space}, and the weights need {space}')
    check_vectors(weights, text_embeddings.names, text_embeddings.vectors, str(file), named)


def check_vectors(weights: TextWeights, names: Sequence[str], embeddings: npt.NDArray[np.float32], source: str,
                  named: bool = False) -> None:
    """Compare vectors of a text encoder with the embeddings that the weights hold.

    Names that the weights do not know are skipped. Fewer than three known names prove nothing.

    Args:
        weights: the segmentation weights.
        names: N phrases.
        embeddings: their vectors, float32 [N, text_dim].
        source: where they come from, for the message.
        named: whether the source names the right encoder. If so, fewer than three known names are accepted.

    Raises:
        VocabularyError: the vectors are of another text encoder, or nothing tells of which.
    """
    width = weights.projection[0].shape[1]
    if embeddings.ndim != 2 or embeddings.shape[1] != width:
        raise VocabularyError(f'{source}: vectors of shape {embeddings.shape}, but {weights.path.name} takes {width} '
                              'numbers each: they come from another text encoder')
    known = [i for i, name in enumerate(names) if name in weights.text_embeddings]
    if len(known) < 3 and named:
        return
    if len(known) < 3:
        raise VocabularyError(f'{source}: it holds neither the name of its text encoder nor three phrases that '
                              f'{weights.path.name} knows, so its text encoder is unknown; create it again with '
                              '"lgseg embed --out"')
    expected = weights.text_embeddings.lookup([names[i] for i in known])
    # The median: single names may have been embedded in another spelling, a wrong encoder is wrong in all of them.
    cosine = float(np.median(np.sum(weights.project(embeddings[known]) * expected, axis=1)))
    if not cosine > MIN_COSINE:
        raise VocabularyError(f'{source}: its text encoder does not match {weights.path.name} (median cosine '
                              f'{cosine:.3f} over {len(known)} known phrases, above {MIN_COSINE} is needed): other '
                              'model, other weights or other template')

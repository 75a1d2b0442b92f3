"""The CLIP text encoder of open_clip: phrases to unit embeddings. torch is imported when the first phrase needs it."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .classes import VocabularyError, shorten
from .clip_checkpoint import EncoderUnavailable, brief, import_open_clip
from .text_space import check_template

ENSEMBLE = (
    'a photo of a {}', 'a photo of the {}', 'a photo of one {}', 'a photo of a small {}', 'a photo of a large {}',
    'a blurry photo of a {}', 'a photo of a {} in the street', 'there is a {} in the scene',
)
"""Templates for objects in a street or a hall. Their average depends less on a single template."""

BATCH_SIZE = 64


class TextEncoder:
    """A loaded text tower of CLIP."""

    def __init__(self, model: Any, tokenizer: Callable[[list[str]], Any]) -> None:
        """Take a model of open_clip and drop its image tower, which is most of its memory.

        Args:
            model: `open_clip.CLIP` or a model with the same `encode_text`.
            tokenizer: texts to token ids, int64 [N, context length].
        """
        if hasattr(model, 'visual'):
            del model.visual
        self._model = model.eval()
        self._tokenizer = tokenizer

    def embed(self, phrases: Sequence[str], templates: Sequence[str]) -> npt.NDArray[np.float32]:
        """Embed phrases.

        Args:
            phrases: N phrases.
            templates: sentences with one {}; the vectors of all of them are averaged.

        Returns:
            float32 [N, D], unit length.

        Raises:
            VocabularyError: a phrase is too long for the encoder, or a template has no {}.
        """
        per_template = [self._unit_vectors([template.replace('{}', phrase) for phrase in phrases], phrases)
                        for template in map(check_template, templates)]
        total = np.sum(per_template, axis=0, dtype=np.float32)
        unit: npt.NDArray[np.float32] = total / np.linalg.norm(total, axis=1, keepdims=True)
        return unit

    def _unit_vectors(self, sentences: list[str], phrases: Sequence[str]) -> npt.NDArray[np.float32]:
        import torch
        vectors = []
        for start in range(0, len(sentences), BATCH_SIZE):
            tokens = self._tokenizer(sentences[start:start + BATCH_SIZE])
            # A full context was truncated, and a truncated phrase is another phrase. (0 pads CLIP's own tokenizer.)
            full = torch.nonzero(tokens[:, -1]).flatten().tolist() if self._pads_with_zero() else []
            if full:
                raise VocabularyError(f'{shorten(phrases[start + full[0]])} is too long for the text encoder '
                                      f'({tokens.shape[1]} tokens); shorten it')
            with torch.inference_mode():
                vectors.append(self._model.encode_text(tokens, normalize=True).float().numpy())
        return np.concatenate(vectors)

    def _pads_with_zero(self) -> bool:
        return type(self._tokenizer).__name__ == 'SimpleTokenizer'


def load_encoder(model: str, checkpoint: str | Path, quick_gelu: bool = False) -> TextEncoder:
    """Load a text tower.

    Args:
        model: open_clip's name of the architecture.
        checkpoint: the file with its weights.
        quick_gelu: whether the weights were trained with that activation; `find_checkpoint` knows.

    Raises:
        EncoderUnavailable: it cannot be loaded; the message names the file.
    """
    open_clip = import_open_clip()
    try:
        network = open_clip.create_model(model, pretrained=str(checkpoint), force_quick_gelu=quick_gelu,
                                         weights_only=True)
        return TextEncoder(network, open_clip.get_tokenizer(model))
    except Exception as error:   # torch, safetensors, zipfile, transformers: each raises its own kinds
        raise EncoderUnavailable(f'{checkpoint} cannot be loaded as {model} ({brief(error)})') from error

"""Trained weights on disk: NAME.safetensors, NAME.json (model card), NAME.onnx and NAME.selftest.safetensors.

The .safetensors file holds the network in fp16, the projected text embeddings of the phrases that it was trained with,
and the text projection. So NumPy alone can look known phrases up and project CLIP's text embeddings.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from ..utils.paths import find_share
from ..vocabulary.classes import ClassSpec, parse_class
from ..vocabulary.text_embeddings import TextEmbeddings

T = TypeVar('T')
DEFAULT_WEIGHTS = 'lgseg_lite0'
# Keys in the .safetensors files that are shipped, so they stay.
TEXT_EMBEDDINGS_TENSOR = 'text.rows'
"""Projected text embeddings, fp16 [N, embed_dim]."""
PHRASES_METADATA = 'bank_names'
"""The phrase of each text embedding, a JSON list of N strings."""


class WeightsError(ValueError):
    """Weights cannot be used; the message names file, reason and fix."""


@dataclass(frozen=True)
class Weights:
    """Trained weights without the network itself.

    Attributes:
        path: of the .safetensors file.
        card: the model card.
        text_embeddings: projected text embeddings [N, embed_dim] by phrase.
        sha256: hexadecimal digest of the .safetensors file; the files made from it carry it.
        projection: matrix float32 [embed_dim, text_dim] and bias float32 [embed_dim] of the text projection.
    """

    path: Path
    card: dict[str, Any]
    text_embeddings: TextEmbeddings
    sha256: str
    projection: tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]

    @property
    def onnx_path(self) -> Path:
        """Path of the fp32 ONNX file."""
        return self.path.with_suffix('.onnx')

    @property
    def classes(self) -> list[str]:
        """The classes of the training as "name" or "name=phrase|phrase"; empty if the card does not have them.

        A class of several data sets has all of their phrases.
        """
        specs = [parse_class(text) for data in self.card.get('data', ()) for text in data['classes']]
        phrases: dict[str, dict[str, None]] = {}
        for spec in specs:
            phrases.setdefault(spec.name, {}).update(dict.fromkeys(spec.phrases))
        own = {spec.name for spec in specs if spec.own_phrases}
        return [str(ClassSpec(name, tuple(texts), name in own)) for name, texts in phrases.items()]

    def project(self, embeddings: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """Project text embeddings into the space of the network.

        Args:
            embeddings: of the card's text encoder, [K, text_dim], unit length.

        Returns:
            float32 [K, embed_dim], unit length.
        """
        matrix, bias = self.projection
        projected = np.asarray(embeddings, np.float32) @ matrix.T + bias
        return np.asarray(projected / np.linalg.norm(projected, axis=1, keepdims=True), np.float32)


def resolve_weights(spec: str | Path) -> Path:
    """Find the .safetensors file of weights.

    Args:
        spec: name of shipped weights, or path of a .safetensors file.

    Raises:
        WeightsError: there is no such file.
    """
    path = Path(spec).expanduser()
    if path.suffix == '.safetensors':
        if not path.is_file():
            raise WeightsError(f'weights file {path} does not exist; give a .safetensors file or a shipped name')
        return path
    found = find_share('weights', f'{spec}.safetensors') if path.name == spec else None
    if found is None:
        shipped = shipped_weights()
        raise WeightsError(f'weights {str(spec)!r} are neither a .safetensors file nor shipped '
                           f'(shipped: {", ".join(shipped) or "none"})')
    return found


def shipped_weights() -> list[str]:
    """Return the names of the weights that the package ships, sorted."""
    folder = find_share('weights')
    paths = folder.glob('*.safetensors') if folder else ()
    return sorted(path.stem for path in paths if not path.stem.endswith('.selftest'))


def file_sha256(path: str | Path) -> str:
    """Return the hexadecimal SHA-256 of a file."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def load_weights(spec: str | Path = DEFAULT_WEIGHTS) -> Weights:
    """Read trained weights; PyTorch is not needed.

    Args:
        spec: name of shipped weights, or path of a .safetensors file with its .json.

    Raises:
        WeightsError: a file is missing or damaged; the message names it.
    """
    from safetensors import SafetensorError, safe_open
    path = resolve_weights(spec)
    try:
        with safe_open(path, framework='numpy') as file:
            metadata = file.metadata() or {}
            vectors, matrix, bias = (file.get_tensor(name).astype(np.float32)
                                     for name in (TEXT_EMBEDDINGS_TENSOR, 'project.weight', 'project.bias'))
        phrases: Sequence[str] = _checked_type(list, json.loads(metadata[PHRASES_METADATA]))
        text_embeddings = TextEmbeddings(phrases, vectors)
        card = _checked_type(dict, json.loads(path.with_suffix('.json').read_text()))
    except FileNotFoundError as error:
        raise WeightsError(f'{error.filename} is missing beside {path}; copy the whole set of files') from error
    except (SafetensorError, KeyError, ValueError, TypeError, AttributeError, OSError) as error:
        raise WeightsError(f'weights file {path} is damaged or not of lgseg ({error}); copy it again') from error
    return Weights(path, card, text_embeddings, file_sha256(path), (matrix, bias))


def _checked_type(kind: type[T], value: object) -> T:
    if not isinstance(value, kind):
        raise ValueError(f'a JSON {kind.__name__} was expected, not {str(value)[:40]}')
    return value


def check_onnx(weights: Weights) -> Path:
    """Return the path of the fp32 ONNX file of weights.

    Raises:
        WeightsError: it is missing; the message has the command that makes it.
    """
    if not weights.onnx_path.is_file():
        raise WeightsError(f'{weights.onnx_path} is missing; make it with: lgseg export --weights {weights.path}')
    return weights.onnx_path

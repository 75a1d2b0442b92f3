"""Trained weights on disk: NAME.safetensors, NAME.json (model card), NAME.onnx and NAME.selftest.safetensors
side by side.

The safetensors file holds the network in fp16, the projected text rows of the bank it
was trained with (`text.rows`, their names in the metadata) and the text projection, so
that a machine with numpy alone can turn known words, or a CLIP vector, into text rows.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..utils.paths import find_share
from ..vocabulary.text_embeddings import TextEmbeddings
from ..vocabulary.classes import ClassSpec, parse_class

DEFAULT_WEIGHTS = 'lgseg_lite0'
# Keys in the .safetensors files that are shipped, so those of older versions stay.
TEXT_EMBEDDINGS_TENSOR = 'text.rows'
"""Projected text embeddings, fp16 [N, embed_dim]."""
PHRASES_METADATA = 'bank_names'
"""The phrase of each text embedding, a JSON list of N strings."""


class WeightsError(ValueError):
    """Weights that cannot be used; the message names the file, the reason and the cure."""


@dataclass(frozen=True)
class Weights:
    """What a run-time needs to know of trained weights."""

    path: Path
    card: dict
    text_embeddings: TextEmbeddings          # projected rows [N, embed_dim] by phrase
    sha256: str
    projection: tuple       # (matrix [embed_dim, text_dim], bias [embed_dim])

    @property
    def onnx_path(self):
        return self.path.with_suffix('.onnx')

    @property
    def classes(self):
        """The classes of the training as "name" or "name=phrase|phrase", from the card; empty where it tells none.

        A class of several data sets has all of their phrases.
        """
        specs, phrases = [parse_class(text) for data in self.card.get('data', ()) for text in data['classes']], {}
        for spec in specs:
            phrases.setdefault(spec.name, {}).update(dict.fromkeys(spec.phrases))
        given = {spec.name for spec in specs if spec.own_phrases}
        return [str(ClassSpec(name, tuple(words), name in given)) for name, words in phrases.items()]

    def project(self, embeddings):
        """Unit text embeddings [K, text_dim] of the card's text encoder -> text rows [K, embed_dim]."""
        matrix, bias = self.projection
        rows = np.asarray(embeddings, np.float32) @ matrix.T + bias
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def resolve_weights(spec):
    """Path of the .safetensors file for a shipped name or a path.  Raises WeightsError."""
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


def shipped_weights():
    """Names of the weights that the package ships."""
    folder = find_share('weights')
    paths = folder.glob('*.safetensors') if folder else ()
    return sorted(path.stem for path in paths if not path.stem.endswith('.selftest'))


def file_sha256(path):
    """Hex digest of a file."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def load_weights(spec=DEFAULT_WEIGHTS):
    """Read weights without torch.  Raises WeightsError naming the file when missing or damaged."""
    from safetensors import SafetensorError, safe_open
    path = resolve_weights(spec)
    try:
        with safe_open(path, framework='numpy') as file:
            metadata = file.metadata() or {}
            rows, matrix, bias = (file.get_tensor(name).astype(np.float32)
                                  for name in (TEXT_EMBEDDINGS_TENSOR, 'project.weight', 'project.bias'))
        text_embeddings = TextEmbeddings(_of_kind(list, json.loads(metadata[PHRASES_METADATA])), rows)
        card = _of_kind(dict, json.loads(path.with_suffix('.json').read_text()))
    except FileNotFoundError as error:
        raise WeightsError(f'{error.filename} is missing beside {path}; copy the whole set of files') from error
    except (SafetensorError, KeyError, ValueError, TypeError, AttributeError, OSError) as error:
        raise WeightsError(f'weights file {path} is damaged or not of lgseg ({error}); copy it again') from error
    return Weights(path, card, text_embeddings, file_sha256(path), (matrix, bias))


def _of_kind(kind, value):
    if not isinstance(value, kind):
        raise ValueError(f'a JSON {kind.__name__} was expected, not {str(value)[:40]}')
    return value


def check_onnx(weights):
    """Path of the ONNX file that belongs to `weights`.

    Raises WeightsError when it is missing, with the command that makes it.
    """
    if not weights.onnx_path.is_file():
        raise WeightsError(f'{weights.onnx_path} is missing; make it with: lgseg export --weights {weights.path}')
    return weights.onnx_path

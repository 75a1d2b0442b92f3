"""Identity of a text encoder.

Two encoders of the same width give vectors that can be exchanged without any error, and the mask is then wrong
everywhere. So every file and cache of embeddings names its encoder. `compatibility` compares the numbers too.
"""

import re
from dataclasses import asdict, dataclass

from .classes import VocabularyError

DEFAULT_TEMPLATE = 'a photo of a {}'


@dataclass(frozen=True)
class TextSpace:
    """A text encoder by open_clip's names.

    Attributes:
        model: the architecture, e.g. 'ViT-B-16'.
        pretrained: the tag of its weights, e.g. 'openai'.
        template: the sentence that the names of the segmentation weights were embedded in, with {} for the name.
    """

    model: str
    pretrained: str
    template: str = DEFAULT_TEMPLATE

    def __str__(self) -> str:
        """Return model and tag, without the template."""
        return f'{self.model}/{self.pretrained}'

    def as_dict(self) -> dict[str, str]:
        """Return the fields as `card['text_encoder']` and embedding files hold them."""
        return asdict(self)

    def same_vectors(self, other: 'TextSpace') -> bool:
        """Return whether both names mean the same encoder. Templates do not matter."""
        return self._key() == other._key()

    def _key(self) -> tuple[str, str]:
        # open_clip lists some models a second time, with the activation that their weights need.
        return self.model.removesuffix('-quickgelu'), self.pretrained.lower()


def read_space(entry: object, template: object = None) -> TextSpace | None:
    """Read a text encoder from a model card or an embedding file.

    Args:
        entry: {'model', 'pretrained', 'template'}, 'ViT-B-16 (OpenAI)' or 'ViT-B-16/openai'; anything else gives None.
        template: the template of a textual `entry`. Older cards have X in place of {}.

    Returns:
        The text encoder, or None where `entry` names none.

    Raises:
        VocabularyError: the template has no {} or more than one.
    """
    model: object
    pretrained: object
    if isinstance(entry, dict):
        model, pretrained, template = (entry.get(key) for key in ('model', 'pretrained', 'template'))
    else:
        parts = re.fullmatch(r'\s*([^\s(/]+)\s*[(/]\s*([^)]+?)\s*\)?\s*', str(entry or ''))
        model, pretrained = (parts[1], parts[2].lower()) if parts else ('', '')
    if not (model and pretrained and isinstance(model, str) and isinstance(pretrained, str)):
        return None
    template = re.sub(r'\bX\b', '{}', template) if isinstance(template, str) and template else DEFAULT_TEMPLATE
    return TextSpace(model, pretrained, check_template(template))


def check_template(template: str) -> str:
    """Return `template` itself.

    Raises:
        VocabularyError: it does not have exactly one {} for the name.
    """
    if template.count('{}') != 1:
        raise VocabularyError(f'template {template[:80]!r} needs {{}} once, where the name goes: "a photo of a {{}}"')
    return template

"""Named vocabularies with ids that a data set or a consumer defines (presets.yaml)."""

import difflib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml

from .classes import MAX_NAME_LENGTH, ClassSpec, VocabularyError, parse_class, shorten

DEFAULT_PRESET = 'camvid'
"""The preset where neither classes nor a preset are given."""


@dataclass(frozen=True)
class Preset:
    """A named vocabulary.

    Attributes:
        name: such as 'nav2'.
        description: one line.
        fixed_ids: whether a consumer reads the numbers, so that no other name may have one of them.
        classes: {id: class}, ids 0 to 254.
        reserved: {id: name} of further ids that the consumer reads and that are no classes of the preset.
    """

    name: str
    description: str
    fixed_ids: bool
    classes: dict[int, ClassSpec]
    reserved: dict[int, str]

    @property
    def ids(self) -> dict[str, int]:
        """{name: id} of its classes."""
        return {spec.name: i for i, spec in self.classes.items()}

    @property
    def fixed(self) -> dict[str, int]:
        """{name: id} that must hold while a consumer reads the numbers; empty without `fixed_ids`."""
        return {**self.ids, **{name: i for i, name in self.reserved.items()}} if self.fixed_ids else {}


@cache
def load_presets() -> dict[str, Preset]:
    """Return all presets by name."""
    text = yaml.safe_load((Path(__file__).parent / 'presets.yaml').read_text())
    return {name: Preset(name, entry['description'], entry['fixed_ids'],
                         {int(i): parse_class(c) for i, c in entry['classes'].items()}, entry.get('reserved', {}))
            for name, entry in text.items()}


def get_preset(name: str) -> Preset:
    """Return the preset of that name.

    Raises:
        VocabularyError: there is none; the message lists those that exist.
    """
    presets = load_presets()
    if name not in presets:
        near = difflib.get_close_matches(name[:MAX_NAME_LENGTH], presets, 1)
        hint = f'did you mean {near[0]!r}? ' if near else ''
        raise VocabularyError(f'preset {shorten(name)} is unknown; {hint}known: {", ".join(presets)}')
    return presets[name]

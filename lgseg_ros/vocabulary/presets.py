"""Named vocabularies with ids fixed by a data set or a consumer (presets.yaml)."""

import difflib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml

from .classes import MAX_NAME_LENGTH, VocabularyError, parse_class, shorten


@dataclass(frozen=True)
class Preset:
    """A vocabulary by name: `classes` maps id (0..254) to ClassSpec, `reserved` further ids to names.

    fixed_ids: a consumer reads the numbers of both, so none of them may belong to another name.
    """

    name: str
    description: str
    fixed_ids: bool
    classes: dict
    reserved: dict

    @property
    def ids(self):
        """{name: id} of its classes."""
        return {spec.name: i for i, spec in self.classes.items()}

    @property
    def fixed(self):
        """{name: id} that must hold while a consumer reads the numbers; empty where they are only wishes."""
        return {**self.ids, **{name: i for i, name in self.reserved.items()}} if self.fixed_ids else {}


@cache
def load_presets():
    """All presets by name."""
    text = yaml.safe_load((Path(__file__).parent / 'presets.yaml').read_text())
    return {name: Preset(name, entry['description'], entry['fixed_ids'],
                         {int(i): parse_class(c) for i, c in entry['classes'].items()}, entry.get('reserved', {}))
            for name, entry in text.items()}


def get_preset(name):
    """The preset of that name.  Raises VocabularyError that lists the known ones."""
    presets = load_presets()
    if name not in presets:
        near = difflib.get_close_matches(name[:MAX_NAME_LENGTH], presets, 1)
        hint = f'did you mean {near[0]!r}? ' if near else ''
        raise VocabularyError(f'preset {shorten(name)} is unknown; {hint}known: {", ".join(presets)}')
    return presets[name]

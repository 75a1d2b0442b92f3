"""The classes of a vocabulary as text: `name` or `name=phrase|phrase|...`.

The same text works in a parameter, in the service, on the command line, in YAML and in Python. Without phrases the
name is its own phrase. Each phrase has one text embedding; all phrases of a class share its id, and the phrase with
the highest score decides.
"""

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field

MAX_NAME_LENGTH = 100
"""Characters of a name or phrase. A longer one is a mistake or an attack."""

MAX_PHRASES = 255
"""Phrases of a whole vocabulary: ids are uint8 and 255 means unlabelled."""

MAX_TEXT_LENGTH = MAX_PHRASES * (MAX_NAME_LENGTH + 1)
"""Characters of one class with all its phrases."""


class VocabularyError(ValueError):
    """A vocabulary that cannot be used. The message names the value, the reason and the fix."""


@dataclass(frozen=True)
class ClassSpec:
    """A class of a vocabulary.

    Attributes:
        name: the name that is published.
        phrases: what the text encoder is given, normalised; at least one.
        own_phrases: whether the phrases were given. If not, a preset may supply better ones. Not compared.
    """

    name: str
    phrases: tuple[str, ...]
    own_phrases: bool = field(compare=False)

    def __str__(self) -> str:
        """Return the class as `parse_class` reads it."""
        if self.phrases == (self.name,) and not self.own_phrases:
            return self.name
        return f'{self.name}={"|".join(self.phrases)}'


def shorten(text: str, limit: int = 40) -> str:
    """Return `text` in quotes, cut to `limit` characters, for error messages."""
    return repr(text if len(text) <= limit else text[:limit] + '...')


def normalise(phrase: str) -> str:
    """Return a phrase in the form of the embedding files: NFC, lower case, single spaces, no underscores."""
    return ' '.join(compose(phrase).lower().replace('_', ' ').split())


def compose(text: str) -> str:
    """Return `text` in Unicode NFC: a letter and its accent become one character, so that equal looks are equal."""
    return unicodedata.normalize('NFC', text)


def parse_class(text: str) -> ClassSpec:
    """Parse one class.

    Args:
        text: `name` or `name=phrase|phrase|...`.

    Returns:
        The class, with normalised phrases, each once.

    Raises:
        VocabularyError: `text` is not a string, too long, or has an empty or unprintable name or phrase.
    """
    if not isinstance(text, str):
        raise VocabularyError(f'class {text!r} is not text; write it as "name" or "name=phrase|phrase"')
    if len(text) > MAX_TEXT_LENGTH:   # before splitting: millions of phrases would block the node for seconds
        raise VocabularyError(
            f'class {shorten(text)} has {len(text)} characters; the limit is {MAX_TEXT_LENGTH}: shorten it')
    name, equals, right = text.partition('=')
    if '|' in name:
        raise VocabularyError(f'class {shorten(text)} has no name before its phrases; write it as "name=phrase|phrase"')
    name = compose(name.strip())
    phrases = [normalise(part) for part in right.split('|')] if equals else [normalise(name)]
    if not name or not all(phrases):
        raise VocabularyError(
            f'class {shorten(text)} has an empty name or phrase; write it as "name" or "name=phrase|phrase"')
    for part in (name, *phrases):
        _check_text(part)
    return ClassSpec(name, tuple(dict.fromkeys(phrases)), bool(equals))


def _check_text(part: str) -> None:
    if len(part) > MAX_NAME_LENGTH:
        raise VocabularyError(
            f'name {shorten(part)} has {len(part)} characters; the limit is {MAX_NAME_LENGTH}: shorten it')
    if not part.isprintable():
        raise VocabularyError(f'name {shorten(part)} holds control characters; use plain text')


def split_classes(text: str | None) -> list[str]:
    """Split a comma-separated list: 'road, car=car|van' becomes ['road', 'car=car|van']."""
    return [part.strip() for part in (text or '').split(',') if part.strip()]


def parse_classes(texts: Iterable[str]) -> tuple[ClassSpec, ...]:
    """Parse a whole vocabulary.

    Args:
        texts: its classes, see `parse_class`.

    Returns:
        The classes in the order given.

    Raises:
        VocabularyError: the vocabulary is empty, lists a class twice, has more than `MAX_PHRASES` phrases, or a class
            of it cannot be parsed.
    """
    texts = list(texts)
    if not texts:
        raise VocabularyError('the vocabulary is empty; give at least one class, for example "road"')
    _check_count(len(texts), len(texts))   # before parsing a hundred thousand
    specs = tuple(parse_class(text) for text in texts)
    seen: set[str] = set()
    for spec in specs:
        if spec.name in seen:
            raise VocabularyError(f'class {shorten(spec.name)} is named twice; list each class once and give its other '
                                  f'phrases as {spec.name}=phrase|phrase')
        seen.add(spec.name)
    _check_count(len(specs), len(phrases_of(specs)))
    return specs


def phrases_of(specs: Iterable[ClassSpec]) -> list[str]:
    """Return the phrases of all classes in order; a phrase of two classes is in it twice."""
    return [phrase for spec in specs for phrase in spec.phrases]


def shared_phrase_warning(specs: Iterable[ClassSpec]) -> str:
    """Return a warning if two classes share a phrase, '' if none do. By that phrase both have the same score."""
    owners: dict[str, str] = {}
    for spec in specs:
        for phrase in spec.phrases:
            if phrase in owners:
                return (f'{shorten(phrase)} is a phrase of {shorten(owners[phrase])} and of {shorten(spec.name)}; only '
                        'the first can win by it; remove it from one of them')
            owners[phrase] = spec.name
    return ''


def _check_count(classes: int, phrases: int) -> None:
    if phrases > MAX_PHRASES:
        raise VocabularyError(f'{classes} classes have {phrases} phrases; the limit is {MAX_PHRASES} '
                              '(ids are 8 bits and 255 means unlabelled): give fewer classes or phrases')

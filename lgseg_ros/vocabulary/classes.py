"""One class of a vocabulary as text: `name` or `name=phrase|phrase|...`.

The same text works in a parameter, in the service, on the command line and in
YAML.  Without phrases the name is its own phrase.  Several phrases are several
text rows with one id; the best row wins.
"""

import unicodedata
from dataclasses import dataclass, field

MAX_NAME_LENGTH = 100  # characters; a longer one is a mistake or an attack, not a word
MAX_ROWS = 255         # ids are uint8 and 255 means unlabelled
MAX_TEXT_LENGTH = MAX_ROWS * (MAX_NAME_LENGTH + 1)   # of one class with all its phrases


class VocabularyError(ValueError):
    """A vocabulary that cannot be used; the message names the value, the reason and the cure."""


@dataclass(frozen=True)
class ClassSpec:
    """A class: its name as published, and the phrases it is recognised by."""

    name: str
    phrases: tuple
    own_phrases: bool = field(compare=False)   # given as such; False: a preset may know better ones

    def __str__(self):
        if self.phrases == (self.name,) and not self.own_phrases:
            return self.name
        return f'{self.name}={"|".join(self.phrases)}'


def shorten(text, limit=40):
    """`text` quoted, cut to `limit` characters, for error messages."""
    return repr(text if len(text) <= limit else text[:limit] + '...')


def normalise(phrase):
    """A phrase as banks store it: lower case, single spaces, no underscores, letters composed with their accents."""
    return ' '.join(compose(phrase).lower().replace('_', ' ').split())


def compose(text):
    """Letters and their accents as one character each (Unicode NFC): what looks the same is the same."""
    return unicodedata.normalize('NFC', text)


def parse_class(text):
    """Parse one `name=phrase|phrase` into a `ClassSpec`.  Raises VocabularyError."""
    if not isinstance(text, str):
        raise VocabularyError(f'class {text!r} is not text; write it as "name" or "name=phrase|phrase"')
    if len(text) > MAX_TEXT_LENGTH:   # before splitting: millions of phrases would hold the node for seconds
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


def _check_text(part):
    if len(part) > MAX_NAME_LENGTH:
        raise VocabularyError(
            f'name {shorten(part)} has {len(part)} characters; the limit is {MAX_NAME_LENGTH}: shorten it')
    if not part.isprintable():
        raise VocabularyError(f'name {shorten(part)} holds control characters; use plain text')


def split_classes(text):
    """'road, car=car|van' -> ['road', 'car=car|van']."""
    return [part.strip() for part in (text or '').split(',') if part.strip()]


def parse_classes(texts):
    """Parse a whole vocabulary.  Returns a tuple of `ClassSpec`, in the order given.

    Raises VocabularyError when it is empty, names a class twice, or needs more
    than `MAX_ROWS` text rows.
    """
    texts = list(texts)
    if not texts:
        raise VocabularyError('the vocabulary is empty; give at least one class, for example "road"')
    _check_rows(len(texts), len(texts))   # before parsing a hundred thousand
    specs = tuple(parse_class(text) for text in texts)
    seen = set()
    for spec in specs:
        if spec.name in seen:
            raise VocabularyError(f'class {shorten(spec.name)} is named twice; '
                                  f'give each class once and its other words as {spec.name}=word|word')
        seen.add(spec.name)
    _check_rows(len(specs), sum(len(spec.phrases) for spec in specs))
    return specs


def shared_phrase(specs):
    """What to say where two `ClassSpec`s share a phrase, which no picture can tell apart; '' where none do."""
    owners = {}
    for spec in specs:
        for phrase in spec.phrases:
            if phrase in owners:
                return (f'{shorten(phrase)} is a phrase of {shorten(owners[phrase])} and of {shorten(spec.name)}, '
                        'of which only the first can win by it; leave it to one of them')
            owners[phrase] = spec.name
    return ''


def _check_rows(classes, rows):
    if rows > MAX_ROWS:
        raise VocabularyError(f'{classes} classes need {rows} text rows; the limit is {MAX_ROWS} '
                              '(ids are 8 bits and 255 means unlabelled): name fewer classes or phrases')

"""Relations between phrases (synonyms.yaml): which phrases may name the same pixel.

Training draws negatives, phrases that name nothing in the image.  A negative that could name a labelled pixel would
teach a falsehood: `grass` where a data set labels `terrain`, `window` where it labels `building`.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path

import yaml

from .classes import ClassSpec, VocabularyError, normalise

RELATIONS_FILE = Path(__file__).parent / 'synonyms.yaml'


@dataclass(frozen=True)
class Relations:
    """The content of synonyms.yaml, see its head for what each table means.

    Attributes:
        synonyms: groups of phrases that name one thing everywhere.
        interchangeable: groups of phrases that name one thing in some data sets.
        kinds: {parent: its direct kinds}.
        parts: {whole: its parts}.
        overlaps: groups of phrases whose pixels are labelled by each other's name.
        abstract: parents that are not phrases themselves.
        broad: parents whose overlaps do not extend to their kinds.
        attributes: phrases that fit any pixel.
    """

    synonyms: tuple[tuple[str, ...], ...]
    interchangeable: tuple[tuple[str, ...], ...]
    kinds: dict[str, tuple[str, ...]]
    parts: dict[str, tuple[str, ...]]
    overlaps: tuple[tuple[str, ...], ...]
    abstract: frozenset[str]
    broad: frozenset[str]
    attributes: frozenset[str]

    @property
    def phrases(self) -> frozenset[str]:
        """Every phrase that has an entry."""
        groups = (*self.synonyms, *self.interchangeable, *self.overlaps, self.kinds, *self.kinds.values(), self.parts,
                  *self.parts.values(), self.attributes)
        return frozenset(phrase for group in groups for phrase in group) - self.abstract


@cache
def load_relations() -> Relations:
    """Read synonyms.yaml."""
    tables = yaml.safe_load(RELATIONS_FILE.read_text(encoding='utf-8'))

    def groups(name: str) -> tuple[tuple[str, ...], ...]:
        return tuple(tuple(map(normalise, group)) for group in tables[name])

    def children(name: str) -> dict[str, tuple[str, ...]]:
        return {normalise(parent): tuple(map(normalise, phrases)) for parent, phrases in tables[name].items()}

    def phrases(name: str) -> frozenset[str]:
        return frozenset(map(normalise, tables[name]))

    return Relations(groups('synonyms'), groups('interchangeable'), children('kinds'), children('parts'),
                     groups('overlaps'), phrases('abstract'), phrases('broad'), phrases('attributes'))


@cache
def synonyms(phrase: str) -> frozenset[str]:
    """The phrase and its synonyms."""
    return _same(phrase, load_relations().synonyms)


def _same(phrase: str, groups: Iterable[tuple[str, ...]]) -> frozenset[str]:
    return frozenset([phrase]).union(*(group for group in groups if phrase in group))


def _closure(phrase: str, step: Callable[[str], Iterable[str]]) -> frozenset[str]:
    """What `step` leads to from the phrase, over any number of steps; same things count as one."""
    relations = load_relations()
    found: set[str] = set()
    waiting = [phrase]
    while waiting:
        for each in _same(waiting.pop(), relations.synonyms + relations.interchangeable):
            if each not in found:
                found.add(each)
                waiting += [each, *step(each)]
    return frozenset(found)


@cache
def kinds(phrase: str) -> frozenset[str]:
    """The phrase, its kinds and theirs, and other names of all of them."""
    table = load_relations().kinds
    return _closure(phrase, lambda each: table.get(each, ()))


@cache
def parents(phrase: str) -> frozenset[str]:
    """The phrase, what it is a kind of, and other names of all of them."""
    table = load_relations().kinds
    return _closure(phrase, lambda each: [parent for parent, children in table.items() if each in children])


@cache
def _related_pairs() -> dict[str, frozenset[str]]:
    """{phrase: phrases that may name the same pixel}; symmetric, without the attributes."""
    relations = load_relations()
    phrases = {each for phrase in relations.phrases for each in kinds(phrase)} | relations.abstract
    found = {phrase: set(kinds(phrase) | parents(phrase)) for phrase in phrases}

    def relate(left: Iterable[str], right: Collection[str]) -> None:
        for a, b in product(left, right):
            found[a].add(b)
            found[b].add(a)

    for whole, parts in relations.parts.items():
        for part in parts:
            relate(kinds(whole) | parents(whole), kinds(part))
    for group in relations.overlaps:
        narrow = frozenset[str]().union(*map(synonyms, group))
        wide = narrow.union(*(kinds(member) for member in group if member not in relations.broad))
        relate(narrow, wide)
    return {phrase: frozenset(others) for phrase, others in found.items()}


@cache
def related(phrase: str) -> frozenset[str]:
    """Return the phrases that may name the same pixel as `phrase`: what its label includes, and what may include it.

    The relation is symmetric. An attribute is related to every phrase that has an entry.

    Args:
        phrase: in any spelling.

    Returns:
        Normalised phrases, `phrase` among them.  A phrase without an entry is related to itself and the attributes.
    """
    relations, phrase = load_relations(), normalise(phrase)
    if phrase in relations.attributes:
        return relations.phrases
    return frozenset([phrase]) | _related_pairs().get(phrase, frozenset()) | relations.attributes


def related_to_class(spec: ClassSpec) -> frozenset[str]:
    """The phrases that may name a pixel with the label of the class."""
    return frozenset[str]().union(*map(related, spec.phrases))


def negative_phrases(specs: Iterable[ClassSpec], phrases: Sequence[str]) -> list[str]:
    """The phrases that can be negatives where these classes are labelled: none of their pixels may carry the phrase.

    Args:
        specs: the classes of a data set.  With a class that is named by an attribute ("background") there are none.
        phrases: candidates, normalised.

    Returns:
        Those of `phrases` that are negatives, in the same order.
    """
    specs = tuple(specs)
    if load_relations().attributes.intersection(phrase for spec in specs for phrase in spec.phrases):
        return []
    excluded = frozenset(normalise(spec.name) for spec in specs).union(*map(related_to_class, specs))
    return [phrase for phrase in phrases if phrase not in excluded]


def prompt_alternatives(specs: Sequence[ClassSpec], known: Collection[str]) -> list[tuple[str, ...]]:
    """For every class the phrases that name all of it, so that each may stand alone.

    Of `animal=animal|dog|cat` that is "animal": a labelled pixel may show a dog and may not.  A synonym that another
    class has already is left out, because the two classes would be taught to be one.

    Args:
        specs: the classes of a data set.
        known: the phrases that have text embeddings; only these are added as synonyms.

    Returns:
        One tuple per class, its own phrases first; empty where no single phrase names all of a class.
    """
    taken = {phrase for spec in specs for phrase in spec.phrases}
    found = []
    for spec in specs:
        whole = [phrase for phrase in spec.phrases if all(other in kinds(phrase) for other in spec.phrases)]
        offered = (other for phrase in whole for other in sorted(synonyms(phrase)))
        free = [other for other in offered if other in known and other not in taken]
        found.append((*whole, *dict.fromkeys(free)))
        taken.update(found[-1])
    return found


def check_phrases_agree(named: Sequence[tuple[str, Sequence[ClassSpec]]]) -> None:
    """Check that data sets which are trained together mean the same by the same phrases.

    Args:
        named: (where the classes come from, its classes) per data set; the former is for the message.

    Raises:
        VocabularyError: two classes of one name have phrases that are unrelated, or one phrase stands for two classes
            whose names are unrelated.
    """
    known = load_relations().phrases
    classes = [(place, spec) for place, specs in named for spec in specs]
    by_name: dict[str, tuple[str, ClassSpec]] = {}
    by_phrase: dict[str, list[tuple[str, ClassSpec]]] = {}
    for place, spec in classes:
        first, other = by_name.setdefault(spec.name, (place, spec))
        if known.issuperset((*spec.phrases, *other.phrases)) and related_to_class(other).isdisjoint(spec.phrases):
            raise VocabularyError(
                f'class {spec.name!r} is {"|".join(other.phrases)!r} in {first} and {"|".join(spec.phrases)!r} in '
                f'{place}, which are different things; rename the class in one of them, or correct its phrases')
        for phrase in spec.phrases:
            for first, other in by_phrase.setdefault(phrase, []):
                if known.issuperset((spec.name, other.name)) and other.name not in related(spec.name):
                    raise VocabularyError(
                        f'{phrase!r} is a phrase of class {other.name!r} in {first} and of class {spec.name!r} in '
                        f'{place}, which are different things; take the phrase from the class where it is wrong')
            by_phrase[phrase].append((place, spec))

"""The vocabulary in force, and how it is replaced: validated whole, then swapped in one assignment."""

import math
import threading
from dataclasses import dataclass

import numpy as np

from .classes import MAX_ROWS, VocabularyError, parse_classes, shared_phrase
from .presets import get_preset

UNLABELLED = 255


@dataclass(frozen=True)
class Vocabulary:
    """What the node looks for.  Immutable: a frame is segmented with one of these, whole.

    names, ids: one entry per class, in the order asked for; ids 0..254.
    rows: float32 [K, D], one per phrase; row_ids: int64 [K], the id of each row.
    threshold: least confidence 0..1 of a labelled pixel.
    """

    version: int
    specs: tuple
    ids: tuple
    rows: np.ndarray
    row_ids: np.ndarray
    threshold: float
    preset: str

    @property
    def names(self):
        return tuple(spec.name for spec in self.specs)

    @property
    def texts(self):
        """The classes as they can be given again, `name=phrase|phrase`."""
        return tuple(str(spec) for spec in self.specs)

    @property
    def remark(self):
        """What whoever chose these words should know, or ''."""
        return shared_phrase(self.specs)

    def __str__(self):
        """One line for logs."""
        least = f'; threshold {self.threshold:g}' if self.threshold else ''
        return f'vocabulary {self.version}: {", ".join(self.texts)[:300]}{least}'


def choose_classes(classes, preset=''):
    """The `ClassSpec`s that are meant; arguments as those of `VocabularyState.prepare`.  Raises VocabularyError."""
    if not preset:
        return parse_classes(classes)
    chosen = get_preset(preset).classes.values()
    if not classes:
        return tuple(chosen)
    known = {spec.name: spec for spec in chosen}
    return tuple(spec if spec.own_phrases else known.get(spec.name, spec) for spec in parse_classes(classes))


class VocabularyState:
    """Holds the present `Vocabulary` and the ids given in this run.

    An id belongs to one name for the whole run, because consumers remember it
    (Nav2's layer for 5 s).  Safe to use from several threads; `current` never blocks.
    """

    def __init__(self, text_source, ids=None, version=0):
        """text_source: has `rows(phrases) -> float32 [N, D]`, raising VocabularyError for unknown ones.

        ids: the {name: id} of this run so far, which is kept up to date; give the same one to a
        state that follows this one in the same process.
        version: the last one of that state, from which this one counts on.
        """
        self._source = text_source
        self._lock = threading.Lock()
        self._ids = {} if ids is None else ids
        self._version = version
        self.current = None

    def prepare(self, classes, preset='', threshold=None):
        """Check everything and build the next `Vocabulary`; changes nothing.

        classes: list of `name` or `name=phrase|phrase`; preset: name or ''.  With both, the
        classes are the vocabulary, and one that the preset knows gets its id and, unless it
        names its own, its phrases.
        threshold: None, NaN or negative keeps the present one (0 at the start).
        Raises VocabularyError naming the value, the reason and the cure.
        """
        with self._lock:
            return self._prepare(classes, preset, threshold)[0]

    def replace(self, classes, preset='', threshold=None):
        """`prepare`, then make it the present one.  Returns it.  Raises VocabularyError, changing nothing."""
        with self._lock:
            vocabulary, ids = self._prepare(classes, preset, threshold)
            self._ids.update(ids)
            self.current = vocabulary
            return vocabulary

    def _prepare(self, classes, preset, threshold):
        """(the next `Vocabulary`, {name: id} of the run with it)."""
        chosen = get_preset(preset) if preset else None
        specs = choose_classes(classes, preset)
        run = self._allocate(specs, chosen)
        ids = tuple(run[spec.name] for spec in specs)
        phrases = [phrase for spec in specs for phrase in spec.phrases]
        row_ids = np.array([i for spec, i in zip(specs, ids) for _ in spec.phrases], np.int64)
        rows = self._source.rows(phrases)
        version = self.current.version if self.current else self._version
        return Vocabulary(version + 1, specs, ids, rows, row_ids, self._threshold(threshold), preset), run

    def _allocate(self, specs, preset):
        """{name: id} of the run with `specs`: the id a name has in this run, else the preset's, else the lowest free.

        All numbers of a preset with fixed ids are given with it, to words that are not asked for too: its consumer
        goes on reading them when a later request names no preset.
        """
        ids, wanted = dict(self._ids), preset.ids if preset else {}
        if preset:
            self._check_fixed(preset)
            ids.update(preset.fixed)
        taken = set(ids.values())
        for spec in specs:
            if spec.name not in ids:
                i = wanted.get(spec.name)
                if i is None or i in taken:
                    i = self._lowest_free(taken.union(wanted.values()))
                ids[spec.name] = i
                taken.add(i)
        return ids

    def _check_fixed(self, preset):
        """Raises VocabularyError where this run has given one of the preset's fixed ids or names otherwise."""
        holders = {i: name for name, i in self._ids.items()}
        for name, i in preset.fixed.items():
            holder, present = holders.get(i, name), self._ids.get(name, i)
            if holder != name or present != i:
                raise VocabularyError(
                    f'preset {preset.name!r} needs id {i} for {name!r}, but in this run '
                    f'{f"id {i} is {holder!r}" if holder != name else f"it has id {present}"}, and ids are '
                    f'never given to another name; start the node with preset:={preset.name}')

    @staticmethod
    def _lowest_free(taken):
        for i in range(UNLABELLED):
            if i not in taken:
                return i
        raise VocabularyError(f'all {MAX_ROWS} ids have been given to names in this run (ids are 8 bits and 255 means '
                              'unlabelled), and an id is never given to another name; restart the node for new names')

    def _threshold(self, value):
        present = self.current.threshold if self.current else 0.0
        if value is None or math.isnan(value) or value < 0:
            return present
        if value > 1:
            raise VocabularyError(f'threshold {value:g} is above 1; give a confidence of 0.0 to 1.0')
        return float(value)

"""Class ids of a run: an id belongs to one name for the whole run, because consumers remember it.

Nav2's costmap layer keeps ids for 5 s, Autoware filters points by number. So an id is never given to another name.
"""

from collections.abc import Iterable, Mapping

from ..utils.label_values import UNLABELLED
from .classes import ClassSpec, VocabularyError
from .presets import Preset


def allocate_ids(specs: Iterable[ClassSpec], preset: Preset | None, used: Mapping[str, int]) -> dict[str, int]:
    """Assign an id to every class: the one that its name has in this run, else the preset's, else the lowest free.

    All ids of a preset with fixed ids are taken with it, also those of its classes that are not asked for. Its consumer
    goes on reading these numbers when a later request names no preset.

    Args:
        specs: the classes.
        preset: the preset that was named, or None.
        used: {name: id} of the run so far. Not changed.

    Returns:
        {name: id} of the run with `specs`.

    Raises:
        VocabularyError: all ids are taken, or a fixed id of the preset belongs to another name.
    """
    ids, wanted = dict(used), preset.ids if preset else {}
    if preset:
        _check_fixed(preset, used)
        ids.update(preset.fixed)
    taken = set(ids.values())
    for spec in specs:
        if spec.name not in ids:
            i = wanted.get(spec.name)
            if i is None or i in taken:
                i = _lowest_free(taken.union(wanted.values()))
            ids[spec.name] = i
            taken.add(i)
    return ids


def _check_fixed(preset: Preset, used: Mapping[str, int]) -> None:
    holders = {i: name for name, i in used.items()}
    for name, i in preset.fixed.items():
        holder, present = holders.get(i, name), used.get(name, i)
        if holder != name or present != i:
            raise VocabularyError(
                f'preset {preset.name!r} needs id {i} for {name!r}, but in this run '
                f'{f"id {i} is {holder!r}" if holder != name else f"it has id {present}"}, and an id is never given to '
                f'another name; choose this preset from the start (node: preset:={preset.name})')


def _lowest_free(taken: set[int]) -> int:
    for i in range(UNLABELLED):
        if i not in taken:
            return i
    raise VocabularyError(f'all {UNLABELLED} ids have been given to names in this run (ids are 8 bits and {UNLABELLED} '
                          'means unlabelled), and an id is never given to another name; restart the node (in Python: '
                          'create another Segmenter) for new names')

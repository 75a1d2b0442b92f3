"""What a GPU engine prepares for one shape is kept for the shapes used last."""

from collections import OrderedDict

BUCKETS = (8, 16, 32, 64, 128, 256)   # text rows are padded up to one of these
MAX_SHAPE_CONTEXTS = 6                        # a few cameras' sizes times two vocabularies


def bucket(rows):
    """The least number of `BUCKETS` that holds `rows` text rows, so that most changes of words keep their shape."""
    return next(size for size in BUCKETS if size >= rows)


class ShapeCache:
    """Makes what a key asks for and keeps the `limit` used last; what is dropped is closed, if it can be."""

    def __init__(self, make, limit=MAX_SHAPE_CONTEXTS):
        """make: called with the key."""
        self._make, self._limit, self._kept = make, limit, OrderedDict()

    def __len__(self):
        return len(self._kept)

    def get(self, key):
        """What belongs to `key`, made now if it is not there.  Raises what `make` raises."""
        if key not in self._kept:
            while len(self._kept) >= self._limit:   # before making: device memory for both may not be there
                _close(self._kept.popitem(last=False)[1])
            self._kept[key] = self._make(key)
        self._kept.move_to_end(key)
        return self._kept[key]

    def clear(self):
        """Close and forget all."""
        while self._kept:
            _close(self._kept.popitem()[1])


def _close(plan):
    if hasattr(plan, 'close'):
        plan.close()

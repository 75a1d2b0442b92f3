"""A cache of what a GPU engine prepares for one shape, and the numbers of phrases that share a shape."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

ShapeT = TypeVar('ShapeT', bound=Hashable)
ContextT = TypeVar('ContextT')

BUCKETS = (8, 16, 32, 64, 128, 256)
"""Numbers of phrases that text embeddings are padded to; the largest holds every vocabulary."""

MAX_SHAPE_CONTEXTS = 6
"""Contexts that are kept by default: the sizes of a few cameras times two vocabularies."""


def bucket(num_phrases: int) -> int:
    """Return the smallest of `BUCKETS` that holds a vocabulary, so that most vocabulary changes keep their shape.

    Args:
        num_phrases: number of text embeddings, 1 to 256.
    """
    return next(size for size in BUCKETS if size >= num_phrases)


class ShapeCache(Generic[ShapeT, ContextT]):
    """Creates the context of a shape on demand and keeps those used last.

    A context holds the device memory of one shape. (A TensorRT plan is something else: a serialized engine.) It is
    closed when it is dropped, if it has a method `close`.
    """

    def __init__(self, create: Callable[[ShapeT], ContextT], limit: int = MAX_SHAPE_CONTEXTS) -> None:
        """Start empty.

        Args:
            create: creates the context of a shape.
            limit: number of contexts that are kept.
        """
        self._create = create
        self._limit = limit
        self._contexts: OrderedDict[ShapeT, ContextT] = OrderedDict()

    def __len__(self) -> int:
        """Return the number of contexts that are kept."""
        return len(self._contexts)

    def get(self, shape: ShapeT) -> ContextT:
        """Return the context of a shape, created now if it is not in the cache. Raises what `create` raises."""
        if shape not in self._contexts:
            while len(self._contexts) >= self._limit:   # before creating: device memory may not hold both
                _close(self._contexts.popitem(last=False)[1])
            self._contexts[shape] = self._create(shape)
        self._contexts.move_to_end(shape)
        return self._contexts[shape]

    def clear(self) -> None:
        """Close and drop all contexts."""
        while self._contexts:
            _close(self._contexts.popitem()[1])


def _close(context: object) -> None:
    close = getattr(context, 'close', None)
    if close is not None:
        close()

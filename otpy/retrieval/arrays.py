"""The only room that knows numpy: imported late, and only where it exists. What is computed is the same without it."""

from __future__ import annotations

import functools
import heapq
import importlib
import math
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from array import array
    from collections.abc import Iterable

__all__ = ["best_of", "best_pairs", "kth", "numpy", "view"]


_BLOCK: Final = 64


@functools.cache
def numpy() -> Any:
    """Return the module numpy, or `None` where it is not installed."""
    try:
        return importlib.import_module("numpy")
    except ImportError:
        return None


def view(numbers: array[Any]) -> Any:
    """Return an array as numpy's, without a copy.

    Args:
        numbers: The array, of type `f`, `d`, `I` or `Q`.
    """
    return numpy().frombuffer(numbers, dtype=numbers.typecode)


def best_of(scores: Any, k: int, above: float = -math.inf) -> list[tuple[int, float]]:
    """Return the places of the `k` best scores, with them, the best first, and of equals the first place.

    Args:
        scores: numpy's array of numbers.
        k: How many; all there are if there are fewer.
        above: Only scores above this count.

    Example:
        >>> from otpy.retrieval.arrays import best_of, numpy
        >>> best_of(numpy().array([0.5, 0.75, 0.5]), 2)
        [(1, 0.75), (0, 0.5)]
    """
    np = numpy()
    counted = scores > above
    if k < len(scores):
        counted &= scores >= kth(scores, k)  # with all that tie with the last, so that the first of them can be taken
    places = np.flatnonzero(counted)
    kept = scores[places]
    order = np.lexsort((places, -kept))[:k]
    return list(zip(places[order].tolist(), kept[order].tolist(), strict=True))


def kth(scores: Any, k: int) -> Any:
    """Return the `k`-th best of some scores, of which there are at least so many, or a score that is no better.

    Args:
        scores: numpy's array of numbers.
        k: Which.

    Example:
        >>> from otpy.retrieval.arrays import kth, numpy
        >>> float(kth(numpy().array([0.5, 0.75, 0.25]), 2))
        0.5
    """
    blocks = len(scores) // _BLOCK
    if blocks > k:  # the k-th best of the best of each block: no better than that of all, and much sooner found
        scores = scores[: blocks * _BLOCK].reshape(blocks, _BLOCK).max(axis=1)
    return numpy().partition(scores, len(scores) - k)[len(scores) - k]


def best_pairs(pairs: Iterable[tuple[int, float]], k: int) -> list[tuple[int, float]]:
    """Do what `best_of` does, without numpy.

    Args:
        pairs: Places with their scores.
        k: How many.

    Example:
        >>> from otpy.retrieval.arrays import best_pairs
        >>> best_pairs([(4, 0.5), (7, 0.75), (9, 0.5)], 2)
        [(7, 0.75), (4, 0.5)]
    """
    return heapq.nsmallest(k, pairs, key=lambda pair: (-pair[1], pair[0]))

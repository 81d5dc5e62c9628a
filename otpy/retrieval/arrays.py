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

__all__ = ["added_up", "ascending", "best_of", "best_pairs", "kth", "numpy", "view", "within"]


_BLOCK: Final = 64


@functools.cache
def numpy() -> Any:
    """Return the module numpy, or `None` where it is not installed."""
    try:
        return importlib.import_module("numpy")
    except ImportError:
        return None


def ascending(numbers: array[int], starts: Iterable[int]) -> bool:
    """Whether each number is greater than the one before it, save those at which a run starts.

    Args:
        numbers: Of type `I`.
        starts: Where runs start.

    Example:
        >>> from array import array
        >>> from otpy.retrieval.arrays import ascending
        >>> ascending(array("I", [1, 5, 0, 2]), [0, 2]), ascending(array("I", [1, 5, 0, 2]), [0])
        (True, False)
    """
    if numpy() is None:
        falls: Iterable[int] = (at for at in range(1, len(numbers)) if numbers[at - 1] >= numbers[at])
    else:
        falls = (numpy().flatnonzero(view(numbers)[:-1] >= view(numbers)[1:]) + 1).tolist()
    return set(starts).issuperset(falls)


def added_up(places: array[int], counts: array[int], size: int) -> list[int]:
    """Return for each place the sum of what is counted there.

    Args:
        places: Numbers below `size`.
        counts: What to add at each.
        size: How many places there are.

    Example:
        >>> from array import array
        >>> from otpy.retrieval.arrays import added_up
        >>> added_up(array("I", [0, 2, 0]), array("I", [1, 2, 3]), 3)
        [4, 0, 2]
    """
    if numpy() is not None:
        sums: list[int] = numpy().bincount(view(places), view(counts), size).astype("u8").tolist()
        return sums
    found = [0] * size
    for place, count in zip(places, counts, strict=True):
        found[place] += count
    return found


def within(numbers: array[float], most: float) -> bool:
    """Whether all numbers are finite, and none is further from 0 than this.

    Args:
        numbers: Of type `f`.
        most: How far.

    Example:
        >>> from array import array
        >>> from otpy.retrieval.arrays import within
        >>> within(array("f", [1.0, -1.0]), 1.0), within(array("f", [float("nan")]), 1.0)
        (True, False)
    """
    if numpy() is None:
        return all(-most <= number <= most for number in numbers)
    return bool((abs(view(numbers)) <= most).all())


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

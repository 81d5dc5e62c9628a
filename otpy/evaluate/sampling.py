"""Rows by lot: cut a dataset in parts, or take some of it. The same seed takes the same rows everywhere."""

from __future__ import annotations

import random
from heapq import nsmallest
from itertools import accumulate, pairwise
from math import fsum, isclose
from typing import TYPE_CHECKING, Any, TypeVar, cast

from otpy.errors import DatasetError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

__all__ = ["sample", "split"]

R = TypeVar("R", bound="Mapping[str, Any]")


def split(rows: Sequence[R], *parts: float, seed: int = 0, stratify: str | None = None) -> tuple[list[R], ...]:
    """Shuffle rows and cut them in parts; what the parts leave over is one more, the last.

    The same rows and the same seed give the same parts in every version of otpy and of Python, on every machine: each
    row draws a number from `random.Random(seed).random()`, the one sequence that Python promises not to change, and
    the smallest come first.

    Args:
        rows: The rows.
        parts: How big each part is: a share of the rows, as `0.8`, or a number of rows, as `100`. Shares that add up
            to 1 are all the parts there are.
        seed: Decides the order, an integer from 0.
        stratify: A field whose values are spread over the parts evenly, as a label's are: each part has its share of
            each value, give or take a row.

    Raises:
        DatasetError: If a part would be empty, or the parts are more than the rows; if a row does not have the field,
            or a value of it that cannot be compared.

    Example:
        >>> from otpy.evaluate import split
        >>> rows = [{"n": n, "kind": "even" if n % 2 == 0 else "odd"} for n in range(10)]
        >>> trainset, devset = split(rows, 0.8, seed=1)
        >>> len(trainset), len(devset)
        (8, 2)
        >>> [len(part) for part in split(rows, 0.5, 0.3, 0.2)], [len(part) for part in split(rows, 3, 2)]
        ([5, 3, 2], [3, 2, 5])
        >>> [sorted(row["kind"] for row in part) for part in split(rows, 6, stratify="kind")]
        [['even', 'even', 'even', 'odd', 'odd', 'odd'], ['even', 'even', 'odd', 'odd']]
    """
    sizes = _sizes(len(rows), parts)
    order = _order(len(rows), seed)
    if stratify is None:
        ends = [0, *accumulate(sizes)]
        return tuple([rows[place] for place in order[start:end]] for start, end in pairwise(ends))
    return tuple([rows[place] for place in places] for places in _stratified(rows, order, sizes, stratify))


def sample(rows: Iterable[R], n: int, seed: int = 0, stratify: str | None = None) -> list[R]:
    """Take rows by lot, each at most once; the same seed takes the same rows everywhere, as in `split`.

    Args:
        rows: The rows; unless stratified, an iterator of any length is read without being kept.
        n: How many to take.
        seed: Decides which, an integer from 0.
        stratify: A field whose values the sample has in the same proportions as the rows, give or take a row.

    Raises:
        DatasetError: If there are not so many rows, or as in `split`.

    Example:
        >>> from otpy.evaluate.sampling import sample
        >>> [row["n"] for row in sample(({"n": n} for n in range(1_000)), 3, seed=1)]
        [503, 13, 531]
    """
    if isinstance(cast("Any", n), bool) or not isinstance(cast("Any", n), int) or n < 1:
        raise DatasetError(f"n={n!r}; allowed: a number of rows, from 1")
    if stratify is not None:
        kept = list(rows)
        if n > len(kept):
            raise DatasetError(f"n={n}, but there are {len(kept)} rows")
        return [kept[place] for place in next(_stratified(kept, _order(len(kept), seed), [n], stratify))]
    draw = _draw(seed)
    taken = nsmallest(n, ((draw(), place, row) for place, row in enumerate(rows)), key=lambda lot: lot[:2])
    if len(taken) < n:
        raise DatasetError(f"n={n}, but there are {len(taken)} rows")
    return [row for _, _, row in taken]


def _draw(seed: int) -> Callable[[], float]:
    if isinstance(cast("Any", seed), bool) or not isinstance(cast("Any", seed), int) or seed < 0:
        raise DatasetError(f"seed={seed!r}; allowed: an integer from 0")
    return random.Random(seed).random  # noqa: S311 - an order, no secret


def _order(count: int, seed: int) -> list[int]:
    """The places of the rows, by the number that each has drawn."""
    draw = _draw(seed)
    drawn = [draw() for _ in range(count)]
    return sorted(range(count), key=drawn.__getitem__)


def _sizes(count: int, parts: Sequence[float]) -> list[int]:
    """How many rows each part has; the last is what is left over, unless the shares add up to 1."""
    if not parts:
        raise DatasetError("no part is named; say how big the first shall be, as in split(rows, 0.8)")
    for part in parts:
        is_share = isinstance(part, float) and 0 < part < 1
        if not is_share and (isinstance(cast("Any", part), bool) or not isinstance(part, int) or part < 1):
            raise DatasetError(f"{part!r} is no part; allowed: a share between 0.0 and 1.0, or a number of rows from 1")
    named, together = ", ".join(map(repr, parts)), fsum(part for part in parts if isinstance(part, float))
    if together > 1 and not isclose(together, 1):
        raise DatasetError(
            f"the shares {named} add up to {together:g}; allowed: at most 1, and what they leave is a part"
        )
    if (wanted := round(count * together) + sum(part for part in parts if isinstance(part, int))) > count:
        raise DatasetError(f"the parts {named} take {wanted} rows, but there are {count}; make them smaller")
    ends = [0]
    for number in range(1, len(parts) + 1):
        shares = fsum(part for part in parts[:number] if isinstance(part, float))
        ends.append(round(count * shares) + sum(part for part in parts[:number] if isinstance(part, int)))
    if not (isclose(fsum(parts), 1) and all(isinstance(part, float) for part in parts)):
        ends.append(count)
    sizes = [end - start for start, end in pairwise(ends)]
    if min(sizes) < 1:
        raise DatasetError(
            f"the parts {named} of {count} rows have {', '.join(map(str, sizes))} rows; none may be empty"
        )
    return sizes


def _stratified(
    rows: Sequence[Mapping[str, Any]], order: Sequence[int], sizes: Sequence[int], field: str
) -> Iterator[list[int]]:
    """The places of each part's rows: of every value as many as is its share, by largest remainders."""
    groups: dict[Any, list[int]] = {}
    for place, row in enumerate(rows):
        if field not in row:
            has = ", ".join(map(repr, row)) or "nothing"
            raise DatasetError(
                f"stratify={field!r}: row {place} of {len(rows)}, from 0, has no such field; it has {has}"
            )
        try:
            hash(row[field])
        except TypeError:
            raise DatasetError(
                f"stratify={field!r}: row {place} of {len(rows)}, from 0, has {row[field]!r:.60}, which cannot be"
                " grouped with its equals; allowed: texts, numbers, and whatever else can be hashed"
            ) from None
    for place in order:
        groups.setdefault(rows[place][field], []).append(place)
    rank = {place: number for number, place in enumerate(order)}
    left = len(rows)
    for size in sizes:
        # In integers, so that no machine rounds otherwise; ties go to the value that was drawn first.
        shares = [divmod(len(group) * size, left) for group in groups.values()]
        missing = size - sum(whole for whole, _ in shares)
        favoured = set(sorted(range(len(shares)), key=lambda number: -shares[number][1])[:missing])
        part: list[int] = []
        for number, group in enumerate(groups.values()):
            count = shares[number][0] + (number in favoured)
            part += group[:count]
            del group[:count]
        left -= size
        yield sorted(part, key=rank.__getitem__)

"""Who is best at something: fronts of candidates, parents drawn from them, and lineages that can be merged. Pure.

Source: Agrawal et al. 2025, "GEPA: Reflective Prompt Evolution Can Outperform Reinforcement Learning".
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random
    from collections.abc import Collection, Mapping, Sequence

__all__ = ["Merge", "ancestors", "apart", "drawn", "fronts", "merges", "minibatch", "subsample", "undominated"]


def fronts(columns: Sequence[Sequence[float]]) -> list[tuple[int, ...]]:
    """Return, for each thing that candidates are measured at, those that are best at it.

    Args:
        columns: For each thing (an example, an objective) the candidates' scores, in the candidates' order.

    Example:
        >>> from otpy.teleprompters.pareto import fronts
        >>> fronts([[0, 1, 1], [0.5, 0.2, 0.1]])
        [(1, 2), (0,)]
    """
    return [tuple(at for at, score in enumerate(column) if score == max(column)) for column in columns]


def undominated(found: Sequence[Collection[int]], totals: Sequence[float]) -> list[tuple[int, ...]]:
    """Return fronts without the candidates that are needed in none of them: others that stay are as good everywhere.

    The worst go first, by their totals, and the latest of equals.

    Args:
        found: The fronts.
        totals: The candidates' scores over all.

    Example:
        >>> from otpy.teleprompters.pareto import undominated
        >>> undominated([(0, 1), (1,), (2,), (0, 2)], [0.4, 0.6, 0.5])
        [(1,), (1,), (2,), (2,)]
    """
    staying = {one for front in found for one in front}
    for one in sorted(staying, key=lambda at: (totals[at], -at)):
        if all(any(other in staying and other != one for other in front) for front in found if one in front):
            staying.discard(one)
    return [tuple(sorted(one for one in front if one in staying)) for front in found]


def drawn(found: Sequence[Collection[int]], totals: Sequence[float], rng: random.Random) -> int:
    """Return a candidate by chance: the more fronts it is needed in, the likelier.

    Args:
        found: The fronts.
        totals: The candidates' scores over all.
        rng: The chance.

    Example:
        >>> import random
        >>> from otpy.teleprompters.pareto import drawn
        >>> drawn([(0, 1), (1,)], [0.5, 1.0], random.Random(0))
        1
    """
    counts = Counter(one for front in undominated(found, totals) for one in front)
    members = sorted(counts)
    return rng.choices(members, [counts[one] for one in members])[0]


def minibatch(order: Sequence[int], number: int, size: int) -> list[int]:
    """Return the positions of a minibatch of an epoch; the last is filled up from the epoch's first ones.

    Args:
        order: The epoch's order.
        number: Which minibatch of it.
        size: How many positions; all there are, if there are fewer.

    Example:
        >>> from otpy.teleprompters.pareto import minibatch
        >>> minibatch([3, 1, 0, 2], 1, 3)
        [2, 3, 1]
    """
    size = min(size, len(order))
    return [order[at % len(order)] for at in range(number * size, (number + 1) * size)]


def apart(order: Sequence[int], number: int, size: int) -> tuple[list[int], list[int]]:
    """Return a minibatch, and of the one that follows what is not in it.

    Args:
        order: The epoch's order.
        number: Which minibatch of it.
        size: How many positions; the second has some in any case if that is no more than half of all.

    Example:
        >>> from otpy.teleprompters.pareto import apart
        >>> apart([3, 1, 0, 2, 4], 2, 2)
        ([4, 3], [1])
    """
    rows = minibatch(order, number, size)
    following = minibatch(order, (number + 1) % -(-len(order) // size), size)
    return rows, [at for at in following if at not in rows]


# -- merging -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Merge:
    """What two lineages have learned apart, taken together.

    Args:
        one: A candidate.
        other: Another.
        ancestor: Where their lineages part.
        texts: The texts of both: for each part the one that was changed since, and of two the better candidate's.
    """

    one: int
    other: int
    ancestor: int
    texts: tuple[tuple[str, str], ...]


def ancestors(parents: Sequence[Sequence[int]], one: int) -> frozenset[int]:
    """Return all that a candidate descends from.

    Args:
        parents: The parents of each candidate, all before it.
        one: The candidate.

    Example:
        >>> from otpy.teleprompters.pareto import ancestors
        >>> sorted(ancestors([(), (0,), (0,), (1, 2)], 3))
        [0, 1, 2]
    """
    found = set(parents[one])
    for parent in parents[one]:
        found |= ancestors(parents, parent)
    return frozenset(found)


def merges(
    members: Collection[int],
    parents: Sequence[Sequence[int]],
    texts: Sequence[Mapping[str, str]],
    totals: Sequence[float],
) -> list[Merge]:
    """Return every merge that makes sense, those of no candidate that is there already.

    Of each two that do not descend from each other, with each common ancestor that neither is worse than, if one has
    changed a part that the other has left as it was.

    Args:
        members: The candidates that may be merged.
        parents: The parents of each candidate.
        texts: The texts of each, by part.
        totals: The score of each over all.

    Example:
        >>> from otpy.teleprompters.pareto import merges
        >>> texts = [{"a": "1", "b": "1"}, {"a": "2", "b": "1"}, {"a": "1", "b": "2"}]
        >>> [merge.texts for merge in merges([1, 2], [(), (0,), (0,)], texts, [0.2, 0.5, 0.6])]
        [(('a', '2'), ('b', '2'))]
    """
    found: list[Merge] = []
    ordered = sorted(members)
    for place, one in enumerate(ordered):
        for other in ordered[place + 1 :]:
            mine, theirs = ancestors(parents, one), ancestors(parents, other)
            if one in theirs or other in mine:
                continue
            for ancestor in sorted(mine & theirs):
                if totals[ancestor] > min(totals[one], totals[other]):
                    continue
                merged = _merged(texts[ancestor], texts[one], texts[other], first=totals[one] >= totals[other])
                if merged is not None and merged not in texts:
                    found.append(Merge(one, other, ancestor, tuple(merged.items())))
    return found


def _merged(
    old: Mapping[str, str], mine: Mapping[str, str], theirs: Mapping[str, str], *, first: bool
) -> dict[str, str] | None:
    """Take from each what it has changed; `None` if neither has left alone what the other has changed."""
    if not any(mine[part] != theirs[part] and text in {mine[part], theirs[part]} for part, text in old.items()):
        return None
    better, worse = (mine, theirs) if first else (theirs, mine)
    return {part: better[part] if better[part] != text else worse[part] for part, text in old.items()}


def subsample(mine: Sequence[float], theirs: Sequence[float], size: int, rng: random.Random) -> list[int]:
    """Return positions to look at first: a third where one is better, a third where the other is, a third of the rest.

    Args:
        mine: Scores by position.
        theirs: Those of the other.
        size: How many; all there are, if there are fewer.
        rng: Chooses.

    Example:
        >>> import random
        >>> from otpy.teleprompters.pareto import subsample
        >>> subsample([1, 0, 0, 0], [0, 1, 0, 0], 2, random.Random(0))
        [0, 1]
    """
    groups: tuple[list[int], list[int], list[int]] = ([], [], [])
    for at, (own, other) in enumerate(zip(mine, theirs, strict=True)):
        groups[0 if own > other else 1 if other > own else 2].append(at)
    for group in groups:
        rng.shuffle(group)
    share = -(-size // 3)
    chosen = [at for group in groups for at in group[:share]][:size]
    left = [at for group in groups for at in group if at not in chosen]
    rng.shuffle(left)
    return sorted(chosen + left[: size - len(chosen)])

"""Which row goes to which node: small pieces as nodes become free, and every row one fate in the end. Pure.

A node that joins takes part, one that is lost gives back what it had. What was lost goes first, to whoever is free; a
row that was lost with its node too often has failed. A row that comes twice, since a node was given up that was alive
after all, counts once.

A row may be what kills its nodes, and those beside it look as guilty as itself. So a row that may not be lost once more
shares its node with no other such row: then only the guilty one is lost again.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Hashable

__all__ = ["Distribution", "Handed"]

AHEAD_SECONDS: Final = 0.25
"""How long what a node has beyond its places should last: it has to hear of more before that is done."""
AHEAD_MOST: Final = 8
"""What it may have beyond them, as a multiple of its places."""
FIRST: Final = 64
"""Rows for each node to begin with, before anybody knows how many it takes."""
LOSSES: Final = 3
"""How often a row may be lost with its node; then it has failed."""
SMOOTHING: Final = 0.1
"""How much one more row says about how long rows take."""

T = TypeVar("T")
N = TypeVar("N")


@dataclass(slots=True, eq=False)
class Handed(Generic[T]):
    """A row without a fate.

    Args:
        key: What it is called: no two rows of a distribution are called the same.
        row: The row.
        losses: How often it was lost with its node.
    """

    key: Hashable
    row: T
    losses: int = 0


@dataclass(slots=True)
class _Node(Generic[T]):
    places: int
    out: dict[Any, Handed[T]] = field(default_factory=dict[Any, Handed[T]])
    served: bool = False
    seconds: float | None = None  # that a row takes here, lately

    @property
    def ahead(self) -> int:
        """How many rows it may have beyond its places: none if rows take long, since others might begin with them."""
        if self.seconds is None or not self.places:
            return 0
        return min(math.floor(AHEAD_SECONDS * self.places / max(self.seconds, 1e-6)), AHEAD_MOST * self.places)


class Distribution(Generic[N, T]):
    """Hands out rows to nodes.

    Args:
        expected: How many nodes there will be about, so that the first one does not take what others could begin with.
        losses: How often a row may be lost with its node, at least 1.

    Example:
        >>> from otpy.evaluate.distribution import Distribution
        >>> rows = Distribution[str, str](expected=2)
        >>> for number, row in enumerate("abcd"):
        ...     rows.add(number, row)
        >>> rows.join("first", places=2)
        >>> rows.join("second", places=2)
        >>> [handed.row for handed in rows.piece("first")], [handed.row for handed in rows.piece("second")]
        (['a', 'b'], ['c', 'd'])
        >>> rows.ended("first", 0, seconds=0.2).row
        'a'
        >>> rows.lost("second")  # nothing has failed yet
        []
        >>> [handed.row for handed in rows.piece("first")]
        ['c', 'd']
    """

    def __init__(self, *, expected: int = 1, losses: int = LOSSES) -> None:
        """Know no row and no node."""
        self.expected, self._most = expected, losses
        self._nodes: dict[N, _Node[T]] = {}
        self._open: dict[Hashable, Handed[T]] = {}
        self._fresh: deque[Handed[T]] = deque()
        self._again: deque[Handed[T]] = deque()
        self._suspects: deque[Handed[T]] = deque()
        self._closed = False

    # -- rows --------------------------------------------------------------------------------------------------------

    def add(self, key: Hashable, row: T) -> None:
        """Take in a row that is to be handed out.

        Args:
            key: What it is called.
            row: The row.
        """
        handed = Handed(key, row)
        self._open[key] = handed
        self._fresh.append(handed)

    def close(self) -> None:
        """Know that there will be no more rows."""
        self._closed = True

    @property
    def done(self) -> bool:
        """Whether every row has its fate."""
        return self._closed and not self._open

    @property
    def waiting(self) -> int:
        """Rows that have never been handed out."""
        return len(self._fresh)

    @property
    def wanted(self) -> int:
        """How many more rows there should be, so that every node finds what it has room for."""
        if self._closed:
            return 0
        least = FIRST * self.expected
        return max(sum(2 * (node.places + node.ahead) for node in self._nodes.values()), least) - len(self._fresh)

    def hungry(self, node: N) -> bool:
        """Return whether a node could begin with more rows than there were, and there will be more.

        Args:
            node: The node.
        """
        it = self._nodes[node]
        return not self._closed and len(it.out) < it.places

    @property
    def under_way(self) -> int:
        """Rows that nodes have."""
        return sum(len(node.out) for node in self._nodes.values())

    # -- nodes -------------------------------------------------------------------------------------------------------

    @property
    def nodes(self) -> tuple[N, ...]:
        """The nodes that take part."""
        return tuple(self._nodes)

    def join(self, node: N, places: int) -> None:
        """Let a node take part.

        Args:
            node: What it is called.
            places: How many rows it works on at the same time.
        """
        self._nodes[node] = _Node(places)

    def resize(self, node: N, places: int) -> None:
        """Know that a node works on more rows at the same time, or fewer.

        Args:
            node: The node.
            places: How many now.
        """
        self._nodes[node].places = places

    def piece(self, node: N) -> list[Handed[T]]:
        """Return the rows that a node is to have now: what it has places for, and a little ahead.

        Args:
            node: The node.
        """
        it = self._nodes[node]
        free = it.places - len(it.out)
        among = max(self.expected, len(self._nodes))
        if self._closed and among > sum(other is not it and other.served for other in self._nodes.values()) + 1:
            fair = math.ceil((self._queued() + self.under_way) / among)  # whoever has not begun should find something
            free = min(free, fair - len(it.out))
        given = self._take(it, free)
        it.served = it.served or bool(given)
        ahead = it.places + it.ahead - len(it.out)
        if it.ahead and len(it.out) >= it.places:
            given += self._take(it, min(ahead, math.ceil(self._queued() / (2 * among))))  # near the end, less
        return given

    def _queued(self) -> int:
        return len(self._fresh) + len(self._again) + len(self._suspects)

    def _take(self, node: _Node[T], most: int) -> list[Handed[T]]:
        taken: list[Handed[T]] = []
        while len(taken) < most and (handed := self._next(node)) is not None:
            node.out[handed.key] = handed
            taken.append(handed)
        return taken

    def _next(self, node: _Node[T]) -> Handed[T] | None:
        alone = not any(self._suspect(handed) for handed in node.out.values()) if self._suspects else False
        for queue, allowed in ((self._again, True), (self._suspects, alone), (self._fresh, True)):
            while allowed and queue:
                handed = queue.popleft()
                if self._open.get(handed.key) is handed:  # else its fate has come from a node that was given up
                    return handed
        return None

    def _suspect(self, handed: Handed[T]) -> bool:
        return handed.losses > 0 and handed.losses >= self._most - 1

    def ended(self, node: N, key: Hashable, seconds: float) -> Handed[T] | None:
        """Take in a row's fate; returns the row, or `None` if it has had its fate before.

        Args:
            node: Who it comes from; that may have been given up meanwhile.
            key: The row.
            seconds: How long it took.
        """
        if (it := self._nodes.get(node)) is not None:
            it.out.pop(key, None)
            known = it.seconds
            it.seconds = seconds if known is None else known + SMOOTHING * (seconds - known)
        return self._open.pop(key, None)

    def lost(self, node: N) -> list[Handed[T]]:
        """Give up a node: what it had goes to others; returns the rows that were lost once too often.

        Args:
            node: The node; nothing happens if it does not take part.
        """
        it = self._nodes.pop(node, None)
        failed: list[Handed[T]] = []
        for handed in reversed(() if it is None else tuple(it.out.values())):  # to the front, in their order
            if self._open.get(handed.key) is not handed:
                continue
            handed.losses += 1
            if handed.losses >= self._most:
                failed.append(self._open.pop(handed.key))
            else:
                (self._suspects if self._suspect(handed) else self._again).appendleft(handed)
        return failed[::-1]

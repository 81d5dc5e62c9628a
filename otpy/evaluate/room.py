"""How many rows may be under way: as many as you say, or as many as the clients can use. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from otpy.clients.traffic import Traffic

__all__ = ["MOST", "Room"]

MOST: Final = 10_000
"""Rows under way if you do not say; more of them wait for nothing but each other."""
FIRST: Final = 64
"""Rows to begin with."""
QUEUE: Final = 8
"""Requests that may wait at the clients at least, so that none of them has nothing to do."""


class Room:
    """Says how many more rows may be started.

    Without a number of yours it starts few, and twice as many as have got through to the providers, as long as hardly
    anything waits at the clients: the clients know what the providers take.

    Args:
        most: Rows under way; `None` to go by the traffic.
        traffic: What goes through the clients.

    Example:
        >>> from otpy.clients.traffic import Traffic
        >>> from otpy.evaluate.room import Room
        >>> traffic = Traffic()
        >>> room = Room(None, traffic)
        >>> room(0), room(64)
        (64, 0)
        >>> traffic.flow("default").in_flight = 64
        >>> room(64)
        64
        >>> traffic.flow("default").waiting = 6
        >>> room(64)
        2
    """

    def __init__(self, most: int | None, traffic: Traffic) -> None:
        """Know of no row yet."""
        self._most, self._traffic = most, traffic
        self.ended = 0

    def __call__(self, under_way: int) -> int:
        """Return how many more may be started.

        Args:
            under_way: How many there are.
        """
        if self._most is not None:
            return self._most - under_way
        in_flight, waiting = self._traffic.in_flight, self._traffic.waiting
        more = FIRST
        if waiting:
            more = max(QUEUE, in_flight // 10) - waiting  # the clients have enough, or nearly
        elif in_flight:
            more = max(QUEUE, in_flight)
        return min(more, FIRST + 2 * (in_flight + self.ended) - under_way, MOST - under_way)

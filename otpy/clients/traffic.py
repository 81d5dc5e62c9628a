"""What goes through the clients at this moment, for whoever feeds them: an evaluation, a progress bar.

Every client writes down its own flow; anybody on the application's loop may read it.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Flow", "Traffic"]


@dataclass(slots=True)
class Flow:
    """One client's.

    Args:
        waiting: Requests that wait for their turn.
        in_flight: Requests that are at the provider.
        refused: How often the provider has said 429 so far.
    """

    waiting: int = 0
    in_flight: int = 0
    refused: int = 0


class Traffic:
    """All clients' flows.

    Example:
        >>> from otpy.clients.traffic import Traffic
        >>> traffic = Traffic()
        >>> traffic.flow("default").waiting = 3
        >>> traffic.waiting, traffic.in_flight
        (3, 0)
    """

    def __init__(self) -> None:
        """Know no client."""
        self._flows: dict[str, Flow] = {}

    def flow(self, client: str) -> Flow:
        """Return a client's flow, to be read or written.

        Args:
            client: Its name.
        """
        return self._flows.setdefault(client, Flow())

    @property
    def waiting(self) -> int:
        """Requests that wait for their turn, at any client."""
        return sum(flow.waiting for flow in self._flows.values())

    @property
    def in_flight(self) -> int:
        """Requests that are at a provider."""
        return sum(flow.in_flight for flow in self._flows.values())

    @property
    def refused(self) -> int:
        """How often any provider has said 429 so far."""
        return sum(flow.refused for flow in self._flows.values())

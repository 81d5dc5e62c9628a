"""Single flight: identical requests under way at the same time are one request with several callers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from otpy.clients.labels import ANYBODY

if TYPE_CHECKING:
    from otpy.actors import Caller, Ref
    from otpy.clients.codec import Limits
    from otpy.clients.streaming import Sink
    from otpy.lm import LMRequest

__all__ = ["Flight", "Flights"]


class Flight:
    """One request on its way, from the queue to its answer, through all its attempts.

    Args:
        key: The content hash it is shared by, or `None` if it is not shared.
        request: What is asked.
        sink: Where the pieces of the answer go, if they are wanted.
    """

    __slots__ = (
        "admission",
        "attempt",
        "callers",
        "charge",
        "context",
        "filled",
        "hasty",
        "key",
        "labels",
        "limits",
        "outcome",
        "request",
        "sink",
        "transport",
        "worker",
    )

    def __init__(self, key: str | None, request: LMRequest, sink: Sink | None = None) -> None:
        """Start with nobody waiting and nothing tried."""
        self.sink = sink
        self.key = key
        self.request = self.filled = request
        self.callers: list[Caller] = []
        self.attempt = 0
        self.worker: Ref[Any] | None = None
        self.admission: Any = None
        self.transport: Any = None
        self.charge: Any = None
        self.context: tuple[str, ...] = ()
        self.labels: Any = ANYBODY
        self.hasty = False
        self.limits: Limits | None = None
        self.outcome: object = None

    @property
    def wanted(self) -> bool:
        """Whether anybody still waits for the answer."""
        return any(caller.waiting for caller in self.callers)


class Flights:
    """The book of shared flights, by key."""

    def __init__(self) -> None:
        """Start empty."""
        self._shared: dict[str, Flight] = {}

    def join(
        self, key: str | None, request: LMRequest, caller: Caller, sink: Sink | None = None
    ) -> tuple[Flight, bool]:
        """Put a caller on the flight of this key.

        Args:
            key: The request's content hash; `None` makes a flight of its own.
            request: What is asked.
            caller: Who waits.
            sink: As in `Flight`; of a flight of its own.

        Returns:
            The flight, and whether it is new and has to be sent.
        """
        flight = None if key is None else self._shared.get(key)
        if flight is not None and flight.wanted:
            flight.callers.append(caller)
            return flight, False
        flight = Flight(key, request, sink)
        flight.callers.append(caller)
        if key is not None:
            self._shared[key] = flight
        return flight, True

    def land(self, flight: Flight) -> list[Caller]:
        """Take a flight out of the book; returns its callers."""
        if flight.key is not None and self._shared.get(flight.key) is flight:
            del self._shared[flight.key]
        return flight.callers

    def __len__(self) -> int:
        """Count the shared flights."""
        return len(self._shared)

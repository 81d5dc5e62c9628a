"""What a client can be asked: its calls, and how it refuses one that comes too late."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from otpy.actors import Call
from otpy.clients.labels import ANYBODY, Labels
from otpy.lm import LMResponse

if TYPE_CHECKING:
    from otpy.clients.streaming import Sink
    from otpy.lm import LMRequest

__all__ = ["Ask", "ClientStatus", "Moved", "ResetBreaker"]


@dataclass(frozen=True, slots=True)
class Ask(Call[LMResponse]):
    """Ask the model.

    Args:
        request: What to ask.
        key: The request's content hash if its answer may be shared with identical requests, else `None`.
        sink: Where the pieces of the answer go while it is being written, if they are wanted.
        labels: Whose it is, for the ledger.
        hasty: Whether somebody else can be asked if the circuit is open: then nobody waits for it to close.
        context: What, besides the request, the key is made of.
    """

    request: LMRequest
    key: str | None = None
    sink: Sink | None = None
    labels: Labels = ANYBODY
    hasty: bool = False
    context: tuple[str, ...] = ()


class Moved(Exception):
    """The client's model has been changed since the key of a request was made; it is to be asked anew."""


@dataclass(frozen=True, slots=True)
class ClientStatus(Call[dict[str, Any]]):
    """Ask a client how it is: breaker state, requests in flight and waiting, totals."""


@dataclass(frozen=True, slots=True)
class ResetBreaker(Call[None]):
    """Close a circuit by hand.

    Args:
        model: Of which model; `None` for the client's own.
    """

    model: str | None = None

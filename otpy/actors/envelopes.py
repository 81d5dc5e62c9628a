"""What lies in a mailbox besides calls and plain messages.

A cast is a cell with the message in it: the cheapest envelope there is, and one that nobody sends by mistake.
"""

from __future__ import annotations

from types import CellType
from typing import TYPE_CHECKING

from otpy.actors.caller import Caller

if TYPE_CHECKING:
    from otpy.actors.reasons import Reason

__all__ = ["CastEnvelope", "Continue", "StopRequest", "unwrapped"]

CastEnvelope = CellType
"""Marks a message in the mailbox as a cast."""


class Continue:
    """Asks for `handle_continue`."""

    __slots__ = ("argument",)

    def __init__(self, argument: object) -> None:
        """Keep what the callback put into `then=`."""
        self.argument = argument


class StopRequest:
    """Asks for an orderly end; whoever asked waits for the death, not for an answer."""

    __slots__ = ("reason",)

    def __init__(self, reason: Reason) -> None:
        """Keep the reason."""
        self.reason = reason


def unwrapped(item: object) -> object:
    """Return the message that somebody sent."""
    if type(item) is Caller:
        return item.request
    if type(item) is CastEnvelope:
        return item.cell_contents
    return item.argument if type(item) is Continue else item

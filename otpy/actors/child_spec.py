"""What a supervisor has to know of a child; kept below the supervisors so that every behaviour can describe itself.

Source: `supervisor(3)`, "child specification".
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from otpy.errors import InvalidChildSpec

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from otpy.actors.ref import Ref

__all__ = ["BRUTAL_KILL", "INFINITY", "ChildSpec", "ChildType", "Restart", "Shutdown_"]

BRUTAL_KILL: Final = "brutal_kill"
"""Shut a child down by killing it, with no time to clean up."""
INFINITY: Final = math.inf
"""Wait for a child to shut down for as long as it takes; right for supervisors, risky for workers."""

Shutdown_: TypeAlias = float | Literal["brutal_kill"]


class Restart(StrEnum):
    """When a child that ended is started again."""

    PERMANENT = "permanent"
    """Always: for what must be there."""
    TRANSIENT = "transient"
    """Only if it ended abnormally: for work that has an end."""
    TEMPORARY = "temporary"
    """Never, and its spec is forgotten: for work whose owner deals with failure."""


class ChildType(StrEnum):
    """What a child is; it changes the default shutdown and the counts."""

    WORKER = "worker"
    """Does work; five seconds to shut down unless told otherwise."""
    SUPERVISOR = "supervisor"
    """Has children of its own; as long as it needs to shut down."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildSpec:
    """How a child is started, restarted and stopped.

    Args:
        id: Names the child within its supervisor.
        start: Starts the process, linked to the running one, and returns its reference.
        restart: When to start it again.
        shutdown: Seconds it gets to shut down before it is killed, `BRUTAL_KILL`, or `INFINITY`; by default 5 for a
            worker and `INFINITY` for a supervisor.
        type: Worker or supervisor.
        significant: Whether its own end can end the supervisor (see `auto_shutdown`).

    Raises:
        InvalidChildSpec: If a value is not one of those, or a permanent child is significant.
    """

    id: Any
    start: Callable[[], Awaitable[Ref[Any]]]
    restart: Restart = Restart.PERMANENT
    shutdown: Shutdown_ | None = None
    type: ChildType = ChildType.WORKER
    significant: bool = False

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        if not callable(self.start):
            raise InvalidChildSpec(f"start of child {self.id!r}", self.start, "a function that starts the process")
        try:
            hash(self.id)
        except TypeError:
            raise InvalidChildSpec("id", self.id, "anything hashable") from None
        for field, kind in (("restart", Restart), ("type", ChildType)):
            try:
                object.__setattr__(self, field, kind(getattr(self, field)))
            except ValueError:
                allowed = ", ".join(repr(member.value) for member in kind)
                raise InvalidChildSpec(f"{field} of child {self.id!r}", getattr(self, field), allowed) from None
        shutdown = self.shutdown
        if shutdown is None:
            object.__setattr__(self, "shutdown", INFINITY if self.type is ChildType.SUPERVISOR else 5.0)
        elif shutdown != BRUTAL_KILL and (
            isinstance(shutdown, (bool, str)) or not isinstance(shutdown, (int, float)) or not shutdown >= 0
        ):
            allowed = "seconds >= 0, BRUTAL_KILL, INFINITY"
            raise InvalidChildSpec(f"shutdown of child {self.id!r}", shutdown, allowed)
        if not isinstance(self.significant, bool):
            raise InvalidChildSpec(f"significant of child {self.id!r}", self.significant, "True, False")
        if self.significant and self.restart is Restart.PERMANENT:
            raise InvalidChildSpec(
                f"significant of child {self.id!r}", self.significant, "False for a permanent child, which never ends"
            )

    def but(self, **changes: Any) -> ChildSpec:
        """Return a copy with other values."""
        return replace(self, **changes)

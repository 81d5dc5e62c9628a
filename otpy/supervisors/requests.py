"""What may be asked of a supervisor, and what it tells of its children."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from otpy.actors import Call

if TYPE_CHECKING:
    from otpy.actors import ChildType, Ref

__all__ = ["ChildInfo", "CountChildren", "Counts", "StartChild", "WhichChildren", "WithChild"]


@dataclass(frozen=True, slots=True)
class ChildInfo:
    """A child as its supervisor sees it.

    Args:
        id: Its id; `None` for a child of a dynamic or `simple_one_for_one` supervisor.
        ref: Its process, if it has one.
        state: `"up"`, `"down"` or `"restarting"`.
        type: Worker or supervisor.
        restarts: How often it has been restarted.
    """

    id: Any
    ref: Ref[Any] | None
    state: str
    type: ChildType
    restarts: int = 0


@dataclass(frozen=True, slots=True)
class Counts:
    """How many children there are.

    Args:
        specs: Children known; 1, the template, under `simple_one_for_one`.
        active: Children with a live process.
        supervisors: Children that are supervisors.
        workers: Children that are not.
    """

    specs: int
    active: int
    supervisors: int
    workers: int


@dataclass(slots=True)  # made for every child that comes, and frozen costs
class StartChild(Call[Any]):
    """Start a child: of a spec, the one argument, or of the template with further arguments (`simple_one_for_one`)."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]


@dataclass(slots=True)  # as for `StartChild`
class WithChild(Call[Any]):
    """Do something with the child of this id (or this reference, where children have no ids)."""

    action: str
    id: object


@dataclass(frozen=True, slots=True)
class WhichChildren(Call[list[ChildInfo]]):
    """List the children in start order."""


@dataclass(frozen=True, slots=True)
class CountChildren(Call[Counts]):
    """Count the children."""

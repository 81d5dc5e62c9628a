"""What the driver of an evaluation on many nodes and its nodes say to each other, and who they are to each other."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol

from otpy.clients.labels import Labels  # noqa: TC001 - a field's type
from otpy.evaluate.row import Row  # noqa: TC001 - a field's type
from otpy.evaluate.shares import CapKey

if TYPE_CHECKING:
    from collections.abc import Mapping

    from otpy.clients.book import Book
    from otpy.clients.budget import Cap
    from otpy.clients.traffic import Traffic
    from otpy.config.settings import Settings
    from otpy.lm import Usage

__all__ = ["POLL", "Entry", "Fleet", "Home", "NodeAway", "NodeLost", "Orders", "Report", "Worker"]

POLL: Final = 0.25
"""Seconds after which a node reports although there is nothing to tell."""


class NodeAway(Exception):
    """A node is out of reach; it may be alive."""


class NodeLost(Exception):
    """A node has lost what it had.

    Args:
        why: What is known of it.
        for_good: Whether it will never begin again.
    """

    def __init__(self, why: str, *, for_good: bool) -> None:
        """Keep whether it comes back."""
        super().__init__(why)
        self.for_good = for_good


@dataclass(frozen=True, slots=True)
class Entry:
    """A request that is over, for the ledger; as in `Book.enter`."""

    labels: Labels
    usage: Usage | None
    money: Any
    failed: bool


@dataclass(frozen=True, slots=True)
class Orders:
    """What a node hears.

    Args:
        number: Which exchange this is; a repeated one is answered as before.
        rows: Rows to be evaluated, each with its index and which run over the devset it is part of.
        settings: Settings that change, by their paths.
        limits: How much it may spend in all under each cap; `None` for no change.
        refused: Caps of which there is no more than this.
        give_back: Whether it is to lower its limits to what it needs.
        wait: Seconds until it reports in any case.
    """

    number: int
    rows: tuple[tuple[int, int, Any], ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict[str, Any])
    limits: Mapping[CapKey, Any] | None = None
    refused: tuple[CapKey, ...] = ()
    give_back: bool = False
    wait: float = POLL


@dataclass(frozen=True, slots=True)
class Report:
    """What a node tells.

    Args:
        rows: The fates that have come since; without their examples, which the driver has.
        places: How many rows it works on at the same time.
        needs: Caps under which it has to wait, and how much it would have to be allowed in all.
        floors: The limits that it goes by now, if it was to give back.
        spent: What it has spent under each cap.
        entries: The requests that are over.
        traffic: Requests that wait, that are in flight, and how many were refused so far.
    """

    rows: tuple[Row, ...]
    places: int
    needs: Mapping[CapKey, Any] = field(default_factory=dict[CapKey, Any])
    floors: Mapping[CapKey, Any] | None = None
    spent: Mapping[CapKey, Any] = field(default_factory=dict[CapKey, Any])
    entries: tuple[Entry, ...] = ()
    traffic: tuple[int, int, int] = (0, 0, 0)


class Worker(Protocol):
    """A node, as the driver sees it."""

    @property
    def name(self) -> str:
        """What it is called, for people."""
        ...

    async def begin(self, settings: Mapping[str, Any], caps: tuple[Cap, ...]) -> int:
        """Start a tree and return how many rows it works on at the same time.

        Args:
            settings: Settings that are different from the driver's, by their paths.
            caps: The caps of which it will hear its part.

        Raises:
            NodeAway: If it is out of reach.
            NodeLost: If it died.
            EvaluationError: If it cannot begin, as when its versions are not the driver's.
        """
        ...

    async def exchange(self, orders: Orders) -> Report:
        """Give orders and wait for the report.

        Raises:
            NodeAway: If it is out of reach; the same orders are given again then.
            NodeLost: If what it had is lost.
        """
        ...

    async def finish(self) -> Report:
        """Stop what it does and return its last report.

        Raises:
            NodeAway: If it is out of reach.
            NodeLost: If it died.
        """
        ...


class Fleet(Protocol):
    """The nodes there are."""

    @property
    def expected(self) -> int:
        """How many nodes there will be, about."""
        ...

    async def joined(self) -> list[Worker]:
        """Return the nodes that were not returned before."""
        ...


@dataclass(frozen=True, slots=True)
class Home:
    """The application of the driver, whose settings and budget the nodes share.

    Args:
        settings: How the settings are now, and when they change.
        book: The ledger's book: what nodes spend is entered there.
        traffic: Where the nodes' flows are written down.
    """

    settings: Any
    book: Book
    traffic: Traffic

    @property
    def now(self) -> Settings:
        """The settings as they are now."""
        return self.settings()  # type: ignore[no-any-return]

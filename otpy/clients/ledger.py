"""`Ledger`: the process in front of the book of what was asked, what it took and what it cost.

The book outlives the process, so a crash loses no sum. What a crash can lose, word of how a request went, is found when
its reservation is forgotten: it is counted as spent then, and reported.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from otpy.actors import Call, Cast, GenServer, NoReply
from otpy.clients.book import Book, Sums
from otpy.clients.budget import Cap, Estimate, Reservation
from otpy.errors import BudgetExceeded, ConfigError
from otpy.telemetry import bus as telemetry

if TYPE_CHECKING:
    from decimal import Decimal

    from otpy.actors import Caller
    from otpy.clients.budget import CapState  # noqa: F401 - ruff does not read `Call["list[CapState]"]`
    from otpy.clients.labels import Labels
    from otpy.lm import Usage

__all__ = ["Admit", "CloseRun", "GetCaps", "GetSums", "Ledger", "OpenRun", "Release", "Settle"]


@dataclass(frozen=True, slots=True)
class Admit(Call[Reservation]):
    """Ask whether a request may be sent; the answer is a `Reservation`, or `BudgetExceeded`."""

    estimate: Estimate
    labels: Labels


@dataclass(frozen=True, slots=True)
class Settle(Cast):
    """A request is over; arguments as in `Reservation.settle`."""

    reservation: Reservation
    usage: Usage | None
    money: Decimal | None = None
    failed: bool = False


@dataclass(frozen=True, slots=True)
class Release(Cast):
    """A request was never sent."""

    reservation: Reservation


@dataclass(frozen=True, slots=True)
class OpenRun(Call[None]):
    """Begin a run, as in `Book.open_run`."""

    run: str
    caps: tuple[Cap, ...] = ()


@dataclass(frozen=True, slots=True)
class CloseRun(Call[Sums]):
    """End a run, as in `Book.close_run`."""

    run: str


@dataclass(frozen=True, slots=True)
class GetSums(Call["dict[Labels, Sums]"]):
    """Ask for sums, as in `Book.by`."""

    by: tuple[str, ...] = ()
    said: tuple[tuple[str, str | None], ...] = ()


@dataclass(frozen=True, slots=True)
class GetCaps(Call["list[CapState]"]):
    """Ask how the caps stand."""


class Ledger(GenServer):
    """The ledger's process.

    Args (of `child_spec`):
        book: What it keeps; it outlives this process.
    """

    def init(self, book: Book) -> None:
        """Take over the book; after a crash, say so."""
        self.book = book
        if book.restarts:
            telemetry.emit("otpy.ledger.restart", restarts=book.restarts)
        book.restarts += 1
        self._report()

    def _report(self) -> None:
        """Say it if nobody will ever know how some requests went."""
        self.book.budget.collect()
        lost, self.book.reported = self.book.budget.lost - self.book.reported, self.book.budget.lost
        if lost:
            telemetry.emit("otpy.ledger.lost", requests=lost)

    def handle_call(self, request: Any, caller: Caller) -> Any:
        """Admit requests and answer questions."""
        if self.book.budget.forgotten:
            self._report()
        answer: Any = None
        match request:
            case Admit(estimate, labels):
                answer = self._admit(estimate, labels, caller)
            case OpenRun(run, caps):
                self.book.open_run(run, caps)
            case CloseRun(run):
                answer = self.book.close_run(run)
            case GetSums(by, said):
                try:
                    answer = self.book.by(*by, **dict(said))
                except ConfigError as error:  # whoever asked is wrong, and nobody else's sums go
                    caller.fail(error)
                    return NoReply()
            case GetCaps():
                answer = self.book.budget.states()
            case _:
                return super().handle_call(request, caller)
        return answer

    def _admit(self, estimate: Estimate, labels: Labels, caller: Caller) -> Any:
        try:
            return self.book.admit(estimate, labels)
        except BudgetExceeded as error:
            telemetry.emit("otpy.budget.exceeded", labels=str(labels), cap=str(error.cap), error=error)
            caller.fail(error)
            return NoReply()

    def handle_cast(self, message: Any) -> Any:
        """Enter what is over."""
        match message:
            case Settle(reservation, usage, money, failed):
                reservation.settle(usage, money, failed=failed)
            case Release(reservation):
                reservation.release()
            case _:
                return super().handle_cast(message)
        return None

    def status(self) -> str:
        """Say what was spent, for the printed tree."""
        return str(self.book.total())

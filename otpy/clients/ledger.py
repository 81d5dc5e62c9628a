"""What was asked, what it took and what it cost: by client, model, run, program, predictor and example.

`Book` is pure and holds everything; `Ledger` is the process in front of it. The book outlives the process, so a crash
loses no sum. What a crash can lose, word of how a request went, is found when its reservation is forgotten: it is
counted as spent then, and reported.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from decimal import Decimal
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from otpy.actors import Call, Cast, GenServer, NoReply
from otpy.clients.budget import ANYBODY, Budget, Cap, Estimate, Labels, Reservation
from otpy.errors import BudgetExceeded, ConfigError
from otpy.lm import Usage
from otpy.telemetry import bus as telemetry

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from otpy.actors import Caller
    from otpy.clients.budget import CapState  # noqa: F401 - ruff does not read `Call["list[CapState]"]`

__all__ = ["Admit", "Book", "CloseRun", "GetCaps", "GetSums", "Ledger", "OpenRun", "Release", "Settle", "Sums"]

SCHEMA: Final = 1
"""The version of a snapshot's shape."""


@dataclass(slots=True)
class Sums:
    """What some requests took together.

    Args:
        requests: Attempts that were sent.
        answered: Those that were answered.
        failed: Those that were not.
        input_tokens: Tokens read, cached ones included.
        output_tokens: Tokens written, reasoning included.
        cached_tokens: The part of `input_tokens` the provider had cached.
        reasoning_tokens: The part of `output_tokens` spent on reasoning.
        cache_write_tokens: The part of `input_tokens` the provider wrote into its cache.
        money: Dollars, of those requests whose price is known.
        unpriced: Requests whose price is not known.
        unmeasured: Requests of which nobody can say what they took.

    Example:
        >>> from decimal import Decimal
        >>> from otpy.clients.ledger import Sums
        >>> print(Sums(requests=2, answered=2, input_tokens=90, output_tokens=10, money=Decimal("0.5"), unpriced=1))
        2 requests, 2 answered, 0 failed; 90 tokens read, 10 written; at least $0.50 (1 without a known price)
    """

    requests: int = 0
    answered: int = 0
    failed: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    cache_write_tokens: int = 0
    money: Decimal = Decimal(0)
    unpriced: int = 0
    unmeasured: int = 0

    @property
    def money_is_lower_bound(self) -> bool:
        """Whether some prices are not known, so that it cost `money` or more."""
        return self.unpriced > 0

    @property
    def tokens_are_lower_bound(self) -> bool:
        """Whether some requests ended in a way that nobody can say what they took."""
        return self.unmeasured > 0

    @property
    def usage(self) -> Usage:
        """The tokens, in the words of an answer."""
        return Usage(
            self.input_tokens,
            self.output_tokens,
            self.cached_tokens,
            self.reasoning_tokens,
            self.requests,
            self.cache_write_tokens,
        )

    def enter(self, usage: Usage | None, money: Decimal | None, *, failed: bool) -> None:
        """Add one request.

        Args:
            usage: What it took, or `None`.
            money: What it cost, or `None`.
            failed: Whether there was no answer.
        """
        self.requests += 1
        if failed:
            self.failed += 1
        else:
            self.answered += 1
        if usage is None:
            self.unmeasured += 1
        else:
            self.input_tokens += usage.input_tokens
            self.output_tokens += usage.output_tokens
            self.cached_tokens += usage.cached_tokens
            self.reasoning_tokens += usage.reasoning_tokens
            self.cache_write_tokens += usage.cache_write_tokens
        if money is None:
            self.unpriced += 1
        else:
            self.money += money

    def add(self, other: Sums) -> None:
        """Add what others took."""
        for name in Sums.__slots__:
            setattr(self, name, getattr(self, name) + getattr(other, name))

    def __str__(self) -> str:
        """Print it for people; a lower bound says so."""
        money = self.money
        dollars = f"${money:.2f}" if money == round(money, 2) else f"${money.normalize():f}"
        why = [
            f"{count} {what}"
            for count, what in (
                (self.unpriced, "without a known price"),
                (self.unmeasured, "of which nobody knows what they took"),
            )
            if count
        ]
        return (
            f"{self.requests:,} requests, {self.answered:,} answered, {self.failed:,} failed; {self.input_tokens:,}"
            f" tokens read, {self.output_tokens:,} written; {'at least ' if why else ''}{dollars}"
            + (f" ({', '.join(why)})" if why else "")
        )


class Book:
    """Everything that was asked; sums by labels, and the caps.

    Args:
        caps: The caps in force from the beginning.
        max_entries: Sums kept by different labels; past them the oldest lose all labels but client and model, and then
            the model. Totals stay whole.
        max_examples: Examples kept apart in a run while it is open; of further ones only the run's sums are kept.

    Example:
        >>> from decimal import Decimal
        >>> from otpy.clients.budget import Estimate, Labels
        >>> from otpy.clients.ledger import Book
        >>> from otpy.lm import Usage
        >>> book = Book()
        >>> book.admit(Estimate(), Labels("fast", run="r1")).settle(Usage(10, 2), Decimal("0.01"))
        True
        >>> book.admit(Estimate(), Labels("slow", run="r1")).settle(Usage(30, 4), None)
        True
        >>> {labels.client: sums.input_tokens for labels, sums in book.by("client", run="r1").items()}
        {'fast': 10, 'slow': 30}
        >>> book.total().money, book.total().money_is_lower_bound
        (Decimal('0.01'), True)
    """

    def __init__(self, caps: Iterable[Cap] = (), *, max_entries: int = 10_000, max_examples: int = 100_000) -> None:
        """Start empty."""
        self.budget = Budget(caps, self.enter)
        self.restarts = self.reported = 0
        self._max_entries, self._max_examples = max_entries, max_examples
        self._entries: OrderedDict[Labels, Sums] = OrderedDict()
        self._examples: dict[str, dict[str, Sums]] = {}

    # -- writing ---------------------------------------------------------------------------------------------------

    def admit(self, estimate: Estimate, labels: Labels) -> Reservation:
        """Set aside what a request may take; settling the reservation enters it into the book.

        Args:
            estimate: What it may take.
            labels: Whose it is.

        Raises:
            BudgetExceeded: If a cap would be passed; the request is not to be sent.
        """
        return self.budget.admit(estimate, labels)

    def enter(self, labels: Labels, usage: Usage | None, money: Decimal | None, failed: bool) -> None:  # noqa: FBT001 - as a callback
        """Enter one request that is over, and that no reservation stands for.

        Args:
            labels: Whose it was.
            usage: As in `Reservation.settle`.
            money: As in `Reservation.settle`.
            failed: As in `Reservation.settle`.
        """
        leaf = labels if labels.example is None else labels._replace(example=None)
        sums = self._entries.get(leaf)
        if sums is None:
            sums = self._entries[leaf] = Sums()
            if len(self._entries) > self._max_entries:
                self._fold()
        else:
            self._entries.move_to_end(leaf)
        sums.enter(usage, money, failed=failed)
        if (
            labels.example is not None
            and labels.run is not None
            and (run := self._examples.get(labels.run)) is not None
        ):
            example = run.get(labels.example)
            if example is None:
                if len(run) >= self._max_examples:
                    return
                example = run[labels.example] = Sums()
            example.enter(usage, money, failed=failed)

    def _fold(self) -> None:
        """Let the older half of the entries lose detail: seldom, so that an entry costs the same all the same."""
        *old, _ = islice(self._entries, len(self._entries) // 2 + 1)  # the newest is being written
        fine = [labels for labels in old if labels != Labels(labels.client, labels.model)]
        enough = len(fine) > len(old) // 2
        for labels in fine if enough else old:
            coarse = Labels(labels.client, labels.model if enough else None)
            if labels != coarse:
                self._entries.setdefault(coarse, Sums()).add(self._entries.pop(labels))

    def open_run(self, run: str, caps: Iterable[Cap] = ()) -> None:
        """Begin a run: its examples are kept apart until it is closed.

        Args:
            run: Its name.
            caps: Caps on it; what they say of labels is refined by the run's name.
        """
        self._examples.setdefault(run, {})
        for cap in caps:
            self.budget.add(Cap(cap.kind, cap.limit, cap.where._replace(run=run), cap.allow_unpriced))

    def close_run(self, run: str) -> Sums:
        """End a run: its examples are forgotten, its caps lifted, its sums stay and are returned.

        Args:
            run: Its name.
        """
        self._examples.pop(run, None)
        for state in self.budget.states():
            if state.cap.where.run == run:
                self.budget.remove(state.cap.where)
        return self.total(run=run)

    # -- reading ---------------------------------------------------------------------------------------------------

    def total(self, **said: str | None) -> Sums:
        """Return the sums of all requests with these labels; without any, of all.

        Args:
            said: As in `Labels`, without `example`.
        """
        return self.by(**said).get(ANYBODY, Sums())

    def by(self, *names: str, **said: str | None) -> dict[Labels, Sums]:
        """Return sums grouped by labels.

        Args:
            names: The labels to group by.
            said: Only requests with these labels.

        Raises:
            ValueError: If there is no such label; examples are asked for by `examples`.
        """
        known = Labels._fields[:-1]
        if wrong := [name for name in (*names, *said) if name not in known]:
            raise ValueError(f"{', '.join(wrong)}: no label to group by; there are {', '.join(known)}")
        self.budget.collect()
        wanted = [(known.index(name), value) for name, value in said.items()]
        grouped: dict[Labels, Sums] = {}
        for labels, sums in self._entries.items():
            if all(labels[place] == value for place, value in wanted):
                group = Labels(**{name: getattr(labels, name) for name in names})
                grouped.setdefault(group, Sums()).add(sums)
        return grouped

    def examples(self, run: str) -> dict[str, Sums]:
        """Return the sums of each example of a run that is open.

        Args:
            run: Its name.
        """
        self.budget.collect()
        found = {example: Sums() for example in self._examples.get(run, ())}
        for example, sums in found.items():
            sums.add(self._examples[run][example])
        return found

    # -- a snapshot ------------------------------------------------------------------------------------------------

    def snapshot(self) -> dict[str, Any]:
        """Return all sums and caps as JSON-able data; what is in flight is in it as spent, as far as caps go."""
        states = self.budget.states()
        return {
            "schema": SCHEMA,
            "entries": [[list(labels), _thawed(sums)] for labels, sums in self._entries.items()],
            "examples": {
                run: {example: _thawed(sums) for example, sums in examples.items()}
                for run, examples in self._examples.items()
            },
            "caps": [
                {
                    "kind": state.cap.kind,
                    "limit": str(state.cap.limit),
                    "where": list(state.cap.where),
                    "allow_unpriced": state.cap.allow_unpriced,
                    "spent": str(state.spent + state.reserved),
                }
                for state in states
            ],
        }

    @classmethod
    def restored(cls, data: Mapping[str, Any], **sizes: Any) -> Book:
        """Return the book that a snapshot was made of.

        Args:
            data: What `snapshot` returned.
            sizes: As in the constructor.

        Raises:
            ConfigError: If it is no snapshot of this version.
        """
        if data.get("schema") != SCHEMA:
            raise ConfigError(f"a ledger's snapshot has schema {data.get('schema')!r}; this otpy reads {SCHEMA}")
        book = cls(**sizes)
        try:
            for labels, sums in data["entries"]:
                book._entries[Labels(*labels)] = _frozen(sums)
            for run, examples in data["examples"].items():
                book._examples[run] = {example: _frozen(sums) for example, sums in examples.items()}
            for cap in data["caps"]:
                limit, spent = (Decimal(cap[name]) for name in ("limit", "spent"))
                real = Cap(cap["kind"], limit, Labels(*cap["where"]), cap["allow_unpriced"])
                book.budget.add(real, spent=spent if real.kind == "money" else int(spent))
        except (KeyError, TypeError, ValueError, ArithmeticError, AttributeError) as error:
            raise ConfigError(f"not a ledger's snapshot: {error!r}") from error
        return book


def _thawed(sums: Sums) -> list[int | str]:
    return [str(value) if isinstance(value, Decimal) else value for value in (getattr(sums, n) for n in Sums.__slots__)]


def _frozen(values: list[int | str]) -> Sums:
    read = zip(Sums.__slots__, values, strict=True)
    return Sums(**{name: Decimal(value) if name == "money" else value for name, value in read})  # type: ignore[arg-type]


# -- the process ---------------------------------------------------------------------------------------------------


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
                answer = self.book.by(*by, **dict(said))
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

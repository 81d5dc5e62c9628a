"""What was asked, what it took and what it cost: by client, model, run, program, predictor and example.

Pure; `ledger` has the process in front of it.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from decimal import Decimal
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from otpy.clients.budget import Budget, Cap, Estimate, Reservation
from otpy.clients.labels import ANYBODY, Labels
from otpy.errors import ConfigError
from otpy.lm import Usage

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


__all__ = ["Book", "Sums"]

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
        >>> from otpy.clients.book import Sums
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
        >>> from otpy.clients.budget import Estimate
        >>> from otpy.clients.labels import Labels
        >>> from otpy.clients.book import Book
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
            ConfigError: If there is no such label; examples are asked for by `examples`.
        """
        known = Labels._fields[:-1]
        if wrong := [name for name in (*names, *said) if name not in known]:
            raise ConfigError(f"{', '.join(wrong)}: no label to group by; there are {', '.join(known)}")
        self.budget.collect()
        wanted = [(known.index(name), value) for name, value in said.items()]
        grouped: dict[Labels, Sums] = {}
        for labels, sums in self._entries.items():
            if all(labels[place] == value for place, value in wanted):
                group = Labels(**{name: getattr(labels, name) for name in names})
                grouped.setdefault(group, Sums()).add(sums)
        return grouped

    def example(self, run: str, example: str) -> Sums | None:
        """Return the sums of one example of a run that is open, to be read; `None` if nothing was asked for it yet.

        Args:
            run: The run's name.
            example: The example's label.
        """
        examples = self._examples.get(run)
        return None if examples is None else examples.get(example)

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

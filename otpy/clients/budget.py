"""Hard caps on money, tokens and requests: what a request may take is set aside before it is sent. Pure.

A request is let through only if what is spent, what is set aside for those in flight, and what it might take itself
fit under every cap that concerns it. So a cap is passed by no more than those in flight take beyond what was set aside
for them; where that is the most they can take, by nothing. Single-threaded, but for reservations that are forgotten.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, TypeAlias

from otpy.clients.labels import ANYBODY, Labels
from otpy.errors import BudgetExceeded, ConfigError
from otpy.lm import Media, Text, Usage
from otpy.lm.parts import Reasoning, ToolResult

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from otpy.lm import LMRequest

    Record = Callable[["Labels", Usage | None, Decimal | None, bool], None]

__all__ = [
    "Budget",
    "Cap",
    "CapState",
    "Estimate",
    "Reservation",
    "input_ceiling",
]

Kind: TypeAlias = Literal["money", "tokens", "requests"]

_PER_MESSAGE: Final = 32
"""Tokens that a template may put around a message, a tool or the whole of it."""
_PER_MEDIUM: Final = 20_000
"""Tokens that an image may take however few bytes it has; an estimate, no bound."""


# -- caps -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Cap:
    """How much may be spent, and by whom.

    Args:
        kind: `"money"` (dollars), `"tokens"` (read and written) or `"requests"` (attempts that were sent).
        limit: How much.
        where: Whose requests count: those with these labels; all by default.
        allow_unpriced: Let requests through whose price is not known, which a cap on money otherwise refuses.

    Raises:
        ConfigError: If the kind is unknown or the limit is no number from 0.

    Example:
        >>> from otpy.clients.budget import Cap
        >>> from otpy.clients.labels import Labels
        >>> print(Cap("tokens", 200_000, Labels(run="nightly")))
        the cap of 200,000 tokens on run 'nightly'
    """

    kind: Kind
    limit: Any
    where: Labels = ANYBODY
    allow_unpriced: bool = False

    def __post_init__(self) -> None:
        """Refuse what is no cap."""
        if self.kind not in {"money", "tokens", "requests"}:
            raise ConfigError(f"kind={self.kind!r} of a cap; allowed: 'money', 'tokens', 'requests'")
        try:
            limit = Decimal("NaN") if isinstance(self.limit, bool) else Decimal(str(self.limit))
        except InvalidOperation:
            limit = Decimal("NaN")
        if not limit.is_finite() or limit < 0 or (self.kind != "money" and limit != int(limit)):
            allowed = "dollars" if self.kind == "money" else f"a whole number of {self.kind}"
            raise ConfigError(f"limit={self.limit!r} of a cap on {self.kind}; allowed: {allowed}, 0 or more")
        object.__setattr__(self, "limit", limit if self.kind == "money" else int(limit))
        object.__setattr__(self, "where", Labels(*self.where))

    def __str__(self) -> str:
        """Print it for people."""
        return f"the cap of {_amount(self.kind, self.limit)} on {self.where}"


def _amount(kind: str, amount: Any) -> str:
    return f"${amount:f}" if kind == "money" else f"{amount:,} {kind}"


class Estimate(NamedTuple):
    """What a request may take; for a cap that is never passed, the most it can take.

    Args:
        tokens: Tokens read and written.
        money: Dollars; `None` if its price is not known.
    """

    tokens: int = 0
    money: Decimal | None = None


def input_ceiling(request: LMRequest) -> int:
    """Return how many tokens a request makes the model read at most, without asking anybody.

    No tokenizer makes more tokens of a text than it has bytes in UTF-8. Media are only estimated.

    Args:
        request: What is asked.

    Example:
        >>> from otpy.clients.budget import input_ceiling
        >>> from otpy.lm import LMRequest, Message
        >>> input_ceiling(LMRequest((Message("user", "Grüße"),)))
        71
    """
    count = _PER_MESSAGE * (1 + len(request.messages) + len(request.tools))
    for message in request.messages:
        if isinstance(message.content, str):
            count += _bytes(message.content)
            continue
        for part in message.content:
            if isinstance(part, Media):
                count += max(_PER_MEDIUM, len(part.data or b""))
            elif isinstance(part, (Text, Reasoning)):
                count += _bytes(part.text)
            elif isinstance(part, ToolResult):
                count += _bytes(part.content) + _PER_MESSAGE
            else:
                count += _bytes(part.name) + _bytes(part.input) + _PER_MESSAGE
    if request.schema is not None:
        count += _bytes(request.schema.schema)
    for tool in request.tools:
        count += _bytes(tool.name) + _bytes(tool.description) + _bytes(tool.parameters)
    return count


def _bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "replace"))


# -- admission --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CapState:
    """How a cap stands.

    Args:
        cap: The cap.
        spent: How much of it is spent.
        reserved: How much is set aside for requests in flight.
        refused: How many requests it refused.
    """

    cap: Cap
    spent: Any
    reserved: Any
    refused: int


class _Meter:
    __slots__ = ("cap", "refused", "reserved", "spent")

    def __init__(self, cap: Cap) -> None:
        self.cap = cap
        self.spent: Any = Decimal(0) if cap.kind == "money" else 0
        self.reserved: Any = self.spent
        self.refused = 0

    def asked(self, estimate: Estimate, client: str | None) -> Any:
        """How much of this cap a request may take; refuse it if that is too much."""
        kind, limit = self.cap.kind, self.cap.limit
        asked = 1 if kind == "requests" else estimate.tokens if kind == "tokens" else estimate.money
        if asked is None and self.cap.allow_unpriced:
            asked = Decimal(0)
        used = self.spent + self.reserved
        if asked is not None and used < limit and used + asked <= limit:
            return asked
        self.refused += 1
        raise BudgetExceeded(
            self._words(asked, client), cap=self.cap, limit=limit, spent=self.spent, reserved=self.reserved, asked=asked
        )

    def _words(self, asked: Any, client: str | None) -> str:
        kind = self.cap.kind
        if asked is None:
            return (
                f"{self.cap} cannot be kept: the price of this request is not known, and it was not sent; say"
                " input_price and output_price, in dollars per million tokens, in"
                f"{' otpy.start(…) or' if client == 'default' else ''} [clients.{client or 'NAME'}] of otpy.toml, or"
                " put a cap on tokens instead"
            )
        smaller = "" if kind == "requests" else " or lower max_tokens"
        return (
            f"{self.cap} would be passed: {_amount(kind, self.spent)} spent, {_amount(kind, self.reserved)} reserved"
            f" for requests in flight, up to {_amount(kind, asked)} asked; the request was not sent; raise the"
            f" cap{smaller}"
        )


class Reservation:
    """What is set aside for one request; the first of its methods says how it went, later ones are ignored.

    One that is forgotten, because whoever held it died, counts as spent: nobody can say that it was not.
    """

    __slots__ = ("_budget", "_holds", "estimate", "labels")

    def __init__(
        self, budget: Budget, labels: Labels, estimate: Estimate, holds: tuple[tuple[_Meter, Any], ...]
    ) -> None:
        """Remember what was set aside, and where."""
        self._budget: Budget | None = budget
        self._holds = holds
        self.labels, self.estimate = labels, estimate

    @property
    def open(self) -> bool:
        """Whether nobody has said yet how it went."""
        return self._budget is not None

    def settle(self, usage: Usage | None, money: Decimal | None = None, *, failed: bool = False) -> bool:
        """The request is over; returns whether that was news.

        Args:
            usage: What it took; `None` if that is not known, and then what was set aside counts as spent.
            money: What it cost; `None` if that is not known, and then the same.
            failed: Whether there is no answer; one that failed and took no tokens cost nothing.
        """
        budget, self._budget = self._budget, None
        if budget is None:
            return False
        if failed and money is None and usage is not None and usage.total_tokens == 0:
            money = Decimal(0)
        _settle(self._holds, usage, money)
        budget.over(self.labels)
        budget.record(self.labels, usage, money, failed)
        return True

    def release(self) -> bool:
        """The request was never sent: give everything back; returns whether that was news."""
        budget, self._budget = self._budget, None
        if budget is None:
            return False
        for meter, amount in self._holds:
            meter.reserved -= amount
        budget.over(self.labels)
        return True

    def __del__(self) -> None:
        """Leave word if it was forgotten; this may run in any thread, where nothing else is safe."""
        budget = getattr(self, "_budget", None)
        if budget is not None:
            budget.forgotten.append((self.labels, self._holds))


def _settle(holds: tuple[tuple[_Meter, Any], ...], usage: Usage | None, money: Decimal | None) -> None:
    for meter, amount in holds:
        kind = meter.cap.kind
        real = 1 if kind == "requests" else None if usage is None else usage.total_tokens if kind == "tokens" else money
        meter.reserved -= amount
        meter.spent += amount if real is None else real


class Budget:
    """All caps, and what is spent and set aside under each.

    Args:
        caps: The caps.
        record: Called with the labels, the usage, the money and whether it failed, of every request that is over.

    Example:
        >>> from otpy.clients.budget import Budget, Cap, Estimate
        >>> from otpy.clients.labels import Labels
        >>> from otpy.lm import Usage
        >>> budget = Budget([Cap("tokens", 1_000)])
        >>> reservation = budget.admit(Estimate(700), Labels(client="default"))
        >>> budget.admit(Estimate(700), Labels())
        Traceback (most recent call last):
        otpy.errors.BudgetExceeded: the cap of 1,000 tokens on the whole application would be passed: 0 tokens spent, \
700 tokens reserved for requests in flight, up to 700 tokens asked; the request was not sent; raise the cap or lower \
max_tokens
        >>> reservation.settle(Usage(100, 50))
        True
        >>> budget.states()[0].spent
        150
    """

    def __init__(self, caps: Iterable[Cap] = (), record: Record | None = None) -> None:
        """Start with nothing spent."""
        self.record: Record = _forget if record is None else record
        self.lost = 0
        self.in_flight: dict[str, int] = {}
        """By runs, how many requests are admitted and not over."""
        self.forgotten: deque[tuple[Labels, tuple[tuple[_Meter, Any], ...]]] = deque()
        self._meters: dict[Labels, list[_Meter]] = {}
        self._shapes: tuple[tuple[int, ...], ...] = ()
        self.kinds: frozenset[Kind] = frozenset()
        for cap in caps:
            self.add(cap)

    def add(self, cap: Cap, *, spent: Any = 0) -> None:
        """Put a cap in force; another limit of the same kind on the same labels replaces the one before.

        Args:
            cap: The cap.
            spent: How much of it is spent already, if it is new.
        """
        meters = self._meters.setdefault(cap.where, [])
        for meter in meters:
            if meter.cap.kind == cap.kind:
                meter.cap = cap
                return
        meter = _Meter(cap)
        meter.spent += spent
        meters.append(meter)
        self._reshape()

    def remove(self, where: Labels) -> None:
        """Lift the caps on exactly these labels; what is in flight under them goes on."""
        if self._meters.pop(where, None) is not None:
            self._reshape()

    def _reshape(self) -> None:
        """Note which labels caps ask for, so that a request looks up its caps instead of comparing all; and kinds."""
        self.kinds = frozenset(meter.cap.kind for meters in self._meters.values() for meter in meters)
        self._shapes = tuple(
            {tuple(place for place, value in enumerate(where) if value is not None): None for where in self._meters}
        )

    def admit(self, estimate: Estimate, labels: Labels) -> Reservation:
        """Set aside what a request may take.

        Args:
            estimate: What it may take.
            labels: Whose it is.

        Raises:
            BudgetExceeded: If a cap would be passed; nothing is set aside then, and the request is not to be sent.
        """
        if self.forgotten:
            self.collect()
        holds: list[tuple[_Meter, Any]] = []
        for shape in self._shapes:
            where = ANYBODY if not shape else Labels(*(labels[place] if place in shape else None for place in range(6)))
            holds.extend((meter, meter.asked(estimate, labels.client)) for meter in self._meters.get(where, ()))
        for meter, amount in holds:
            meter.reserved += amount
        if labels.run is not None:
            self.in_flight[labels.run] = self.in_flight.get(labels.run, 0) + 1
        return Reservation(self, labels, estimate, tuple(holds))

    def over(self, labels: Labels) -> None:
        """Know that a request is in flight no more.

        Args:
            labels: Whose it was.
        """
        if labels.run is not None:
            self.in_flight[labels.run] -= 1
            if not self.in_flight[labels.run]:
                del self.in_flight[labels.run]

    def waits(self, error: BudgetExceeded) -> None:
        """Take back that a request was refused: it waits until those in flight have given back what they do not need.

        Args:
            error: What `admit` has raised.
        """
        for meter in self._meters.get(error.cap.where, ()):
            if meter.cap.kind == error.cap.kind:
                meter.refused -= 1

    def collect(self) -> int:
        """Count reservations that were forgotten as spent; returns how many there were, and sums them in `lost`."""
        count = 0
        while self.forgotten:
            labels, holds = self.forgotten.popleft()
            _settle(holds, None, None)
            self.over(labels)
            self.record(labels, None, None, True)  # noqa: FBT003 - as everywhere
            count += 1
        self.lost += count
        return count

    def states(self) -> list[CapState]:
        """Return how each cap stands."""
        self.collect()
        return [
            CapState(meter.cap, meter.spent, meter.reserved, meter.refused)
            for meters in self._meters.values()
            for meter in meters
        ]


def _forget(labels: Labels, usage: Usage | None, money: Decimal | None, failed: bool) -> None:  # noqa: FBT001
    """Keep no book."""

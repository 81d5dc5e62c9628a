"""What a run will take, before anything is asked: requests from the optimizer's formula, tokens from the prompts' size.

A guess with two ends, and no bound: re-asks and retries come on top, and a program that calls a predictor several times
asks more often. The bound is a cap: `max_requests`, `max_tokens`, `max_money`.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

from otpy.clients.charging import Tariff
from otpy.clients.estimate import FIRST_OUTPUT, LETTERS_PER_TOKEN, Estimator
from otpy.clients.running import running
from otpy.errors import NoApplication, OtpyError
from otpy.lm import LMRequest, Usage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from otpy.lm import LMResponse
    from otpy.programs import Predict, Program
    from otpy.signatures import Example

__all__ = ["Estimate", "Writing", "estimated", "price_of"]

N = TypeVar("N", int, Decimal)
M = TypeVar("M", float, Decimal)
LOOKED_AT: Final = 50
"""Examples whose prompts are measured; the mean of so many is as good."""
SHORT_ANSWER: Final = 16
"""Tokens of an answer at the least."""
ASKED_BY: Final = 500
"""Tokens that say what is to be written, at the most; ours are fewer."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a run will take, from the least to the most that is likely.

    Args:
        requests: Requests; the second is `None` if the optimizer does not say.
        tokens: Tokens read and written; the same.
        money: Dollars; `None` if the price is not known.

    Example:
        >>> from otpy.teleprompters.estimate import Estimate
        >>> print(Estimate((100, 400), (20_000, 120_000), None))
        100 to 400 requests, 20,000 to 120,000 tokens, at a price that is not known
    """

    requests: tuple[int, int | None]
    tokens: tuple[int, int | None]
    money: tuple[Decimal, Decimal | None] | None

    def widened(self, other: Estimate) -> Estimate:
        """Return the range that has both in it.

        Args:
            other: Another one.
        """
        money = None if self.money is None or other.money is None else _wider(self.money, other.money)
        return Estimate(_wider(self.requests, other.requests), _wider(self.tokens, other.tokens), money)

    def __str__(self) -> str:
        """Print it in one line."""
        price = "at a price that is not known"
        if self.money is not None:
            low, high = self.money
            price = f"${low:.4f} or more" if high is None else f"${low:.4f} to ${high:.4f}"
        return f"{_range(*self.requests)} requests, {_range(*self.tokens)} tokens, {price}"


def _wider(one: tuple[N, N | None], other: tuple[N, N | None]) -> tuple[N, N | None]:
    ends = one[1], other[1]
    return min(one[0], other[0]), None if ends[0] is None or ends[1] is None else max(ends[0], ends[1])


def _range(low: int, high: int | None) -> str:
    if high is None:
        return f"{low:,} or more"
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


@dataclass(frozen=True, slots=True)
class Writing:
    """What a run asks of whoever writes instructions, as a part of its requests.

    Args:
        requests: How many, from the least to the most.
        client: The client's name; the predictors' own if `None`.
        longest: Tokens of its longest answer.
        rows: Examples, with what was predicted of them, that one such request shows at most.
        texts: Instructions, or others of its answers, that it shows at most.
    """

    requests: tuple[int, int]
    client: str | None
    longest: int
    rows: int
    texts: int = 1


def estimated(
    student: Program,
    rows: Sequence[Example],
    requests: tuple[int, int | None],
    demos: int = 0,
    writing: Sequence[Writing] = (),
) -> Estimate:
    """Return what so many requests of a program will take.

    Args:
        student: The program.
        rows: Examples as those it will be asked about, with their inputs marked, at least one.
        requests: How many requests, from the least to the most.
        demos: Demos that a predictor may get, at most.
        writing: Which of the requests ask somebody to write instructions.
    """
    predictors = [predictor for _, predictor in student.named_predictors()]
    sizes = [_size(predictor, rows[:LOOKED_AT], demos) for predictor in predictors]
    least, most = requests
    # requests are shared by the predictors evenly: which of them is asked more often is not known
    low, high = (_mean([size[end] for size in sizes]) for end in (0, 1))
    own = [predictor.client for predictor in predictors]
    longer = max((one.longest for one in writing), default=0)  # what was written is read by the program from then on
    least -= sum(one.requests[0] for one in writing)
    most = None if most is None else most - sum(one.requests[1] for one in writing)
    parts = [_Part((least, most), own, (low, high._replace(read=high.read + longer)))]
    for one in writing:
        shown = one.rows * (high.read + high.written) + one.texts * one.longest
        ends = _Size(low.read, min(SHORT_ANSWER, one.longest)), _Size(ASKED_BY + shown, one.longest)
        parts.append(_Part(one.requests, own if one.client is None else [one.client], ends))
    prices = [_money(part) for part in parts]
    tokens = [_times(part.requests, (sum(part.size[0]), sum(part.size[1]))) for part in parts]
    money = _sum([price for price in prices if price is not None]) if None not in prices else None
    low_tokens, high_tokens = _sum(tokens)
    return Estimate(requests, (round(low_tokens), None if high_tokens is None else round(high_tokens)), money)


class _Size(NamedTuple):
    """Tokens of one request."""

    read: float
    written: float


class _Part(NamedTuple):
    """Requests of one kind: how many, whom they ask, each as often, and how large they are."""

    requests: tuple[int, int | None]
    clients: Sequence[str]
    size: tuple[_Size, _Size]


def _mean(sizes: Sequence[_Size]) -> _Size:
    read, written = (sum(size[part] for size in sizes) / len(sizes) for part in (0, 1))
    return _Size(read, written)


def _times(requests: tuple[int, int | None], each: tuple[M, M]) -> tuple[M, M | None]:
    least, most = requests
    return least * each[0], None if most is None else most * each[1]


def _sum(ranges: Sequence[tuple[M, M | None]]) -> tuple[M, M | None]:
    low, high = ranges[0]
    for less, more in ranges[1:]:
        low, high = low + less, None if high is None or more is None else high + more
    return low, high


def _size(predictor: Predict, rows: Sequence[Example], demos: int) -> tuple[_Size, _Size]:
    """Tokens of one request: as the predictor is, and with as many demos as it may get."""
    read, row_letters = 0.0, 0.0
    estimate = Estimator()
    for row in rows:
        inputs = {name: row.get(name, "") for name in predictor.signature.input_fields}
        try:
            messages = predictor.messages(**inputs)
        except OtpyError:  # a value that another predictor will make, of a type that nobody knows yet
            messages = predictor.prepared()[0]
        read += estimate(LMRequest(messages))[0]
        row_letters += sum(len(str(row.get(name, ""))) + len(name) + 4 for name in predictor.signature.fields)
    read, row_tokens = read / len(rows), row_letters / len(rows) / LETTERS_PER_TOKEN
    written = float(predictor.max_tokens or FIRST_OUTPUT)
    more = max(demos - len(predictor.demos), 0) * row_tokens
    return _Size(read, min(float(SHORT_ANSWER), written)), _Size(read + more, min(written, float(FIRST_OUTPUT)))


def _money(part: _Part) -> tuple[Decimal, Decimal | None] | None:
    try:
        application = running()
    except NoApplication:
        return None
    clients = application.settings.clients
    low, high = Decimal(0), Decimal(0)
    for client in part.clients:
        if client not in clients:
            return None  # a route: which of its members will answer is not known
        tariff, now = Tariff(client, clients[client], application.book), dt.datetime.now(dt.UTC)
        ends = [tariff.price(Usage(round(one.read), round(one.written)), tariff.model, now) for one in part.size]
        if ends[0] is None or ends[1] is None:
            return None
        low, high = low + ends[0], high + ends[1]
    return _times(part.requests, (low / len(part.clients), high / len(part.clients)))


def price_of(client: str, response: LMResponse) -> Decimal | None:
    """Return what an answer costs today, in dollars; `None` if that is not known, as of a route's.

    Args:
        client: Who has answered.
        response: The answer.
    """
    application = running()
    if client not in application.settings.clients:
        return None
    tariff = Tariff(client, application.settings.clients[client], application.book)
    return tariff.price(response.usage, tariff.model, dt.datetime.now(dt.UTC))

"""What a run will take, before anything is asked: requests from the optimizer's formula, tokens from the prompts' size.

A guess with two ends, and no bound: re-asks and retries come on top, and a program that calls a predictor several times
asks more often. The bound is a cap: `max_requests`, `max_tokens`, `max_money`.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Final, TypeVar

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

__all__ = ["Estimate", "estimated", "price_of"]

N = TypeVar("N", int, Decimal)
LOOKED_AT: Final = 50
"""Examples whose prompts are measured; the mean of so many is as good."""
SHORT_ANSWER: Final = 16
"""Tokens of an answer at the least."""


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


def estimated(student: Program, rows: Sequence[Example], requests: tuple[int, int | None], demos: int = 0) -> Estimate:
    """Return what so many requests of a program will take.

    Args:
        student: The program.
        rows: Examples as those it will be asked about, with their inputs marked, at least one.
        requests: How many requests, from the least to the most.
        demos: Demos that a predictor may get, at most.
    """
    predictors = [predictor for _, predictor in student.named_predictors()]
    sizes = [_size(predictor, rows[:LOOKED_AT], demos) for predictor in predictors]
    least, most = requests
    # requests are shared by the predictors evenly: which of them is asked more often is not known
    reads, writes = ([sum(size[end][part] for size in sizes) / len(sizes) for end in (0, 1)] for part in (0, 1))
    low = round(least * (reads[0] + writes[0]))
    high = None if most is None else round(most * (reads[1] + writes[1]))
    return Estimate(requests, (low, high), _money(predictors, requests, reads, writes))


def _size(predictor: Predict, rows: Sequence[Example], demos: int) -> tuple[tuple[float, float], tuple[float, float]]:
    """Tokens read and written for one request: as the predictor is, and with as many demos as it may get."""
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
    return (read, min(float(SHORT_ANSWER), written)), (read + more, min(written, float(FIRST_OUTPUT)))


def _money(
    predictors: Sequence[Predict], requests: tuple[int, int | None], reads: Sequence[float], writes: Sequence[float]
) -> tuple[Decimal, Decimal | None] | None:
    try:
        application = running()
    except NoApplication:
        return None
    clients = application.settings.clients
    prices: list[tuple[Decimal, Decimal]] = []
    for predictor in predictors:
        if predictor.client not in clients:
            return None  # a route: which of its members will answer is not known
        tariff, now = Tariff(predictor.client, clients[predictor.client], application.book), dt.datetime.now(dt.UTC)
        usages = [Usage(round(read), round(written)) for read, written in zip(reads, writes, strict=True)]
        found = [tariff.price(usage, tariff.model, now) for usage in usages]
        if found[0] is None or found[1] is None:
            return None
        prices.append((found[0], found[1]))
    least, most = requests
    low, high = (sum((price[end] for price in prices), Decimal(0)) / len(prices) for end in (0, 1))
    return least * low, None if most is None else most * high


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

"""What a client's requests cost, set aside before they are sent and settled when they are over."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from otpy.clients import prices
from otpy.clients.budget import Estimate, input_ceiling
from otpy.clients.labels import Labels
from otpy.lm import Usage

if TYPE_CHECKING:
    from decimal import Decimal

    from otpy.clients.book import Book
    from otpy.clients.budget import Reservation
    from otpy.config.settings import ClientSettings
    from otpy.lm import LMRequest

__all__ = ["LONGEST_ANSWER", "Charge", "Tariff"]

LONGEST_ANSWER: Final = 4_096
"""Tokens an answer may have under a cap if nobody has bounded it: without a bound no cap could be kept."""


class Tariff:
    """What one client's model costs, and the book that is kept of it.

    Args:
        client: The client's name.
        settings: Its settings.
        book: The application's book.
    """

    def __init__(self, client: str, settings: ClientSettings, book: Book) -> None:
        """Take the rates from the settings, if they are there."""
        self.client, self.book = client, book
        self.provider, self.url, self.model = settings.provider, settings.base_url, settings.model_name
        self.rates: prices.Rates | None = None
        if settings.input_price is not None and settings.output_price is not None:
            self.rates = prices.Rates.flat(settings.input_price, settings.output_price)

    def price(self, usage: Usage, model: str, at: dt.datetime) -> Decimal | None:
        """Return what a request cost, in dollars; `None` if that is not known."""
        provider, name = self._sold_as(model)
        return prices.price(usage, provider=provider, model=name, at=at, url=self.url, rates=self.rates)

    def _sold_as(self, model: str) -> tuple[str, str]:
        """Return provider and model as price lists have them; litellm is asked for both in one."""
        provider, _, name = model.partition("/") if self.provider == "litellm" else (self.provider, "", model)
        return provider, name

    def admit(self, request: LMRequest, labels: Labels) -> Charge:
        """Set aside the most that a request can take.

        Args:
            request: What is asked, with everything that the client adds.
            labels: Whose it is.

        Raises:
            BudgetExceeded: If a cap would be passed.
        """
        model, at = request.model or self.model, dt.datetime.now(dt.UTC)
        where = Labels(self.client, model, *labels[2:])
        return Charge(self, self.book.admit(self._most(request, model, at), where), model, at)

    def _most(self, request: LMRequest, model: str, at: dt.datetime) -> Estimate:
        """What it can take, as far as there is a cap that asks."""
        kinds = self.book.budget.kinds
        if not kinds - {"requests"}:
            return Estimate()
        longest = LONGEST_ANSWER if request.max_tokens is None else request.max_tokens
        read, written = input_ceiling(request), longest * request.n
        most = None
        if "money" in kinds:
            provider, name = self._sold_as(model)
            most = prices.ceiling(read, written, provider=provider, model=name, at=at, url=self.url, rates=self.rates)
        return Estimate(read + written, most)


@dataclass(slots=True)
class Charge:
    """What is set aside for one request; the first of its methods that is called counts.

    Args:
        tariff: What it costs.
        reservation: The book's.
        model: The model that is asked.
        at: When.
    """

    tariff: Tariff
    reservation: Reservation
    model: str
    at: dt.datetime

    def answered(self, usage: Usage) -> None:
        """It was answered: what it took is spent; what was set aside, if the provider does not count."""
        if not usage.total_tokens:
            self.reservation.settle(None)
            return
        self.reservation.settle(usage, self.tariff.price(usage, self.model, self.at))

    def refused(self) -> None:
        """The provider refused it, or failed before it answered: it took nothing."""
        self.reservation.settle(Usage(), failed=True)

    def lost(self) -> None:
        """Nobody can say what it took: what was set aside counts as spent."""
        self.reservation.settle(None, failed=True)

    def take_back(self) -> None:
        """It was not sent after all."""
        self.reservation.release()

"""What a request cost, and what it may cost at most: from settings, or from the data of the `genai-prices` package.

The data is part of that package: nothing is fetched. What is not known is `None`, never 0. This is the only room that
knows the package, and it is loaded when the first price is asked for, or before, by `load`, in a thread.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast

if TYPE_CHECKING:
    from collections.abc import Collection
    from datetime import datetime

    from otpy.lm import Usage

__all__ = ["FREE", "Rates", "ceiling", "load", "price", "rates_of"]

Steps: TypeAlias = tuple[tuple[int, Decimal], ...]
"""Dollars per million tokens: `(from more than so many tokens read, the rate)`, ascending; all tokens pay the last."""

_MILLION: Final = Decimal(1_000_000)
_NOTHING: Final = Decimal(0)
_IDS: Final = {"gemini": "google"}
"""Providers that otpy and the data call differently."""
_USUAL_TIERS: Final = frozenset({"", "auto", "default", "standard", "standard_only"})
_MEDIA: Final = {"image": ("input_image_mtok",), "audio": ("input_audio_mtok",), "file": ("input_image_mtok",)}
_MODELS_KEPT: Final = 1_024


@dataclass(frozen=True, slots=True)
class Rates:
    """What a model costs.

    Args:
        input: For what is read; `None` if that is not known.
        output: For what is written; `None` if that is not known.
        cached: For what the provider had cached; `None` if it costs what reading costs.
        cache_write: For what it wrote into its cache; `None` as for `cached`.
        reasoning: For what the model thought; `None` if it costs what writing costs.
        per_request: Dollars for each request.
        media: Rates of media that cost something else than text, by kind.

    Example:
        >>> from otpy.clients.prices import Rates
        >>> from otpy.lm import Usage
        >>> Rates.flat("2.50", "10").price(Usage(1_000_000, 1_000))
        Decimal('2.51')
    """

    input: Steps | None
    output: Steps | None
    cached: Steps | None = None
    cache_write: Steps | None = None
    reasoning: Steps | None = None
    per_request: Decimal = _NOTHING
    media: tuple[tuple[str, Steps], ...] = ()

    @classmethod
    def flat(
        cls,
        input: Decimal | str | int,  # noqa: A002 - the word
        output: Decimal | str | int,
        *,
        cached: Decimal | str | int | None = None,
        cache_write: Decimal | str | int | None = None,
    ) -> Rates:
        """Make rates as settings have them: dollars per million tokens, however long the request is.

        Args:
            input: For what is read.
            output: For what is written.
            cached: As in `Rates`.
            cache_write: As in `Rates`.

        Raises:
            ValueError: If one of them is negative or no finite number.
        """
        return cls(
            _flat("input", input),
            _flat("output", output),
            None if cached is None else _flat("cached", cached),
            None if cache_write is None else _flat("cache_write", cache_write),
        )

    def price(self, usage: Usage, kinds: Collection[str] = ()) -> Decimal | None:
        """Return dollars for one request, or `None` if a part of it has no known price.

        Args:
            usage: What the provider counted.
            kinds: Kinds of media in the request; where one of them costs something else than text, the price is not
                known, since usage does not say how much of it there was.
        """
        read, written = usage.input_tokens, usage.output_tokens
        cached, kept, thought = usage.cached_tokens, usage.cache_write_tokens, usage.reasoning_tokens
        if min(cached, kept, thought, read - cached - kept, written - thought) < 0:
            return None  # counts that contradict each other
        if kinds and any(kind in kinds and steps != self.input for kind, steps in self.media):
            return None
        total = self.per_request * max(usage.requests, 1)
        plain, spoken = read, written
        for count, steps in ((cached, self.cached), (kept, self.cache_write)):
            if count and steps is not None:
                plain -= count
                total += _at(steps, read) * count / _MILLION
        if thought and self.reasoning is not None:
            spoken -= thought
            total += _at(self.reasoning, read) * thought / _MILLION
        for count, steps in ((plain, self.input), (spoken, self.output)):
            if count:
                if steps is None:
                    return None
                total += _at(steps, read) * count / _MILLION
        return total

    def ceiling(self, input_tokens: int, output_tokens: int) -> Decimal | None:
        """Return the most that one request can cost, or `None` if that is not known.

        Args:
            input_tokens: What it reads at most.
            output_tokens: What it writes at most.
        """
        total = self.per_request
        reading = (self.input, self.cached, self.cache_write, *(steps for _, steps in self.media))
        for count, known, all_steps in (
            (input_tokens, self.input, reading),
            (output_tokens, self.output, (self.output, self.reasoning)),
        ):
            if count > 0:
                if known is None:
                    return None
                dearest = max(
                    rate for steps in all_steps if steps for above, rate in steps if above < max(input_tokens, 1)
                )
                total += dearest * count / _MILLION
        return total


def _flat(name: str, rate: Decimal | str | int) -> Steps:
    value = Decimal(rate)
    if not value.is_finite() or value < 0:
        raise ValueError(f"{name}={rate!r}; allowed: dollars per million tokens, 0 or more")
    return ((-1, value),)


def _at(steps: Steps, read: int) -> Decimal:
    if len(steps) == 1:
        return steps[0][1]
    return next(rate for above, rate in reversed(steps) if read > above)


FREE: Final = Rates.flat(0, 0)
"""A model that costs nothing: for those who say so in the settings, as of a model on a machine of their own."""


def price(  # noqa: PLR0913 - keyword-only facts
    usage: Usage,
    *,
    provider: str,
    model: str,
    at: datetime,
    url: str | None = None,
    tier: str = "",
    kinds: Collection[str] = (),
    rates: Rates | None = None,
) -> Decimal | None:
    """Return what one request cost, in dollars; `None` if that is not known.

    Args:
        usage: What the provider counted, of one request: rates may depend on its length.
        provider: The part of the client's `model` before the slash.
        model: The model that was asked, or that answered.
        at: When the request was sent; prices change, some by the hour. Without a time zone it is UTC.
        url: Where it was sent, if it was told; prices are those of the provider's own address alone.
        tier: The service tier that was asked for, as in `"flex"`.
        kinds: As in `Rates.price`.
        rates: What the settings say; it goes before the data.

    Example:
        >>> from datetime import datetime
        >>> from otpy.clients.prices import FREE, price
        >>> from otpy.lm import Usage
        >>> when = datetime(2026, 1, 1)
        >>> price(Usage(1_000_000, 100_000, cached_tokens=400_000), provider="openai", model="gpt-4o-mini", at=when)
        Decimal('0.180')
        >>> print(price(Usage(5, 5), provider="local", model="smollm2-135m", at=when))
        None
        >>> price(Usage(5, 5), provider="local", model="smollm2-135m", at=when, rates=FREE)
        Decimal('0')
    """
    known = rates or rates_of(provider, model, at, url=url, tier=tier)
    return None if known is None else known.price(usage, kinds)


def ceiling(  # noqa: PLR0913 - keyword-only facts
    input_tokens: int,
    output_tokens: int,
    *,
    provider: str,
    model: str,
    at: datetime,
    url: str | None = None,
    tier: str = "",
    rates: Rates | None = None,
) -> Decimal | None:
    """Return the most that one request can cost, in dollars, whatever of it turns out to be cached or thought.

    Args:
        input_tokens: What it reads at most.
        output_tokens: What it writes at most: `max_tokens` times `n`.
        provider: As in `price`.
        model: As in `price`.
        at: As in `price`; the price is to be asked for the same moment, or it may be higher.
        url: As in `price`.
        tier: As in `price`.
        rates: As in `price`.
    """
    known = rates or rates_of(provider, model, at, url=url, tier=tier)
    return None if known is None else known.ceiling(input_tokens, output_tokens)


def load() -> str:
    """Load the data, which takes some tenths of a second; returns the version of the package."""
    import genai_prices  # noqa: PLC0415 - late, see the module

    _snapshot()
    return str(genai_prices.__version__)


def rates_of(provider: str, model: str, at: datetime, *, url: str | None = None, tier: str = "") -> Rates | None:
    """Return what the data knows of a model; `None` if that is nothing.

    Args:
        provider: As in `price`.
        model: As in `price`.
        at: As in `price`.
        url: As in `price`.
        tier: As in `price`.
    """
    snapshot = _snapshot()
    found = _find(id(snapshot), _IDS.get(provider, provider), model, url)
    if found is None:
        return None
    if tier in _USUAL_TIERS:
        standard = found.model.get_prices(at)
        key = id(standard)  # the data lives as long as `found` does, and is never changed
        if key not in found.rates:
            found.rates[key] = _rates(standard)
        return found.rates[key]
    there = any(
        variant.when.get("service_tier") == tier and (variant.constraint is None or variant.constraint.active(at))
        for variant in found.model.price_variants or ()
    )
    return _rates(found.model.get_prices(at, {"service_tier": tier})) if there else None


@cache
def _source() -> Any:
    from genai_prices import data_snapshot  # noqa: PLC0415 - late, see the module

    return data_snapshot


def _snapshot() -> Any:
    return _source().get_snapshot()


@dataclass(slots=True)
class _Found:
    snapshot: Any  # held, so that no other one can have its id
    model: Any
    rates: dict[int, Rates | None]


@lru_cache(maxsize=_MODELS_KEPT)
def _find(_snapshot_id: int, provider: str, model: str, url: str | None) -> _Found | None:
    """Find a model by the exact id of its provider: the data itself would take any name that has `openai` in it."""
    snapshot = _snapshot()
    where = next((known for known in snapshot.providers if known.id == provider), None)
    if where is None or (url is not None and re.match(where.api_pattern, url) is None):
        return None
    found = where.find_model(model, all_providers=snapshot.providers)
    return None if found is None else _Found(snapshot, found, {})


def _rates(prices: Any) -> Rates | None:
    known = cast("dict[str, Any]", prices.__dict__)
    steps = {name: _steps(value) for name, value in known.items() if value is not None and name[0] != "_"}
    if "input_mtok" not in steps and "output_mtok" not in steps:
        return None
    request = steps.get("requests_kcount")
    return Rates(
        steps.get("input_mtok"),
        steps.get("output_mtok"),
        steps.get("cache_read_mtok"),
        steps.get("cache_write_mtok") or steps.get("cache_write_5m_mtok"),
        steps.get("output_reasoning_mtok"),
        _NOTHING if request is None else request[0][1] / 1_000,
        tuple((kind, steps[name]) for kind, names in _MEDIA.items() for name in names if name in steps),
    )


def _steps(value: Any) -> Steps:
    if isinstance(value, Decimal):
        return ((-1, value),)
    return ((-1, value.base), *((tier.start, tier.price) for tier in value.tiers))

"""What a request costs: the data's own arithmetic is the oracle, and what is not known is never 0."""

import subprocess
import sys
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from genai_prices import Usage as TheirUsage
from genai_prices.data import providers
from genai_prices.types import TieredPrices
from hypothesis import given
from hypothesis import strategies as st

from otpy.clients.prices import FREE, Rates, ceiling, price, rates_of
from otpy.lm import Usage

AT = datetime(2026, 6, 1, tzinfo=UTC)
MODELS = [
    (provider, model)
    for provider in providers
    for model in provider.models
    if model.get_prices(AT).__dict__.keys() >= {"input_mtok", "output_mtok"}
]


@st.composite
def usages(draw):
    read = draw(st.integers(0, 400_000) | st.sampled_from((0, 1, 128_000, 200_000, 200_001, 272_001)))
    cached = draw(st.integers(0, read))
    kept = draw(st.integers(0, read - cached))
    written = draw(st.integers(0, 50_000))
    return Usage(read, written, cached, draw(st.integers(0, written)), 1, kept)


# -- against the package ----------------------------------------------------------------------------------------------


@given(st.sampled_from(MODELS), usages(), st.integers(1_690_000_000, 1_800_000_000))
def test_a_price_is_what_the_package_says_for_every_model_it_knows(known, usage, seconds):
    provider, model = known
    at = datetime.fromtimestamp(seconds, UTC)
    prices = model.get_prices(at)
    theirs = prices.calc_price(
        TheirUsage(
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
            cache_read_tokens=usage.cached_tokens,
            cache_write_tokens=usage.cache_write_tokens,
            output_reasoning_tokens=usage.reasoning_tokens,
            # what otpy does not count; there is none of it, but the package wants to be told
            **dict.fromkeys(("input_audio_tokens", "cache_write_1h_tokens", "output_citation_tokens"), 0),
        )
    )["total_price"]
    found = provider.find_model(model.id, all_providers=providers)
    if found is not model:  # the id of one model may stand in the pattern of an earlier one
        return
    ours = price(usage, provider=provider.id, model=model.id, at=at)
    if {"input_mtok", "output_mtok"} <= prices.__dict__.keys():
        assert ours == theirs
    else:
        assert ours is None or ours == theirs


@given(st.sampled_from(MODELS), usages())
def test_no_request_costs_more_than_its_ceiling(known, usage):
    provider, model = known
    cost = price(usage, provider=provider.id, model=model.id, at=AT)
    most = ceiling(usage.input_tokens, usage.output_tokens, provider=provider.id, model=model.id, at=AT)
    assert (cost is None) == (most is None)
    assert cost is None or cost <= most


@given(st.sampled_from(MODELS), usages(), st.integers(0, 100_000), st.integers(0, 100_000))
def test_a_ceiling_holds_for_shorter_requests_too(known, usage, more_read, more_written):
    provider, model = known
    cost = price(usage, provider=provider.id, model=model.id, at=AT)
    most = ceiling(
        usage.input_tokens + more_read,
        usage.output_tokens + more_written,
        provider=provider.id,
        model=model.id,
        at=AT,
    )
    assert cost is None or most is None or cost <= most


def test_cached_written_and_thought_tokens_have_the_prices_of_their_kind():
    rates = rates_of("anthropic", "claude-sonnet-4-5", AT)
    million = 1_000_000
    assert price(Usage(100_000, 0), provider="anthropic", model="claude-sonnet-4-5", at=AT) == Decimal("0.3")
    assert rates.price(Usage(100_000, 0, cached_tokens=100_000)) == Decimal("0.03")
    assert rates.price(Usage(100_000, 0, cache_write_tokens=100_000)) == Decimal("0.375")
    assert rates.price(Usage(0, million, reasoning_tokens=million)) == 15  # thinking costs what writing does
    dearer = Rates(((-1, Decimal(1)),), ((-1, Decimal(2)),), reasoning=((-1, Decimal(5)),))
    assert dearer.price(Usage(0, 2 * million, reasoning_tokens=million)) == 7


def test_a_long_request_pays_the_long_rate_for_all_of_it():
    provider, model = next(
        (provider, model)
        for provider, model in MODELS
        if provider.id == "google" and isinstance(model.get_prices(AT).input_mtok, TieredPrices)
    )
    tiered = model.get_prices(AT).input_mtok
    start, rate = tiered.tiers[0].start, tiered.tiers[0].price
    below = price(Usage(start, 0), provider=provider.id, model=model.id, at=AT)
    above = price(Usage(start + 1, 0), provider=provider.id, model=model.id, at=AT)
    assert below == tiered.base * start / 1_000_000
    assert above == rate * (start + 1) / 1_000_000


def test_prices_are_those_of_the_day_of_the_request():
    provider, model = next((p, m) for p, m in MODELS if isinstance(m.prices, list) and len(m.prices) > 1)
    days = [datetime(year, month, 15, 3, tzinfo=UTC) for year in range(2023, 2028) for month in range(1, 13)]
    for day in days:
        theirs = model.get_prices(day).input_mtok
        assert rates_of(provider.id, model.id, day).input[0][1] == getattr(theirs, "base", theirs)


# -- what is not known ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("provider", "model"),
    [("openai", "no-such-model"), ("local", "smollm2-135m"), ("ollama", "llama3"), ("my-openai-proxy", "gpt-4o")],
)
def test_what_nobody_knows_has_no_price(provider, model):
    assert price(Usage(10, 10), provider=provider, model=model, at=AT) is None
    assert ceiling(10, 10, provider=provider, model=model, at=AT) is None


def test_a_model_without_token_prices_in_the_data_is_unknown_not_free():
    provider, model = next((p, m) for p in providers for m in p.models if not m.get_prices(AT).__dict__)
    assert price(Usage(10, 10), provider=provider.id, model=model.id, at=AT) is None


def test_a_model_of_which_only_reading_has_a_price_is_unknown_as_soon_as_it_writes():
    rates = rates_of("openai", "text-embedding-3-small", AT)
    assert rates.price(Usage(1_000_000, 0)) == Decimal("0.02")
    embedding = Rates(((-1, Decimal(1)),), None)
    assert embedding.price(Usage(1_000_000, 0)) == 1
    assert embedding.price(Usage(1_000_000, 1)) is None
    assert embedding.ceiling(1, 1) is None


def test_a_provider_s_prices_do_not_hold_at_another_address():
    facts = {"provider": "openai", "model": "gpt-4o-mini", "at": AT}
    assert price(Usage(1, 1), **facts, url="https://api.openai.com/v1") is not None
    assert price(Usage(1, 1), **facts, url="http://127.0.0.1:8080/v1") is None


def test_the_settings_go_before_the_data():
    rates = Rates.flat("1", "2", cached="0.5", cache_write="1.25")
    usage = Usage(4_000_000, 1_000_000, 1_000_000, 0, 1, 2_000_000)
    assert price(usage, provider="openai", model="gpt-4o-mini", at=AT, rates=rates) == Decimal("6.00")
    assert price(usage, provider="local", model="smollm2-135m", at=AT, rates=FREE) == 0
    assert ceiling(1_000_000, 0, provider="local", model="x", at=AT, rates=rates) == Decimal("1.25")


@pytest.mark.parametrize("wrong", ["-1", "NaN", "Infinity"])
def test_settings_with_an_impossible_price_are_refused(wrong):
    with pytest.raises(ValueError, match="dollars per million"):
        Rates.flat(wrong, "1")


def test_counts_that_contradict_each_other_have_no_price():
    for usage in (Usage(1, 1, cached_tokens=2), Usage(1, 1, reasoning_tokens=2), Usage(-1, 1), Usage(1, -1)):
        assert FREE.price(usage) is None


def test_media_that_cost_something_else_make_the_price_unknown_and_the_ceiling_higher():
    text, sound = ((-1, Decimal(1)),), ((-1, Decimal(9)),)
    rates = Rates(text, text, media=(("audio", sound), ("image", text)))
    assert rates.price(Usage(1_000_000, 0), ("image",)) == 1
    assert rates.price(Usage(1_000_000, 0), ("audio",)) is None
    assert rates.ceiling(1_000_000, 0) == 9
    audio = next((p, m) for p, m in MODELS if m.get_prices(AT).input_audio_mtok is not None and p.find_model(m.id) is m)
    facts = {"provider": audio[0].id, "model": audio[1].id, "at": AT}
    assert price(Usage(1, 1), **facts) is not None
    assert price(Usage(1, 1), **facts, kinds=("audio",)) is None


def test_another_service_tier_has_its_own_price_or_none():
    late = datetime(2027, 1, 1, tzinfo=UTC)
    provider, model = next(
        (p, m)
        for p, m in MODELS
        if any(variant.when == {"service_tier": "flex"} for variant in m.price_variants or ())
        and m.get_prices(late, {"service_tier": "flex"}) != m.get_prices(late)
        and p.find_model(m.id) is m
    )
    facts = {"provider": provider.id, "model": model.id, "at": late}
    usage, theirs = Usage(1_000_000, 1), TheirUsage(input_tokens=1_000_000, output_tokens=1)
    flex = price(usage, **facts, tier="flex")
    assert flex == model.get_prices(late, {"service_tier": "flex"}).calc_price(theirs)["total_price"]
    assert flex != price(usage, **facts, tier="auto")
    assert price(usage, **facts, tier="platinum") is None


def test_the_data_is_loaded_only_when_a_price_is_asked_for():
    code = "import sys, otpy.clients.prices; sys.exit('genai_prices' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

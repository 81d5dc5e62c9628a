"""Requests per minute: never too many, never for ever, and a pause at the provider's word."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otpy.clients.limiter import Limiter
from otpy.clock import ManualClock
from otpy.errors import ConfigError


def test_without_a_limit_everything_goes_at_once():
    limiter = Limiter(None, clock=ManualClock())
    assert {limiter.reserve() for _ in range(1_000)} == {0.0}


@pytest.mark.parametrize("limit", [0, -3])
def test_a_limit_that_lets_nothing_through_is_refused_at_once(limit):
    with pytest.raises(ConfigError, match=f"requests_per_minute={limit}: at least 1"):
        Limiter(limit)


def test_a_refused_request_costs_nothing():
    clock = ManualClock()
    limiter = Limiter(5, clock=clock)
    assert [limiter.reserve() for _ in range(5)] == [0.0] * 5
    waits = [limiter.reserve() for _ in range(1_000)]
    assert len(set(waits)) == 1
    clock.advance(waits[0])
    assert limiter.reserve() == 0.0


def test_the_clock_is_ours_and_nothing_waits():
    clock = ManualClock(1_000_000.5)
    limiter = Limiter(1, clock=clock)
    assert limiter.reserve() == 0.0
    wait = limiter.reserve()
    assert 0 < wait <= 120
    clock.advance(wait - 0.01)
    assert limiter.reserve() > 0
    clock.advance(0.02)
    assert limiter.reserve() == 0.0


def test_a_pause_holds_everything_back_and_the_longest_one_counts():
    clock = ManualClock()
    limiter = Limiter(None, clock=clock)
    limiter.pause_until(5.0)
    limiter.pause_until(3.0)
    assert limiter.reserve() == 5.0
    clock.advance(5.0)
    assert limiter.reserve() == 0.0


def test_during_a_pause_nothing_is_counted():
    clock = ManualClock()
    limiter = Limiter(2, clock=clock)
    limiter.pause_until(5.0)
    assert all(limiter.reserve() == 5.0 for _ in range(10))
    clock.advance(5.0)
    assert [limiter.reserve(), limiter.reserve()] == [0.0, 0.0]


def test_two_limiters_do_not_share_a_count():
    clock = ManualClock()
    first, second = Limiter(1, clock=clock), Limiter(1, clock=clock)
    assert (first.reserve(), second.reserve()) == (0.0, 0.0)


@given(st.integers(1, 50), st.floats(0, 1e6), st.lists(st.floats(0, 40), max_size=150))
def test_no_minute_sees_more_than_the_approximation_allows(limit, start, steps):
    """The counter weighs the last full window evenly, so a burst at its end may be followed by almost as much again.

    A window aligned to the counter's own never holds more than the limit, and no window whatever twice as much.
    """
    clock = ManualClock(start)
    limiter = Limiter(limit, clock=clock)
    admitted = []
    for step in steps:
        clock.advance(step)
        while limiter.reserve() == 0.0:
            admitted.append(clock())
    for moment in admitted:
        assert sum(moment <= other < moment + 60 for other in admitted) <= 2 * limit
        number = moment // 60
        assert sum(other // 60 == number for other in admitted) <= limit


@given(st.integers(1, 200), st.floats(0, 1e6), st.integers(1, 60))
def test_whoever_waits_as_long_as_told_gets_through_and_the_rate_is_used(limit, start, rounds):
    """The counter's approximation costs a minute about one of its requests: of a limit of one, every other minute."""
    clock = ManualClock(start)
    limiter = Limiter(limit, clock=clock)
    sent = min(rounds * limit, 300)
    for _ in range(sent):
        asked = 0
        while (wait := limiter.reserve()) > 0:
            asked += 1
            assert asked <= 3, "one wait is enough, but for rounding"
            clock.advance(wait)
    assert clock() - start <= 60 * (sent / max(limit - 1, 0.5) + 2)

"""When a failed request is tried again, and when it is not."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otpy.clients.retry import RetryBudget, RetryPolicy
from otpy.clock import ManualClock
from otpy.errors import (
    CircuitOpen,
    ConfigError,
    LMAuthError,
    LMContextWindowExceeded,
    LMStatusError,
    LMTimeout,
    RateLimited,
)


def rng():
    return random.Random(7)


@pytest.mark.parametrize(
    "error", [LMAuthError("no key"), LMContextWindowExceeded("long"), LMStatusError("bad", status=400)]
)
def test_what_will_not_pass_by_itself_is_not_tried_again(error):
    assert RetryPolicy().delay(1, error, rng()) is None


@given(st.integers(1, 10), st.integers(1, 20))
def test_no_more_attempts_than_allowed(allowed, attempt):
    delay = RetryPolicy(max_attempts=allowed).delay(attempt, LMTimeout("late"), rng())
    assert (delay is None) == (attempt >= allowed)


@given(st.integers(1, 100_000), st.integers())
def test_the_wait_doubles_up_to_the_cap_and_is_spread_over_all_of_it(attempt, seed):
    policy = RetryPolicy(max_attempts=1_000_000, base=0.5, cap=20.0)
    delay = policy.delay(attempt, LMTimeout("late"), random.Random(seed))
    assert 0 < delay <= min(20.0, 0.5 * 2 ** min(attempt - 1, 10)) + 0.001


def test_callers_that_failed_together_do_not_come_back_together():
    many = {RetryPolicy(base=8.0).delay(1, LMTimeout("late"), random.Random(seed)) for seed in range(100)}
    assert len(many) == 100
    assert min(many) < 1
    assert max(many) > 7


@given(st.floats(0, 120), st.integers(1, 4))
def test_never_sooner_than_the_provider_asked(asked, attempt):
    for error in (LMStatusError("later", status=429, retry_after=asked), RateLimited("later", asked)):
        assert RetryPolicy().delay(attempt, error, rng()) > asked


def test_a_provider_that_asks_for_too_long_a_wait_is_given_up():
    policy = RetryPolicy(max_wait=60)
    assert policy.delay(1, LMStatusError("later", status=429, retry_after=60), rng()) is not None
    assert policy.delay(1, LMStatusError("later", status=429, retry_after=60.1), rng()) is None


def test_behind_an_open_circuit_the_next_attempt_is_after_the_trial_is_due():
    assert RetryPolicy().delay(1, CircuitOpen("openai", 3.0), rng()) > 3.0


# -- what is known besides the error ----------------------------------------------------------------------------------


def test_the_provider_knows_better_than_the_class_of_the_error():
    assert RetryPolicy().delay(1, LMTimeout("late"), rng(), should_retry=False) is None
    assert RetryPolicy().delay(1, LMStatusError("bad", status=400), rng(), should_retry=True) is not None
    assert RetryPolicy(max_attempts=2).delay(2, LMTimeout("late"), rng(), should_retry=True) is None


@pytest.mark.parametrize("should_retry", [None, True])
def test_after_the_first_streamed_piece_there_is_no_other_attempt(should_retry):
    assert RetryPolicy().delay(1, LMTimeout("cut"), rng(), streamed=True, should_retry=should_retry) is None


# -- the budget -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", [{"share": -0.1}, {"floor": -1}, {"span": 0.0}, {"share": float("nan")}])
def test_a_budget_that_cannot_be_is_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        RetryBudget(**wrong)


def test_when_everything_fails_a_share_is_retried_and_the_rest_fails_at_once():
    clock = ManualClock()
    budget, policy = RetryBudget(share=0.2, floor=10, span=10.0, clock=clock), RetryPolicy()
    retried = 0
    for _ in range(10_000):
        clock.advance(0.01)
        budget.request()
        retried += policy.delay(1, LMTimeout("late"), rng(), budget=budget) is not None
    assert 0.2 * 10_000 <= retried <= 0.2 * 10_000 + 10 * 11


def test_who_asks_rarely_is_retried_as_well():
    clock = ManualClock()
    budget = RetryBudget(share=0.2, floor=3, span=10.0, clock=clock)
    for _ in range(20):
        clock.advance(60)
        budget.request()
        assert [budget.withdraw() for _ in range(4)] == [True, True, True, False]


def test_what_is_not_retried_for_another_reason_costs_nothing():
    budget, policy = RetryBudget(share=0, floor=1, clock=ManualClock()), RetryPolicy(max_attempts=3, max_wait=60)
    assert policy.delay(1, LMAuthError("no"), rng(), budget=budget) is None
    assert policy.delay(3, LMTimeout("late"), rng(), budget=budget) is None
    assert policy.delay(1, LMTimeout("late"), rng(), budget=budget, streamed=True) is None
    assert policy.delay(1, RateLimited("later", 61), rng(), budget=budget) is None
    assert policy.delay(1, CircuitOpen("openai", 3.0), rng(), budget=budget) is not None
    assert policy.delay(1, LMTimeout("late"), rng(), budget=budget) is not None
    assert policy.delay(1, LMTimeout("late"), rng(), budget=budget) is None


def test_a_new_share_takes_effect_at_once_and_keeps_what_is_counted():
    budget = RetryBudget(share=0, floor=2, clock=ManualClock())
    assert [budget.withdraw() for _ in range(3)] == [True, True, False]
    budget.retune(share=0, floor=3)
    assert [budget.withdraw() for _ in range(2)] == [True, False]


@given(
    st.floats(0, 1),
    st.integers(0, 5),
    st.lists(st.tuples(st.floats(-3, 6), st.booleans()), max_size=200),
)
def test_retries_never_exceed_their_share_of_the_span_before_them(share, floor, events):
    """Whenever there is one; the count may look back half a second further than the span."""
    now, at = [0.0], 0.0
    budget = RetryBudget(share=share, floor=floor, span=10.0, clock=lambda: now[0])
    sent, retried = [], []
    for step, retries in events:
        now[0] += step
        at += max(step, 0.0)
        if not retries:
            budget.request()
            sent.append(at)
        elif budget.withdraw():
            retried.append(at)
            allowed = floor + share * sum(then > at - 10.5 - 1e-6 for then in sent)
            assert sum(then > at - 10 for then in retried) <= allowed + 1e-6

"""When a failed request is tried again, and when it is not."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otpy.clients.retry import RetryPolicy
from otpy.errors import CircuitOpen, LMAuthError, LMContextWindowExceeded, LMStatusError, LMTimeout, RateLimited


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

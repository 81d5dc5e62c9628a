"""Requests and tokens per minute: never too many, never for ever, settled, corrected."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otpy.clients.codec import Limits, Window
from otpy.clients.limiter import Limiter, Reservation
from otpy.clients.limiter_storage import SlidingCount, Steady
from otpy.clock import ManualClock
from otpy.errors import ConfigError
from otpy.lm import Usage


def limiter(*bounds, **more):
    clock = ManualClock()
    return Limiter(*bounds, clock=clock, **more), clock


def goes(gate, *tokens):
    return isinstance(gate.reserve(*tokens), Reservation)


def until_through(gate, clock, *tokens):
    """Wait as told, and never more than a few times, as others may have been let through meanwhile."""
    for _ in range(4):
        got = gate.reserve(*tokens)
        if isinstance(got, Reservation):
            return got
        assert got > 0
        clock.advance(got)
    raise AssertionError("one wait is enough, but for rounding")


# -- the bounds -------------------------------------------------------------------------------------------------------


def test_without_a_bound_everything_goes_at_once():
    gate, _ = limiter()
    assert all(goes(gate, 10**9, 10**9) for _ in range(1_000))


@pytest.mark.parametrize("bound", [0, -3])
@pytest.mark.parametrize(
    "name",
    ["requests_per_minute", "input_tokens_per_minute", "output_tokens_per_minute", "tokens_per_minute"],
)
def test_a_bound_that_lets_nothing_through_is_refused_at_once_and_changes_nothing(name, bound):
    with pytest.raises(ConfigError, match=f"{name}={bound}: at least 1"):
        Limiter(**{name: bound})
    gate, _ = limiter(7, tokens_per_minute=9)
    with pytest.raises(ConfigError):
        gate.retune(**({"requests_per_minute": 8} | {name: bound}))
    assert gate.status()["requests"][0] == 7


def test_a_few_requests_go_at_once_and_many_at_an_even_pace():
    few, _ = limiter(5)
    assert [goes(few) for _ in range(6)] == [True] * 5 + [False]
    many, clock = limiter(6_000)
    assert sum(goes(many) for _ in range(6_000)) == 600
    clock.advance(1.0)
    assert sum(goes(many) for _ in range(6_000)) == pytest.approx(100, abs=1)


def test_a_request_that_has_to_wait_costs_nothing():
    gate, clock = limiter(5)
    for _ in range(5):
        gate.reserve()
    waits = {gate.reserve() for _ in range(1_000)}
    assert len(waits) == 1
    clock.advance(waits.pop())
    assert goes(gate)


@pytest.mark.parametrize(
    ("bound", "tokens"),
    [("input_tokens_per_minute", (80, 0)), ("output_tokens_per_minute", (0, 80)), ("tokens_per_minute", (40, 40))],
)
def test_each_kind_of_token_has_its_bound(bound, tokens):
    gate, _ = limiter(**{bound: 100})
    assert goes(gate, *tokens)
    assert not goes(gate, *tokens)
    assert goes(gate, *[0 for _ in tokens])


def test_a_request_larger_than_the_bound_goes_alone():
    gate, clock = limiter(tokens_per_minute=100)
    assert goes(gate, 10, 0)
    assert gate.reserve(500, 0) > 50
    until_through(gate, clock, 500, 0)
    assert clock() >= 60
    assert gate.reserve(1, 0) > 60


@given(st.integers(1, 50), st.floats(0, 1e6), st.lists(st.floats(0, 40), max_size=100))
def test_no_minute_whatever_sees_more_requests_than_the_bound(bound, start, steps):
    clock = ManualClock(start)
    gate = Limiter(bound, clock=clock)
    admitted = []
    for step in steps:
        clock.advance(step)
        while goes(gate):
            admitted.append(clock())
    for moment in admitted:
        assert sum(moment <= other < moment + 60 for other in admitted) <= bound


@given(
    st.integers(10, 10_000),
    st.lists(st.tuples(st.floats(0, 20), st.integers(0, 4_000), st.floats(0, 3)), max_size=60),
)
def test_no_minute_whatever_sees_more_tokens_than_the_bound_once_they_are_settled(bound, requests):
    """Estimates that were too low are taken from those that come after."""
    gate, clock = limiter(tokens_per_minute=bound)
    sent = []
    for pause, tokens, off in requests:
        clock.advance(pause)
        reserved = gate.reserve(tokens, 0)
        if isinstance(reserved, Reservation):
            real = int(tokens * off)
            minute = sum(took for at, took in sent if at > clock() - 60)
            assert minute + tokens <= bound or 0 in {minute, tokens}
            reserved.settle(Usage(real, 0))
            sent.append((clock(), real))


@given(st.integers(1, 200), st.floats(0, 1e6), st.integers(1, 60))
def test_whoever_waits_as_long_as_told_gets_through_and_the_rate_is_used(bound, start, rounds):
    clock = ManualClock(start)
    gate = Limiter(bound, clock=clock)
    sent = min(rounds * bound, 300)
    for _ in range(sent):
        until_through(gate, clock)
    assert clock() - start <= 61 * (sent / bound + 1)


# -- reservations -----------------------------------------------------------------------------------------------------


def test_what_was_reserved_and_not_taken_is_given_back():
    gate, _ = limiter(tokens_per_minute=1_000)
    first = gate.reserve(500, 500)
    assert gate.reserve(300, 0) > 60
    first.settle(Usage(100, 0))
    assert gate.status()["tokens"] == (1_000, 100)


def test_what_was_taken_beyond_the_reservation_is_missing_afterwards():
    gate, clock = limiter(tokens_per_minute=1_000)
    gate.reserve(50, 0).settle(Usage(600, 300))
    assert gate.status()["tokens"] == (1_000, 900)
    wait = gate.reserve(100, 0)
    assert wait > 30, "the pace has been exceeded, too"
    clock.advance(wait)
    assert goes(gate, 100, 0)


def test_a_request_that_was_never_sent_gives_everything_back():
    gate, _ = limiter(1, tokens_per_minute=10)
    for _ in range(100):
        gate.reserve(10, 0).release()
    assert gate.status() == {
        "requests": (1, 0),
        "input_tokens": (None, 0),
        "output_tokens": (None, 0),
        "tokens": (10, 0),
    }


def test_a_request_that_failed_still_was_one():
    gate, _ = limiter(1, tokens_per_minute=10)
    gate.reserve(10, 0).settle(Usage())
    assert (gate.status()["requests"][1], gate.status()["tokens"][1]) == (1, 0)


def test_only_the_first_word_of_a_reservation_counts():
    gate, _ = limiter(10, tokens_per_minute=100)
    reserved = gate.reserve(10, 0)
    reserved.settle(Usage(30, 0))
    for _ in range(3):
        reserved.settle(Usage(90, 0))
        reserved.release()
        reserved.refused()
    assert gate.status()["tokens"] == (100, 30)
    assert gate.status()["requests"] == (10, 1)


def test_cached_tokens_count_unless_the_provider_does_not_count_them():
    for counts, used in ((True, 90), (False, 20)):
        gate, _ = limiter(input_tokens_per_minute=100, cached_counts=counts)
        gate.reserve(90, 0).settle(Usage(90, 0, cached_tokens=70))
        assert gate.status()["input_tokens"] == (100, used)


def test_a_settlement_that_comes_after_its_minute_changes_no_other_minute():
    gate, clock = limiter(tokens_per_minute=1_000)
    slow = gate.reserve(900, 0)
    clock.advance(100)
    gate.reserve(200, 0)
    slow.settle(Usage(1, 0))
    assert gate.status()["tokens"] == (1_000, 200)


# -- the provider's word ----------------------------------------------------------------------------------------------


def test_retry_after_holds_everything_back_and_the_longest_pause_counts():
    gate, clock = limiter()
    gate.heard(Limits(retry_after=5.0))
    gate.heard(Limits(retry_after=3.0))
    gate.pause(1.0)
    assert gate.reserve() == 5.0
    clock.advance(5.0)
    assert goes(gate)


def test_no_answer_can_hold_everything_back_for_ever():
    gate, _ = limiter(max_pause=30.0)
    gate.heard(Limits(retry_after=86_400.0))
    assert gate.reserve() == 30.0


def test_during_a_pause_nothing_is_counted():
    gate, clock = limiter(2)
    gate.pause(5.0)
    assert all(gate.reserve() == 5.0 for _ in range(10))
    clock.advance(5.0)
    assert goes(gate)
    assert goes(gate)


def test_the_lower_of_what_is_configured_and_what_the_provider_says_is_in_force():
    gate, _ = limiter(100)
    gate.heard(Limits(requests=Window(40), tokens=Window(5_000)))
    assert (gate.status()["requests"][0], gate.status()["tokens"][0]) == (40, 5_000)
    gate.heard(Limits(requests=Window(4_000)))
    assert (gate.status()["requests"][0], gate.status()["tokens"][0]) == (100, 5_000)


@pytest.mark.parametrize("limit", [None, 0, -1])
def test_a_limit_of_zero_or_less_is_not_one(limit):
    gate, _ = limiter(100)
    gate.heard(Limits(requests=Window(limit, -1, -1.0)))
    assert gate.status()["requests"] == (100, 0)


def test_what_others_took_with_the_same_key_is_missing_here_and_comes_back():
    gate, clock = limiter(100)
    gate.heard(Limits(requests=Window(100, 10, 60.0)))
    assert gate.status()["requests"] == (100, 90)
    assert sum(goes(gate) for _ in range(100)) == 10
    clock.advance(30.0)
    assert gate.status()["requests"] == (100, pytest.approx(55))
    gate.heard(Limits(requests=Window(100, 88, 30.0)))
    assert gate.status()["requests"] == (100, pytest.approx(12)), "a later word replaces the former"


def test_our_own_requests_are_not_taken_for_those_of_others():
    gate, _ = limiter(100)
    for _ in range(10):
        gate.reserve()
    gate.heard(Limits(requests=Window(100, 90, 60.0)))
    assert gate.status()["requests"] == (100, 10)


@given(
    st.integers(1, 300),
    st.lists(
        st.tuples(st.floats(0, 90), st.none() | st.integers(0, 500), st.none() | st.floats(-10, 600)), max_size=30
    ),
)
def test_whatever_the_headers_say_a_wait_is_finite_and_enough(bound, words):
    gate, clock = limiter(bound)
    for pause, remaining, reset in words:
        clock.advance(pause)
        gate.heard(Limits(requests=Window(bound, remaining, reset)))
        until_through(gate, clock)


# -- how it stands ----------------------------------------------------------------------------------------------------


def test_a_report_says_which_bound_is_in_force_what_is_left_of_it_and_when_it_is_whole():
    gate, clock = limiter(100, tokens_per_minute=1_000)
    assert gate.report()["requests"] == {"limit": 100, "source": "configured", "left": 100, "whole_in": 0}
    for _ in range(10):
        gate.reserve(10, 0)
    clock.advance(20)
    gate.reserve(10, 0)
    assert gate.report()["requests"] == {
        "limit": 100,
        "source": "configured",
        "left": 89,
        "whole_in": pytest.approx(60, abs=0.5),
    }
    assert gate.report()["tokens"]["left"] == 890
    gate.heard(Limits(requests=Window(50, 9, 90.0)))
    told = gate.report()["requests"]
    assert (told["limit"], told["source"], told["left"], told["whole_in"]) == (50, "told", 9, 90)
    clock.advance(90)
    assert gate.report()["requests"] == {"limit": 50, "source": "told", "left": 50, "whole_in": 0}


def test_a_report_names_what_was_learned_and_leaves_out_what_has_no_bound():
    gate, _ = limiter()
    assert gate.report() == {}
    for _ in range(100):
        gate.reserve()
    gate.reserve().refused()
    assert gate.report()["requests"]["source"] == "learned"
    assert 90 <= gate.report()["requests"]["limit"] <= 100


def test_a_report_says_how_long_the_provider_has_asked_to_wait():
    gate, clock = limiter()
    assert gate.paused == 0
    gate.heard(Limits(retry_after=5.0))
    clock.advance(2)
    assert gate.paused == 3


# -- retuning, and clocks ---------------------------------------------------------------------------------------------


def test_new_bounds_keep_what_is_counted_and_reserved():
    gate, clock = limiter(100)
    reserved = [gate.reserve() for _ in range(8)]
    gate.retune(8)
    assert not goes(gate)
    gate.retune(20)
    assert gate.status()["requests"] == (20, 8)
    reserved[0].release()
    assert gate.status()["requests"] == (20, 7)
    gate.retune(None)
    assert all(goes(gate) for _ in range(100))
    gate.retune(20)
    assert not goes(gate)
    clock.advance(61)
    assert goes(gate)


def test_a_clock_that_is_set_back_stops_nothing():
    now = [1_000_000.0]
    gate = Limiter(5, clock=lambda: now[0])
    assert sum(goes(gate) for _ in range(10)) == 5
    now[0] -= 86_400
    wait = gate.reserve()
    assert wait <= 60.5 + 1e-5
    now[0] += wait
    assert goes(gate)


@given(st.lists(st.floats(-1e6, 1e6), max_size=40))
def test_no_jump_of_the_clock_breaks_a_wait(jumps):
    now = [0.0]
    gate = Limiter(3, tokens_per_minute=50, clock=lambda: now[0])
    for jump in jumps:
        now[0] += jump
        got = gate.reserve(20, 0)
        if not isinstance(got, Reservation):
            assert 0 < got <= 130
            now[0] += got + 1e-6
            assert goes(gate, 20, 0)


@given(st.lists(st.floats(-100, 100), min_size=1, max_size=30))
def test_a_steady_clock_never_runs_backwards_and_loses_no_step_forward(steps):
    now = [0.0]
    steady = Steady(lambda: now[0])
    before = steady()
    for step in steps:
        now[0] += step
        after = steady()
        assert after == pytest.approx(before + max(step, 0.0), abs=1e-6)
        before = after


@given(st.lists(st.tuples(st.floats(0, 30), st.integers(0, 100), st.integers(-50, 50)), max_size=60))
def test_a_sliding_count_is_never_too_low_and_at_most_a_slot_late(events):
    window, now, exact = SlidingCount(60.0, slots=60), 0.0, []
    for pause, amount, by in events:
        now += pause
        slot = window.add(now, amount)
        real = max(amount + by, 0)
        window.change(slot, real - amount)
        exact.append((now, real))
        low = sum(took for at, took in exact if at > now - 60)
        high = sum(took for at, took in exact if at > now - 61 - 1e-6)
        assert low <= window.total(now) <= high
        assert window.steps(now)[-1][1] == 0

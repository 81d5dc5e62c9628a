"""How many requests may be in flight: within bounds, never below one, one decrease per round trip, and back again."""

import heapq
import random
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otpy.clients.concurrency import Concurrency
from otpy.clock import ManualClock
from otpy.errors import ConfigError


def concurrency(maximum=1_000, **more):
    clock = ManualClock()
    return Concurrency(maximum, clock=clock, **more), clock


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"minimum": 0}, "minimum=0, maximum=1000: 1 <= minimum <= maximum"),
        ({"minimum": 2_000}, "minimum=2000"),
        ({"initial": 0}, "initial=0: at least 1"),
        ({"decrease": 1.0}, "decrease=1.0: between 0 and 1"),
        ({"tolerance": 1.0}, "tolerance=1.0: above 1"),
    ],
)
def test_bounds_that_do_not_fit_together_are_refused(wrong, message):
    with pytest.raises(ConfigError, match=message):
        concurrency(**wrong)


def test_it_doubles_every_round_trip_until_the_first_overload_and_then_grows_by_one():
    level, clock = concurrency(initial=4)
    for expected in (8, 16, 32):
        clock.advance(1)
        for _ in range(level.limit):
            level.succeeded(1)
        assert level.limit == expected
    clock.advance(1)
    level.dropped(1)
    assert level.limit == 22
    for _ in range(3):
        before = level.limit
        clock.advance(1)
        for _ in range(before):
            level.succeeded(1)
        assert before <= level.limit <= before + 1
    assert level.limit >= 24


def test_a_hundred_overloads_of_one_round_trip_are_one_decrease():
    level, clock = concurrency(initial=100, tolerance=None)
    clock.advance(10)
    for _ in range(100):
        level.dropped(2)
        clock.advance(0.01)
    assert level.limit == 70
    clock.advance(2)
    level.dropped(2)
    assert level.limit == 49


def test_what_was_sent_before_the_decrease_does_not_raise_it_again():
    level, clock = concurrency(initial=100)
    clock.advance(10)
    level.dropped(0.1)
    for _ in range(1_000):
        level.succeeded(5)
    assert level.limit == 70


def test_a_level_that_nobody_comes_near_does_not_grow():
    level, clock = concurrency(initial=20)
    for _ in range(1_000):
        clock.advance(1)
        level.succeeded(1, in_flight=3)
    assert level.limit == 20
    level.succeeded(1, in_flight=10)
    assert level.limit == 21


def test_answers_that_take_twice_as_long_as_usual_lower_it():
    level, clock = concurrency(initial=50)
    for latency in [1.0] * 200 + [3.0] * 200:
        clock.advance(latency)
        level.succeeded(latency, in_flight=0)
    assert level.limit < 50
    blind, clock = concurrency(initial=50, tolerance=None)
    for latency in [1.0] * 200 + [3.0] * 200:
        clock.advance(latency)
        blind.succeeded(latency, in_flight=0)
    assert blind.limit == 50


def test_work_that_has_become_slower_by_itself_is_the_usual_after_a_while():
    level, clock = concurrency(200, initial=50)
    for _ in range(200):
        clock.advance(1)
        level.succeeded(1)
    for _ in range(5_000):
        clock.advance(4)
        level.succeeded(4)
    low = level.limit
    for _ in range(5_000):
        clock.advance(4)
        level.succeeded(4)
    assert level.limit > low


def test_a_few_slow_answers_among_many_change_nothing():
    level, clock = concurrency(100, initial=100)
    for number in range(10_000):
        clock.advance(1)
        level.succeeded(60 if number % 5 == 0 else 1)
    assert level.limit == 100


def test_new_bounds_take_effect_at_once_and_keep_the_level_within_them():
    level, _ = concurrency(initial=50)
    level.retune(30)
    assert level.limit == 30
    level.retune(1_000, minimum=40)
    assert level.limit == 40
    level.retune(1_000)
    assert level.limit == 40
    with pytest.raises(ConfigError):
        level.retune(3, minimum=5)
    assert (level.minimum, level.maximum) == (1, 1_000)


@given(
    st.integers(1, 50),
    st.integers(0, 200),
    st.integers(1, 300),
    st.lists(
        st.one_of(
            st.tuples(st.just("succeeded"), st.floats(0, 1e3)),
            st.tuples(st.just("dropped"), st.floats(0, 1e3)),
            st.tuples(st.just("retune"), st.integers(1, 100)),
            st.tuples(st.just("wait"), st.floats(-1e4, 1e4)),
        ),
        max_size=200,
    ),
)
def test_whatever_happens_it_stays_within_its_bounds(minimum, room, initial, events):
    now = [0.0]
    level = Concurrency(minimum + room, minimum=minimum, initial=initial, clock=lambda: now[0])
    for what, number in events:
        before = level.limit
        if what == "wait":
            now[0] += number
        elif what == "retune":
            level.retune(number + room, minimum=number)
        else:
            getattr(level, what)(number)
            assert level.limit <= before + 1
            if what == "dropped":
                assert level.limit <= before
        assert 1 <= level.minimum <= level.limit <= level.maximum


@given(st.lists(st.tuples(st.floats(0.001, 10), st.floats(0, 30)), min_size=1, max_size=100))
def test_there_is_one_decrease_per_round_trip_whatever_the_order(events):
    """Between two decreases lies a request that was sent after the first of them."""
    level, clock = concurrency(initial=1_000)
    last = None
    for pause, latency in events:
        clock.advance(pause)
        before = level.limit
        level.dropped(latency)
        if level.limit < before:
            assert last is None or clock() - latency >= last
            last = clock()


@pytest.mark.parametrize("refuses", [True, False], ids=["it refuses", "it queues"])
def test_a_provider_that_works_on_fifty_at_a_time_is_found_and_kept_busy(refuses):
    """In virtual time: 50 places, a second each; beyond twice as many it refuses, or lets everybody wait."""
    level, clock = concurrency(2_000)
    rng, number, events = random.Random(3), count(), []
    flying = done = dropped = 0
    free = [0.0] * 50
    while clock() < 300:
        while flying < level.limit:
            flying += 1
            busy = sum(at > clock() for at in free)
            if refuses and busy == 50 and min(free) > clock() + 1:
                heapq.heappush(events, (clock() + 0.05, next(number), clock(), False))
            else:
                starts = max(heapq.heappop(free), clock())
                heapq.heappush(free, ends := starts + rng.uniform(0.8, 1.2))
                heapq.heappush(events, (ends, next(number), clock(), True))
        at, _, sent, good = heapq.heappop(events)
        clock.advance(at - clock())
        flying -= 1
        if good:
            done += clock() > 60
            level.succeeded(clock() - sent, in_flight=flying + 1)
        else:
            dropped += clock() > 60
            level.dropped(clock() - sent)
    assert done >= 0.9 * 50 * 240
    assert dropped <= 0.02 * done
    assert 45 <= level.limit <= 250

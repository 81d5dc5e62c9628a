"""One budget per minute for several limiters: slices, credit, and the exact minute."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otpy.clients.codec import Limits, Window
from otpy.clients.limiter import Limiter, Reservation
from otpy.clients.limiter_storage import SharedMinute, pieces
from otpy.clock import ManualClock
from otpy.errors import ConfigError, RateLimited
from otpy.lm import Usage


def limiter(*bounds, **more):
    clock = ManualClock()
    return Limiter(*bounds, clock=clock, **more), clock


def goes(gate, *tokens):
    return isinstance(gate.reserve(*tokens), Reservation)


# -- the shared minute ------------------------------------------------------------------------------------------------


@given(st.integers(1, 10_000_000))
def test_the_pieces_of_a_bound_never_make_more_than_it_in_a_minute_and_hardly_less(bound):
    seconds, count, size = pieces(bound)
    assert 60 % seconds == 0
    assert 1 <= count <= 255
    assert 0.94 * bound <= count * size * (60 // seconds) <= bound


@given(
    st.integers(1, 5_000),
    st.lists(
        st.tuples(st.sampled_from([0.0, 0.3, 1.9, 7.0, 59.0]) | st.floats(0, 90), st.integers(1, 600)), max_size=80
    ),
)
def test_no_minute_whatever_grants_more_than_the_bound(bound, takes):
    clock = ManualClock()
    shared = SharedMinute.memory("openai", clock=clock)
    granted = []
    for pause, amount in takes:
        clock.advance(pause)
        taken, _ = shared.take({"requests": (amount, bound)})
        granted.append((clock(), taken.get("requests", 0)))
    for moment, _ in granted:
        assert sum(amount for at, amount in granted if moment <= at < moment + 60) <= bound


@given(st.integers(1, 300), st.lists(st.tuples(st.floats(0, 50), st.integers(1, 30)), max_size=60))
def test_whoever_waits_as_long_as_told_gets_something(bound, takes):
    clock = ManualClock()
    shared = SharedMinute.memory("openai", clock=clock)
    for pause, amount in takes:
        clock.advance(pause)
        taken, waits = shared.take({"requests": (amount, bound)})
        if not taken:
            clock.advance(waits["requests"])
            assert shared.take({"requests": (amount, bound)})[0]


def test_each_key_and_each_resource_has_its_own_minute():
    clock = ManualClock()
    here, there = SharedMinute.memory("a", clock=clock), SharedMinute.memory("b", clock=clock)
    assert here.take({"requests": (10, 10), "tokens": (40, 1_000)}) == ({"requests": 10, "tokens": 33}, {})
    assert here.take({"requests": (10, 10), "tokens": (40, 1_000)}) == (
        {},
        {"requests": pytest.approx(60, abs=0.01), "tokens": pytest.approx(2, abs=0.01)},
    )
    assert there.take({"requests": (10, 10)}) == ({"requests": 10}, {})


def test_the_client_of_redis_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "redis", None)
    with pytest.raises(ConfigError, match=r"pip install 'otpy-framework\[redis\]'"):
        SharedMinute.redis("openai", "redis://:hush@127.0.0.1:1/0")


def test_a_redis_server_that_is_gone_is_a_typed_error_without_its_password():
    pytest.importorskip("redis", reason="the extra `redis` is not installed")
    shared = SharedMinute.redis("openai", "redis://:hush@127.0.0.1:1/0")
    for asked in (lambda: shared.take({"requests": (1, 10)}), shared.meet):
        with pytest.raises(RateLimited, match="cannot be asked: ConnectionError") as raised:
            asked()
        assert raised.value.retryable
        assert "hush" not in f"{raised.value!r} {raised.value.__cause__!r}"


# -- the limiter's credit ---------------------------------------------------------------------------------------------


class Sent:
    """What each of several machines has sent, in virtual time, with estimates that are off by a factor of up to 2."""

    def __init__(self, gates, shared, clock, *, tokens=10, seed=0, latency=2.0):
        self.gates, self.shared, self.clock = gates, shared, clock
        self.tokens, self.latency, self.rng = tokens, latency, random.Random(seed)
        self.sent, self.flying = [], []

    def go_on(self, until, *, busy=True):
        while self.clock() < until:
            for gate in self.gates:
                for due in [one for one in self.flying if one[0] <= self.clock()]:
                    self.flying.remove(due)
                    due[1].settle(Usage(due[2], 0))
                while busy:
                    real = self.rng.randint(1, 2 * self.tokens - 1)
                    got = gate.reserve(max(1, int(real * 2 ** self.rng.uniform(-1, 1))), 0)
                    if not isinstance(got, Reservation):
                        break
                    self.sent.append((self.clock(), real))
                    self.flying.append((self.clock() + self.latency, got, real))
                if wanted := gate.wanted():
                    gate.granted(*self.shared.take(wanted))
            self.clock.advance(0.02)


def test_several_limiters_keep_one_budget_together():
    clock = ManualClock()
    shared = SharedMinute.memory("openai", clock=clock)
    gates = [Limiter(600, tokens_per_minute=100_000, shared=True, clock=clock) for _ in range(3)]
    crowd = Sent(gates, shared, clock)
    crowd.go_on(180)
    crowd.go_on(190, busy=False)
    crowd.go_on(300)
    moments = [at for at, _ in crowd.sent]
    for start in moments[::50]:
        assert sum(start <= at < start + 60 for at in moments) <= 600 + 3 * 2
    assert len(moments) >= 0.95 * 600 * 290 / 60


def test_tokens_that_were_estimated_wrongly_are_drawn_or_given_back():
    clock = ManualClock()
    shared = SharedMinute.memory("openai", clock=clock)
    gates = [Limiter(tokens_per_minute=60_000, shared=True, clock=clock) for _ in range(3)]
    crowd = Sent(gates, shared, clock, tokens=300)
    crowd.go_on(240)
    for start, _ in crowd.sent[::50]:
        assert sum(tokens for at, tokens in crowd.sent if start <= at < start + 60) <= 60_000 * 1.05
    assert sum(tokens for at, tokens in crowd.sent if 60 <= at < 240) >= 0.95 * 60_000 * 3


def test_a_shared_limiter_lets_nothing_through_that_was_not_granted():
    gate, clock = limiter(600, shared=True)
    assert 0 < gate.reserve() <= 0.25
    assert gate.wanted() == {"requests": (1, 600)}
    assert gate.wanted() == {}, "it has been asked"
    gate.granted({"requests": 2}, {})
    assert [goes(gate) for _ in range(3)] == [True, True, False]
    assert gate.wanted() == {"requests": (1, 600)}
    gate.granted({}, {"requests": 5.0})
    assert gate.wanted() == {}, "it was told to wait"
    clock.advance(5)
    assert not goes(gate)
    assert gate.wanted() == {"requests": (1, 600)}


def test_a_slice_that_never_came_is_asked_for_again():
    gate, clock = limiter(600, shared=True)
    gate.reserve()
    assert gate.wanted()
    clock.advance(5)
    assert gate.wanted()


def test_a_slice_lasts_a_tenth_of_a_second_and_longer_if_the_server_is_slow():
    gate, clock = limiter(60_000, shared=True)
    gate.reserve()
    assert gate.wanted() == {"requests": (100, 60_000)}
    clock.advance(0.4)
    gate.granted({"requests": 100}, {})
    assert [goes(gate) for _ in range(80)] == [True] * 80
    assert gate.wanted() == {"requests": (780, 60_000)}, "ahead of need"


def test_credit_that_nobody_spends_lapses_and_debts_stay():
    gate, clock = limiter(60_000, shared=True)
    gate.granted({"requests": 100}, {})
    clock.advance(4.9)
    assert goes(gate)
    clock.advance(5.1)
    assert not goes(gate)


def test_a_request_larger_than_what_may_go_at_once_goes_on_credit_and_the_next_ones_pay():
    gate, _ = limiter(tokens_per_minute=6_000, shared=True)
    assert not goes(gate, 500, 0)
    assert gate.wanted() == {"tokens": (200, 6_000)}
    gate.granted({"tokens": 200}, {})
    assert goes(gate, 500, 0)
    assert gate.wanted() == {"tokens": (310, 6_000)}, "the debt, and a slice"


def test_what_is_given_back_is_spent_before_more_is_taken():
    gate, _ = limiter(tokens_per_minute=12_000, shared=True)
    gate.reserve(100, 0)
    gate.granted({"tokens": 100}, {})
    gate.reserve(100, 0).settle(Usage(40, 0))
    assert goes(gate, 60, 0)
    assert not goes(gate, 60, 0)


def test_of_what_comes_back_a_machine_keeps_a_tenth_of_a_minute_at_most():
    gate, _ = limiter(tokens_per_minute=1_000, shared=True)
    gate.granted({"tokens": 900}, {})
    gate.reserve(900, 0).release()
    assert gate.status()["tokens"] == (1_000, 0)
    assert goes(gate, 100, 0)
    assert not goes(gate, 1, 0)


def test_a_limit_that_was_only_learned_or_told_is_each_machine_s_own():
    gate, _ = limiter(600, shared=True)
    gate.granted({"requests": 10}, {})
    reserved = [gate.reserve() for _ in range(10)]
    reserved[-1].refused()
    gate.heard(Limits(tokens=Window(1_000, 1_000, 60.0)))
    assert gate.status()["requests"][0] < 10
    gate.reserve(10, 10)
    assert set(gate.wanted()) <= {"requests"}
    assert all(bound == 600 for _, bound in gate.wanted().values())

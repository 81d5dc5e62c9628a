"""One budget per minute for several limiters, in memory or at a Redis server."""

import shutil
import socket
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otpy.clients.limiter import Limiter, Reservation
from otpy.clients.limiter_storage import SharedMinute
from otpy.clock import ManualClock
from otpy.errors import ConfigError, RateLimited
from otpy.lm import Usage


def limiter(*bounds, **more):
    clock = ManualClock()
    return Limiter(*bounds, clock=clock, **more), clock


def goes(gate, *tokens):
    return isinstance(gate.reserve(*tokens), Reservation)


def shared_crowd(shared, clocks_and_gates, clock, seconds):
    admitted = []
    while clock() < seconds:
        for gate in clocks_and_gates:
            while goes(gate, 10, 0):
                admitted.append(clock())
            if wanted := gate.wanted():
                gate.granted(*shared.take(wanted))
        clock.advance(0.1)
    return admitted


def test_several_limiters_share_one_budget():
    clock = ManualClock()
    shared = SharedMinute.memory("openai", clock=clock)
    gates = [Limiter(600, tokens_per_minute=100_000, shared=True, clock=clock) for _ in range(3)]
    admitted = shared_crowd(shared, gates, clock, 600)
    for start in range(0, 540, 7):
        assert sum(start <= at < start + 60 for at in admitted) <= 600 * 1.2
    assert 0.9 * 600 * 10 <= len(admitted) <= 600 * 10 + 60


def test_a_shared_limiter_lets_nothing_through_that_was_not_granted():
    gate, clock = limiter(600, shared=True)
    assert gate.wanted() == {}
    assert 0 < gate.reserve() < 1
    assert gate.wanted() == {"requests": (10, 600)}
    gate.granted({"requests": 2})
    assert [goes(gate) for _ in range(3)] == [True, True, False]
    gate.granted({}, 5.0)
    assert gate.wanted() == {}, "it was told to wait"
    clock.advance(5)
    assert not goes(gate)
    assert gate.wanted() == {"requests": (10, 600)}


def test_what_is_given_back_is_spent_before_more_is_taken():
    gate, _ = limiter(tokens_per_minute=1_000, shared=True)
    gate.reserve(100, 0)
    gate.granted({"tokens": 100})
    gate.reserve(100, 0).settle(Usage(40, 0))
    assert goes(gate, 60, 0)
    assert not goes(gate, 60, 0)


@given(st.lists(st.tuples(st.floats(0, 50), st.integers(1, 30)), max_size=60))
def test_a_wait_for_the_shared_budget_is_long_enough(takes):
    clock = ManualClock()
    shared = SharedMinute.memory("openai", clock=clock)
    for pause, amount in takes:
        clock.advance(pause)
        taken, wait = shared.take({"requests": (amount, 30)})
        if not taken:
            clock.advance(wait)
            assert shared.take({"requests": (amount, 30)}) == ({"requests": amount}, 0.0)


def test_the_address_of_a_shared_limit_is_checked_and_never_shown():
    with pytest.raises(ConfigError, match=r"redis://.*not 'https'") as raised:
        SharedMinute.redis("openai", "https://:hush@example.org")
    assert "hush" not in str(raised.value)


@pytest.fixture
def redis_url(tmp_path):
    """A Redis server of our own on a free port."""
    pytest.importorskip("redis", reason="the Redis client is not installed")
    server = shutil.which("redis-server")
    if server is None:
        pytest.skip("redis-server is not installed")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [server, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            if "eady to accept connections" in line:
                break
        yield f"redis://127.0.0.1:{port}/0"
        process.terminate()


def test_a_redis_server_keeps_one_budget_for_several_machines(redis_url):
    here, there = SharedMinute.redis("openai", redis_url), SharedMinute.redis("openai", redis_url)
    assert here.take({"requests": (30, 100), "tokens": (500, 1_000)}) == ({"requests": 30, "tokens": 500}, 0.0)
    assert there.take({"requests": (70, 100)}) == ({"requests": 70}, 0.0)
    taken, wait = here.take({"requests": (1, 100), "tokens": (500, 1_000)})
    assert taken == {"tokens": 500}
    assert 58 <= wait <= 61
    assert SharedMinute.redis("anthropic", redis_url).take({"requests": (100, 100)}) == ({"requests": 100}, 0.0)


def test_a_redis_server_that_is_gone_is_a_typed_error_without_its_password():
    pytest.importorskip("redis", reason="the Redis client is not installed")
    shared = SharedMinute.redis("openai", "redis://:hush@127.0.0.1:1/0", timeout=0.5)
    with pytest.raises(RateLimited, match="cannot be asked") as raised:
        shared.take({"requests": (1, 10)})
    assert raised.value.retryable
    assert "hush" not in str(raised.value)

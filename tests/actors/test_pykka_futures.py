"""The futures of pykka's protocol: the same by `get` in a thread and by `await` on a loop, and what is made of them."""

import asyncio
import concurrent.futures
import operator
import threading

import pykka
import pytest
from hypothesis import given
from hypothesis import strategies as st

from otpy.actors.pykka_protocol import PykkaFuture


def ready(value):
    future = PykkaFuture()
    future.set(value)
    return future


def both_ways(future):
    """The value, waited for in a thread and awaited on a loop: the same."""

    async def awaited():
        return await future()

    value = asyncio.run(awaited())
    assert future().get(timeout=5) == value
    return value


@given(st.lists(st.integers()))
def test_map_filter_reduce_and_join_are_the_builtins_on_what_will_be_there(numbers):
    assert both_ways(lambda: ready(numbers).map(sorted)) == sorted(numbers)
    assert both_ways(lambda: ready(numbers).filter(lambda n: n > 3)) == [n for n in numbers if n > 3]
    assert both_ways(lambda: ready(numbers).reduce(operator.add, 7)) == sum(numbers) + 7
    assert both_ways(lambda: ready(numbers).join(ready(1), ready(None))) == [numbers, 1, None]
    chain = both_ways(lambda: ready(numbers).filter(bool).map(len).join(ready(0)).reduce(max))
    assert chain == len([n for n in numbers if n])


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda future: future.map(lambda value: value / 0), ZeroDivisionError),
        (lambda future: future.filter(bool), TypeError),
        (lambda future: future.reduce(max), TypeError),
    ],
)
def test_what_cannot_be_made_of_a_value_is_raised_where_it_is_waited_for(make, error):
    with pytest.raises(error):
        both_ways(lambda: make(ready(1)))
    with pytest.raises(error):
        make(ready(1)).get()


def test_nothing_is_made_of_a_value_twice():
    calls = []
    future = ready(1).map(lambda value: calls.append(value) or len(calls))
    assert both_ways(lambda: future) == 1
    assert future.get() == 1
    assert calls == [1]


def test_join_takes_pykkas_own_futures_too():
    theirs = pykka.ThreadingFuture()
    threading.Timer(0.01, theirs.set, ("theirs",)).start()
    assert both_ways(lambda: ready("ours").join(theirs)) == ["ours", "theirs"]
    assert theirs.join(ready("ours")).get(timeout=5) == ["theirs", "ours"]


def test_the_timeout_of_a_get_reaches_what_it_is_made_of():
    for future in (PykkaFuture().map(str), PykkaFuture().join(ready(1)), PykkaFuture().filter(bool)):
        with pytest.raises(pykka.Timeout):
            future.get(timeout=0.01)


def test_an_exception_is_raised_every_time_and_stays_itself():
    future = PykkaFuture()
    try:
        raise KeyError("lost")
    except KeyError as error:
        raised = error
        future.set_exception()
    for wait in (future.get, lambda: both_ways(lambda: future), future.map(str).get):
        with pytest.raises(KeyError) as caught:
            wait()
        assert caught.value is raised


def test_a_future_is_set_once():
    future = ready(1)
    for again in (lambda: future.set(2), lambda: future.set_exception((KeyError, KeyError(), None))):
        with pytest.raises(concurrent.futures.InvalidStateError):
            again()
    with pytest.raises(concurrent.futures.InvalidStateError):
        future.set_get_hook(lambda timeout: 3)
    assert future.get() == 1
    with pytest.raises(concurrent.futures.InvalidStateError):
        future.map(str).set("other")


def test_a_hook_of_ones_own_is_called_once_and_in_no_loops_thread():
    threads = []
    future = PykkaFuture()
    future.set_get_hook(lambda timeout: threads.append(threading.get_ident()) or len(threads))
    assert both_ways(lambda: future) == 1
    assert threads != [threading.get_ident()]


def test_a_falsy_value_is_a_value():
    for value in (None, 0, "", [], False):
        assert both_ways(lambda value=value: ready(value)) == value

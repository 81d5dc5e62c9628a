"""Routes: whom a request is sent to, whom next, whom as well; and that no request is lost on the way."""

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otpy.clients.routes import CAUSES, Chain, Cheapest, Hedged, Needs, Offer, Split, cause_of, clients_of
from otpy.clients.routing import Router
from otpy.errors import (
    ActorDown,
    BudgetExceeded,
    CallTimeout,
    CircuitOpen,
    ConfigError,
    LMAuthError,
    LMConnectionError,
    LMContextWindowExceeded,
    LMQuotaExceeded,
    LMRefusal,
    LMRequestInvalid,
    LMResponseInvalid,
    LMStatusError,
    LMTimeout,
    NotRegistered,
    Overloaded,
    RateLimited,
)

FALLS_BACK = {
    CircuitOpen("a", 3.0): "circuit",
    Overloaded("full"): "overload",
    RateLimited("later"): "overload",
    LMStatusError("", status=429): "overload",
    LMStatusError("", status=503): "overload",
    LMStatusError("", status=529): "overload",
    LMQuotaExceeded("", status=429): "quota",
    LMQuotaExceeded("", status=402): "quota",
    LMRefusal(""): "refusal",
    LMTimeout(""): "timeout",
    LMStatusError("", status=408): "timeout",
    LMStatusError("", status=500): "broken",
    LMConnectionError(""): "broken",
    LMResponseInvalid(""): "broken",
    ActorDown("a", "kill"): "down",
    CallTimeout("a", 3.0): "down",
    NotRegistered("a"): "down",
}
ENDS = [
    LMStatusError("", status=400),
    LMStatusError("", status=404),
    LMRequestInvalid("", status=422),
    LMAuthError("", status=401),
    LMContextWindowExceeded(""),
    BudgetExceeded("spent"),
    KeyError("ours"),
    KeyboardInterrupt(),
]
LATE, WRONG = LMTimeout("late"), LMAuthError("key")


@pytest.mark.parametrize(("error", "cause"), FALLS_BACK.items(), ids=lambda each: repr(each)[:40])
def test_what_another_client_might_answer_has_a_cause(error, cause):
    assert cause_of(error) == cause
    assert cause in CAUSES


@pytest.mark.parametrize("error", ENDS, ids=repr)
def test_what_is_wrong_with_the_request_is_no_cause_to_ask_another(error):
    assert cause_of(error) is None
    plan = Router(Chain(("a", "b"))).plan()
    plan.first()
    assert plan.after(error) is None


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Chain(()), "a Chain needs the name of at least one client"),
        (lambda: Chain(("a", "")), "a Chain needs the name"),
        (lambda: Chain(("a", "b", "a")), "names a twice"),
        (lambda: Chain((Split({"a": 1, "b": 1}), "b")), "names b twice"),
        (lambda: Chain(("a",), on=frozenset({"weather"})), "weather.*allowed: broken, circuit"),
        (lambda: Cheapest((Offer("a"),), on=frozenset({"weather"})), "weather"),
        (lambda: Cheapest(()), "at least one client"),
        (lambda: Split({}), "at least one client"),
        (lambda: Split({"a": -1, "b": 2}), "weights are at least 0"),
        (lambda: Split({"a": 0.0}), "one is more"),
        (lambda: Split({"a": float("nan")}), "weights are at least 0"),
        (lambda: Hedged("a", "a"), "names a twice"),
        (lambda: Hedged("a", "b", share=1.5), "share=1.5"),
        (lambda: Hedged("a", "b", samples=0), "samples=0"),
        (lambda: Hedged("a", "b", percentile=1.0), "percentile=1.0"),
    ],
)
def test_a_route_that_cannot_be_is_refused_where_it_is_written(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


# -- chains -----------------------------------------------------------------------------------------------------------


def test_a_chain_may_be_told_for_what_it_goes_on():
    plan = Router(Chain(("a", "b"), on=frozenset({"circuit"}))).plan()
    assert plan.first() == "a"
    assert plan.after(LATE) is None
    plan = Router(Chain(("a", "b"), on=frozenset({"circuit"}))).plan()
    plan.first()
    assert plan.after(CircuitOpen("a", 1.0)) == "b"


def test_what_an_inner_chain_does_not_go_on_for_the_outer_one_may():
    plan = Router(Chain((Chain(("a", "b"), on=frozenset({"circuit"})), "c"))).plan()
    assert [plan.first(), plan.after(LATE), plan.after(LATE)] == ["a", "c", None]
    plan = Router(Chain((Chain(("a", "b"), on=frozenset({"circuit"})), "c"))).plan()
    assert [plan.first(), plan.after(CircuitOpen("a", 1.0)), plan.after(LATE)] == ["a", "b", "c"]


def test_a_route_may_be_a_name():
    plan = Router("a").plan()
    assert (plan.first(), plan.after(LATE), plan.hedge_after(), plan.hedge()) == ("a", None, None, None)


def test_a_retry_policy_may_begin_anew():
    plan = Router(Chain(("a", "b"))).plan()
    assert [plan.first(), plan.after(LATE), plan.after(LATE)] == ["a", "b", None]
    assert [plan.first(), plan.after(LATE), plan.after(LATE)] == ["a", "b", None]


# -- splits -----------------------------------------------------------------------------------------------------------


def test_a_split_keeps_its_weights_and_the_seed_decides():
    route = Split({"a": 9, "b": 1, "c": 0})
    router = Router(route, rng=random.Random(1))
    asked = [router.plan().first() for _ in range(5_000)]
    counts = Counter(asked)
    assert counts["a"] / 5_000 == pytest.approx(0.9, abs=0.02)
    assert set(counts) == {"a", "b"}
    again = Router(route, rng=random.Random(1))
    assert asked[:100] == [again.plan().first() for _ in range(100)]


def test_a_split_does_not_go_on_but_a_chain_around_it_does():
    plan = Router(Split({"a": 1, "b": 0})).plan()
    assert (plan.first(), plan.after(LATE)) == ("a", None)
    plan = Router(Chain((Split({"a": 1, "b": 0}), "c"))).plan()
    assert (plan.first(), plan.after(LATE)) == ("a", "c")


# -- the cheapest -----------------------------------------------------------------------------------------------------

OFFERS = (
    Offer("dear", 10e-6, 30e-6, frozenset({"images", "tools"}), 200_000),
    Offer("reads", 1e-6, 40e-6, frozenset({"tools"}), 100_000),
    Offer("writes", 4e-6, 5e-6, frozenset({"tools"}), 8_000),
    Offer("unknown", None, None, frozenset({"images", "tools", "audio"})),
)


@pytest.mark.parametrize(
    ("needs", "order"),
    [
        (None, ["writes", "dear", "reads", "unknown"]),
        (Needs(input_tokens=1_000, output_tokens=10), ["reads", "writes", "dear", "unknown"]),
        (Needs(input_tokens=10, output_tokens=1_000), ["writes", "dear", "reads", "unknown"]),
        (Needs(input_tokens=9_000, output_tokens=10), ["reads", "dear", "unknown"]),
        (Needs(frozenset({"images"})), ["dear", "unknown"]),
        (Needs(frozenset({"audio"}), 10, 10), ["unknown"]),
        (Needs(input_tokens=1_000_000), ["unknown"]),
    ],
)
def test_the_cheapest_that_can_do_it_goes_first_and_then_the_next(needs, order):
    plan = Router(Cheapest(OFFERS)).plan(needs)
    asked = [plan.first()]
    while (following := plan.after(LATE)) is not None:
        asked.append(following)
    assert asked == order


def test_if_nobody_can_do_it_the_error_says_what_is_missing():
    with pytest.raises(LMRequestInvalid, match=r"needs smell, 3 tokens.*dear, reads, writes, unknown"):
        Router(Cheapest(OFFERS)).plan(Needs(frozenset({"smell"}), 1, 2))
    plan = Router(Chain((Cheapest(OFFERS), "other"))).plan(Needs(frozenset({"smell"})))
    assert plan.first() == "other"


# -- hedges -----------------------------------------------------------------------------------------------------------


def warm(route, requests=100, latency=lambda number: number / 100):
    router = Router(route, rng=random.Random(0))
    for number in range(requests):
        plan = router.plan()
        plan.first()
        plan.observe(latency(number))
    return router


def test_nobody_is_asked_as_well_before_it_is_known_what_is_usual():
    router = warm(Hedged("a", "b"), 49)
    plan = router.plan()
    plan.first()
    assert (plan.hedge_after(), plan.hedge()) == (None, None)
    plan.observe(0.5)
    assert plan.hedge_after() is not None


def test_the_second_is_asked_after_the_95th_percentile_and_once():
    plan = warm(Hedged("a", "b")).plan()
    assert plan.first() == "a"
    assert plan.hedge_after() == 0.94
    assert plan.hedge() == "b"
    assert (plan.hedge_after(), plan.hedge()) == (None, None)
    assert plan.asked == ["a", "b"]


def test_the_usual_is_that_of_the_last_thousand():
    router = warm(Hedged("a", "b"), 1_000, lambda number: 100.0)
    for _ in range(1_000):
        router.observe("a", 1.0)
    plan = router.plan()
    plan.first()
    assert plan.hedge_after() == 1.0


def test_the_latencies_of_others_say_nothing_of_the_first():
    router = warm(Hedged("a", "b"))
    before = router.plan()
    before.first()
    for _ in range(500):
        router.observe("b", 99.0)
    assert before.hedge_after() == 0.94


def test_of_two_that_are_asked_the_failure_of_one_leaves_the_other():
    plan = warm(Chain((Hedged("a", "b"), "c"))).plan()
    plan.first()
    plan.hedge()
    assert plan.after(LATE) is None
    assert plan.after(LATE) == "c"
    assert plan.after(LATE) is None


def test_a_first_that_fails_makes_the_second_a_fallback():
    plan = warm(Hedged("a", "b")).plan()
    plan.first()
    assert plan.after(LATE) == "b"
    assert (plan.hedge_after(), plan.after(LATE)) == (None, None)


@given(st.sampled_from([0.0, 0.01, 0.05, 0.1, 0.5, 1.0]), st.lists(st.booleans(), max_size=300))
def test_hedges_never_exceed_their_share(share, late):
    router = Router(Hedged("a", "b", share=share, samples=1))
    router.observe("a", 1.0)
    hedges = 0
    for number, slow in enumerate(late, 1):
        plan = router.plan()
        plan.first()
        hedges += slow and plan.hedge() is not None
        assert hedges <= share * number + 1e-6


def test_if_every_request_is_late_the_share_is_used():
    router = Router(Hedged("a", "b", share=0.1, samples=1))
    router.observe("a", 1.0)
    hedges = 0
    for _ in range(1_000):
        plan = router.plan()
        plan.first()
        hedges += plan.hedge() is not None
    assert 99 <= hedges <= 100


# -- whatever the route -----------------------------------------------------------------------------------------------

CLIENTS = [f"c{number}" for number in range(12)]
FATES = st.sampled_from([None, *FALLS_BACK, *ENDS[:6]])


@st.composite
def routes(draw, names=None, depth=2):
    """Any route over some of the clients, each named once."""
    names = list(draw(st.permutations(CLIENTS))) if names is None else names
    kind = draw(st.sampled_from(["name", "chain", "split", "cheapest", "hedged"] if depth else ["name"]))
    on = draw(st.sampled_from([CAUSES, CAUSES, frozenset({"circuit"}), frozenset({"timeout", "refusal"})]))
    if kind == "name" or len(names) < 2:
        return names.pop()
    if kind == "split":
        return Split({names.pop(): 2.0, names.pop(): 1.0})
    if kind == "cheapest":
        prices = st.none() | st.floats(0, 1)
        return Cheapest((Offer(names.pop(), draw(prices), 1.0), Offer(names.pop(), draw(prices), 1.0)), on)
    if kind == "hedged":
        return Hedged(names.pop(), names.pop(), share=1.0, samples=1)
    return Chain(tuple(draw(routes(names, depth - 1)) for _ in range(draw(st.integers(1, 3))) if names), on)


def outcome(route, fates, asked):
    """Say, by the book, what becomes of a request: an error, or `None` for an answer."""
    match route:
        case str():
            return fates[route]
        case Split():
            return fates[next(name for name in route.weights if name in asked)]
        case Hedged():
            members, on = (route.first, route.second), CAUSES
        case Cheapest():
            ordered = sorted(route.offers, key=lambda offer: offer.price(Needs(input_tokens=1, output_tokens=1)))
            members, on = [offer.client for offer in ordered], route.on
        case Chain():
            members, on = route.members, route.on
    for member in members:
        error = outcome(member, fates, asked)
        if error is None or cause_of(error) not in on:
            return error
    return error


@given(routes(), st.lists(FATES, min_size=12, max_size=12), st.integers())
def test_a_request_ends_as_its_route_says_and_asks_nobody_twice(route, fates, seed):
    fates = dict(zip(CLIENTS, fates, strict=True))
    plan = Router(route, rng=random.Random(seed)).plan()
    name, error = plan.first(), None
    while name is not None:
        error = fates[name]
        name = None if error is None else plan.after(error)
    assert len(set(plan.asked)) == len(plan.asked)
    assert set(plan.asked) <= set(clients_of(route))
    assert error is outcome(route, fates, plan.asked)


@given(routes(), st.data(), st.integers())
def test_no_request_is_lost_while_a_client_of_the_chain_would_answer(route, data, seed):
    """With hedges fired at any moment, two in flight at a time, and failures in any order."""
    asked_of = clients_of(route)
    well = data.draw(st.sets(st.sampled_from(asked_of)))
    last = "last resort"
    router = Router(Chain((route, last)), rng=random.Random(seed))
    for name in asked_of:
        router.observe(name, 1.0)
    plan = router.plan()
    flying = [plan.first()]
    answered = False
    while flying and not answered:
        if data.draw(st.booleans()) and (more := plan.hedge()) is not None:
            flying.append(more)
        name = flying.pop(data.draw(st.integers(0, len(flying) - 1)))
        answered = name in well or name == last
        if not answered and (following := plan.after(LATE)) is not None:
            flying.append(following)
        assert len(flying) <= 2
    assert answered
    assert len(set(plan.asked)) == len(plan.asked)

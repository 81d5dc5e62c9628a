"""Caps: what is set aside before a request is sent, so that no cap is passed, however requests end."""

import asyncio
import gc
import json
import threading
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from otpy.clients.book import Book
from otpy.clients.budget import Budget, Cap, Estimate, input_ceiling
from otpy.clients.labels import Labels, current_labels, labels
from otpy.errors import BudgetExceeded, ConfigError
from otpy.lm import FrozenJSON, LMRequest, Media, Message, OutputSchema, Text, Tool, ToolResult, ToolUse, Usage

ME = Labels("default", "m", run="r1")
LIMITS = {"tokens": 1_000, "money": Decimal(1), "requests": 12}


def caps(**limits):
    return [Cap(kind, limit) for kind, limit in limits.items()]


def state(budget):
    (found,) = budget.states()
    return found.spent, found.reserved


# -- no cap is passed -------------------------------------------------------------------------------------------------


class Requests(RuleBasedStateMachine):
    """Requests that are admitted, end in any order and any way, are told of twice, and survive restarts."""

    @initialize(kinds=st.sets(st.sampled_from(("tokens", "money", "requests")), min_size=1))
    def start(self, kinds):
        self.book = Book(caps(**{kind: LIMITS[kind] for kind in kinds}))
        self.flying = []
        self.over = []
        self.took = {"tokens": 0, "money": Decimal(0), "requests": 0}

    @rule(tokens=st.integers(0, 400), cents=st.integers(0, 40))
    def ask(self, tokens, cents):
        try:
            self.flying.append(self.book.admit(Estimate(tokens, Decimal(cents) / 100), ME))
        except BudgetExceeded as error:
            assert (
                error.spent + error.reserved + error.asked > error.limit or error.spent + error.reserved == error.limit
            )

    @precondition(lambda self: self.flying)
    @rule(data=st.data())
    def end(self, data):
        reservation = self.flying.pop(data.draw(st.integers(0, len(self.flying) - 1)))
        tokens = data.draw(st.integers(0, reservation.estimate.tokens))
        money = data.draw(st.integers(0, int(reservation.estimate.money * 100))) / Decimal(100)
        how = data.draw(st.sampled_from(("answered", "failed", "unknown", "never sent")))
        if how == "never sent":
            assert reservation.release()
        elif how == "unknown":
            assert reservation.settle(None, failed=True)
            self.count(tokens, money)  # the provider may well have worked
        else:
            assert reservation.settle(Usage(tokens, 0), money, failed=how == "failed")
            self.count(tokens, money)
        self.over.append(reservation)

    def count(self, tokens, money):
        self.took["tokens"] += tokens
        self.took["money"] += money
        self.took["requests"] += 1

    @precondition(lambda self: self.over)
    @rule(data=st.data())
    def tell_again(self, data):
        before = self.book.snapshot()
        reservation = data.draw(st.sampled_from(self.over))
        assert not reservation.open
        assert not reservation.settle(Usage(1_000_000, 0), Decimal(9))
        assert not reservation.release()
        assert self.book.snapshot() == before

    @precondition(lambda self: self.flying)
    @rule()
    def forget(self):
        reservation = self.flying.pop()
        self.count(reservation.estimate.tokens, reservation.estimate.money)
        del reservation

    @rule()
    def restart(self):
        for reservation in self.flying:  # they were on their way, and nobody is there to hear of their end
            self.count(reservation.estimate.tokens, reservation.estimate.money)
        snapshot = json.loads(json.dumps(self.book.snapshot()))
        self.flying.clear()
        self.over.clear()
        self.book = Book.restored(snapshot)

    @invariant()
    def no_cap_is_passed(self):
        for found in self.book.budget.states():
            assert self.took[found.cap.kind] <= found.spent <= found.spent + found.reserved <= found.cap.limit

    def teardown(self):
        for reservation in self.flying:
            reservation.settle(Usage(reservation.estimate.tokens, 0), reservation.estimate.money)
        for found in self.book.budget.states():
            assert found.reserved == 0
            assert found.spent <= found.cap.limit


TestRequests = Requests.TestCase
TestRequests.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


@given(
    limit=st.integers(1, 500),
    requests=st.lists(st.tuples(st.integers(0, 60), st.integers(0, 200)), max_size=40),
    data=st.data(),
)
def test_estimates_that_are_too_low_pass_a_cap_by_what_was_in_flight_minus_what_was_reserved(limit, requests, data):
    budget = Budget(caps(tokens=limit))
    flying, beyond = [], 0
    for estimate, real in requests:
        while flying and data.draw(st.booleans()):
            reservation, took = flying.pop(data.draw(st.integers(0, len(flying) - 1)))
            reservation.settle(Usage(took, 0))
        try:
            flying.append((budget.admit(Estimate(estimate), ME), real))
        except BudgetExceeded:
            continue
        assert sum(state(budget)) <= limit
        beyond = sum(took - reservation.estimate.tokens for reservation, took in flying)  # when the last was let in
    in_flight = sum(took for _, took in flying)
    before = state(budget)[0]
    for reservation, took in flying:
        reservation.settle(Usage(took, 0))
    assert state(budget) == (before + in_flight, 0)
    assert before + in_flight <= limit + beyond


def test_without_estimates_requests_are_let_through_until_the_cap_is_reached():
    budget = Budget(caps(tokens=100))
    first, second = budget.admit(Estimate(), ME), budget.admit(Estimate(), ME)
    first.settle(Usage(99, 0))
    budget.admit(Estimate(), ME).settle(Usage(1, 0))
    with pytest.raises(BudgetExceeded):
        budget.admit(Estimate(), ME)
    second.settle(Usage(60, 0))
    assert state(budget) == (160, 0)


@pytest.mark.parametrize(("kind", "estimate"), [("tokens", Estimate()), ("money", Estimate(1, Decimal(0)))])
def test_a_cap_of_nothing_lets_nothing_through(kind, estimate):
    with pytest.raises(BudgetExceeded):
        Budget(caps(**{kind: 0})).admit(estimate, ME)


# -- who is refused, and what they are told ---------------------------------------------------------------------------


def test_a_refusal_names_the_cap_what_is_spent_what_is_reserved_and_what_was_asked():
    budget = Budget([Cap("tokens", 10_000, Labels(run="r1"))])
    budget.admit(Estimate(5_000), ME).settle(Usage(1_000, 234))
    held = budget.admit(Estimate(4_000), ME)
    with pytest.raises(BudgetExceeded) as caught:
        budget.admit(Estimate(5_000), ME)
    error = caught.value
    assert str(error).startswith(
        "the cap of 10,000 tokens on run 'r1' would be passed: 1,234 tokens spent, 4,000 tokens reserved for requests"
        " in flight, up to 5,000 tokens asked; the request was not sent"
    )
    assert (error.limit, error.spent, error.reserved, error.asked) == (10_000, 1_234, 4_000, 5_000)
    assert error.may_fit_later
    assert not error.retryable
    held.settle(Usage(4_000, 0))
    with pytest.raises(BudgetExceeded) as caught:
        budget.admit(Estimate(5_000), ME)
    assert not caught.value.may_fit_later
    assert budget.states()[0].refused == 2


def test_a_cap_on_money_says_dollars():
    budget = Budget([Cap("money", "0.05")])
    with pytest.raises(BudgetExceeded, match=r"the cap of \$0\.05 on the whole application .* up to \$0\.06 asked"):
        budget.admit(Estimate(10, Decimal("0.06")), ME)


def test_a_refused_request_sets_nothing_aside_under_the_caps_that_would_have_let_it_through():
    budget = Budget([Cap("requests", 5), Cap("tokens", 10, Labels(run="r1"))])
    with pytest.raises(BudgetExceeded):
        budget.admit(Estimate(11), ME)
    assert [(found.spent, found.reserved) for found in budget.states()] == [(0, 0), (0, 0)]


def test_a_cap_holds_for_those_with_its_labels_and_for_nobody_else():
    budget = Budget([Cap("requests", 1, Labels(run="r1")), Cap("requests", 2, Labels("slow")), Cap("requests", 4)])
    budget.admit(Estimate(), Labels("fast", run="r1")).settle(Usage())
    with pytest.raises(BudgetExceeded, match="run 'r1'"):
        budget.admit(Estimate(), Labels("fast", "m", "r1", "p", "q", "7"))
    budget.admit(Estimate(), Labels("slow", run="r2")).settle(Usage())
    budget.admit(Estimate(), Labels("slow", run="r3")).settle(Usage())
    with pytest.raises(BudgetExceeded, match="client 'slow'"):
        budget.admit(Estimate(), Labels("slow"))
    budget.admit(Estimate(), Labels()).settle(Usage())
    with pytest.raises(BudgetExceeded, match="the whole application"):
        budget.admit(Estimate(), Labels())


def test_a_request_without_a_known_price_is_refused_by_a_cap_on_money_unless_that_is_allowed():
    with pytest.raises(BudgetExceeded, match="price of this request is not known") as caught:
        Budget([Cap("money", 5)]).admit(Estimate(10), ME)
    assert caught.value.asked is None
    assert not caught.value.may_fit_later
    with pytest.raises(BudgetExceeded, match=r"in \[clients\.slow\] of otpy\.toml"):
        Budget([Cap("money", 5)]).admit(Estimate(10), Labels("slow"))
    lenient = Budget([Cap("money", 5, allow_unpriced=True)])
    lenient.admit(Estimate(10), ME).settle(Usage(10, 0), None)
    assert state(lenient) == (0, 0)


def test_a_request_whose_price_turns_out_unknown_costs_what_was_set_aside():
    budget = Budget([Cap("money", 5)])
    budget.admit(Estimate(10, Decimal(2)), ME).settle(Usage(10, 0), None)
    assert state(budget) == (2, 0)


def test_a_request_that_failed_without_taking_tokens_costs_nothing_but_is_a_request():
    budget = Budget(caps(money=5, requests=3))
    budget.admit(Estimate(10, Decimal(2)), ME).settle(Usage(), failed=True)
    assert [found.spent for found in budget.states()] == [0, 1]


def test_a_reservation_that_is_forgotten_counts_as_spent():
    seen = []
    budget = Budget(caps(tokens=100), lambda *entry: seen.append(entry))
    thread = threading.Thread(target=lambda: budget.admit(Estimate(70), ME))
    thread.start()
    thread.join()
    gc.collect()
    assert state(budget) == (70, 0)
    assert seen == [(ME, None, None, True)]
    assert budget.lost == 1


def test_a_cap_can_be_raised_lowered_and_lifted_while_requests_are_in_flight():
    budget = Budget(caps(tokens=100))
    held = budget.admit(Estimate(100), ME)
    budget.add(Cap("tokens", 150))
    other = budget.admit(Estimate(50), ME)
    budget.add(Cap("tokens", 10))
    other.release()
    assert state(budget) == (0, 100)
    with pytest.raises(BudgetExceeded):
        budget.admit(Estimate(1), ME)
    budget.remove(Labels())
    budget.admit(Estimate(10**9), ME).release()
    assert held.settle(Usage(3, 4))


@pytest.mark.parametrize(
    ("kind", "limit"),
    [("token", 1), ("tokens", -1), ("tokens", 1.5), ("money", "a lot"), ("money", "NaN"), ("requests", True)],
)
def test_what_is_no_cap_is_refused(kind, limit):
    with pytest.raises(ConfigError, match="of a cap"):
        Cap(kind, limit)


# -- labels -----------------------------------------------------------------------------------------------------------


def test_labels_are_refined_inside_and_restored_outside():
    assert current_labels() == Labels()
    with labels(run="r", program="outer"), labels(program="inner", example=3) as inner:
        assert current_labels() == inner == Labels(run="r", program="inner", example="3")
    assert current_labels() == Labels()


def test_an_unknown_label_is_refused():
    with pytest.raises(TypeError, match="no label runs"), labels(runs="r"):
        pass


def test_tasks_and_threads_inherit_labels_and_do_not_mix():
    async def ask(name):
        with labels(example=name):
            await asyncio.sleep(0)
            return (await asyncio.to_thread(current_labels)).example, current_labels().run

    async def main():
        with labels(run="r"):
            return await asyncio.gather(*(asyncio.create_task(ask(str(number))) for number in range(20)))

    assert asyncio.run(main()) == [(str(number), "r") for number in range(20)]


# -- how much a request reads at most ---------------------------------------------------------------------------------


@given(st.lists(st.text(max_size=50), max_size=5))
def test_no_text_is_estimated_to_fewer_tokens_than_it_has_bytes(texts):
    request = LMRequest(tuple(Message("user", text) for text in texts))
    assert input_ceiling(request) >= sum(len(text.encode("utf-8", "replace")) for text in texts)


def test_everything_in_a_request_is_counted():
    plain = LMRequest((Message("user", "hello"),))
    least = input_ceiling(plain)
    long = "x" * 1_000
    for content in (
        (Text(long),),
        (ToolResult("1", "f", long),),
        (ToolUse("1", "f", FrozenJSON.of({"a": long})),),
        (Media("image", "image/png", b"1"),),
    ):
        assert input_ceiling(LMRequest((Message("user", content),))) >= least + 900
    schema = OutputSchema("s", FrozenJSON.of({"a": long}))
    assert input_ceiling(LMRequest(plain.messages, schema)) >= least + 1_000
    tool = Tool("f", long, FrozenJSON.of({}))
    assert input_ceiling(LMRequest(plain.messages, tools=(tool,))) >= least + 1_000

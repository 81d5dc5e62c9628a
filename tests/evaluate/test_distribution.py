"""Rows on many nodes, without any: who gets which row, who may take how much, and what the driver makes of reports."""

from __future__ import annotations

import asyncio
from collections import Counter
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

import otpy
from otpy.clients.book import Book
from otpy.clients.labels import ANYBODY
from otpy.clients.traffic import Traffic
from otpy.config import Settings
from otpy.errors import EvaluationError
from otpy.evaluate.distributed import Afar
from otpy.evaluate.distribution import Distribution
from otpy.evaluate.nodes import Home, NodeAway, NodeLost, Report
from otpy.evaluate.row import Scored
from otpy.evaluate.shares import CapKey, Grants, Shares
from otpy.evaluate.source import Source
from otpy.signatures import Example, Prediction
from otpy.testing import run_in_virtual_time

TOKENS = CapKey("tokens", ANYBODY)
MONEY = CapKey("money", ANYBODY)


def rows_of(count: int, **options) -> Distribution:
    rows = Distribution(**options)
    for number in range(count):
        rows.add(number, number)
    rows.close()
    return rows


def keys(pieces) -> list[int]:
    return [handed.key for handed in pieces]


# -- pieces ----------------------------------------------------------------------------------------------------------


def test_nobody_gets_more_rows_than_it_has_places_for_as_long_as_nobody_knows_how_long_they_take():
    rows = rows_of(100)
    rows.join("a", 8)
    assert len(rows.piece("a")) == 8
    assert rows.piece("a") == []


def test_the_first_node_leaves_something_for_those_that_are_expected():
    rows = rows_of(100, expected=4)
    rows.join("a", 1_000)
    assert len(rows.piece("a")) == 25


def test_quick_rows_are_handed_out_ahead_and_slow_ones_are_not():
    for seconds, ahead in ((0.1, True), (10.0, False)):
        rows = rows_of(1_000)
        rows.join("a", 8)
        first = keys(rows.piece("a"))
        rows.ended("a", first[0], seconds)
        assert (len(rows.piece("a")) > 1) == ahead


def test_near_the_end_less_is_handed_out_ahead():
    rows = rows_of(20)
    rows.join("a", 4)
    rows.join("b", 4)
    rows.piece("b")
    first = keys(rows.piece("a"))
    rows.ended("a", first[0], 0.001)
    assert 1 < len(rows.piece("a")) <= 1 + 3


def test_lost_rows_go_first_and_in_their_order():
    rows = rows_of(10)
    rows.join("a", 4)
    rows.join("b", 4)
    lost = keys(rows.piece("a"))
    rows.lost("a")
    assert keys(rows.piece("b")) == lost


def test_a_row_that_was_lost_with_its_node_too_often_fails():
    rows = rows_of(1, losses=2)
    rows.join("a", 1)
    rows.piece("a")
    assert rows.lost("a") == []
    rows.join("a", 1)
    rows.piece("a")
    [failed] = rows.lost("a")
    assert (failed.key, failed.losses, rows.done) == (0, 2, True)


def test_rows_beside_the_one_that_kills_its_nodes_are_spared():
    rows, fates = rows_of(40), {}
    rows.join("a", 8)
    rows.join("b", 8)
    for _ in range(1_000):
        for node in ("a", "b"):
            rows.piece(node)
            out = list(rows._nodes[node].out)
            if 7 in out:
                fates |= {handed.key: "lost" for handed in rows.lost(node)}
                rows.join(node, 8)
            elif out:
                rows.ended(node, out[0], 0.5)
                fates[out[0]] = "scored"
    assert rows.done
    assert fates == {number: "lost" if number == 7 else "scored" for number in range(40)}


def test_a_row_that_comes_twice_counts_once():
    rows = rows_of(1)
    rows.join("a", 1)
    rows.join("b", 1)
    rows.piece("a")
    rows.lost("a")  # it was only out of reach
    assert keys(rows.piece("b")) == [0]
    assert rows.ended("a", 0, 1.0) is not None
    assert rows.ended("b", 0, 1.0) is None
    assert rows.done


@given(st.data())
def test_every_row_has_exactly_one_fate_whoever_joins_is_lost_or_comes_back(data):  # noqa: C901, PLR0912 - events
    count, losses = data.draw(st.integers(1, 40)), data.draw(st.integers(1, 4))
    rows: Distribution = Distribution(losses=losses, expected=data.draw(st.integers(1, 4)))
    fates, late, fed = Counter(), [], 0
    for _ in range(data.draw(st.integers(0, 120))):
        node = data.draw(st.sampled_from("abc"))
        match data.draw(st.sampled_from(["feed", "join", "lose", "piece", "end", "late", "resize"])):
            case "feed" if fed < count:
                rows.add(fed, fed)
                fed += 1
            case "join" if node not in rows.nodes:
                rows.join(node, data.draw(st.integers(0, 9)))
            case "lose":
                out = list(rows._nodes[node].out) if node in rows.nodes else []
                fates.update(handed.key for handed in rows.lost(node))
                late += [(node, key) for key in out]
            case "resize" if node in rows.nodes:
                rows.resize(node, data.draw(st.integers(0, 9)))
            case "piece" if node in rows.nodes:
                before = set(rows._nodes[node].out)
                piece = keys(rows.piece(node))
                assert before.isdisjoint(piece)
                assert not set(piece) & fates.keys()
            case "end" if node in rows.nodes and rows._nodes[node].out:
                key = data.draw(st.sampled_from(sorted(rows._nodes[node].out)))
                if rows.ended(node, key, data.draw(st.floats(0, 3))):
                    fates[key] += 1
            case "late" if late:
                node, key = late.pop()
                if rows.ended(node, key, 1.0):
                    fates[key] += 1
            case _:
                pass
    for key in range(fed, count):
        rows.add(key, key)
    rows.close()
    rows.join("last", 3)
    for node in "abc":
        fates.update(handed.key for handed in rows.lost(node))
    for _ in range(3 * count + 3):
        for key in keys(rows.piece("last")):
            if rows.ended("last", key, 0.1):
                fates[key] += 1
    assert rows.done
    assert fates == Counter(range(count))


# -- parts of a bound ------------------------------------------------------------------------------------------------


@given(st.data())
def test_the_parts_of_a_bound_are_never_more_than_the_bound(data):
    bound = data.draw(st.integers(1, 50))
    shares, goes_by, told = Shares({"requests": bound}), {}, {}
    for _ in range(data.draw(st.integers(1, 60))):
        node = data.draw(st.sampled_from("abcd"))
        match data.draw(st.sampled_from(["join", "lose", "offer", "took"])):
            case "join" if node not in goes_by:
                shares.join(node)
                goes_by[node] = 0
            case "lose" if node in goes_by:
                shares.lost(node)
                del goes_by[node]
                told.pop(node, None)
            case "offer" if node in goes_by and node not in told:
                told[node] = shares.offer(node)["requests"]
            case "took" if node in told:
                goes_by[node] = told.pop(node)
                shares.took(node)
        assert sum(max(part, told.get(node, 0)) for node, part in goes_by.items()) <= bound
    for _ in range(2):
        for node in goes_by:
            goes_by[node] = shares.offer(node)["requests"]
            shares.took(node)
    if goes_by:
        assert sum(goes_by.values()) == bound
        assert max(goes_by.values()) - min(goes_by.values()) <= 1


# -- slices of a cap -------------------------------------------------------------------------------------------------


@given(st.data())
def test_what_all_nodes_may_spend_is_never_more_than_the_cap(data):
    key = data.draw(st.sampled_from([TOKENS, MONEY]))
    whole = data.draw(st.integers(0, 1_000))
    grants, goes_by, spent, gone = Grants({key: Decimal(whole) if key is MONEY else whole}), {}, {}, 0
    for _ in range(data.draw(st.integers(1, 80))):
        node = data.draw(st.sampled_from("abc"))
        match data.draw(st.sampled_from(["join", "lose", "spend", "need", "settle", "give"])):
            case "join" if node not in goes_by:
                grants.join(node)
                goes_by[node], spent[node] = grants.limits(node)[key], 0
            case "lose" if node in goes_by:
                grants.lost(node)
                gone += goes_by.pop(node)
                spent.pop(node)
            case "spend" if node in goes_by:
                spent[node] += (goes_by[node] - spent[node]) // 2
                grants.spent(node, key, spent[node])
            case "need" if node in goes_by:
                grants.needs(node, key, spent[node] + data.draw(st.integers(1, 400)))
            case "settle" if node in goes_by:
                grants.settle(node)
                goes_by[node] = grants.limits(node)[key]
            case "give" if node in goes_by and grants.asked_back(node):
                goes_by[node] = min(goes_by[node], spent[node])
                grants.gave_back(node, {key: goes_by[node]})
        assert gone + sum(goes_by.values()) <= whole


def test_a_slice_that_another_node_does_not_need_is_found_for_the_one_that_does():
    grants = Grants({TOKENS: 1_000})
    grants.join("a")
    grants.join("b")
    grants.needs("b", TOKENS, 800)
    assert grants.settle("b") == []
    assert grants.limits("b")[TOKENS] >= 800
    grants.needs("a", TOKENS, 800)
    assert grants.settle("a") == []  # nobody knows yet what b can spare
    assert grants.asked_back("b")
    grants.gave_back("b", {TOKENS: 150})
    assert not grants.asked_back("b")
    assert grants.settle("a") == []
    assert grants.limits("a")[TOKENS] >= 800


def test_who_needs_more_than_there_is_gets_all_there_is_and_hears_that_it_is_all():
    grants = Grants({TOKENS: 1_000})
    grants.join("a")
    grants.join("b")
    grants.needs("a", TOKENS, 1_001)
    assert grants.settle("a") == []
    grants.gave_back("b", {TOKENS: 0})
    assert grants.settle("a") == [TOKENS]
    assert grants.limits("a")[TOKENS] == 1_000


def test_the_slice_of_a_lost_node_counts_as_spent():
    grants = Grants({MONEY: Decimal(10)})
    grants.join("a")
    grants.needs("a", MONEY, Decimal(4))
    grants.settle("a")
    grants.spent("a", MONEY, Decimal(1))
    grants.lost("a")
    assert grants.untold(MONEY) == Decimal(3)
    grants.join("b")
    grants.needs("b", MONEY, Decimal(7))
    assert grants.settle("b") == [MONEY]
    assert grants.limits("b")[MONEY] == Decimal(6)


@pytest.mark.parametrize("nodes", [1, 2, 5])
def test_a_bound_is_divided_to_the_last_one(nodes):
    shares = Shares({"requests": 7})
    for node in range(nodes):
        shares.join(node)
    for _ in range(2):
        parts = [shares.offer(node)["requests"] for node in range(nodes)]
        for node in range(nodes):
            shares.took(node)
    assert sum(parts) == 7


# -- the driver ------------------------------------------------------------------------------------------------------


class Scripted:
    """A node in virtual time: rows take a second, one exchange a tenth; at some moments it is out of reach, or dies."""

    def __init__(self, name, *, away=(), dies=None):
        self.name, self.away, self.dies = name, away, dies
        self.begun, self.rows = 0, []

    async def reached(self):
        now = asyncio.get_running_loop().time()
        if any(since <= now < until for since, until in self.away):
            await asyncio.sleep(0.5)
            raise NodeAway("nobody answers")
        if self.dies is not None and now >= self.dies:
            self.dies, self.rows = None, []
            raise NodeLost("it died", for_good=False)

    async def begin(self, settings, caps):
        await self.reached()
        self.begun, self.rows = self.begun + 1, []
        return 4

    async def exchange(self, orders):
        await self.reached()
        loop = asyncio.get_running_loop()
        self.rows += [(loop.time() + 1.0, index, repeat) for index, repeat, _ in orders.rows]
        await asyncio.sleep(0.1)
        done = [row for row in self.rows if row[0] <= loop.time()]
        self.rows = [row for row in self.rows if row not in done]
        rows = [Scored(index, Example(), Prediction(n=index), 1.0, 1.0, repeat=repeat) for _, index, repeat in done]
        await self.reached()
        return Report(tuple(rows), 4)

    async def finish(self):
        return Report((), 4)


class Scheduled:
    """Nodes that join at their moments."""

    def __init__(self, *nodes):
        self.later, self.expected = list(nodes), len(nodes)

    async def joined(self):
        now = asyncio.get_running_loop().time()
        new = [node for moment, node in self.later if moment <= now]
        self.later = [(moment, node) for moment, node in self.later if moment > now]
        return new


def driven(count, *nodes, **options):
    class Numbered(otpy.Program):
        async def forward(self, number):
            raise NotImplementedError

    async def main():
        settings = Settings.load(None, {}, {})
        examples = [Example(number=number) for number in range(count)]
        home = Home(lambda: settings, Book(), Traffic())
        return [row async for row in Afar(Source(examples, Numbered(), 1, None), Scheduled(*nodes), home, **options)()]

    return run_in_virtual_time(main())


def whole(rows, count):
    return sorted(row.index for row in rows) == list(range(count)) and all(
        row.example == Example(number=row.index) for row in rows
    )


def test_every_row_comes_back_with_the_drivers_own_example():
    assert whole(driven(50, (0, Scripted("a")), (0, Scripted("b"))), 50)


def test_a_node_that_joins_while_it_runs_is_used():
    late = Scripted("late")
    assert whole(driven(100, (0, Scripted("a")), (5, late)), 100)
    assert late.begun == 1


def test_a_node_that_dies_begins_anew_and_its_rows_are_evaluated_again():
    node = Scripted("a", dies=2.5)
    assert whole(driven(30, (0, node)), 30)
    assert node.begun == 2


def test_a_node_that_is_out_of_reach_for_a_moment_keeps_its_rows():
    node = Scripted("a", away=[(2.0, 3.0)])
    assert whole(driven(30, (0, node), (0, Scripted("b"))), 30)
    assert node.begun == 1


def test_a_node_that_is_out_of_reach_for_long_gives_up_its_rows_and_what_it_has_done_counts_once():
    node = Scripted("a", away=[(2.0, 12.0)])
    assert whole(driven(100, (0, node), (0, Scripted("b"))), 100)
    assert node.begun == 2


def test_rows_that_nobody_brings_back_fail_with_their_node():
    class Deadly(Scripted):
        async def exchange(self, orders):
            if any(index == 3 for index, _, _ in orders.rows):
                raise NodeLost("killed by row 3", for_good=False)
            return await super().exchange(orders)

    rows = driven(20, (0, Deadly("a")), losses=2)
    [failed] = [row for row in rows if not isinstance(row, Scored)]
    assert (failed.index, failed.reason, failed.where, failed.kind) == (
        3,
        "lost with its node 2 times",
        "task",
        "lost with its node 2 times",
    )
    assert whole(rows, 20)


def test_without_any_node_it_is_given_up_and_says_what_became_of_the_last_one():
    class Gone(Scripted):
        async def exchange(self, orders):
            raise NodeLost("switched off", for_good=True)

    with pytest.raises(EvaluationError, match=r"no node for 30 s.*a: switched off"):
        driven(20, (0, Gone("a")), patience=30)

"""Evaluations on several nodes that are all in this process: the same trees and orders as with Ray, without it."""

from __future__ import annotations

import asyncio
import pickle
import signal
import threading
import time
from dataclasses import dataclass, field

import pytest

import otpy
from otpy.errors import EvaluationAborted, EvaluationError
from otpy.evaluate.nodes import NodeAway, NodeLost
from otpy.integrations.many_nodes import ManyNodes
from otpy.integrations.node_tree import NodeTree
from otpy.integrations.sending import sendable
from otpy.testing import FakeProvider


class Echo(otpy.Program):
    async def forward(self, question):
        if question == "odd":
            raise Odd(1, 2)
        if question == "slow":
            await asyncio.sleep(60)
        return otpy.Prediction(answer=question)


class Odd(Exception):
    def __init__(self, one, other):
        super().__init__(f"{one} is not {other}")


class Gate(otpy.Program):
    """Counts, and waits for a gate in the same process."""

    async def forward(self, question):
        await asyncio.sleep(0.01)
        return otpy.Prediction(answer=question)


def exact(example, prediction, trace=None):
    return example.answer == prediction.answer


@dataclass(eq=False)
class Near:
    """A node in this process, which may die on the way."""

    name: str
    dies_after: int | None = None
    survivor: Near | None = None
    away: int = 0
    restarts: bool = True
    job: object = None
    tree: NodeTree | None = None
    seen: list = field(default_factory=list)
    exchanges: int = 0

    async def begin(self, settings, caps):
        await self.kill()
        self.seen.append(dict(settings))
        self.tree = NodeTree(self.job, settings, caps, lambda row: sendable(row, pickle.dumps))
        starting = asyncio.ensure_future(asyncio.to_thread(self.tree.start))
        try:
            return await asyncio.shield(starting)
        except asyncio.CancelledError:  # a process would be killed; here it has to be up before it can be stopped
            await starting
            await self.kill()
            raise

    async def exchange(self, orders):
        self.exchanges += 1
        self.seen.append(dict(orders.settings))
        there = self.survivor is None or self.survivor.exchanges > 3
        if there and self.dies_after is not None and self.exchanges > self.dies_after:
            self.dies_after = None
            await self.kill()
            raise NodeLost("killed by the test", for_good=not self.restarts)
        report = await asyncio.to_thread(self.within, orders)
        if self.away:
            self.away -= 1
            raise NodeAway("the report got lost")
        return report

    def within(self, orders):
        with self.tree.app.activate():
            return self.tree.exchange(orders)

    async def finish(self):
        tree, self.tree = self.tree, None
        return await asyncio.to_thread(tree.finish)

    async def kill(self):
        if self.tree is not None:
            await self.finish()


class Neighbours:
    def __init__(self, *nodes):
        self.there, self.all = list(nodes), nodes
        self.expected = len(nodes)

    def work_on(self, job):
        for node in self.all:
            node.job = job

    async def joined(self):
        new, self.there = self.there, []
        return new


def evaluated(program, questions, fleet, metric=exact, *, lm="openai/x", settings=None, url=None, **options):
    devset = [otpy.Example(question=question, answer=question) for question in questions]
    settings = {"cache": {"enabled": False}, **(settings or {})}
    with otpy.start(lm=lm, api_key="none", base_url=url or "http://127.0.0.1:1/v1", settings=settings) as app:
        try:
            far = ManyNodes(devset, metric=metric, fleet=fleet, **options)(program)
        finally:
            spent = app.book.total()
        for node in fleet.all:
            assert node.tree is None, "a tree was left running"
    return far, spent


def at_home(program, questions, metric=exact, **options):
    devset = [otpy.Example(question=question, answer=question) for question in questions]
    with otpy.start(lm="openai/x", api_key="none", base_url="http://127.0.0.1:1/v1", cache=False):
        return otpy.Evaluate(devset, metric=metric, **options)(program)


def summary(result):
    return result.summary().replace(f"{result.seconds:.1f} s", "")


def essence(result):
    return [
        (row.index, row.repeat, row.example, row.prediction, row.score)
        if isinstance(row, otpy.Scored)
        else (row.index, row.repeat, row.example, row.kind, row.explanation, row.where)
        for row in result.rows
    ]


QUESTIONS = ["odd" if number % 10 == 3 else str(number) for number in range(200)]


def test_the_result_is_the_one_of_an_evaluation_at_home():
    far, _ = evaluated(Echo(), QUESTIONS, Neighbours(Near("a"), Near("b")), max_concurrency=5, n_runs=2)
    near = at_home(Echo(), QUESTIONS, max_concurrency=5, n_runs=2)
    assert essence(far) == essence(near)
    assert (far.score, far.complete, far.total) == (near.score, near.complete, near.total)
    assert {row.kind for row in far.failed} == {"Odd"}


def test_both_nodes_work():
    fleet = Neighbours(Near("a"), Near("b"))
    evaluated(Gate(), [str(number) for number in range(200)], fleet, max_concurrency=5)
    assert all(node.exchanges > 3 for node in fleet.all)


@pytest.mark.parametrize("restarts", [True, False])
def test_a_node_that_dies_loses_no_row(restarts):
    fleet = Neighbours(Near("a", dies_after=3, restarts=restarts), Near("b"))
    far, _ = evaluated(Gate(), [str(number) for number in range(300)], fleet, max_concurrency=5)
    assert [row.index for row in far.scored] == list(range(300))


def test_a_report_that_got_lost_is_sent_again_and_counts_once():
    fleet = Neighbours(Near("a", away=3))
    far, _ = evaluated(Echo(), QUESTIONS, fleet, max_concurrency=5)
    assert len(far.rows) == 200


def test_an_order_that_is_repeated_while_the_first_is_waited_for_begins_no_row_twice():
    class Hasty(Near):
        async def exchange(self, orders):
            first, again = await asyncio.gather(
                asyncio.to_thread(self.within, orders), asyncio.to_thread(self.within, orders)
            )
            assert first is again
            return again

    asked = []

    def counted(example, prediction, trace=None):
        asked.append(example.answer)
        return 1.0

    far, _ = evaluated(Echo(), [str(n) for n in range(50)], Neighbours(Hasty("a")), counted, max_concurrency=5)
    assert len(far.scored) == len(asked) == 50


def test_a_generator_is_read_as_nodes_take_its_rows():
    most = 0

    async def rows():
        nonlocal most
        for number in range(2_000):
            most = number
            yield otpy.Example(question=str(number), answer=str(number))

    fleet = Neighbours(Near("a", dies_after=2, restarts=False))
    with (
        otpy.start(lm="openai/x", api_key="none", base_url="http://127.0.0.1:1/v1", cache=False),
        pytest.raises(EvaluationAborted) as aborted,
    ):
        ManyNodes(rows(), metric=exact, fleet=fleet, max_concurrency=5, patience=2.0, keep="all")(Gate())
    assert 0 < len(aborted.value.result.rows) < most < 500


def test_when_no_node_is_left_what_is_done_is_in_the_error():
    fleet = Neighbours(Near("a", dies_after=4, restarts=False))
    with pytest.raises(EvaluationAborted, match=r"no node for 2 s.*killed by the test") as aborted:
        evaluated(Gate(), [str(number) for number in range(300)], fleet, max_concurrency=5, patience=2.0)
    assert 0 < len(aborted.value.result.rows) < 300


def test_a_row_past_its_deadline_is_killed_on_its_node():
    far, _ = evaluated(Echo(), ["slow", "1"], Neighbours(Near("a")), timeout=1.0)
    assert [row.explanation for row in far.failed] == ["timeout"]


def test_a_row_that_blocks_its_thread_costs_only_itself_with_isolation_thread():
    class Blocks(otpy.Program):
        async def forward(self, question):
            if question == "3":
                time.sleep(2.5)  # noqa: ASYNC251 - this is what it is about
            return otpy.Prediction(answer=question)

    far, _ = evaluated(
        Blocks(), [str(n) for n in range(20)], Neighbours(Near("a")), timeout=1.0, isolation="thread", workers=2
    )
    assert [(row.index, row.explanation) for row in far.failed] == [(3, "timeout")]


def test_a_journal_is_the_drivers_and_the_same_call_again_asks_only_for_the_rest(tmp_path):
    journal, rows = tmp_path / "rows.jsonl", [str(number) for number in range(300)]
    with pytest.raises(EvaluationAborted) as aborted:
        fleet = Neighbours(Near("a", dies_after=4, restarts=False))
        evaluated(Gate(), rows, fleet, max_concurrency=5, patience=2.0, journal=journal)
    done = len(aborted.value.result.rows)
    fleet = Neighbours(Near("b"))
    far, _ = evaluated(Gate(), rows, fleet, max_concurrency=5, journal=journal)
    assert 0 < done < 300
    assert [row.index for row in far.scored] == list(range(300))


def test_too_many_failures_stop_all_nodes():
    fleet = Neighbours(Near("a"), Near("b"))
    with pytest.raises(EvaluationAborted, match="max_failures=3"):
        evaluated(Echo(), ["odd"] * 50, fleet, max_failures=3)


def test_somebody_may_hear_how_it_goes():
    heard = []
    evaluated(Echo(), QUESTIONS, Neighbours(Near("a")), on_progress=heard.append)
    assert (heard[-1].done, heard[-1].failed, heard[-1].total) == (200, 20, 200)


def test_a_node_that_cannot_begin_says_why():
    class Broken(Near):
        async def begin(self, settings, caps):
            raise EvaluationError("node a has Python 3.12, the driver has Python 3.11: install the same on both")

    with pytest.raises(EvaluationError, match=r"Python 3\.12.*Python 3\.11"):
        evaluated(Echo(), ["1"], Neighbours(Broken("a")))


def test_limits_per_minute_are_divided_and_a_lost_nodes_part_goes_to_the_others():
    other = Near("b")
    fleet = Neighbours(Near("a", dies_after=4, survivor=other, restarts=False), other)
    client = {"requests_per_minute": 1_001, "max_concurrency": 10, "min_concurrency": 8}
    evaluated(Gate(), [str(n) for n in range(300)], fleet, max_concurrency=5, settings={"clients": {"default": client}})
    rates = [told.get("clients.default.requests_per_minute") for told in fleet.all[1].seen]
    assert rates[1] in {500, 501}
    assert rates[-1] == 1_001
    assert {told["clients.default.min_concurrency"] for told in fleet.all[1].seen[:5]} <= {5, 8}


# -- caps ------------------------------------------------------------------------------------------------------------


ASK = otpy.Predict("question -> answer")


@pytest.mark.parametrize("cap", [{"requests": 30}, {"money": "0.0030"}])
def test_a_cap_holds_for_all_nodes_together_and_is_used_to_the_last(cap):
    client = {"input_price": "0", "output_price": "50", "max_tokens": 2}  # 0.0001 a request
    settings = {"budget": cap, "clients": {"default": client}}
    with FakeProvider('{"answer": "4"}') as fake:
        far, spent = evaluated(
            ASK,
            [str(number) for number in range(60)],
            Neighbours(Near("a"), Near("b"), Near("c")),
            url=fake.url("openai_chat"),
            settings=settings,
            max_concurrency=4,
        )
        asked = len(fake.requests)
    assert asked == 30
    assert spent.requests == 30
    assert {row.kind for row in far.failed} == {"BudgetExceeded"}
    assert len({row.explanation for row in far.failed}) == 1
    assert len(far.failed) == 30
    assert far.tally.attempts == 30


def test_what_the_nodes_spend_is_in_the_drivers_ledger():
    with FakeProvider('{"answer": "4"}') as fake:
        far, spent = evaluated(ASK, ["1", "2", "3"], Neighbours(Near("a"), Near("b")), url=fake.url("openai_chat"))
    assert (spent.requests, spent.answered) == (3, 3)
    assert spent.output_tokens == far.usage.output_tokens


def test_ctrl_c_stops_the_nodes_and_keeps_what_is_done():
    fleet, main = Neighbours(Near("a")), threading.get_ident()

    def interrupt():
        while fleet.all[0].exchanges < 4:
            time.sleep(0.01)
        signal.pthread_kill(main, signal.SIGINT)

    interrupter = threading.Thread(target=interrupt)
    interrupter.start()
    with pytest.raises(EvaluationAborted, match="interrupted") as aborted:
        evaluated(Gate(), [str(number) for number in range(3_000)], fleet, max_concurrency=3)
    interrupter.join()
    assert isinstance(aborted.value.__cause__, KeyboardInterrupt)
    assert 0 < len(aborted.value.result.rows) < 3_000
    assert fleet.all[0].tree is None

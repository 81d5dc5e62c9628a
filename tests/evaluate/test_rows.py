"""Rows under way have a supervisor, a cost and a fate, whatever ends the evaluation around them."""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import aclosing
from dataclasses import FrozenInstanceError

import pytest

import otpy
from otpy.actors import KILL
from otpy.errors import AdapterParseError, EvaluationAborted, EvaluationError
from otpy.supervisors import TIMEOUT
from otpy.telemetry import bus
from otpy.testing import LoopbackLM, Scripted

ROWS = [otpy.Example(question=str(n), answer="0") for n in range(40)]
PROGRAM = otpy.Predict("question -> answer", max_reasks=0)
METRIC = otpy.exact_match("answer")
ZERO = {"answer": "0"}


def started(server):
    client = {"model": "openai/x", "base_url": server.url, "api_key": "none"}
    return otpy.start(settings={"clients": {"default": client}, "cache": {"enabled": False}})


def number(body):
    return int(body["messages"][1]["content"].rpartition(" ")[2])


def test_when_the_supervisor_of_tasks_is_killed_the_rows_under_way_begin_anew_under_the_next_one():
    held = [True]
    with LoopbackLM(lambda _: Scripted(ZERO, hold=held[0])) as server:

        async def main():
            async with started(server) as app:
                first = app.tasks
                evaluating = asyncio.ensure_future(otpy.Evaluate(ROWS, metric=METRIC, max_concurrency=8).acall(PROGRAM))
                await asyncio.to_thread(server.wait_for, 8)
                held[0] = False
                first.exit(KILL)
                result = await evaluating
                assert app.tasks.process is not first.process
                assert app.tasks.process.actor.started == 40
                return result

        result = asyncio.run(main())
    assert [row.index for row in result.rows] == list(range(40))
    assert not result.failed


def test_a_row_whose_supervisor_dies_again_and_again_fails_in_the_end():
    with LoopbackLM(lambda body: Scripted(ZERO, hold=number(body) == 0)) as server:

        async def main():
            async with started(server) as app:
                evaluate = otpy.Evaluate(ROWS[:1], metric=METRIC)
                evaluating = asyncio.ensure_future(evaluate.acall(PROGRAM))
                for attempt in range(1, 5):
                    await asyncio.to_thread(server.wait_for, attempt)
                    tasks = app.tasks
                    tasks.exit(KILL)
                    await tasks.join()
                return await evaluating

        result = asyncio.run(main())
    assert [(row.index, row.where, row.reason) for row in result.failed] == [(0, "task", "killed")]


def test_rows_that_have_finished_are_reported_while_the_devset_makes_one_wait():
    async def main():
        more = asyncio.Event()

        async def source():
            yield ROWS[0]
            await more.wait()
            yield ROWS[1]

        evaluate = otpy.Evaluate(source(), metric=METRIC, keep="all")
        async with started(server), aclosing(evaluate.stream(PROGRAM)) as rows:
            async for row in rows:
                if row.index == 0:
                    more.set()
                yielded.append(row.index)

    yielded = []
    with LoopbackLM(lambda _: ZERO) as server:
        asyncio.run(asyncio.wait_for(main(), 30))
    assert yielded == [0, 1]


def test_a_plain_devset_that_blocks_is_read_in_a_thread_and_holds_up_nobody():
    threads = []

    def source():
        for row in ROWS[:6]:
            time.sleep(0.06)
            threads.append(threading.current_thread().name)
            yield row

    with LoopbackLM(lambda _: ZERO) as server, started(server):
        assert otpy.Evaluate(source(), metric=METRIC)(PROGRAM).complete
    assert threads[0] not in threads[1:]


@pytest.mark.parametrize("error", [SystemExit, GeneratorExit, asyncio.CancelledError, RuntimeError])
@pytest.mark.parametrize("asynchronous", [False, True])
def test_whatever_a_devset_raises_ends_its_evaluation_and_nothing_else(error, asynchronous):
    def plain():
        yield ROWS[0]
        raise error("enough")

    async def awaiting():
        yield ROWS[0]
        await asyncio.sleep(0)
        raise error("enough")

    with LoopbackLM(lambda _: ZERO) as server, started(server):
        for _ in range(2):
            with pytest.raises(EvaluationAborted, match=f"the devset raised {error.__name__}") as caught:
                otpy.Evaluate(awaiting() if asynchronous else plain(), metric=METRIC, keep="all")(PROGRAM)
            assert len(caught.value.result.rows) == 1


def test_an_exception_that_cannot_be_printed_costs_its_row_only():
    class Odd(Exception):
        def __str__(self):
            return "code " + self.args[0]

    def metric(example, prediction, trace=None):
        if example.question.endswith("3"):
            raise Odd(5)
        return True

    with LoopbackLM(lambda _: ZERO) as server, started(server):
        result = otpy.Evaluate(ROWS[:10], metric=metric)(PROGRAM)
    assert [row.explanation for row in result.failed] == ["Odd: (its text raises TypeError)"]
    assert "Odd" in result.summary()


def test_what_is_done_survives_the_end_of_the_application():
    with LoopbackLM(lambda body: Scripted(ZERO, hold=number(body) >= 10)) as server:

        async def main():
            app = started(server)
            async with app:
                evaluating = asyncio.ensure_future(otpy.Evaluate(ROWS, metric=METRIC, max_concurrency=8).acall(PROGRAM))
                await asyncio.to_thread(server.wait_for, 18)
            return (await asyncio.gather(evaluating, return_exceptions=True))[0]

        aborted = asyncio.run(main())
    assert isinstance(aborted, EvaluationAborted)
    assert "the application has stopped" in str(aborted)
    assert len(aborted.result.scored) == 10
    assert not aborted.result.complete


class TestCost:
    """What was asked has been paid for, whatever became of the row."""

    def test_rows_that_failed_are_counted(self):
        with LoopbackLM(lambda body: "not JSON" if number(body) % 2 else ZERO) as server, started(server):
            result = otpy.Evaluate(ROWS, metric=METRIC)(otpy.Predict("question -> answer", max_reasks=2))
        assert {row.usage.requests for row in result.scored} == {1}
        assert {row.usage.requests for row in result.failed} == {3}
        assert all(isinstance(row.reason, AdapterParseError) for row in result.failed)
        assert result.usage.requests == 20 * 1 + 20 * 3

    def test_the_first_step_of_a_row_that_hung_in_its_second_is_counted(self):
        class TwoSteps(otpy.Program):
            first: otpy.Predict = otpy.Predict("question -> answer")
            second: otpy.Predict = otpy.Predict("answer -> answer2")

            async def forward(self, question):
                answered = await self.first.acall(question=question)
                return await self.second.acall(answer=answered.answer)

        def script(body):
            return ZERO if body["messages"][-1]["content"].startswith("question") else Scripted(hold=True)

        with LoopbackLM(script) as server, started(server):
            (row,) = otpy.Evaluate(ROWS[:1], metric=METRIC, timeout=0.3)(TwoSteps()).failed
        assert (row.reason, row.usage.requests) == (TIMEOUT, 1)

    def test_a_judge_that_asks_a_model_is_not_charged_to_the_program(self):
        async def judge(example, prediction, trace=None):
            return (await PROGRAM.acall(question="fair?")).answer == "0"

        with LoopbackLM(lambda _: ZERO) as server, started(server):
            result = otpy.Evaluate(ROWS[:5], metric=judge)(PROGRAM)
            assert len(server.requests) == 10
        assert (result.score, result.usage.requests) == (1.0, 5)


class TestStream:
    """In asynchronous code rows can be had one by one."""

    def test_what_was_yielded_survives_a_cancellation(self):
        kept = []

        async def main(server):
            async with started(server) as app:

                async def collect():
                    async with aclosing(otpy.Evaluate(ROWS, metric=METRIC).stream(PROGRAM)) as rows:
                        async for row in rows:
                            kept.append(row)
                            if len(kept) == 10:
                                collecting.cancel()

                collecting = asyncio.ensure_future(collect())
                with pytest.raises(asyncio.CancelledError):
                    await collecting
                assert not app.tasks.process.actor.tasks

        with LoopbackLM(lambda body: Scripted(ZERO, hold=number(body) >= 10)) as server:
            asyncio.run(main(server))
        assert sorted(row.index for row in kept) == list(range(10))

    def test_leaving_early_stops_the_rows_under_way(self):
        async def main(server):
            async with started(server) as app:
                async with aclosing(otpy.Evaluate(ROWS, metric=METRIC).stream(PROGRAM)) as rows:
                    async for row in rows:
                        assert row.index == 0
                        break
                assert not app.tasks.process.actor.tasks

        with LoopbackLM(lambda body: Scripted(ZERO, hold=number(body) > 0)) as server:
            asyncio.run(main(server))


def test_on_another_loop_than_the_applications_the_error_says_what_works_and_that_works():
    evaluate = otpy.Evaluate(ROWS[:3], metric=METRIC)

    async def elsewhere():
        with pytest.raises(EvaluationError, match=r"asyncio\.to_thread\(evaluate, program\)"):
            await evaluate.acall(PROGRAM)
        return await asyncio.to_thread(evaluate, PROGRAM)

    with LoopbackLM(lambda _: ZERO) as server, started(server):
        assert asyncio.run(elsewhere()).score == 1.0


def test_two_evaluations_at_once_do_not_mix():
    results = {}

    def measure(answer):
        rows = [row.copy(answer=answer) for row in ROWS]
        results[answer] = otpy.Evaluate(rows, metric=METRIC)(PROGRAM)

    with LoopbackLM(lambda body: {"answer": str(number(body) % 2)}) as server, started(server) as app:
        threads = [threading.Thread(target=measure, args=(answer,)) for answer in "01"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert app.tasks.process.actor.started == 80
    assert [results[answer].score for answer in "01"] == [0.5, 0.5]
    assert {row.example.answer for row in results["1"].rows} == {"1"}


def test_listeners_hear_of_the_start_every_row_and_the_score():
    heard = []
    listening = bus.attached("test", lambda event, fields: heard.append((event, fields)), prefix="otpy.evaluate")
    with LoopbackLM(lambda _: ZERO) as server, started(server), listening:
        otpy.Evaluate(ROWS[:3], metric=METRIC)(PROGRAM)
    assert [event.rpartition(".")[2] for event, _ in heard] == ["start", "row", "row", "row", "progress", "stop"]
    assert heard[0][1]["rows"] == 3
    assert (heard[-1][1]["score"], heard[-1][1]["failed"]) == (1.0, 0)


def test_an_evaluation_is_a_value():
    one, other = (otpy.Evaluate(ROWS, metric=METRIC) for _ in range(2))
    assert one == other
    assert one != otpy.Evaluate(ROWS, metric=METRIC, timeout=1)
    assert len({one, other}) == 1
    with pytest.raises(FrozenInstanceError):
        one.timeout = 3


def test_inputs_that_the_program_does_not_take_are_refused_before_anything_is_asked():
    rows = [otpy.Example(query="x", answer="0").with_inputs("query")]
    with LoopbackLM(lambda _: ZERO) as server, started(server):
        with pytest.raises(EvaluationError, match=r"row 0 marks 'query' .* it takes question"):
            otpy.Evaluate(rows, metric=METRIC)(PROGRAM)
        assert server.requests == []


def test_a_text_from_a_csv_file_equals_the_value_it_spells():
    rows = [otpy.Example(question="1", answer="4")]
    with LoopbackLM(lambda _: {"answer": 4}) as server, started(server):
        assert otpy.Evaluate(rows, metric=METRIC)(otpy.Predict("question -> answer: int")).score == 1.0


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["timeout", "failure_score"])
def test_numbers_that_are_none_are_refused(name, number):
    with pytest.raises(EvaluationError, match=f"{name}={number}"):
        otpy.Evaluate(ROWS, metric=METRIC, **{name: number})

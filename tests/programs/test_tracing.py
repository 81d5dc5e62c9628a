"""A trace holds every predictor's call, by its path in the program that was called, and traces never mix."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import TYPE_CHECKING, Any

from otpy.errors import AdapterParseError
from otpy.programs import ChainOfThought, Predict, Program, tracing

if TYPE_CHECKING:
    from otpy.signatures import Prediction


class Branching(Program):
    left: ChainOfThought = ChainOfThought("question -> answer")
    right: ChainOfThought = ChainOfThought("question -> answer")

    async def forward(self, question: str) -> Prediction:
        found, _ = await asyncio.gather(self.left.acall(question=question), self.right.acall(question=question))
        return found


class Plain(Program):
    inner: Branching = Branching()
    last: Predict = Predict("question -> answer")

    def forward(self, question: str) -> Prediction:
        return self.last(question=self.inner(question=question).answer)


def test_each_call_is_recorded_with_its_path_its_inputs_and_its_prediction(play):
    with play.started(play.echo), tracing() as trace:
        prediction = Plain()(question="why")
    assert sorted(entry.path or "" for entry in trace) == ["inner.left.predict", "inner.right.predict", "last"]
    assert trace[-1].inputs == {"question": "why"}
    assert trace[-1].prediction == prediction
    assert trace[-1].predictor == Plain().last


def test_a_bare_predictor_is_self_and_one_that_is_no_part_has_no_path(play):
    class Borrowing(Program):
        own: Predict = Predict("question -> answer")

        async def forward(self, question: str) -> Prediction:
            await Predict("question -> answer").acall(question=question)
            return await self.own.acall(question=question)

    with play.started(play.echo), tracing() as trace:
        Predict("question -> answer")(question="x")
        Borrowing()(question="x")
    assert [entry.path for entry in trace] == ["self", None, "own"]


def test_a_trace_begun_inside_a_call_begins_anew(play):
    class Outer(Program):
        inner: Branching = Branching()

        async def forward(self, question: str) -> Prediction:
            with tracing() as self_traced:
                found = await self.inner.acall(question=question)
            assert {entry.path for entry in self_traced} == {"left.predict", "right.predict"}
            return found

    with play.started(play.echo), tracing() as trace:
        Outer()(question="x")
    assert len(trace) == 2


def test_traces_of_concurrent_calls_never_mix(play):
    async def traced(number: int) -> bool:
        with tracing() as trace:
            await Plain().acall(question=str(number))
        return len(trace) == 3 and {entry.inputs["question"] for entry in trace} == {str(number)}

    async def main() -> list[bool]:
        with play.Scripted(play.echo).here():
            return await asyncio.gather(*(traced(number) for number in range(50)))

    assert all(asyncio.run(main()))


def test_a_trace_of_one_thread_is_not_anothers(play):
    seen: dict[int, list[Any]] = {}

    def work(number: int) -> None:
        with tracing() as trace:
            Branching()(question=str(number))
        seen[number] = [entry.inputs["question"] for entry in trace]

    with play.started(play.echo):
        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert seen == {number: [str(number)] * 2 for number in range(8)}


def test_a_call_that_failed_is_in_no_trace_and_outside_of_a_trace_nothing_is_kept(play):
    with play.started(lambda _: "nonsense"), tracing() as trace, contextlib.suppress(AdapterParseError):
        Predict("question -> answer")(question="x")
    assert trace == []
    with play.started(play.echo):
        Predict("question -> answer")(question="x")
    assert trace == []

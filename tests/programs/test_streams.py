"""A program's answer is seen while it is written, by whoever asked for it and by nobody else."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from contextlib import aclosing, contextmanager

import pytest

import otpy
from otpy.errors import AdapterParseError, LMError
from otpy.programs.streaming import FieldEnd, FieldsVoid, FieldText, Status, ThoughtText, ToolEnded, ToolStarted
from otpy.testing import FakeProvider, Fault, Say


@contextmanager
def model(script):
    with FakeProvider(script) as fake:
        client = {"model": "acme/m", "base_url": fake.url("openai_chat"), "api_key": "none"}
        yield {"clients": {"default": client}, "cache": {"enabled": False}}, fake


def events_of(settings, program, **inputs):
    async def main():
        async with otpy.start(settings=settings):
            return [event async for event in program.astream(**inputs)]

    return asyncio.run(main())


def text_of(events, field):
    return "".join(event.text for event in events if isinstance(event, FieldText) and event.field == field)


@pytest.mark.parametrize("adapter", [otpy.JSONAdapter(), otpy.ChatAdapter(), otpy.XMLAdapter()])
def test_outputs_are_told_as_they_are_written_and_the_prediction_comes_last(adapter):
    contract = otpy.Signature("question -> why, answer")
    said = adapter.render(contract, {"why": 'it says "so"', "answer": "Zürich, at the lake"})
    with model(said) as (settings, fake):
        events = events_of(settings, otpy.Predict(contract, adapter=adapter), question="where?")
    *told, prediction = events
    assert isinstance(prediction, otpy.Prediction)
    assert text_of(told, "why") == prediction.why == 'it says "so"'
    assert text_of(told, "answer") == prediction.answer == "Zürich, at the lake"
    assert [event.field for event in told if isinstance(event, FieldEnd)] == ["why", "answer"]
    assert sum(isinstance(event, FieldText) for event in told) > 2
    assert {event.path for event in told} == {"self"}
    assert fake.requests[0].stream


def test_a_synchronous_program_can_iterate_too():
    with model('{"answer": "four"}') as (settings, _), otpy.start(settings=settings):
        events = list(otpy.Predict("question -> answer").stream(question="2 + 2?"))
        assert text_of(events, "answer") == events[-1].answer == "four"


def test_what_is_nested_is_told_with_its_path():
    class Two(otpy.Program):
        first: otpy.Predict = otpy.Predict("question -> query")
        second: otpy.ChainOfThought = otpy.ChainOfThought("query -> answer")

        async def forward(self, question):
            found = await self.first.acall(question=question)
            await otpy.status("found it")
            return await self.second.acall(query=found.query)

    answers = iter(['{"query": "q"}', '{"reasoning": "because", "answer": "a"}'])
    with model(lambda _: next(answers)) as (settings, _):
        events = events_of(settings, Two(), question="why?")
    assert [(event.path, event.field) for event in events if isinstance(event, FieldEnd)] == [
        ("first", "query"),
        ("second.predict", "reasoning"),
        ("second.predict", "answer"),
    ]
    assert Status("found it") in events


def test_a_plain_forward_is_heard_too():
    class Plain(otpy.Program):
        ask: otpy.Predict = otpy.Predict("question -> answer")

        def forward(self, question):
            return self.ask(question=question)

    with model('{"answer": "yes"}') as (settings, _):
        events = events_of(settings, Plain(), question="so?")
    assert text_of(events, "answer") == "yes"
    assert events[0].path == "ask"


def test_a_thousand_streams_at_once_never_mix():
    async def one(number):
        program = otpy.Predict("question -> answer")
        return [event async for event in program.astream(question=f"number {number}")]

    def script(request):
        number = request.prompt.split()[-1]
        return json.dumps({"answer": f"this is the answer to {number} and to nothing else"})

    async def main():
        async with otpy.start(settings=settings):
            return await asyncio.gather(*(one(number) for number in range(1_000)))

    with model(script) as (settings, _):
        streams = asyncio.run(main())
    for number, events in enumerate(streams):
        assert text_of(events, "answer") == events[-1].answer == f"this is the answer to {number} and to nothing else"


def test_an_answer_that_will_not_do_is_taken_back_and_another_one_told():
    answers = iter(['{"answer": 4', '{"answer": 5, "text": "five"}'])
    with model(lambda _: next(answers)) as (settings, _):
        events = events_of(settings, otpy.Predict("question -> text, answer: int"), question="?")
    assert events[-1].attempts == ('{"answer": 4', '{"answer": 5, "text": "five"}')
    assert text_of(events, "text") == "five"


def test_what_was_told_of_an_answer_that_broke_off_is_void():
    answers = iter(['{"text": "it is because', '{"text": "short"}'])
    with model(lambda _: next(answers)) as (settings, _):
        events = events_of(settings, otpy.Predict("question -> text"), question="?")
    void = next(number for number, event in enumerate(events) if isinstance(event, FieldsVoid))
    assert text_of(events[:void], "text").startswith("it is")
    assert text_of(events[void:], "text") == "short"


@pytest.mark.parametrize(
    "program",
    [
        otpy.Predict("question -> text", constraints=[otpy.Assert(lambda text: len(text) < 6, field="text")]),
        otpy.Predict("question -> text", constraints=[otpy.Suggest(lambda row: len(row.text) < 6)]),
    ],
)
def test_an_answer_that_is_refused_and_asked_for_again_is_void(program):
    answers = iter(['{"text": "far too long"}', '{"text": "short"}'])
    with model(lambda _: next(answers)) as (settings, _):
        events = events_of(settings, program, question="?")
    void = events.index(FieldsVoid("self", ("text",), 1))
    assert text_of(events[:void], "text") == "far too long"
    assert text_of(events[void:], "text") == events[-1].text == "short"


def test_calls_of_one_predictor_at_the_same_time_are_told_apart_by_their_numbers():
    class Both(otpy.Program):
        ask: otpy.Predict = otpy.Predict("question -> answer")

        async def forward(self, question):
            one, other = await asyncio.gather(*(self.ask.acall(question=f"{question} {n}") for n in range(2)))
            return otpy.Prediction(answer=f"{one.answer}, {other.answer}")

    with model(lambda request: json.dumps({"answer": f"about {request.prompt.split()[-1]}"})) as (settings, _):
        events = events_of(settings, Both(), question="?")
    texts = {1: "", 2: ""}
    for event in events:
        if isinstance(event, FieldText):
            texts[event.call] += event.text
    assert sorted(texts.values()) == ["about 0", "about 1"]


def test_plain_code_can_say_how_it_goes_too():
    class Plain(otpy.Program):
        def forward(self, n):
            otpy.status("first")
            return otpy.Prediction(n=n)

    events = events_of({"clients": {}}, Plain(), n=1)
    assert events == [Status("first"), otpy.Prediction(n=1)]


def test_errors_come_behind_the_events_that_there_were():
    with model("no JSON") as (settings, _), pytest.raises(AdapterParseError):
        events_of(settings, otpy.Predict("question -> answer", max_reasks=0), question="?")
    with model(Fault("status", status=400)) as (settings, _), pytest.raises(LMError):
        events_of(settings, otpy.Predict("question -> answer"), question="?")


def test_thoughts_are_told_where_the_provider_shows_them():
    with model(Say('{"answer": "4"}', reasoning="two and two")) as (settings, _):
        settings["clients"]["default"]["profile"] = "vllm"
        events = events_of(settings, otpy.Predict("question -> answer"), question="?")
    assert "".join(event.text for event in events if isinstance(event, ThoughtText)) == "two and two"


def test_leaving_early_closes_the_request_upstream():
    async def main():
        async with otpy.start(settings=settings):
            program = otpy.Predict("question -> answer")
            async with aclosing(program.astream(question="?")) as events:
                async for event in events:
                    if isinstance(event, FieldText):
                        break
            await asyncio.to_thread(fake.wait_for, lambda counts: not counts.in_flight)

    long = json.dumps({"answer": "word " * 500})
    with model(Say(long, drip=0.05)) as (settings, fake):
        began = time.monotonic()
        asyncio.run(main())
        assert time.monotonic() - began < 10  # the whole answer would take 25 s
        assert len(fake.counts.departures) == 1


def test_whoever_reads_slowly_holds_up_the_program_and_nobody_else():
    class Chatty(otpy.Program):
        async def forward(self, n):
            for number in range(n):
                await otpy.status(str(number))
                said.append(number)
            return otpy.Prediction(n=n)

    async def main():
        async with otpy.start(settings={"clients": {}}), aclosing(Chatty().astream(n=1_000)) as events:
            await anext(events)
            for _ in range(50):
                await asyncio.sleep(0)
            assert len(said) < 100
            return [event async for event in events]

    said = []
    events = asyncio.run(main())
    assert len(events) == 1_000


def test_tools_are_told_as_they_begin_and_end():
    def weather(city: str) -> str:
        """Say how the weather is.

        Args:
            city: Where.
        """
        return f"rain in {city}"

    steps = iter(
        [
            '{"thought": "look", "tool_calls": {"tool_calls": [{"name": "weather", "args": {"city": "Bonn"}}]}}',
            '{"thought": "done", "tool_calls": {"tool_calls": [{"name": "submit", "args": {"answer": "rain"}}]}}',
        ]
    )
    with model(lambda _: next(steps)) as (settings, _):
        agent = otpy.ReAct("question -> answer", tools=[weather], native=False)
        events = events_of(settings, agent, question="weather in Bonn?")
    assert events[-1].answer == "rain"
    assert ToolStarted("weather", {"city": "Bonn"}) in events
    assert ToolEnded("weather", "rain in Bonn") in events


class TestLeft:
    """A stream that is left lets everybody go who works for it."""

    def test_a_plain_program_ends_with_its_thread_and_its_requests(self):
        class Asking(otpy.Program):
            ask: otpy.Predict = otpy.Predict("question -> answer")

            def forward(self, question):
                try:
                    for number in range(3):
                        self.ask(question=f"{question}{number}")
                        went_on.append(number)
                    return otpy.Prediction(n=3)
                finally:
                    ended.set()

        async def main():
            async with otpy.start(settings=settings):
                async with aclosing(Asking().astream(question="?")) as events:
                    await anext(events)
                assert await asyncio.to_thread(ended.wait, 20)
                await asyncio.to_thread(fake.wait_for, lambda counts: not counts.in_flight)

        went_on, ended = [], threading.Event()
        with model(json.dumps({"answer": "word " * 500})) as (settings, fake):
            asyncio.run(main())
        assert went_on == []
        assert fake.counts.requests == 1

    def test_plain_code_that_says_how_it_goes_ends(self):
        class Chatty(otpy.Program):
            def forward(self):
                try:
                    while True:
                        otpy.status("still here")
                except asyncio.CancelledError:
                    ended.set()
                    raise

        async def main():
            async with otpy.start(settings={"clients": {}}):
                async with aclosing(Chatty().astream()) as events:
                    await anext(events)
                return await asyncio.to_thread(ended.wait, 20)

        ended = threading.Event()
        assert asyncio.run(main())

    def test_what_goes_on_behind_a_prediction_is_not_heard_and_not_ended(self):
        class Leaves(otpy.Program):
            async def forward(self):
                background.append(asyncio.create_task(self.more()))
                return otpy.Prediction(n=1)

            async def more(self):
                await go.wait()
                for number in range(100):
                    await otpy.status(str(number))
                return "done"

        async def main():
            async with otpy.start(settings={"clients": {}}):
                events = [event async for event in Leaves().astream()]
                go.set()
                return events, await background[0]

        background, go = [], asyncio.Event()
        assert asyncio.run(main()) == ([otpy.Prediction(n=1)], "done")

    def test_a_loop_that_ends_before_its_stream_says_nothing(self, caplog):
        async def main():
            events = otpy.Predict("question -> answer").astream(question="?")
            await anext(events)
            return events

        slow = Say(json.dumps({"answer": "word " * 500}), drip=0.05)
        with model(slow) as (settings, fake), otpy.start(settings=settings):
            asyncio.run(main())
            fake.wait_for(lambda counts: not counts.in_flight)
        assert caplog.text == ""

    def test_closing_a_stream_of_an_application_that_has_stopped_says_nothing(self):
        with model(Say(json.dumps({"answer": "word " * 500}), drip=0.05)) as (settings, _):
            with otpy.start(settings=settings):
                events = otpy.Predict("question -> answer").stream(question="?")
                next(events)
            events.close()

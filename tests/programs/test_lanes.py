"""The order of a trace is that in which calls began, however long each answer takes."""

import asyncio
import itertools
import random

import pytest

import otpy
from otpy.programs import tracing
from otpy.testing import FakeProvider, Say

ASK = otpy.Predict("word -> kind")


class AtOnce(otpy.Program):
    ask: otpy.Predict = ASK

    async def forward(self, word):
        await self.ask.acall(word=f"{word} first")
        await asyncio.gather(*(self.ask.acall(word=f"{word} {number}") for number in range(4)))
        return await self.ask.acall(word=f"{word} last")


class Chains(otpy.Program):
    ask: otpy.Predict = ASK

    async def forward(self, word):
        async def chain(name):
            for number in range(3):
                await self.ask.acall(word=f"{word} {name}{number}")

        await asyncio.gather(*(chain(name) for name in "pqr"))
        return await self.ask.acall(word=f"{word} last")


class InThreads(otpy.Program):
    ask: otpy.Predict = ASK

    def forward(self, word):
        for number in range(3):
            self.ask(word=f"{word} {number}")
        return self.ask(word=f"{word} last")


EXPECTED = {
    AtOnce: ["first", "0", "1", "2", "3", "last"],
    Chains: ["p0", "p1", "p2", "q0", "q1", "q2", "r0", "r1", "r2", "last"],
    InThreads: ["0", "1", "2", "last"],
}


@pytest.mark.parametrize("kind", EXPECTED)
@pytest.mark.parametrize("seed", range(3))
def test_a_trace_does_not_depend_on_how_long_answers_take(kind, seed):
    dice = random.Random(seed)
    with FakeProvider(lambda _: Say('{"kind": "x"}', delay=dice.choice([0.0, 0.01, 0.03]))) as fake:
        client = {"model": "a/b", "base_url": fake.url("openai_chat"), "api_key": "none"}
        with otpy.start(settings={"clients": {"default": client}, "cache": {"enabled": False}}) as app:

            async def traced():
                with tracing() as whole, tracing() as trace:
                    await kind().acall(word="w")
                assert whole == trace
                return trace

            trace = app.run(traced())
    assert [entry.inputs["word"].removeprefix("w ") for entry in trace] == EXPECTED[kind]
    assert all(one.place < other.place for one, other in itertools.pairwise(trace))

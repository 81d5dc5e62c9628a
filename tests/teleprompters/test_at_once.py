"""Programs that ask several at once, and metrics that ask a model: the same run, within its caps, by its own calls."""

from __future__ import annotations

import asyncio
import json
import random
import re

import pytest

import otpy
from otpy.evaluate import Score
from otpy.teleprompters.outcome import outcome_of
from otpy.testing import FakeProvider, Fault, Say
from tests.teleprompters.test_gepa import compiled

ROWS = [otpy.Example(word=f"{group}{number}", kind=group) for number in range(4, 10) for group in "abcd"]
METRIC = otpy.exact_match("kind")
DICE = random.Random(1)


class Gathers(otpy.Program):
    ask: otpy.Predict = otpy.Predict("word, part -> kind")

    async def forward(self, word):
        parts = await asyncio.gather(*(self.ask.acall(word=word, part=part) for part in ("one", "two", "three")))
        return parts[0]


def knows(body):
    """Some by itself, some by its demos, and what it is told again and again."""
    system, last = body["messages"][0]["content"], body["messages"][-1]["content"]
    if "new_instruction" in system:
        return {"new_instruction": f"Sort {len(last) % 5}"}
    if "`advice`" in system:
        return {"advice": {"ask": f"rule {len(last) % 5}"}}
    word = re.search(r"word: (\S+)", last).group(1)
    shown = {json.loads(one["content"])["kind"] for one in body["messages"] if one["role"] == "assistant"}
    lucky = body.get("temperature") and len(last + str(body.get("seed"))) % 2
    return {"kind": word[0] if word[0] in shown or word[1] in "57" or lucky else "?"}


def unevenly(body):
    """As it knows, and each answer takes as long as it likes."""
    return json.dumps(knows(body))


async def optimized(teleprompter, script, student, **options):
    def answered(request):
        said = script(request.body)
        return said if not isinstance(said, str) else Say(said, delay=DICE.choice([0.0, 0.002, 0.01]))

    with FakeProvider(answered) as fake:
        client = {"model": "a/b", "base_url": fake.url("openai_chat"), "api_key": "none", "retry": {"max_attempts": 1}}
        client |= {"breaker": {"fail_max": 1000}}
        async with otpy.start(settings={"clients": {"default": client}, "cache": {"enabled": False}}) as app:
            program = await teleprompter.acompile(student, **options)
            assert not app.tasks.process.actor.tasks
        return program, fake.counts.requests


@pytest.mark.parametrize(
    "teleprompter",
    [
        otpy.BootstrapFewShotWithRandomSearch(METRIC, num_candidate_programs=2, max_labeled_demos=0),
        otpy.SIMBA(METRIC, bsize=6, max_steps=2, seed=1),
        otpy.GEPA(METRIC, max_metric_calls=120, evolve="both"),
    ],
    ids=["random search", "SIMBA", "GEPA"],
)
def test_a_finished_run_called_again_asks_nothing_and_is_the_same(teleprompter, tmp_path):
    sets = {"trainset": ROWS[:12], "valset": ROWS[12:], "journal": tmp_path / "run"}
    first, _ = asyncio.run(optimized(teleprompter, unevenly, Gathers(), **sets))
    again, asked = asyncio.run(optimized(teleprompter, unevenly, Gathers(), **sets))
    assert asked == 0
    assert again.content_hash() == first.content_hash()


@pytest.mark.parametrize("cap", [1, 3, 10])
@pytest.mark.parametrize("journalled", [False, True])
def test_a_cap_is_not_passed_by_those_left_behind(cap, journalled, tmp_path):
    class Chains(otpy.Program):
        ask: otpy.Predict = otpy.Predict("word, part -> kind")

        async def forward(self, word):
            async def chain(name):
                for number in range(4):
                    found = await self.ask.acall(word=word, part=f"{name}{number}")
                return found

            return (await asyncio.gather(*(chain(name) for name in "pqr")))[0]

    teleprompter = otpy.COPRO(METRIC, breadth=2, depth=1, max_concurrency=4)
    sets = {"trainset": ROWS[:12], "valset": ROWS[12:], "journal": tmp_path / "run" if journalled else None}
    program, asked = asyncio.run(optimized(teleprompter, unevenly, Chains(), max_requests=cap, **sets))
    assert asked == outcome_of(program).requests == cap
    assert outcome_of(program).stopped == "budget"


@pytest.mark.parametrize("seed", range(3))
def test_a_cap_is_not_passed_by_proposals_at_once(seed):
    class TwoSteps(otpy.Program):
        one: otpy.Predict = otpy.Predict("word -> part")
        two: otpy.Predict = otpy.Predict("word, part -> kind")

        async def forward(self, word):
            return await self.two.acall(word=word, part=(await self.one.acall(word=word)).part)

    def script(body):
        return json.dumps({"part": "x", **knows(body)} if "`part`" in body["messages"][0]["content"] else knows(body))

    teleprompter = otpy.GEPA(METRIC, max_metric_calls=200, proposals=3, component_selector="all", seed=seed)
    sets = {"trainset": ROWS[:12], "valset": ROWS[12:]}
    program, asked = asyncio.run(optimized(teleprompter, script, TwoSteps(), max_requests=60 + seed, **sets))
    assert asked == outcome_of(program).requests <= 60 + seed


# -- metrics that ask a model ------------------------------------------------------------------------------------------


def judging(kind):
    """A metric that asks a model of its own, whose predictor stands where the student's does."""
    judge = kind("kind, label -> verdict")

    async def judged(example, prediction, trace=None):
        found = await judge.acall(kind=prediction.kind, label=example.kind)
        return example.kind == prediction.kind and found.verdict == "yes"

    return judged


def with_judge(body):
    system, last = body["messages"][0]["content"], body["messages"][-1]["content"]
    if "`verdict`" in system:
        return {"reasoning": "r", "verdict": "yes"}
    if "new_instruction" in system:
        return {"new_instruction": f"y{len(last) % 7}"}
    if "`advice`" in system:
        return {"advice": {"self": f"x{len(last)}", "predict": "x"}}
    return {"reasoning": "t", "kind": last.split()[-1][0] if last[-1] in "57" else "?"}


@pytest.mark.parametrize("kind", [otpy.Predict, otpy.ChainOfThought])
@pytest.mark.parametrize(
    "make",
    [
        lambda metric: otpy.GEPA(metric, max_metric_calls=60),
        lambda metric: otpy.GEPA(metric, max_metric_calls=60, evolve="demos"),
        lambda metric: otpy.SIMBA(metric, bsize=4, max_steps=2),
    ],
    ids=["GEPA", "GEPA of demos", "SIMBA"],
)
def test_a_judges_calls_are_not_taken_for_the_students(make, kind):
    _, requests = compiled(make(judging(kind)), kind("word -> kind"), with_judge, trainset=ROWS[:8], valset=ROWS[8:])
    for body in requests:
        system, last = body["messages"][0]["content"], body["messages"][-1]["content"]
        if "new_instruction" in system or "`advice`" in system:
            assert "verdict" not in last


def test_an_outage_of_the_judge_of_a_single_call_is_waited_for(monkeypatch):
    monkeypatch.setattr("otpy.teleprompters.patience.FIRST_WAIT", 0.01)
    judge = otpy.Predict("kind, about -> verdict")
    judgements = []

    async def metric(example, prediction, trace=None, pred_name=None, pred_trace=None):
        right = example.kind == prediction.kind
        if pred_name is None:
            return Score(right, "")
        return Score(right, (await judge.acall(kind=prediction.kind, about=pred_name)).verdict)

    def script(body):
        if "`verdict`" not in body["messages"][0]["content"]:
            return json.dumps(with_judge(body))
        judgements.append(body)
        return Fault("status", 503) if len(judgements) == 3 else json.dumps({"verdict": "bad"})

    sets = {"trainset": ROWS[:8], "valset": ROWS[8:]}
    student = otpy.Predict("word -> kind")
    program, _ = asyncio.run(optimized(otpy.GEPA(metric, max_metric_calls=60), script, student, **sets))
    assert outcome_of(program).stopped == "done"
    assert len(judgements) > 3

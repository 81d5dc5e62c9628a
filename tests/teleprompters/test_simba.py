"""SIMBA learns from what differs between tries, finds what was planted, and is the same run however it was cut."""

from __future__ import annotations

import asyncio
import os
import random
import re
from collections import Counter
from hashlib import blake2b

import pytest
from hypothesis import given
from hypothesis import strategies as st

import otpy
from otpy.errors import EvaluationError, TeleprompterError
from otpy.evaluate import Score
from otpy.teleprompters.outcome import outcome_of
from otpy.teleprompters.simba import SIMBA, dropped, leading, percentile, softmax_draw
from otpy.testing import LoopbackLM

GROUPS = "abcd"
ROWS = [otpy.Example(word=f"{group}{number}", kind=group) for number in range(4) for group in GROUPS]
TRAIN, VAL = ROWS[:8], ROWS[8:]
SMALL = {"bsize": 8, "num_candidates": 4, "max_steps": 3}


class Sort(otpy.Signature):
    """Sort the word."""

    word: str = otpy.InputField()
    kind: str = otpy.OutputField()


STUDENT = otpy.Predict(Sort)


def metric(example, prediction, trace=None):
    right = example.kind == prediction.kind
    return Score(right, "" if right else "wrong")


def chance(text, of):
    return blake2b(text.encode()).digest()[0] % of


class Model:
    """Right where a rule or a demo says so; else by chance, if it is hot. Its advice is of no use one time in four."""

    def __init__(self, luck=4):
        self.asked, self.luck = Counter(), luck

    def __call__(self, body):
        system, last = body["messages"][0]["content"], body["messages"][-1]["content"]
        key = repr((body["messages"], body.get("temperature")))  # a cap of requests bounds tokens too, in the body
        self.asked[key] += 1
        if "advise the modules" in system:
            group = re.search(r"kind: (\w)", last.split("example:")[1])[1]
            return {"advice": {"self": "Be nice." if chance(key, 4) == 0 else f"Mind rule-{group}.", "nobody": "x"}}
        word = last.removeprefix("word: ")
        shown = {message["content"][6] for message in body["messages"][1:-1] if message["role"] == "user"}
        if f"rule-{word[0]}" in system or word[0] in shown:
            return {"kind": word[0]}
        lucky = body.get("temperature") and chance(f"{key}{self.asked[key]}", self.luck) == 0
        return {"kind": word[0] if lucky else "?"}


def compiled(teleprompter, script=None, student=STUDENT, **arguments):
    async def main():
        with LoopbackLM(Model() if script is None else script) as server:
            client = {"model": "openai/x", "base_url": server.url, "api_key": "none", "retry": {"max_attempts": 1}}
            async with otpy.start(settings={"clients": {"default": client}, "cache": {"enabled": False}}):
                options = {"trainset": TRAIN, "valset": VAL} | arguments
                return await teleprompter.acompile(student, **options), server.requests

    return asyncio.run(main())


@pytest.mark.parametrize("seed", range(int(os.environ.get("PLANTED_SEEDS", "10"))))
def test_the_planted_optimum_is_found_in_eight_steps_and_a_thousand_requests(seed):
    better, requests = compiled(SIMBA(metric, bsize=8, seed=seed))
    outcome = outcome_of(better)
    assert outcome.student.score == 0
    assert outcome.score == 1
    assert len(better.demos) <= 4
    assert len(requests) <= 1000


def test_it_is_found_by_rules_alone():
    better, _ = compiled(SIMBA(metric, bsize=8, max_demos=0))
    assert outcome_of(better).score == 1
    assert better.demos == ()
    assert {f"rule-{group}" for group in GROUPS} <= set(re.findall(r"rule-\w", better.signature.instructions))


class TestTheSameRun:
    def test_is_the_same_however_many_are_under_way(self):
        hashes = {compiled(SIMBA(metric, **SMALL, max_concurrency=width))[0].content_hash() for width in (1, 3, 8)}
        assert len(hashes) == 1

    @pytest.mark.parametrize("cut", [15, 60, 120])
    def test_goes_on_from_its_journal(self, tmp_path, cut):
        # one after the other: what is under way at the end would be dice that were thrown and not read
        teleprompter = SIMBA(metric, **SMALL, seed=1, max_concurrency=1)
        whole, asked = compiled(teleprompter)
        script = Model()
        first, before = compiled(teleprompter, script, journal=tmp_path / "run", max_requests=cut)
        assert outcome_of(first).stopped == "budget"
        assert len(before) <= cut
        second, after = compiled(teleprompter, script, journal=tmp_path / "run")
        assert second.content_hash() == whole.content_hash()
        assert outcome_of(second).stopped == "done"
        assert len(before) + len(after) == len(asked)


class TestWhatIsLearnedFrom:
    def test_the_better_and_the_worse_run_are_told(self):
        _, requests = compiled(SIMBA(metric, **SMALL, max_demos=0))
        advising = [body for body in requests if "advise the modules" in body["messages"][0]["content"]]
        told = advising[0]["messages"][-1]["content"]
        assert "## self\nword: str -> kind: str\nSort the word." in told
        worse, better = told.split("worse:")[1].split("better:")
        assert "kind: ?\n## Score\n0\nwrong" in worse
        assert "## Score\n1" in better

    def test_advice_has_a_longest_answer(self):
        _, requests = compiled(SIMBA(metric, **SMALL, max_demos=0, prompt_max_tokens=77))
        advising = [body for body in requests if "advise the modules" in body["messages"][0]["content"]]
        assert {body["max_tokens" if "max_tokens" in body else "max_completion_tokens"] for body in advising} == {77}

    def test_where_nothing_ever_works_there_is_nothing(self):
        better, requests = compiled(SIMBA(metric, **SMALL), lambda _: {"kind": "?"})
        assert better == STUDENT
        assert len(requests) == len(VAL) + SMALL["max_steps"] * 8 * 3 + 8  # a program's own try is not made again

    def test_advice_that_will_not_do_costs_that_rule_alone(self):
        script = Model()

        def hopeless(body):
            return "no json" if "advise the modules" in body["messages"][0]["content"] else script(body)

        better, _ = compiled(SIMBA(metric, **SMALL), hopeless)
        assert better.signature.instructions == "Sort the word."
        assert outcome_of(better).score > 0

    def test_long_inputs_are_cut_in_demos(self):
        better, _ = compiled(SIMBA(metric, **SMALL, demo_input_field_maxlen=1))
        demos = [demo for one in outcome_of(better).candidates for demo in one.program.demos]
        assert demos
        assert all(len(demo.word) == 1 for demo in demos)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"bsize": 0}, "bsize=0; allowed: an integer >= 1"),
        ({"num_candidates": 1}, "num_candidates=1; allowed: an integer >= 2"),
        ({"max_steps": True}, "max_steps=True; allowed: an integer >= 1"),
        ({"temperature_for_sampling": 0}, "temperature_for_sampling=0; allowed: a number > 0"),
        ({"failure_score": float("nan")}, "failure_score=nan; allowed: a finite number"),
    ],
)
def test_arguments_that_cannot_be_are_refused_by_name(arguments, message):
    with pytest.raises(TeleprompterError, match=re.escape(message)):
        SIMBA(metric, **arguments)


def test_a_metric_that_cannot_be_called_is_refused():
    with pytest.raises(EvaluationError, match="cannot be called with"):
        SIMBA(lambda example: 1)


def test_it_prints_what_it_is():
    assert repr(SIMBA(metric, bsize=4)) == "SIMBA(metric, bsize=4, num_candidates=6, max_steps=8, seed=0)"


SCORES = st.lists(st.floats(0, 1), min_size=1, max_size=9)


@given(SCORES, st.integers(1, 9))
def test_those_that_lead_are_the_best_and_the_student(scores, count):
    found = leading(scores, count)
    assert len(set(found)) == len(found) == min(count, len(scores))
    assert 0 in found
    others = [scores[at] for at in range(1, len(scores)) if at not in found]
    assert all(scores[at] >= max(others, default=0) for at in found if at)


@given(SCORES, st.floats(0.01, 10), st.integers(0, 99))
def test_a_draw_is_one_of_them(scores, temperature, seed):
    assert 0 <= softmax_draw(scores, temperature, random.Random(seed)) < len(scores)


def test_draws_are_in_proportion():
    rng = random.Random(0)
    counts = Counter(softmax_draw([0.0, 0.2], 0.2, rng) for _ in range(4000))
    assert counts[1] / counts[0] == pytest.approx(2.718, rel=0.1)


@given(SCORES, st.floats(0, 1))
def test_a_percentile_is_between_the_ends(values, share):
    assert min(values) <= percentile(values, share) <= max(values) + 1e-9


@given(st.integers(0, 12), st.integers(0, 8), st.integers(0, 99))
def test_what_is_dropped_leaves_room_for_one_more(demos, most, seed):
    away = dropped(demos, most, random.Random(seed))
    assert away <= set(range(demos))
    if most:
        assert demos - len(away) < most


def test_as_many_are_dropped_as_a_poisson_draw_says():
    counts = [len(dropped(20, 40, random.Random(seed))) for seed in range(3000)]
    assert sum(counts) / len(counts) == pytest.approx(0.5, rel=0.1)


def test_a_minibatch_larger_than_the_trainset_is_all_of_it_and_noted():
    better, _ = compiled(SIMBA(metric, bsize=1_000, num_candidates=2, max_steps=1))
    assert any(note.startswith("bsize=1000: the trainset has ") for note in outcome_of(better).notes)

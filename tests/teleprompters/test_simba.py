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
SMALL = {"bsize": 4, "num_candidates": 4, "max_steps": 8}


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
        key = repr(sorted(body.items(), key=repr))
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
def test_the_planted_optimum_is_found_in_eight_steps(seed):
    better, requests = compiled(SIMBA(metric, **SMALL, seed=seed))
    outcome = outcome_of(better)
    assert outcome.student.score == 0
    assert outcome.score == 1
    assert len(better.demos) <= 4
    assert len(requests) <= 600

"""A program of two stages is optimized predictor by predictor, and does better on rows that nobody has seen."""

import re

import pytest

import otpy
from otpy.evaluate import Score
from otpy.teleprompters.copro import COPRO
from otpy.teleprompters.gepa import GEPA
from otpy.teleprompters.mipro import MIPROv2
from otpy.testing import LoopbackLM

KINDS = "abcd"
NEEDS = {"c": "know-c", "d": "tell-d"}
"""What the first stage has to be told, and what the second; of the other kinds they know."""


def rows(first, last):
    return [otpy.Example(item=f"{KINDS[n % 4]}{n}", answer=f"yes {KINDS[n % 4]}") for n in range(first, last)]


TRAIN, VAL, HELD_OUT = rows(0, 12), rows(12, 28), rows(28, 60)


class TwoStages(otpy.Program):
    """Looks an item up, step by step; then answers."""

    think: otpy.ChainOfThought = otpy.ChainOfThought("item -> fact")
    say: otpy.Predict = otpy.Predict("fact -> answer")

    async def forward(self, item):
        found = await self.think.acall(item=item)
        return await self.say.acall(fact=found.fact)


def metric(example, prediction, trace=None):
    right = example.answer == prediction.answer
    return Score(right, "" if right else f"needs {NEEDS[example.item[0]]}")


def shown(body, field):
    """The values of an input in the demos of a prompt."""
    texts = [message["content"] for message in body["messages"][1:-1] if message["role"] == "user"]
    return [text.partition(": ")[2] for text in texts if text.startswith(f"{field}: ")]


def able(instruction, seen, kind, word):
    """Whether a stage needs no word about a kind, has been told it, or is shown such a one."""
    need = NEEDS.get(kind, "")
    return not need.startswith(word) or need in instruction or any(kind in text.split()[-1] for text in seen)


def model(body):
    """Two stages that each have to learn of one kind, and one who writes instructions."""
    system, last = body["messages"][0]["content"], body["messages"][-1]["content"]
    if "`new_instruction`" in system:
        instruction, calls = last.removeprefix("instruction: ").split("calls:", 1)
        word = "know" if "item:" in calls else "tell"
        return {"new_instruction": " ".join([instruction.strip(), *set(re.findall(rf"needs ({word}-\w)", calls))])}
    if "Output `instruction`" in system:
        word = "know" if "item (str)" in last else "tell"
        return {"instruction": f"Mind {'know-c' if word == 'know' else 'tell-d'}."}
    for output in ("observations", "summary", "description"):
        if f"Output `{output}`" in system:
            return {output: "some"}
    if "Output `fact`" in system:
        item = last.removeprefix("item: ")
        known = able(system, shown(body, "item"), item[0], "know")
        return {"reasoning": "so", "fact": f"known {item}" if known else f"lost {item}"}
    _, what, item = last.split()
    told = able(system, shown(body, "fact"), item[0], "tell")
    return {"answer": f"yes {item[0]}" if what == "known" and told else "no"}


def measured(teleprompter, **options):
    """The student's and the optimized program's scores on held-out rows, and the program."""
    with LoopbackLM(model) as server:
        client = {"model": "openai/x", "base_url": server.url, "api_key": "none", "retry": {"max_attempts": 1}}
        with otpy.start(settings={"clients": {"default": client}, "cache": {"enabled": False}}):
            held_out = otpy.Evaluate([row.with_inputs("item") for row in HELD_OUT], metric=metric)
            student = TwoStages()
            better = teleprompter.compile(student, trainset=TRAIN, **options)
            return held_out(student).score, held_out(better).score, better


def stages(better):
    return dict(better.named_predictors())


INSTRUCTED = {
    "COPRO": COPRO(metric, breadth=3, depth=2),
    "MIPROv2": MIPROv2(
        metric, auto=None, num_candidates=3, num_trials=12, max_bootstrapped_demos=0, max_labeled_demos=0
    ),
    "GEPA": GEPA(metric, max_metric_calls=400, reflection_minibatch_size=4),
}


@pytest.mark.parametrize("name", INSTRUCTED)
def test_instructions_are_found_for_each_stage_and_raise_the_score_on_unseen_rows(name):
    before, after, better = measured(INSTRUCTED[name], valset=VAL)
    assert (before, after) == (0.5, 1.0)
    think, say = stages(better)["think.predict"], stages(better)["say"]
    assert re.findall(r"\w+-\w", think.signature.instructions) == ["know-c"]
    assert re.findall(r"\w+-\w", say.signature.instructions) == ["tell-d"]


class Teacher(TwoStages):
    """Of the same structure, with the instructions that it takes."""


TEACHER = Teacher().with_instructions({"think.predict": "Mind know-c.", "say": "Mind tell-d."})


@pytest.mark.parametrize(
    ("teleprompter", "options"),
    [
        (otpy.BootstrapFewShot(metric, max_bootstrapped_demos=8, max_labeled_demos=0), {}),
        (
            otpy.BootstrapFewShotWithRandomSearch(metric, max_bootstrapped_demos=8, max_labeled_demos=0),
            {"valset": VAL},
        ),
        (
            MIPROv2(metric, auto=None, num_candidates=6, num_trials=20, max_bootstrapped_demos=8, max_labeled_demos=0),
            {"valset": VAL},
        ),
    ],
    ids=["BootstrapFewShot", "BootstrapFewShotWithRandomSearch", "MIPROv2"],
)
def test_demos_are_those_of_each_stage_s_own_calls_and_raise_the_score_on_unseen_rows(teleprompter, options):
    before, after, better = measured(teleprompter, teacher=TEACHER, **options)
    assert (before, after) == (0.5, 1.0)
    think, say = stages(better)["think.predict"].demos, stages(better)["say"].demos
    assert {demo.item for demo in think} <= {row.item for row in TRAIN}
    if type(teleprompter) is not MIPROv2:  # which draws a set for each
        assert [demo.fact for demo in think] == [demo.fact for demo in say]
    assert all(demo.fact == f"known {demo.item}" and demo.reasoning == "so" for demo in think)
    assert all(demo.answer == f"yes {demo.fact.split()[1][0]}" for demo in say)

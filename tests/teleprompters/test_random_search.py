"""BootstrapFewShotWithRandomSearch finds the demos that help within its budget, and goes on after a cut."""

from collections import Counter

import pytest

import otpy
from otpy.errors import TeleprompterError
from otpy.teleprompters.outcome import outcome_of
from otpy.teleprompters.random_search import BootstrapFewShotWithRandomSearch
from otpy.testing import Scripted
from tests.teleprompters.planted import KINDS, METRIC, RIGHT, SEEDS, STUDENT, TRAIN, VAL, Sort, compiled, needs, resumed

SCRIPT = needs("plum")


def searching(**arguments):
    arguments = {"max_bootstrapped_demos": 4, "max_labeled_demos": 0, "max_concurrency": 4, **arguments}
    return BootstrapFewShotWithRandomSearch(METRIC, **arguments)


@pytest.mark.parametrize("seed", SEEDS)
def test_it_finds_the_demo_that_helps_within_its_budget(seed):
    program, server = compiled(searching(seed=seed), SCRIPT)
    outcome = outcome_of(program)
    assert outcome.score == 1.0
    assert outcome.student.score == 0.0
    assert outcome.comparison.difference == 1.0
    # on six rows that is a chance of 1 in 32 for one candidate, and no rarity for the best of so many
    measured = len(outcome.p_values)
    assert outcome.comparison.p_value == outcome.p_values[outcome.best.name] == measured / 32
    assert f"p = {measured / 32:.2g}, corrected for {measured}, not shown to be better" in str(outcome)
    assert not outcome.better
    assert "plum" in {demo.word for demo in program.demos}
    assert len(server.requests) <= 18 * len(VAL) + len(TRAIN)
    assert len(outcome.candidates) == 1 + 2 + 16


@pytest.mark.parametrize("width", [1, 8, 32])
@pytest.mark.parametrize("stop", [None, 1.0])
def test_the_result_does_not_depend_on_how_many_are_under_way(width, stop):
    one, _ = compiled(searching(seed=3, stop_at_score=stop, max_concurrency=width), SCRIPT)
    other, _ = compiled(searching(seed=3, stop_at_score=stop, max_concurrency=5), SCRIPT)
    assert one.content_hash() == other.content_hash()


def test_a_score_that_is_good_enough_ends_it():
    program, _ = compiled(searching(stop_at_score=1.0), SCRIPT)
    outcome = outcome_of(program)
    assert outcome.candidates[-1].score == 1.0
    assert len(outcome.candidates) < 19


@pytest.mark.parametrize("after", [1, 5, 12])
def test_a_run_that_was_cut_goes_on_to_the_identical_program(tmp_path, after):
    whole, again, sent = resumed(lambda: searching(seed=1), SCRIPT, tmp_path / "run", after)
    assert again.content_hash() == whole.content_hash()
    assert set(sent.values()) == {1}


def test_an_outage_in_the_middle_ends_in_the_very_same_program(monkeypatch):
    monkeypatch.setattr("otpy.teleprompters.patience.FIRST_WAIT", 0.01)
    undisturbed, _ = compiled(searching(seed=1), SCRIPT)
    asked = Counter()

    def disturbed(body):
        asked["all"] += 1
        return Scripted("down", status=503) if 5 <= asked["all"] <= 8 or 30 <= asked["all"] < 40 else SCRIPT(body)

    assert compiled(searching(seed=1), disturbed)[0].content_hash() == undisturbed.content_hash()


def test_a_budget_returns_the_best_so_far_and_is_never_passed():
    program, server = compiled(searching(), SCRIPT, max_requests=40)
    assert len(server.requests) <= 40
    outcome = outcome_of(program)
    assert outcome.stopped == "budget"
    assert outcome.score == max(one.score for one in outcome.candidates)
    assert len(outcome.candidates) > 3


def test_labels_only_is_a_candidate_where_examples_can_be_demos():
    labelled, _ = compiled(searching(max_labeled_demos=4, num_candidate_programs=0), SCRIPT)
    assert [one.name for one in outcome_of(labelled).candidates] == [
        "student",
        "no demos",
        "labels only",
        "bootstrapped",
    ]
    chain = otpy.ChainOfThought(Sort)

    def script(body):
        return {"reasoning": "so", **SCRIPT(body)}

    reasoned, _ = compiled(searching(max_labeled_demos=4, num_candidate_programs=0), script, student=chain)
    names = [one.name for one in outcome_of(reasoned).candidates]
    assert names == ["student", "no demos", "labels only", "bootstrapped"]


class InTwo(otpy.Program):
    one: otpy.Predict = otpy.Predict("word -> note")
    two: otpy.Predict = otpy.Predict("note -> kind")

    async def forward(self, word):
        return await self.two.acall(note=(await self.one.acall(word=word)).note)


def test_labels_only_is_left_out_with_a_note_where_no_example_can_be_a_demo():
    def script(body):
        asked = body["messages"][-1]["content"]
        return {"note": asked.split()[-1]} if asked.startswith("word") else {"kind": RIGHT[asked.split()[-1]]}

    program, _ = compiled(searching(max_labeled_demos=4, num_candidate_programs=0), script, student=InTwo())
    outcome = outcome_of(program)
    assert [one.name for one in outcome.candidates] == ["student", "no demos", "bootstrapped"]
    assert any(note.startswith("no candidate 'labels only': no example has the inputs") for note in outcome.notes)


def test_nothing_is_better_than_the_student_so_it_is_returned():
    student = STUDENT.with_demos(TRAIN[:1])
    program, _ = compiled(searching(), lambda body: {"kind": "fruit"}, student=student)
    assert program == student


def test_a_program_of_two_predictors_gets_demos_for_each():
    class TwoSteps(otpy.Program):
        spell: otpy.Predict = otpy.Predict("word -> letters")
        sort: otpy.Predict = otpy.Predict("letters -> kind")

        async def forward(self, word):
            spelled = await self.spell.acall(word=word)
            return await self.sort.acall(letters=spelled.letters)

    def script(body):
        content = body["messages"][-1]["content"]
        if content.startswith("word: "):
            return {"letters": "-".join(content.removeprefix("word: "))}
        asked = content.removeprefix("letters: ").replace("-", "")
        knows = asked in {row.word for row in TRAIN} or len(body["messages"]) >= 2 + 2 * 3
        return {"kind": "fruit" if (asked in KINDS["fruit"].split()) == knows else "tool"}

    program, _ = compiled(searching(), script, student=TwoSteps())
    assert outcome_of(program).score == 1.0
    assert len(program.spell.demos) == len(program.sort.demos) >= 3


def test_no_example_that_satisfies_the_metric_is_said():
    with pytest.raises(TeleprompterError, match="no example of 14 satisfied"):
        compiled(searching(metric_threshold=2.0), SCRIPT)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_candidate_programs": -1}, "num_candidate_programs=-1; allowed: an integer >= 0"),
        ({"max_bootstrapped_demos": 0}, "max_bootstrapped_demos=0; allowed: an integer >= 1"),
        ({"stop_at_score": float("nan")}, "stop_at_score=nan; allowed: a finite number, or None"),
        ({"max_rounds": 0}, "max_rounds=0"),
        ({"metric_threshold": "high"}, "metric_threshold='high'"),
    ],
)
def test_arguments_that_cannot_be_are_refused_by_name(arguments, message):
    with pytest.raises(TeleprompterError, match=message):
        searching(**arguments)


def test_a_teacher_of_another_structure_is_refused():
    with pytest.raises(TeleprompterError, match="student and teacher differ"):
        compiled(searching(), SCRIPT, teacher=otpy.Predict("question -> answer"))

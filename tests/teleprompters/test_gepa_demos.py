"""GEPA with demos that evolve: how a minibatch is shown, what that is tried on, and that it finds what was planted."""

from __future__ import annotations

import json
import os
import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

import otpy
from otpy.errors import TeleprompterError
from otpy.programs import Predict, TraceEntry
from otpy.signatures import Prediction
from otpy.teleprompters.components import DEMOS, Components
from otpy.teleprompters.gepa import GEPA
from otpy.teleprompters.outcome import outcome_of
from otpy.teleprompters.pareto import apart
from otpy.teleprompters.tried import Tried
from tests.teleprompters.test_gepa import GROUPS, STUDENT, VAL, TwoSteps, compiled, feedback, rewritten

SEEDS = range(int(os.environ.get("PLANTED_SEEDS", "5")))
ROWS = [otpy.Example(word=f"{group}{number}", kind=group) for number in range(4, 12) for group in GROUPS]
METRIC = otpy.exact_match("kind")


def knows(body):
    """The kinds that its demos show."""
    return {json.loads(one["content"])["kind"] for one in body["messages"] if one["role"] == "assistant"}


def by_demos(body):
    word = body["messages"][-1]["content"].split(": ", 1)[1]
    return {"kind": word[0] if word[0] in knows(body) else "?"}


def by_both(body):
    """It knows a and b by demos, c and d by rules."""
    system, last = body["messages"][0]["content"], body["messages"][-1]["content"]
    if "new_instruction" in system:
        instruction, calls = last.removeprefix("instruction: ").split("calls:", 1)
        return {"new_instruction": rewritten(instruction.strip(), calls)}
    word = last.split(": ", 1)[1]
    known = (knows(body) & set("ab")) | (set(re.findall(r"rule-(\w)", system)) & set("cd"))
    return {"kind": word[0] if word[0] in known else "?"}


def steps(body):
    """The first of two steps spells by itself; the second knows what its demos show."""
    value = body["messages"][-1]["content"].split(": ", 1)[1]
    if "`letters`" in body["messages"][0]["content"] and body["messages"][-1]["content"].startswith("word"):
        return {"letters": value}
    return {"kind": value[0] if value[0] in {*knows(body), "a"} else "?"}


class TestThePlantedOptimum:
    @pytest.mark.parametrize("seed", SEEDS)
    def test_is_found_by_demos_alone_and_no_model_writes_anything(self, seed):
        teleprompter = GEPA(METRIC, max_metric_calls=200, evolve="demos", max_demos=8, seed=seed)
        better, requests = compiled(teleprompter, script=by_demos, trainset=ROWS)
        assert outcome_of(better).score == 1
        assert {demo.kind for demo in better.demos} == set(GROUPS)
        assert len(better.demos) <= 8
        assert better.signature.instructions == STUDENT.signature.instructions
        assert all("new_instruction" not in body["messages"][0]["content"] for body in requests)

    @pytest.mark.parametrize("seed", SEEDS)
    def test_is_found_where_it_takes_both(self, seed):
        teleprompter = GEPA(feedback, max_metric_calls=500, evolve="both", seed=seed)
        better, _ = compiled(teleprompter, script=by_both, trainset=ROWS)
        assert outcome_of(better).score == 1
        assert {"rule-c", "rule-d"} <= set(re.findall(r"rule-\w", better.signature.instructions))
        assert {"a", "b"} <= {demo.kind for demo in better.demos}

    @pytest.mark.parametrize("ways", [{"component_selector": "all"}, {"proposals": 3}, {"use_merge": False}])
    def test_is_found_in_every_way(self, ways):
        teleprompter = GEPA(feedback, max_metric_calls=600, evolve="both", **ways)
        better, _ = compiled(teleprompter, script=by_both, trainset=ROWS)
        assert outcome_of(better).score == 1

    def test_the_budget_is_not_passed(self):
        tried = []

        def counting(example, prediction, trace=None):
            tried.append(example)
            return feedback(example, prediction)

        compiled(GEPA(counting, max_metric_calls=60, evolve="demos"), script=by_demos, trainset=ROWS)
        assert 30 < len(tried) <= 60


class TestAMinibatch:
    def test_is_shown_and_the_child_is_tried_on_another(self):
        teleprompter = GEPA(METRIC, max_metric_calls=60, evolve="demos")
        _, requests = compiled(teleprompter, script=by_demos, trainset=ROWS)
        words = {row.word for row in ROWS}
        asked = [body for body in requests if body["messages"][-1]["content"].split(": ")[1] in words]
        with_demos = [body for body in asked if len(body["messages"]) > 2]
        assert with_demos
        for body in with_demos:
            *shown, last = [one["content"] for one in body["messages"] if one["role"] == "user"]
            assert last not in shown

    def test_of_a_program_of_several_steps_is_shown_to_whom_it_suffices_for(self):
        teleprompter = GEPA(METRIC, max_metric_calls=300, evolve="demos")
        better, _ = compiled(teleprompter, TwoSteps(), script=steps, trainset=ROWS)
        predictors = dict(better.named_predictors())
        assert {demo.kind for demo in predictors["sort"].demos} <= {"a"}  # no row has letters; only what went well
        assert all(demo.letters == demo.word for demo in predictors["spell"].demos)


class Reasoned(otpy.Signature):
    """Sort the word."""

    word: str = otpy.InputField()
    why: str = otpy.OutputField()
    kind: str = otpy.OutputField()


def tried(program, word, wanted, score, **said):
    prediction = Prediction(said)
    entry = TraceEntry("self", program, {"word": word}, prediction)
    row = otpy.Example(word=word, kind=wanted).with_inputs("word")
    return Tried(0, row, score, prediction, trace=(entry,))


def shown(program, rows, most=4, seed=0):
    components = Components("demos", most)
    text = components.with_shown(program, "self", rows, 1.0, random.Random(seed))
    return components.made(program, {"self" + DEMOS: text})


class TestWhatIsShown:
    def test_what_went_well_is_shown_as_it_was_answered_the_rest_with_its_labels(self):
        student = Predict("word -> kind")
        rows = [tried(student, "pear", "fruit", 1.0, kind="fruit"), tried(student, "saw", "tool", 0.0, kind="fruit")]
        demos = [(demo.word, demo.kind) for demo in shown(student, rows).demos]
        assert sorted(demos) == [("pear", "fruit"), ("saw", "tool")]

    def test_what_went_badly_and_lacks_a_field_is_not_shown(self):
        student = Predict(Reasoned)
        rows = [
            tried(student, "pear", "fruit", 1.0, why="it grows", kind="fruit"),
            tried(student, "saw", "tool", 0.0, why="it grows", kind="fruit"),
        ]
        assert [dict(demo) for demo in shown(student, rows).demos] == [
            {"word": "pear", "why": "it grows", "kind": "fruit"}
        ]
        assert shown(student, rows[1:]) == student

    def test_older_ones_go_where_there_are_too_many_and_none_is_there_twice(self):
        student = Predict("word -> kind").with_demos([{"word": f"w{n}", "kind": "x"} for n in range(4)])
        rows = [tried(student, "w1", "y", 0.0, kind="x"), tried(student, "new", "y", 0.0, kind="x")]
        for seed in range(10):
            words = [demo.word for demo in shown(student, rows, seed=seed).demos]
            assert len(words) == len(set(words)) == 4
            assert {"w1", "new"} <= set(words)
        assert len(shown(student, rows, most=1).demos) == 1

    def test_demos_that_share_only_a_part_of_their_inputs_stay(self):
        said = [{"word": f"w{n}", "lang": "en", "kind": "x"} for n in range(3)]
        student = Predict("word, lang -> kind").with_demos(said)
        entry = TraceEntry("self", student, {"word": "new", "lang": "en"}, Prediction({"kind": "y"}))
        row = otpy.Example(word="new", lang="en", kind="y").with_inputs("word", "lang")
        rows = [Tried(0, row, 1.0, entry.prediction, trace=(entry,))]
        assert len(shown(student, rows, most=16).demos) == 4

    def test_a_step_that_was_asked_the_same_for_several_rows_is_shown_it_once(self):
        student = Predict("part -> kind")
        entry = TraceEntry("self", student, {"part": "p"}, Prediction({"kind": "x"}))
        rows = [
            Tried(n, otpy.Example(word=f"w{n}").with_inputs("word"), 1.0, entry.prediction, trace=(entry,))
            for n in range(4)
        ]
        assert len(shown(student, rows).demos) == 1


@given(st.integers(2, 40).flatmap(lambda count: st.tuples(st.just(count), st.integers(1, count // 2))), st.data())
def test_what_is_shown_and_what_it_is_tried_on_have_nothing_in_common(sizes, data):
    count, size = sizes
    rows, others = apart(range(count), data.draw(st.integers(0, -(-count // size) - 1)), size)
    assert len(rows) == size
    assert 0 < len(others) <= size
    assert not set(rows) & set(others)


def test_a_single_row_is_refused():
    with pytest.raises(TeleprompterError, match="evolve='demos' shows some rows and tries others; give more than one"):
        compiled(GEPA(METRIC, max_metric_calls=80, evolve="demos"), script=by_demos, trainset=ROWS[:1])


def test_a_row_that_can_be_no_demo_is_refused_before_anything_is_asked():
    student = Predict("word -> kind: Literal['a', 'b']")
    asked = []

    def script(body):
        asked.append(body)
        return {"kind": "a"}

    with pytest.raises(TeleprompterError, match=r"row 2 of the trainset can be no demo of self: .*kind"):
        compiled(GEPA(METRIC, max_metric_calls=80, evolve="demos"), student, script, trainset=ROWS[:8])
    assert len(asked) <= len(VAL)


@pytest.mark.parametrize("cut", [30, 50, 70])
def test_the_same_run_goes_on_from_its_journal_and_asks_nothing_twice(tmp_path, cut):
    def teleprompter(width):
        return GEPA(feedback, max_metric_calls=300, evolve="both", seed=1, max_concurrency=width)

    whole, asked = compiled(teleprompter(4), script=by_both, trainset=ROWS)
    more = {"script": by_both, "trainset": ROWS, "journal": tmp_path / "run"}
    first, before = compiled(teleprompter(4), max_requests=cut, **more)
    assert outcome_of(first).stopped == "budget"
    second, after = compiled(teleprompter(4), **more)
    assert second.content_hash() == whole.content_hash()
    assert len(before) + len(after) == len(asked)


def test_what_evolves_is_part_of_the_journals_identity(tmp_path):
    def teleprompter(evolve):
        return GEPA(METRIC, max_metric_calls=40, evolve=evolve)

    compiled(teleprompter("demos"), script=by_demos, trainset=ROWS, journal=tmp_path / "run")
    with pytest.raises(TeleprompterError, match="evolve"):
        compiled(teleprompter("both"), script=by_demos, trainset=ROWS, journal=tmp_path / "run")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"evolve": "all"}, "evolve='all'; allowed: 'instructions', 'demos', 'both'"),
        ({"evolve": "demos", "max_demos": 0}, "max_demos=0; allowed: an integer >= 1"),
    ],
)
def test_arguments_that_cannot_be_are_refused_by_name(arguments, message):
    with pytest.raises(TeleprompterError, match=re.escape(message)):
        GEPA(METRIC, auto="light", **arguments)


def test_what_follows_from_the_parameters_is_none():
    told = GEPA(METRIC, auto="light", evolve="demos").params()
    assert told["evolve"] == "demos"
    assert "proposes" not in told


def test_there_is_nothing_for_a_person_to_review_where_only_demos_evolve():
    with pytest.raises(TeleprompterError, match="review"):
        compiled(GEPA(METRIC, auto="light", evolve="demos"), script=by_demos, review=True)


def test_budgets_are_what_they_say():
    assert GEPA(METRIC, auto="light", evolve="demos").budget(10, 20, 1) == 20 + 11 * 9 + 6 * 20
    assert GEPA(METRIC, auto="light", evolve="both").budget(10, 20, 1) == 20 + 21 * 9 + 6 * 20
    assert GEPA(METRIC, max_metric_calls=110, evolve="demos").requests(10, 20, 1) == (20, 110)

"""What COPRO and MIPROv2 ask, measure and choose; what they refuse."""

from __future__ import annotations

import asyncio
import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

import otpy
from otpy.errors import EvaluationError, TeleprompterError
from otpy.teleprompters.advice import TIPS
from otpy.teleprompters.copro import COPRO, SignatureOptimizer
from otpy.teleprompters.demo_sets import draws
from otpy.teleprompters.lab import Lab
from otpy.teleprompters.mipro import MIPROv2, Parts, Standing
from otpy.teleprompters.proposer import source_of
from otpy.teleprompters.run_view import RunView
from otpy.testing import LoopbackLM

METRIC = otpy.exact_match("answer")
STUDENT = otpy.Predict("item -> answer")


def rows(start, end):
    return [otpy.Example(item=f"row {number}", answer="yes") for number in range(start, end)]


def system(body):
    return body["messages"][0]["content"]


def question(body):
    return body["messages"][-1]["content"]


def asked_for(server, output):
    return [question(body) for body in server.requests if f"Output `{output}`" in system(body)]


def script(body):
    """Even rows are solved; all of them if the instruction has the word."""
    for output in ("observations", "summary", "description"):
        if f"Output `{output}`" in system(body):
            return {output: f"the {output}"}
    if "Output `instruction`" in system(body):
        return {"instruction": f"Magic {random.Random(question(body)).randrange(10**6)}."}
    return {"answer": "yes" if "Magic" in system(body) or int(question(body).split()[-1]) % 2 == 0 else "no"}


def run(teleprompter, script=script, student=STUDENT, trainset=None, valset=None, **options):
    trainset = rows(0, 8) if trainset is None else trainset

    async def main():
        with LoopbackLM(script) as server:
            client = {"model": "openai/x", "base_url": server.url, "api_key": "none"}
            async with otpy.start(settings={"clients": {"default": client}, "cache": {"enabled": False}}):
                outcome = await teleprompter.start(student, trainset=trainset, valset=valset, **options).result()
            return outcome, server

    return asyncio.run(main())


def mipro(**options):
    return MIPROv2(METRIC, auto=None, **{"num_candidates": 3, "num_trials": 4, **options})


class TestDemos:
    def test_without_any_only_instructions_are_chosen(self):
        outcome, server = run(mipro(max_bootstrapped_demos=0, max_labeled_demos=0), valset=rows(8, 12))
        assert outcome.program.demos == ()
        assert outcome.score == 1.0
        assert {name for one in outcome.candidates for name in one.params} == {"self: instruction"}
        assert all("examples: (not told)" in text for text in asked_for(server, "instruction"))

    def test_labels_alone_cost_no_request_of_a_teacher(self):
        _, server = run(mipro(max_bootstrapped_demos=0), valset=rows(8, 12))
        assert not [text for text in asked_for(server, "answer") if text in [f"item: row {n}" for n in range(8)]]
        demos = [len(body["messages"]) // 2 - 1 for body in server.requests if "Output `answer`" in system(body)]
        assert set(demos) <= {0, 4}

    def test_of_a_teacher_are_what_it_solves_and_each_example_is_asked_once(self):
        options = {"max_labeled_demos": 0, "num_candidates": 4}
        outcome, server = run(mipro(**options), valset=rows(8, 12))
        shown = {
            message["content"]
            for body in server.requests
            for message in body["messages"][1:-1]
            if message["role"] == "user" and "Output `answer`" in system(body)
        }
        assert shown
        assert shown <= {f"item: row {number}" for number in range(0, 8, 2)}
        assert not [note for note in outcome.notes if "demos" in note]
        bare = [
            question(body) for body in server.requests if len(body["messages"]) == 2 and "Magic" not in system(body)
        ]
        assert max(Counter(text for text in bare if text.startswith("item: ")).values()) == 1

    def test_if_there_are_none_the_outcome_says_so(self):
        outcome, _ = run(mipro(max_labeled_demos=0), trainset=rows(1, 2), valset=rows(8, 12))
        assert any("there are no demos: no example was solved" in note for note in outcome.notes)

    def test_a_teacher_solves_in_the_student_s_place_and_must_be_like_it(self):
        teacher = STUDENT.with_instructions("Magic.")
        _, server = run(mipro(max_labeled_demos=0, max_bootstrapped_demos=8), valset=rows(8, 12), teacher=teacher)
        shown = [message["content"] for body in server.requests for message in body["messages"][1:-1]]
        assert "item: row 1" in shown
        with pytest.raises(TeleprompterError, match="student and teacher differ"):
            run(mipro(), valset=rows(8, 12), teacher=otpy.ChainOfThought("item -> answer"))

    @given(st.integers(0, 30), st.integers(0, 6), st.integers(0, 6), st.integers(0, 99))
    def test_draws_keep_to_their_limits(self, count, bootstrapped, labeled, seed):
        made = draws(Lab(None, None, seed=seed), count, bootstrapped, labeled)
        assert len(made) == (count if bootstrapped or labeled else 0)
        assert [draw.number for draw in made] == list(range(len(made)))
        assert all(draw.bootstrapped <= bootstrapped and draw.labeled == labeled for draw in made)
        assert all(draw.bootstrapped or draw.labeled for draw in made)


class TestTrials:
    def test_are_on_mini_batches_and_what_wins_was_measured_on_all_rows(self):
        options = {"minibatch_size": 3, "minibatch_full_eval_steps": 2, "num_trials": 5, "num_candidates": 4}
        outcome, _ = run(mipro(**options), valset=rows(8, 20))
        sizes = {one.name: len(one.scores.rows) for one in outcome.candidates}
        assert {size for name, size in sizes.items() if name.startswith("trial")} == {3}
        assert {size for name, size in sizes.items() if not name.startswith("trial")} == {12}
        assert {"student", "after trial 2", "after trial 4"} <= set(sizes)
        assert len(outcome.best.scores.rows) == 12
        assert outcome.score == 1.0
        assert outcome.comparison.p_value == outcome.p_values[outcome.best.name] == 3 / 32

    def test_the_journal_names_the_measurement_on_all_rows_for_what_was_tried_on_a_few_before(self, tmp_path):
        options = {"minibatch_size": 3, "minibatch_full_eval_steps": 2, "num_trials": 5, "num_candidates": 4}
        outcome, _ = run(mipro(**options), valset=rows(8, 20), journal=tmp_path / "x.run")
        view = RunView(tmp_path / "x.run")
        assert next(one.name for one in view.candidates if one.program == view.result.program).startswith("trial")
        assert view.measured(view.result).name == outcome.best.name == view.best.name
        assert len(view.measured(view.result).scores) == 12

    def test_of_what_is_known_are_not_made_again(self):
        outcome, server = run(mipro(num_trials=50, max_labeled_demos=0, max_bootstrapped_demos=0), valset=rows(8, 12))
        assert len(outcome.candidates) == 3
        assert len(asked_for(server, "answer")) == 3 * 4

    def test_auto_limits_the_rows_to_choose_by_and_says_so(self):
        teleprompter = MIPROv2(METRIC, max_bootstrapped_demos=0, max_labeled_demos=0, minibatch_size=5)
        outcome, _ = run(teleprompter, valset=rows(8, 130))
        assert len(outcome.best.scores.rows) == 100
        assert "100 of 122 rows of the valset are chosen by" in outcome.notes

    @given(st.lists(st.tuples(st.integers(0, 4), st.sampled_from([0.0, 0.25, 0.5, 1.0]), st.booleans())))
    def test_the_most_promising_is_the_best_of_those_not_measured_in_full(self, found):
        standing = Standing()
        for at, score, whole in found:
            standing.take({"a": at}, score, whole=whole)
        whole = {at for at, _, whole in found if whole}
        partial = {at: [score for one, score, all_ in found if one == at and not all_] for at, *_ in found}
        means = {at: sum(some) / len(some) for at, some in partial.items() if some and at not in whole}
        promising = standing.promising()
        assert (promising is None) == (not means)
        assert promising is None or means[promising["a"]] == pytest.approx(max(means.values()))

    def test_combinations_are_of_the_instructions_and_demos_that_were_proposed(self):
        parts = Parts(STUDENT, {"self": ["Own.", "Other."]}, [{"self": ({"item": "a", "answer": "b"},)}])
        assert parts.combinations == 4
        changed = parts.program({"self: instruction": 1, "self: demos": 1})
        assert (changed.signature.instructions, len(changed.demos)) == ("Other.", 1)
        assert parts.program({"self: instruction": 0, "self: demos": 0}) == STUDENT


class TwoSteps(otpy.Program):
    """Looks a row up, then answers."""

    think: otpy.ChainOfThought = otpy.ChainOfThought("item -> fact")
    say: otpy.Predict = otpy.Predict("fact -> answer")

    async def forward(self, item):
        found = await self.think.acall(item=item)
        return await self.say.acall(fact=found.fact)


def two_steps(body):
    """Half of the rows need the first instruction, half the second."""
    if "Output `fact`" in system(body) and "Output `instruction`" not in system(body):
        number = int(question(body).split()[-1])
        return {
            "reasoning": "so",
            "fact": f"{'known' if number % 2 or 'Magic' in system(body) else 'unknown'} {number}",
        }
    if "Output `answer`" in system(body):
        _, what, number = question(body).split()
        solved = what == "known" and (int(number) % 4 < 2 or "Magic" in system(body))
        return {"answer": "yes" if solved else "no"}
    return script(body)


class TestAProgramOfTwoSteps:
    @pytest.mark.parametrize(
        "teleprompter", [COPRO(METRIC, breadth=3, depth=2), mipro(num_trials=8)], ids=["COPRO", "MIPROv2"]
    )
    def test_is_improved_predictor_by_predictor(self, teleprompter):
        outcome, _ = run(teleprompter, two_steps, TwoSteps(), trainset=rows(0, 8), valset=rows(8, 16))
        assert (outcome.student.score, outcome.score) == (0.25, 1.0)
        assert all("Magic" in one.signature.instructions for _, one in outcome.program.named_predictors())

    def test_is_described_once_by_its_steps_and_its_code(self):
        _, server = run(mipro(num_trials=1), two_steps, TwoSteps(), valset=rows(8, 16))
        (asked,) = asked_for(server, "description")
        assert "think.predict:" in asked
        assert "async def forward(self, item):" in asked
        proposals = asked_for(server, "instruction")
        assert len(proposals) == 2 * 2
        assert all("program: the description" in text for text in proposals)


class TestProposals:
    def test_are_told_of_the_data_the_demos_and_a_style(self):
        options = {"num_candidates": 7, "num_trials": 1, "view_data_batch_size": 3, "max_bootstrapped_demos": 0}
        _, server = run(mipro(**options), valset=rows(8, 12))
        assert len(asked_for(server, "observations")) == 3
        assert len(asked_for(server, "summary")) == 1
        assert asked_for(server, "description") == []
        proposals = asked_for(server, "instruction")
        assert len(proposals) == 6
        assert all("dataset: the summary" in text and '{"item": "row ' in text for text in proposals)
        assert all(sum(tip in text for text in proposals) == 1 for tip in TIPS.values() if tip)

    def test_are_told_nothing_of_what_is_switched_off(self):
        off = dict.fromkeys(("data_aware", "program_aware", "fewshot_aware", "tip_aware"), False)
        _, server = run(mipro(**off, num_trials=1, max_bootstrapped_demos=0), two_steps, TwoSteps(), valset=rows(8, 12))
        assert not asked_for(server, "observations") + asked_for(server, "description")
        for text in asked_for(server, "instruction"):
            assert all(f"{name}: (not told)" in text for name in ("program", "dataset", "examples"))
            assert "style: Freely." in text

    def test_that_come_out_the_same_are_one_and_the_outcome_says_so(self):
        def same(body):
            return {"instruction": "Magic."} if "Output `instruction`" in system(body) else script(body)

        outcome, _ = run(mipro(num_candidates=5), same, valset=rows(8, 12))
        assert "fewer than 5 different instructions were proposed for self" in outcome.notes

    def test_of_copro_are_shown_what_was_tried_with_the_best_last(self):
        teleprompter = COPRO(METRIC, breadth=3, depth=2)
        outcome, server = run(teleprompter, valset=rows(8, 12))
        proposals = asked_for(server, "instruction")
        assert len(proposals) == 2 + 3
        tried = [text.partition("tried:")[2].partition("proposal:")[0].split("\n") for text in proposals[2:]]
        for lines in tried:
            scores = [float(line.partition(" %")[0]) for line in lines if " %: " in line]
            assert scores == [50.0, 100.0, 100.0]
        assert outcome.score == 1.0

    def test_are_asked_of_the_client_that_is_named(self):
        async def main():
            with LoopbackLM(script) as server, LoopbackLM(script) as writer:
                clients = {
                    name: {"model": "openai/x", "base_url": one.url, "api_key": "none"}
                    for name, one in (("default", server), ("writer", writer))
                }
                async with otpy.start(settings={"clients": clients, "cache": {"enabled": False}}):
                    for teleprompter in (COPRO(METRIC, prompt_client="writer", breadth=2, depth=1), None):
                        one = teleprompter or mipro(prompt_client="writer", num_trials=1)
                        await one.acompile(STUDENT, trainset=rows(0, 4), valset=rows(8, 12))
                return server, writer

        server, writer = asyncio.run(main())
        assert not any("Output `answer`" in system(body) for body in writer.requests)
        assert all("Output `answer`" in system(body) for body in server.requests)

    def test_see_no_code_of_programs_that_come_with_otpy(self):
        assert source_of(otpy.ChainOfThought("item -> answer")) == ""
        assert source_of(TwoSteps()).startswith("class TwoSteps")


def test_copro_has_its_first_name_too():
    assert SignatureOptimizer is COPRO


def test_the_seed_is_0_unless_told_and_in_the_journal():
    assert mipro().params()["seed"] == COPRO(METRIC).params()["seed"] == 0
    assert mipro(seed=7).params()["seed"] == 7


def test_without_a_valset_half_of_the_trainset_is_chosen_by():
    outcome, _ = run(COPRO(METRIC, breadth=2, depth=1))
    assert len(outcome.best.scores.rows) == 4


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: COPRO("metric"), "metric='metric'"),
        (lambda: COPRO(METRIC, breadth=1), "breadth=1; allowed: an integer >= 2"),
        (lambda: COPRO(METRIC, depth=0), "depth=0; allowed: an integer >= 1"),
        (lambda: COPRO(METRIC, init_temperature=-1), "init_temperature=-1; allowed: a number >= 0"),
        (lambda: COPRO(METRIC, prompt_client=""), "prompt_client=''; allowed: the name of a client, or None"),
        (lambda: MIPROv2(METRIC, auto="huge"), "auto='huge'; allowed: 'light', 'medium', 'heavy', or None"),
        (lambda: MIPROv2(METRIC, num_trials=3), "auto='light' decides num_candidates and num_trials"),
        (lambda: MIPROv2(METRIC, auto=None, num_trials=3), "auto=None: then say num_candidates and num_trials"),
        (lambda: mipro(num_candidates=1), "num_candidates=1; allowed: an integer >= 2"),
        (lambda: mipro(minibatch_size=0), "minibatch_size=0; allowed: an integer >= 1"),
        (lambda: mipro(parallel_trials=0), "parallel_trials=0; allowed: an integer >= 1"),
        (lambda: mipro(seed=-1), "seed=-1; allowed: an integer >= 0"),
        (lambda: mipro(metric_threshold=float("nan")), "metric_threshold=nan"),
        (lambda: MIPROv2(lambda example: 1), "cannot be called with"),
    ],
)
def test_what_cannot_be_is_refused_by_name(make, message):
    with pytest.raises((TeleprompterError, EvaluationError), match=message):
        make()

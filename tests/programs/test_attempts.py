"""Programs that ask more than once: the best of several attempts, with advice, by comparison; and what must hold."""

from __future__ import annotations

import asyncio
import json
from contextlib import contextmanager

import pytest

import otpy
from otpy.errors import AdapterParseError, ConstraintNotMet, ProgramError
from otpy.testing import FakeProvider, Say


@contextmanager
def model(script, **client):
    with FakeProvider(script) as fake:
        settings = {"model": "acme/m", "base_url": fake.url("openai_chat"), "api_key": "none", **client}
        with otpy.start(settings={"clients": {"default": settings}}):
            yield fake


def answers(*said):
    left = iter(said)
    return lambda _: next(left)


def says(**outputs):
    return json.dumps(outputs)


def length(inputs, prediction):
    """Short answers are good."""
    return -len(prediction.answer)


QA = otpy.Predict("question -> answer")


class TestBestOfN:
    """Several attempts, of which the best counts."""

    def test_the_best_of_all_attempts_is_returned_and_each_is_another_asking(self):
        with model(answers(says(answer="long one"), says(answer="no"), says(answer="medium"))) as fake:
            best = otpy.BestOfN(QA, n=3, reward_fn=length)(question="?")
        assert best.answer == "no"
        assert best.usage.requests == 3
        assert [request.body.get("temperature") for request in fake.requests] == [None, 1.0, 1.0]

    def test_it_stops_at_the_first_that_is_good_enough(self):
        with model(answers(says(answer="long one"), says(answer="no"))) as fake:
            assert otpy.BestOfN(QA, n=9, reward_fn=length, threshold=-2)(question="?").answer == "no"
        assert fake.counts.requests == 2

    def test_models_that_refuse_a_temperature_need_none(self):
        with model(answers(says(answer="a"), says(answer="b"))) as fake:
            otpy.BestOfN(QA, n=2, reward_fn=length, temperature=None)(question="?")
        assert [request.body.get("temperature") for request in fake.requests] == [None, None]

    def test_attempts_that_fail_are_counted_and_the_last_error_is_raised_if_all_do(self):
        program = otpy.Predict("question -> answer", max_reasks=0)
        with model(answers("junk", says(answer="no"), "junk")):
            assert otpy.BestOfN(program, n=3, reward_fn=length)(question="?").answer == "no"
        with model("junk") as fake, pytest.raises(AdapterParseError):
            otpy.BestOfN(program, n=3, reward_fn=length)(question="?")
        assert fake.counts.requests == 3
        with model(answers("junk", says(answer="no"))), pytest.raises(AdapterParseError):
            otpy.BestOfN(program, n=3, reward_fn=length, fail_count=0)(question="?")

    def test_the_reward_may_be_asynchronous_and_has_to_be_a_number(self):
        async def reward(inputs, prediction):
            await asyncio.sleep(0)
            return otpy.Score(0.5, "so so")

        with model(says(answer="no")):
            assert otpy.BestOfN(QA, n=1, reward_fn=reward)(question="?").answer == "no"
            with pytest.raises(ProgramError, match="<lambda> returned 'good'; allowed: a number, a bool or a Score"):
                otpy.BestOfN(QA, n=1, reward_fn=lambda inputs, prediction: "good")(question="?")
            for huge, shown in ((10**400, "1000000"), (10**9_999, "a int that is too large")):
                with pytest.raises(ProgramError, match=f"returned {shown}"):
                    otpy.BestOfN(QA, n=1, reward_fn=lambda inputs, prediction: huge)(question="?")  # noqa: B023

    @pytest.mark.parametrize("kind", [otpy.BestOfN, otpy.Refine])
    def test_a_reward_function_that_raises_is_a_failed_attempt(self, kind):
        def moody(inputs, prediction):
            if prediction.answer == "bad":
                raise ValueError("cannot judge this")
            return 1.0

        advice = [says(advice={})] if kind is otpy.Refine else []
        with model(answers(says(answer="bad"), *advice, says(answer="good"))):
            assert kind(QA, n=2, reward_fn=moody, threshold=1)(question="?").answer == "good"
        with model(says(answer="bad")), pytest.raises(ValueError, match="cannot judge this"):
            kind(QA, n=2, reward_fn=moody, threshold=1, fail_count=0)(question="?")

    def test_only_the_attempt_that_counts_is_in_the_trace_under_the_predictors_own_path(self):
        class Two(otpy.Program):
            best: otpy.BestOfN = otpy.BestOfN(otpy.ChainOfThought("question -> answer"), n=2, reward_fn=length)

            async def forward(self, question):
                return await self.best.acall(question=question)

        program = Two()
        said = (says(reasoning="r", answer="long"), says(reasoning="r", answer="x"))
        with model(answers(*said)), otpy.tracing() as trace:
            program(question="?")
        assert [(entry.path, entry.prediction.answer) for entry in trace] == [("best.program.predict", "x")]
        assert trace[0].predictor is program.best.program.predict

    @pytest.mark.parametrize(
        ("arguments", "why"),
        [
            ({"n": 0}, "n=0; allowed: an integer >= 1"),
            ({"reward_fn": 5}, "reward_fn=5"),
            ({"threshold": "high"}, "threshold='high'"),
            ({"fail_count": 3, "n": 3}, "fail_count=3; allowed: an integer from 0 to n - 1"),
        ],
    )
    def test_what_cannot_be_is_refused_by_name(self, arguments, why):
        with pytest.raises(ProgramError, match=why):
            otpy.BestOfN(QA, **{"reward_fn": length, **arguments})

    def test_it_is_a_value(self):
        assert otpy.BestOfN(QA, reward_fn=length) == otpy.BestOfN(QA, reward_fn=length)
        better = otpy.BestOfN(QA, reward_fn=length).with_instructions("Be brief.")
        assert better.program.signature.instructions == "Be brief."


class TestRefine:
    """Another attempt has advice on the one before."""

    def test_advice_reaches_the_predictor_it_is_for_and_what_is_best_is_returned(self):
        said = answers(
            says(answer="a very long answer"), says(advice={"self": "Be brief.", "other": "x"}), says(answer="no")
        )
        with model(said) as fake:
            refined = otpy.Refine(QA, reward_fn=length, threshold=-3)(question="Why?")
        assert refined.answer == "no"
        advice = fake.requests[1].prompt
        assert "Short answers are good." in advice
        assert "a very long answer" in advice
        assert "Advice from an earlier attempt: Be brief." in fake.requests[2].prompt

    def test_feedback_of_a_score_and_errors_are_told_to_the_adviser(self):
        def reward(inputs, prediction):
            return otpy.Score(0.0, "no rhyme")

        said = answers("junk", says(advice={}), says(answer="a"), says(advice={"self": "Rhyme."}), says(answer="b"))
        with model(said) as fake:
            program = otpy.Predict("question -> answer", max_reasks=0)
            assert otpy.Refine(program, reward_fn=reward, threshold=1.0)(question="?").answer == "a"
        assert "it failed: AdapterParseError" in fake.requests[1].prompt
        assert "no rhyme" in fake.requests[3].prompt
        assert "Advice" not in fake.requests[2].prompt

    def test_an_adviser_that_makes_no_sense_costs_the_advice_and_not_the_call(self):
        said = answers(says(answer="long"), "junk", "junk", says(answer="no"))
        with model(said):
            assert otpy.Refine(QA, n=2, reward_fn=length, threshold=0)(question="?").answer == "no"


class TestMultiChainComparison:
    """Several chains of thought, compared."""

    def test_chains_are_asked_for_and_compared(self):
        def script(request):
            if "Student 1" in request.prompt:
                return says(reasoning="both say so", answer="4")
            return says(reasoning="2 and 2", answer="4")

        with model(script) as fake:
            assert otpy.MultiChainComparison("question -> answer", m=3)(question="2 + 2?").answer == "4"
        assert fake.counts.requests == 4
        assert "Student 3: reasoning: 2 and 2; answer: 4" in fake.requests[-1].prompt

    def test_chains_that_are_there_already_are_not_asked_for(self):
        with model(says(reasoning="r", answer="4")) as fake:
            compare = otpy.MultiChainComparison("question -> answer", m=2)
            assert compare(question="?", completions=[{"answer": "4"}, {"answer": "5"}]).answer == "4"
            with pytest.raises(ProgramError, match="1 completions; allowed: 2"):
                compare(question="?", completions=[{"answer": "4"}])
        assert fake.counts.requests == 1


class TestSeveralAnswers:
    """`n` asks for several answers at once."""

    def test_all_that_will_do_are_the_completions_and_can_be_voted_on(self):
        with model(says(answer="a")) as fake:
            prediction = otpy.Predict("question -> answer", n=3)(question="?")
        assert fake.requests[0].body.get("n") == 3
        assert [one.answer for one in prediction.completions] == ["a", "a", "a"]
        assert prediction.completions[0] is prediction
        assert len(prediction.attempts) == 3
        assert otpy.majority(prediction).answer == "a"

    def test_a_model_that_gives_one_answer_at_a_time_is_asked_as_often(self):
        said = answers(says(answer="a"), says(answer="b"), says(answer="a"))
        with model(said, profile="llama_cpp") as fake:
            prediction = otpy.Predict("question -> answer", n=3)(question="?")
        assert fake.counts.requests == 3
        assert sorted(one.answer for one in prediction.completions) == ["a", "a", "b"]
        assert prediction.usage.requests == 3
        assert otpy.majority(prediction).answer == "a"

    def test_a_temperature_of_zero_is_what_it_says_however_many_answers_are_wanted(self):
        with model(says(answer="a")) as fake:
            otpy.Predict("question -> answer", n=2, temperature=0.0)(question="?")
        assert fake.requests[0].body["temperature"] == 0.0

    def test_answers_that_will_not_do_are_left_out_and_stay_in_the_attempts(self):
        said = answers(says(answer="x"), says(answer=4), says(answer="y"))
        with model(said, profile="llama_cpp"):
            prediction = otpy.Predict("question -> answer: int", n=3)(question="?")
        assert [one.answer for one in prediction.completions] == [4]
        assert len(prediction.attempts) == 3


class TestConstraints:
    """What an answer must be, and should be, beyond its types."""

    BRIEF = otpy.Assert(lambda text: len(text) <= 5, "at most 5 letters", field="answer")
    LOWER = otpy.Suggest(str.islower, "no capitals", field="answer")

    def test_an_answer_that_breaks_one_is_asked_for_again_with_its_message(self):
        program = otpy.Predict("question -> answer", constraints=[self.BRIEF])
        with model(answers(says(answer="far too long"), says(answer="brief"))) as fake:
            assert program(question="?").answer == "brief"
        assert "at most 5 letters" in fake.requests[1].prompt

    def test_in_the_end_it_is_an_error_that_says_what_was_not_met(self):
        program = otpy.Predict("question -> answer", constraints=[self.BRIEF])
        with model(says(answer="far too long")), pytest.raises(ConstraintNotMet, match="at most 5 letters") as caught:
            program(question="?")
        assert len(caught.value.attempts) == 2

    def test_a_suggestion_is_asked_for_and_then_the_best_is_taken_with_what_it_lacks(self):
        program = otpy.Predict("question -> answer", constraints=[self.LOWER])
        with model(answers(says(answer="NO"), says(answer="no"))):
            assert program(question="?").unmet == ()
        with model(answers(says(answer="NO"), says(answer="YES"))):
            prediction = program(question="?")
        assert (prediction.answer, prediction.unmet) == ("NO", ("no capitals",))

    def test_one_over_several_fields_is_given_inputs_and_outputs_and_may_say_what_is_wrong(self):
        def mentioned(row):
            return None if row.question in row.answer else f"mention {row.question}"

        program = otpy.Predict("question -> answer", constraints=[otpy.Assert(mentioned)])
        with model(answers(says(answer="x"), says(answer="of Bonn"))) as fake:
            assert program(question="Bonn").answer == "of Bonn"
        assert "mention Bonn" in fake.requests[1].prompt

    def test_one_that_can_only_get_worse_is_checked_while_the_answer_is_written(self):
        early = otpy.Assert(lambda text: len(text) <= 20, "at most 20 letters", field="answer", early=True)
        long = Say(says(answer="word " * 2_000), drip=0.02)
        with model(answers(long, says(answer="brief"))) as fake:
            prediction = otpy.Predict("question -> answer", constraints=[early])(question="?")
        assert prediction.answer == "brief"
        assert len(prediction.attempts[0]) < 200
        assert fake.counts.requests == 2

    def test_a_check_that_raises_is_the_callers_to_see(self):
        program = otpy.Predict("question -> answer", constraints=[otpy.Assert(lambda row: row.nothing)])
        with model(says(answer="x")), pytest.raises(AttributeError, match="nothing"):
            program(question="?")

    @pytest.mark.parametrize(
        ("constraints", "why"),
        [
            ([otpy.Assert(len, field="nothing")], "no output 'nothing'; the outputs here are answer"),
            (["short"], r"'short'; allowed: Assert\(…\) and Suggest\(…\)"),
            (otpy.Assert(len), "allowed: a list of Assert and Suggest"),
        ],
    )
    def test_what_cannot_be_checked_is_refused_when_the_program_is_made(self, constraints, why):
        with pytest.raises(ProgramError, match=why):
            otpy.Predict("question -> answer", constraints=constraints)
        with pytest.raises(ProgramError, match="early=True needs field="):
            otpy.Assert(len, early=True)

    def test_they_stay_with_copies_and_with_what_is_loaded(self, tmp_path):
        program = otpy.Predict("question -> answer", constraints=[self.BRIEF])
        program.with_config(temperature=0.5).save(tmp_path / "p.json")
        loaded = program.load(tmp_path / "p.json")
        assert (loaded.constraints, loaded.temperature) == ((self.BRIEF,), 0.5)


class TestParallel:
    """Many calls at the same time, each in a task of its own."""

    class Half(otpy.Program):
        async def forward(self, n):
            if n % 2:
                raise ValueError(f"{n} is odd")
            if n < 0:
                await asyncio.sleep(60)
            return otpy.Prediction(half=n // 2)

    def test_results_come_in_the_order_of_the_calls(self):
        with otpy.start(settings={"clients": {}}):
            results = self.Half().batch([{"n": n} for n in range(0, 400, 2)])
        assert [result.half for result in results] == list(range(200))

    def test_failures_are_raised_together_with_what_is_done_or_returned_in_their_place(self):
        rows = [otpy.Example(n=n, label="x").with_inputs("n") for n in range(3)]
        with otpy.start(settings={"clients": {}}):
            with pytest.raises(
                otpy.BatchFailed, match="1 of 3 calls failed, the first is 1: ValueError: 1 is odd"
            ) as caught:
                self.Half().batch(rows)
            results = self.Half().batch(rows, return_exceptions=True)
        assert [getattr(result, "half", None) for result in caught.value.results] == [0, None, 1]
        assert isinstance(results[1], ValueError)

    def test_one_that_hangs_is_ended_at_its_deadline(self):
        with otpy.start(settings={"clients": {}}):
            slow, quick = self.Half().batch([{"n": -2}, {"n": 2}], timeout=1.0, return_exceptions=True)
        assert str(slow) == "the call was ended: timeout"
        assert quick.half == 1

    def test_different_programs_run_together(self):
        async def main():
            async with otpy.start(settings={"clients": {}}):
                return await otpy.Parallel().acall([(self.Half(), {"n": 2}), (self.Half(), {"n": 4})])

        assert [result.half for result in asyncio.run(main())] == [1, 2]

    @pytest.mark.parametrize(
        ("pairs", "why"),
        [([5], "call 0 is 5"), ([(5, {})], "call 0: 5 is no program"), ([(Half(), 5)], "call 0: inputs 5")],
    )
    def test_what_is_no_call_is_refused(self, pairs, why):
        with otpy.start(settings={"clients": {}}), pytest.raises(ProgramError, match=why):
            otpy.Parallel()(pairs)
        with pytest.raises(ProgramError, match="max_concurrency=0"):
            otpy.Parallel(max_concurrency=0)


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: otpy.Predict("q -> a", lm="x"), "Predict has no parameter 'lm'; it is called client here"),
        (lambda: otpy.MultiChainComparison("q -> a", M=5), "MultiChainComparison has no parameter 'M'; it is called m"),
        (lambda: otpy.MultiChainComparison("q -> a", n=5), "n=5; MultiChainComparison has m chains: m=5"),
        (lambda: otpy.BestOfN(QA, N=3, reward_fn=length), "BestOfN has no parameter 'N'; it is called n here"),
        (lambda: otpy.Predict("q -> a", adapter=otpy.ChatAdapter), "adapter=.*; allowed: an Adapter, such as"),
        (lambda: otpy.ReAct("q -> a", length), r"tools=.*; allowed: a list of tools, as in \[length\]"),
    ],
)
def test_what_a_program_does_not_know_is_refused_with_what_it_knows(make, why):
    with pytest.raises(ProgramError, match=why):
        make()


def test_a_check_that_would_have_to_be_awaited_is_refused():
    async def safe(text):
        return True

    with pytest.raises(ProgramError, match="is async; allowed: a plain function"):
        otpy.Assert(safe, field="answer")


@pytest.mark.parametrize(
    ("name", "where"),
    [
        ("Module", "it is `Program` here"),
        ("BudgetExceeded", "it is in otpy.errors"),
        ("Outcome", "it is in otpy.teleprompters$"),
        ("Estimate", "it is in otpy.teleprompters.estimate$"),
        ("Together", "it is in otpy.programs$"),
        ("answer_exact_match", 'otpy.exact_match\\("answer"\\)'),
        ("SemanticF1", "a metric may call a program"),
        ("nothing", "attribute 'nothing'$"),
    ],
)
def test_a_name_that_is_not_at_the_front_door_is_pointed_to(name, where):
    with pytest.raises(AttributeError, match=where):
        getattr(otpy, name)


@pytest.mark.parametrize(
    ("name", "where"),
    [
        ("set_lm", "with_client"),
        ("predictors", "named_predictors"),
        ("candidate_programs", r"outcome_of\(program\)\.candidates"),
        ("detailed_results", r"outcome_of\(program\)"),
        ("nothing", "attribute 'nothing'$"),
    ],
)
def test_what_dspys_programs_have_and_ours_have_not_is_pointed_to(name, where):
    for program in (QA, otpy.ChainOfThought("question -> answer")):
        with pytest.raises(AttributeError, match=f"'{type(program).__name__}' object has no.*{where}"):
            getattr(program, name)
        assert not hasattr(program, name)


def test_a_part_must_not_hide_what_every_program_can_do():
    with pytest.raises(ProgramError, match=r"Hides.save: a part of this name would hide Program.save; rename it"):

        class Hides(otpy.Program):
            save: otpy.Predict = QA

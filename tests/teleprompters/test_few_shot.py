"""LabeledFewShot and BootstrapFewShot find the demos they should, always the same, and lose nothing to a crash."""

import asyncio
import json
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import otpy
from otpy.actors import KILL
from otpy.errors import EvaluationError, LMAuthError, TeleprompterError
from otpy.teleprompters.bootstrap_search import BootstrapSearch, Outcome
from otpy.testing import LoopbackLM, Scripted


class Sort(otpy.Signature):
    """Sort the word."""

    word: str = otpy.InputField()
    kind: Literal["fruit", "tool", "animal"] = otpy.OutputField()


KINDS = {"fruit": "apple pear plum fig lime", "tool": "saw axe file rake", "animal": "cat dog owl bee hen ant"}
TRAIN = [otpy.Example(word=word, kind=kind) for kind, words in KINDS.items() for word in words.split()]
RIGHT = {row.word: row.kind for row in TRAIN}
METRIC = otpy.exact_match("kind")


def word(body):
    return body["messages"][-1]["content"].removeprefix("word: ")


def knows(*known):
    """A model that knows these words, and takes everything else for a fruit."""
    return lambda body: {"kind": RIGHT[word(body)] if word(body) in known else "fruit"}


def compile_(teleprompter, script=None, student=None, trainset=TRAIN, **arguments):
    with LoopbackLM(script or (lambda body: {"kind": RIGHT[word(body)]})) as server:
        client = {"model": "openai/x", "base_url": server.url, "api_key": "none", "retry": {"max_attempts": 1}}
        with otpy.start(settings={"clients": {"default": client}, "cache": {"enabled": False}}):
            better = teleprompter.compile(student or otpy.Predict(Sort), trainset=trainset, **arguments)
        return better, server


def words(program):
    return [demo.word for demo in program.demos]


class TestLabeledFewShot:
    def test_demos_cover_the_labels_evenly_and_cost_no_request(self):
        better, server = compile_(otpy.LabeledFewShot(6))
        kinds = [demo.kind for demo in better.demos]
        assert {kind: kinds.count(kind) for kind in KINDS} == {"fruit": 2, "tool": 2, "animal": 2}
        assert server.requests == []

    def test_the_same_seed_makes_the_same_program_and_another_one_another(self):
        programs = [compile_(otpy.LabeledFewShot(6, seed=seed))[0] for seed in (1, 1, 2)]
        hashes = [program.content_hash() for program in programs]
        assert hashes[0] == hashes[1] != hashes[2]

    def test_there_may_be_fewer_examples_than_wanted(self):
        assert len(compile_(otpy.LabeledFewShot(100))[0].demos) == len(TRAIN)

    def test_the_student_is_not_changed(self):
        student = otpy.Predict(Sort)
        compile_(otpy.LabeledFewShot(3), student=student)
        assert student.demos == ()

    def test_examples_without_the_reasoning_are_shown_as_incomplete_ones(self):
        program, _ = compile_(otpy.LabeledFewShot(3), student=otpy.ChainOfThought(Sort))
        assert [sorted(demo) for demo in program.predict.demos] == [["kind", "word"]] * 3

        def script(body):
            assert sum("incomplete" in message["content"] for message in body["messages"]) == 3
            return {"reasoning": "so", "kind": "fruit"}

        with LoopbackLM(script) as server, otpy.start(lm="openai/x", base_url=server.url, api_key="none", cache=False):
            assert program(word="apple").reasoning == "so"

    def test_examples_without_the_inputs_of_any_predictor_are_refused_and_it_is_said_what_makes_demos(self):
        class Two(otpy.Program):
            one: otpy.Predict = otpy.Predict("word -> note")
            two: otpy.Predict = otpy.Predict("note -> kind")

            async def forward(self, word):
                return await self.two.acall(note=(await self.one.acall(word=word)).note)

        with pytest.raises(TeleprompterError, match=r"inputs and an output.*BootstrapFewShot\(metric\)"):
            compile_(otpy.LabeledFewShot(3), student=Two())


class TestBootstrapFewShot:
    def test_only_what_satisfies_the_metric_becomes_a_demo(self):
        known = ("saw", "axe", "cat", "apple")
        teleprompter = otpy.BootstrapFewShot(METRIC, max_bootstrapped_demos=10, max_labeled_demos=0)
        better, _ = compile_(teleprompter, knows(*known))
        fruits = KINDS["fruit"].split()
        assert sorted(words(better)) == sorted({*known, *fruits})

    @pytest.mark.parametrize("max_concurrency", [1, 3, 8])
    def test_the_result_does_not_depend_on_how_many_are_under_way(self, max_concurrency):
        def build(width):
            return compile_(
                otpy.BootstrapFewShot(METRIC, max_bootstrapped_demos=5, max_concurrency=width),
                knows("saw", "cat", "dog", "rake"),
            )[0]

        assert build(max_concurrency).content_hash() == build(2).content_hash()

    def test_what_is_left_fills_up(self):
        better, _ = compile_(otpy.BootstrapFewShot(METRIC, max_bootstrapped_demos=2, max_labeled_demos=7))
        assert len(better.demos) == 7
        assert len(set(words(better))) == 7

    def test_an_example_is_not_shown_its_own_solution(self):
        _, server = compile_(otpy.BootstrapFewShot(METRIC, max_bootstrapped_demos=3, max_labeled_demos=16))
        for body in server.requests:
            shown = [message["content"] for message in body["messages"][:-1]]
            assert body["messages"][-1]["content"] not in shown
            assert len(shown) > 10  # the others were shown: the teacher is taught

    def test_each_predictor_of_several_gets_the_demos_of_its_own_calls(self):
        class TwoSteps(otpy.Program):
            spell: otpy.Predict = otpy.Predict("word -> letters")
            sort: otpy.Predict = otpy.Predict("letters -> kind")

            async def forward(self, word):
                spelled = await self.spell.acall(word=word)
                return await self.sort.acall(letters=spelled.letters)

        def script(body):
            content = body["messages"][-1]["content"]
            if content.startswith("word: "):
                return {"letters": "-".join(word(body))}
            return {"kind": RIGHT[content.removeprefix("letters: ").replace("-", "")]}

        teleprompter = otpy.BootstrapFewShot(METRIC, max_bootstrapped_demos=2, max_labeled_demos=0)
        better, _ = compile_(teleprompter, script, TwoSteps())
        for spelled, sorted_ in zip(better.spell.demos, better.sort.demos, strict=True):
            assert spelled.letters == "-".join(spelled.word) == sorted_.letters
            assert RIGHT[spelled.word] == sorted_.kind

    def test_a_teacher_may_solve_what_the_student_cannot(self):
        def script(body):
            return {"kind": RIGHT[word(body)]} if "TEACHER" in body["messages"][0]["content"] else {"kind": "fruit"}

        student = otpy.Predict(Sort)
        teleprompter = otpy.BootstrapFewShot(METRIC, max_bootstrapped_demos=15, max_labeled_demos=0)
        better, _ = compile_(teleprompter, script, student, teacher=student.with_instructions("TEACHER"))
        assert {demo.kind for demo in better.demos} == set(KINDS)
        assert better.signature.instructions == "Sort the word."

    def test_later_rounds_ask_again_with_more_temperature(self):
        asked = {}

        def script(body):
            asked.setdefault(word(body), []).append(body.get("temperature"))
            return {"kind": RIGHT[word(body)] if len(asked[word(body)]) == 2 else "fruit"}

        teleprompter = otpy.BootstrapFewShot(METRIC, max_bootstrapped_demos=15, max_labeled_demos=0, max_rounds=2)
        better, _ = compile_(teleprompter, script)
        assert len(better.demos) == 15
        assert {tuple(temperatures) for temperatures in asked.values()} == {(None,), (None, 1.0)}

    def test_nothing_that_satisfies_is_an_error_with_the_best_score(self):
        with pytest.raises(
            TeleprompterError, match=r"no example of 4 satisfied exact_match\('kind'\); the best score was 0"
        ):
            compile_(otpy.BootstrapFewShot(METRIC), knows(), trainset=[row for row in TRAIN if row.kind == "tool"])

    def test_a_metric_that_raises_on_every_example_is_what_is_said(self):
        def broken(example, prediction, trace=None):
            raise KeyError("colour")

        with pytest.raises(
            TeleprompterError, match=r"the metric raised on 4; 4 failed, the last with KeyError: 'colour'"
        ):
            compile_(otpy.BootstrapFewShot(broken), knows(), trainset=TRAIN[:4])

    def test_an_outage_is_raised_and_never_a_program_without_demos(self):
        with pytest.raises(LMAuthError):
            compile_(otpy.BootstrapFewShot(METRIC, max_errors=2), lambda _: Scripted("no", status=401))

    def test_an_outage_that_lets_nothing_through_is_raised_however_few_examples_there_are(self):
        with pytest.raises(LMAuthError):
            compile_(otpy.BootstrapFewShot(METRIC), lambda _: Scripted("no", status=401), trainset=TRAIN[:2])

    def test_a_killed_run_is_restarted_and_ends_in_the_same_program(self):
        teleprompter = otpy.BootstrapFewShot(METRIC, max_bootstrapped_demos=5)
        undisturbed, _ = compile_(teleprompter)
        held = [True]

        def script(body):
            return Scripted({"kind": RIGHT[word(body)]}, hold=held[0])

        with LoopbackLM(script) as server:
            client = {"model": "openai/x", "base_url": server.url, "api_key": "none"}

            async def main():
                async with otpy.start(settings={"clients": {"default": client}, "cache": {"enabled": False}}) as app:
                    compiling = asyncio.ensure_future(teleprompter.acompile(otpy.Predict(Sort), trainset=TRAIN))
                    await asyncio.to_thread(server.wait_for, 5)
                    (run,) = await app.teleprompters.which_children()
                    run.ref.exit(KILL)
                    held[0] = False
                    server.release()
                    better = await compiling
                    assert await app.teleprompters.which_children() == []
                    return better

            better = asyncio.run(main())
        assert better.content_hash() == undisturbed.content_hash()

    def test_a_cancelled_run_leaves_no_process(self):
        with LoopbackLM(lambda _: Scripted(hold=True)) as server:
            client = {"model": "openai/x", "base_url": server.url, "api_key": "none"}

            async def main():
                async with otpy.start(settings={"clients": {"default": client}, "cache": {"enabled": False}}) as app:
                    run = otpy.BootstrapFewShot(METRIC).acompile(otpy.Predict(Sort), trainset=TRAIN)
                    compiling = asyncio.ensure_future(run)
                    await asyncio.to_thread(server.wait_for, 1)
                    compiling.cancel()
                    with pytest.raises(asyncio.CancelledError):
                        await compiling
                    assert await app.teleprompters.which_children() == []
                    assert not app.tasks.process.actor.tasks

            asyncio.run(main())


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: otpy.LabeledFewShot(0), TeleprompterError, "k=0; allowed"),
        (lambda: otpy.BootstrapFewShot(METRIC, max_rounds=0), TeleprompterError, "max_rounds=0"),
        (
            lambda: otpy.BootstrapFewShot(METRIC, max_bootstrapped_demos=0, max_labeled_demos=0),
            TeleprompterError,
            "nothing",
        ),
        (lambda: otpy.BootstrapFewShot(lambda row: 1), EvaluationError, "cannot be called with"),
        (lambda: compile_(otpy.LabeledFewShot(), trainset=[]), TeleprompterError, "trainset is empty"),
        (lambda: compile_(otpy.LabeledFewShot(), valset=TRAIN), TeleprompterError, "does not use a valset"),
        (lambda: compile_(otpy.LabeledFewShot(), student="program"), TeleprompterError, "student='program'"),
        (
            lambda: compile_(otpy.BootstrapFewShot(METRIC), teacher=otpy.ChainOfThought(Sort)),
            TeleprompterError,
            "the student has the predictors self, the teacher predict",
        ),
    ],
)
def test_what_cannot_be_is_refused_by_name(make, error, message):
    with pytest.raises(error, match=message):
        make()


class TestTheSearchItself:
    @settings(max_examples=200, deadline=None)
    @given(
        good=st.lists(st.lists(st.booleans(), min_size=3, max_size=3), min_size=1, max_size=8),
        wanted=st.integers(1, 5),
        rounds=st.integers(1, 3),
        widths=st.lists(st.integers(1, 4), min_size=1, max_size=4),
        data=st.data(),
    )
    def test_the_successes_are_those_of_trying_one_after_the_other(self, good, wanted, rounds, widths, data):
        def run(width_at, pick):
            search = BootstrapSearch(tuple(range(len(good))), wanted, rounds)
            asked = 0
            while trials := search.propose(width_at(asked)):
                for trial in pick(trials):
                    asked += 1
                    success = good[trial.at][trial.round]
                    search = search.record(Outcome(trial, float(success), () if success else None))
            return [outcome.trial for outcome in search.best()], asked

        alone, least = run(lambda _: 1, list)
        together, asked = run(lambda at: widths[at % len(widths)], lambda trials: data.draw(st.permutations(trials)))
        assert together == alone
        assert least <= asked <= least + 4 * max(widths)


def test_the_result_can_be_saved_and_loaded(tmp_path):
    better, _ = compile_(otpy.BootstrapFewShot(METRIC))
    better.save(tmp_path / "better.json")
    assert otpy.Predict(Sort).load(tmp_path / "better.json").content_hash() == better.content_hash()
    assert json.loads((tmp_path / "better.json").read_text())["format"] == 2

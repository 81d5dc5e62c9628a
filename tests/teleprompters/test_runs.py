"""A run loses nothing: not to an outage, not to a kill, and not to somebody else's mistake."""

from __future__ import annotations

import asyncio
import inspect
from collections import Counter
from contextlib import asynccontextmanager
from typing import Literal

import pytest

import otpy
from otpy.actors import KILL
from otpy.errors import (
    ActorDown,
    LMAuthError,
    LMContextWindowExceeded,
    TeleprompterError,
)
from otpy.signatures import Prediction
from otpy.telemetry import bus
from otpy.teleprompters import Teleprompter
from otpy.testing import LoopbackLM, Scripted


class Sort(otpy.Signature):
    """Sort the word."""

    word: str = otpy.InputField()
    kind: Literal["fruit", "tool"] = otpy.OutputField()


KINDS = {"fruit": "apple pear plum fig lime date kiwi", "tool": "saw axe file rake plane drill vice"}
TRAIN = [otpy.Example(word=word, kind=kind) for kind, words in KINDS.items() for word in words.split()]
RIGHT = {row.word: row.kind for row in TRAIN}
METRIC = otpy.exact_match("kind")
STUDENT = otpy.Predict(Sort)
BOOTSTRAP = otpy.BootstrapFewShot(METRIC, max_bootstrapped_demos=5, max_concurrency=4)


def word(body):
    return body["messages"][-1]["content"].removeprefix("word: ")


def right(body):
    return {"kind": RIGHT[word(body)]}


@asynccontextmanager
async def application(server):
    client = {"model": "openai/x", "base_url": server.url, "api_key": "none", "retry": {"max_attempts": 1}}
    settings = {"clients": {"default": client | {"breaker": {"fail_max": 1000}}}, "cache": {"enabled": False}}
    async with otpy.start(settings=settings) as app:
        yield app


def compiled(script, teleprompter=BOOTSTRAP, student=STUDENT, trainset=TRAIN, **arguments):
    async def main():
        with LoopbackLM(script) as server:
            async with application(server) as app:
                try:
                    return await teleprompter.acompile(student, trainset=trainset, **arguments), server
                finally:
                    assert await app.teleprompters.which_children() == []
                    assert not app.tasks.process.actor.tasks
                    assert "restarts" not in app.render()

    return asyncio.run(main())


class TestAnOutage:
    """It is no score, and it costs no example."""

    @pytest.fixture(autouse=True)
    def soon(self, monkeypatch):
        monkeypatch.setattr("otpy.teleprompters.patience.FIRST_WAIT", 0.01)

    @pytest.mark.parametrize("status", [429, 500, 503])
    def test_one_that_passes_ends_in_the_very_same_program(self, status):
        undisturbed, _ = compiled(right)
        refused = Counter()

        def script(body):
            refused[word(body)] += 1
            return Scripted("later", status=status) if refused[word(body)] == 1 else right(body)

        disturbed, server = compiled(script)
        assert any(count == 2 for count in refused.values())
        assert disturbed.content_hash() == undisturbed.content_hash()
        assert len(server.requests) > 5

    def test_one_that_lasts_is_waited_for_and_is_no_error(self):
        undisturbed, _ = compiled(right)
        asked = Counter()

        def script(body):
            asked["all"] += 1
            return Scripted("down", status=503) if asked["all"] <= 40 else right(body)

        disturbed, _ = compiled(script, otpy.BootstrapFewShot(METRIC, max_bootstrapped_demos=5, max_errors=0))
        assert disturbed.content_hash() == undisturbed.content_hash()

    def test_a_wrong_key_is_raised_at_once(self):
        with LoopbackLM(lambda _: Scripted("no", status=401)) as server:

            async def main():
                async with application(server):
                    with pytest.raises(LMAuthError):
                        await BOOTSTRAP.acompile(STUDENT, trainset=TRAIN)

            asyncio.run(main())
            assert len(server.requests) <= 4

    def test_an_example_too_long_for_the_model_costs_that_example_alone(self):
        too_long = {"error": {"message": "too long", "code": "context_length_exceeded"}}

        def script(body):
            import json

            return Scripted("", status=400, body=json.dumps(too_long).encode()) if word(body) == "saw" else right(body)

        reasons = []
        listening = bus.attached("test", lambda _, fields: reasons.append(fields["reason"]), "otpy.teleprompter.trial")
        teleprompter = otpy.BootstrapFewShot(METRIC, max_bootstrapped_demos=13, max_labeled_demos=0)
        with listening:
            better, _ = compiled(script, teleprompter)
        assert {demo.word for demo in better.demos} == set(RIGHT) - {"saw"}
        assert [type(reason) for reason in reasons if reason is not None] in ([], [LMContextWindowExceeded])


class TestAMistake:
    """In the program or the metric: named, and nobody else's trouble."""

    def test_a_metric_that_raises_is_named_and_chained(self):
        def metric(example, prediction, trace=None):
            return example.label == prediction.kind

        with pytest.raises(TeleprompterError, match=r"more errors than max_errors=3 .* has no field 'label'") as caught:
            compiled(right, otpy.BootstrapFewShot(metric, max_errors=3))
        assert isinstance(caught.value.__cause__, AttributeError)

    def test_with_too_few_examples_to_pass_max_errors_it_is_named_all_the_same(self):
        def metric(example, prediction, trace=None):
            return 1 / 0

        with pytest.raises(TeleprompterError, match=r"no example of 3 .* 3 failed, the last with ZeroDivisionError"):
            compiled(right, otpy.BootstrapFewShot(metric), trainset=TRAIN[:3])

    def test_a_few_are_tolerated(self):
        def metric(example, prediction, trace=None):
            return 1 / (example.word != "saw")

        teleprompter = otpy.BootstrapFewShot(metric, max_bootstrapped_demos=13, max_labeled_demos=0)
        better, _ = compiled(right, teleprompter)
        assert {demo.word for demo in better.demos} == set(RIGHT) - {"saw"}

    def test_answers_that_are_no_json_are_no_errors(self):
        teleprompter = otpy.BootstrapFewShot(METRIC, max_errors=0, max_bootstrapped_demos=14, max_labeled_demos=0)
        student = otpy.Predict(Sort, max_reasks=0)
        better, _ = compiled(lambda body: "saw?" if word(body) == "saw" else right(body), teleprompter, student)
        assert {demo.word for demo in better.demos} == set(RIGHT) - {"saw"}

    def test_a_search_that_raises_gives_its_error_to_whoever_asked_and_restarts_nobody(self):
        class Broken(Teleprompter[otpy.Predict]):
            async def search(self, lab, student, trainset, valset, teacher):
                raise KeyError("a bug")

        with pytest.raises(KeyError, match="a bug"):
            compiled(right, Broken())


class TestAKill:
    """The run goes on from its journal, and ends in the same program."""

    def killed(self, kill):
        """Compile; when four examples are answered and four more are asked, kill something."""
        held = [True]
        asked = Counter()

        def script(body):
            asked[word(body)] += 1
            return Scripted(right(body), hold=held[0] and len(asked) > 4)

        async def main():
            with LoopbackLM(script) as server:
                async with application(server) as app:
                    compiling = asyncio.ensure_future(BOOTSTRAP.acompile(STUDENT, trainset=TRAIN))
                    await asyncio.to_thread(server.wait_for, 5)
                    await kill(app)
                    held[0] = False
                    server.release()
                    better = await compiling
                    assert await app.teleprompters.which_children() == []
                    return better

        return asyncio.run(main()), asked

    def test_of_the_run_itself_and_what_was_answered_is_not_asked_again(self):
        async def kill(app):
            (run,) = await app.teleprompters.which_children()
            run.ref.exit(KILL)

        better, asked = self.killed(kill)
        assert better.content_hash() == compiled(right)[0].content_hash()
        assert [count for count in asked.values() if count > 1] == [2] * (len(asked) - 4)

    def test_of_its_supervisor(self):
        async def kill(app):
            app.teleprompters.exit(KILL)

        better, asked = self.killed(kill)
        assert better.content_hash() == compiled(right)[0].content_hash()
        assert max(asked.values()) == 2

    def test_of_the_supervisor_of_tasks(self):
        async def kill(app):
            app.tasks.exit(KILL)

        assert self.killed(kill)[0].content_hash() == compiled(right)[0].content_hash()

    def test_a_run_that_is_stopped_from_outside_says_so(self):
        async def stop(app):
            (run,) = await app.teleprompters.which_children()
            await app.teleprompters.terminate_child(run.ref)

        with pytest.raises(ActorDown, match="shutdown"):
            self.killed(stop)


class TestTeachers:
    def test_one_without_demos_is_given_labelled_ones(self):
        teacher = STUDENT.with_instructions("Be a teacher.")
        _, server = compiled(right, teacher=teacher)
        for body in server.requests:
            assert "Be a teacher." in body["messages"][0]["content"]
            assert len(body["messages"]) == 2 + 2 * (len(TRAIN) - 1)  # all examples but its own

    def test_one_with_demos_keeps_them(self):
        teacher = STUDENT.with_demos(TRAIN[:2])
        _, server = compiled(right, teacher=teacher)
        assert {len(body["messages"]) for body in server.requests} <= {2 + 2 * 1, 2 + 2 * 2}

    def test_a_demo_of_another_example_with_the_same_label_stays(self):
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

        teacher = TwoSteps().with_demos({"sort": [{"letters": "n-u-t", "kind": "fruit"}]})
        _, server = compiled(script, student=TwoSteps(), teacher=teacher)
        sorting = [body for body in server.requests if body["messages"][-1]["content"].startswith("letters: ")]
        assert sorting
        assert all(len(body["messages"]) == 2 + 2 for body in sorting)


def test_rows_of_the_trainset_and_of_the_valset_are_told_apart():
    class Both(Teleprompter[otpy.Predict]):
        uses_valset = True

        def __init__(self):
            self.metric = METRIC

        async def search(self, lab, student, trainset, valset, teacher):
            learned, chosen = [await lab.evaluate(student, list(enumerate(rows))) for rows in (trainset, valset)]
            assert (learned.mean, chosen.mean) == (1.0, 0.0)
            return student

    _, server = compiled(lambda _: {"kind": "fruit"}, Both(), trainset=TRAIN[:7], valset=TRAIN[7:])
    assert len(server.requests) == len(TRAIN)


def test_a_run_can_be_had_from_a_thread_of_another_loop():
    async def elsewhere():
        with pytest.raises(TeleprompterError, match="another event loop"):
            await BOOTSTRAP.acompile(STUDENT, trainset=TRAIN)
        return await asyncio.to_thread(BOOTSTRAP.compile, STUDENT, trainset=TRAIN)

    with LoopbackLM(right) as server:
        client = {"model": "openai/x", "base_url": server.url, "api_key": "none"}
        with otpy.start(settings={"clients": {"default": client}, "cache": {"enabled": False}}):
            assert len(asyncio.run(elsewhere()).demos) == len(TRAIN)


def test_two_runs_at_once_do_not_mix():
    async def main():
        with LoopbackLM(right) as server:
            async with application(server):
                return await asyncio.gather(
                    *(BOOTSTRAP.acompile(STUDENT, trainset=TRAIN[at : at + 7]) for at in (0, 7))
                )

    fruits, tools = asyncio.run(main())
    assert {demo.kind for demo in fruits.demos} == {"fruit"}
    assert {demo.kind for demo in tools.demos} == {"tool"}


class Silent(otpy.Program):
    async def forward(self, word):
        return Prediction(kind="fruit")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"teacher": "me"}, "teacher='me': a program"),
        ({"student": Silent()}, "the student, .*Silent.*, has no predictors"),
        ({"trainset": ["row"]}, "row 1 of the trainset is 'row'"),
        ({"trainset": [{"query": "x"}]}, "row 0 has no 'word'"),
        ({"trainset": [{1: 2}]}, "row 1 of the trainset has a field 1; allowed: names, as texts"),
    ],
)
def test_what_cannot_be_is_refused_by_name(arguments, message):
    with pytest.raises((TeleprompterError, otpy.errors.EvaluationError), match=message):
        compiled(right, **arguments)


OPTIMIZERS = {
    otpy.LabeledFewShot: {},
    otpy.BootstrapFewShot: {"metric": METRIC},
    otpy.BootstrapFewShotWithRandomSearch: {"metric": METRIC},
    otpy.BootstrapFewShotWithOptuna: {"metric": METRIC},
    otpy.KNNFewShot: {},
    otpy.COPRO: {"metric": METRIC},
    otpy.MIPROv2: {"metric": METRIC},
    otpy.SIMBA: {"metric": METRIC},
    otpy.GEPA: {"metric": METRIC, "auto": "light"},
    otpy.InferRules: {"metric": METRIC},
    otpy.BootstrapFinetune: {"metric": METRIC},
    otpy.GRPO: {"metric": METRIC},
    otpy.BetterTogether: {"metric": METRIC, "strategy": "p", "p": otpy.LabeledFewShot(2)},
    otpy.Ensemble: {},
}
WRONG = ["", [], object(), b"x", float("nan"), float("inf")]


@pytest.mark.parametrize("kind", OPTIMIZERS, ids=lambda kind: kind.__name__)
def test_every_argument_of_another_kind_is_refused_by_name(kind):
    given = OPTIMIZERS[kind]
    for name, parameter in inspect.signature(kind).parameters.items():
        default = parameter.default
        if default is inspect.Parameter.empty or callable(default):
            continue
        wrong = [*WRONG, *["no", "false"] * isinstance(default, (int, float)), *[10**400] * isinstance(default, float)]
        others = {"auto": None} if name in {"max_full_evals", "max_metric_calls"} else {}
        if kind is otpy.MIPROv2 and name in {"num_candidates", "num_trials"}:
            others = {"auto": None, "num_candidates": 3, "num_trials": 3}
        for value in wrong:
            with pytest.raises((TeleprompterError, otpy.errors.EvaluationError), match=name):
                raise AssertionError(kind(**{**given, **others, name: value}), name, value)


def test_a_threshold_that_is_no_number_is_refused():
    with pytest.raises(TeleprompterError, match="metric_threshold=nan"):
        otpy.BootstrapFewShot(METRIC, metric_threshold=float("nan"))

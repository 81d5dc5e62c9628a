"""Rows V and X of docs/from-dspy.md: what was verified to go wrong in DSPy 3.4.1, and what happens here.

V were seen when DSPy was run, X were read in its source.
"""

from __future__ import annotations

import asyncio
import copy
import json
import random
import subprocess
import sys
import threading

import pytest

import otpy
from otpy.errors import AdapterParseError, EvaluationAborted, LMAuthError, ProgramError
from otpy.programs.streaming import FieldText
from otpy.testing import FakeProvider, Fault, Say

QA = otpy.Predict("question -> answer", max_reasks=0)
ROWS = [otpy.Example(question=str(n), answer="4").with_inputs("question") for n in range(8)]
EXACT = otpy.exact_match("answer")


def in_a_fresh_interpreter(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_v1_a_failed_row_keeps_its_exception_and_what_was_said(model):
    with model("junk"):
        result = otpy.Evaluate(ROWS[:1], metric=EXACT)(QA)
        (row,) = result.failed
        assert isinstance(row.reason, AdapterParseError)
        assert "junk" in str(otpy.inspect(row))


def test_v2_too_many_failures_abort_and_lose_no_row(model):
    with model({"answer": "4"}, {"answer": "4"}, "junk"), pytest.raises(EvaluationAborted) as raised:
        otpy.Evaluate(ROWS, metric=EXACT, max_failures=1, max_concurrency=1)(QA)
    assert (len(raised.value.result.scored), len(raised.value.result.failed)) == (2, 2)


def test_v3_usage_is_complete_at_any_concurrency(model):
    with model({"answer": "4"}) as (app, _):
        totals = [otpy.Evaluate(ROWS, metric=EXACT, max_concurrency=many)(QA).usage for many in (1, 8)]
        (sums,) = app.spent().values()
    assert totals[0] == totals[1]
    assert totals[0].total_tokens > 0
    assert sums.usage == totals[0] + totals[1]


def test_v4_a_straggler_is_killed_at_its_deadline_and_started_once():
    begun = []

    class Slow(otpy.Program):
        async def forward(self, question):
            begun.append(question)
            await asyncio.sleep(60 if question == "3" else 0)
            return otpy.Prediction(answer="4")

    with otpy.start(settings={"clients": {}}):
        result = otpy.Evaluate(ROWS, metric=EXACT, timeout=1.0)(Slow())
    assert sorted(begun) == [row.question for row in ROWS]
    assert [(row.index, row.reason) for row in result.failed] == [(3, "timeout")]


def test_v5_settings_may_be_changed_by_every_thread(model):
    with model({"answer": "4"}) as (app, _):
        threads = [
            threading.Thread(target=lambda n=n: app.change(clients__default__max_tokens=n)) for n in range(100, 104)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert app.settings.clients["default"].max_tokens in range(100, 104)


def test_v6_config_is_saved_and_fields_are_matched_by_name_in_any_order(tmp_path):
    described = otpy.Signature("a, b -> c").with_updated_field("a", desc="the A").with_updated_field("b", desc="the B")
    config = {"temperature": 0.0, "n": 3, "rollout": 7, "stop": ("END",), "reasoning": "low"}
    otpy.Predict(described, **config).save(tmp_path / "p.json")
    turned = otpy.Predict("b, a -> c").load(tmp_path / "p.json")
    assert {name: field.desc for name, field in turned.signature.input_fields.items()} == {"b": "the B", "a": "the A"}
    assert {name: getattr(turned, name) for name in config} == config


def test_v7_labelled_demos_alone_are_enough():
    bootstrap = otpy.BootstrapFewShot(EXACT, max_bootstrapped_demos=0, max_labeled_demos=2)
    with otpy.start(settings={"clients": {}}):
        assert len(bootstrap.compile(QA, trainset=ROWS).demos) == 2


def test_v8_a_partly_readable_answer_is_a_failure_that_says_what_is_missing(model):
    program = otpy.Predict("question -> answer, why", max_reasks=0)
    with model({"answer": "4"}):
        result = otpy.Evaluate(ROWS[:2], metric=EXACT)(program)
    assert [row.reason.missing for row in result.failed] == [("why",)] * 2


def test_v9_everything_that_is_offered_can_be_made_with_its_defaults():
    assert all(getattr(otpy, name) is not None for name in otpy.__all__)
    assert otpy.BootstrapFewShot(EXACT)
    assert otpy.LabeledFewShot()


def test_v10_nothing_that_can_be_called_lacks_its_async_form():
    for cls in (
        *(otpy.Predict, otpy.ChainOfThought, otpy.ReAct, otpy.BestOfN, otpy.Refine, otpy.MultiChainComparison),
        *(otpy.Retrieve, otpy.RAG, otpy.Parallel, otpy.KNN, otpy.Evaluate),
    ):
        assert asyncio.iscoroutinefunction(cls.acall) or cls is otpy.Predict, cls
    call = QA.acall(question="?")
    assert asyncio.iscoroutine(call)
    call.close()
    assert callable(otpy.Program.abatch)
    assert asyncio.iscoroutinefunction(otpy.BootstrapFewShot.acompile)


def test_v11_importing_changes_nothing_in_the_standard_library():
    in_a_fresh_interpreter(
        "import inspect, json, signal, threading, warnings\n"
        "modules = (inspect, json, signal, threading, warnings)\n"
        "before = [dict(vars(module)) for module in modules]\n"
        "handler = signal.getsignal(signal.SIGINT)\n"
        "import otpy, otpy.teleprompters, otpy.evaluate\n"
        "for name in otpy.__all__: getattr(otpy, name)\n"
        "for module, old in zip(modules, before):\n"
        "    changed = [n for n in old if n != '__warningregistry__' and vars(module)[n] is not old[n]]\n"
        "    changed = [n for n in changed if callable(old[n])]\n"
        "    assert not changed, (module, changed)\n"
        "assert signal.getsignal(signal.SIGINT) is handler\n"
    )


def test_v12_numpy_is_never_needed():
    in_a_fresh_interpreter(
        "import asyncio, sys\n"
        "sys.modules['numpy'] = None\n"
        "import otpy\n"
        "from otpy.retrieval import BM25, Embeddings, FunctionEmbedder\n"
        "embedder = FunctionEmbedder(lambda texts: [[t.count('a') + 1.0, t.count('i')] for t in texts], name='v')\n"
        "rows = [otpy.Example(q=word).with_inputs('q') for word in ('banana', 'kiwi')]\n"
        "assert asyncio.run(otpy.KNN(1, rows, embedder).acall(q='ananas'))[0].q == 'banana'\n"
        "assert asyncio.run(Embeddings(['banana', 'kiwi'], embedder).search('iii', k=1))[0].text == 'kiwi'\n"
        "assert BM25(['a cat', 'a dog']).top('dog', k=1)[0].text == 'a dog'\n"
    )


def test_v13_an_outage_is_never_a_score(model):
    with model(Fault("status", status=503), retry={"max_attempts": 1}):
        result = otpy.Evaluate(ROWS[:2], metric=EXACT, on_failure="exclude")(QA)
        assert not result.scored
        assert {row.where for row in result.failed} == {"program"}
    with model(Fault("status", status=401)), pytest.raises(LMAuthError):
        otpy.BootstrapFewShot(EXACT).compile(QA, trainset=ROWS)


def test_x1_histories_are_one_for_each_application_and_safe_from_threads(model):
    with model({"answer": "4"}) as (app, _):
        threads = [threading.Thread(target=lambda: QA.batch(ROWS)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(app.history()) == 4 * len(ROWS)
    with model({"answer": "4"}) as (app, _):
        assert len(app.history()) == 0


def test_x2_sync_and_async_share_their_cache_and_callers_at_the_same_time_one_request(model):
    with model(Say('{"answer": "4"}', delay=0.2), cache=True) as (app, fake):
        QA.batch([{"question": "?"}] * 20)
        assert app.run(QA.acall(question="?")).answer == QA(question="?").answer
    assert fake.counts.requests == 1


def test_x3_retries_have_jitter():
    from otpy.clients.retry import RetryPolicy
    from otpy.errors import LMTimeout

    assert len({RetryPolicy().delay(3, LMTimeout("late"), random.Random(seed)) for seed in range(20)}) == 20


def test_x4_streams_are_heard_again_and_again_and_never_mix():
    program = otpy.ChainOfThought("question -> answer")

    def script(request):
        number = request.prompt.split()[-1]
        return json.dumps({"reasoning": f"because of {number}", "answer": f"it is {number}"})

    async def heard(number):
        events = [event async for event in program.astream(question=f"which {number}")]
        told = "".join(event.text for event in events if isinstance(event, FieldText) and event.field == "answer")
        return told, events[-1].answer

    async def main(settings):
        async with otpy.start(settings=settings):
            return [await asyncio.gather(*map(heard, range(50))) for _ in range(2)]

    with FakeProvider(script) as fake:
        client = {"model": "acme/m", "base_url": fake.url("openai_chat"), "api_key": "none"}
        rounds = asyncio.run(main({"clients": {"default": client}, "cache": {"enabled": False}}))
    for said in rounds:
        assert said == [(f"it is {number}", f"it is {number}") for number in range(50)]


def test_x5_seed_nought_is_a_seed():
    labels = [otpy.Example(question=str(n), answer=str(n)).with_inputs("question") for n in range(50)]
    with otpy.start(settings={"clients": {}}):
        made = [otpy.LabeledFewShot(4, seed=seed).compile(QA, trainset=labels) for seed in (0, 0, 1, 9)]
    assert made[0] == made[1]
    assert made[0] != made[2]
    assert made[0] != made[3]


def test_x6_code_that_never_ends_is_ended(model):
    pytest.importorskip("pydantic_monty", reason="needs the extra `sandbox`")
    from otpy.programs.program_of_thought import ProgramOfThought
    from otpy.sandboxes import Limits, Monty

    endless = json.dumps({"reasoning": "r", "code": "while True:\n    pass"})
    right = json.dumps({"reasoning": "r", "code": "SUBMIT(n=1)"})
    answers = iter((endless, right))
    program = ProgramOfThought("question -> n: int", sandbox=Monty(limits=Limits(seconds=0.3)))
    with model(lambda _: next(answers)):
        found = program(question="?")
    assert found.n == 1
    assert "Timeout" in found.trajectory[0]["output"]


def test_x7_temperature_nought_is_nought_also_for_several_answers(model):
    with model({"answer": "4"}, temperature=0.9) as (_, fake):
        otpy.Predict("question -> answer", n=3, temperature=0.0)(question="?")
        otpy.Predict("question -> answer", n=3)(question="?")
    assert [request.body["temperature"] for request in fake.requests] == [0.0, 0.9]


def test_x8_programs_do_not_change_so_tasks_may_share_them():
    program = otpy.ChainOfThought("question -> answer", demos=[{"question": "1", "reasoning": "r", "answer": "2"}])
    hashed = program.content_hash()
    for change in (
        lambda: setattr(program, "predict", None),
        lambda: setattr(program.predict, "demos", ()),
        lambda: setattr(program.predict.demos[0], "answer", "3"),
        lambda: delattr(program, "predict"),
    ):
        with pytest.raises((ProgramError, AttributeError)):
            change()
    assert copy.deepcopy(program) == program
    assert program.content_hash() == hashed


def test_x9_a_program_is_sent_to_another_process_without_cloudpickle():
    from otpy.evaluate.parcels import pickled, unpickled

    program = otpy.ChainOfThought("question -> answer: int")
    assert unpickled(pickled(program, "it")) == program

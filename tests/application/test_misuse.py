"""What went wrong in the hands of a hostile tester, and must not again."""

import asyncio
import contextvars
import subprocess
import sys
import threading

import pytest

import otpy
from otpy.errors import ConfigError, NoApplication
from otpy.testing import LoopbackLM

TWICE = """
import otpy
from otpy.testing import LoopbackLM
with LoopbackLM(lambda _: {"answer": "4"}) as server:
    for _ in range(3):
        with otpy.start(lm="openai/x", base_url=server.url, api_key="k", cache=False):
            assert otpy.Predict("question -> answer")(question="?").answer == "4"
print("survived")
"""


@pytest.fixture
def server():
    with LoopbackLM(lambda _: {"answer": "4"}) as running:
        yield running


def started(server, **options):
    return otpy.start(lm="openai/x", base_url=server.url, api_key="k", cache=False, **options)


def rows(count):
    return [otpy.Example(question=str(n), answer="4").with_inputs("question") for n in range(count)]


def test_several_applications_one_after_the_other_in_one_os_process():
    done = subprocess.run([sys.executable, "-c", TWICE], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "survived\n"), done.stderr


class Plain(otpy.Program):
    """A program whose `forward` is a plain method."""

    def forward(self, question):
        if question == "3":
            next(iter(()))
        return otpy.Prediction(answer="4")


def test_a_plain_forward_that_raises_stop_iteration_fails_its_row(server):
    with started(server):
        result = otpy.Evaluate(rows(5), metric=otpy.exact_match("answer"))(Plain())
    (failed,) = result.failed
    assert failed.index == 3
    assert "StopIteration" in str(failed.reason)


def test_a_plain_metric_that_hangs_costs_its_row_and_no_other(server):
    gate = threading.Event()

    def metric(example, prediction, trace=None):
        if example.question == "1":
            gate.wait(30)
        return 1.0

    with started(server):
        result = otpy.Evaluate(rows(5), metric=metric, timeout=2.0)(otpy.Predict("question -> answer"))
        gate.set()
    assert [(row.index, row.reason) for row in result.failed] == [(1, "timeout")]
    assert len(result.scored) == 4


def test_plain_programs_that_hang_take_no_threads_from_those_that_follow(server, monkeypatch):
    monkeypatch.setattr("otpy.application.app.WORKER_THREADS", 2)
    gate = threading.Event()

    class Hanging(otpy.Program):
        def forward(self, question):
            gate.wait(30)

    metric = otpy.exact_match("answer")
    with started(server):
        hung = otpy.Evaluate(rows(2), metric=metric, timeout=0.2)(Hanging())
        assert len(hung.failed) == 2
        fine = otpy.Evaluate(rows(6), metric=metric, timeout=10)(Plain())
        gate.set()
    assert len(fine.scored) == 5


def test_a_block_left_in_another_context_stops_its_tree(server):
    app = started(server)
    contextvars.copy_context().run(app.__enter__)
    assert contextvars.copy_context().run(otpy.Predict("question -> answer"), question="?").answer == "4"
    contextvars.copy_context().run(app.__exit__, None, None, None)
    assert "not running" in repr(app)
    with pytest.raises(NoApplication):
        otpy.Predict("question -> answer")(question="?")


def test_an_async_block_entered_and_left_by_different_tasks(server):
    async def main():
        app = started(server)
        await asyncio.ensure_future(app.__aenter__())
        assert (await otpy.Predict("question -> answer").acall(question="?")).answer == "4"
        await asyncio.ensure_future(app.__aexit__(None, None, None))
        assert "not running" in repr(app)

    asyncio.run(main())


def test_applications_left_in_the_wrong_order_leave_no_dead_one_behind(server):
    first, second = started(server, name="first"), started(server, name="second")
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert otpy.Predict("question -> answer")(question="?").answer == "4"
    second.__exit__(None, None, None)
    with pytest.raises(NoApplication):
        otpy.Predict("question -> answer")(question="?")


def test_methods_outside_of_the_block_say_so(server):
    app = started(server)
    with pytest.raises(NoApplication, match="not running"):
        app.client_status()
    with app:
        assert app.client_status()["requests"] == 0
    with pytest.raises(NoApplication, match="not running"):
        app.client_status()


def test_a_failed_start_can_be_mended_and_entered_again(server, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    app = otpy.start(lm="openai/x", cache=False)
    with pytest.raises(ConfigError, match="OPENAI_API_KEY"):
        app.__enter__()
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    with app:
        assert otpy.Evaluate(rows(1), metric=otpy.exact_match("answer"))(Plain()).score == 1.0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"clients__default__model": "local/smollm2-135m"}, "own server"),
        ({"clients__default__model": "local/smollm2-135m", "clients__default__base_url": None}, "new application"),
        ({"clients__other__model": "openai/y"}, "cannot come or go"),
        ({"budget__tokens": 1000}, "budget cannot change"),
        ({"clients__default__budget__money": 1}, "clients.default.budget cannot change"),
        ({"history": 5}, "history cannot change"),
    ],
)
def test_a_change_that_the_running_tree_could_not_take_over_is_refused(server, change, words):
    with started(server) as app:
        with pytest.raises(ConfigError, match=words):
            app.change(**change)
        assert otpy.Predict("question -> answer")(question="?").answer == "4"


def test_threads_that_call_while_the_application_is_left_all_come_back(server):
    outcomes = []

    def call():
        try:
            while True:
                otpy.Predict("question -> answer")(question="?")
        except Exception as error:  # noqa: BLE001 - whichever
            outcomes.append(type(error).__name__)

    for _ in range(5):
        with started(server):
            threads = [threading.Thread(target=call, daemon=True) for _ in range(8)]
            for thread in threads:
                thread.start()
        for thread in threads:
            thread.join(20)
            assert not thread.is_alive()
    assert set(outcomes) <= {"ActorDown", "NoApplication", "SupervisionError", "NotRegistered"}

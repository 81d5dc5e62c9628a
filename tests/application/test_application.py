"""An application starts whole or not at all, is found by those inside it, and stops whatever state it is in."""

import asyncio
import logging
import signal
import subprocess
import sys
import textwrap
import threading
import time

import pytest

import otpy
from otpy.actors import KILL
from otpy.errors import ActorDown, ConfigError, NoApplication, ProgramError
from otpy.testing import LoopbackLM, Scripted

PROGRAM = otpy.Predict("question -> answer")


def start(server, **arguments):
    return otpy.start(lm="openai/x", base_url=server.url, api_key="none", cache=False, **arguments)


def test_it_runs_inside_its_block_and_nowhere_else():
    with LoopbackLM(lambda _: {"answer": "yes"}) as server:
        app = start(server)
        with pytest.raises(NoApplication, match=r"otpy\.start"):
            PROGRAM(question="q")
        with app:
            assert PROGRAM(question="q").answer == "yes"
            assert "running" in repr(app)
        with pytest.raises(NoApplication):
            PROGRAM(question="q")
        with pytest.raises(ProgramError, match="started already"):
            app.__enter__()


def test_a_thread_of_somebody_elses_finds_the_only_application():
    answers = []
    with LoopbackLM(lambda _: {"answer": "yes"}) as server, start(server):
        thread = threading.Thread(target=lambda: answers.append(PROGRAM(question="q").answer))
        thread.start()
        thread.join()
    assert answers == ["yes"]


def test_with_two_applications_such_a_thread_must_say_which():
    caught = []

    def ask(app):
        try:
            PROGRAM(question="q")
        except NoApplication as error:
            caught.append(error)
        with app.activate():
            caught.append(PROGRAM(question="q").answer)

    with (
        LoopbackLM(lambda _: {"answer": "1"}) as one,
        LoopbackLM(lambda _: {"answer": "2"}) as two,
        start(one, name="one") as first,
        start(two, name="two"),
    ):
        thread = threading.Thread(target=ask, args=(first,))
        thread.start()
        thread.join()
        assert PROGRAM(question="q").answer == "2"  # the innermost block
    assert "'one', 'two'" in str(caught[0])
    assert caught[1] == "1"


def test_it_works_where_an_event_loop_runs_already_as_in_a_notebook():
    with LoopbackLM(lambda _: {"answer": "yes"}) as server:

        async def cell():
            with start(server):
                return PROGRAM(question="q").answer

        assert asyncio.run(cell()) == "yes"


def test_a_start_that_fails_raises_what_failed_and_leaves_nothing_running(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(ConfigError, match="OPENAI_API_KEY"), otpy.start(lm="openai/x"):
        pass
    assert [thread.name for thread in threading.enumerate() if thread.name == "otpy"] == []


def test_leaving_the_block_stops_it_with_requests_under_way():
    with LoopbackLM(lambda _: Scripted(hold=True)) as server:

        async def main():
            async with start(server):
                asking = [asyncio.ensure_future(PROGRAM.acall(question=str(n))) for n in range(10)]
                await asyncio.to_thread(server.wait_for, 10)
            return await asyncio.gather(*asking, return_exceptions=True)

        began = time.monotonic()
        assert {type(error) for error in asyncio.run(main())} == {ActorDown}
        assert time.monotonic() - began < 5


def test_leaving_the_block_after_the_tree_has_died_is_no_error():
    with LoopbackLM(lambda _: {"answer": "yes"}) as server, start(server) as app:
        app._root.exit(KILL)
        with pytest.raises(ActorDown):
            PROGRAM(question="q")


def test_a_hanging_plain_program_costs_its_row_and_not_the_end_of_the_process():
    code = """
        import threading
        import otpy
        from otpy.testing import LoopbackLM

        class Hangs(otpy.Program):
            def forward(self, question):
                threading.Event().wait()

        rows = [otpy.Example(question="q", answer="a")]
        with LoopbackLM() as server:
            with otpy.start(lm="openai/x", base_url=server.url, api_key="none", cache=False):
                result = otpy.Evaluate(rows, metric=otpy.exact_match("answer"), timeout=0.2)(Hangs())
        print(result.failed[0].reason)
    """
    ran = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=30, check=True
    )
    assert ran.stdout == "timeout\n"


def test_many_plain_programs_share_the_threads_there_are():
    class Plain(otpy.Program):
        predict: otpy.Predict = PROGRAM

        def forward(self, question):
            return self.predict(question=question)

    rows = [otpy.Example(question=str(n), answer="yes") for n in range(600)]
    with LoopbackLM(lambda _: {"answer": "yes"}) as server, start(server):
        result = otpy.Evaluate(rows, metric=otpy.exact_match("answer"))(Plain())
    assert result.score == 1.0


def test_the_tree_is_printed_and_read():
    with LoopbackLM() as server, start(server) as app:
        children = ["isolation", "config", "ledger", "clients", "tasks", "teleprompters"]
        assert [child.id for child in app.tree().children] == children
        assert app.render().splitlines()[0].split() == ["Supervisor", "rest_for_one", "up"]
        assert "<pre>" in app._repr_html_()


def test_closing_says_who_blocks_the_event_loop_and_ctrl_c_leaves_without_it(monkeypatch, caplog):
    monkeypatch.setattr("otpy.application.closing.PATIENCE", 0.05)
    monkeypatch.setattr("otpy.actors.node.INTERRUPT_SECONDS", 0.05)
    release, blocked = threading.Event(), threading.Event()

    class Blocks(otpy.Program):
        async def forward(self, number):
            blocked.set()
            release.wait(30)
            return otpy.Prediction(number=number)

    class Impatient(logging.Handler):
        def emit(self, record):
            if "closing waits" in record.getMessage():
                signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)  # whoever reads it

    with caplog.at_level(logging.WARNING, "otpy"):
        app = otpy.start(settings={"clients": {}}).__enter__()
        node, rows = app._node, []
        node.loop.call_soon_threadsafe(lambda: rows.append(node.loop.create_task(Blocks().acall(number=1))))
        assert blocked.wait(10)
        logger, handler = logging.getLogger("otpy"), Impatient()
        logger.addHandler(handler)
        try:
            with pytest.raises(KeyboardInterrupt):
                app.__exit__(None, None, None)
        finally:
            logger.removeHandler(handler)
            release.set()
            node.stop()
    assert "closing waits for code that blocks the event loop" in caplog.text
    assert "release.wait(30)" in caplog.text

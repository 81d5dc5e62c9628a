"""An evaluation outlives its processes: kill them in the middle, and every row is scored, the score the same."""

import os
import signal
import sys
import threading
from pathlib import Path
from typing import Literal

import pytest

import otpy
from otpy.actors import KILL, OsPid
from otpy.clients import models

SERVED = Path(__file__).with_name("served.py")


class Parity(otpy.Signature):
    """Say whether the number is even or odd."""

    question: str = otpy.InputField()
    answer: Literal["even", "odd"] = otpy.OutputField()


ROWS = [
    otpy.Example(question=f"number {n}", answer="odd" if n % 2 else "even").with_inputs("question") for n in range(60)
]
SETTINGS = {
    "clients": {"default": {"model": "local/smollm2-135m", "temperature": 0, "max_tokens": 40, "max_concurrency": 4}},
    "cache": {"enabled": False},
}


@pytest.fixture(params=["loopback", pytest.param("real", marks=pytest.mark.local_model)])
def rows(request, monkeypatch):
    """The rows to evaluate, with their model behind them: a loopback server always, the real one if it is installed."""
    if request.param == "loopback":
        monkeypatch.setattr(models, "server_command", lambda *_, **__: [sys.executable, str(SERVED)])
        return ROWS
    return ROWS[:24]


def evaluate(rows, disturb=None, after=5):
    """Evaluate; after some rows `disturb(app)` is called, on the application's loop."""
    finished = threading.Semaphore(0)
    disturbed = []

    def metric(example, prediction, trace=None):
        finished.release()
        return example.answer == prediction.answer

    with otpy.start(settings=SETTINGS) as app:

        def wait_and_disturb():
            for _ in range(after):
                finished.acquire()
            disturbed.append(app.run(disturb(app)))

        thread = threading.Thread(target=wait_and_disturb)
        if disturb is not None:
            thread.start()
        result = otpy.Evaluate(rows, metric=metric, max_concurrency=8)(otpy.Predict(Parity))
        if disturb is not None:
            thread.join()
        return result, app.render(), disturbed


def same(result, undisturbed):
    assert [row for row in result.rows if isinstance(row, otpy.Failed)] == []
    assert len(result.rows) == len(undisturbed.rows)
    assert [row.prediction.answer for row in result.rows] == [row.prediction.answer for row in undisturbed.rows]
    assert result.score == undisturbed.score


async def kill_9(app):
    """Kill the model's OS process."""
    pid = await app.names.get(("server", "default")).call(OsPid())
    os.kill(pid, signal.SIGKILL)
    return pid


async def crash_the_client(app):
    """Make the client's callback raise."""
    app.names.get(("client", "default")).cast("a message that no callback knows")


async def kill_the_tasks(app):
    """Kill the process that supervises the rows' requests."""
    app.names.get(("workers", "default")).exit(KILL)


@pytest.mark.parametrize("disturb", [kill_9, crash_the_client, kill_the_tasks])
def test_every_row_is_scored_and_the_score_is_the_same(rows, disturb):
    undisturbed, tree, _ = evaluate(rows)
    assert "restarts" not in tree
    result, tree, disturbed = evaluate(rows, disturb)
    assert disturbed, "nothing was killed"
    same(result, undisturbed)
    assert "restarts 1" in tree


def test_the_server_is_killed_three_times_in_one_evaluation(rows):
    undisturbed, _, _ = evaluate(rows)
    killed = []

    async def kill_thrice(app):
        for _ in range(3):
            server = await app.names.wait_for(("server", "default"), 60)
            killed.append(await kill_9(app))
            await server.join(10)

    result, _, _ = evaluate(rows, kill_thrice)
    assert len(set(killed)) == 3
    same(result, undisturbed)


def test_no_os_process_is_left_when_the_block_is_left(rows):
    with otpy.start(settings=SETTINGS) as app:
        pid = app.run(pid_of(app))
        os.kill(pid, 0)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def pid_of(app):
    return await app.names.get(("server", "default")).call(OsPid())

"""A training here survives what may happen to it; the program that trains is a scripted one, which learns nothing."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import otpy
from otpy.errors import ModelNotAvailable, TeleprompterError
from otpy.lm import Message
from otpy.training import Record
from otpy.training.local import LocalTrainer
from otpy.training.program import MAX_RESTARTS, conversation

PROGRAM = Path(__file__).with_name("scripted_trainer.py")
ALONE = Path(__file__).with_name("training_alone.py")
RECORDS = [Record((Message("user", f"{n} + {n}"),), str(2 * n)) for n in range(5)]


class Memory(dict):
    async def put(self, name, value):
        self[name] = value


@pytest.fixture
def log(tmp_path, monkeypatch):
    monkeypatch.setenv("OTPY_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("LOG", str(tmp_path / "log"))
    (tmp_path / "log").touch()
    return tmp_path / "log"


@pytest.fixture
def app(log):
    with otpy.start(lm="openai/nobody", api_key="none", cache=False) as running:
        yield running


def script(monkeypatch, **what):
    monkeypatch.setenv("SCRIPT", json.dumps(what))


def trainer():
    return LocalTrainer("local/smollm2-135m", program=lambda folder: [sys.executable, str(PROGRAM), str(folder)])


def training(records=RECORDS, memory=None, told=lambda _: None, kind="sft", **params):
    return trainer().train(records, kind=kind, params=params, memory=Memory() if memory is None else memory, told=told)


def lines(log, kind):
    return [line for line in log.read_text().splitlines() if line.startswith(kind)]


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def gone(log):
    """Wait until no program of a training is left."""
    pids = [int(line.split()[1]) for line in lines(log, "start")]
    until = time.monotonic() + 20
    while any(map(is_alive, pids)):
        assert time.monotonic() < until, f"still there: {pids}"
        time.sleep(0.01)
    return True


def test_a_training_tells_its_steps_and_its_model_is_named_by_what_it_has_learned(app, log):
    heard = []
    model = app.run(training(told=heard.append))
    assert model.startswith("local/smollm2-135m+")
    steps = [one for one in heard if one.what == "training"]
    assert [one.step for one in steps] == [1, 2, 3, 4, 5, 6]
    assert (steps[-1].steps, steps[-1].figures) == (6, {"loss": 1 / 6})
    assert model != app.run(training(RECORDS[:3]))
    assert gone(log)


def test_the_same_training_again_uses_what_is_there(app, log):
    memory = Memory()
    model = app.run(training(memory=memory))
    assert app.run(training(memory=memory)) == model
    assert app.run(training()) == model
    assert len(lines(log, "start")) == 1
    assert app.run(training(epochs=3)) == model  # another training, though a scripted one learns the same
    assert len(lines(log, "start")) == 2


def test_an_adapter_that_was_removed_is_trained_again(app, log, tmp_path):
    model = app.run(training())
    for file in (tmp_path / "cache" / "adapters").iterdir():
        file.unlink()
    assert app.run(training()) == model
    assert len(lines(log, "start")) == 2


def test_a_program_that_is_killed_goes_on_from_its_checkpoint(app, log, monkeypatch):
    script(monkeypatch, kill_at=4)
    assert app.run(training()).startswith("local/")
    assert len(lines(log, "start")) == 2
    assert lines(log, "step") == [f"step {n}" for n in (1, 2, 3, 4, 4, 5, 6)]


def test_a_program_that_dies_again_and_again_is_given_up_and_nobody_else_falls(app, log, monkeypatch):
    script(monkeypatch, kill_at=1, always=True)
    teleprompters = app.names.get("teleprompters")
    with pytest.raises(TeleprompterError, match=r"died 4 times.*signal 9.*out of memory, say"):
        app.run(training())
    assert len(lines(log, "start")) == MAX_RESTARTS + 1
    assert teleprompters.is_alive()
    assert gone(log)


def test_what_the_program_cannot_do_is_an_error_at_once(app, log, monkeypatch):
    script(monkeypatch, error="a record has 3000 tokens")
    with pytest.raises(TeleprompterError, match="the training has failed: a record has 3000 tokens"):
        app.run(training())
    assert len(lines(log, "start")) == 1
    assert gone(log)


def test_a_program_that_hangs_is_ended(app, log):
    silent = (
        "import os, sys, time; print(f'start {os.getpid()}', file=open(sys.argv[1], 'a'), flush=True); time.sleep(60)"
    )

    async def heard():
        with pytest.raises(TeleprompterError, match=r"said nothing for 0.5 s"):
            async for _ in conversation([sys.executable, "-c", silent, str(log)], quiet=0.5):
                pass

    app.run(heard())
    assert gone(log)


def test_cancelling_ends_the_program(app, log, monkeypatch):
    script(monkeypatch, hang_at=2)

    async def cancelled():
        begun = asyncio.Event()
        task = asyncio.ensure_future(training(told=lambda one: begun.set() if one.step else None))
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    app.run(cancelled())
    assert gone(log)


def test_stopping_the_application_ends_the_program(log, monkeypatch):
    script(monkeypatch, hang_at=2)

    async def main():
        begun = asyncio.Event()
        async with otpy.start(lm="openai/nobody", api_key="none", cache=False):
            task = asyncio.ensure_future(training(told=lambda one: begun.set() if one.step else None))
            await begun.wait()
        with pytest.raises(TeleprompterError):
            await task

    asyncio.run(main())
    assert gone(log)


def test_two_of_the_same_at_once_are_one_training(app, log, monkeypatch):
    script(monkeypatch, pause=0.05)

    async def both():
        return await asyncio.gather(training(), training())

    one, other = app.run(both())
    assert one == other
    assert lines(log, "step") == [f"step {n}" for n in range(1, 7)]


def test_a_killed_application_takes_its_program_along_and_the_same_again_goes_on(log, monkeypatch):
    script(monkeypatch, pause=0.1)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen([sys.executable, str(ALONE), str(PROGRAM)], stdout=subprocess.PIPE, env=environment) as first:
        until = time.monotonic() + 60
        while len(lines(log, "step")) < 3:
            assert time.monotonic() < until
            time.sleep(0.01)
        first.send_signal(signal.SIGKILL)
    assert gone(log)
    done = len(lines(log, "step"))
    script(monkeypatch)
    environment["SCRIPT"] = "{}"
    second = subprocess.run(
        [sys.executable, str(ALONE), str(PROGRAM)], capture_output=True, check=False, env=environment, timeout=60
    )
    assert second.stdout.startswith(b"local/smollm2-135m+"), second.stderr
    again = [int(line.split()[1]) for line in lines(log, "step")][done:]
    assert again[0] >= 3
    assert again[-1] == 6


def test_a_cache_that_cannot_be_written_is_an_error_that_names_it(app, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("OTPY_CACHE_DIR", str(tmp_path / "file"))
    with pytest.raises(TeleprompterError, match=r"file/training.* cannot be written.*OTPY_CACHE_DIR"):
        app.run(training())


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"records": []}, "no records"),
        ({"kind": "dream"}, "kind='dream'"),
        ({"colour": 3}, "no parameter 'colour' of training; there are rank"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_anything_is_started(app, log, arguments, error):
    with pytest.raises(TeleprompterError, match=error):
        app.run(training(**arguments))
    assert not lines(log, "start")


@pytest.mark.parametrize(
    ("model", "kind", "error"),
    [
        ("local/nope", ModelNotAvailable, "unknown local model"),
        ("local/all-minilm-l6-v2", TeleprompterError, "makes vectors"),
        ("local/smollm2-135m+0123456789ab", TeleprompterError, "trained already; train local/smollm2-135m"),
    ],
)
def test_a_model_that_cannot_be_trained_is_refused(model, kind, error):
    with pytest.raises(kind, match=error):
        LocalTrainer(model)


def test_without_the_extra_the_error_says_how_to_get_it(app, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ModelNotAvailable, match=r"needs the extra 'train'.*pip install 'otpy-framework\[train\]'"):
        app.run(LocalTrainer("smollm2-135m").train(RECORDS, kind="sft", params={}, memory=Memory(), told=print))


def test_a_line_that_is_no_json_is_no_news(app):
    code = "print('hm'); print('[1]'); print('{\"a\": 1}')"

    async def heard():
        async with contextlib.aclosing(conversation([sys.executable, "-c", code])) as said:
            return [one.data async for one in said]

    assert app.run(heard()) == [{"a": 1}]

"""BootstrapFinetune with a provider's model: the rows go there, and the program asks what comes back."""

from __future__ import annotations

import asyncio
import json

import pytest

import otpy
from otpy.errors import OtpyError, TeleprompterError
from otpy.teleprompters.bootstrap_finetune import BootstrapFinetune
from otpy.testing.fake_finetuning import FakeFineTuning
from otpy.training.choosing import trainer_for
from otpy.training.provider_job import ProviderTrainer

ROWS = [otpy.Example(number=n, parity="odd" if n % 2 else "even") for n in range(10)]
STUDENT = otpy.Predict("number: int -> parity: Literal['even', 'odd']")


def started(url, model="openai/gpt-x"):
    client = {"model": model, "base_url": url, "api_key": "sk-of-this-test", "timeout": 20}
    return otpy.start(settings={"clients": {"default": client}, "cache": {"enabled": False}})


def test_rows_are_learned_at_the_provider_and_the_same_call_again_learns_nothing(tmp_path):
    fake = FakeFineTuning(stages=("running", "succeeded"), key="sk-of-this-test")
    with fake.serving() as url:
        for _ in range(2):
            with started(url) as app:
                better = BootstrapFinetune(epochs=2).compile(STUDENT, trainset=ROWS, journal=tmp_path / "journal.db")
                assert better.client == "openai/ft:gpt-x:otpy:1"
                settings = app.settings.clients[better.client]
                assert (settings.model, settings.base_url) == ("openai/ft:gpt-x:otpy:1", url)
    assert (len(fake.files), len(fake.jobs)) == (1, 1)
    lines = [json.loads(line)["messages"] for line in fake.files["file-1"].decode().splitlines()]
    assert [message["content"] for message in lines[3]] == [
        *(message.content for message in STUDENT.messages(number=3)),
        '{"parity": "odd"}',
    ]


def test_cancelling_the_run_cancels_the_job(tmp_path):
    fake = FakeFineTuning(stages=("running",) * 500)

    async def main():
        run = BootstrapFinetune().start(STUDENT, trainset=ROWS, journal=tmp_path / "journal.db")
        while "running" not in run.status().doing:
            await asyncio.sleep(0.01)
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run.result()

    with fake.serving() as url, started(url) as app:
        app.run(asyncio.wait_for(main(), 30))
        assert fake.jobs["ftjob-1"]["status"] == "cancelled"


def test_stopping_the_run_cancels_the_job_and_returns_the_student():
    fake = FakeFineTuning(stages=("running",) * 500)

    async def main():
        run = BootstrapFinetune().start(STUDENT, trainset=ROWS)
        while "running" not in run.status().doing:
            await asyncio.sleep(0.01)
        run.stop()
        return await run.result()

    with fake.serving() as url, started(url) as app:
        outcome = app.run(asyncio.wait_for(main(), 30))
        assert (outcome.stopped, outcome.program.client) == ("stopped", "default")
        assert fake.jobs["ftjob-1"]["status"] == "cancelled"


def test_an_application_that_is_left_lets_the_job_go_on(tmp_path):
    fake = FakeFineTuning(stages=("running",) * 500)

    async def main(url):
        async with started(url):
            run = BootstrapFinetune().start(STUDENT, trainset=ROWS, journal=tmp_path / "journal.db")
            while "running" not in run.status().doing:
                await asyncio.sleep(0.01)
        with pytest.raises(OtpyError):
            await run.result()

    with fake.serving() as url:
        asyncio.run(asyncio.wait_for(main(url), 30))
    assert fake.jobs["ftjob-1"]["status"] == "running"


def test_a_server_with_the_same_api_is_named_by_hand():
    with pytest.raises(TeleprompterError, match=r"acme/m.*trainer=ProviderTrainer\('default'\)"):
        trainer_for("default", otpy.start(lm="acme/m", base_url="http://127.0.0.1:9/v1").settings.clients["default"])
    fake = FakeFineTuning(stages=("running", "succeeded"))
    with fake.serving() as url, started(url, "acme/m"):
        trainer = ProviderTrainer("default", suffix="mine")
        better = BootstrapFinetune(trainer=trainer).compile(STUDENT, trainset=ROWS)
    assert better.client == "acme/ft:m:mine:1"

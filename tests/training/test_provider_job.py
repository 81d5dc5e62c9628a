"""Training at a provider: outages are waited for, nothing is made twice, and every end says what it is."""

from __future__ import annotations

import asyncio
import itertools
import json

import httpx
import pytest

import otpy
from otpy.actors import KILL
from otpy.clients.transport import Transport
from otpy.errors import (
    ActorDown,
    ConfigError,
    LMAuthError,
    LMConnectionError,
    LMError,
    LMResponseInvalid,
    TeleprompterError,
)
from otpy.lm import Message
from otpy.testing import run_in_virtual_time
from otpy.testing.fake_finetuning import FakeFineTuning, Trouble
from otpy.training.openai_files import Plan
from otpy.training.provider_job import ProviderTrainer
from otpy.training.records import Record

RECORDS = [Record((Message("user", f"{n} + 1"),), str(n + 1)) for n in range(12)]
JOB = "/fine_tuning/jobs/ftjob-1"
KEY = "sk-secret-of-the-account"


class Facts:
    """A memory, as long as it lives."""

    def __init__(self):
        self.facts = {}
        self.full = False

    def get(self, name):
        return self.facts.get(name)

    async def put(self, name, value):
        await asyncio.sleep(0)
        if self.full:
            raise TeleprompterError("the disk is full")
        self.facts[name] = json.loads(json.dumps(value))


def started(model="openai/gpt-x", **more):
    client = {"model": model, "api_key": KEY, "base_url": "http://fake.example/v1", **more}
    return otpy.start(settings={"clients": {"default": client}, "cache": {"enabled": False}})


def trainer_of(fake):
    """A trainer that reaches the fake through a transport that takes no time."""

    def handler(request):
        headers = {name.lower(): value for name, value in request.headers.items()}
        trouble, status, body = fake.answer(request.method, request.url.raw_path.decode(), headers, request.content)
        if trouble is not None and trouble.refused:
            raise httpx.ConnectError("nobody listens")
        if trouble is not None and trouble.lost:
            raise httpx.ReadError("connection closed early")
        return httpx.Response(status, content=body, headers={} if trouble is None else trouble.headers)

    return ProviderTrainer(connect=lambda _: Transport(httpx.MockTransport(handler)))


def training(fake, memory, told=lambda _: None, kind="sft", records=RECORDS, **params):
    return trainer_of(fake).train(records, kind=kind, params=params, memory=memory, told=told)


def trained(fake, memory=None, **options):
    async def main():
        async with started():
            return await training(fake, memory or Facts(), **options)

    return run_in_virtual_time(main())


def once(trouble, *requests):
    """Trouble with each of these requests, the first time."""
    left = list(requests)

    def script(method, path, number):
        request = f"{method} {path}"
        if request in left:
            left.remove(request)
            return trouble
        return None

    return script


def test_the_records_become_a_file_a_job_and_a_model():
    fake, seen = FakeFineTuning(key=KEY), []
    assert trained(fake, told=seen.append, epochs=3, suffix="sums") == "openai/ft:gpt-x:sums:1"
    (data,) = fake.files.values()
    assert [json.loads(line)["messages"][-1]["content"] for line in data.decode().splitlines()] == [
        str(n + 1) for n in range(12)
    ]
    (job,) = fake.jobs.values()
    assert job["method"] == {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 3}}}
    assert (job["model"], job["suffix"], job["training_file"]) == ("gpt-x", "sums", "file-1")
    assert [progress.what for progress in seen] == [
        "uploading", "validating files", "queued", "running", "running", "succeeded"
    ]  # fmt: skip
    assert (seen[-1].step, seen[-1].steps, seen[-1].figures) == (4, 4, {"train_loss": 0.2})


def test_looks_at_a_job_become_rarer_and_stay_half_a_minute_apart():
    async def main():
        times = []
        fake = FakeFineTuning(stages=("running",) * 200 + ("succeeded",))
        loop = asyncio.get_running_loop()
        fake.trouble = lambda method, path, _: times.append(loop.time()) if path.count("/") == 3 else None
        async with started():
            await training(fake, Facts())
        gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
        assert gaps[0] < 2
        assert gaps[-1] == 30
        assert gaps == sorted(gaps)

    run_in_virtual_time(main())


@pytest.mark.parametrize(
    "trouble",
    [Trouble(503), Trouble(429, headers={"retry-after": "7"}), Trouble(500), Trouble(lost=True), Trouble(refused=True)],
    ids=["503", "429", "500", "lost", "refused"],
)
@pytest.mark.parametrize(
    "request_",
    ["GET /files", "POST /files", *(f"{method} /fine_tuning/jobs" for method in ("GET", "POST")), f"GET {JOB}"],
)
def test_whatever_fails_for_a_moment_is_waited_for_and_nothing_is_made_twice(trouble, request_):
    fake = FakeFineTuning(trouble=once(trouble, request_))
    assert trained(fake) == "openai/ft:gpt-x:otpy:1"
    assert len(fake.files) == len(fake.jobs) == 1


def test_an_outage_of_hours_is_waited_for():
    async def main():
        loop = asyncio.get_running_loop()
        fake = FakeFineTuning(trouble=lambda *_: Trouble(refused=True) if 3 < loop.time() < 9_000 else None)
        async with started():
            assert await training(fake, Facts()) == "openai/ft:gpt-x:otpy:1"
        assert loop.time() > 9_000
        assert len(fake.jobs) == 1

    run_in_virtual_time(main())


def test_somebody_who_was_never_there_is_no_outage():
    fake = FakeFineTuning(trouble=lambda *_: Trouble(refused=True))
    with pytest.raises(LMConnectionError, match=r"http://fake\.example.*base_url right"):
        trained(fake)
    assert len(fake.requests) == 4


def test_answers_that_make_no_sense_are_an_error_after_some_tries():
    with pytest.raises(LMResponseInvalid, match="not a list of files"):
        trained(FakeFineTuning(trouble=lambda *_: Trouble(200, "hello")))


def test_events_that_cannot_be_had_cost_nothing():
    fake = FakeFineTuning(trouble=lambda _, path, __: Trouble(404) if path.endswith("/events") else None)
    assert trained(fake) == "openai/ft:gpt-x:otpy:1"
    assert fake.count(f"GET {JOB}/events") == 1


def test_a_refused_key_is_an_error_at_once_and_is_not_in_it():
    with pytest.raises(LMAuthError) as raised:
        trained(FakeFineTuning(key="another"))
    assert "api_key in the settings" in str(raised.value)
    assert KEY not in f"{raised.value}{raised.value.body}{raised.value!r}"


def test_a_failed_job_says_why_in_the_provider_s_words_and_the_same_call_again_begins_another():
    fake, memory = FakeFineTuning(stages=("queued", "running", "failed")), Facts()
    with pytest.raises(TeleprompterError, match=r"ftjob-1 at fake\.example has failed: the training file has no"):
        trained(fake, memory)
    fake.stages = ("running", "succeeded")
    assert trained(fake, memory) == "openai/ft:gpt-x:otpy:2"
    assert len(fake.files) == 1


def test_a_job_cancelled_by_somebody_else_is_an_error():
    with pytest.raises(TeleprompterError, match=r"ftjob-1 .*was cancelled at the provider, not by this run"):
        trained(FakeFineTuning(stages=("running", "cancelled")))


def test_a_job_that_has_gone_is_an_error_that_names_it():
    fake, memory = FakeFineTuning(), Facts()
    trained(fake, memory)
    fake.jobs.clear()
    with pytest.raises(LMError, match=r"not found .404.*ftjob-1"):
        trained(fake, memory)


def test_the_same_call_again_takes_the_job_that_there_was():
    fake, memory = FakeFineTuning(), Facts()
    assert trained(fake, memory) == trained(fake, memory)
    assert (len(fake.files), len(fake.jobs)) == (1, 1)


def test_what_was_made_and_never_noted_is_found_by_its_mark_on_whatever_page():
    fake = FakeFineTuning()
    trained(fake)
    for n in range(5):
        trained(fake, records=[*RECORDS, Record((Message("user", f"{n}"),), "x")])
    fake.page = 2
    assert trained(fake, Facts()) == "openai/ft:gpt-x:otpy:1"
    assert (len(fake.files), len(fake.jobs)) == (6, 6)


def test_other_records_parameters_or_models_are_other_jobs():
    one, other = Plan("m", b"a", {"epochs": 1}), Plan("m", b"a", {"epochs": 2})
    assert len({one.key, other.key, Plan("m", b"b", {"epochs": 1}).key, Plan("n", b"a", {"epochs": 1}).key}) == 4
    assert one.file_name == other.file_name
    assert Plan("m", b"a", {"epochs": 1, "seed": None}).key == one.key


def cancelled_after(request, fake, memory):
    """Cancel it as soon as such a request has come."""

    async def main():
        async with started():
            task = asyncio.create_task(training(fake, memory))
            while not fake.count(request):
                await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    run_in_virtual_time(main())


def test_cancelling_it_cancels_the_job_at_the_provider_and_the_same_call_again_begins_another():
    fake, memory = FakeFineTuning(stages=("running",) * 9 + ("succeeded",)), Facts()
    cancelled_after(f"GET {JOB}", fake, memory)
    assert fake.jobs["ftjob-1"]["status"] == "cancelled"
    assert trained(fake, memory) == "openai/ft:gpt-x:otpy:2"


def test_a_job_whose_id_was_never_heard_of_is_cancelled_too():
    fake = FakeFineTuning(trouble=once(Trouble(lost=True), "POST /fine_tuning/jobs"))
    cancelled_after("POST /fine_tuning/jobs", fake, Facts())
    assert [job["status"] for job in fake.jobs.values()] == ["cancelled"]


def test_a_job_that_could_not_be_cancelled_is_told_of_and_taken_over_by_the_same_call_again(caplog):
    fake, memory = FakeFineTuning(stages=("running",) * 9 + ("succeeded",)), Facts()
    fake.trouble = lambda _, path, __: Trouble(503) if path.endswith("/cancel") else None
    cancelled_after(f"GET {JOB}", fake, memory)
    assert "ftjob-1 could not be cancelled" in caplog.text
    assert "may go on, and cost money" in caplog.text
    assert trained(fake, memory) == "openai/ft:gpt-x:otpy:1"


def test_a_job_that_ended_before_it_could_be_cancelled_is_no_matter(caplog):
    fake, memory = FakeFineTuning(stages=("running", "succeeded")), Facts()
    fake.trouble = lambda _, path, __: Trouble(400) if path.endswith("/cancel") else None
    cancelled_after(f"GET {JOB}", fake, memory)
    assert not caplog.text
    assert trained(fake, memory) == "openai/ft:gpt-x:otpy:1"


def test_a_disk_that_fills_up_before_the_job_is_noted_is_an_error_and_the_job_is_found_again():
    fake, memory = FakeFineTuning(), Facts()
    fake.trouble = lambda method, path, _: setattr(memory, "full", method == "POST" and "jobs" in path)
    with pytest.raises(TeleprompterError, match="the disk is full"):
        trained(fake, memory)
    memory.full, fake.trouble = False, lambda *_: None
    assert trained(fake, memory) == "openai/ft:gpt-x:otpy:1"


def test_the_process_that_watches_may_be_killed_and_the_job_is_one():
    fake, memory = FakeFineTuning(stages=("running",) * 6 + ("succeeded",)), Facts()

    async def main():
        async with started() as app:
            task = asyncio.create_task(training(fake, memory))
            for looks in (1, 3):
                while fake.count(f"GET {JOB}") < looks:
                    await asyncio.sleep(0.01)
                (watcher,) = [info.ref for info in await app.teleprompters.which_children()]
                watcher.exit(KILL)
            assert await task == "openai/ft:gpt-x:otpy:1"
            assert not await app.teleprompters.which_children()

    run_in_virtual_time(main())
    assert (len(fake.files), len(fake.jobs)) == (1, 1)
    assert not fake.count(f"POST {JOB}/cancel")


def test_an_application_that_is_stopped_leaves_the_job_to_the_next_one():
    fake, memory = FakeFineTuning(stages=("running",) * 6 + ("succeeded",)), Facts()

    async def main():
        async with started():
            task = asyncio.create_task(training(fake, memory))
            while not fake.jobs:
                await asyncio.sleep(0.01)
        with pytest.raises(ActorDown):
            await task

    run_in_virtual_time(main())
    assert fake.jobs["ftjob-1"]["status"] == "running"
    assert trained(fake, memory) == "openai/ft:gpt-x:otpy:1"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"kind": "dpo"}, "kind='dpo'.*'sft'"),
        ({"records": []}, "no records"),
        ({"rank": 8}, "rank=8.*no such parameter; there are epochs, batch_size"),
        ({"epochs": 0}, "epochs=0; allowed: an integer >= 1"),
        ({"seed": -1}, "seed=-1; allowed"),
        ({"learning_rate_multiplier": float("nan")}, "learning_rate_multiplier=nan"),
        ({"suffix": "x" * 65}, "suffix=.*1 to 64"),
    ],
)
def test_what_this_api_cannot_be_told_is_refused_before_anything_is_sent(options, words):
    fake = FakeFineTuning()
    with pytest.raises(TeleprompterError, match=words):
        trained(fake, **options)
    assert not fake.requests


def test_a_client_without_such_an_api_is_refused():
    async def main(**client):
        async with started(**client):
            await ProviderTrainer().train(RECORDS, kind="sft", params={}, memory=Facts(), told=lambda _: None)

    with pytest.raises(ConfigError, match=r"anthropic/claude.*no fine-tuning API"):
        run_in_virtual_time(main(model="anthropic/claude"))

    async def unknown():
        async with started():
            await ProviderTrainer("no").train(RECORDS, kind="sft", params={}, memory=Facts(), told=lambda _: None)

    with pytest.raises(ConfigError, match="no client 'no'; there are 'default'"):
        run_in_virtual_time(unknown())

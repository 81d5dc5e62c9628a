"""Several machines, one budget per minute: kept together at a Redis server, and apart while it is away."""

import asyncio
import contextlib
import json
import logging
import shutil
import signal
import socket
import subprocess
import sys
import time

import pytest

import otpy
from otpy.actors import sys as sys_
from otpy.clients.limiter_storage import Memory, SharedMinute
from otpy.clients.shared_limits import SharedBudget
from otpy.clock import ManualClock
from otpy.errors import ConfigError
from otpy.lm import LMRequest, Message
from otpy.telemetry import bus
from otpy.testing import FakeProvider

MACHINE = """
import asyncio, json, sys, time
import otpy
from otpy.lm import LMRequest, Message

async def main(settings, seconds):
    async with otpy.start(settings=settings, cache=False) as app:
        print("ready", flush=True)
        sys.stdin.readline()
        request, until = LMRequest((Message("user", "one two three"),), max_tokens=5), time.monotonic() + seconds
        async def ask():
            while time.monotonic() < until:
                await app.ask("default", request)
        asking = [asyncio.ensure_future(ask()) for _ in range(20)]
        await asyncio.sleep(seconds)
        print(json.dumps((await app.aclient_status())["shared"]), flush=True)
        for one in asking:
            one.cancel()
        await asyncio.gather(*asking, return_exceptions=True)

asyncio.run(main(json.loads(sys.argv[1]), float(sys.argv[2])))
"""


class Server:
    """A Redis server of our own on a free port, which can be killed and started again."""

    def __init__(self, directory, *options):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.command = ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--save", ""]
        self.command += ["--dir", str(directory), *options]
        self.process = None

    def start(self):
        self.process = subprocess.Popen(self.command, stdout=subprocess.PIPE, text=True)
        for line in self.process.stdout:
            if "eady to accept connections" in line:
                return self
        raise AssertionError("redis-server did not start")

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()

    def url(self, password=""):
        return f"redis://{password and ':' + password + '@'}127.0.0.1:{self.port}/0"


@pytest.fixture
def redis_server(tmp_path):
    pytest.importorskip("redis", reason="the extra `redis` is not installed")
    if shutil.which("redis-server") is None:
        pytest.skip("redis-server is not installed")
    started = []

    def start(*options):
        started.append(Server(tmp_path, *options).start())
        return started[-1]

    yield start
    for server in started:
        if server.process.poll() is None:
            server.process.send_signal(signal.SIGCONT)
            server.kill()


def settings_of(fake, storage, **client):
    return {
        "clients": {
            "default": {
                "model": "acme/m",
                "base_url": fake.url("openai_chat"),
                "api_key": "none",
                "limits_storage": storage,
                "latency_tolerance": None,
                **client,
            }
        }
    }


@contextlib.contextmanager
def machines(number, settings, seconds):
    command = [sys.executable, "-c", MACHINE, json.dumps(settings), str(seconds)]
    with contextlib.ExitStack() as stack:
        started = [
            stack.enter_context(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
            for _ in range(number)
        ]
        for machine in started:
            assert machine.stdout.readline() == "ready\n"
        begun = time.monotonic()
        for machine in started:
            machine.stdin.write("go\n")
            machine.stdin.flush()
        yield begun, started


def test_three_machines_use_one_budget_and_never_more(redis_server):
    """In two seconds forty requests are granted, whoever asks; what is granted is sent a little later."""
    limit, arrived = 1_200, []
    with FakeProvider(lambda asked: arrived.append(time.monotonic()) or "one") as fake:
        settings = settings_of(fake, redis_server().url(), requests_per_minute=limit, tokens_per_minute=4 * limit)
        with machines(3, settings, 4.0) as (begun, started):
            states = [json.loads(machine.stdout.readline()) for machine in started]
    assert {(state["state"], state["clients"]) for state in states} == {("shared", 3)}
    assert sum(at < begun + 2.0 for at in arrived) <= 40
    assert 0.9 * 80 <= sum(at < begun + 4.0 for at in arrived) <= 80


@contextlib.asynccontextmanager
async def application(fake, storage, **client):
    settings = settings_of(fake, storage, **({"requests_per_minute": 6_000} | client))
    async with otpy.start(settings=settings, cache=False) as app:
        yield app


async def ask(app, times=1):
    request = LMRequest((Message("user", "?"),), max_tokens=5)
    return await asyncio.gather(*(app.ask("default", request) for _ in range(times)))


async def becomes(app, state, seconds=8.0):
    until = time.monotonic() + seconds
    while True:
        shared = (await app.aclient_status())["shared"]
        if shared is not None and shared["state"] == state:
            return shared
        assert time.monotonic() < until, shared
        await asyncio.sleep(0.02)


def run(main):
    """Run it, and return the events of the storage."""
    events = []
    with bus.attached("test", lambda event, fields: events.append(fields), prefix="otpy.limits."):
        asyncio.run(asyncio.wait_for(main, 20))
    return events


def test_a_redis_server_that_is_killed_in_the_middle_costs_no_request_and_is_found_again(redis_server, caplog):
    caplog.set_level(logging.WARNING, logger="otpy")
    server = redis_server()

    async def main():
        with FakeProvider("ok") as fake:
            async with application(fake, server.url()) as app:
                await ask(app, 30)
                await becomes(app, "shared")
                server.kill()
                await ask(app, 60)
                assert (await becomes(app, "away"))["clients"] == 1
                server.start()
                await becomes(app, "shared")
                await ask(app, 30)
                assert fake.counts.requests == 120

    events = run(main())
    assert [event["state"] for event in events] == ["away", "shared"]
    assert [record.getMessage() for record in caplog.records if record.name == "otpy"] == [
        (
            "client 'default': the budget shared through Redis cannot be asked: ConnectionError"
            f" (redis://127.0.0.1:{server.port}/0); it goes on with 1/1 of it"
        ),
        f"client 'default': the budget at redis://127.0.0.1:{server.port}/0 is shared again",
    ]


def test_a_server_that_stops_answering_is_away_after_a_moment_and_nobody_waits_for_it(redis_server):
    server = redis_server()

    async def main():
        with FakeProvider("ok") as fake:
            async with application(fake, server.url()) as app:
                await ask(app, 5)
                await becomes(app, "shared")
                server.process.send_signal(signal.SIGSTOP)
                await asyncio.wait_for(ask(app, 60), 5)
                await becomes(app, "away")
                server.process.send_signal(signal.SIGCONT)
                await becomes(app, "shared")

    assert [event["state"] for event in run(main())] == ["away", "shared"]


def test_a_full_server_is_away_too(redis_server):
    server = redis_server("--maxmemory", "1", "--maxmemory-policy", "noeviction")

    async def main():
        with FakeProvider("ok") as fake:
            async with application(fake, server.url()) as app:
                await ask(app)

    (event,) = run(main())
    assert event["state"] == "away"
    assert "OutOfMemory" in str(event["error"])


@pytest.mark.parametrize("wrong", ["the password", "the port", "the name"])
def test_what_cannot_be_reached_is_told_without_its_password_and_a_tenth_is_used(redis_server, wrong, caplog):
    caplog.set_level(logging.WARNING, logger="otpy")
    server = redis_server("--requirepass", "right")
    urls = {
        "the password": server.url("hush"),
        "the port": "redis://:hush@127.0.0.1:1/0",
        "the name": "redis://:hush@no-such-host.invalid/0",
    }

    async def main():
        with FakeProvider("ok") as fake:
            async with application(fake, urls[wrong], requests_per_minute=200) as app:
                asking = [asyncio.ensure_future(ask(app)) for _ in range(50)]
                await asyncio.to_thread(fake.wait_for, lambda counts: counts.requests >= 20)
                await asyncio.sleep(0.3)
                assert fake.counts.requests == 20
                status = await app.aclient_status()
                assert (status["shared"]["state"], status["waiting"]) == ("away", 30)
                for one in asking:
                    one.cancel()
                await asyncio.gather(*asking, return_exceptions=True)

    (event,) = run(main())
    assert event["state"] == "away"
    assert "1/10" in caplog.text
    assert "hush" not in caplog.text + repr(event)


def test_the_right_password_opens_it(redis_server):
    server = redis_server("--requirepass", "right")

    async def main():
        with FakeProvider("ok") as fake:
            async with application(fake, server.url("right")) as app:
                await ask(app)
                await becomes(app, "shared")

    assert run(main()) == []


def test_a_crash_of_the_process_that_fetches_slices_costs_nothing(redis_server):
    server = redis_server()

    async def main():
        with FakeProvider("ok") as fake:
            async with application(fake, server.url()) as app:
                await ask(app, 5)
                for _ in range(2):
                    app.names.whereis(("limits", "default")).exit("kill")
                    await ask(app, 30)
                assert fake.counts.requests == 65

    run(main())


# -- the settings -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("storage", "said"),
    [
        ("https://:hush@example.org", "write it as redis://"),
        ("redis://", "write it as redis://"),
        ("redis://:hush@host:port", "write it as redis://"),
        ("memcached://host", "write it as redis://"),
    ],
)
def test_an_address_that_is_none_is_refused_at_once_and_never_shown(storage, said):
    with FakeProvider("ok") as fake, pytest.raises(ConfigError, match=said) as raised:
        otpy.start(settings=settings_of(fake, storage, requests_per_minute=10))
    assert "hush" not in str(raised.value)


def test_a_storage_without_a_limit_to_share_is_a_mistake():
    with FakeProvider("ok") as fake, pytest.raises(ConfigError, match="there is nothing to share"):
        otpy.start(settings=settings_of(fake, "redis://localhost"))
    with pytest.raises(ConfigError, match="a local model has its own server"):
        otpy.start(
            settings={
                "clients": {
                    "default": {
                        "model": "local/smollm2-135m",
                        "requests_per_minute": 5,
                        "limits_storage": "redis://localhost",
                    }
                }
            }
        )


def test_the_password_is_in_no_settings_and_no_status_and_the_address_cannot_change():
    async def main():
        with FakeProvider("ok") as fake:
            async with application(fake, "redis://:hush@127.0.0.1:1/0") as app:
                await becomes(app, "away")
                status = await sys_.get_status(app.names.whereis(("limits", "default")))
                assert "redis://127.0.0.1:1/0" in repr(status)
                assert "hush" not in repr(status) + repr(app.settings) + repr(await app.aclient_status())
                with pytest.raises(ConfigError, match="limits_storage cannot change") as raised:
                    await app.achange(clients__default__limits_storage="redis://:hush2@127.0.0.1:2/0")
                assert "hush" not in str(raised.value)

    run(main())


# -- a share, without a server ----------------------------------------------------------------------------------------


class Away(Exception):
    """What a storage raises whose server is not there."""


class Switched:
    """A storage that can be switched off."""

    def __init__(self, storage):
        self.storage, self.off = storage, False

    def __getattr__(self, name):
        def asked(*args):
            if self.off:
                raise Away
            return getattr(self.storage, name)(*args)

        return asked


def test_while_the_budget_is_away_everybody_goes_on_with_an_equal_share_and_tells_once():
    clock, told = ManualClock(), []
    storage = Switched(Memory(clock))
    budgets = [
        SharedBudget(SharedMinute("m", storage, (Away,)), SharedMinute.memory("m", clock=clock), told.append)
        for _ in range(3)
    ]
    for _ in range(2):
        for budget in budgets:
            budget.look()
    assert [budget.clients for budget in budgets] == [3, 3, 3]
    storage.off = True
    taken = 0
    for _ in range(600):
        for budget in budgets:
            budget.look()
            taken += budget.take({"requests": (5, 1_200)})[0].get("requests", 0)
        clock.advance(0.1)
    assert 0.9 * 1_200 <= taken <= 1_200
    assert [str(error) for error in told] == 3 * ["the budget shared through Redis cannot be asked: Away"]
    storage.off = False
    for budget in budgets:
        budget.look()
    assert told[3:] == [None, None, None]
    assert not any(budget.away for budget in budgets)


def test_a_budget_that_was_never_reached_is_used_by_a_tenth():
    clock, told = ManualClock(), []
    storage = Switched(Memory(clock))
    storage.off = True
    budget = SharedBudget(SharedMinute("m", storage, (Away,)), SharedMinute.memory("m", clock=clock), told.append)
    assert budget.take({"requests": (50, 200)}) == ({"requests": 20}, {})
    assert budget.take({"requests": (50, 200)}) == ({}, {"requests": pytest.approx(60, abs=0.01)})
    assert len(told) == 1


def test_one_broken_connection_is_no_outage():
    clock, told = ManualClock(), []
    budget = SharedBudget(
        SharedMinute("m", Once(Memory(clock)), (Away,)), SharedMinute.memory("m", clock=clock), told.append
    )
    assert budget.take({"requests": (5, 200)}) == ({"requests": 5}, {})
    assert told == []


class Once(Switched):
    """A storage whose first answer is lost."""

    def __init__(self, storage):
        super().__init__(storage)
        self.lost = False

    def __getattr__(self, name):
        if not self.lost:
            self.lost = self.off = True
            asked = super().__getattr__(name)

            def fails(*args):
                try:
                    return asked(*args)
                finally:
                    self.off = False

            return fails
        return super().__getattr__(name)


def test_another_model_is_another_budget():
    clock = ManualClock()
    shared = SharedMinute.memory("one", clock=clock)
    budget = SharedBudget(shared, SharedMinute.memory("one", clock=clock), print)
    assert budget.take({"requests": (10, 10)}) == ({"requests": 10}, {})
    budget.rename("two")
    assert budget.take({"requests": (10, 10)}) == ({"requests": 10}, {})

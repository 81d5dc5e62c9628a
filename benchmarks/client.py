"""What a request costs of our own CPU: `Predict.acall` through everything, beside the bare transport, in one run.

    python benchmarks/client.py --json

A fake provider in a process of its own answers at once. What is measured is this process's CPU time, not the clock:
for the bare transport (`Transport.post`), for `app.ask` (breaker, limiter, concurrency, budget, ledger, history,
worker), and for `Predict.acall` (signature, adapter and parsing as well), with so many in flight, cache off.

The threads of the transport cost more when the thread that feeds them has more to do in between, so the same is
measured once more without them, over a transport that answers in this process (`alone_*`), and the pure parts by
themselves (`part_*`). For scale: DSPy 3.4.1's own overhead with a dummy model, in its process too, is 307 us a call.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import time
import timeit
from typing import TYPE_CHECKING, Any
from unittest import mock

import otpy
from otpy.actors import new_event_loop
from otpy.clients.book import Book
from otpy.clients.charging import Tariff
from otpy.clients.codec import as_body
from otpy.clients.dialects import codec
from otpy.clients.history import Exchange, History
from otpy.clients.labels import ANYBODY
from otpy.clients.policies import Policies
from otpy.clients.profiles import PROFILES
from otpy.clients.transport import Transport, open_transport
from otpy.config.client_settings import ClientSettings
from otpy.lm import LMRequest, Message

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

SERVER = """
import sys
from otpy.testing import FakeProvider
with FakeProvider('{"answer": "4"}') as fake:
    print(fake.url("openai_chat"), flush=True)
    sys.stdin.read()
"""
ANSWER = json.dumps(
    {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": '{"answer": "4"}'}, "finish_reason": "stop"}
        ],
        "usage": {"prompt_tokens": 10, "completion_tokens": 2, "total_tokens": 12},
    }
).encode()
LIMIT = 100.0
"""Microseconds beyond the bare transport."""


async def cpu_us(one: Callable[[int], Awaitable[Any]], count: int, in_flight: int) -> float:
    """Microseconds of CPU a call, over many with so many in flight."""
    numbers = iter(range(count))

    async def work() -> None:
        for number in numbers:
            await one(number)

    began = time.process_time()
    await asyncio.gather(*(work() for _ in range(in_flight)))
    return (time.process_time() - began) / count * 1e6


class AtOnce(Transport):
    """A transport that answers at the loop's next turn."""

    def __init__(self) -> None:
        """Need nothing."""

    async def post(self, *_: Any) -> tuple[int, dict[str, str], bytes]:
        """Answer."""
        loop = asyncio.get_running_loop()
        turn = loop.create_future()
        loop.call_soon(turn.set_result, None)
        await turn
        return 200, {"content-type": "application/json"}, ANSWER

    async def aclose(self) -> None:
        """Have nothing to close."""


async def alone(count: int, in_flight: int) -> dict[str, float]:
    """Measure without the wire."""
    predict = otpy.Predict("question -> answer")
    settings = {
        "cache": {"enabled": False},
        "clients": {"default": {"model": "acme/m", "base_url": "http://127.0.0.1:1"}},
    }

    async def opened(*_: object) -> Transport:
        return AtOnce()

    with mock.patch("otpy.clients.client.open_for", opened):
        async with otpy.start(settings=settings) as app:

            async def ask(number: int) -> None:
                await app.ask("default", LMRequest((Message("user", f"{number} + 2?"),)))

            async def call(number: int) -> None:
                await predict.acall(question=f"{number} + 2?")

            found: dict[str, float] = {}
            for name, one in (("alone_ask_us", ask), ("alone_predict_us", call)):
                await cpu_us(one, count // 5, in_flight)
                found[name] = await cpu_us(one, count, in_flight)
            return found


def parts() -> dict[str, float]:
    """Measure the pure parts of a request, each over and over by itself."""
    predict = otpy.Predict("question -> answer")
    signature, adapter = predict.signature, predict.adapter
    values = {"question": "3 + 2?"}
    request = LMRequest(predict.messages(**values), adapter.schema(signature))
    dialect, profile, answer = codec("openai_chat"), PROFILES["generic"], codec("openai_chat").decode(ANSWER)
    settings = ClientSettings(model="acme/m", base_url="http://127.0.0.1:1")
    policies, tariff, history = Policies("c", settings, time.monotonic), Tariff("c", settings, Book()), History(1_000)

    def admitted() -> None:
        policies.ended(policies.admit(request), request, answer, None, 1)  # type: ignore[arg-type]

    things: dict[str, Callable[[], Any]] = {
        "question": lambda: adapter.question(signature, signature.validate_inputs(values)),
        "encode": lambda: dialect.encode(request, model="m", profile=profile),
        "decode": lambda: dialect.decode(ANSWER),
        "parse": lambda: adapter.parse(signature, '{"answer": "4"}'),
        "policies": admitted,
        "ledger": lambda: tariff.admit(request, ANYBODY).answered(answer.usage),
        "history": lambda: history.add(Exchange(request, answer, client="c", model="m")),
    }
    return {
        f"part_{name}_us": min(timeit.repeat(one, number=500, repeat=5)) / 500 * 1e6 for name, one in things.items()
    }


async def measure(url: str, count: int, in_flight: int) -> dict[str, float]:
    """Measure the three in turn."""
    predict = otpy.Predict("question -> answer")
    settings = {"cache": {"enabled": False}, "clients": {"default": {"model": "acme/m", "base_url": url}}}
    async with otpy.start(settings=settings) as app:
        transport = open_transport(url)
        headers = (("content-type", "application/json"),)
        body = as_body({"model": "m", "messages": [{"role": "user", "content": "2 + 2?"}]})

        async def bare(_: int) -> None:
            json.loads((await transport.post(f"{url}/chat/completions", headers, body, 30.0))[2])

        async def ask(number: int) -> None:
            await app.ask("default", LMRequest((Message("user", f"{number} + 2?"),)))

        async def call(number: int) -> None:
            await predict.acall(question=f"{number} + 2?")

        found: dict[str, float] = {}
        for name, one in (("transport_us", bare), ("ask_us", ask), ("predict_us", call)):
            await cpu_us(one, count // 5, in_flight)  # connections, and what is made at the first use
            found[name] = await cpu_us(one, count, in_flight)
        await transport.aclose()
        return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="rounds of everything (default: %(default)s)")
    parser.add_argument("--calls", type=int, default=2_000, help="calls a round (default: %(default)s)")
    parser.add_argument("--in-flight", type=int, default=20, help="calls at the same time (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    asked = parser.parse_args()

    rounds: list[dict[str, float]] = []
    with subprocess.Popen(
        [sys.executable, "-c", SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        url = server.stdout.readline().strip()
        for _ in range(asked.rounds):
            with asyncio.Runner(loop_factory=new_event_loop) as runner:
                rounds.append(runner.run(measure(url, asked.calls, asked.in_flight)))
            with asyncio.Runner(loop_factory=new_event_loop) as runner:
                rounds[-1] |= runner.run(alone(asked.calls, asked.in_flight)) | parts()
        server.terminate()
    medians = {name: statistics.median(found[name] for found in rounds) for name in rounds[0]}
    over = statistics.median(found["predict_us"] - found["transport_us"] for found in rounds)
    result = {
        "benchmark": "client",
        "rounds": asked.rounds,
        "calls": asked.calls,
        "in_flight": asked.in_flight,
        **medians,
        "beyond_the_transport_us": over,
        "limit_us": LIMIT,
        "met": over <= LIMIT,
    }
    if asked.json:
        print(json.dumps(result))
        return
    for name, value in result.items():
        print(f"{name:26} {value:,.1f}" if isinstance(value, float) else f"{name:26} {value}")


if __name__ == "__main__":
    main()

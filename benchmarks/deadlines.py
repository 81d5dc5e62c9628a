"""How soon a connection is closed when nobody waits for its answer any more, beside a bare socket in the same run.

    python benchmarks/deadlines.py --json

A fake provider holds every answer and notes when it sees a client leave; both read the same clock. Measured is the time
from a caller's giving up to that moment: of `app.ask`, of `Predict.acall`, of a stream half read, of a hundred callers
at once, and of a bare asyncio connection that is closed (the floor). The bound is 50 ms (asked of the median).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import statistics
import sys
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import otpy
from otpy.actors import new_event_loop
from otpy.lm import LMRequest, Message, TextDelta
from otpy.testing import FakeProvider, Say

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

LIMIT = 50.0
"""Milliseconds."""
AT_ONCE = 100
HELD, DRIPPING = Say("never to be heard", hold=True), Say(" ".join(["word"] * 10_000), drip=0.01)
QUESTION = LMRequest((Message("user", "?"),))


def script(request: Any) -> Say:
    """Hold what is asked whole, and let the others drip."""
    return DRIPPING if request.stream else HELD


async def given_up(asking: asyncio.Future[Any]) -> float:
    """Cancel and wait for it; return when it was cancelled."""
    began = time.monotonic()
    asking.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asking
    return began


async def closed_after(fake: FakeProvider, give_up: Callable[[int], Awaitable[float]], count: int = 1) -> float:
    """Have so many give up, and return the milliseconds until the last was seen to leave."""
    before = fake.counts
    since = await give_up(before.requests + count)
    gone = len(before.departures) + count
    await asyncio.to_thread(fake.wait_for, lambda counts: len(counts.departures) >= gone)
    return (fake.counts.departures[-1].at - since) * 1e3


class Ways:
    """The ways of giving up: each returns when it did, after so many requests have arrived."""

    def __init__(self, fake: FakeProvider, app: otpy.Application) -> None:
        """Ask this provider through this application."""
        self.fake, self.app = fake, app
        self.predict = otpy.Predict("question -> answer")

    async def arrived(self, count: int) -> None:
        """Wait for requests."""
        await asyncio.to_thread(self.fake.wait_for, lambda counts: counts.requests >= count)

    async def ask(self, count: int) -> float:
        """Cancel a request."""
        asking = asyncio.ensure_future(self.app.ask("default", QUESTION))
        await self.arrived(count)
        return await given_up(asking)

    async def predicted(self, count: int) -> float:
        """Cancel a program."""
        asking = asyncio.ensure_future(self.predict.acall(question="?"))
        await self.arrived(count)
        return await given_up(asking)

    async def hundred(self, count: int) -> float:
        """Cancel many requests at once."""
        asking = asyncio.gather(*(self.app.ask("default", QUESTION) for _ in range(AT_ONCE)))
        await self.arrived(count)
        return await given_up(asking)

    async def stream(self, _: int) -> float:
        """Leave a stream half read."""
        async with contextlib.aclosing(self.app.stream(QUESTION)) as events:
            async for event in events:
                if isinstance(event, TextDelta):
                    break
            return time.monotonic()  # before it is closed

    async def bare(self, count: int) -> float:
        """Close a socket."""
        at = urlsplit(self.fake.url("openai_chat"))
        _, writer = await asyncio.open_connection(at.hostname, at.port)
        body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "?"}]})
        head = f"POST {at.path}/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n"
        writer.write((head + body).encode())
        await self.arrived(count)
        since = time.monotonic()
        writer.transport.abort()
        return since


async def measure(runs: int) -> dict[str, list[float]]:
    """Measure each in turn, over and over."""
    with FakeProvider(script) as fake:
        client = {"model": "acme/m", "base_url": fake.url("openai_chat"), "api_key": "none"}
        async with otpy.start(settings={"clients": {"default": client}, "cache": {"enabled": False}}) as app:
            ways = Ways(fake, app)
            each = {
                "bare_socket_ms": (ways.bare, 1),
                "ask_ms": (ways.ask, 1),
                "predict_ms": (ways.predicted, 1),
                "stream_ms": (ways.stream, 1),
                "hundred_ms": (ways.hundred, AT_ONCE),
            }
            found: dict[str, list[float]] = {name: [] for name in each}
            for _ in range(runs):
                for name, (way, count) in each.items():
                    found[name].append(await closed_after(fake, way, count))
            return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=50, help="times each is tried (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    asked = parser.parse_args()
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        found = runner.run(measure(asked.runs))
    result: dict[str, float] = {}
    for name, values in found.items():
        result[name] = statistics.median(values)
        result[name.replace("_ms", "_worst_ms")] = max(values)
    met = all(result[name] < LIMIT for name in found)
    if asked.json:
        print(json.dumps({**{name: round(value, 2) for name, value in result.items()}, "limit_ms": LIMIT, "met": met}))
    else:
        for name, value in result.items():
            print(f"{name:22} {value:8.2f}")
        print(f"the median of each is {'' if met else 'NOT '}below {LIMIT:g} ms")
    sys.exit(not met)


if __name__ == "__main__":
    main()

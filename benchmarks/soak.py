"""A million crashes and restarts under load: nothing leaks, and no call is lost.

    python benchmarks/soak.py --crashes 1000000 --json

Servers under one supervisor are killed, or made to crash in a callback, as fast as they come back, while callers go on
asking them by name. In the end every call has had an answer or `ActorDown`, memory has stayed flat (within 10 % between
the first tenth and the end), and no task, thread, name, registry entry or file descriptor is left.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import logging
import os
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pykka

from otpy.actors import GenServer, Names, names_context, new_event_loop
from otpy.errors import ActorDown, CallTimeout
from otpy.supervisors import ONE_FOR_ONE, Supervisor

SERVERS = 20
CALLERS = 20


class Victim(GenServer):
    """Answers, or crashes."""

    def handle_call(self, request: Any, caller: Any) -> Any:
        """Answer."""
        return request

    def handle_cast(self, message: Any) -> None:
        """Crash."""
        raise RuntimeError(message)


def resident_bytes() -> int:
    """Return the memory this process has now; 0 where the system does not say."""
    status = Path("/proc/self/statm")
    if not status.exists():
        return 0
    return int(status.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def descriptors() -> int:
    """Count open file descriptors; 0 where the system does not say."""
    folder = Path("/proc/self/fd")
    return len(list(folder.iterdir())) if folder.exists() else 0


async def ask(names: Names, outcomes: Counter[str], stop: asyncio.Event) -> None:
    """Ask one server after the other, and count how each call ended."""
    number = 0
    while not stop.is_set():
        number += 1
        victim = names.whereis(number % SERVERS)
        if victim is None:
            await asyncio.sleep(0)
            continue
        try:
            answer = await victim.call(number, 30.0)
        except ActorDown:
            outcomes["down"] += 1
        except CallTimeout:
            outcomes["lost"] += 1
        else:
            outcomes["answered" if answer == number else "wrong"] += 1


async def soak(crashes: int, seconds: float) -> dict[str, Any]:
    """Crash and restart, under load."""
    names = Names()
    names_context.set(names)
    before = (len(asyncio.all_tasks()), threading.active_count(), descriptors(), len(pykka.ActorRegistry.get_all()))
    outcomes: Counter[str] = Counter()
    stop = asyncio.Event()
    specs = [Victim.child_spec(id=number, name=number) for number in range(SERVERS)]
    began, done, first, samples = time.monotonic(), 0, 0, []
    async with Supervisor(specs, strategy=ONE_FOR_ONE, max_restarts=10 * crashes + 10, max_seconds=1e-3) as tree:
        callers = [asyncio.ensure_future(ask(names, outcomes, stop)) for _ in range(CALLERS)]
        while done < crashes and time.monotonic() - began < seconds:
            for number in range(SERVERS):
                victim: Any = names.whereis(number)
                if victim is None:
                    continue
                if number % 2:
                    victim.exit("kill")
                else:
                    victim.cast("soak")
                done += 1
            await tree.settled()
            for _ in range(4):  # time for calls to be answered
                await asyncio.sleep(0)
            if done % (max(crashes // 20, SERVERS) // SERVERS * SERVERS) < SERVERS:
                gc.collect()
                samples.append(resident_bytes())
                first = first or (samples[-1] if done >= crashes / 10 else 0)
        elapsed = time.monotonic() - began
        stop.set()
        await asyncio.gather(*callers)
    await asyncio.sleep(0)
    gc.collect()
    after = (len(asyncio.all_tasks()), threading.active_count(), descriptors(), len(pykka.ActorRegistry.get_all()))
    last = resident_bytes()
    return {
        "crashes": done,
        "seconds": elapsed,
        "crashes_per_second": done / elapsed,
        "calls": dict(outcomes),
        "lost": outcomes["lost"] + outcomes["wrong"],
        "rss_after_a_tenth": first,
        "rss_at_the_end": last,
        "rss_growth": last / first - 1 if first else None,
        "names_left": len(names),
        "left": dict(
            zip(
                ("tasks", "threads", "descriptors", "actors"),
                (b - a for a, b in zip(before, after, strict=True)),
                strict=True,
            )
        ),
    }


def main() -> int:
    """Soak and print; the exit status says whether all held."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--crashes", type=int, default=1_000_000, help="how many (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=600.0, help="give up after so long (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    asked = parser.parse_args()
    logging.disable(logging.CRITICAL)  # a line a crash otherwise
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        result = runner.run(soak(asked.crashes, asked.seconds))
    growth = result["rss_growth"]
    result["held"] = (
        result["lost"] == 0
        and result["names_left"] == 0
        and not any(result["left"].values())
        and (growth is None or growth <= 0.1)
        and result["crashes"] >= asked.crashes
    )
    if asked.json:
        print(json.dumps({"benchmark": "soak", **result}))
    else:
        for name, value in result.items():
            print(f"{name:20} {value}")
    return 0 if result["held"] else 1


if __name__ == "__main__":
    sys.exit(main())

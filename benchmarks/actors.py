"""How fast processes are: calls, casts, starts, restarts, and the memory of one; beside other actor libraries.

    python benchmarks/actors.py --json

Every figure is the median of several rounds in one run, on uvloop. Peers are measured in the same run if they are
installed: pykka always is; `pip install xoscar thespian fauxtp` adds those (casty wants Python 3.12). For scale,
Erlang/OTP 25 on a two-core machine, one scheduler: call 933,000/s, cast 9,700,000/s, start and stop 2.7 us, 2.7 KB a
process, 10,000 children started in 31 ms and stopped in 25 ms, restarted 3.1 us after a kill.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import importlib.util
import json
import logging
import statistics
import sys
import time
import tracemalloc
from typing import TYPE_CHECKING, Any

from otpy.actors import Call, Cast, GenServer, new_event_loop
from otpy.supervisors import ONE_FOR_ONE, DynamicSupervisor, Supervisor

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

TARGETS = {
    "call_per_second": (">=", 250_000),
    "cast_per_second": (">=", 1_500_000),
    "start_stop_us": ("<=", 15.0),
    "idle_process_bytes": ("<=", 1.5 * 1024),
    "ten_thousand_children_seconds": ("<=", 0.5),
    "restart_us": ("<=", 60.0),
}


class Ping(Call[int]):
    """A request."""


class Tell(Cast):
    """A message."""


class Server(GenServer):
    """A server with plain callbacks."""

    def init(self) -> None:
        """Count from 0."""
        self.count = 0

    def handle_call(self, request: Any, caller: Any) -> int:
        """Answer."""
        return self.count

    def handle_cast(self, message: Any) -> None:
        """Count."""
        self.count += 1


async def call(count: int = 20_000) -> float:
    """Calls a second, one after the other, with the default timeout."""
    server, ping = await Server.start(), Ping()
    began = time.perf_counter()
    for _ in range(count):
        await server.call(ping)
    seconds = time.perf_counter() - began
    await server.stop()
    return count / seconds


async def cast(count: int = 100_000) -> float:
    """Casts a second, from the first to the last one handled."""
    server, tell = await Server.start(), Tell()
    began = time.perf_counter()
    for _ in range(count):
        server.cast(tell)
    assert await server.call(Ping()) == count
    seconds = time.perf_counter() - began
    await server.stop()
    return count / seconds


async def start_stop(count: int = 3_000) -> float:
    """Microseconds to start a supervised process and to stop it again."""
    supervisor: Any = await DynamicSupervisor.start()
    spec = Server.child_spec(restart="temporary")
    began = time.perf_counter()
    for _ in range(count):
        await supervisor.terminate_child(await supervisor.start_child(spec))
    seconds = time.perf_counter() - began
    await supervisor.stop()
    return seconds / count * 1e6


async def idle_bytes(count: int = 10_000) -> float:
    """Bytes of an idle process, everything it holds included."""
    gc.collect()
    tracemalloc.start()
    servers = [await Server.start() for _ in range(count)]
    gc.collect()
    size = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    for server in servers:
        server.exit("kill")
    await asyncio.sleep(0)
    return size / count


async def ten_thousand(count: int = 10_000) -> float:
    """Seconds to start a supervisor with 10,000 children and to stop it."""
    specs = [Server.child_spec(id=number) for number in range(count)]
    began = time.perf_counter()
    async with Supervisor(specs, strategy=ONE_FOR_ONE):
        pass
    return time.perf_counter() - began


async def restart(count: int = 2_000) -> float:
    """Microseconds from a kill to the restarted process being registered, the median of all."""
    times: list[float] = []
    spec = Server.child_spec(name="victim")
    async with Supervisor([spec], strategy=ONE_FOR_ONE, max_restarts=count + 1, max_seconds=3600.0) as tree:
        for _ in range(count):
            victim: Any = tree.child("victim")
            began = time.perf_counter()
            victim.exit("kill")
            await tree.settled()
            times.append(time.perf_counter() - began)
            assert tree.child("victim") != victim
    return statistics.median(times) * 1e6


MEASURES: dict[str, Callable[[], Awaitable[float]]] = {
    "call_per_second": call,
    "cast_per_second": cast,
    "start_stop_us": start_stop,
    "idle_process_bytes": idle_bytes,
    "ten_thousand_children_seconds": ten_thousand,
    "restart_us": restart,
}


def pykka_peer() -> dict[str, float]:
    """pykka's ThreadingActor."""
    import pykka

    class Actor(pykka.ThreadingActor):
        def on_receive(self, message: Any) -> Any:
            return message

    count = 3_000
    ref = Actor.start()
    began = time.perf_counter()
    for _ in range(count):
        ref.ask(1)
    asked = count / (time.perf_counter() - began)
    began = time.perf_counter()
    for _ in range(count):
        ref.tell(1)
    ref.ask(1)
    told = count / (time.perf_counter() - began)
    ref.stop()
    began = time.perf_counter()
    for _ in range(300):
        Actor.start().stop()
    return {
        "call_per_second": asked,
        "cast_per_second": told,
        "start_stop_us": (time.perf_counter() - began) / 300 * 1e6,
    }


def xoscar_peer() -> dict[str, float]:
    """xoscar's actors, caller and actor in one pool."""
    import xoscar

    class Actor(xoscar.Actor):  # type: ignore[misc]
        def ask(self, message: Any) -> Any:
            return message

    async def main() -> dict[str, float]:
        pool = await xoscar.create_actor_pool("127.0.0.1", n_process=0)
        async with pool:
            ref = await xoscar.create_actor(Actor, address=pool.external_address, uid="a")
            count = 3_000
            began = time.perf_counter()
            for _ in range(count):
                await ref.ask(1)
            asked = count / (time.perf_counter() - began)
            began = time.perf_counter()
            for number in range(300):
                await xoscar.destroy_actor(
                    await xoscar.create_actor(Actor, address=pool.external_address, uid=str(number))
                )
            return {"call_per_second": asked, "start_stop_us": (time.perf_counter() - began) / 300 * 1e6}

    return asyncio.run(main())


def thespian_peer() -> dict[str, float]:
    """thespian's simple system base, which runs actors in the caller's thread."""
    from thespian.actors import Actor, ActorExitRequest, ActorSystem

    class Echo(Actor):  # type: ignore[misc]
        def receiveMessage(self, message: Any, sender: Any) -> None:  # noqa: N802 - thespian's name
            if not isinstance(message, ActorExitRequest):
                self.send(sender, message)

    system = ActorSystem("simpleSystemBase")
    try:
        actor = system.createActor(Echo)
        count = 3_000
        began = time.perf_counter()
        for _ in range(count):
            system.ask(actor, "x", 1)
        return {"call_per_second": count / (time.perf_counter() - began)}
    finally:
        system.shutdown()


def fauxtp_peer() -> dict[str, float]:
    """fauxtp's GenServer, an OTP-like library over AnyIO, on asyncio."""
    import anyio.lowlevel
    import fauxtp

    class Echo(fauxtp.GenServer):  # type: ignore[misc]
        async def init(self) -> int:
            return 0

        async def handle_call(self, request: Any, from_ref: Any, state: int) -> tuple[int, int]:
            return state, state

        async def handle_cast(self, request: Any, state: int) -> int:
            return state + 1

    async def main() -> dict[str, float]:
        async with anyio.create_task_group() as group:
            handle = await Echo.start_link(task_group=group)
            count = 3_000
            began = time.perf_counter()
            for _ in range(count):
                await fauxtp.call(handle.pid, 1)
            asked = count / (time.perf_counter() - began)
            began = time.perf_counter()
            for _ in range(count):
                await fauxtp.cast(handle.pid, 1)
            assert await fauxtp.call(handle.pid, 1) == count
            told = count / (time.perf_counter() - began)
            handle.cancel_scope.cancel()
            began = time.perf_counter()
            for _ in range(300):
                (await Echo.start_link(task_group=group)).cancel_scope.cancel()
            await anyio.lowlevel.checkpoint()
            stopped = (time.perf_counter() - began) / 300 * 1e6
        return {"call_per_second": asked, "cast_per_second": told, "start_stop_us": stopped}

    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        return runner.run(main())


PEERS = {"pykka": pykka_peer, "xoscar": xoscar_peer, "thespian": thespian_peer, "fauxtp": fauxtp_peer}


def median_of(measure: Callable[[], Awaitable[float]], rounds: int) -> float:
    """Run a measure on fresh loops and return the median."""
    found: list[float] = []
    for _ in range(rounds):
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            gc.collect()
            found.append(runner.run(measure()))
    return statistics.median(found)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each measure (default: %(default)s)")
    parser.add_argument("--no-peers", action="store_true", help="measure only otpy")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    asked = parser.parse_args()
    logging.disable(logging.CRITICAL)  # every kill is a line otherwise

    own = {name: median_of(measure, asked.rounds) for name, measure in MEASURES.items()}
    peers: dict[str, dict[str, float] | str] = {}
    for name, peer in {} if asked.no_peers else PEERS.items():
        if importlib.util.find_spec(name) is None:
            peers[name] = "not installed"
            continue
        peers[name] = peer()
    met = {name: own[name] >= bound if sign == ">=" else own[name] <= bound for name, (sign, bound) in TARGETS.items()}
    result = {
        "benchmark": "actors",
        "python": sys.version.split()[0],
        "loop": "uvloop" if importlib.util.find_spec("uvloop") else "asyncio",
        "rounds": asked.rounds,
        "otpy": own,
        "targets": {name: f"{sign} {bound:g}" for name, (sign, bound) in TARGETS.items()},
        "met": met,
        "peers": peers,
    }
    if asked.json:
        print(json.dumps(result))
        return
    for name, value in own.items():
        sign, bound = TARGETS[name]
        others = "".join(
            f"   {peer} {figures[name]:,.1f}"
            for peer, figures in peers.items()
            if isinstance(figures, dict) and name in figures
        )
        print(f"{name:32} {value:14,.2f}   {sign} {bound:<12,g} {'met' if met[name] else 'NOT MET'}{others}")


if __name__ == "__main__":
    main()

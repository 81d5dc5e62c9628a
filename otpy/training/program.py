"""A training's OS process, supervised: heard line by line, started again if it is killed, ended with who asked.

```
training         rest_for_one, ends with its foreman
├─ foreman       transient   hears what the program says, for whoever asked
└─ program       transient   the port of the OS process
```
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

from otpy.actors import (
    NORMAL,
    SHUTDOWN,
    Down,
    GenServer,
    Port,
    PortExited,
    PortLine,
    Restart,
    SendLine,
    Shutdown,
    Stop,
    current_process,
    monitor,
)
from otpy.clients.running import running
from otpy.errors import ActorDown, CallTimeout, TeleprompterError
from otpy.supervisors import ANY_SIGNIFICANT, REST_FOR_ONE, Supervisor

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping, Sequence

    from otpy.actors import Ref

__all__ = ["MAX_RESTARTS", "Said", "conversation"]

MAX_RESTARTS: Final = 3
"""How often a program that was killed, or crashed, is started again within an hour; it goes on from a checkpoint."""
QUIET: Final = 900.0
"""Seconds without a word after which a program counts as hung."""
_PATIENCE: Final = 5.0
_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Said:
    """A line of the program.

    Args:
        data: The JSON object on it.
        port: Who said it.
    """

    data: Mapping[str, Any]
    port: Ref[Any]

    async def answer(self, data: Mapping[str, Any]) -> None:
        """Write a line to the program; if it has ended meanwhile, its next start asks again.

        Args:
            data: A JSON object.
        """
        with contextlib.suppress(ActorDown, CallTimeout, OSError):
            await self.port.call(SendLine(json.dumps(data)), None)


@dataclass(frozen=True, slots=True)
class _Ended:
    reason: Any


class _Foreman(GenServer):
    """Hears a program, through its restarts, and ends with whoever asked for it."""

    def init(self, queue: asyncio.Queue[Any], asker: Ref[Any] | None) -> None:
        self.queue, self.asker = queue, asker
        self.ports: set[Ref[Any]] = set()
        if asker is not None:
            monitor(asker)

    def handle_info(self, message: Any) -> Stop | None:
        match message:
            case PortLine(port, line):
                if port not in self.ports:
                    self.ports.add(port)
                    monitor(port)
                with contextlib.suppress(ValueError):
                    data: Any = json.loads(line)
                    if isinstance(data, dict):
                        self.queue.put_nowait(Said(cast("dict[str, Any]", data), port))
            case Down() if message.process == self.asker:
                return Stop(NORMAL)
            case Down():
                self.queue.put_nowait(_Ended(message.reason))
            case _:
                pass
        return None


async def conversation(
    command: Sequence[str], *, quiet: float = QUIET, env: Mapping[str, str] | None = None
) -> AsyncGenerator[Said]:
    """Run a program under the application's `teleprompters`, and yield what it says, JSON objects a line each.

    It is ended when this is closed, or the calling process ends. Killed, it is started again, up to `MAX_RESTARTS`
    times an hour. When it ends in order, with exit status 0, this does too.

    Args:
        command: The program and its arguments.
        quiet: Seconds without a word after which it counts as hung.
        env: Its environment; ours by default.

    Raises:
        TeleprompterError: If it dies again and again, or hangs; its last words are in the message.
        NoApplication: If no application is running.
    """
    queue: asyncio.Queue[Any] = asyncio.Queue()
    number = next(_numbers)
    asker = current_process()
    name = ("training", number)
    children = [
        _Foreman.child_spec(
            queue, None if asker is None else asker.ref, id="foreman", name=name, restart=Restart.TRANSIENT,
            significant=True,
        ),
        Port.child_spec(list(command), env=env, owner=name, id="program", restart=Restart.TRANSIENT, max_line=1 << 24),
    ]  # fmt: skip
    spec = Supervisor.child_spec(
        children,
        id=name,
        strategy=REST_FOR_ONE,
        auto_shutdown=ANY_SIGNIFICANT,
        max_restarts=MAX_RESTARTS,
        max_seconds=3_600.0,
        restart=Restart.TEMPORARY,
    )
    tree = await running().teleprompters.start_child(spec)
    assert tree is not None
    last: Any = None
    deaths = 0
    try:
        tree.process.when_down(lambda _: queue.put_nowait(None))
        while True:
            try:
                heard = await asyncio.wait_for(queue.get(), quiet)
            except TimeoutError:
                raise TeleprompterError(
                    f"the training has said nothing for {quiet:g} s and was ended; the same call again goes on from"
                    " its last checkpoint"
                ) from None
            match heard:
                case Said():
                    yield heard
                case _Ended(Shutdown(PortExited())):
                    return
                case _Ended(reason):
                    last, deaths = reason, deaths + 1
                case _:
                    again = "the same call again goes on from its last checkpoint"
                    if last is None:
                        raise TeleprompterError(f"the training was stopped, and its application with it; {again}")
                    raise TeleprompterError(f"the training died {deaths} times, the last time because {last}; {again}")
    finally:  # not by its supervisor, which may be waiting for the caller to end
        with contextlib.suppress(ActorDown):
            await tree.stop(SHUTDOWN)

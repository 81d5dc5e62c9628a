"""A connection to one MCP server, as processes: who holds it, who decides, who waits.

```
"files"               rest_for_one
├─ Work               TaskSupervisor  the connection itself, and one temporary task per call in flight
└─ Connection         permanent       connects, and connects again; decides, never waits
```

A server that goes away is an expected failure: calls in flight fail, and the connection is made anew, at once the first
time and then ever more slowly. Calls that come meanwhile wait for it. Needs the `mcp` extra.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self, cast

from otpy.actors import KILL, Call, Cast, GenServer, NoReply, current_names, send_after
from otpy.errors import ProgramError, shown
from otpy.supervisors import REST_FOR_ONE, Supervisor, TaskSupervisor
from otpy.telemetry import bus as telemetry

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable
    from contextlib import AbstractAsyncContextManager

    from mcp.types import Tool

    from otpy.actors import Caller, ChildSpec, Reason, Ref, Task
    from otpy.supervisors import TaskSupervisorRef

__all__ = ["CallTool", "ListTools", "connection_tree"]

FIRST_DELAY: Final = 0.1
"""Seconds before the second attempt to connect; doubled for each further one."""
LONGEST_DELAY: Final = 30.0
"""Seconds between two attempts at most."""
MOST_PAGES: Final = 100
"""Pages of a list of tools that are read; a server whose list never ends must not hang a call."""
_BROKEN: Final = frozenset({-32000, -32600, -32603})
"""Codes by which the library says that a connection or its session is gone: closed, not known, failed inside."""
LEAVE_SECONDS: Final = 8.0
"""How long a connection may take to end; an MCP server has 2 s to go, and 2 more after a signal."""


@dataclass(frozen=True, slots=True)
class ListTools(Call[Any]):
    """Ask which tools the server has."""


@dataclass(frozen=True, slots=True)
class CallTool(Call[Any]):
    """Have a tool called.

    Args:
        tool: Its name there.
        arguments: JSON data.
    """

    tool: str
    arguments: dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Connected(Cast):
    client: Any
    leave: asyncio.Event


@dataclass(frozen=True, slots=True)
class _Lost(Cast):
    reason: Reason
    leave: asyncio.Event


@dataclass(frozen=True, slots=True)
class _Broken(Cast):
    leave: asyncio.Event


@dataclass(frozen=True, slots=True)
class _Connect(Cast):
    pass


def connection_tree(name: str, transport: Callable[[], AbstractAsyncContextManager[Any]], seconds: float) -> ChildSpec:
    """Describe the processes of one server to a supervisor.

    Args:
        name: What the server is called here; its process is registered as `("mcp", name)`.
        transport: Opens its streams.
        seconds: How long connecting may take.
    """
    children = [
        TaskSupervisor.child_spec(id="work", name=("mcp", name, "work"), shutdown=LEAVE_SECONDS),
        Connection.child_spec(
            name, transport, seconds, id="connection", name=("mcp", name), shutdown=LEAVE_SECONDS + 1.0
        ),
    ]
    return Supervisor.child_spec(children, strategy=REST_FOR_ONE, id=name, name=("mcp", name, "tree"))


class Connection(GenServer):
    """Holds the connection to a server, and hands calls to it.

    Args (of `child_spec`):
        name: What the server is called here.
        transport: Opens its streams.
        seconds: How long connecting may take.
    """

    trap_exit = True

    def init(self, name: str, transport: Callable[[], AbstractAsyncContextManager[Any]], seconds: float) -> NoReply:
        """Connect as soon as the start has returned."""
        self.name, self.transport, self.seconds = name, transport, seconds
        self.client: Any = None
        self.leave: asyncio.Event | None = None
        self.held: Task[None] | None = None
        self.delay = 0.0
        self.waiting: list[tuple[Any, Caller]] = []
        self.process.when_down(lambda _: self._leave())
        return NoReply(then=_Connect())

    def handle_continue(self, argument: Any) -> None:  # noqa: ARG002 - the callback's signature
        """Connect."""
        self._connect()

    def handle_call(self, request: Any, caller: Caller) -> Any:
        """Hand a call over, now or once there is a connection."""
        if not isinstance(request, (ListTools, CallTool)):
            return super().handle_call(request, caller)
        if self.client is None:
            self.waiting.append((request, caller))
        else:
            self._hand_over(request, caller)
        return NoReply()

    def handle_cast(self, message: Any) -> Any:
        """Hear from the connection."""
        match message:
            case _Connect():
                self._connect()
            case _Connected(client, leave) if leave is self.leave:
                self._connected(client)
            case _Broken(leave) if leave is self.leave and self.client is not None:
                self._again("broken")
            case _Lost(reason, leave) if leave is self.leave:
                self._lost(reason)
            case _Connected() | _Broken() | _Lost():
                pass  # of a connection that was given up, or of one whose end is still to be told
            case _:
                return super().handle_cast(message)
        return None

    def handle_info(self, message: Any) -> None:
        """Connect again when it is time."""
        if isinstance(message, _Connect):
            self._connect()

    async def terminate(self, reason: Reason) -> None:  # noqa: ARG002 - the callback's signature
        """Let the server go in peace."""
        self._leave()
        if self.held is not None:
            await self.held.ref.join()

    def _work(self) -> TaskSupervisorRef:
        return cast("TaskSupervisorRef", current_names().get(("mcp", self.name, "work")))

    def _leave(self) -> None:
        if self.leave is not None:
            self.leave.set()

    def _connect(self) -> None:
        self.leave = leave = asyncio.Event()
        self.held = self._work().async_nolink(_hold, self.ref, self.transport, self.seconds, leave)
        me = self.ref
        self.held.process.when_down(lambda process: me.cast(_Lost(process.exit_reason, leave)))

    def _connected(self, client: Any) -> None:
        self.client, self.delay = client, 0.0
        waiting, self.waiting = self.waiting, []
        for request, caller in waiting:
            if caller.waiting:
                self._hand_over(request, caller)

    def _lost(self, reason: Reason) -> None:
        """Fail who waits, if there never was a connection; and connect again."""
        if self.client is None:
            waiting, self.waiting = self.waiting, []
            for _, caller in waiting:
                caller.fail(ProgramError(f"the MCP server {self.name!r} is not there: {shown(_innermost(reason))}"))
        self._again(reason)

    def _again(self, reason: Reason) -> None:
        """Connect again: at once after a connection that held, else ever more slowly."""
        if telemetry.listening:
            telemetry.emit("otpy.mcp.lost", server=self.name, reason=reason, delay=self.delay)
        self.client = None
        self._leave()
        if self.delay == 0.0:
            self._connect()
        else:
            self.leave = None
            send_after(self.ref, self.delay, _Connect())
        self.delay = min(max(2 * self.delay, FIRST_DELAY), LONGEST_DELAY)

    def _hand_over(self, request: ListTools | CallTool, caller: Caller) -> None:
        assert self.leave is not None, "there is a connection"
        task = self._work().async_nolink(_answer, self.ref, self.client, self.leave, request, caller)
        caller.delegate(task.ref)
        caller.when_gone(lambda: task.ref.exit(KILL))


async def _hold(
    connection: Ref[Any],
    transport: Callable[[], AbstractAsyncContextManager[Any]],
    seconds: float,
    leave: asyncio.Event,
) -> None:
    """Hold a connection until it is told to leave, or the server ends: the body of a task.

    All of it in one task: what the library opens here must be closed here.
    """
    from mcp import Client  # noqa: PLC0415 - the extra's, and heavy

    def ended() -> None:
        """Say so at once: closing takes its time."""
        connection.cast(_Broken(leave))
        leave.set()

    async with contextlib.AsyncExitStack() as stack:
        async with asyncio.timeout(seconds):
            client = await stack.enter_async_context(Client(_watched(transport(), ended)))
        connection.cast(_Connected(client, leave))
        await leave.wait()


@contextlib.asynccontextmanager
async def _watched(transport: AbstractAsyncContextManager[Any], ended: Callable[[], None]) -> AsyncGenerator[Any]:
    async with transport as (read, write):
        yield _Watched(read, ended), write


class _Watched:
    """A stream that says when it ends: the library tells only those whose calls are in flight."""

    def __init__(self, stream: Any, ended: Callable[[], None]) -> None:
        self._stream, self._ended = stream, ended

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    async def receive(self) -> Any:
        try:
            return await self._stream.receive()
        except Exception:
            self._ended()
            raise

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        try:
            return await self._stream.__anext__()
        except Exception:
            self._ended()
            raise

    async def __aenter__(self) -> Self:
        await self._stream.__aenter__()
        return self

    async def __aexit__(self, *error: object) -> Any:
        return await self._stream.__aexit__(*error)


async def _answer(
    connection: Ref[Any], client: Any, leave: asyncio.Event, request: ListTools | CallTool, caller: Caller
) -> None:
    """Ask the server and answer the caller: the body of a task.

    That a connection is broken is said before the caller hears of it: its next call then finds the next one.
    """
    from mcp import MCPError  # noqa: PLC0415 - the extra's

    try:
        if isinstance(request, CallTool):
            caller.reply(await client.call_tool(request.tool, request.arguments))
        else:
            caller.reply(await _all_tools(client))
    except MCPError as error:
        if error.code in _BROKEN:
            connection.cast(_Broken(leave))
        caller.fail(ProgramError(f"the MCP server says: {error}"))
    except Exception as error:  # noqa: BLE001 - whatever the transport raises, the caller hears of it
        connection.cast(_Broken(leave))
        caller.fail(ProgramError(f"the MCP server could not be asked: {shown(_innermost(error))}"))


async def _all_tools(client: Any) -> list[Tool]:
    found: list[Tool] = []
    cursor: str | None = None
    for _ in range(MOST_PAGES):
        page = await client.list_tools(cursor=cursor, cache_mode="bypass")
        found += page.tools
        cursor = page.next_cursor
        if cursor is None:
            break
    return found


def _innermost(reason: Any) -> Any:
    """What went wrong, out of the groups that the library's task groups make of it."""
    while isinstance(reason, BaseExceptionGroup):
        reason = cast("BaseExceptionGroup[BaseException]", reason).exceptions[0]
    return reason

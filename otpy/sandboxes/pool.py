"""The sessions of one engine, under supervision: whoever needs one leases it, and in time gets one that is all new.

```
monty        one_for_all
├─ sessions  one temporary child a session
└─ desk      who waits, in order
```
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from otpy.actors import SHUTDOWN, Call, ChildSpec, Down, GenServer, NoReply, Ref, current_names, monitor
from otpy.errors import ActorDown, StartFailed
from otpy.sandboxes.session import Session
from otpy.supervisors import ONE_FOR_ALL, DynamicSupervisor, DynamicSupervisorRef, Supervisor

if TYPE_CHECKING:
    from otpy.actors import Caller, Names
    from otpy.sandboxes.engine import Engine

__all__ = ["Desk", "Lease", "desk_of", "lease", "pool"]


@dataclass(frozen=True, slots=True)
class Lease(Call[Ref[Session]]):
    """Ask for a session of one's own; whoever is done with it ends it.

    Args:
        inner: Whether somebody who has one asks for another, as in a tool: such a one does not wait, for it might be
            for itself.
    """

    inner: bool = False


def pool(engine: Engine) -> ChildSpec:
    """Describe the sessions of an engine to a supervisor.

    Args:
        engine: The engine; its desk is registered as `("sandboxes", engine)`.
    """
    sessions = ("sandboxes", engine, "sessions")
    children = [
        DynamicSupervisor.child_spec(id="sessions", name=sessions),
        Desk.child_spec(engine, sessions, id="desk", name=("sandboxes", engine)),
    ]
    return Supervisor.child_spec(children, id=engine.name, strategy=ONE_FOR_ALL)


async def desk_of(engine: Engine, names: Names, parent: DynamicSupervisorRef) -> Ref[Desk]:
    """Return the desk of an engine; its pool is started if it is not there.

    Args:
        engine: The engine.
        names: Where it is registered.
        parent: Who supervises the pool.

    Raises:
        SandboxNotAvailable: If the engine cannot run here.
    """
    name = ("sandboxes", engine)
    if names.whereis(name) is None:
        engine.check()
        try:
            await parent.start_child(pool(engine))
        except StartFailed:
            if names.whereis(name) is None:  # else somebody else was faster
                raise
    return names.get(name)


class Desk(GenServer):
    """Leases sessions, as many as the engine allows at the same time, first come, first served.

    Args (of `child_spec` and `start`):
        engine: The engine.
        sessions: The name of the supervisor of its sessions.
    """

    def init(self, engine: Engine, sessions: object) -> NoReply:
        """Begin with nobody waiting."""
        self._engine = engine
        self._sessions: Any = current_names().get(sessions)
        self._waiting: deque[tuple[Caller, bool]] = deque()
        self._spare: deque[Ref[Session]] = deque()
        self._leased: dict[Ref[Any], bool] = {}
        return NoReply(then="serve")

    async def handle_continue(self, argument: Any) -> None:  # noqa: ARG002 - there is one
        """Start what is kept ready."""
        await self._serve()

    async def handle_call(self, request: Any, caller: Caller) -> Any:
        """Queue up."""
        if not isinstance(request, Lease):
            return super().handle_call(request, caller)
        self._waiting.append((caller, request.inner))
        await self._serve()
        return NoReply()

    async def handle_info(self, message: Any) -> None:
        """Have the next one served when a session has ended."""
        if isinstance(message, Down):
            self._leased.pop(message.process, None)
            if message.process in self._spare:
                self._spare.remove(message.process)
            await self._serve()

    async def _serve(self) -> None:
        waiting: deque[tuple[Caller, bool]] = deque()
        while self._waiting:
            caller, inner = self._waiting.popleft()
            if not caller.waiting:
                continue
            if not inner and sum(not kept for kept in self._leased.values()) >= self._engine.sessions:
                waiting.append((caller, inner))
                continue
            session = self._spare.popleft() if self._spare else await self._start()
            self._leased[session] = inner
            caller.reply(session)
        self._waiting = waiting
        while len(self._spare) < self._engine.warm:
            self._spare.append(await self._start())

    async def _start(self) -> Ref[Session]:
        supervisor: DynamicSupervisorRef = self._sessions
        session = await supervisor.start_child(Session.child_spec(self._engine, restart="temporary"))
        assert session is not None
        monitor(session)
        return session


async def lease(desk: Ref[Desk], *, inner: bool) -> Ref[Session]:
    """Lease a session; whoever is cancelled meanwhile has none.

    Args:
        desk: Where.
        inner: See `Lease`.

    Raises:
        ActorDown: If the pool ends meanwhile.
    """
    asked = desk.call(Lease(inner), None)
    try:
        return await asked
    except ActorDown:
        raise
    except BaseException:
        if asked.done() and not asked.cancelled() and asked.exception() is None:
            asked.result().exit(SHUTDOWN)
        raise

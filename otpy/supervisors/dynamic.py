"""`DynamicSupervisor`: children that come and go, each on its own.

Source: Elixir's `DynamicSupervisor`.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from otpy.actors import (
    BRUTAL_KILL,
    KILL,
    SHUTDOWN,
    Cast,
    ChildSpec,
    ChildType,
    ExitMessage,
    GenServer,
    Ref,
    Stop,
    is_abnormal,
)
from otpy.errors import InvalidChildSpec, NotRegistered, Overloaded, StartFailed
from otpy.supervisors.child import Child, logger, report_failed_start, shut_down, start_child
from otpy.supervisors.intensity import Intensity
from otpy.supervisors.render import Branch, branch, draw
from otpy.supervisors.requests import ChildInfo, CountChildren, Counts, StartChild, WhichChildren, WithChild
from otpy.supervisors.strategy import Strategy, must_restart
from otpy.telemetry import bus as telemetry

if TYPE_CHECKING:
    from otpy.actors import Caller, Process, Reason

__all__ = ["DynamicSupervisor", "DynamicSupervisorRef"]


@dataclass(frozen=True, slots=True)
class _TryAgain(Cast):
    child: Child


class DynamicSupervisorRef(Ref[Any]):
    """A reference to a dynamic supervisor; its children are known by their processes."""

    __slots__ = ()

    async def start_child(self, spec: ChildSpec) -> Ref[Any] | None:
        """Start a child; returns its process, or `None` if its `init` said that it is not needed.

        Raises:
            StartFailed: If it did not start.
            Overloaded: If there are `max_children` already.
            InvalidChildSpec: If this is no child spec.
        """
        answer = await self.call(StartChild(spec), None)
        match answer:
            case ("ok", result):
                return result  # type: ignore[no-any-return]
            case ("failed", reason):
                raise StartFailed(spec.id, reason)
            case ("invalid", error):
                raise error
            case _:
                raise Overloaded(f"{self}: {answer[1]} children run already (max_children)")

    async def terminate_child(self, child: Ref[Any]) -> None:
        """Stop a child and forget it.

        Raises:
            NotRegistered: If it is no child of this supervisor.
        """
        if await self.call(WithChild("terminate", child), None) == "not_found":
            raise NotRegistered(str(child))

    async def settled(self) -> None:
        """Return when the supervisor has dealt with everything that had happened before this call."""
        await self.call(CountChildren(), None)

    async def which_children(self) -> list[ChildInfo]:
        """List the children in start order."""
        return await self.call(WhichChildren(), None)

    async def count_children(self) -> Counts:
        """Count the children."""
        return await self.call(CountChildren(), None)

    def tree(self) -> Branch:
        """Return the tree below this supervisor as data."""
        return branch(self)

    def render(self) -> str:
        """Return the tree below this supervisor as text."""
        return draw(self.tree())


class DynamicSupervisor(GenServer):
    """A supervisor that starts empty and takes any number of children, one for one.

    Args (of `child_spec` and `start_link`):
        max_children: Children at the same time; `None` for any number.
        max_restarts: As for `Supervisor`.
        max_seconds: As for `Supervisor`.

    Example:
        >>> import asyncio
        >>> from otpy.actors import GenServer
        >>> from otpy.supervisors import DynamicSupervisor
        >>> class Session(GenServer):
        ...     def init(self, user):
        ...         self.user = user
        >>> async def main():
        ...     sessions = await DynamicSupervisor.start()
        ...     for user in ("ann", "bob"):
        ...         await sessions.start_child(Session.child_spec(user, restart="transient"))
        ...     print(await sessions.count_children())
        ...     await sessions.stop()
        >>> asyncio.run(main())
        Counts(specs=2, active=2, supervisors=0, workers=2)
    """

    trap_exit = True
    child_type: ClassVar[ChildType] = ChildType.SUPERVISOR
    ref_class: ClassVar[type[Ref[Any]]] = DynamicSupervisorRef
    strategy: ClassVar[Strategy] = Strategy.ONE_FOR_ONE

    def init(self, *, max_children: int | None = None, max_restarts: int = 3, max_seconds: float = 5.0) -> None:
        """Start without children."""
        if max_children is not None and (
            isinstance(max_children, bool) or not isinstance(max_children, int) or max_children < 0
        ):
            raise InvalidChildSpec("max_children", max_children, "None, or an integer >= 0")
        self.max_children = max_children
        self.intensity = Intensity(max_restarts, max_seconds)
        self._children: dict[Process | int, Child] = {}

    @property
    def children(self) -> list[Child]:
        """The children in start order."""
        return list(self._children.values())

    async def handle_call(self, request: Any, caller: Caller) -> Any:
        """Answer the functions of `DynamicSupervisorRef`."""
        match request:
            case StartChild(spec):
                return await self._start(spec)
            case WithChild("terminate", Ref() as ref):
                child = self._children.pop(ref.process, None)
                if child is None:
                    return "not_found"
                await shut_down(self.process, child)
                return "ok"
            case WhichChildren():
                return [ChildInfo(None, c.ref, c.state, c.spec.type, c.restarts) for c in self.children]
            case CountChildren():
                children = self.children
                supervisors = sum(child.spec.type is ChildType.SUPERVISOR for child in children)
                active = sum(child.state == "up" for child in children)
                return Counts(len(children), active, supervisors, len(children) - supervisors)
            case _:
                return super().handle_call(request, caller)

    async def _start(self, spec: ChildSpec) -> Any:
        if not isinstance(spec, ChildSpec):
            return ("invalid", InvalidChildSpec("child", spec, "a ChildSpec, as `SomeServer.child_spec(...)` returns"))
        if self.max_children is not None and len(self._children) >= self.max_children:
            return ("max_children", self.max_children)
        child = Child(spec)
        reason = await start_child(child)
        if reason is not None:
            return ("failed", reason)
        if child.ref is not None:
            self._children[child.ref.process] = child
        return ("ok", child.ref)

    async def handle_info(self, message: Any) -> Any:
        """Act on the end of a child."""
        if not isinstance(message, ExitMessage) or message.process is None:
            return None
        process = message.process.process
        child = self._children.get(process)
        if child is None:
            return None
        if must_restart(child.spec.restart, abnormal=is_abnormal(message.reason)):
            return await self._restart(process, child, message.reason)
        del self._children[process]
        return None

    async def handle_cast(self, message: Any) -> Any:
        """Try a failed restart again."""
        if isinstance(message, _TryAgain):
            key = next((key for key, child in self._children.items() if child is message.child), None)
            return None if key is None else await self._restart(key, message.child, "the last restart failed")
        return super().handle_cast(message)

    async def _restart(self, key: Process | int, child: Child, reason: Reason) -> Stop | None:
        if not self.intensity.add(self.process.loop.time()):
            del self._children[key]
            logger.error("%s gave up on child %r; the last reason was %r", self.process, child.spec.id, reason)
            telemetry.emit(
                "otpy.supervisor.gave_up",
                supervisor=str(self.process),
                child=child.spec.id,
                reason=reason,
                max_restarts=self.intensity.max_restarts,
                max_seconds=self.intensity.max_seconds,
            )
            return Stop(SHUTDOWN)
        child.restarts += 1
        logger.warning("%s restarts child %r after %r", self.process, child.spec.id, reason)
        if telemetry.listening:
            telemetry.emit(
                "otpy.supervisor.restart",
                supervisor=str(self.process),
                child=child.spec.id,
                reason=reason,
                restarts=child.restarts,
            )
        failure = await start_child(child)
        del self._children[key]
        if failure is not None:
            report_failed_start(self.process, child, failure)
            child.restarting = True
            self._children[id(child)] = child
            self.ref.cast(_TryAgain(child))
        elif child.ref is not None:
            self._children[child.ref.process] = child
        return None

    async def terminate(self, reason: Reason) -> None:  # noqa: ARG002 - the callback's signature
        """Stop all children at the same time, each within its own deadline."""
        children, self._children = self.children, {}
        for child in children:
            if child.ref is not None and child.spec.shutdown == BRUTAL_KILL:
                child.ref.process.signal(self.process, KILL)
        await asyncio.gather(*(shut_down(self.process, child) for child in children))

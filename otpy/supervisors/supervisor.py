"""`Supervisor`: starts its children in order, keeps them alive by rule, stops them in reverse, or fails as a whole.

Source: `supervisor(3)` and `supervisor.erl` (OTP 25); the words are Elixir's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeAlias

from otpy.actors import (
    SHUTDOWN,
    Cast,
    ChildSpec,
    ChildType,
    ExitMessage,
    GenServer,
    Ref,
    Restart,
    Shutdown,
    Stop,
    current_process,
    is_abnormal,
)
from otpy.errors import InvalidChildSpec, MaxRestartsReached, StartFailed, SupervisionError
from otpy.supervisors.child import Child, logger, report_failed_start, shut_down, start_child
from otpy.supervisors.intensity import Intensity
from otpy.supervisors.ref import SupervisorRef
from otpy.supervisors.requests import ChildInfo, CountChildren, Counts, StartChild, WhichChildren, WithChild
from otpy.supervisors.strategy import AutoShutdown, Strategy, affected, must_restart, one_of
from otpy.telemetry import bus as telemetry

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from types import TracebackType

    from otpy.actors import Caller, Reason

__all__ = ["Supervisor"]

Answer: TypeAlias = Any


@dataclass(frozen=True, slots=True)
class _TryAgain(Cast):
    """A message to oneself: the restart of this child failed and is due again."""

    child: Child


class Supervisor(GenServer):
    """A process whose only work is other processes.

    Args:
        children: Child specs, in start order.
        strategy: `"one_for_one"`, `"one_for_all"` or `"rest_for_one"`.
        max_restarts: Restarts tolerated within `max_seconds`; one more, and the supervisor stops all and ends.
        max_seconds: The window in seconds.
        auto_shutdown: `"never"`, `"any_significant"` or `"all_significant"`.

    Raises:
        InvalidChildSpec: If any of this is not allowed; nothing has been started then.

    Example:
        >>> import asyncio
        >>> from otpy.actors import GenServer
        >>> from otpy.supervisors import ONE_FOR_ONE, Supervisor
        >>> class Counter(GenServer):
        ...     def init(self):
        ...         self.count = 0
        ...     def handle_call(self, request, caller):
        ...         self.count += 1
        ...         return self.count
        >>> async def main():
        ...     async with Supervisor([Counter.child_spec(name="counter")], strategy=ONE_FOR_ONE) as tree:
        ...         print(await tree.child("counter").call("next"), await tree.child("counter").call("next"))
        ...         tree.child("counter").exit("kill")
        ...         await tree.settled()
        ...         print(await tree.child("counter").call("next"))
        >>> asyncio.run(main())
        1 2
        1
    """

    trap_exit = True
    child_type: ClassVar[ChildType] = ChildType.SUPERVISOR
    ref_class: ClassVar[type[Ref[Any]]] = SupervisorRef

    def __init__(
        self,
        children: Iterable[ChildSpec] = (),
        *,
        strategy: Strategy | str = Strategy.ONE_FOR_ONE,
        max_restarts: int = 3,
        max_seconds: float = 5.0,
        auto_shutdown: AutoShutdown | str = AutoShutdown.NEVER,
    ) -> None:
        """Check everything; `start_link`, or entering the block, starts it."""
        super().__init__()
        self.strategy = one_of(Strategy, "strategy", strategy)
        self.auto_shutdown = one_of(AutoShutdown, "auto_shutdown", auto_shutdown)
        self.intensity = Intensity(max_restarts, max_seconds)
        self.children: list[Child] = []
        for spec in children:
            self.children.append(Child(self._checked(spec)))
        self.gave_up: MaxRestartsReached | None = None

    def _checked(self, spec: ChildSpec) -> ChildSpec:
        if not isinstance(spec, ChildSpec):
            raise InvalidChildSpec("child", spec, "a ChildSpec, as `SomeServer.child_spec(...)` returns")
        if any(child.spec.id == spec.id for child in self.children):
            raise InvalidChildSpec("id", spec.id, "an id no other child of this supervisor has")
        if spec.significant and self.auto_shutdown is AutoShutdown.NEVER:
            raise InvalidChildSpec(
                f"significant of child {spec.id!r}", spec.significant, "False, unless the supervisor has auto_shutdown"
            )
        return spec

    @classmethod
    def make(cls, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Self, tuple[Any, ...], dict[str, Any]]:
        """Give the arguments to `__init__`, where they are checked before anything runs."""
        return cls(*args, **kwargs), (), {}

    async def __aenter__(self) -> SupervisorRef:
        """Start the tree on the running loop; it lives as long as the block."""
        if hasattr(self, "process"):
            raise SupervisionError(f"{self.process} is running or has run already; make a new one")
        self._entered: SupervisorRef = await self.launch(current_process())  # type: ignore[assignment]
        return self._entered

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop the tree in reverse order; if it had given up by itself, say so."""
        await self._entered.stop(SHUTDOWN)
        if self.gave_up is not None and error is None:
            raise self.gave_up

    # -- start and stop --------------------------------------------------------------------------------------------

    async def init(self) -> Stop | None:
        """Start the children in order; if one fails, stop the started ones in reverse and fail."""
        for child in list(self.children):
            reason = await start_child(child)
            if reason is not None:
                report_failed_start(self.process, child, reason)
                await self._stop_children(self.children)
                return Stop(Shutdown(StartFailed(child.spec.id, reason)))
            if child.ref is None and child.spec.restart is Restart.TEMPORARY:
                self.children.remove(child)
        return None

    async def terminate(self, reason: Reason) -> None:  # noqa: ARG002 - the callback's signature
        """Stop the children in reverse order."""
        await self._stop_children(self.children)

    async def _stop_children(self, children: Sequence[Child]) -> None:
        for child in reversed(list(children)):
            await shut_down(self.process, child)

    # -- a child ended ---------------------------------------------------------------------------------------------

    async def handle_info(self, message: Any) -> Any:
        """Act on the end of a child."""
        if not isinstance(message, ExitMessage) or message.process is None:
            return None
        child = next((child for child in self.children if child.ref == message.process), None)
        return None if child is None else await self._child_ended(child, message.reason)

    async def handle_cast(self, message: Any) -> Any:
        """Try a failed restart again, unless something else has settled the matter since."""
        if isinstance(message, _TryAgain):
            if message.child in self.children and message.child.restarting:
                return await self._restart(message.child, "the last restart failed")
            return None
        return super().handle_cast(message)

    async def _child_ended(self, child: Child, reason: Reason) -> Stop | None:
        abnormal = is_abnormal(reason)
        if must_restart(child.spec.restart, abnormal=abnormal):
            return await self._restart(child, reason)
        child.ref = None
        if child.spec.restart is Restart.TEMPORARY:
            self.children.remove(child)
        return self._auto_shutdown(child)

    def _auto_shutdown(self, ended: Child) -> Stop | None:
        if self.auto_shutdown is AutoShutdown.NEVER or not ended.spec.significant:
            return None
        if self.auto_shutdown is AutoShutdown.ALL_SIGNIFICANT and any(
            child.spec.significant and (child.ref is not None or child.restarting) for child in self.children
        ):
            return None
        return Stop(SHUTDOWN)

    async def _restart(self, child: Child, reason: Reason) -> Stop | None:
        if not self.intensity.add(self.process.loop.time()):
            return self._give_up(child, reason)
        child.restarts += 1
        logger.warning("%s restarts child %r (%s) after %r", self.process, child.spec.id, self.strategy, reason)
        if telemetry.listening:
            telemetry.emit(
                "otpy.supervisor.restart",
                supervisor=str(self.process),
                child=child.spec.id,
                reason=reason,
                restarts=child.restarts,
            )
        child.ref, child.restarting = None, False
        group = affected(self.strategy, self.children, child)
        await self._stop_children(group)
        for member in group:
            if member.spec.restart is Restart.TEMPORARY:
                self.children.remove(member)
                continue
            failure = await start_child(member)
            if failure is not None:
                report_failed_start(self.process, member, failure)
                member.restarting = True
                self.ref.cast(_TryAgain(member))
                break
        return None

    def _give_up(self, child: Child, reason: Reason) -> Stop:
        self.gave_up = MaxRestartsReached(
            f"{self.process} (child {child.spec.id!r})", self.intensity.max_restarts, self.intensity.max_seconds
        )
        if isinstance(reason, BaseException):
            self.gave_up.__cause__ = reason
        logger.error("%s; the last reason was %r", self.gave_up, reason)
        telemetry.emit(
            "otpy.supervisor.gave_up",
            supervisor=str(self.process),
            child=child.spec.id,
            reason=reason,
            max_restarts=self.intensity.max_restarts,
            max_seconds=self.intensity.max_seconds,
        )
        self.children.remove(child)
        return Stop(SHUTDOWN)

    # -- administration --------------------------------------------------------------------------------------------

    async def handle_call(self, request: Any, caller: Caller) -> Any:
        """Answer the functions of `SupervisorRef`."""
        match request:
            case StartChild(spec):
                return await self._start_child(spec)
            case WithChild(action, id_):
                child = next((child for child in self.children if child.spec.id == id_), None)
                return "not_found" if child is None else await self._administer(action, child)
            case WhichChildren():
                return [ChildInfo(c.spec.id, c.ref, c.state, c.spec.type, c.restarts) for c in self.children]
            case CountChildren():
                supervisors = sum(child.spec.type is ChildType.SUPERVISOR for child in self.children)
                active = sum(child.state == "up" for child in self.children)
                return Counts(len(self.children), active, supervisors, len(self.children) - supervisors)
            case _:
                return super().handle_call(request, caller)

    async def _start_child(self, spec: ChildSpec) -> Answer:
        known = next((child for child in self.children if child.spec.id == spec.id), None)
        if known is not None:
            return "already_present" if known.ref is None else ("already_started", known.ref)
        try:
            child = Child(self._checked(spec))
        except InvalidChildSpec as error:
            return ("invalid", error)
        reason = await start_child(child)
        if reason is not None:
            return ("failed", reason)
        if child.ref is not None or spec.restart is not Restart.TEMPORARY:
            self.children.append(child)
        return ("ok", child.ref)

    async def _administer(self, action: str, child: Child) -> Answer:
        if action == "get_childspec":
            return ("ok", child.spec)
        if action == "terminate":
            await shut_down(self.process, child)
            if child.spec.restart is Restart.TEMPORARY:
                self.children.remove(child)
            return ("ok", None)
        if child.restarting:
            return "restarting"
        if child.ref is not None:
            return "running"
        if action == "delete":
            self.children.remove(child)
            return ("ok", None)
        reason = await start_child(child)
        return ("ok", child.ref) if reason is None else ("failed", reason)

"""`Supervisor`: starts its children in order, keeps them alive by rule, stops them in reverse, or fails as a whole.

Source: `supervisor(3)` and `supervisor.erl` (OTP 25); the words are Elixir's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

from otpy.actors import (
    KILLED,
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
from otpy.actors.reasons import said
from otpy.actors.teardown import going_down
from otpy.errors import ActorDown, InvalidChildSpec, MaxRestartsReached, StartFailed, SupervisionError
from otpy.supervisors.brood import Answer, TryAgain
from otpy.supervisors.child import (
    Child,
    report_failed_start,
    report_giving_up,
    report_left,
    report_restart,
    shut_down,
    start_child,
)
from otpy.supervisors.intensity import Intensity
from otpy.supervisors.ref import SupervisorRef
from otpy.supervisors.requests import ChildInfo, CountChildren, Counts, StartChild, WhichChildren, WithChild
from otpy.supervisors.simple import Simple
from otpy.supervisors.strategy import AutoShutdown, Strategy, affected, must_restart, one_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from otpy.actors import Caller, Reason

__all__ = ["Supervisor"]


@dataclass(frozen=True, slots=True)
class _TryAgain(Cast):
    """A message to oneself: the restart of this child failed and is due again."""

    child: Child


class Supervisor(GenServer):
    """A process whose only work is other processes.

    Args:
        children: Child specs, in start order; for `"simple_one_for_one"` one, the template of all children.
        strategy: `"one_for_one"`, `"one_for_all"`, `"rest_for_one"` or `"simple_one_for_one"`.
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

    if TYPE_CHECKING:  # what `GenServer` has, with the reference that there is here

        @classmethod
        async def start(cls, *args: Any, name: object = None, **kwargs: Any) -> SupervisorRef: ...  # type: ignore[override]  # noqa: D102
        @classmethod
        async def start_link(cls, *args: Any, name: object = None, **kwargs: Any) -> SupervisorRef: ...  # noqa: D102

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
        self.intensity = Intensity(max_restarts, max_seconds)
        self.auto_shutdown = one_of(AutoShutdown, "auto_shutdown", auto_shutdown)
        if isinstance(children, ChildSpec) or not isinstance(children, Iterable):
            raise InvalidChildSpec("children", children, "a list of ChildSpecs")
        self._simple: Simple | None = None
        self._children: dict[Any, Child] = {}  # by id, in start order
        if self.strategy is Strategy.SIMPLE_ONE_FOR_ONE:
            template = [self._checked(spec) for spec in children]
            self._simple = Simple(self, template, self.intensity, self.auto_shutdown)
        else:
            for spec in children:
                if self._find(self._checked(spec).id) is not None:
                    raise InvalidChildSpec("id", spec.id, "an id no other child of this supervisor has")
                self._children[spec.id] = Child(spec)
        self._gave_up: MaxRestartsReached | None = None
        self._block: asyncio.Task[Any] | None = None
        self._cancelled = False

    @property
    def children(self) -> list[Child]:
        """The children in start order."""
        return list(self._children.values()) if self._simple is None else self._simple.children

    @property
    def gave_up(self) -> MaxRestartsReached | None:
        """Why the supervisor ended, if it was for a child that had to be restarted too often."""
        return self._gave_up if self._simple is None else self._simple.gave_up

    def _find(self, id_: object) -> Child | None:
        return self._children.get(id_) if isinstance(id_, Hashable) else None

    def _checked(self, spec: object) -> ChildSpec:
        if not isinstance(spec, ChildSpec):
            raise InvalidChildSpec("child", spec, "a ChildSpec, as `SomeServer.child_spec(...)` returns")
        if spec.significant and self.auto_shutdown is AutoShutdown.NEVER:
            raise InvalidChildSpec(
                f"significant of child {spec.id!r}", spec.significant, "False, unless the supervisor has auto_shutdown"
            )
        return spec

    @classmethod
    def child_spec(cls, *args: Any, **kwargs: Any) -> ChildSpec:
        """Describe a supervisor to another one: the arguments are those of this class, and of `GenServer.child_spec`.

        Raises:
            InvalidChildSpec: If a value is not allowed.
        """
        kept = map(_kept, args)
        named: dict[str, Any] = {name: _kept(arg) for name, arg in kwargs.items()}
        return super().child_spec(*kept, **named)

    @classmethod
    def make(cls, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Self, tuple[Any, ...], dict[str, Any]]:
        """Give the arguments to `__init__`, where they are checked before anything runs."""
        return cls(*args, **kwargs), (), {}

    async def __aenter__(self) -> SupervisorRef:
        """Start the tree on the running loop; it lives as long as the block, and the block no longer than it.

        If the supervisor gives up, the block is cancelled, and leaving it raises `MaxRestartsReached`; if it is killed,
        `ActorDown`.
        """
        if hasattr(self, "process"):
            raise SupervisionError(f"{self.process} is running or has run already; make a new one")
        process = self.launch(current_process())
        await process.initialised()
        if process.start_error is not None:
            raise StartFailed(type(self).__name__, process.start_error)
        self._entered: SupervisorRef = process.ref  # type: ignore[assignment]
        self._block = asyncio.current_task()
        self.process.when_down(self._cancel_block)
        return self._entered

    def _cancel_block(self, _: object) -> None:
        if self._block is not None and self._why_ended() is not None:
            self._cancelled = self._block.cancel()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop the tree in reverse order; if it had ended by itself, and not in order, say so.

        Raises:
            MaxRestartsReached: If it gave up, unless the block raised something else, which then says it in a note.
            ActorDown: Likewise, if it was killed, or crashed.
        """
        block, self._block = self._block, None
        await self._entered.stop(SHUTDOWN)
        ended = self._why_ended()
        if ended is None:
            return
        if self._cancelled and isinstance(error, asyncio.CancelledError) and block is not None:
            block.uncancel()
            raise ended from ended.__cause__  # and not from the cancellation
        if error is None:
            raise ended
        error.add_note(f"{self.process} had ended before: {ended}")

    def _why_ended(self) -> SupervisionError | ActorDown | None:
        """Return what has ended this supervisor, if that was no orderly end."""
        if self.gave_up is not None:
            return self.gave_up
        reason = self.process.exit_reason
        return ActorDown(str(self.process), reason) if is_abnormal(reason) and not self.process.alive else None

    # -- start and stop --------------------------------------------------------------------------------------------

    async def init(self) -> Stop | None:
        """Start the children in order; if one fails, or the start is given up, stop the started ones in reverse."""
        for child in self.children:
            try:
                reason = await start_child(child)
            except asyncio.CancelledError:
                if not said(self.process.dying, KILLED):
                    await self._stop_children(self.children)
                raise
            if reason is not None:
                report_failed_start(self.process, child, reason)
                await self._stop_children(self.children)
                return Stop(Shutdown(StartFailed(child.spec.id, reason)))
            if child.ref is None and child.spec.restart is Restart.TEMPORARY:
                del self._children[child.spec.id]
        return None

    async def terminate(self, reason: Reason) -> None:  # noqa: ARG002 - the callback's signature
        """Stop the children in reverse order; those of a template all at the same time."""
        await (self._stop_children(self.children) if self._simple is None else self._simple.stop())

    async def _stop_children(self, children: Sequence[Child]) -> None:
        for child in reversed(list(children)):
            await shut_down(self.process, child)

    # -- a child ended ---------------------------------------------------------------------------------------------

    async def handle_info(self, message: Any) -> Any:
        """Act on the end of a child."""
        if self._simple is not None:
            return await self._simple.ended(message)
        if not isinstance(message, ExitMessage) or message.process is None:
            return None
        child = next((child for child in self._children.values() if child.ref == message.process), None)
        return None if child is None else await self._child_ended(child, message.reason)

    async def handle_cast(self, message: Any) -> Any:
        """Try a failed restart again, unless something else has settled the matter since."""
        if self._simple is not None and isinstance(message, TryAgain):
            return await self._simple.again(message)
        if isinstance(message, _TryAgain):
            if self._find(message.child.spec.id) is message.child and message.child.restarting:
                return await self._restart(message.child, "the last restart failed")
            return None
        return super().handle_cast(message)

    async def _child_ended(self, child: Child, reason: Reason) -> Stop | None:
        abnormal = is_abnormal(reason)
        if must_restart(child.spec.restart, abnormal=abnormal):
            return await self._restart(child, reason)
        report_left(self.process, child, reason)
        child.ref = None
        if child.spec.restart is Restart.TEMPORARY:
            del self._children[child.spec.id]
        return self._auto_shutdown(child)

    def _auto_shutdown(self, ended: Child) -> Stop | None:
        if self.auto_shutdown is AutoShutdown.NEVER or not ended.spec.significant:
            return None
        if self.auto_shutdown is AutoShutdown.ALL_SIGNIFICANT and any(
            child.spec.significant and (child.ref is not None or child.restarting) for child in self._children.values()
        ):
            return None
        return Stop(SHUTDOWN)

    async def _restart(self, child: Child, reason: Reason) -> Stop | None:
        if going_down(self.process):
            return Stop(SHUTDOWN)
        if not self.intensity.add(self.process.loop.time()):
            self._gave_up = report_giving_up(self.process, child, self.intensity, reason)
            del self._children[child.spec.id]
            return Stop(SHUTDOWN)
        report_restart(self.process, child, self.strategy, reason)
        child.ref, child.restarting = None, False
        group = affected(self.strategy, self.children, child)
        await self._stop_children(group)
        for member in group:
            if member.spec.restart is Restart.TEMPORARY:
                del self._children[member.spec.id]
                continue
            failure = await start_child(member)
            if failure is not None:
                report_failed_start(self.process, member, failure)
                member.restarting = True
                self.ref.cast(_TryAgain(member))
                break
        return None

    # -- administration --------------------------------------------------------------------------------------------

    async def handle_call(self, request: Any, caller: Caller) -> Any:
        """Answer the functions of `SupervisorRef`."""
        match request:
            case StartChild(args, kwargs):
                return await self._start_child(args, kwargs)
            case WithChild(action, id_) if self._simple is not None:
                return await self._simple.administer(action, id_)
            case WithChild(action, id_):
                return await self._administer(action, self._find(id_))
            case WhichChildren():
                return self.infos()
            case CountChildren():
                return self.counts()
            case _:
                return super().handle_call(request, caller)

    def infos(self) -> list[ChildInfo]:
        """Say what `which_children` says."""
        if self._simple is not None:
            return self._simple.infos()
        return [ChildInfo(c.spec.id, c.ref, c.state, c.spec.type, c.restarts) for c in self._children.values()]

    def counts(self) -> Counts:
        """Say what `count_children` says."""
        if self._simple is not None:
            return self._simple.counts()
        supervisors = sum(child.spec.type is ChildType.SUPERVISOR for child in self._children.values())
        active = sum(child.state == "up" for child in self._children.values())
        return Counts(len(self._children), active, supervisors, len(self._children) - supervisors)

    async def _start_child(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Answer:
        if self._simple is not None:
            return await self._simple.start_more(args, kwargs)
        try:
            spec = self._checked(args[0] if len(args) == 1 and not kwargs else (*args, *kwargs.items()))
        except InvalidChildSpec as error:
            return ("invalid", error)
        known = self._find(spec.id)
        if known is not None:
            return ("already_present", spec.id) if known.ref is None else ("already_started", spec.id, known.ref)
        child = Child(spec)
        reason = await start_child(child)
        if reason is not None:
            return ("failed", spec.id, reason)
        if child.ref is not None or spec.restart is not Restart.TEMPORARY:
            self._children[spec.id] = child
        return ("ok", child.ref)

    async def _administer(self, action: str, child: Child | None) -> Answer:
        if child is None:
            return "not_found"
        if action == "get_childspec":
            return ("ok", child.spec)
        if action == "terminate":
            await shut_down(self.process, child)
            if child.spec.restart is Restart.TEMPORARY:
                del self._children[child.spec.id]
            return ("ok", None)
        if child.restarting or child.ref is not None:
            return "restarting" if child.restarting else "running"
        if action == "delete":
            del self._children[child.spec.id]
            return ("ok", None)
        reason = await start_child(child)
        return ("ok", child.ref) if reason is None else ("failed", child.spec.id, reason)


def _kept(argument: Any) -> Any:
    """Return an argument that can be used again, by a restart: an iterator could not."""
    return list(argument) if hasattr(argument, "__next__") else argument

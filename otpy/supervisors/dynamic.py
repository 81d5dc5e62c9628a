"""`DynamicSupervisor`: children that come and go, each on its own.

Source: Elixir's `DynamicSupervisor`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, cast

from otpy.actors import ChildSpec, ChildType, GenServer, Ref
from otpy.errors import InvalidChildSpec, NotRegistered, Overloaded, StartFailed
from otpy.supervisors.brood import Answer, Brood, TryAgain
from otpy.supervisors.child import Child
from otpy.supervisors.intensity import Intensity
from otpy.supervisors.ref import ParentRef
from otpy.supervisors.requests import CountChildren, Counts, StartChild, WhichChildren, WithChild
from otpy.supervisors.strategy import Strategy

if TYPE_CHECKING:
    from otpy.actors import Caller, Reason

__all__ = ["DynamicSupervisor", "DynamicSupervisorRef"]


class DynamicSupervisorRef(ParentRef):
    """A reference to a dynamic supervisor; its children are known by their processes."""

    __slots__ = ()

    async def start_child(self, spec: ChildSpec) -> Ref[Any] | None:
        """Start a child; returns its process, or `None` if its `init` said that it is not needed.

        Raises:
            StartFailed: If it did not start.
            Overloaded: If there are `max_children` already.
            InvalidChildSpec: If this is no child spec.
        """
        answer = await self.call(StartChild((spec,), {}), None)
        if answer[0] == "ok":
            return answer[1]  # type: ignore[no-any-return]
        match answer:
            case ("failed", id_, reason):
                raise StartFailed(id_, reason)
            case ("invalid", error):
                raise error
            case _:
                raise Overloaded(f"{self}: {answer[1]} children run already (max_children)")

    async def terminate_child(self, child: Ref[Any]) -> None:
        """Stop a child and forget it.

        Raises:
            NotRegistered: If it is no child of this supervisor.
        """
        if not isinstance(child, Ref) or not await self.call(WithChild("terminate", child), None):
            raise NotRegistered(child, message=f"{child} is no child of {self.process}")


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

    if TYPE_CHECKING:  # what `GenServer` has, with the reference that there is here

        @classmethod
        async def start(cls, *args: Any, name: object = None, **kwargs: Any) -> DynamicSupervisorRef: ...  # type: ignore[override]  # noqa: D102
        @classmethod
        async def start_link(cls, *args: Any, name: object = None, **kwargs: Any) -> DynamicSupervisorRef: ...  # noqa: D102

    strategy: ClassVar[Strategy] = Strategy.ONE_FOR_ONE

    def init(self, *, max_children: int | None = None, max_restarts: int = 3, max_seconds: float = 5.0) -> None:
        """Start without children."""
        if max_children is not None and (
            isinstance(max_children, bool) or not isinstance(max_children, int) or max_children < 0
        ):
            raise InvalidChildSpec("max_children", max_children, "None, or an integer >= 0")
        self.max_children = max_children
        self.intensity = Intensity(max_restarts, max_seconds)
        self._brood = Brood(self, self.strategy, self.intensity)

    @property
    def children(self) -> list[Child]:
        """The children in start order."""
        return self._brood.children

    def handle_call(self, request: Any, caller: Caller) -> Any:
        """Answer the functions of `DynamicSupervisorRef`."""
        if type(request) is StartChild:  # these two first: they come most often
            return self._start(*request.args)
        if type(request) is WithChild and request.action == "terminate":
            return self._brood.terminate(cast("Ref[Any]", request.id).process)
        match request:
            case WhichChildren():
                return self._brood.infos()
            case CountChildren():
                return self.counts()
            case _:
                return super().handle_call(request, caller)

    def counts(self) -> Counts:
        """Say what `count_children` says."""
        return self._brood.counts()

    def _start(self, spec: ChildSpec) -> Answer:
        if not isinstance(spec, ChildSpec):
            return ("invalid", InvalidChildSpec("child", spec, "a ChildSpec, as `SomeServer.child_spec(...)` returns"))
        if self.max_children is not None and len(self._brood) >= self.max_children:
            return ("max_children", self.max_children)
        return self._brood.start(Child(spec))

    async def handle_info(self, message: Any) -> Any:
        """Act on the end of a child."""
        return await self._brood.ended(message)

    async def handle_cast(self, message: Any) -> Any:
        """Try a failed restart again."""
        return await self._brood.again(message) if isinstance(message, TryAgain) else super().handle_cast(message)

    async def terminate(self, reason: Reason) -> None:  # noqa: ARG002 - the callback's signature
        """Stop all children at the same time, each within its own deadline."""
        await self._brood.stop()

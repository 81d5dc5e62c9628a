"""The face of a running supervisor: its children, by id, and the tree below it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeVar, cast, overload

from otpy.actors import Ref
from otpy.errors import AlreadyRegistered, NotRegistered, StartFailed, SupervisionError
from otpy.supervisors.render import Branch, branch, draw
from otpy.supervisors.requests import ChildInfo, CountChildren, Counts, StartChild, WhichChildren, WithChild
from otpy.supervisors.strategy import Strategy

if TYPE_CHECKING:
    from otpy.actors import ChildSpec
    from otpy.supervisors.child import Child

__all__ = ["SupervisorRef"]

K = TypeVar("K", bound=Ref[Any])

NO_IDS: Final = (
    "children of a simple_one_for_one supervisor have no ids; terminate_child and get_childspec take a child's Ref, "
    "and there is nothing to restart_child or delete_child: terminate_child forgets a child"
)


class ParentRef(Ref[Any]):
    """A reference to a process that has children: how many they are, and the tree below it."""

    __slots__ = ()

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
        """Return the tree below this supervisor as data, as it is at this moment."""
        return branch(self)

    def render(self) -> str:
        """Return the tree below this supervisor as text."""
        return draw(self.tree())


class SupervisorRef(ParentRef):
    """A reference to a supervisor."""

    __slots__ = ()

    @overload
    def child(self, id: object) -> Ref[Any]: ...
    @overload
    def child(self, id: object, kind: type[K]) -> K: ...
    def child(self, id: object, kind: type[Ref[Any]] = Ref) -> Ref[Any]:  # noqa: A002 - OTP's word
        """Return the process that runs a child now; after a restart it is another one.

        Args:
            id: The child's id.
            kind: What its reference is, for type checkers: `tree.child("tasks", TaskSupervisorRef)`.

        Raises:
            NotRegistered: If there is no such child, or it has no process at the moment.
            TypeError: If its reference is of another kind.
            SupervisionError: Under `simple_one_for_one`, where children have no ids.
        """
        supervisor: Any = self.process
        if supervisor.actor is None:
            raise NotRegistered(id, message=f"child {id!r} is gone: {self.process} is down")
        if supervisor.actor.strategy is Strategy.SIMPLE_ONE_FOR_ONE:
            raise SupervisionError(NO_IDS)
        children: list[Child] = list(supervisor.actor.children)
        for child in children:
            if child.spec.id != id:
                continue
            if child.ref is None:
                raise NotRegistered(id, message=f"child {id!r} has no process at the moment: it is {child.state}")
            if not isinstance(child.ref, kind):
                raise TypeError(f"the reference of child {id!r} is a {type(child.ref).__name__}, no {kind.__name__}")
            return child.ref
        known = ", ".join(repr(child.spec.id) for child in children) or "none"
        raise NotRegistered(id, message=f"{self.process} has no child {id!r}; it has: {known}")

    async def start_child(self, *args: Any, **kwargs: Any) -> Ref[Any] | None:
        """Start a further child; returns its process, or `None` if its `init` said that it is not needed.

        Args:
            args: One `ChildSpec`; under `simple_one_for_one` further arguments for the template's start.
            kwargs: None; under `simple_one_for_one` further keyword arguments for the template's start.

        Raises:
            StartFailed: If it did not start; the supervisor forgets it.
            AlreadyRegistered: If a child of this id exists; its spec decides, not the new one.
            InvalidChildSpec: If the spec is not allowed here.
        """
        return self._result(await self.call(StartChild(args, kwargs), None))  # type: ignore[no-any-return]

    async def terminate_child(self, id: object) -> None:  # noqa: A002 - OTP's word
        """Stop a child; its spec stays unless it is temporary.

        Args:
            id: The child's id; under `simple_one_for_one` its `Ref`. A child that is dead already is no error then.

        Raises:
            NotRegistered: If there is no such child.
            SupervisionError: Under `simple_one_for_one`, if this is no `Ref`.
        """
        self._result(await self.call(WithChild("terminate", id), None), id)

    async def restart_child(self, id: object) -> Ref[Any] | None:  # noqa: A002 - OTP's word
        """Start a child again that was terminated.

        Raises:
            NotRegistered: If there is no such child.
            SupervisionError: If it runs, or is being restarted; always under `simple_one_for_one`.
            StartFailed: If it did not start.
        """
        return self._result(await self.call(WithChild("restart", id), None), id)  # type: ignore[no-any-return]

    async def delete_child(self, id: object) -> None:  # noqa: A002 - OTP's word
        """Forget the spec of a child that was terminated.

        Raises:
            NotRegistered: If there is no such child.
            SupervisionError: If it runs, or is being restarted; always under `simple_one_for_one`.
        """
        self._result(await self.call(WithChild("delete", id), None), id)

    async def get_childspec(self, id: object) -> ChildSpec:  # noqa: A002 - OTP's word
        """Return the spec of a child.

        Args:
            id: The child's id; under `simple_one_for_one` its `Ref`, or the template's id.

        Raises:
            NotRegistered: If there is no such child.
        """
        return cast("ChildSpec", self._result(await self.call(WithChild("get_childspec", id), None), id))

    def _result(self, answer: Any, id_: object = None) -> Any:
        match answer:
            case ("ok", result):
                return result
            case ("failed", child, reason):
                raise StartFailed(child, reason)
            case ("already_started", child, ref):
                raise AlreadyRegistered(child, ref)
            case ("already_present", child):
                raise AlreadyRegistered(child, "a terminated child; restart_child or delete_child it")
            case ("invalid", error):
                raise error
            case "not_found":
                raise NotRegistered(id_, tuple(info.id for info in self.tree().children))
            case "simple_one_for_one":
                raise SupervisionError(f"child {id_!r}: {NO_IDS}")
            case _:
                raise SupervisionError(f"child {id_!r} is {answer}")

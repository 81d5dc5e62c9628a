"""`Agent`: a process that keeps one value; whoever wants something from it sends a function.

Source: Elixir's `Agent`.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import CoroutineType
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar, overload

from otpy.actors.gen_server import GenServer
from otpy.actors.messages import Call, Reply
from otpy.actors.ref import Ref
from otpy.actors.stepwise import run_steps, taken

if TYPE_CHECKING:
    from asyncio import Future
    from collections.abc import Callable, Coroutine

    from otpy.actors.caller import Caller
    from otpy.actors.stepwise import Steps

__all__ = ["Agent", "AgentRef", "Get", "GetAndUpdate", "Update"]

S = TypeVar("S")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Get(Call[R]):
    """What `AgentRef.get` sends; threads use it as in `ref.call_sync(Get(len))`.

    Args:
        function: Gets the state; what it returns is the answer.
    """

    function: Callable[[Any], R | Coroutine[Any, Any, R]]


@dataclass(frozen=True, slots=True)
class Update(Call[None]):
    """What `AgentRef.update` sends.

    Args:
        function: Gets the state; what it returns is the new state.
    """

    function: Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class GetAndUpdate(Call[R]):
    """What `AgentRef.get_and_update` sends.

    Args:
        function: Gets the state and returns a pair: the answer and the new state.
    """

    function: Callable[[Any], tuple[R, Any] | Coroutine[Any, Any, tuple[R, Any]]]


class AgentRef(Ref[Any], Generic[S]):
    """A reference to an agent whose state is an `S`.

    The functions run in the agent, one at a time, plain or `async`. One that raises ends the agent, as an exception
    in any process does, and whoever waits gets `ActorDown`.
    """

    __slots__ = ()

    @overload
    def get(self, function: Callable[[S], Coroutine[Any, Any, R]], timeout: float | None = 5.0) -> Future[R]: ...
    @overload
    def get(self, function: Callable[[S], R], timeout: float | None = 5.0) -> Future[R]: ...
    def get(self, function: Callable[[S], Any], timeout: float | None = 5.0) -> Future[Any]:
        """Return `function(state)`.

        Args:
            function: Gets the state itself; what it returns should be no part of it that somebody changes.
            timeout: As in `Ref.call`, which raises the same errors.
        """
        return self.call(Get(_function(function)), timeout)

    @overload
    def update(self, function: Callable[[S], Coroutine[Any, Any, S]], timeout: float | None = 5.0) -> Future[None]: ...
    @overload
    def update(self, function: Callable[[S], S], timeout: float | None = 5.0) -> Future[None]: ...
    def update(self, function: Callable[[S], Any], timeout: float | None = 5.0) -> Future[None]:
        """Make `function(state)` the state; awaited, it has happened.

        Args:
            function: Gets the state and returns the new one.
            timeout: As in `Ref.call`, which raises the same errors.
        """
        return self.call(Update(_function(function)), timeout)

    @overload
    def get_and_update(
        self, function: Callable[[S], Coroutine[Any, Any, tuple[R, S]]], timeout: float | None = 5.0
    ) -> Future[R]: ...
    @overload
    def get_and_update(self, function: Callable[[S], tuple[R, S]], timeout: float | None = 5.0) -> Future[R]: ...
    def get_and_update(self, function: Callable[[S], Any], timeout: float | None = 5.0) -> Future[Any]:
        """Change the state and return something about it, in one step that nobody else comes between.

        Args:
            function: Gets the state and returns a pair: the answer and the new state.
            timeout: As in `Ref.call`, which raises the same errors.
        """
        return self.call(GetAndUpdate(_function(function)), timeout)

    @overload  # type: ignore[override]
    def cast(self, message: Callable[[S], Coroutine[Any, Any, S]]) -> None: ...
    @overload
    def cast(self, message: Callable[[S], S]) -> None: ...
    def cast(self, message: Callable[[S], Any]) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Make `message(state)` the state, some time; nobody hears whether it happened.

        Args:
            message: A function that gets the state and returns the new one.
        """
        super().cast(_function(message))


class Agent(GenServer):
    """A process that keeps one value.

    Args (of `start`, `start_link` and `child_spec`):
        function: Makes the first state; plain or `async`.
        args: Its arguments.
        kwargs: Its keyword arguments, except for those that `GenServer.start` and `child_spec` know.

    Example:
        >>> import asyncio
        >>> from otpy.actors.agent import Agent
        >>> async def main():
        ...     basket = await Agent.start(dict)
        ...     await basket.update(lambda items: {**items, "apples": 3})
        ...     basket.cast(lambda items: {**items, "pears": 2})
        ...     print(await basket.get(sorted))
        ...     print(await basket.get_and_update(lambda items: (sum(items.values()), {})))
        ...     print(await basket.get(len))
        ...     await basket.stop()
        >>> asyncio.run(main())
        ['apples', 'pears']
        5
        0
    """

    ref_class: ClassVar[type[Ref[Any]]] = AgentRef
    _state: Any

    @overload  # type: ignore[override]
    @classmethod
    async def start(
        cls, function: Callable[..., Coroutine[Any, Any, S]], *args: Any, name: object = None, **kwargs: Any
    ) -> AgentRef[S]: ...
    @overload
    @classmethod
    async def start(cls, function: Callable[..., S], *args: Any, name: object = None, **kwargs: Any) -> AgentRef[S]: ...
    @classmethod
    async def start(  # pyright: ignore[reportIncompatibleMethodOverride] - its reference is an AgentRef
        cls, function: Callable[..., Any], *args: Any, name: object = None, **kwargs: Any
    ) -> AgentRef[Any]:
        """Start an agent that belongs to nobody, with `function(*args, **kwargs)` as its state.

        Raises:
            StartFailed: If the function raised, or is none.
            AlreadyRegistered: If the name is taken.
        """
        return await super().start(function, *args, name=name, **kwargs)  # type: ignore[return-value]

    @overload  # type: ignore[override]
    @classmethod
    async def start_link(
        cls, function: Callable[..., Coroutine[Any, Any, S]], *args: Any, name: object = None, **kwargs: Any
    ) -> AgentRef[S]: ...
    @overload
    @classmethod
    async def start_link(
        cls, function: Callable[..., S], *args: Any, name: object = None, **kwargs: Any
    ) -> AgentRef[S]: ...
    @classmethod
    async def start_link(  # pyright: ignore[reportIncompatibleMethodOverride] - its reference is an AgentRef
        cls, function: Callable[..., Any], *args: Any, name: object = None, **kwargs: Any
    ) -> AgentRef[Any]:
        """Like `start`, linked to the running process, which is then the parent."""
        return await super().start_link(function, *args, name=name, **kwargs)  # type: ignore[return-value]

    def init(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Make the first state."""
        if not callable(function):
            raise TypeError(
                f"an agent starts with a function that makes its state, not with {function!r}; try `lambda: …`"
            )
        return self._with(function(*args, **kwargs), self._keep)

    def handle_call(self, request: Any, caller: Caller) -> Any:
        """Answer the functions of `AgentRef`."""
        match request:
            case Get(function):
                return self._with(function(self._state), Reply)
            case Update(function):
                return self._with(function(self._state), self._keep)
            case GetAndUpdate(function):
                return self._with(function(self._state), self._part)
            case _:
                return super().handle_call(request, caller)

    def handle_cast(self, message: Any) -> Any:
        """Update the state."""
        if not callable(message):
            return super().handle_cast(message)
        return self._with(message(self._state), self._keep)

    def _keep(self, state: Any) -> None:
        self._state = state

    def _part(self, pair: Any) -> Reply[Any]:
        if not isinstance(pair, tuple) or len(pair) != 2:  # pyright: ignore[reportUnknownArgumentType]
            raise TypeError(f"the function of get_and_update returned {pair!r}; it returns a pair: (answer, new state)")
        self._state = pair[1]
        return Reply(pair[0])  # pyright: ignore[reportUnknownArgumentType] - a pair of anything

    def _with(self, result: Any, then: Callable[[Any], Any]) -> Any:
        if self.scheduling == "thread" and type(result) is CoroutineType:
            result.close()
            raise TypeError(f"{type(self).__name__} runs functions in a thread, without a loop; give it plain ones")
        return run_steps(_finished(result, then))

    # -- looking in ------------------------------------------------------------------------------------------------

    def system_get_state(self) -> Any:
        """Return the state as `sys.get_state` shows it: the value."""
        return self._state

    def system_replace_state(self, state: Any) -> None:
        """Take over the value that `sys.replace_state` gives."""
        self._state = state


def _finished(result: Any, then: Callable[[Any], Any]) -> Steps[Any]:
    return then((yield from taken(result)))


def _function(function: Any) -> Any:
    if not callable(function):
        raise TypeError(f"an agent is sent functions of its state, not {function!r}")
    return function

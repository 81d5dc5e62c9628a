"""`GenServer`: a process that keeps state, answers calls and is told things, one message at a time.

Source: `gen_server(3)`; the names are Elixir's.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal, NoReturn, Self

import pykka

from otpy.actors import pykka_protocol
from otpy.actors.answering import logger
from otpy.actors.child_spec import ChildSpec, ChildType, Restart, Shutdown_
from otpy.actors.mailbox import BoundedProcess, Mailbox, bounded
from otpy.actors.names import current_names
from otpy.actors.process import current_process
from otpy.actors.reasons import NOPROC, NORMAL, Exit, Reason
from otpy.actors.server import ServerProcess
from otpy.actors.threads import Threaded, refuse_coroutines
from otpy.errors import ActorDown, StartFailed

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from otpy.actors.caller import Caller
    from otpy.actors.process import Process
    from otpy.actors.ref import Ref

__all__ = ["GenServer", "StartLink"]


class GenServer(pykka.Actor):
    """The behaviour of a server process; subclass it and fill in the callbacks you need.

    The instance's attributes are the process's state, and only its callbacks touch them. Every callback may be a plain
    method or `async def`. An exception in a callback ends the process: `terminate` is called, links and monitors hear
    of it, whoever waits for an answer gets `ActorDown`, and the supervisor decides what happens next. To answer a
    call with an error and live on, use `caller.fail(error)` and return `NoReply()`.

    Example:
        >>> import asyncio
        >>> from dataclasses import dataclass
        >>> from otpy.actors import Call, Cast, GenServer
        >>> @dataclass(frozen=True)
        ... class Push(Cast):
        ...     item: int
        >>> class Pop(Call[int]):
        ...     pass
        >>> class Stack(GenServer):
        ...     def init(self, *items):
        ...         self.items = list(items)
        ...     def handle_cast(self, message):
        ...         self.items.append(message.item)
        ...     def handle_call(self, request, caller):
        ...         return self.items.pop()
        >>> async def main():
        ...     stack = await Stack.start(1, 2)
        ...     stack.cast(Push(3))
        ...     print(await stack.call(Pop()), await stack.call(Pop()))
        ...     await stack.stop()
        >>> asyncio.run(main())
        3 2
    """

    trap_exit: bool = False
    """Whether exit signals arrive as `ExitMessage`s in `handle_info`, and `terminate` runs if the parent says stop."""

    mailbox: Mailbox | None = None
    """How many messages may wait, and what happens to one more; `None` for any number."""

    scheduling: ClassVar[Literal["loop", "thread"]] = "loop"
    """Where callbacks run: on the event loop, or, for blocking code, one after the other in a thread of their own."""

    process: ServerProcess
    init_timeout: ClassVar[float | None] = None
    """Seconds that `init` may take; past them the start has failed, for the reason `"timeout"`."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Refuse a server that wants a thread and has `async` callbacks.

        Raises:
            TypeError: If so; it names the callback.
        """
        super().__init_subclass__(**kwargs)
        refuse_coroutines(cls)

    def __init__(self) -> None:  # pyright: ignore[reportMissingSuperCall] - pykka's fields are lazy here
        """Make the object; state belongs into `init`, which runs in the process."""

    # -- callbacks -------------------------------------------------------------------------------------------------

    def init(self, *args: Any, **kwargs: Any) -> Any:
        """Prepare the state; `start` returns when this does.

        Returns:
            `None` or `NoReply(timeout, then)` to go on, `Ignore()` if the process is not needed, `Stop(reason)` to
            fail.
        """
        if args or kwargs:
            raise TypeError(f"{type(self).__name__} was started with arguments but has no init to take them")

    def handle_call(self, request: Any, caller: Caller) -> Any:  # noqa: ARG002 - who overrides it needs it
        """Answer a request.

        Args:
            request: What `call` sent.
            caller: Who waits; keep it to answer later.

        Returns:
            The answer itself, `Reply(value, …)`, `NoReply()` to answer later by `caller.reply`, or `Stop(reason,
            reply)`.
        """
        if pykka_protocol.is_envelope(request):
            return pykka_protocol.handle_envelope(self, request)
        return self._unexpected("call", request)

    def handle_cast(self, message: Any) -> Any:
        """Act on a message; returns `None`, `NoReply(…)` or `Stop(reason)`."""
        if pykka_protocol.is_envelope(message):
            pykka_protocol.handle_envelope(self, message)
            return None
        return self._unexpected("cast", message)

    def handle_info(self, message: Any) -> Any:
        """Act on anything else: `Down`, `ExitMessage`, `Timeout`, timers, bare `send`s. The default logs it."""
        logger.warning("%s has no handle_info for %.200r", self.process, message)

    def handle_continue(self, argument: Any) -> Any:
        """Go on with what a callback put into `then=`, before any other message."""
        return self._unexpected("continue", argument)

    def terminate(self, reason: Reason) -> Any:
        """Clean up; called when the server stops itself or crashes, and at its parent's word if it traps exits."""

    # -- looking in ------------------------------------------------------------------------------------------------

    def format_status(self, state: Any) -> Any:
        """Say what crash reports and `sys.get_status` may show of the state; override it to leave out secrets.

        Args:
            state: What `system_get_state` returned, a copy.
        """
        return state

    def system_get_state(self) -> Any:
        """Return the state as `sys.get_state` shows it: a dict of the attributes."""
        return {name: value for name, value in vars(self).items() if name != "process"}

    def system_replace_state(self, state: Any) -> None:
        """Take over the state that `sys.replace_state` gives: the attributes, all of them."""
        process, state = self.process, dict(state)
        vars(self).clear()
        vars(self).update(state, process=process)

    def code_change(self, old: type[Any], extra: Any) -> None:
        """Bring the state of an older class into this one's form; called by `sys.change_code`.

        Args:
            old: The class whose state this is.
            extra: What `change_code` was given.
        """

    def _unexpected(self, kind: str, message: object) -> NoReturn:
        raise NotImplementedError(f"{type(self).__name__} has no handle_{kind} for {message!r}")

    # -- starting --------------------------------------------------------------------------------------------------

    @classmethod
    async def start(cls, *args: Any, name: object = None, **kwargs: Any) -> Ref[Self]:  # type: ignore[override]
        """Start a process that belongs to nobody and return when its `init` has.

        Args:
            args: For `init`.
            name: Registered for the length of its life; anything hashable, or a key of a registry (`Registry.via`).
            kwargs: For `init`, which therefore has no argument called `name`.

        Raises:
            StartFailed: If `init` raised, returned `Stop` (the reason is in the error) or `Ignore` (`"ignore"`).
            AlreadyRegistered: If the name is taken.
        """
        return await cls._spawn(None, name, args, kwargs)

    @classmethod
    async def start_link(cls, *args: Any, name: object = None, **kwargs: Any) -> Ref[Self]:
        """Like `start`, linked to the running process, which is then the parent."""
        return await cls._spawn(current_process(), name, args, kwargs)

    child_type: ClassVar[ChildType] = ChildType.WORKER

    @classmethod
    def child_spec(
        cls,
        *args: Any,
        name: object = None,
        id: object = None,  # noqa: A002 - OTP's word
        restart: Restart | str = Restart.PERMANENT,
        shutdown: Shutdown_ | None = None,
        significant: bool = False,
        **kwargs: Any,
    ) -> ChildSpec:
        """Describe a child of this class to a supervisor.

        Args:
            args: For `init`.
            name: Registered name.
            id: Names it within its supervisor; by default `name`, else the class's name.
            restart: `"permanent"`, `"transient"` or `"temporary"`.
            shutdown: Seconds, `BRUTAL_KILL` or `INFINITY`; by default 5 s, `INFINITY` for supervisors.
            significant: Whether its end can end the supervisor.
            kwargs: For `init`.

        Raises:
            InvalidChildSpec: If a value is not allowed; the message lists those that are.
        """
        if id is None:
            id = cls.__name__ if name is None else name  # noqa: A001 - OTP's word
        plain = cls.start_link.__func__ is _START_LINK  # type: ignore[attr-defined]
        start = StartLink(cls, args, name, kwargs) if plain else partial(cls.start_link, *args, name=name, **kwargs)
        return ChildSpec(
            id=id,
            start=start,
            restart=restart,  # type: ignore[arg-type]
            shutdown=shutdown,
            type=cls.child_type,
            significant=significant,
        )

    @classmethod
    def make(cls, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Self, tuple[Any, ...], dict[str, Any]]:
        """Make the object and say what its `init` gets; behaviours built on this one may keep some for themselves."""
        try:
            actor = cls()
        except TypeError as error:
            error.add_note(f"{cls.__name__}() is made without arguments; those of start() go to init()")
            raise
        return actor, args, kwargs

    @classmethod
    async def _spawn(
        cls, parent: Process | None, name: object, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Ref[Self]:
        actor, args, kwargs = cls.make(args, kwargs)
        process = actor.launch(parent, name, args, kwargs)
        await process.initialised()
        if process.start_error is not None:
            raise StartFailed(cls.__name__ if name is None else name, process.start_error)
        return process.ref

    def launch(
        self,
        parent: Process | None,
        name: object = None,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> ServerProcess:
        """Make a process for this object and begin its `init`, which `process.initialised()` waits for.

        `start` and `start_link` do both, and make the object first.
        """
        if parent is not None and not parent.alive:
            raise ActorDown(str(parent), NOPROC)
        process = (BoundedProcess if bounded(self) else ServerProcess)(self, name, parent)
        self.process = process
        if name is not None:
            current_names().register(name, process)
        if parent is not None:
            process.link(parent)
        process.callbacks = self.callbacks_for(process)
        pykka_protocol.register(process)
        process.begin(args, kwargs or {})
        return process

    def callbacks_for(self, process: ServerProcess) -> Any:
        """Return the object whose callbacks the process calls: this one, or one that runs them in a thread."""
        return Threaded(self, process) if self.scheduling == "thread" else self

    @property
    def ref(self) -> Ref[Self]:
        """This process's own reference."""
        return self.process.ref

    def exit(self, reason: Reason) -> NoReturn:
        """End this process with a reason, from any depth of a callback."""
        raise Exit(reason)

    # -- pykka -----------------------------------------------------------------------------------------------------

    @property
    def actor_ref(self) -> Ref[Self]:  # pyright: ignore[reportIncompatibleMethodOverride] - narrower
        """pykka's word for `ref`."""
        return self.process.ref

    @property
    def actor_urn(self) -> str:  # type: ignore[override]
        """pykka's identity."""
        return self.process.ref.actor_urn

    @property
    def actor_stopped(self) -> Any:  # type: ignore[override]
        """pykka's flag."""
        return self.process.ref.actor_stopped

    @property
    def actor_inbox(self) -> Any:  # type: ignore[override]
        """pykka's mailbox."""
        return self.process.ref.actor_inbox

    def stop(self) -> None:
        """Ask this process for an orderly end."""
        self.process.across(type(self.process).stop_request, NORMAL)

    @staticmethod
    def _create_actor_inbox() -> Any:
        raise NotImplementedError("an otpy process has its own mailbox")

    @staticmethod
    def _create_future() -> Any:
        future: pykka_protocol.PykkaFuture[Any] = pykka_protocol.PykkaFuture()
        return future

    def _start_actor_loop(self) -> None:
        raise NotImplementedError("an otpy process is started by start() or start_link()")


_START_LINK: Final[Any] = GenServer.__dict__["start_link"].__func__


class StartLink:
    """How a child spec starts a behaviour: `{Module, start_link, Args}` in Erlang.

    Called, it returns the coroutine of `start_link`. A supervisor has a quicker way: most `init`s wait for nothing.

    Args:
        behaviour: The class.
        args: For `init`.
        name: Registered name.
        kwargs: For `init`.
    """

    __slots__ = ("args", "behaviour", "kwargs", "name")

    def __init__(self, behaviour: type[GenServer], args: tuple[Any, ...], name: object, kwargs: dict[str, Any]) -> None:
        """Start nothing yet."""
        self.behaviour, self.args, self.name, self.kwargs = behaviour, args, name, kwargs

    def __call__(self, *more: Any, **others: Any) -> Coroutine[Any, Any, Ref[Any]]:
        """Start a process, linked to the running one; further arguments go behind those that there are."""
        return self.behaviour.start_link(*self.args, *more, name=self.name, **{**self.kwargs, **others})

    def __repr__(self) -> str:
        """Show the call."""
        args = [*map(repr, self.args), *(f"{key}={value!r}" for key, value in self.kwargs.items())]
        return f"{self.behaviour.__name__}.start_link({', '.join(args)})"

    def launch(self, parent: Process | None) -> ServerProcess:
        """Make the process and begin its `init`, as `GenServer.launch` does."""
        actor, args, kwargs = self.behaviour.make(self.args, self.kwargs)
        return actor.launch(parent, self.name, args, kwargs)

"""`PykkaActor`: an unmodified pykka actor with a supervisor.

A process of ours keeps a pykka actor that runs, as pykka wants it, in a thread of its own. What pykka keeps to itself
becomes an event here: a constructor or `on_start` that raises is a failed start, an end of any kind ends the process
with its reason. What pykka does with messages stays as it is: an `ask` that raises is answered with the exception and
the actor lives on; a `tell` that raises ends it. Only one habit is taken from it: a `SystemExit` in one actor, which
pykka answers by stopping every actor of the interpreter, ends that one alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import sys
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pykka
from pykka._envelope import Envelope

from otpy.actors import pykka_protocol
from otpy.actors.answering import logger
from otpy.actors.child_spec import ChildSpec, Restart, Shutdown_
from otpy.actors.gen_server import GenServer
from otpy.actors.messages import ExitMessage, NoReply, Stop
from otpy.actors.reasons import NOPROC, NORMAL, Reason, said
from otpy.actors.ref import Ref
from otpy.actors.threads import Orphan, _orphans, blocking
from otpy.errors import ActorDown
from otpy.telemetry import bus as telemetry

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from otpy.actors.caller import Caller
    from otpy.actors.process import Process

__all__ = ["PykkaActor", "PykkaActorRef"]

_WAKE = object()
"""Put into the inbox of an actor whose stop flag is set, so that its thread sees the flag."""


@dataclass(frozen=True, slots=True)
class _Ended:
    """The actor's thread has come to its end."""

    message: object

    def __repr__(self) -> str:
        """Print what the actor was at, for its crash report."""
        return repr(self.message)


class _Answer:
    """The part of a pykka future that an actor uses, over the caller of a call."""

    def __init__(self, caller: Caller, stopped: threading.Event) -> None:
        self._caller, self._stopped = caller, stopped

    def set(self, value: Any = None) -> None:
        self._caller.reply(value)

    def set_exception(self, exc_info: Any = None) -> None:
        _, error, _ = exc_info or sys.exc_info()
        assert error is not None
        # unanswered because the actor has stopped: the caller hears of it, with the reason, when the process ends
        if not (isinstance(error, pykka.ActorDeadError) and self._stopped.is_set()):
            self._caller.fail(error)


class PykkaActorRef(Ref[Any]):
    """The reference to a process that keeps a pykka actor: ours, and the way to pykka's."""

    __slots__ = ()

    @property
    def pykka_ref(self) -> pykka.ActorRef[Any]:
        """pykka's own reference to the actor.

        Raises:
            ActorDown: If the process has ended, and the actor with it.
        """
        if not self.process.alive:
            raise ActorDown(str(self.process), NOPROC)
        process: Any = self.process  # a server's, which has an `actor`
        keeper: PykkaActor = process.actor
        return keeper.pykka_ref

    @property
    def actor_class(self) -> type[Any]:  # type: ignore[override]
        """The keeper's class: its futures, unlike those of the actor's class, can be awaited."""
        return PykkaActor

    def proxy(self) -> Any:
        """pykka's proxy of the actor.

        Raises:
            ActorDown: If the process has ended, and the actor with it.
        """
        return self.pykka_ref.proxy()


class PykkaActor(GenServer):
    """A process that keeps a pykka actor: started, watched and stopped like any other, for supervisors of ours.

    To the process, `call` is pykka's `ask`, `cast` and `send` are its `tell`, and calls can be awaited, which pykka's
    own futures cannot without blocking the loop. To pykka's side the actor is in the `ActorRegistry`, and
    `ref.pykka_ref` is its reference; what stops it there, `ActorRegistry.stop_all()` too, ends the process normally,
    and the supervisor restarts it if it is permanent.

    The constructor and the actor run in threads, so neither blocks the loop. The actor's is a daemon: it is the
    supervisor that stops it, by pykka's `stop()`. A thread that does not end in time cannot be killed; it is left
    behind as an orphan, which the log and the event `otpy.process.orphaned` report, and shown by `orphans()`.

    Args (of `start`, `start_link` and `child_spec`):
        actor: The actor's class, or any function that makes an actor.
        args: For its constructor.
        kwargs: For its constructor; bind those that are called `name`, `id`, `restart`, `shutdown` or `significant`
            with `functools.partial`.

    Example:
        >>> import asyncio, pykka
        >>> from otpy.actors.pykka_actor import PykkaActor
        >>> from otpy.supervisors import Supervisor
        >>> class Greeter(pykka.ThreadingActor):
        ...     def __init__(self, greeting):
        ...         super().__init__()
        ...         self.greeting = greeting
        ...     def on_receive(self, message):
        ...         return f"{self.greeting}, {message}"
        >>> async def main():
        ...     async with Supervisor([PykkaActor.child_spec(Greeter, "Hello")]) as tree:
        ...         print(await tree.child("Greeter").call("world"))
        >>> asyncio.run(main())
        Hello, world
    """

    trap_exit = True
    ref_class = PykkaActorRef

    if TYPE_CHECKING:  # what `GenServer` has, with the reference that there is here

        @classmethod
        async def start(cls, *args: Any, name: object = None, **kwargs: Any) -> PykkaActorRef: ...  # type: ignore[override]  # noqa: D102
        @classmethod
        async def start_link(cls, *args: Any, name: object = None, **kwargs: Any) -> PykkaActorRef: ...  # noqa: D102

    takes_envelopes = True  # what pykka's protocol brings goes on to the actor as it is

    @classmethod
    def child_spec(  # type: ignore[override]  # noqa: PLR0913 - `GenServer.child_spec` and what is kept
        cls,
        actor: Callable[..., pykka.Actor],
        *args: Any,
        name: object = None,
        id: object = None,  # noqa: A002 - OTP's word
        restart: Restart | str = Restart.PERMANENT,
        shutdown: Shutdown_ | None = None,
        significant: bool = False,
        **kwargs: Any,
    ) -> ChildSpec:
        """Describe a pykka actor to a supervisor.

        Args:
            actor: The actor's class, or any function that makes an actor.
            args: For its constructor.
            name: Registered name of the process.
            id: Names it within its supervisor; by default `name`, else the name of the actor's class.
            restart: `"permanent"`, `"transient"` or `"temporary"`.
            shutdown: Seconds for the messages that wait and for `on_stop`, `BRUTAL_KILL` or `INFINITY`; 5 s by default.
            significant: Whether its end can end the supervisor.
            kwargs: For its constructor.

        Raises:
            InvalidChildSpec: If a value is not allowed; the message lists those that are.
        """
        if id is None and name is None:
            made_by = actor.func if isinstance(actor, functools.partial) else actor
            id = getattr(made_by, "__name__", cls.__name__)  # noqa: A001 - OTP's word
        return super().child_spec(
            actor, *args, name=name, id=id, restart=restart, shutdown=shutdown, significant=significant, **kwargs
        )

    async def init(self, actor: Callable[..., pykka.Actor], *args: Any, **kwargs: Any) -> Stop | None:
        """Make the actor, start its thread, and wait for `on_start`.

        Raises:
            TypeError: If it is no pykka actor, or one of our own servers, which need no keeper.
        """
        pykka_protocol.unregister(self.process)  # pykka's registry is to show the actor, not its keeper
        self._failure: BaseException | None = None
        self._at: object = None
        self._cleaned_up = self._busy = False
        self._thread: threading.Thread | None = None
        self._up: asyncio.Future[bool] = self.process.loop.create_future()
        self._over: asyncio.Future[None] = self.process.loop.create_future()
        made = await blocking(functools.partial(actor, *args, **kwargs))()
        if not isinstance(made, pykka.Actor) or isinstance(made, GenServer):
            raise TypeError(f"{made!r} is no pykka actor; allowed: an instance of a pykka.Actor that is no GenServer")
        self._actor: pykka.Actor = made
        self._dispatch, self._failed_in_pykka = made._handle_receive, made._handle_failure  # noqa: SLF001 - see _watch
        self._watch(made)
        self._face = self.process.ref  # of this keeper's own class, which its kind soon hides
        self.process.kind = type(made)  # messages and reports name what runs here
        pykka.ActorRegistry.register(self.pykka_ref)
        self.process.when_down(self._abandon)
        made._start_actor_loop()  # noqa: SLF001 - pykka's `start` would make another actor
        return None if await self._up else Stop(self._failure)

    @property
    def pykka_ref(self) -> pykka.ActorRef[Any]:
        """pykka's own reference to the actor."""
        return self._actor.actor_ref

    # -- in the actor's thread -------------------------------------------------------------------------------------

    def _watch(self, actor: Any) -> None:
        """Look over the shoulder of this one actor: pykka has no hook that hears of every end."""
        run, set_up = actor._actor_loop, actor._actor_loop_setup  # noqa: SLF001
        actor.use_daemon_thread = True
        actor._actor_loop = lambda: self.process.context.copy().run(self._live, run)  # noqa: SLF001
        actor._actor_loop_setup = lambda: self._set_up(set_up)  # noqa: SLF001
        actor._handle_receive = self._receive  # noqa: SLF001
        actor._handle_failure = self._fail  # noqa: SLF001

    def _live(self, run: Callable[[], None]) -> None:
        self._thread, self._busy = threading.current_thread(), True
        try:
            run()
        except BaseException as error:  # noqa: BLE001 - pykka leaves such an actor registered, and its callers waiting
            self._end(error)
            self._actor._actor_loop_teardown()  # noqa: SLF001
        if self._failure is not None and not isinstance(self._failure, Exception) and not self._cleaned_up:
            failure = self._failure
            with contextlib.suppress(Exception):
                self._actor.on_failure(type(failure), failure, failure.__traceback__)
        self._tell(self._gone)

    def _set_up(self, set_up: Callable[[], None]) -> None:
        set_up()
        if self._failure is None:
            self._busy = False
            self._tell(self._started)

    def _receive(self, message: Any) -> Any:
        if message is _WAKE:
            return None
        self._at, self._busy = message, True
        try:
            return self._dispatch(message)
        except Exception:
            raise
        except BaseException as error:
            self._end(error)
            raise ActorDown(str(self.process), error) from error  # pykka would stop all actors, and answer nobody
        finally:
            self._busy = self._actor.actor_stopped.is_set()

    def _fail(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._cleaned_up = self._busy = True
        if self._failure is None:
            self._failure = error
        self._failed_in_pykka(kind, error, traceback)

    def _end(self, error: BaseException) -> None:
        self._failure = error
        pykka.ActorRegistry.unregister(self.pykka_ref)
        self._actor.actor_stopped.set()

    def _tell(self, method: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is gone, and with it whoever would have listened
            self.process.loop.call_soon_threadsafe(method)

    # -- on the loop -----------------------------------------------------------------------------------------------

    def _started(self) -> None:
        if not self._up.done():
            self._up.set_result(True)

    def _gone(self) -> None:
        if not self._over.done():
            self._over.set_result(None)
        if not self._up.done():
            self._up.set_result(False)
        else:
            self.ref.send(_Ended(self._at))

    def handle_call(self, request: Any, caller: Caller) -> Any:
        """Pass a request on; the answer comes from the actor."""
        self._pass_on(request, _Answer(caller, self._actor.actor_stopped))
        return NoReply()

    def handle_cast(self, message: Any) -> None:
        """Pass a message on."""
        self._pass_on(message)

    def handle_info(self, message: Any) -> Stop | None:
        """End with the actor, or with whoever is linked; pass anything else on.

        Raises:
            Exception: What ended the actor, as its crash.
        """
        match message:
            case _Ended():
                if isinstance(self._failure, Exception):
                    raise self._failure
                return Stop(NORMAL if self._failure is None else self._failure)
            case ExitMessage():
                return None if said(message.reason, NORMAL) else Stop(message.reason)
            case _:
                self._pass_on(message)
                return None

    def _pass_on(self, message: Any, answer: Any = None) -> None:
        if pykka_protocol.is_envelope(message):
            message = message.message
        if not self._actor.actor_stopped.is_set():
            self._actor.actor_inbox.put(Envelope(message, answer))

    async def terminate(self, reason: Reason) -> None:  # noqa: ARG002 - the callback's signature
        """Ask the actor to stop, behind what waits in its inbox, and wait for the end of its thread."""
        if not self._over.done():
            with contextlib.suppress(pykka.ActorDeadError):  # it is on its way out
                self._actor.stop()
            await asyncio.wait((self._over,))

    def _abandon(self, process: Process) -> None:
        """A process that was killed leaves its actor behind: idle, it ends at once; busy, when its thread lets it."""
        if self._over.done():
            return
        pykka.ActorRegistry.unregister(self.pykka_ref)
        self._actor.actor_stopped.set()
        self._actor.actor_inbox.put(Envelope(_WAKE))
        if self._busy and self._thread is not None and self._thread.ident is not None:
            _orphans[self._thread.ident] = Orphan(str(process), process.pid, self._thread, time.monotonic())
            logger.error("%s is dead, but its pykka actor's thread cannot be ended; it runs on as an orphan", process)
            telemetry.emit("otpy.process.orphaned", process=str(process), pid=process.pid, reason=process.exit_reason)

    # -- looking in ------------------------------------------------------------------------------------------------

    def system_get_state(self) -> Any:
        """Return the attributes of the actor, without pykka's own."""
        ours = {"use_daemon_thread", *vars(pykka.Actor).keys(), *pykka.Actor.__annotations__}
        return {name: value for name, value in dict(vars(self._actor)).items() if name not in ours}

    def system_replace_state(self, state: Any) -> None:  # noqa: ARG002 - the callback's signature
        """Refuse: only the actor's own thread may change what it works on.

        Raises:
            TypeError: Always.
        """
        raise TypeError(f"the state of {self.pykka_ref} belongs to its thread; send it a message that changes it")

"""pykka's protocol on our processes: `ask`, `tell`, proxies, stopping, and the registry.

A `GenServer` is a `pykka.Actor` and its `Ref` a `pykka.ActorRef`; what pykka builds for each actor up front (a uuid, a
queue, an event) is made here only when somebody asks for it. pykka's process-wide `ActorRegistry` keeps its references
in a list with O(n) lookup and removal; ours is the same sequence with O(1) for both.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
import threading
from typing import TYPE_CHECKING, Any

import pykka
from pykka import ActorDeadError, messages

from otpy.actors.caller import Caller
from otpy.actors.process import Process, current_process
from otpy.actors.pykka_future import PykkaFuture
from otpy.actors.reasons import NORMAL
from otpy.actors.threads import Threaded
from otpy.errors import ActorDown

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable, Iterator

    from otpy.actors.ref import Ref


__all__ = ["PykkaFuture", "RefTable", "handle_envelope", "is_envelope", "put_envelope"]


class RefTable:
    """What stands in for `ActorRegistry`'s list: the part of a list that pykka uses, in constant time.

    Of ours it keeps the processes, whose references are made when somebody looks.
    """

    def __init__(self, refs: Iterable[pykka.ActorRef[Any]] = ()) -> None:
        """Take over the references there are."""
        self.known: dict[pykka.ActorRef[Any] | Process, None] = dict.fromkeys(refs)

    def append(self, ref: pykka.ActorRef[Any]) -> None:
        """Add one."""
        self.known[getattr(ref, "process", ref)] = None

    def remove(self, ref: pykka.ActorRef[Any]) -> None:
        """Remove one."""
        self.known.pop(getattr(ref, "process", ref), None)

    def __contains__(self, ref: object) -> bool:
        """Whether it is there."""
        return getattr(ref, "process", ref) in self.known

    def __iter__(self) -> Iterator[pykka.ActorRef[Any]]:
        """In order of registration."""
        return iter(self[:])

    def __getitem__(self, index: slice) -> list[pykka.ActorRef[Any]]:
        """Copy, as `refs[:]` does, without the processes that ended unheard because their loop was closed."""
        found: list[pykka.ActorRef[Any]] = []
        for known in tuple(self.known):
            if not isinstance(known, Process):
                found.append(known)
            elif known.loop.is_closed():
                self.known.pop(known, None)
            else:
                found.append(known.ref)
        return found[index]

    def __len__(self) -> int:
        """Count them."""
        return len(self.known)


if not isinstance(pykka.ActorRegistry._actor_refs, RefTable):  # noqa: SLF001 - there is no public way to replace it
    with pykka.ActorRegistry._actor_refs_lock:  # noqa: SLF001
        pykka.ActorRegistry._actor_refs = RefTable(pykka.ActorRegistry._actor_refs)  # type: ignore[assignment]  # noqa: SLF001
_table: RefTable = pykka.ActorRegistry._actor_refs  # type: ignore[assignment]  # noqa: SLF001


class _ThreadsafeFuture:
    """The part of an asyncio future that `Caller` uses, over a pykka future."""

    __slots__ = ("_future", "_process")
    takes_reason = True  # pykka's callers get the exception itself, not `ActorDown`

    def __init__(self, future: pykka.Future[Any], process: Process) -> None:
        self._future, self._process = future, process

    def done(self) -> bool:
        inner = getattr(self._future, "_result", None)
        return bool(inner.done()) if isinstance(inner, concurrent.futures.Future) else inner is not None

    def set_result(self, value: object) -> None:
        self._future.set(value)

    def set_exception(self, error: BaseException) -> None:
        """Pass an exception on; that a process is down is said in pykka's words."""
        if isinstance(error, ActorDown) and not self._process.alive:
            dead = ActorDeadError(f"{self._process} stopped before handling the message")
            dead.__cause__, error = error, dead
        self._future.set_exception((type(error), error, error.__traceback__))

    def add_done_callback(self, callback: object) -> None:
        """Nobody cancels a pykka future."""


class StoppedFlag:
    """What `actor_stopped` answers: an event that is read from the process itself."""

    def __init__(self, process: Process) -> None:
        """Watch a process."""
        self._process = process

    def is_set(self) -> bool:
        """Whether the process is dead, or its loop gone."""
        return not self._process.alive or self._process.loop.is_closed()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait in a thread for the death.

        Raises:
            RuntimeError: On the thread of the process's own loop, which waiting would block.
        """
        if self.is_set():
            return True
        if self._process.on_own_loop():
            raise RuntimeError("wait() would block the event loop of the process; await ref.join() instead")
        died = threading.Event()

        def tell(_: Process) -> None:
            died.set()

        self._process.loop.call_soon_threadsafe(self._process.when_down, tell)
        return died.wait(timeout)


class Inbox:
    """What `actor_inbox` answers: pykka's way in."""

    def __init__(self, process: Process) -> None:
        """Lead to a process's mailbox."""
        self._process = process

    def put(self, envelope: Any, /) -> None:
        """Put a pykka envelope into the mailbox."""
        put_envelope(self._process, envelope.message, envelope.reply_to)

    def get(self) -> Any:
        """Refuse: the process takes its messages itself."""
        raise NotImplementedError("the mailbox of an otpy process is read by its own loop")

    def empty(self) -> bool:
        """Whether nothing waits."""
        return getattr(self._process, "queued", lambda: 0)() == 0


class Envelope:
    """A message that came by pykka's `ask`, `tell` or a proxy and is handled pykka's way."""

    __slots__ = ("message",)

    def __init__(self, message: object) -> None:
        """Wrap a message."""
        self.message = message

    def __repr__(self) -> str:
        """Print the message."""
        return repr(self.message)


def is_envelope(item: object) -> bool:
    """Whether a message or request came by pykka's protocol."""
    return type(item) is Envelope


class _Bilingual:
    """The callbacks of a server that is spoken to by pykka, and may have callbacks of its own."""

    def __init__(self, callbacks: Any) -> None:
        self._callbacks = callbacks
        self.heard = True

    def __getattr__(self, name: str) -> Any:
        return getattr(self._callbacks, name)

    def handle_call(self, request: Any, caller: Caller) -> Any:
        if is_envelope(request):
            return handle_envelope(self._callbacks, request)
        return self._callbacks.handle_call(request, caller)

    def handle_cast(self, message: Any) -> Any:
        if is_envelope(message):
            result = handle_envelope(self._callbacks, message)
            return _silently(result) if asyncio.iscoroutine(result) else None
        return self._callbacks.handle_cast(message)

    def hear(self) -> None:
        self.heard = True


async def _silently(coroutine: Coroutine[Any, Any, object]) -> None:
    await coroutine


@functools.cache
def _own(kind: Any, callback: str) -> bool:
    """Whether a class has this callback from nobody of ours nor of pykka's."""
    owner = next(known for known in kind.__mro__ if callback in vars(known))
    return owner.__module__ not in {"otpy.actors.gen_server", "pykka._actor"}


def _deliver(process: Process, item: object) -> None:
    """Put an envelope into the mailbox of a process, which can open it from now on."""
    heard = True
    callbacks: Any = getattr(process, "callbacks", None)
    if isinstance(callbacks, Threaded):
        if not isinstance(callbacks._actor, _Bilingual):  # noqa: SLF001 - where the thread looks
            callbacks._actor = _Bilingual(callbacks._actor)  # type: ignore[assignment]  # noqa: SLF001
    elif callbacks is not None and not hasattr(callbacks, "takes_envelopes"):
        if not isinstance(callbacks, _Bilingual):
            server: Any = process
            server.callbacks = callbacks = _Bilingual(callbacks)
            if current_process() is process:  # the turn under way has looked its callbacks up already
                callbacks.heard = False
                process.loop.call_soon(callbacks.hear)
        heard = callbacks.heard
    if heard:
        process.deliver(item)
    else:
        process.loop.call_soon(process.deliver, item)


def put_envelope(process: Process, message: object, reply_to: pykka.Future[Any] | None) -> None:
    """Send by pykka's protocol.

    A proxy's work is done, and a class with an `on_receive` gets its message there, as in pykka. A class that has a
    `handle_call` of its own instead gets what was asked there, and in `handle_cast` what was told.
    """
    if process.loop.is_closed():
        if reply_to is not None:
            _refuse(process, reply_to)
        return
    if isinstance(message, messages._ActorStop):  # noqa: SLF001 - pykka's word for stop
        process.across(_stop, reply_to)
        return
    kind: Any = process.kind
    callback = "handle_cast" if reply_to is None else "handle_call"
    plain = (
        not isinstance(message, (messages.ProxyCall, messages.ProxyGetAttr, messages.ProxySetAttr))
        and hasattr(kind, "on_receive")
        and not _own(kind, "on_receive")
        and _own(kind, callback)
    )
    content = message if plain else Envelope(message)
    deliver = type(process).deliver if plain else _deliver
    if reply_to is None:
        from otpy.actors.envelopes import CastEnvelope  # noqa: PLC0415 - the caller knows this room

        process.across(deliver, CastEnvelope(content))
    else:
        future: Any = _ThreadsafeFuture(reply_to, process)
        process.across(deliver, Caller(content, future, process.loop, process))


def _stop(process: Process, reply_to: pykka.Future[Any] | None) -> None:
    if not process.alive:
        if reply_to is not None:
            _refuse(process, reply_to)
        return
    if reply_to is not None:
        process.when_down(lambda _: reply_to.set(None))
    process.stop_request(NORMAL)


def _refuse(process: Process, reply_to: pykka.Future[Any]) -> None:
    reply_to.set_exception((ActorDeadError, ActorDeadError(f"{process} is dead"), None))


def handle_envelope(actor: pykka.Actor, envelope: object) -> Any:
    """Do what pykka does with a message: a proxy's work, or `on_receive`."""
    assert isinstance(envelope, Envelope)
    return actor._handle_receive(envelope.message)  # noqa: SLF001 - pykka's own dispatcher


def known_refs() -> list[Ref[Any]]:
    """Return the references of our processes, in the order in which they were started."""
    return [known.ref for known in tuple(_table.known) if isinstance(known, Process)]


def register(process: Process) -> None:
    """Show a process in pykka's `ActorRegistry`."""
    _table.known[process] = None  # without pykka's lock and log line


def unregister(process: Process) -> None:
    """Take a process out of pykka's `ActorRegistry`."""
    _table.known.pop(process, None)

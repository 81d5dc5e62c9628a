"""pykka's protocol on our processes: the only room that imports pykka's classes.

A `GenServer` is a `pykka.Actor` and its `Ref` a `pykka.ActorRef`; what pykka builds for each actor up front (a uuid, a
queue, an event) is made here only when somebody asks for it. pykka's process-wide `ActorRegistry` keeps its references
in a list with O(n) lookup and removal; ours is the same sequence with O(1) for both.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from asyncio.events import _get_running_loop
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import pykka
from pykka import ActorDeadError, messages

from otpy.actors.caller import Caller
from otpy.actors.reasons import NORMAL

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator

    from otpy.actors.process import Process
    from otpy.actors.ref import Ref

__all__ = ["PykkaFuture", "RefTable", "handle_envelope", "is_envelope", "put_envelope"]

T = TypeVar("T")


class RefTable:
    """What stands in for `ActorRegistry`'s list: the part of a list that pykka uses, in constant time."""

    def __init__(self, refs: Iterable[pykka.ActorRef[Any]] = ()) -> None:
        """Take over the references there are."""
        self._refs: dict[pykka.ActorRef[Any], None] = dict.fromkeys(refs)

    def append(self, ref: pykka.ActorRef[Any]) -> None:
        """Add one."""
        self._refs[ref] = None

    def remove(self, ref: pykka.ActorRef[Any]) -> None:
        """Remove one."""
        self._refs.pop(ref, None)

    def __contains__(self, ref: object) -> bool:
        """Whether it is there."""
        return ref in self._refs

    def __iter__(self) -> Iterator[pykka.ActorRef[Any]]:
        """In order of registration."""
        return iter(tuple(self._refs))

    def __getitem__(self, index: slice) -> list[pykka.ActorRef[Any]]:
        """Copy, as `refs[:]` does."""
        return list(self._refs)[index]

    def __len__(self) -> int:
        """Count them."""
        return len(self._refs)


if not isinstance(pykka.ActorRegistry._actor_refs, RefTable):  # noqa: SLF001 - there is no public way to replace it
    with pykka.ActorRegistry._actor_refs_lock:  # noqa: SLF001
        pykka.ActorRegistry._actor_refs = RefTable(pykka.ActorRegistry._actor_refs)  # type: ignore[assignment]  # noqa: SLF001


class PykkaFuture(pykka.Future[T], Generic[T]):
    """A `pykka.Future` that can be awaited without blocking the loop, and waited for in a thread."""

    def __init__(self) -> None:
        """Start empty."""
        super().__init__()
        self._result: concurrent.futures.Future[Any] = concurrent.futures.Future()

    def get(self, *, timeout: float | None = None) -> Any:
        """Wait in a thread for the value.

        Raises:
            pykka.Timeout: If it takes longer than `timeout` seconds.
            RuntimeError: On a thread that runs an event loop, which waiting would block: await the future there.
        """
        if self._get_hook is not None:
            return super().get(timeout=timeout)
        if not self._result.done() and _get_running_loop() is not None:
            raise RuntimeError("get() would block the event loop that runs in this thread; await the future instead")
        try:
            return self._result.result(timeout)
        except concurrent.futures.TimeoutError:
            if self._result.done():
                raise
            raise pykka.Timeout(f"{timeout} seconds") from None

    def set(self, value: Any = None) -> None:
        """Set the value, once."""
        self._result.set_result(value)

    def set_exception(self, exc_info: Any = None) -> None:
        """Set an exception, by default the one being handled."""
        import sys  # noqa: PLC0415 - needed by pykka's own habit only

        _, error, _ = exc_info or sys.exc_info()
        self._result.set_exception(error)

    def __await__(self) -> Generator[Any, None, Any]:
        """Wait for the value without blocking the loop."""
        if self._get_hook is not None:
            return (yield from asyncio.to_thread(self.get).__await__())
        return (yield from asyncio.wrap_future(self._result).__await__())


class _ThreadsafeFuture:
    """The part of an asyncio future that `Caller` uses, over a `PykkaFuture`."""

    __slots__ = ("_future",)
    takes_reason = True  # pykka's callers get the exception itself, not `ActorDown`

    def __init__(self, future: pykka.Future[Any]) -> None:
        self._future = future

    def done(self) -> bool:
        inner = getattr(self._future, "_result", None)
        return bool(inner.done()) if isinstance(inner, concurrent.futures.Future) else inner is not None

    def set_result(self, value: object) -> None:
        self._future.set(value)

    def set_exception(self, error: BaseException) -> None:
        self._future.set_exception((type(error), error, error.__traceback__))

    def add_done_callback(self, callback: object) -> None:
        """Nobody cancels a pykka future."""


class StoppedFlag:
    """What `actor_stopped` answers: an event that is read from the process itself."""

    def __init__(self, process: Process) -> None:
        """Watch a process."""
        self._process = process

    def is_set(self) -> bool:
        """Whether the process is dead."""
        return not self._process.alive

    def wait(self, timeout: float | None = None) -> bool:
        """Wait in a thread for the death."""
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
    """A message that came by pykka's `ask`, `tell` or a proxy."""

    __slots__ = ("message",)

    def __init__(self, message: object) -> None:
        """Wrap a message."""
        self.message = message


def is_envelope(item: object) -> bool:
    """Whether a message or request came by pykka's protocol."""
    return type(item) is Envelope


def put_envelope(process: Process, message: object, reply_to: pykka.Future[Any] | None) -> None:
    """Send by pykka's protocol: to `handle_call` with somebody to answer, to `handle_cast` without."""
    if isinstance(message, messages._ActorStop):  # noqa: SLF001 - pykka's word for stop

        def stopped(_: object) -> None:
            if reply_to is not None:
                reply_to.set(None)

        def stop() -> None:
            if not process.alive and reply_to is not None:
                reply_to.set_exception((ActorDeadError, ActorDeadError(f"{process} is dead"), None))
                return
            process.when_down(stopped)
            process.stop_request(NORMAL)

        process.loop.call_soon_threadsafe(stop)
        return
    if reply_to is None:
        from otpy.actors.envelopes import CastEnvelope  # noqa: PLC0415 - the caller knows this room

        process.across(type(process).deliver, CastEnvelope(Envelope(message)))
        return
    caller = Caller(Envelope(message), _ThreadsafeFuture(reply_to), process.loop, process)  # type: ignore[arg-type]
    process.across(type(process).deliver, caller)


def handle_envelope(actor: pykka.Actor, envelope: object) -> Any:
    """Do what pykka does with a message: a proxy's work, or `on_receive`."""
    assert isinstance(envelope, Envelope)
    return actor._handle_receive(envelope.message)  # noqa: SLF001 - pykka's own dispatcher


def register(ref: Ref[Any]) -> None:
    """Show a process in pykka's `ActorRegistry`."""
    pykka.ActorRegistry._actor_refs.append(ref)  # noqa: SLF001 - without its lock and log line, see RefTable


def unregister(ref: Ref[Any]) -> None:
    """Take a process out of pykka's `ActorRegistry`."""
    pykka.ActorRegistry._actor_refs.remove(ref)  # noqa: SLF001

"""One event bus: what happens is emitted once, and whoever wants to know attaches a listener.

| event | fields | when |
|---|---|---|
| `otpy.process.exit` | process, pid, reason | a process ended abnormally (with `verbose`: in any way) |
| `otpy.process.crash` | process, pid, behaviour, reason, message, state, ancestors, queued | a callback raised |
| `otpy.process.orphaned` | process, pid, reason | a killed process went on swallowing its cancellation |
| `otpy.mailbox.full` | process, pid, capacity | a bounded mailbox refused or dropped a message |
| `otpy.loop.blocked` / `.freed` | process, seconds, stack; process, seconds | a callback holds the loop |
| `otpy.supervisor.restart` | supervisor, child, pid, reason, decision, restarts | a child is restarted |
| `otpy.supervisor.left` | supervisor, child, pid, reason, decision | a child that ended is not restarted |
| `otpy.supervisor.gave_up` | supervisor, child, pid, reason, decision, max_restarts, max_seconds | too many restarts |
| `otpy.supervisor.child_failed` | supervisor, child, reason | a child did not start |
| `otpy.port.output` | port, line | an OS process wrote a line that nobody asked for |
| `otpy.client.request.start` / `.stop` / `.exception` | client, model, attempt; seconds, usage or error | a request |
| `otpy.client.retry` | client, model, attempt, delay, error | a request will be tried again |
| `otpy.client.cache` | client, hit | a request was looked up |
| `otpy.breaker.change` | client, model, state | a circuit opened, half opened or closed |
| `otpy.budget.exceeded` | client, labels, error | a request was refused because a cap would have been passed |
| `otpy.ledger.restart` / `.lost` | restarts; requests | the ledger is back; nobody said how these went |
| `otpy.recording.damaged` | path, lines | lines of a recording could not be read |
| `otpy.journal.damaged` | path, lines | lines of an evaluation's journal could not be read |
| `otpy.client.recording` | client, hit | a recording was looked into |
| `otpy.cache.degraded` | path, error | the disk cache went away, or its file was set aside |
| `otpy.cache.migrated` | path, … | the file of an older version was taken over |
| `otpy.limits.storage` | client, at, state, error | limits shared with other machines are `away`, or `shared` again |
| `otpy.config.change` | fields | settings were replaced |
| `otpy.evaluate.start` / `.stop` / `.row` | rows; score; index, outcome | an evaluation and each of its rows |
| `otpy.evaluate.node` | node, event | of many that work on an evaluation, one has `"joined"` or is `"lost"` |
| `otpy.teleprompter.start` / `.stop` / `.trial` | teleprompter, … | an optimization and each of its trials |
| `otpy.teleprompter.candidate` | name, score, program, params | a program was measured |
| `otpy.teleprompter.waiting` | seconds, error | an outage is waited for |
| `otpy.judgements.waiting` | path | questions in this file wait for a person, for the first time |
| `otpy.judgements.pending` | path, pending | more or fewer questions in this file wait for a person |
| `otpy.continual.begun` / `.taken` / `.kept` | rows, generation | a better program is looked for; found, or not |
| `otpy.continual.failed` / `.refused` / `.unreadable` | error | the search, a row of feedback, or its file |
| `otpy.teleprompter.training` | client, what, step, steps, loss | a step of a model's training |
| `otpy.listener.detached` | listener, error | a listener raised and was detached |

A listener that raises is detached and reported, and work goes on. With no listener an `emit` behind
`if bus.listening:` costs one attribute read.
"""

from __future__ import annotations

import contextlib
import sys
import time
import traceback
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    Listener: TypeAlias = Callable[[str, dict[str, Any]], None]

__all__ = ["attach", "attached", "detach", "emit", "listening", "span", "verbose"]

listening: bool = False
"""Whether anybody listens; hot paths ask before they build an event's fields."""
verbose: bool = False
"""Whether orderly ends of processes are events too."""

_listeners: dict[str, tuple[str, Listener]] = {}


def attach(name: str, listener: Listener, prefix: str = "otpy.") -> None:
    """Call `listener(event, fields)` for every event whose name starts with `prefix`.

    Args:
        name: Names the listener, so that it can be detached; an earlier one of this name is replaced.
        listener: Called in the thread that emits; it must be quick and must not block.
        prefix: Which events.

    Example:
        >>> from otpy.telemetry import bus
        >>> seen = []
        >>> bus.attach("example", lambda event, fields: seen.append((event, fields)), prefix="otpy.config.")
        >>> bus.emit("otpy.config.change", fields=("cache",))
        >>> bus.detach("example")
        True
        >>> seen
        [('otpy.config.change', {'fields': ('cache',)})]
    """
    global listening  # noqa: PLW0603 - the flag is the point: hot paths read it
    _listeners[name] = (prefix, listener)
    listening = True


def detach(name: str) -> bool:
    """Stop calling a listener; `False` if there was none of this name."""
    global listening  # noqa: PLW0603 - see attach
    known = _listeners.pop(name, None) is not None
    listening = bool(_listeners)
    return known


@contextlib.contextmanager
def attached(name: str, listener: Listener, prefix: str = "otpy.") -> Generator[None]:
    """Attach a listener for the length of a block."""
    attach(name, listener, prefix)
    try:
        yield
    finally:
        detach(name)


def emit(event: str, /, **fields: Any) -> None:
    """Tell every listener.

    Args:
        event: A dotted name from the table above.
        fields: What happened; secrets never.
    """
    for name, (prefix, listener) in tuple(_listeners.items()):
        if event.startswith(prefix):
            try:
                listener(event, fields)
            except Exception as error:  # noqa: BLE001 - whatever a listener does, work goes on
                detach(name)
                print(f"otpy: telemetry listener {name!r} raised and was detached:", file=sys.stderr)  # noqa: T201
                traceback.print_exception(error, file=sys.stderr)
                emit("otpy.listener.detached", listener=name, error=error)


@contextlib.contextmanager
def span(event: str, /, **fields: Any) -> Generator[dict[str, Any]]:
    """Emit `event.start`, then `event.stop` or `event.exception` with the `seconds` in between.

    Args:
        event: The dotted name without its ending.
        fields: Part of all of them; what the block puts into the yielded dict is part of the last.
    """
    if not listening:
        yield {}
        return
    emit(f"{event}.start", **fields)
    began = time.perf_counter()
    more: dict[str, Any] = {}
    try:
        yield more
    except BaseException as error:
        emit(f"{event}.exception", **fields, **more, error=error, seconds=time.perf_counter() - began)
        raise
    emit(f"{event}.stop", **fields, **more, seconds=time.perf_counter() - began)

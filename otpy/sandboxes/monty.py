"""`Monty`: an interpreter of Python's everyday part that has no system to reach; up in milliseconds.

It knows no file, no network, no process and no import beyond a few modules of its own, so there is nothing to break
out to; and it runs in a worker process, so that not even its own mistakes reach ours. Code that needs the rest of
Python (generators, classes with bases, more of the standard library) is for the other engines.

Source: https://github.com/pydantic/monty (the extra `sandbox`).
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import signal
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Final

from otpy.sandboxes.engine import Asked, Limits, Outcome, SandboxLost, SandboxNotAvailable, plain

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from otpy.sandboxes.engine import Answer, Interpreter, Turn

__all__ = ["Monty"]

_CALLS: Final = 1_000_000
"""Calls of the host in one session: programs have budgets of their own."""
_GRACE: Final = 0.3
"""Seconds that a worker has to notice that its time is up, before it is killed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Monty:
    """The engine of code modes unless told otherwise.

    Args:
        limits: What the code may use up.
        sessions: Interpreters at the same time, about 7 MB each; who comes later waits.
        warm: Interpreters started ahead.

    Example:
        >>> from otpy.sandboxes import Limits, Monty
        >>> Monty(limits=Limits(seconds=1)).name
        'monty'
    """

    name: ClassVar[str] = "monty"

    limits: Limits = field(default_factory=Limits)
    sessions: int = 64
    warm: int = 0

    def check(self) -> None:
        """Look for the library."""
        if importlib.util.find_spec("pydantic_monty") is None:
            raise SandboxNotAvailable(
                "the sandbox 'monty' is not installed; next: pip install 'otpy-framework[sandbox]'"
                " (or pydantic-monty), or choose another: sandbox='bubblewrap', sandbox='pyodide'"
            )

    async def open(self) -> Interpreter:
        """Start a worker."""
        self.check()
        interpreter = _Interpreter(importlib.import_module("pydantic_monty"), self.limits)
        await interpreter.start()
        return interpreter


class _Interpreter:
    def __init__(self, library: Any, limits: Limits) -> None:
        self._library, self._limits = library, limits
        self._snapshot: Any = None
        self._printed: list[str] = []
        self._room = 0
        self._functions: frozenset[str] = frozenset()
        self._pool: Any = None
        self._session: Any = None
        self._pid: int | None = None

    async def start(self) -> None:
        limits = self._limits
        pool = self._library.AsyncMonty(max_processes=1, feed_duration_limit_grace=_GRACE)
        try:
            await pool.__aenter__()
            self._pool = pool
            self._session = pool.checkout(
                limits={
                    "max_feed_duration_secs": limits.seconds,
                    "max_memory": limits.memory,
                    "max_suspensions": _CALLS,
                    "max_total_sleep_secs": limits.seconds,
                },
                os_policy={"sleep_system_max": limits.seconds},
            )
            await self._session.__aenter__()
        except (self._library.MontyError, OSError) as error:
            raise SandboxLost(f"the worker of 'monty' did not come up: {error}") from error
        self._pid = self._session.worker_pid

    async def run(self, code: str, inputs: Mapping[str, Any], functions: tuple[str, ...]) -> Turn:
        self._printed, self._room = [], self._limits.output
        self._functions = frozenset(functions)
        lookup = dict.fromkeys(functions, _named)
        feed = self._session.feed_start
        return await self._turn(
            lambda: feed(code, inputs=dict(inputs), external_lookup=lookup, print_callback=self._print)
        )

    async def answer(self, answer: Answer) -> Turn:
        snapshot, self._snapshot = self._snapshot, None
        if answer.error is None:
            return await self._turn(lambda: snapshot.resume({"return_value": answer.value}))
        return await self._turn(lambda: snapshot.resume({"exception": RuntimeError(answer.error)}))

    async def _turn(self, step: Callable[[], Any]) -> Turn:
        """Go on until the code has ended, or asks for one of the host's functions; nothing else is answered."""
        library = self._library
        try:
            while True:
                snapshot = await step()
                if isinstance(snapshot, library.MontyComplete):
                    return Outcome(plain(snapshot.output), self._stdout)
                if isinstance(snapshot, library.AsyncFunctionSnapshot) and self._is_ours(snapshot):
                    self._snapshot = snapshot
                    kwargs = {str(name): plain(value) for name, value in snapshot.kwargs.items()}
                    return Asked(snapshot.function_name, tuple(map(plain, snapshot.args)), kwargs, self._stdout)
                step = snapshot.resume_auto
        except library.MontyCrashedError as error:
            self._pid = None
            raise SandboxLost(str(error)) from error
        except (library.MontyRuntimeError, library.MontySyntaxError) as error:
            said = error.display("traceback")
            # past its limits a heap may be in any state, so nobody goes on with it
            spent = "limit exceeded" in str(error) and isinstance(error.exception(), (TimeoutError, MemoryError))
            if self._session.worker_pid is None:  # the worker has ended already: it has asked its system for too much
                self._pid, spent = None, True
            return Outcome(None, self._stdout, said, lost=spent)
        except library.MontyError as error:  # a value that cannot cross
            return Outcome(None, self._stdout, str(error))

    def _is_ours(self, snapshot: Any) -> bool:
        return not snapshot.is_os_function and snapshot.object_id is None and snapshot.function_name in self._functions

    def _print(self, _: str, text: str) -> None:
        if self._room >= 0:
            self._printed.append(text[: self._room])
            if len(text) > self._room:
                self._printed.append(f"\n… (cut off after {self._limits.output} characters)")
                text += " "
            self._room -= len(text)

    @property
    def _stdout(self) -> str:
        return "".join(self._printed)

    def hear(self, message: object) -> None:
        """Hear nothing: the library has its own ways."""

    def close(self) -> None:
        self._pool = self._session = self._snapshot = None  # the library ends a worker that nobody holds
        pid, self._pid = self._pid, None
        if pid is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, getattr(signal, "SIGKILL", signal.SIGTERM))  # at once, though a traceback may hold it
        if os.name == "posix":
            threading.Thread(target=_wait, args=(pid,), name=f"otpy-monty-{pid}", daemon=True).start()


def _wait(pid: int) -> None:
    """Wait for a killed worker, as the library does only when it starts the next one."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, 0)


def _named(*_: object, **__: object) -> None:
    """Stand for a function of the host, which is never called here but asked for; see `_turn`."""
    raise AssertionError

"""`Sandbox`: a session as whoever runs code in it sees it, with the functions that the code may call."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from otpy.actors import SHUTDOWN
from otpy.errors import ActorDown
from otpy.sandboxes.engine import Answer, Asked, Outcome, Turn, plain
from otpy.sandboxes.pool import lease
from otpy.sandboxes.session import Resume, Run

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from otpy.actors import Ref
    from otpy.sandboxes.pool import Desk
    from otpy.sandboxes.session import Session

__all__ = ["Function", "Leave", "Sandbox"]

Function: TypeAlias = Callable[..., Awaitable[Any]]
"""A function of the host: called in the task that runs the code, with its context."""

CALL_SECONDS: Final = 60.0
"""Seconds that a function of the host may take, unless told otherwise."""

_inside: ContextVar[bool] = ContextVar("otpy_in_a_sandbox", default=False)
"""Whether a function of the host is being called by code in a sandbox."""


class Leave(Exception):
    """Raised by a function of the host to end the run there: the code that has called it never goes on."""


class Sandbox:
    r"""Runs code in a session that is leased for a block.

    Variables stay from run to run. If the session is lost, the next run has a new one, with the same inputs and without
    the variables; the outcome before said so (`lost`).

    Args:
        desk: Who leases sessions.
        inputs: Variables that the code finds, plain data.
        functions: What the code may call, by name; it sees an exception in one as a `RuntimeError`.
        call_seconds: How long a function may take before it is cancelled; `None` for any time.

    Example:
        >>> import asyncio
        >>> from otpy.sandboxes import Monty, Sandbox
        >>> from otpy.sandboxes.pool import pool
        >>> from otpy.actors import named
        >>> from otpy.supervisors import Supervisor
        >>> async def double(number):
        ...     return 2 * number
        >>> async def main():
        ...     engine = Monty()
        ...     async with Supervisor([pool(engine)]):
        ...         desk = named(("sandboxes", engine)).whereis()
        ...         async with Sandbox(desk, inputs={"x": 20}, functions={"double": double}) as sandbox:
        ...             await sandbox.run("y = double(x)")
        ...             print(await sandbox.run("print(y)\ny + 2"))
        >>> asyncio.run(main())
        Outcome(value=42, stdout='40\n', error=None, lost=False)
    """

    def __init__(
        self,
        desk: Ref[Desk],
        *,
        inputs: Mapping[str, Any] | None = None,
        functions: Mapping[str, Function] | None = None,
        call_seconds: float | None = CALL_SECONDS,
    ) -> None:
        """Keep everything; the first run leases the session."""
        self._desk = desk
        self._inputs: Mapping[str, Any] = {}
        self._refused = ""
        try:
            self._inputs = plain(dict(inputs or {}), strict=True)
        except UnicodeEncodeError as error:
            self._refused = f"UnicodeEncodeError: an input is no text that can be encoded: {error.reason}"
        self._functions = dict(functions or {})
        self._call_seconds = call_seconds
        self._session: Ref[Session] | None = None

    async def __aenter__(self) -> Self:
        """Do nothing yet."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Give the session up."""
        self._give_up()

    def _give_up(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            session.exit(SHUTDOWN)

    async def run(self, code: str) -> Outcome:
        """Run code, and call the functions that it calls.

        Args:
            code: Python.

        Raises:
            SandboxError: If the sandbox does not work; that the code fails is an outcome.
            ActorDown: If the pool has ended.
        """
        if refused := self._refused or _unspeakable(code):
            return Outcome(error=refused)
        inputs: Mapping[str, Any] = {}
        if self._session is None:
            self._session, inputs = await lease(self._desk, inner=_inside.get()), self._inputs
        request: Run | Resume = Run(code, inputs, tuple(self._functions))
        stdout = ""
        try:
            while isinstance(turn := await self._ask(request, stdout), Asked):
                stdout = turn.stdout
                request = Resume(await self._answered(turn))
        except Leave:
            self._give_up()
            return Outcome(stdout=stdout, lost=True)
        except BaseException:
            self._give_up()
            raise
        if turn.lost:
            self._give_up()
        return turn

    async def _ask(self, request: Run | Resume, stdout: str) -> Turn:
        assert self._session is not None
        try:
            turn: Turn = await self._session.call(request, None)
        except ActorDown as down:
            return Outcome(stdout=stdout, error=f"SandboxLost: {down}", lost=True)
        return turn

    async def _answered(self, asked: Asked) -> Answer:
        function = self._functions.get(asked.name)
        if function is None:  # what the interpreter was told is all that it may call; it may be anybody's by now
            return Answer(error=f"no function {asked.name!r}; there are {', '.join(self._functions) or 'none'}")
        inside, deadline = _inside.set(True), asyncio.timeout(self._call_seconds)
        try:
            async with deadline:
                return Answer(plain(await function(*asked.args, **asked.kwargs)))
        except Leave:
            raise
        except TimeoutError as error:
            late = f"{asked.name} did not answer within {self._call_seconds:g} s" if deadline.expired() else repr(error)
            return Answer(error=late)
        except Exception as error:  # noqa: BLE001 - whatever a function raises, the code is told
            return Answer(error=f"{type(error).__name__}: {error}")
        finally:
            _inside.reset(inside)


def _unspeakable(code: str) -> str:
    """Why a text cannot be handed to an interpreter, if it cannot."""
    try:
        code.encode()
    except UnicodeEncodeError as error:
        return f"UnicodeEncodeError: the code is no text that can be encoded: {error.reason} at {error.start}"
    return ""

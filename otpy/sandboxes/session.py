"""`Session`: the process that owns an interpreter; whoever hangs or crashes in it costs this session alone."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from otpy.actors import Call, GenServer, NoReply, Shutdown, Stop, Timeout
from otpy.sandboxes.engine import Answer, Asked, Outcome, SandboxError, SandboxLost, Turn

if TYPE_CHECKING:
    from collections.abc import Mapping

    from otpy.actors import Caller
    from otpy.sandboxes.engine import Engine, Interpreter

__all__ = ["Resume", "Run", "Session"]

_GRACE: Final = 0.5
"""Seconds of a run, past its limit, in which an interpreter may say so itself, before it is killed."""
_IDLE: Final = 3600.0
"""Seconds after which a session that nobody has used has been forgotten."""


@dataclass(frozen=True, slots=True)
class Run(Call[Turn]):
    """Run code, as `Interpreter.run`."""

    code: str
    inputs: Mapping[str, Any]
    functions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Resume(Call[Turn]):
    """Answer what the code has asked, as `Interpreter.answer`."""

    answer: Answer


@dataclass(frozen=True, slots=True)
class _Over:
    reason: Any


class Session(GenServer):
    """One interpreter, opened in the background when the session starts.

    It ends when the interpreter does, when a run takes longer than it may, when whoever waits for a run gives up, and
    after an hour without work.

    Args (of `child_spec` and `start`):
        engine: What opens the interpreter.

    Example:
        >>> import asyncio
        >>> from otpy.sandboxes.monty import Monty
        >>> from otpy.sandboxes.session import Run, Session
        >>> async def main():
        ...     session = await Session.start(Monty())
        ...     await session.call(Run("x = 20", {}, ()))
        ...     print((await session.call(Run("x + y", {"y": 1}, ()))).value)
        ...     await session.stop()
        >>> asyncio.run(main())
        21
    """

    def init(self, engine: Engine) -> NoReply:
        """Start opening."""
        loop = self.process.loop
        self._engine = engine
        self._interpreter: Interpreter | None = None
        self._opening = loop.create_task(self._open())
        self._turn: asyncio.Task[None] | None = None
        self._left = 0.0
        self.process.when_down(lambda _: self._end())
        return NoReply(timeout=_IDLE)

    async def _open(self) -> Interpreter:
        interpreter = self._interpreter = await self._engine.open()
        if not self.process.alive:
            interpreter.close()
        return interpreter

    def _end(self) -> None:
        """Whatever ended this process ends the interpreter."""
        for task in (self._opening, self._turn):
            if task is not None and not task.done():
                task.cancel()
        if self._opening.done() and not self._opening.cancelled():
            self._opening.exception()  # that it failed, whoever asked has heard
        if self._interpreter is not None:
            self._interpreter.close()

    def handle_call(self, request: Any, caller: Caller) -> Any:
        """Take a turn, and answer when it is over."""
        if not isinstance(request, (Run, Resume)):
            return super().handle_call(request, caller)
        if self._turn is not None:
            caller.fail(SandboxError("a session runs one piece of code at a time; lease another session"))
            return NoReply(timeout=_IDLE)
        if isinstance(request, Run):
            self._left = self._engine.limits.seconds
        self._turn = self.process.loop.create_task(self._take(request, caller))
        caller.when_gone(lambda: self.ref.send(_Over(Shutdown("nobody waits for its run any more"))))
        return NoReply(timeout=_IDLE)

    async def _take(self, request: Run | Resume, caller: Caller) -> None:
        loop = self.process.loop
        turn: Turn = Outcome(lost=True)
        try:
            interpreter = await self._opening
            began = loop.time()
            async with asyncio.timeout(max(0.0, self._left + _GRACE)):  # the grace is for a run, not for each turn
                match request:
                    case Run(code, inputs, functions):
                        turn = await interpreter.run(code, inputs, functions)
                    case Resume(answer):
                        turn = await interpreter.answer(answer)
            self._left -= loop.time() - began
        except TimeoutError:
            turn = Outcome(error=f"TimeoutError: it ran longer than {self._engine.limits.seconds:g} s", lost=True)
        except SandboxLost as error:
            turn = Outcome(error=f"SandboxLost: {error}", lost=True)
        except Exception as error:  # noqa: BLE001 - whatever it is, the caller is to know, and this session ends
            caller.fail(error)
        else:
            self._turn = None
        if isinstance(turn, Asked) or not turn.lost:
            caller.reply(turn)
            return
        if turn.error is not None:
            caller.reply(turn)
        self.ref.send(_Over(Shutdown(turn.error or "it did not come up")))

    def handle_info(self, message: Any) -> Any:
        """Give the interpreter what was sent for it, and end when it is over."""
        match message:
            case _Over(reason):
                return Stop(reason)
            case Timeout() if self._turn is None:
                return Stop(Shutdown("nobody has used it for an hour"))
            case _ if self._interpreter is not None:
                self._interpreter.hear(message)
            case _:
                pass
        return NoReply(timeout=_IDLE)

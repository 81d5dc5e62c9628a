"""Interpreters that are programs: one line of JSON in, one line of JSON out, in turns.

What comes out of a sandbox is believed as little as the code in it: a line that is too long, is no JSON, has not the
form that was agreed, or comes when it is not its turn, ends the session.
"""

from __future__ import annotations

import asyncio
import json
import os
from typing import TYPE_CHECKING, Any, Final

from otpy.actors import SHUTDOWN, Down, Port, PortLine, Ref, SendLine, monitor
from otpy.errors import ActorError, StartFailed
from otpy.sandboxes.engine import Asked, Outcome, SandboxLost, SandboxNotAvailable, plain
from otpy.sandboxes.inside import MOST, PARTS, heavy

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from otpy.sandboxes.engine import Answer, Limits, Turn

__all__ = ["LineInterpreter", "opened"]

_ENV: Final = {"PATH": os.defpath, "NO_COLOR": "1", "DENO_NO_UPDATE_CHECK": "1", "DENO_DIR": os.devnull}
"""What such a program has of our environment: nothing, and no place to write to."""
_INPUTS: Final = 64 * 2**20
"""Bytes of a message that goes in; it may go in several lines."""
_ALOUD: Final = 64 * 2**10
"""Letters of a line that is understood on the spot; a longer one in a thread, for the loop has others to serve."""


def _line(limits: Limits) -> int:
    """Bytes of a line: a value and an error, and what is printed, of which a character may take twelve."""
    return MOST + 12 * (int(limits.output) + 100) + 2**18


async def opened(engine: str, command: Sequence[str], limits: Limits, owner: Ref[Any]) -> LineInterpreter:
    """Start an interpreter that is a program; its first line says that it is ready.

    Args:
        engine: The engine's name, for messages.
        command: The program and its arguments.
        limits: What the code may use up; the program sees to memory and output itself.
        owner: The process that it is started for and does not outlive.

    Raises:
        SandboxNotAvailable: If the program does not start or is not ready in time; with its last words.
    """
    try:
        port = await Port.start(
            command, env=_ENV, owner=owner, first_line=True, start_timeout=30.0, grace=0.0, max_line=_line(limits)
        )
    except StartFailed as failed:
        raise SandboxNotAvailable(f"the sandbox {engine!r} did not start: {failed.reason}") from failed
    monitor(port)
    return LineInterpreter(port, limits)


class LineInterpreter:
    """The host's side of such a program.

    Args:
        port: Its process.
        limits: What the code may use up.
    """

    def __init__(self, port: Ref[Port], limits: Limits) -> None:
        """Wait for nothing yet."""
        self._port, self._limits = port, limits
        self._next: asyncio.Future[str] | None = None
        self._broken = ""

    async def run(self, code: str, inputs: Mapping[str, Any], functions: tuple[str, ...]) -> Turn:
        """Run code."""
        return await self._say({"run": code, "inputs": dict(inputs), "functions": functions})

    async def answer(self, answer: Answer) -> Turn:
        """Answer what it has asked."""
        return await self._say({"value": answer.value} if answer.error is None else {"error": answer.error})

    async def _say(self, message: Mapping[str, Any]) -> Turn:
        if self._broken:
            raise SandboxLost(self._broken)
        self._next = asyncio.get_running_loop().create_future()
        whole = json.dumps(message)
        if len(whole) > _INPUTS:
            self._next = None
            return Outcome(error=f"the inputs do not fit into the sandbox: {len(whole)} bytes; at most {_INPUTS}")
        try:
            for at in range(0, len(whole), MOST):  # which is less than a line may have
                more = "+" if at + MOST < len(whole) else ""
                await self._port.call(SendLine(more + whole[at : at + MOST]), None)
        except (ActorError, OSError) as error:
            raise SandboxLost(self._broken or str(error)) from error
        line = await self._next
        return await asyncio.to_thread(self._understood, line) if len(line) > _ALOUD else self._understood(line)

    def _understood(self, line: str) -> Turn:
        try:
            # ten for what is around it
            said: Any = None if heavy(line, _line(self._limits), PARTS + 10) else json.loads(line)
            stdout = said["stdout"]
            if isinstance(stdout, str):
                stdout = plain(stdout[: self._limits.output + 100])  # it has cut it off itself, and said so
                if "ask" in said:
                    name, args, kwargs = said["ask"], said["args"], said["kwargs"]
                    if isinstance(name, str) and isinstance(args, list) and isinstance(kwargs, dict):
                        return Asked(plain(name), tuple(plain(args)), plain(kwargs), stdout)
                elif said["error"] is None or isinstance(said["error"], str):
                    return Outcome(plain(said["value"]), stdout, plain(said["error"]))
        except (ValueError, KeyError, TypeError, RecursionError):
            pass
        raise SandboxLost(f"the interpreter broke its protocol: {line[:80]!r}")

    def hear(self, message: object) -> None:
        """Take a line, or that the program has ended."""
        match message:
            case PortLine(line="ready"):
                return
            case PortLine(line=line, complete=True) if self._next is not None and not self._next.done():
                self._next.set_result(line)
                return
            case PortLine(complete=complete):
                much = f"the interpreter broke its protocol: a line of more than {_line(self._limits)} bytes"
                self._broken = "the interpreter spoke out of turn" if complete else much
                self.close()
            case Down(reason=reason):
                self._broken = f"the interpreter ended: {reason}"
            case _:
                return
        if self._next is not None and not self._next.done():
            self._next.set_exception(SandboxLost(self._broken))

    def close(self) -> None:
        """End the program."""
        self._port.exit(SHUTDOWN)

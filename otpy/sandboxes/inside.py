"""The other side: what runs in a sandbox and takes the code. Python's standard library only, and nothing of ours.

A run's message is `{"run": code, "inputs": {…}, "functions": […]}`. It is answered by `{"value", "stdout", "error"}`,
or by `{"ask", "args", "kwargs", "stdout"}`, which waits for `{"value"}` or `{"error"}` and goes on. What comes in may
be cut into lines, of which all but the last begin with `+`. Nothing here guards anything: the code may change all of
it, and then its session ends.
"""

from __future__ import annotations

import ast
import json
import linecache
import re
import sys
import traceback

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

__all__ = ["MOST", "PARTS", "heavy", "serve"]

MOST = 8 * 2**20
"""Bytes of JSON that a value may have, or the arguments of a call."""
PARTS = 200_000
"""Numbers, texts, lists and so on that it may consist of."""
_TEXT = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\Z)', re.DOTALL)


def heavy(line: str, most: int = MOST, parts: int = PARTS) -> str:
    """Say why JSON is more than may go out at once; nothing if it is not.

    Args:
        line: The JSON, or what is said to be.
        most: Letters that it may have.
        parts: Numbers, texts, lists and so on that it may consist of; what stands in a text is none.
    """
    if len(line) > most:
        return f"{len(line)} bytes of JSON; at most {most}"
    if sum(map(line.count, ",[{")) > parts:  # of which some may stand in texts
        found, at = 0, 0
        for text in _TEXT.finditer(line):
            found += sum(line.count(mark, at, text.start()) for mark in ",[{")
            at = text.end()
            if found > parts:
                break
        if found + sum(line.count(mark, at) for mark in ",[{") > parts:
            return f"it has more than {parts} parts"
    return ""


class _Printed:
    """Keeps what is printed, up to its limit."""

    encoding = "utf-8"

    def __init__(self, limit: int) -> None:
        self.limit, self.parts, self.room = limit, [""], limit

    def write(self, text: str) -> int:
        if self.room >= 0:
            self.parts.append(text[: self.room])
            self.room -= len(text)
            if self.room < 0:
                self.parts.append(f"\n… (cut off after {self.limit} characters)")
        return len(text)

    def flush(self) -> None:
        """Everything is there already."""

    def isatty(self) -> bool:
        return False


class _Repl:
    def __init__(self, receive: Callable[[], str], send: Callable[[str], None], output: int) -> None:
        self.receive, self.send, self.output = receive, send, output
        self.variables: dict[str, Any] = {"__name__": "__main__", "__builtins__": __builtins__}
        self.runs = 0
        self.printed = _Printed(output)

    def function(self, name: str) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            given = json.dumps({"args": args, "kwargs": kwargs}, default=_plain)
            if why := heavy(given):
                raise ValueError(f"{name} was given too much at once: {why}")
            self.send(_joined(given, json.dumps({"ask": name, "stdout": "".join(self.printed.parts)})))
            answer = json.loads(_whole(self.receive))
            if "error" in answer:
                raise RuntimeError(answer["error"])
            return answer["value"]

        call.__name__ = call.__qualname__ = name
        return call

    def run(self, message: dict[str, Any]) -> dict[str, Any]:
        self.printed = sys.stdout = sys.stderr = _Printed(self.output)
        self.runs += 1
        value, error = None, None
        try:
            self.variables.update(message["inputs"])
            self.variables.update({name: self.function(name) for name in message["functions"]})
            value = self.evaluate(message["run"], f"<run {self.runs}>")
        except BaseException as raised:  # noqa: BLE001 - SystemExit too
            error = _told(raised)
        return {"value": value, "stdout": "".join(self.printed.parts), "error": error}

    def evaluate(self, code: str, name: str) -> Any:
        tree = ast.parse(code, name)
        linecache.cache[name] = len(code), None, code.splitlines(keepends=True), name
        last = tree.body[-1] if tree.body else None
        if isinstance(last, ast.Expr):
            tree.body.pop()
        exec(compile(tree, name, "exec"), self.variables)  # noqa: S102 - that is what a sandbox is for
        if not isinstance(last, ast.Expr):
            return None
        return eval(compile(ast.Expression(last.value), name, "eval"), self.variables)  # noqa: S307 - the same


def _told(raised: BaseException) -> str:
    """The traceback, of the code's own lines."""
    frame = raised.__traceback__
    while frame is not None and not frame.tb_frame.f_code.co_filename.startswith("<run "):
        frame = frame.tb_next
    return "".join(traceback.format_exception(type(raised), raised, frame)).rstrip()[-10_000:]


def serve(receive: Callable[[], str], send: Callable[[str], None], output: int) -> None:
    """Run what is received until there is no more.

    Args:
        receive: Returns the next line; an empty one at the end.
        send: Takes a line.
        output: Characters that a run may print.
    """
    repl = _Repl(receive, send, output)
    send("ready")
    while line := _whole(receive):
        outcome = repl.run(json.loads(line))
        try:
            value = json.dumps(outcome["value"], default=_plain)
        except (TypeError, ValueError, RecursionError):  # keys that are no strings, rings, endless digits
            value = json.dumps(_shown(outcome["value"]))
        if why := heavy(value):
            value = json.dumps(f"<{type(outcome['value']).__name__}, too much to leave the sandbox: {why}>")
        said = json.dumps({"stdout": outcome["stdout"], "error": outcome["error"]})
        send(_joined(f'{{"value": {value}}}', said))


def _joined(one: str, other: str) -> str:
    """Two objects as one."""
    return f"{one[:-1]}, {other[1:]}"


def _whole(receive: Callable[[], str]) -> str:
    """The next message, from all its lines."""
    lines = [receive()]
    while lines[-1].startswith("+"):
        lines[-1] = lines[-1][1:].rstrip("\n")
        lines.append(receive())
    return "".join(lines)


def _plain(value: Any) -> Any:
    return list(value) if type(value) in {set, frozenset} else repr(value)


def _shown(value: object) -> str:
    try:
        return repr(value)
    except Exception as error:  # noqa: BLE001 - what it is made of is the code's
        return f"<{type(value).__name__}, whose repr raises {type(error).__name__}>"

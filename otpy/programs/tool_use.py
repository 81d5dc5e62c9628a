"""Running what a model wants to be used: each call a task under the application's supervisor, with a deadline.

Whatever becomes of a call is a result in words for the model: what the tool returned, or why it returned nothing. A
call harms neither its neighbours nor its caller.
"""

from __future__ import annotations

import functools
import inspect
import traceback
from itertools import dropwhile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar, cast

from otpy.actors import KILL, NORMAL
from otpy.actors.reasons import said
from otpy.clients.running import running
from otpy.errors import OtpyError, ProgramError, SupervisionError, shown
from otpy.programs.program import Program
from otpy.programs.streaming import ToolEnded, ToolStarted, tell
from otpy.programs.worker import in_worker
from otpy.signatures import Prediction
from otpy.types.tool import Tool, ToolCall, ToolCalls, ToolResult, ToolResults

if TYPE_CHECKING:
    from asyncio import TimerHandle
    from collections.abc import Awaitable, Callable, Coroutine, Iterable

    from otpy.actors import Task
    from otpy.supervisors import TaskSupervisorRef

__all__ = ["MAX_RESULT_CHARS", "TOOL_TIMEOUT", "Approve", "by_name", "use_tools"]

T = TypeVar("T")

TOOL_TIMEOUT: Final = 60.0
"""Seconds that a tool may take, unless told otherwise."""
MAX_RESULT_CHARS: Final = 20_000
"""Characters of a result that a model is shown, unless told otherwise; some 5,000 tokens."""
FRAMES: Final = 5
"""Frames of a traceback that a model is shown, the innermost."""
RESTART_SECONDS: Final = 5.0
"""How long to wait for the supervisor of tasks while it is restarted."""

Approve: TypeAlias = "Callable[[ToolCall], Awaitable[bool | str] | bool | str]"
"""Says whether a call may be run: `True`; or `False`, or a text that tells the model why not."""


def by_name(tools: Iterable[Any]) -> dict[str, Tool]:
    """Return tools by their names; functions and programs become tools.

    Args:
        tools: Tools, functions, async functions, programs.

    Raises:
        ProgramError: If two have the same name.
        SignatureError: If one cannot be made a tool.

    Example:
        >>> from otpy.programs.tool_use import by_name
        >>> def now() -> str:
        ...     return "noon"
        >>> list(by_name([now]))
        ['now']
    """
    if callable(tools) or isinstance(tools, Tool):
        raise ProgramError(f"tools={tools!r:.80}; allowed: a list of tools, as in [{getattr(tools, '__name__', 'it')}]")
    found: dict[str, Tool] = {}
    for given in tools:
        tool = given if isinstance(given, Tool) else Tool(given)
        if tool.name in found:
            raise ProgramError(f"two tools are called {tool.name!r}; give one of them another name: Tool(…, name=…)")
        found[tool.name] = tool
    return found


async def use_tools(
    tools: Iterable[Any],
    calls: ToolCalls,
    *,
    timeout: float | None = TOOL_TIMEOUT,  # noqa: ASYNC109 - of each call
    max_chars: int = MAX_RESULT_CHARS,
    approve: Approve | None = None,
) -> ToolResults:
    """Run calls, all at the same time, and return what came of each, in the order of the calls.

    An async tool runs as a task under the application's supervisor of tasks, a plain one in a worker thread besides,
    both with the caller's context. At its deadline a call is killed (a thread cannot be: it is left behind, and its
    result dropped). If the caller is cancelled, so are the calls.

    Args:
        tools: What may be used: tools, functions, programs.
        calls: What a model wants to be used.
        timeout: Seconds for each call; `None` for any length.
        max_chars: Characters of a result; of a longer one the beginning is kept, with a note.
        approve: Asked before each call, in their order and before any of them runs; what it raises is the caller's.

    Raises:
        ProgramError: If a parameter is out of range, or two tools have the same name.
        NoApplication: If no application is running.

    Example:
        >>> import asyncio, otpy
        >>> from otpy.programs.tool_use import use_tools
        >>> from otpy.types.tool import ToolCall, ToolCalls
        >>> def inverse(number: float) -> float:
        ...     return 1 / number
        >>> async def main():
        ...     async with otpy.start(lm="openai/none", api_key="none", cache=False):
        ...         calls = ToolCalls(tool_calls=[ToolCall(name="inverse", args={"number": n}) for n in (4, "x")])
        ...         for result in (await use_tools([inverse], calls)).tool_results:
        ...             print(result.content)
        >>> asyncio.run(main())
        0.25
        inverse: 'number': input should be a valid number, unable to parse string as a number, not 'x'; the arguments \
are number
    """
    known = by_name(tools)
    check_limits(timeout, max_chars)
    refused: list[str | None] = [await _refusal(call, approve) for call in calls.tool_calls]

    async def here() -> ToolResults:
        return await _all(known, calls, refused, timeout, max_chars)

    return await _on_own_loop(here)


def check_limits(timeout: Any, max_chars: Any) -> None:
    """Refuse limits that cannot be.

    Raises:
        ProgramError: If one is out of range.
    """
    number = isinstance(timeout, (int, float)) and not isinstance(timeout, bool)
    if timeout is not None and not (number and 0 < timeout < float("inf")):
        raise ProgramError(f"tool_timeout={timeout!r}; allowed: seconds > 0, or None")
    if type(max_chars) is not int or max_chars < 100:
        raise ProgramError(f"max_result_chars={max_chars!r}; allowed: an integer >= 100")


async def _refusal(call: ToolCall, approve: Approve | None) -> str | None:
    if approve is None:
        return None
    verdict: Any = approve(call)
    if inspect.isawaitable(verdict):
        verdict = await verdict
    if verdict is True:
        return None
    if verdict is False:
        return "this use of the tool was refused"
    if isinstance(verdict, str):
        return f"this use of the tool was refused: {verdict}"
    raise ProgramError(f"approve returned {shown(verdict)[:100]}; allowed: True, False, or a text that says why not")


async def _on_own_loop(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Do something on the loop of the application's tasks, wherever the caller is; cancelling reaches it there."""
    if running().on_loop():
        return await work()
    import asyncio  # noqa: PLC0415 - programs on a loop of their own are rare

    loop = running().tasks.process.loop
    return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work(), loop))


async def _all(
    tools: dict[str, Tool],
    calls: ToolCalls,
    refused: list[str | None],
    timeout: float | None,  # noqa: ASYNC109 - of each call
    max_chars: int,
) -> ToolResults:
    begun: list[Task[str] | str] = []
    late: set[Task[str]] = set()

    def times_up() -> None:
        late.update(task for task in begun if not isinstance(task, str) and not task.done())
        for task in late:
            task.ref.exit(KILL)

    timer: TimerHandle | None = None
    try:
        for call, refusal in zip(calls.tool_calls, refused, strict=True):
            begun.append(refusal if refusal is not None else await _begin(tools, call))
        running_ones = [task for task in begun if not isinstance(task, str)]
        if timeout is not None and running_ones:
            timer = running_ones[0].process.loop.call_later(timeout, times_up)
        results: list[ToolResult] = []
        for call, task in zip(calls.tool_calls, begun, strict=True):
            text, is_error = (task, True) if isinstance(task, str) else await _end(call, task)
            if task in late and is_error:
                text = f"{call.name} took more than {timeout:g} s and was ended"
            content = shortened(text, max_chars)
            results.append(ToolResult(name=call.name, content=content, id=call.id, is_error=is_error))
            await tell(ToolEnded(call.name, content, is_error))
    finally:
        if timer is not None:
            timer.cancel()
        for task in begun:
            if not isinstance(task, str) and not task.done():
                task.ref.exit(KILL)
    return ToolResults(tool_results=tuple(results))


async def _begin(tools: dict[str, Tool], call: ToolCall) -> Task[str] | str:
    """Start a call; or say why it cannot be one."""
    tool = tools.get(call.name)
    if tool is None:
        return f"no tool is called {call.name!r}; there are {', '.join(tools) or 'none'}"
    try:
        arguments = tool.validated(call.args)
    except ValueError as error:
        return f"{call.name}: {error}"
    while True:
        tasks = cast("TaskSupervisorRef", await running().names.wait_for("tasks", RESTART_SECONDS))
        try:
            return tasks.async_nolink(_run, tool, arguments)
        except SupervisionError:
            await tasks.join()  # it has just died; the next one takes the call


async def _run(tool: Tool, arguments: dict[str, Any]) -> str:
    """Run a tool: the body of its task. Its own exceptions are results, and told in its task: there its frames are."""
    await tell(ToolStarted(tool.name, arguments))
    return text_of(await called(tool, arguments), tool)


async def called(tool: Tool, arguments: dict[str, Any]) -> Any:
    """Call a tool's function or program, on the loop or in a worker thread.

    Args:
        tool: The tool.
        arguments: As `Tool.validated` returns them.

    Raises:
        Exception: Whatever it raises.
    """
    function: Any = tool.func
    if function is None:
        raise ProgramError(f"the tool {tool.name!r} is only a description; there is no function to call")
    if isinstance(function, Program):
        return await function.acall(**arguments)
    if _is_async(function):
        return await function(**arguments)
    result = await in_worker(functools.partial(function, **arguments))
    return await result if inspect.isawaitable(result) else result


def _is_async(function: Any) -> bool:
    while isinstance(function, functools.partial):
        function = cast("Any", function).func
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None))  # noqa: B004


def text_of(value: Any, tool: Tool) -> str:
    """Return what a tool returned as text: texts as they are, outputs of programs and everything else as JSON.

    Args:
        value: What it returned.
        tool: The tool.
    """
    from pydantic_core import to_json  # noqa: PLC0415 - only where something else than a text is returned

    if isinstance(value, str):
        return value
    if isinstance(value, Prediction):
        signature: Any = getattr(tool.func, "signature", None)
        if signature is not None and signature.output_fields.keys() <= value.keys():
            value = signature.dump_outputs(value)
        else:
            value = value.to_dict()
    return to_json(value, fallback=str, inf_nan_mode="strings").decode()


async def _end(call: ToolCall, task: Task[str]) -> tuple[str, bool]:
    """Wait for a call; returns what came of it, and whether that is an error."""
    reason = await task.ref.join()
    if said(reason, NORMAL):
        return task.process.result or "", False
    if isinstance(reason, BaseException):
        return _told(call, reason), True
    return f"{call.name} was ended: {shown(reason)}", True


def _told(call: ToolCall, error: BaseException) -> str:
    """An exception in words for a model: what it is, and where in the tool it was raised."""
    ours = str(Path(__file__).parents[1])
    frames = list(dropwhile(lambda frame: frame.filename.startswith(ours), traceback.extract_tb(error.__traceback__)))
    where = "".join(f"\n  in {frame.name}, line {frame.lineno}: {frame.line}" for frame in frames[-FRAMES:])
    try:
        words = str(error) if isinstance(error, OtpyError) else "".join(traceback.format_exception_only(error)).strip()
    except Exception:  # noqa: BLE001 - its own __str__ may raise
        words = shown(error)
    return f"{call.name} failed: {words}{where}"


def shortened(text: str, most: int) -> str:
    """Return the beginning of a long text, and a note of how much is missing.

    Example:
        >>> from otpy.programs.tool_use import shortened
        >>> shortened("a" * 1_000, 4)
        'aaaa… (cut: the first 4 of 1,000 characters)'
    """
    return text if len(text) <= most else f"{text[:most]}… (cut: the first {most:,} of {len(text):,} characters)"

"""What programs that run code share: the sandbox of the application, and tools as functions that code may call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar, cast

from otpy.clients.running import running
from otpy.errors import ClientError, LMContextWindowExceeded, ProgramError, SignatureError
from otpy.programs.tool_use import called
from otpy.sandboxes import Leave, Sandbox, desk_of
from otpy.signatures import Prediction

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

    from otpy.sandboxes import Engine, Outcome
    from otpy.sandboxes.sandbox import Function
    from otpy.signatures import Signature
    from otpy.supervisors import DynamicSupervisorRef
    from otpy.types.tool import Tool

__all__ = [
    "Entry",
    "Submission",
    "as_history",
    "code_tools",
    "described",
    "fitting",
    "limit",
    "names_of",
    "opened",
    "outputs_of",
    "refuse_fields",
    "seconds",
    "submit_call",
    "told",
    "tool_functions",
    "without_outputs",
]

T = TypeVar("T")
RESTART_SECONDS: Final = 5.0
"""How long to wait for the supervisor of pools while it is restarted."""


async def opened(
    engine: Engine,
    inputs: Mapping[str, Any],
    functions: Mapping[str, Function],
    call_seconds: float | None,
) -> Sandbox:
    """Return a sandbox of the running application; the pool of its engine is started if it is not there yet.

    Args:
        engine: The engine.
        inputs: Variables that the code finds.
        functions: What it may call.
        call_seconds: How long each may take; `None` for any time.

    Raises:
        NoApplication: If no application is running.
        SandboxNotAvailable: If the engine cannot run here.
    """
    application = running()
    parent = cast("DynamicSupervisorRef", await application.names.wait_for("isolation", RESTART_SECONDS))
    desk = await desk_of(engine, application.names, parent)
    return Sandbox(desk, inputs=inputs, functions=functions, call_seconds=call_seconds)


class Submission:
    """The function `SUBMIT`: takes the outputs, checks them, and ends the run.

    Args:
        signature: Whose outputs.
    """

    def __init__(self, signature: type[Signature]) -> None:
        """Wait for them."""
        self._signature = signature
        self.outputs: dict[str, Any] | None = None
        self.failure: ClientError | None = None

    async def submit(self, *args: Any, **outputs: Any) -> None:
        """Take the outputs by name, in their order, or as one dictionary; if they do not fit, the code is told."""
        names = list(self._signature.output_fields)
        if len(args) == 1 and isinstance(args[0], dict) and not outputs and set(cast("Any", args[0])) == set(names):
            outputs = dict(cast("Any", args[0]))
        elif len(args) > len(names) or any(name in outputs for name in names[: len(args)]):
            raise SignatureError(f"SUBMIT takes {', '.join(names)}")
        else:
            outputs = {**dict(zip(names, args, strict=False)), **outputs}
        self.outputs = self._signature.validate_outputs(outputs)
        raise Leave

    def fail(self, error: ClientError) -> Leave:
        """Keep an error that is no business of the code's; returns what ends the run.

        Args:
            error: Why a model could not be asked.
        """
        self.failure = error
        return Leave()

    async def run(self, sandbox: Sandbox, code: str, most: int) -> tuple[Outcome, str]:
        """Run code, and tell how it ended; what it submits is in `outputs` then.

        Args:
            sandbox: Where.
            code: Python.
            most: As for `told`.

        Raises:
            ClientError: If a model that the code has asked could not be asked.
        """
        outcome = await sandbox.run(code)
        if self.failure is not None:
            raise self.failure
        if self.outputs is not None:
            return outcome, "\n".join([*outcome.stdout.rstrip("\n")[:most].splitlines(), "(submitted)"])
        return outcome, told(outcome, most)


def tool_functions(tools: Mapping[str, Tool], submission: Submission) -> dict[str, Function]:
    """Return tools as functions that code may call, with arguments by position or by name.

    Args:
        tools: The tools by name.
        submission: Who keeps the errors of clients that tools ask.
    """
    return {name: _function(tool, submission) for name, tool in tools.items()}


def _function(tool: Tool, submission: Submission) -> Function:
    async def call(*args: Any, **kwargs: Any) -> Any:
        names = list(tool.args)
        if len(args) > len(names):
            raise TypeError(f"{tool.name} takes {', '.join(names) or 'nothing'}")
        arguments = tool.validated({**dict(zip(names, args, strict=False)), **kwargs})
        try:
            result = await called(tool, arguments)
        except ClientError as error:
            raise submission.fail(error) from error
        from pydantic_core import to_jsonable_python  # noqa: PLC0415 - only where a tool is called

        plain = result.to_dict() if isinstance(result, Prediction) else result
        return to_jsonable_python(plain, fallback=repr)

    return call


def code_tools(kind: str, tools: Mapping[str, Tool], taken: tuple[str, ...]) -> None:
    """Refuse tools that code cannot call by their name, or that have no function.

    Args:
        kind: The program's class, for messages.
        tools: The tools by name.
        taken: Names that the program needs itself.

    Raises:
        ProgramError: If there is one.
    """
    for name, tool in tools.items():
        if not name.isidentifier() or name in taken:
            own = f", none of {', '.join(taken)}" if taken else ""
            raise ProgramError(f"{kind}: code cannot call a tool {name!r}; allowed: a Python name{own}")
        if tool.func is None:
            raise ProgramError(f"{kind}: the tool {name!r} is only a description; give Tool(function)")


def refuse_fields(kind: str, signature: type[Signature], taken: tuple[str, ...]) -> None:
    """Refuse a signature with fields that a program needs itself, or whose inputs would hide `SUBMIT`.

    Args:
        kind: The program's class, for messages.
        signature: The signature.
        taken: The names.

    Raises:
        SignatureError: If it has one.
    """
    for name in (*taken, "SUBMIT"):
        if name in signature.fields:
            raise SignatureError(f"{signature.__name__}.{name}: {kind} has a field of this name; choose another")


def without_outputs(signature: type[Signature]) -> type[Signature]:
    """Return a signature that has a further output, `code`, as the only one, or the only one with its `reasoning`.

    Args:
        signature: It has other outputs too.
    """
    for name in signature.output_fields:
        if name not in {"code", "reasoning", "finished"}:
            signature = signature.delete(name)
    return signature


def names_of(fields: Iterable[str]) -> str:
    """Return names in words, as "`a`, `b`"."""
    return ", ".join(f"`{name}`" for name in fields)


def outputs_of(signature: type[Signature]) -> str:
    """Return the outputs of a signature in words, a line each."""
    fields = signature.output_fields.values()
    return "\n".join(f"- {field.name}: {field.type}" + (f", {field.desc}" if field.desc else "") for field in fields)


def submit_call(signature: type[Signature]) -> str:
    """Return how the outputs are submitted, as `SUBMIT(answer=…)`."""
    return f"SUBMIT({', '.join(f'{name}=…' for name in signature.output_fields)})"


def described(tools: Mapping[str, Tool]) -> str:
    """Return tools in words, a line each.

    Args:
        tools: The tools by name.
    """
    return "\n".join(f"- {tool}" for tool in tools.values())


def told(outcome: Outcome, most: int) -> str:
    r"""Return what a model is told of a run: what was printed, the last value, the error.

    Args:
        outcome: How it ended.
        most: Characters of what was printed, and of the value; of more, the middle is left out.

    Example:
        >>> from otpy.programs.sandboxed import told
        >>> from otpy.sandboxes import Outcome
        >>> print(told(Outcome(4, "one\ntwo\n"), 100))
        one
        two
        4
    """
    parts = [_cut(outcome.stdout.rstrip("\n"), most)]
    if outcome.error is not None:
        parts.append(_cut(outcome.error, most))
    elif outcome.value is not None:
        parts.append(_cut(outcome.value if isinstance(outcome.value, str) else repr(outcome.value), most))
    if outcome.lost:
        parts.append("(The interpreter was started anew: variables other than the inputs are gone.)")
    return "\n".join(part for part in parts if part) or "(no output)"


def _cut(text: str, most: int) -> str:
    if len(text) <= most:
        return text
    return f"{text[: most - most // 4]}\n… ({len(text) - most} characters left out) …\n{text[-(most // 4) :]}"


def limit(kind: str, name: str, value: Any, least: int) -> int:
    """Refuse a number that is no limit.

    Args:
        kind: The program's class, for messages.
        name: The parameter.
        value: Its value.
        least: The least that is allowed.

    Raises:
        ProgramError: If it is no integer, or less.
    """
    if type(value) is not int or value < least:
        raise ProgramError(f"{kind}: {name}={value!r}; allowed: an integer >= {least}")
    return value


def seconds(kind: str, name: str, value: Any) -> float | None:
    """Refuse a time that is none.

    Args:
        kind: The program's class, for messages.
        name: The parameter.
        value: Its value.

    Raises:
        ProgramError: If it is neither a number above 0 nor `None`.
    """
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if value is not None and not (number and 0 < value < float("inf")):
        raise ProgramError(f"{kind}: {name}={value!r}; allowed: seconds > 0, or None")
    return value  # type: ignore[no-any-return]


Entry: TypeAlias = "Mapping[str, str]"
"""A step: what was thought, if that was asked for, the code, and its output."""


def as_history(steps: Iterable[Entry]) -> str:
    r"""Return steps in words, oldest first.

    Args:
        steps: The steps.

    Example:
        >>> from otpy.programs.sandboxed import as_history
        >>> print(as_history([{"code": "print(1)", "output": "1"}]))
        --- step 1
        ```python
        print(1)
        ```
        output:
        1
    """
    told_ones: list[str] = []
    for number, step in enumerate(steps, 1):
        thought = [step["reasoning"]] if step.get("reasoning") else []
        told_ones += [f"--- step {number}", *thought, f"```python\n{step['code']}\n```\noutput:\n{step['output']}"]
    return "\n".join(told_ones) or "(nothing yet)"


async def fitting(steps: Sequence[Entry], ask: Callable[[Sequence[Entry]], Awaitable[T]]) -> T:
    """Ask with all steps; if that is more than the model can read, without the older half of them, and so on.

    Args:
        steps: The steps, oldest first.
        ask: Asks with those that are left.

    Raises:
        LMContextWindowExceeded: If it is too much without any, too.
    """
    while True:
        try:
            return await ask(steps)
        except LMContextWindowExceeded:
            if not steps:
                raise
            steps = steps[(len(steps) + 1) // 2 :]

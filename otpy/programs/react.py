"""`ReAct`: a model that uses tools, step by step, until it submits the outputs.

Source: Yao et al. 2022, "ReAct: Synergizing Reasoning and Acting in Language Models"; the name is DSPy's.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from otpy.errors import AdapterParseError, LMContextWindowExceeded, ProgramError, SignatureError
from otpy.programs.acting import Act, Step, as_data, as_trajectory, has_tools
from otpy.programs.predict import Predict
from otpy.programs.program import Program
from otpy.programs.tool_use import MAX_RESULT_CHARS, TOOL_TIMEOUT, by_name, check_limits, use_tools
from otpy.signatures import InputField, OutputField, Prediction
from otpy.types.tool import Tool, ToolCall, ToolCalls, ToolResult, ToolResults

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping

    from otpy.programs.tool_use import Approve
    from otpy.signatures import Signature

__all__ = ["ReAct"]

T = TypeVar("T")

DROPS: Final = 3
"""How many of the oldest steps are left out, one by one, of a question that is longer than a model can read."""


class ReAct(Program):
    """Fills the outputs of a signature with the help of tools.

    In each step the model uses one or more of the tools; all calls of a step run at the same time, each in a supervised
    task with a deadline. What a tool returns, and what goes wrong with it (an unknown name, arguments that do not fit,
    an exception, its time), is told to the model, which may try again. It ends by using the tool `submit`, whose
    arguments are the signature's outputs, validated; if they are not valid, the model is told so. After `max_iters`
    steps, or when its answers cannot be read as calls any more, it is asked for the outputs at once.

    A prediction has, besides the outputs, `trajectory`, the steps as JSON data, and `termination_reason`:

    - `"submit"`: it has used `submit`;
    - `"max_iters"`: its steps were used up, and `extract` has made the outputs of them;
    - `"invalid"`: an answer was no use of tools, after all re-asks, and `extract` has made the outputs.

    It has two predictors: `react` decides on the next step, `extract` makes the outputs of the steps there were.

    Args:
        signature: As for `Predict`; it has no fields `trajectory`, `thought` and `tool_calls`.
        tools: Functions, async functions, programs, or `Tool`s, with different names, none of them `submit`.
        max_iters: How many steps there may be, at least 1.
        tool_timeout: Seconds for each call of a tool; `None` for any length.
        max_calls: How many tools may be used in one step, at least 1; further calls are not run, and the model is told.
        max_result_chars: Characters of a tool's result that the model is shown, at least 100.
        approve: Asked before each call of a tool, and says `True`, or `False`, or in words why not; an async function
            of a `ToolCall`.
        native: Whether tools are used in the provider's own way, or written as text; by default as the adapter or
            the client's profile says.
        config: As for `Predict`, for both predictors.

    Raises:
        SignatureError: If the signature cannot be read, or has one of those fields, or a tool cannot be made.
        ProgramError: If two tools have the same name, or a parameter is out of range.

    Example:
        >>> from otpy.programs.react import ReAct
        >>> def weather(city: str) -> str:
        ...     '''Tell the weather.'''
        ...     return f"sunny in {city}"
        >>> agent = ReAct("question -> answer", [weather], max_iters=5)
        >>> [path for path, _ in agent.named_predictors()], list(agent.tools)
        (['react', 'extract'], ['weather'])
    """

    react: Act
    extract: Predict
    tools: Mapping[str, Tool]
    max_iters: int
    max_calls: int
    tool_timeout: float | None
    max_result_chars: int
    approve: Approve | None
    native: bool | None
    signature: type[Signature]
    submit: Tool

    def __init__(  # noqa: PLR0913 - keyword-only facts
        self,
        signature: type[Signature] | str,
        tools: Iterable[Any],
        *,
        max_iters: int = 20,
        max_calls: int = 8,
        tool_timeout: float | None = TOOL_TIMEOUT,
        max_result_chars: int = MAX_RESULT_CHARS,
        approve: Approve | None = None,
        native: bool | None = None,
        **config: Any,
    ) -> None:
        """Check everything."""
        plain = Predict(signature).signature
        for name in ("trajectory", "thought", "tool_calls"):
            if name in plain.fields:
                raise SignatureError(f"{plain.__name__}.{name}: ReAct has a field of this name; choose another")
        known = by_name(tools)
        if "submit" in known:
            raise ProgramError("a tool is called 'submit', as ReAct's own; give it another name: Tool(…, name=…)")
        for name, value in (("max_iters", max_iters), ("max_calls", max_calls)):
            if type(value) is not int or value < 1:
                raise ProgramError(f"{name}={value!r}; allowed: an integer >= 1")
        check_limits(tool_timeout, max_result_chars)
        if native is not None and not isinstance(native, bool):
            raise ProgramError(f"native={native!r}; allowed: True, False, or None for what the client's profile says")
        if approve is not None and not callable(approve):
            raise ProgramError(f"approve={approve!r}; allowed: an async function of a ToolCall, or None")
        self.signature, self.tools, self.max_iters, self.max_calls = plain, known, max_iters, max_calls
        self.tool_timeout, self.max_result_chars = tool_timeout, max_result_chars
        self.approve, self.native = approve, native
        self.submit = _submit(plain)
        self.react = Act(_step_signature(plain, (*known.values(), self.submit), max_calls), **config)
        steps = InputField(desc="what was done to find out")
        self.extract = Predict(plain.append("trajectory", steps), **config)

    async def forward(self, **inputs: Any) -> Prediction:
        """Take steps until it submits, then return the outputs."""
        values = self.signature.validate_inputs(inputs)
        native = self._native()
        definitions = tuple(tool.definition for tool in (*self.tools.values(), self.submit)) if native else None
        steps: list[Step] = []
        why = "max_iters"
        for _ in range(self.max_iters):
            try:
                thought, calls, said = await _fitting(steps, lambda shown: self.react.step(values, shown, definitions))
            except AdapterParseError:
                why = "invalid"
                break
            outputs, results = await self._used(calls)
            steps.append(Step(thought, calls, results, said))
            if outputs is not None:
                return _predicted(outputs, "submit", steps)
        extracted = await _fitting(steps, lambda shown: self.extract.acall(**values, trajectory=as_trajectory(shown)))
        return _predicted(extracted, why, steps)

    def _native(self) -> bool:
        told = "tool_calls" in getattr(self.react.adapter, "native", ())
        if self.native is False and told:
            raise ProgramError(
                f"native=False, but the adapter {self.react.adapter.name!r} leaves tool calls to the provider"
            )
        return (told or has_tools(self.react.client)) if self.native is None else self.native

    async def _used(self, calls: ToolCalls) -> tuple[Mapping[str, Any] | None, ToolResults]:
        """Run the calls of a step; returns the outputs, if they were submitted, and what came of each call."""
        run = calls.tool_calls[: self.max_calls]
        used = await use_tools(
            self.tools.values(),
            ToolCalls(tool_calls=tuple(call for call in run if call.name != "submit")),
            timeout=self.tool_timeout,
            max_chars=self.max_result_chars,
            approve=self.approve,
        )
        rest = iter(used.tool_results)
        outputs: Mapping[str, Any] | None = None
        results: list[ToolResult] = []
        for call in run:
            if call.name == "submit":
                found, result = self._submitted(call)
                outputs = found if outputs is None else outputs
            else:
                result = next(rest)
            results.append(result)
        for call in calls.tool_calls[self.max_calls :]:
            text = f"not run: at most {self.max_calls} tools may be used in one step"
            results.append(ToolResult(name=call.name, content=text, id=call.id, is_error=True))
        return outputs, ToolResults(tool_results=tuple(results))

    def _submitted(self, call: ToolCall) -> tuple[Mapping[str, Any] | None, ToolResult]:
        try:
            outputs = self.signature.read_outputs(json.dumps(call.args))
        except AdapterParseError as error:
            return None, ToolResult(name=call.name, content=f"submit: {error.detail}", id=call.id, is_error=True)
        return outputs, ToolResult(name=call.name, content="accepted", id=call.id)

    @property
    def input_names(self) -> tuple[str, ...]:
        """The names of the inputs."""
        return tuple(self.signature.input_fields)

    def _line(self) -> str:
        return f"ReAct  {self.signature.signature}  tools: {', '.join(self.tools) or 'none'}"


def _submit(signature: type[Signature]) -> Tool:
    names = ", ".join(f"`{name}`" for name in signature.output_fields)
    desc = f"Give the outputs {names} and end; use it as soon as they are known."
    return Tool(name="submit", desc=desc, parameters=signature.output_schema().schema.value)


def _step_signature(signature: type[Signature], tools: tuple[Tool, ...], max_calls: int) -> type[Signature]:
    """The contract of a step: it has the tools in a description, which no optimizer rewrites."""
    inputs = ", ".join(f"`{name}`" for name in signature.input_fields)
    outputs = ", ".join(f"`{name}`" for name in signature.output_fields)
    listed = "".join(f"\n- {tool}" for tool in tools)
    step = signature.append("trajectory", InputField(desc="what was done so far"))
    step = step.append("thought", OutputField(desc="what to do next, in one sentence"))
    step = step.append(
        "tool_calls", OutputField(desc=f"the tools to use next, of:{listed}"), ToolCalls.of(tools, max_calls)
    )
    for name in signature.output_fields:
        step = step.delete(name)
    return step.with_instructions(
        f"{signature.instructions}\n\nGiven {inputs}, use tools step by step to find {outputs}. What they return comes"
        " back before the next step; tools that do not depend on each other may be used at the same time. When"
        f" {outputs} can be told, use the tool submit."
    )


async def _fitting(steps: list[Step], ask: Callable[[tuple[Step, ...]], Awaitable[T]]) -> T:
    """Ask with all steps; if that is more than the model can read, without the oldest, up to three times."""
    shown = tuple(steps)
    for _ in range(DROPS):
        try:
            return await ask(shown)
        except LMContextWindowExceeded:
            if not shown:
                raise
            shown = shown[1:]
    return await ask(shown)


def _predicted(outputs: Mapping[str, Any], why: str, steps: list[Step]) -> Prediction:
    found: dict[str, Any] = dict(cast("Any", outputs))
    usage, attempts = (outputs.usage, outputs.attempts) if isinstance(outputs, Prediction) else (None, ())
    return Prediction(found, usage=usage, attempts=attempts, trajectory=as_data(steps), termination_reason=why)

"""`CodeAct`: act by writing code that calls tools, step by step, in a sandbox whose variables stay.

Source: Wang et al. 2024, "Executable Code Actions Elicit Better LLM Agents"; the name is DSPy's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Generic, Literal

from otpy.errors import AdapterParseError
from otpy.programs.chain_of_thought import ChainOfThought
from otpy.programs.predict import Predict
from otpy.programs.program import Program
from otpy.programs.sandboxed import (
    Submission,
    as_history,
    code_tools,
    described,
    fitting,
    limit,
    names_of,
    opened,
    refuse_fields,
    seconds,
    tool_functions,
    without_outputs,
)
from otpy.programs.tool_use import TOOL_TIMEOUT, by_name
from otpy.sandboxes import engine
from otpy.signatures import InputField, OutputField, Prediction
from otpy.signatures.returned import Returned
from otpy.types.code import Code

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from otpy.sandboxes import Engine
    from otpy.signatures import Signature
    from otpy.types.tool import Tool

__all__ = ["CodeAct"]

_SHOWN: Final = 10_000
"""Characters of an output or an error that the model is shown."""


class CodeAct(Program, Generic[Returned]):
    """Has the model write code that calls tools, shows it the output, and goes on until it says that it has finished.

    Tools run on the host, never in the sandbox, and so may be anything: functions, async functions, methods, programs.
    The prediction has a `trajectory` (each code and its output) and a `termination_reason`: `"finished"`, `"invalid"`
    (an answer that could not be read, after all re-asks) or `"max_iters"`.

    Args:
        signature: As for `Predict`, without fields `trajectory`, `code`, `finished`.
        tools: Functions, async functions, programs, or `Tool`s, with different names.
        max_iters: Codes that are run, at most.
        sandbox: `"monty"`, `"pyodide"`, `"bubblewrap"`, or an engine with limits of its own.
        tool_timeout: Seconds for each call of a tool; `None` for any time.
        config: As for `Predict`, for both predictors.

    Raises:
        SignatureError: If the signature cannot be read, or has one of those fields, or a tool cannot be made.
        ProgramError: If code could not call a tool by its name, or a parameter is out of range.

    Example:
        >>> from otpy.programs.code_act import CodeAct
        >>> def weather(city: str) -> str:
        ...     '''Tell the weather.'''
        ...     return f"sunny in {city}"
        >>> [path for path, _ in CodeAct("question -> answer", [weather]).named_predictors()]
        ['act', 'extract.predict']
    """

    signature: type[Signature]
    act: Predict
    extract: ChainOfThought
    tools: Mapping[str, Tool]
    max_iters: int
    tool_timeout: float | None
    engine: Engine

    def __init__(
        self,
        signature: type[Returned] | str,
        tools: Iterable[Any],
        *,
        max_iters: int = 5,
        sandbox: str | Engine = "monty",
        tool_timeout: float | None = TOOL_TIMEOUT,
        **config: Any,
    ) -> None:
        """Make the predictors."""
        self.signature = plain = Predict(signature).signature
        refuse_fields("CodeAct", plain, ("trajectory", "code", "finished", "termination_reason"))
        self.tools = by_name(tools)
        code_tools("CodeAct", self.tools, ())
        self.max_iters = limit("CodeAct", "max_iters", max_iters, 1)
        self.tool_timeout = seconds("CodeAct", "tool_timeout", tool_timeout)
        self.engine = engine(sandbox)
        steps = InputField(desc="what was done so far, and what came of it")
        act = plain.append("trajectory", steps).append(
            "code", OutputField(desc="what to do next"), Code[Literal["python"]]
        )
        act = act.append("finished", OutputField(desc="whether the outputs can be told after this code"), bool)
        self.act = Predict(
            without_outputs(act).with_instructions(
                f"{plain.instructions}\n\nTo find {names_of(plain.output_fields)}, write Python step by step; what it"
                f" prints comes back before the next step, and its variables stay. The variables"
                f" {names_of(plain.input_fields)} are set. It may call these functions, without importing them:\n"
                f"{described(self.tools)}"
            ),
            **config,
        )
        self.extract = ChainOfThought(plain.append("trajectory", steps), **config)

    if TYPE_CHECKING:

        def __call__(self, *args: Any, **inputs: Any) -> Returned: ...  # noqa: D102 - as any program's

        async def acall(self, *args: Any, **inputs: Any) -> Returned: ...  # noqa: D102 - as any program's

    async def forward(self, **inputs: Any) -> Prediction:
        """Act, until it has finished, then tell the outputs."""
        values = self.signature.validate_inputs(inputs)
        submission = Submission(self.signature)
        functions = tool_functions(self.tools, submission)
        trajectory: list[dict[str, str]] = []
        reason = "max_iters"
        plain = self.signature.dump_inputs(values)
        async with await opened(self.engine, plain, functions, self.tool_timeout) as sandbox:
            for _ in range(self.max_iters):
                try:
                    acted = await fitting(
                        trajectory, lambda seen: self.act.acall(**values, trajectory=as_history(seen))
                    )
                except AdapterParseError:
                    reason = "invalid"
                    break
                outcome, output = await submission.run(sandbox, acted.code.code, _SHOWN)
                trajectory.append({"code": acted.code.code, "output": output})
                if acted.finished and outcome.error is None:
                    reason = "finished"
                    break
        answer = await fitting(trajectory, lambda seen: self.extract.acall(**values, trajectory=as_history(seen)))
        return Prediction(answer, attempts=answer.attempts, trajectory=trajectory, termination_reason=reason)

    @property
    def input_names(self) -> tuple[str, ...]:
        """The names of the inputs."""
        return tuple(self.signature.input_fields)

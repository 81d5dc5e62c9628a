"""`ProgramOfThought`: write a program that computes the answer, run it in a sandbox, mend it until it runs.

Source: Chen et al. 2022, "Program of Thoughts Prompting: Disentangling Computation from Reasoning for Numerical
Reasoning Tasks"; the name is DSPy's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Generic, Literal

from otpy.programs.chain_of_thought import ChainOfThought
from otpy.programs.predict import Predict
from otpy.programs.program import Program
from otpy.programs.sandboxed import (
    Submission,
    limit,
    names_of,
    opened,
    outputs_of,
    refuse_fields,
    submit_call,
    without_outputs,
)
from otpy.sandboxes import engine
from otpy.signatures import InputField, OutputField, Prediction
from otpy.signatures.returned import Returned
from otpy.types.code import Code

if TYPE_CHECKING:
    from otpy.sandboxes import Engine
    from otpy.signatures import Signature

__all__ = ["ProgramOfThought"]

_SHOWN: Final = 10_000
"""Characters of an output or an error that the model is shown."""
_OWN: Final = ("code", "previous_code", "error", "code_output", "trajectory", "termination_reason")


class ProgramOfThought(Program, Generic[Returned]):
    """Has the model write Python, runs it, and has it mended with the error, a bounded number of times.

    The inputs are variables of the code. Code that calls `SUBMIT(…)` with outputs that fit has answered; otherwise the
    model answers from what the code has printed, or from the failure of the last one. The prediction has a `trajectory`
    (each code, its output or error) and a `termination_reason`: `"submit"`, `"output"` or `"max_iters"`.

    Args:
        signature: As for `Predict`.
        max_iters: Codes that are run, at most.
        sandbox: `"monty"`, `"pyodide"`, `"bubblewrap"`, or an engine with limits of its own.
        config: As for `Predict`, for all predictors.

    Raises:
        SignatureError: If the signature cannot be read, or has a field that this program needs itself.
        ProgramError: If a parameter is out of range.

    Example:
        >>> from otpy.programs.program_of_thought import ProgramOfThought
        >>> print(ProgramOfThought("question -> answer: int").render())
        ProgramOfThought
        ├─ write  ChainOfThought
        │  └─ predict  Predict  question: str -> reasoning: str, code: Code['python']
        ├─ mend  ChainOfThought
        │  └─ predict  Predict  question: str, previous_code: str, error: str -> reasoning: str, code: Code['python']
        └─ answer  ChainOfThought
           └─ predict  Predict  question: str, code: str, code_output: str -> reasoning: str, answer: int
    """

    signature: type[Signature]
    write: ChainOfThought
    mend: ChainOfThought
    answer: ChainOfThought
    max_iters: int
    engine: Engine

    def __init__(
        self, signature: type[Returned] | str, *, max_iters: int = 3, sandbox: str | Engine = "monty", **config: Any
    ) -> None:
        """Make the predictors."""
        self.signature = plain = Predict(signature).signature
        refuse_fields("ProgramOfThought", plain, _OWN)
        self.max_iters = limit("ProgramOfThought", "max_iters", max_iters, 1)
        self.engine = engine(sandbox)
        write = _writing(plain)
        mend = write.append("previous_code", InputField()).append("error", InputField(desc="why it failed"))
        answer = plain.append("code", InputField(desc="a program for the task"))
        answer = answer.append("code_output", InputField(desc="what it has printed, or why it failed"))
        self.write, self.mend = ChainOfThought(write, **config), ChainOfThought(mend, **config)
        self.answer = ChainOfThought(answer, **config)

    if TYPE_CHECKING:

        def __call__(self, *args: Any, **inputs: Any) -> Returned: ...  # noqa: D102 - as any program's

        async def acall(self, *args: Any, **inputs: Any) -> Returned: ...  # noqa: D102 - as any program's

    async def forward(self, **inputs: Any) -> Prediction:
        """Write, run, mend, answer."""
        values = self.signature.validate_inputs(inputs)
        submission = Submission(self.signature)
        trajectory: list[dict[str, str]] = []
        functions = {"SUBMIT": submission.submit}
        async with await opened(self.engine, self.signature.dump_inputs(values), functions, None) as sandbox:
            written = await self.write.acall(**values)
            while True:
                outcome, output = await submission.run(sandbox, written.code.code, _SHOWN)
                trajectory.append({"code": written.code.code, "output": output})
                if submission.outputs is not None:
                    return _predicted(submission.outputs, trajectory, "submit")
                if outcome.error is None or len(trajectory) >= self.max_iters:
                    break
                written = await self.mend.acall(**values, previous_code=written.code.code, error=output)
        answered = await self.answer.acall(**values, code=trajectory[-1]["code"], code_output=trajectory[-1]["output"])
        outputs = {name: answered[name] for name in self.signature.output_fields}
        return _predicted(outputs, trajectory, "output" if outcome.error is None else "max_iters")

    @property
    def input_names(self) -> tuple[str, ...]:
        """The names of the inputs."""
        return tuple(self.signature.input_fields)


def _writing(signature: type[Signature]) -> type[Signature]:
    """The contract of whoever writes the program: its inputs, and the code."""
    return without_outputs(
        signature.append("code", OutputField(desc="the program"), Code[Literal["python"]])
    ).with_instructions(
        f"{signature.instructions}\n\nDo not answer yourself: write a Python program that does. The variables"
        f" {names_of(signature.input_fields)} are set. The outputs are:\n{outputs_of(signature)}\nThe program ends with"
        f" {submit_call(signature)}."
    )


def _predicted(outputs: dict[str, Any], trajectory: list[dict[str, str]], reason: str) -> Prediction:
    return Prediction(outputs, trajectory=trajectory, termination_reason=reason)

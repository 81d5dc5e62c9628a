"""`RLM`: a recursive language model, which reads a long context with code instead of in its prompt.

The context is a variable in a sandbox. The model sees what it is called, how long it is and how it begins, and writes
code that looks at it, step by step; the code may have models read pieces of it (`llm_query`).

Source: Zhang, Kraska and Khattab 2025, "Recursive Language Models" (arXiv 2512.24601); the name is DSPy's.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final, Generic, Literal

from otpy.errors import AdapterParseError, ProgramError
from otpy.programs.llm_query import Queries
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
    outputs_of,
    refuse_fields,
    submit_call,
    tool_functions,
)
from otpy.programs.tool_use import by_name
from otpy.sandboxes import engine
from otpy.signatures import InputField, OutputField, Prediction
from otpy.signatures.returned import Returned
from otpy.types.code import Code

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from otpy.programs.sandboxed import Entry
    from otpy.sandboxes import Engine
    from otpy.signatures import Signature
    from otpy.types.tool import Tool

__all__ = ["RLM"]

_OWN: Final = ("llm_query", "llm_query_batched", "SUBMIT")
_BEGINNING: Final = 500
"""Characters of a variable that the model is shown."""


class RLM(Program, Generic[Returned]):
    """Has the model explore its inputs with code, and have pieces of them read by models, until it submits.

    The code may call `llm_query(prompt)`, `llm_query_batched(prompts)` (a few at the same time), the tools, and
    `SUBMIT(…)`, which checks the outputs by the signature: outputs that do not fit are told to the code. If nothing has
    been submitted after `max_iters` steps the outputs are told from what has been done. The prediction has a
    `trajectory` (each reasoning, code and output) and a `termination_reason`: `"submit"`, `"max_iters"` or `"invalid"`
    (an answer that could not be read, after all re-asks).

    Args:
        signature: As for `Predict`; inputs may be as long as memory allows.
        max_iters: Steps, at most.
        max_llm_calls: Prompts that the code may have read in one call of the program; more of them fail.
        max_output_chars: Characters of a step's output that the model is shown; of more, the middle is left out.
        tools: Functions, async functions, programs, or `Tool`s that the code may call.
        sub_client: The name of the client that `llm_query` asks; `None` for the predictor's own.
        max_parallel: Prompts of `llm_query_batched` that are asked at the same time.
        sandbox: `"monty"`, `"pyodide"`, `"bubblewrap"`, or an engine with limits of its own.
        config: As for `Predict`, for both predictors.

    Raises:
        SignatureError: If the signature cannot be read, or has a field that this program needs itself.
        ProgramError: If code could not call a tool by its name, or a parameter is out of range.

    Example:
        >>> from otpy.programs.rlm import RLM
        >>> [path for path, _ in RLM("book, question -> answer", max_llm_calls=20).named_predictors()]
        ['act', 'extract']
    """

    signature: type[Signature]
    act: Predict
    extract: Predict
    tools: Mapping[str, Tool]
    max_iters: int
    max_llm_calls: int
    max_output_chars: int
    max_parallel: int
    sub_client: str | None
    engine: Engine

    def __init__(  # noqa: PLR0913 - keyword-only facts
        self,
        signature: type[Returned] | str,
        *,
        max_iters: int = 20,
        max_llm_calls: int = 50,
        max_output_chars: int = 10_000,
        tools: Iterable[Any] = (),
        sub_client: str | None = None,
        max_parallel: int = 8,
        sandbox: str | Engine = "monty",
        **config: Any,
    ) -> None:
        """Make the predictors."""
        self.signature = plain = Predict(signature).signature
        refuse_fields("RLM", plain, (*_OWN, "variables", "history", "step", "trajectory", "termination_reason"))
        self.tools = by_name(tools)
        code_tools("RLM", self.tools, (*_OWN, *plain.input_fields))
        self.max_iters = limit("RLM", "max_iters", max_iters, 1)
        self.max_llm_calls = limit("RLM", "max_llm_calls", max_llm_calls, 0)
        self.max_output_chars = limit("RLM", "max_output_chars", max_output_chars, 100)
        self.max_parallel = limit("RLM", "max_parallel", max_parallel, 1)
        if sub_client is not None and (not isinstance(sub_client, str) or not sub_client):
            raise ProgramError(f"RLM: sub_client={sub_client!r}; allowed: the name of a client, or None")
        self.sub_client, self.engine = sub_client, engine(sandbox)
        self.act = Predict(self._acting(plain), **config)
        self.extract = Predict(_extracting(plain), **config)

    def _acting(self, signature: type[Signature]) -> type[Signature]:
        """The contract of a step: what there is and what was done, to what to do next."""
        tools = f"\n{described(self.tools)}" if self.tools else ""
        functions = (
            "\n- llm_query(prompt: str) -> str: has a language model read a text, such as a piece of a variable"
            f"\n- llm_query_batched(prompts: list[str]) -> list[str]: the same for several, at the same time{tools}"
            f"\n- {submit_call(signature)}: gives the outputs, and ends"
        )
        return _contract(
            f"{signature.instructions}\n\nTo do this with the variables {names_of(signature.input_fields)}, which may"
            " be too long to read at once, write Python step by step. What a step prints comes back before the next"
            " one, and its variables stay. Look at what there is before you conclude, and print little. At most"
            f" {self.max_llm_calls} prompts can be read. The code may call, without importing:{functions}\n"
            f"The outputs are:\n{outputs_of(signature)}",
            {"reasoning": (OutputField(desc="what to do next, and why"), str),
             "code": (OutputField(desc="the code of this step"), Code[Literal["python"]])},
        ).append("step", InputField(desc="which of how many"))  # fmt: skip

    if TYPE_CHECKING:

        def __call__(self, *args: Any, **inputs: Any) -> Returned: ...  # noqa: D102 - as any program's

        async def acall(self, *args: Any, **inputs: Any) -> Returned: ...  # noqa: D102 - as any program's

    async def forward(self, **inputs: Any) -> Prediction:
        """Explore, until something is submitted."""
        values = self.signature.dump_inputs(self.signature.validate_inputs(inputs))
        variables = "\n".join(self._shown(name, value) for name, value in values.items())
        submission = Submission(self.signature)
        queries = Queries(
            self.sub_client or self.act.client,
            self.act.rollout,
            budget=self.max_llm_calls,
            parallel=self.max_parallel,
            submission=submission,
        )
        functions = {**tool_functions(self.tools, submission), **queries.functions(), "SUBMIT": submission.submit}
        trajectory: list[dict[str, str]] = []
        reason = "max_iters"
        async with await opened(self.engine, values, functions, None) as sandbox:
            for number in range(1, self.max_iters + 1):
                step = f"{number} of {self.max_iters}"
                try:
                    acted = await fitting(trajectory, partial(self._acted, variables, step))
                except AdapterParseError:
                    reason = "invalid"
                    break
                _, output = await submission.run(sandbox, acted.code.code, self.max_output_chars)
                trajectory.append({"reasoning": acted.reasoning, "code": acted.code.code, "output": output})
                if submission.outputs is not None:
                    return Prediction(submission.outputs, trajectory=trajectory, termination_reason="submit")
        extracted = await fitting(
            trajectory, lambda seen: self.extract.acall(variables=variables, history=as_history(seen))
        )
        return Prediction(extracted, attempts=extracted.attempts, trajectory=trajectory, termination_reason=reason)

    async def _acted(self, variables: str, step: str, seen: Sequence[Entry]) -> Prediction:
        return await self.act.acall(variables=variables, history=as_history(seen), step=step)

    def _shown(self, name: str, value: Any) -> str:
        """What the model is told of a variable: its type, its length, how it begins."""
        text = value if isinstance(value, str) else repr(value)
        size = f" of {len(value):,} {'characters' if isinstance(value, str) else 'items'}" if _sized(value) else ""
        desc = self.signature.input_fields[name].desc
        more = "…" if len(text) > _BEGINNING else ""
        what = f"{type(value).__name__}{size}{f' ({desc})' if desc else ''}"
        return f"{name}: {what}, begins: {text[:_BEGINNING]!r}{more}"

    @property
    def input_names(self) -> tuple[str, ...]:
        """The names of the inputs."""
        return tuple(self.signature.input_fields)


def _sized(value: Any) -> bool:
    return isinstance(value, (str, list, dict))


def _extracting(signature: type[Signature]) -> type[Signature]:
    fields = {
        field.name: (OutputField(desc=field.desc, **dict(field.constraints)), field.annotation)
        for field in signature.output_fields.values()
    }
    told_so = "Nothing was submitted in time: tell the outputs as well as the history of the steps allows."
    return _contract(f"{signature.instructions}\n\n{told_so}", fields)


def _contract(instructions: str, outputs: Mapping[str, tuple[Any, Any]]) -> type[Signature]:
    """A signature of what there is and what was done, to `outputs`."""
    made = Predict("variables, history -> placeholder_").signature
    made = made.with_updated_field("variables", desc="the variables, and how they begin")
    made = made.with_updated_field("history", desc="the steps so far, and what they have printed")
    for name, (field, kind) in outputs.items():
        made = made.append(name, field, kind)
    return made.delete("placeholder_").with_instructions(instructions)

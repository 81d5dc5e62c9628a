"""`ChainOfThought`: think first, then answer.

Source: Wei et al. 2022, "Chain-of-Thought Prompting Elicits Reasoning in Large Language Models"; the name is DSPy's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic

from otpy.programs.predict import Predict
from otpy.programs.program import Program
from otpy.signatures import OutputField
from otpy.signatures.returned import Returned
from otpy.types import Reasoning

if TYPE_CHECKING:
    from otpy.signatures import Prediction, Signature

__all__ = ["ChainOfThought"]


class ChainOfThought(Program, Generic[Returned]):
    """Like `Predict`, with one more output, `reasoning`, which comes before the others.

    With an adapter that has `native_reasoning=True` it is what the model thinks by itself, where its provider shows
    that, and is not asked for in the answer.

    Args:
        signature: As for `Predict`.
        config: As for `Predict`; demos have a `reasoning` too.

    Raises:
        SignatureError: If the signature cannot be read, or has a field `reasoning` already.
        ProgramError: If a parameter is out of range.

    Example:
        >>> from otpy.programs import ChainOfThought
        >>> list(ChainOfThought("question -> answer").predict.signature.output_fields)
        ['reasoning', 'answer']
    """

    predict: Predict

    def __init__(self, signature: type[Returned] | str, **config: Any) -> None:
        """Put the reasoning in front."""
        plain = Predict(signature).signature
        native = "reasoning" in getattr(config.get("adapter"), "native", ())
        thoughts = plain.prepend("reasoning", OutputField(desc="think step by step"), Reasoning if native else str)
        self.predict = Predict(thoughts, **config)

    if TYPE_CHECKING:

        def __call__(self, *args: Any, **inputs: Any) -> Returned: ...  # noqa: D102 - as any program's

        async def acall(self, *args: Any, **inputs: Any) -> Returned: ...  # noqa: D102 - as any program's

    async def forward(self, **inputs: Any) -> Prediction:
        """Ask."""
        return await self.predict.acall(**inputs)

    @property
    def signature(self) -> type[Signature]:
        """The signature with the reasoning in it."""
        return self.predict.signature

    @property
    def input_names(self) -> tuple[str, ...]:
        """The names of the inputs."""
        return self.predict.input_names

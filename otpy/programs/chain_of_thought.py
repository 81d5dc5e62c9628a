"""`ChainOfThought`: think first, then answer.

Source: Wei et al. 2022, "Chain-of-Thought Prompting Elicits Reasoning in Large Language Models"; the name is DSPy's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from otpy.programs.predict import Predict
from otpy.programs.program import Program
from otpy.signatures import OutputField, Signature, SignatureMeta

if TYPE_CHECKING:
    from otpy.signatures import Prediction

__all__ = ["ChainOfThought"]


class ChainOfThought(Program):
    """Like `Predict`, with one more output, `reasoning`, which comes before the others.

    Args:
        signature: As for `Predict`.
        config: As for `Predict`.

    Raises:
        SignatureError: If the signature cannot be read, or has a field `reasoning` already.

    Example:
        >>> from otpy.programs import ChainOfThought
        >>> list(ChainOfThought("question -> answer").predict.signature.output_fields)
        ['reasoning', 'answer']
    """

    predict: Predict

    def __init__(self, signature: SignatureMeta | str, **config: Any) -> None:
        """Put the reasoning in front."""
        if isinstance(signature, str):
            signature = Signature(signature)  # type: ignore[assignment]
        if isinstance(signature, SignatureMeta) and signature is not Signature:
            signature = signature.prepend("reasoning", OutputField(desc="think step by step"))
        self.predict = Predict(signature, **config)

    async def forward(self, **inputs: Any) -> Prediction:
        """Ask."""
        return await self.predict.acall(**inputs)

    @property
    def input_names(self) -> tuple[str, ...]:
        """The names of the inputs."""
        return self.predict.input_names

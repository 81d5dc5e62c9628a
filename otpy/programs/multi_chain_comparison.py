"""`MultiChainComparison`: several chains of thought, and one that compares them.

Source: Yoran et al. 2023, "Answering Questions by Meta-Reasoning over Multiple Chains of Thought"; the name is DSPy's.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from otpy.adapters import as_text
from otpy.errors import ProgramError
from otpy.programs.chain_of_thought import ChainOfThought
from otpy.programs.predict import Predict
from otpy.programs.program import Program
from otpy.signatures import InputField, OutputField

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from otpy.signatures import Prediction, Signature

__all__ = ["MultiChainComparison"]


class MultiChainComparison(Program):
    """Has `m` chains of thought, compares them, and answers.

    The chains are asked for at the same time. Whoever has some already passes them as `completions`.

    Args:
        signature: As for `Predict`.
        m: How many chains, at least 2.
        temperature: Of the chains, which are to differ; `None` leaves it, for models that refuse one.
        config: As for `Predict`.

    Raises:
        ProgramError: If `m` is no number of chains.
        SignatureError: If the signature cannot be read, or has a field `reasoning` or `completions` already.

    Example:
        >>> from otpy.programs import MultiChainComparison
        >>> [path for path, _ in MultiChainComparison("question -> answer", m=3).named_predictors()]
        ['attempt.predict', 'compare']
    """

    attempt: ChainOfThought
    compare: Predict
    m: int
    temperature: float | None

    def __init__(
        self, signature: type[Signature] | str, m: int = 3, *, temperature: float | None = 0.7, **config: Any
    ) -> None:
        """Make both predictors."""
        if "n" in config:
            raise ProgramError(f"n={config['n']!r}; MultiChainComparison has m chains: m={config['n']!r}")
        if not isinstance(m, int) or isinstance(m, bool) or m < 2:
            raise ProgramError(f"m={m!r}; allowed: an integer >= 2")
        self.m, self.temperature = m, temperature
        self.attempt = ChainOfThought(signature, **config)
        plain = Predict(signature).signature
        desc = "corrected reasoning, after a look at what each student says"
        compared = plain.prepend("reasoning", OutputField(desc=desc)).append(
            "students", InputField(desc="what students have answered"), list[str]
        )
        self.compare = Predict(compared, **config)

    @property
    def input_names(self) -> tuple[str, ...]:
        """The names of the inputs."""
        return self.attempt.input_names

    async def forward(self, completions: Iterable[Mapping[str, Any]] | None = None, **inputs: Any) -> Prediction:
        """Have chains, compare them, answer.

        Raises:
            ProgramError: If there are not `m` completions.
        """
        if completions is None:
            chains: list[Mapping[str, Any]] = list(
                await asyncio.gather(*(self._chain(n, inputs) for n in range(self.m)))
            )
        else:
            chains = list(completions)
        if len(chains) != self.m:
            raise ProgramError(f"{len(chains)} completions; allowed: {self.m}, as m={self.m}")
        students = [f"Student {number}: {_told(chain)}" for number, chain in enumerate(chains, 1)]
        return await self.compare.acall(**inputs, students=students)

    async def _chain(self, number: int, inputs: Mapping[str, Any]) -> Prediction:
        config = {"temperature": self.temperature} if self.temperature is not None else {}
        predictor = self.attempt.predict
        changed = predictor.configured(rollout=predictor.rollout + number, **config)
        return await self.attempt.replace(predict=changed).acall(**inputs)


def _told(chain: Mapping[str, Any]) -> str:
    return "; ".join(f"{name}: {as_text(value).strip()}" for name, value in chain.items())

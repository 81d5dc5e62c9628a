"""Instructions that are grounded: in what the data are like, what the program does, and what it already solves.

Source: Opsahl-Ong et al. 2024, "Optimizing Instructions and Demonstrations for Multi-Stage Language Model Programs".
"""

from __future__ import annotations

import inspect
import json
import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from otpy.teleprompters.advice import TIPS, Describe, Instruct, Observe, Summarize, advisor, described, told

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from otpy.programs import Predict, Program
    from otpy.signatures import Example
    from otpy.teleprompters.demo_sets import DemoSet
    from otpy.teleprompters.lab import Lab

__all__ = ["GroundedProposer", "source_of", "written"]

BATCHES: Final = 10
"""Batches of examples that are looked at, at most."""
SHOWN: Final = 3
"""Demos that an instruction is grounded in."""
UNKNOWN: Final = "(not told)"


@dataclass(frozen=True)
class GroundedProposer:
    """Proposes instructions for every predictor of a program.

    Everything that does not depend on something else is asked at once. What is asked beyond the instructions: one
    request for each batch of examples, at most ten, and one to sum them up; one to describe a program that has several
    predictors or code of its own.

    Args:
        client: The name of the client that is asked; each predictor's own if `None`, and the first one's for what
            concerns all.
        temperature: At which instructions are written.
        data_aware: Whether they are told what the data are like.
        program_aware: Whether they are told what the program does.
        fewshot_aware: Whether they are told what was solved already.
        tip_aware: Whether they are told to write in different styles.
        batch: Examples looked at together.
    """

    client: str | None = None
    temperature: float = 1.0
    data_aware: bool = True
    program_aware: bool = True
    fewshot_aware: bool = True
    tip_aware: bool = True
    batch: int = 10

    async def propose(
        self, lab: Lab, program: Program, trainset: Sequence[Example], demo_sets: Sequence[DemoSet], count: int
    ) -> dict[str, list[str]]:
        """Return instructions for each predictor, by path: its own first, no two the same, at most `count`.

        Args:
            lab: Asks, and decides the styles.
            program: The program.
            trainset: What the data are like is told from these.
            demo_sets: Each proposal is grounded in another one of these.
            count: Instructions wanted for a predictor, its own included.
        """
        data, purpose = await lab.together([self._data(lab, program, trainset), self._purpose(lab, program)])

        async def one(path: str, predictor: Predict, which: int, style: str) -> str | None:
            rollout = lab.rng("instruction", path, which).getrandbits(31)
            client = predictor.client if self.client is None else self.client
            asks = advisor(Instruct, client=client, temperature=self.temperature, rollout=rollout)
            shown = demo_sets[which % len(demo_sets)].get(path, ()) if demo_sets and self.fewshot_aware else ()
            return await told(
                lab,
                asks,
                task=described(predictor),
                program=purpose,
                dataset=data,
                examples=written(shown[:SHOWN]) or UNKNOWN,
                style=style or "Freely.",
            )

        asked: list[tuple[str, Predict, int, str]] = []
        for path, predictor in program.named_predictors():
            styles = list(TIPS.values()) if self.tip_aware else [""]
            lab.rng("styles", path).shuffle(styles)
            asked += [(path, predictor, which, styles[which % len(styles)]) for which in range(count - 1)]
        texts = await lab.together(one(*each) for each in asked)
        found = {path: [predictor.signature.instructions] for path, predictor in program.named_predictors()}
        for (path, *_), text in zip(asked, texts, strict=True):
            if text is not None and text not in found[path]:
                found[path].append(text)
        return found

    def _asks(self, program: Program, signature: Any) -> Predict:
        client = program.named_predictors()[0][1].client if self.client is None else self.client
        return advisor(signature, client=client, temperature=self.temperature)

    async def _data(self, lab: Lab, program: Program, trainset: Sequence[Example]) -> str:
        if not self.data_aware:
            return UNKNOWN
        parts = [trainset[at : at + self.batch] for at in range(0, len(trainset), self.batch)][:BATCHES]
        asks = self._asks(program, Observe)
        observed = await lab.together(told(lab, asks, examples=written(part)) for part in parts)
        texts = [text for text in observed if text is not None]
        if not texts:
            return UNKNOWN
        if len(texts) == 1:
            return texts[0]
        return await told(lab, self._asks(program, Summarize), observations="\n\n".join(texts)) or UNKNOWN

    async def _purpose(self, lab: Lab, program: Program) -> str:
        if not self.program_aware:
            return UNKNOWN
        source, predictors = source_of(program), program.named_predictors()
        if len(predictors) == 1 and not source:
            return program.render()
        steps = [f"{path}:\n{described(predictor)}" for path, predictor in predictors]
        text = "\n\n".join(part for part in (program.render(), *steps, source) if part)
        return await told(lab, self._asks(program, Describe), program=text) or program.render()


def source_of(program: Program) -> str:
    """Return the code of a program of yours; nothing for those that come with otpy, or if there is none to be had.

    Args:
        program: The program.
    """
    kind = type(program)
    if kind.__module__.partition(".")[0] == __name__.partition(".")[0]:
        return ""
    try:
        return textwrap.dedent(inspect.getsource(kind)).strip()
    except (OSError, TypeError):
        return ""


def written(examples: Iterable[Mapping[str, Any]]) -> str:
    """Return examples as text, a line each.

    Args:
        examples: The examples.

    Example:
        >>> from otpy.teleprompters.proposer import written
        >>> print(written([{"word": "pear", "count": 2}]))
        {"word": "pear", "count": 2}
    """
    return "\n".join(json.dumps(dict(example), ensure_ascii=False, default=str) for example in examples)

"""`COPRO`: better instructions, round after round, from a model that sees how the earlier ones did.

Source: COPRO ("coordinate prompt optimization") of Opsahl-Ong et al. 2024, "Optimizing Instructions and Demonstrations
for Multi-Stage Language Model Programs", after Yang et al. 2023, "Large Language Models as Optimizers".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from otpy.errors import TeleprompterError
from otpy.evaluate import Metric, check_metric, metric_name
from otpy.teleprompters.advice import Reword, Rework, advisor, described, told
from otpy.teleprompters.arguments import check_client, check_integer, is_number
from otpy.teleprompters.estimate import Writing
from otpy.teleprompters.review import kept_to
from otpy.teleprompters.teleprompter import P, Teleprompter

if TYPE_CHECKING:
    from collections.abc import Mapping

    from otpy.programs import Predict, Program
    from otpy.signatures import Example
    from otpy.teleprompters.lab import Lab
    from otpy.teleprompters.tried import Scores

__all__ = ["COPRO", "SignatureOptimizer", "check_advice", "ranked"]


class COPRO(Teleprompter[P]):
    """Lets a model write instructions, keeps what does best, and shows it the scores for the next round.

    Each round, predictor by predictor, new instructions are measured on the trainset; what a round ends with is
    measured on the valset, which chooses. DSPy's optimizer of this name measures and chooses on the trainset, and
    also words prefixes of outputs, which no adapter writes.

    It makes at most `breadth * depth * predictors` proposals, and measures as many programs on the trainset and
    `depth` on the valset, besides the student.

    Args:
        metric: Measures predictions.
        prompt_client: The name of the client that writes instructions; each predictor's own if `None`. DSPy has
            `prompt_model`.
        breadth: Instructions a round, at least 2; in the first round the one that is there is among them.
        depth: Rounds, at least 1.
        init_temperature: At which instructions are written.
        prompt_max_tokens: Longest answer with an instruction, in tokens; a model that thinks before needs more.
        seed: All chance comes from it.
        max_concurrency: Examples under way at once; the result does not depend on it.

    Raises:
        TeleprompterError: If an argument is out of range.
        EvaluationError: If the metric cannot be one.

    Example:
        >>> from otpy.evaluate import exact_match
        >>> from otpy.teleprompters.copro import COPRO
        >>> COPRO(exact_match("answer"), breadth=5)
        COPRO(exact_match('answer'), breadth=5, depth=3, seed=0)
    """

    uses_valset = True
    proposes = True

    def __init__(  # noqa: PLR0913 - DSPy's parameters
        self,
        metric: Metric,
        *,
        prompt_client: str | None = None,
        breadth: int = 10,
        depth: int = 3,
        init_temperature: float = 1.4,
        prompt_max_tokens: int = 1000,
        seed: int = 0,
        max_concurrency: int = 8,
    ) -> None:
        """Check the arguments."""
        check_metric(metric)
        check_integer("breadth", breadth, 2)
        check_integer("depth", depth, 1)
        check_integer("prompt_max_tokens", prompt_max_tokens, 1)
        check_integer("seed", seed, 0)
        check_integer("max_concurrency", max_concurrency, 1)
        check_advice(prompt_client, init_temperature)
        self.metric, self.prompt_client, self.prompt_max_tokens = metric, prompt_client, prompt_max_tokens
        self.breadth, self.depth, self.init_temperature = breadth, depth, init_temperature
        self.seed, self.max_concurrency = seed, max_concurrency

    def __repr__(self) -> str:
        """Print the metric, the numbers and the seed."""
        return f"COPRO({metric_name(self.metric)}, breadth={self.breadth}, depth={self.depth}, seed={self.seed})"

    def requests(self, rows: int, val: int, predictors: int) -> tuple[int, int]:
        """Return all proposals, and as many as if none of them were news, and as if all were and each round better."""
        proposals = (self.breadth * self.depth - 1) * predictors
        least = proposals + (rows + val) * predictors
        return least, least + (proposals * rows + self.depth * val) * predictors

    def writing(self, rows: int, val: int, predictors: int) -> list[Writing]:  # noqa: ARG002 - the base's
        """Return a request for each proposal, which shows those that are the best so far."""
        count = (self.breadth * self.depth - 1) * predictors
        shown = self.breadth if self.depth > 1 else 1
        return [Writing((count, count), self.prompt_client, self.prompt_max_tokens, 0, shown)]

    async def search(
        self,
        lab: Lab,
        student: P,
        trainset: list[Example],
        valset: list[Example],
        teacher: Program | None,  # noqa: ARG002 - the base's
    ) -> P:
        """Climb, one predictor after the other."""
        rows, others = list(enumerate(trainset)), list(enumerate(valset))
        current = await lab.evaluate(student, rows)
        tried: dict[str, dict[str, float]] = {
            path: {predictor.signature.instructions: current.mean} for path, predictor in student.named_predictors()
        }
        for number in range(self.depth):
            before = current.program
            for path, known in tried.items():
                current = await self._climbed(lab, current, path, known, rows, number)
            if current.program != before:
                scores = await lab.evaluate(current.program, others)
                texts = {path: one.signature.instructions for path, one in current.program.named_predictors()}
                await lab.candidate(f"round {number + 1}", scores, instructions=texts, trainset_score=current.mean)
        assert lab.best is not None
        best: P = lab.best.program  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType] - a copy of it
        return best

    async def _climbed(  # noqa: PLR0913, PLR0917 - where it stands
        self,
        lab: Lab,
        current: Scores,
        path: str,
        known: dict[str, float],
        rows: list[tuple[int, Example]],
        number: int,
    ) -> Scores:
        """Try new instructions for a predictor, and return the best that is known then."""
        if path in lab.review.pins(number):
            return current
        predictor = dict(current.program.named_predictors())[path]
        proposed = [text for text in await self._proposals(lab, predictor, path, known, number) if text not in known]
        let = await lab.review.choices({path: [predictor.signature.instructions, *proposed]}, number)
        new = [text for text in let[path] if text not in known]
        programs = [current.program.with_instructions({path: text}) for text in new]
        measured = await lab.together(lab.evaluate(program, rows) for program in programs)
        known.update({text: scores.mean for text, scores in zip(new, measured, strict=True)})
        if pinned := lab.review.pins(number + 1):
            return await lab.evaluate(kept_to(current.program, pinned), rows)
        return max([current, *measured], key=lambda scores: scores.mean)

    async def _proposals(
        self, lab: Lab, predictor: Predict, path: str, known: Mapping[str, float], number: int
    ) -> list[str]:
        count = self.breadth if number else self.breadth - 1
        signature: Any = Rework if number else Reword
        given = {"tried": ranked(known, self.breadth)} if number else {}
        task = described(predictor, instruction=not number)
        client = predictor.client if self.prompt_client is None else self.prompt_client

        async def one(which: int) -> str | None:
            rollout = lab.rng("proposal", path, number, which).getrandbits(31)
            how: dict[str, Any] = {"temperature": self.init_temperature, "max_tokens": self.prompt_max_tokens}
            asks = advisor(signature, client=client, rollout=rollout, **how)
            return await told(lab, asks, task=task, proposal=f"{which + 1} of {count}", **given)

        texts = await lab.together(one(which) for which in range(count))
        return list(dict.fromkeys(text for text in texts if text is not None))


def ranked(scores: Mapping[str, float], count: int) -> str:
    """Return the best instructions with their scores as text, the worst of them first.

    Args:
        scores: Scores by instruction.
        count: How many to name.

    Example:
        >>> from otpy.teleprompters.copro import ranked
        >>> print(ranked({"Guess.": 0.25, "Think.": 0.5, "Sleep.": 0}, 2))
        25.0 %: Guess.
        50.0 %: Think.
    """
    best = sorted(scores.items(), key=lambda item: item[1])[-count:]
    return "\n".join(f"{100 * score:.1f} %: {text}" for text, score in best)


def check_advice(prompt_client: Any, init_temperature: Any) -> None:
    """Refuse what cannot say whom to ask for instructions, and how.

    Args:
        prompt_client: The name of a client, or `None`.
        init_temperature: A number from 0.

    Raises:
        TeleprompterError: With the name, the value and what is allowed.
    """
    check_client("prompt_client", prompt_client)
    if not is_number(init_temperature) or init_temperature < 0:
        raise TeleprompterError(f"init_temperature={init_temperature!r}; allowed: a number >= 0")


SignatureOptimizer = COPRO
"""The name that COPRO had at first."""

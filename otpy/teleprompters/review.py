"""`Review`: instructions that a search proposes are put to a person before they are tried."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, NamedTuple

from otpy.teleprompters.questions import about_instruction

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from otpy.programs import Program
    from otpy.teleprompters.questions import Question, Verdict

__all__ = ["Review", "instructions_of", "kept_to"]


class _Pin(NamedTuple):
    """An instruction that is to stay, from the round after this one on; the first counts."""

    part: int
    round: int
    rank: int
    text: str


class Review:
    """What a person has decided about the instructions of a run.

    When a pin begins to count depends on the round in which its instruction was proposed, not on when the person has
    answered: so the search takes the same steps again from the answers alone.

    Args:
        ask: Puts a question to people and waits for what they answer; `None` lets everything through.

    Example:
        >>> import asyncio
        >>> from otpy.teleprompters.questions import Verdict
        >>> from otpy.teleprompters.review import Review
        >>> async def pinned(question):
        ...     return (Verdict("anna", None, "pin", "Be brief."),)
        >>> async def main():
        ...     review = Review(pinned)
        ...     print(await review.of({"self": "Be short."}, {"self": "Answer."}, 0), review.pins(0), review.pins(1))
        >>> asyncio.run(main())
        {'self': 'Be brief.'} {} {'self': 'Be brief.'}
    """

    def __init__(self, ask: Callable[[Question], Awaitable[tuple[Verdict, ...]]] | None = None) -> None:
        """Know of no decision."""
        self._ask = ask
        self._pins: dict[str, set[_Pin]] = {}
        self._part = 0
        self.vetoed = 0
        """Instructions that were not let through."""

    def begin(self) -> None:
        """Forget what was decided, as the search begins anew and will ask again; the answers are in the journal."""
        self._pins.clear()
        self._part = self.vetoed = 0

    def next_part(self) -> None:
        """Begin a search within the search: its rounds come after those before."""
        self._part += 1

    async def of(self, texts: Mapping[str, str], now: Mapping[str, str], number: int, rank: int = 0) -> dict[str, str]:
        """Return the texts to use: as approved or edited, and without those that were vetoed.

        Args:
            texts: New instructions by the paths of predictors.
            now: Those so far.
            number: The search's round.
            rank: The proposal's place among those of the round.
        """
        if self._ask is None:
            return dict(texts)
        pins = self.pins(number)
        asked = [(path, text) for path, text in texts.items() if path not in pins]
        found = await asyncio.gather(*(self._ask(about_instruction(path, text, now[path])) for path, text in asked))
        new: dict[str, str] = {}
        for (path, _), (verdict, *_others) in zip(asked, found, strict=True):
            if verdict.choice == "veto":
                self.vetoed += 1
                continue
            new[path] = verdict.words
            if verdict.choice == "pin":
                self._pins.setdefault(path, set()).add(_Pin(self._part, number, rank, verdict.words))
        return {path: text for path in texts if (text := {**new, **pins}.get(path)) is not None}

    async def choices(self, texts: Mapping[str, list[str]], number: int = 0) -> dict[str, list[str]]:
        """Return what may be chosen from: the first of each as it is, the others as approved or edited, or the pinned.

        Args:
            texts: Instructions by the paths of predictors, their own first.
            number: The search's round.
        """
        if self._ask is None:
            return dict(texts)
        new = [(path, rank, text) for path, each in texts.items() for rank, text in enumerate(each) if rank]
        found = await asyncio.gather(
            *(self.of({path: text}, {path: texts[path][0]}, number, rank) for path, rank, text in new)
        )
        chosen = {path: each[:1] for path, each in texts.items()}
        for (path, *_), let in zip(new, found, strict=True):
            chosen[path] += [text for text in let.values() if text not in chosen[path]]
        return {**chosen, **{path: [text] for path, text in self.pins(number + 1).items() if path in chosen}}

    def pins(self, number: int | None = None) -> dict[str, str]:
        """Return the instructions that were pinned before a round, by path.

        Args:
            number: The round; by default when all of them are over.
        """
        here = self._part, number
        counting = {
            path: [pin for pin in pins if number is None or (pin.part, pin.round) < here]
            for path, pins in self._pins.items()
        }
        return {path: min(pins).text for path, pins in counting.items() if pins}


def instructions_of(program: Program) -> dict[str, str]:
    """Return the instructions of a program's predictors, by path.

    Args:
        program: The program.
    """
    return {path: predictor.signature.instructions for path, predictor in program.named_predictors()}


def kept_to(program: Program, pins: Mapping[str, str]) -> Program:
    """Return the program with the instructions that were pinned; itself if it has them.

    Args:
        program: The program.
        pins: Instructions by path.
    """
    known = instructions_of(program)
    new = {path: text for path, text in pins.items() if known.get(path, text) != text}
    return program.with_instructions(new) if new else program

"""What of a program evolves in `GEPA`: a text for each component, which is a predictor's instruction or its demos."""

from __future__ import annotations

import json
from itertools import product
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from otpy.errors import SignatureError, TeleprompterError
from otpy.teleprompters.demos import fits
from otpy.teleprompters.reflection import calls_of, outputs_of

if TYPE_CHECKING:
    import random
    from collections.abc import Mapping, Sequence

    from otpy.programs import Predict, Program
    from otpy.signatures import Example
    from otpy.teleprompters.tried import Tried

__all__ = ["DEMOS", "Components", "Evolves"]

Evolves: TypeAlias = Literal["instructions", "demos", "both"]
DEMOS: Final = " demos"
"""What the name of a component ends in that is a predictor's demos; that of an instruction is the predictor's path."""


class Components:
    """The components of a program, as texts that can be compared and merged, and programs made of them.

    Args:
        evolves: Which there are.
        max_demos: Demos of a predictor, at most, of those it gains.
    """

    def __init__(self, evolves: Evolves, max_demos: int) -> None:
        """Know of no demos yet."""
        self._evolves, self._most = evolves, max_demos
        self._demos: dict[str, tuple[Mapping[str, Any], ...]] = {}

    def check(self, program: Program, rows: Sequence[Example]) -> None:
        """Refuse rows that cannot be shown, before anything is asked.

        Args:
            program: The program.
            rows: What may be shown.

        Raises:
            TeleprompterError: If a row has a predictor's fields with a value that is none of the field's type.
        """
        if self._evolves == "instructions":
            return
        for (path, predictor), (at, row) in product(program.named_predictors(), enumerate(rows)):
            if fits(predictor, row):
                try:
                    predictor.replace_demos([{name: row[name] for name in predictor.signature.fields}])
                except SignatureError as error:
                    raise TeleprompterError(f"row {at} of the trainset can be no demo of {path}: {error}") from error

    def of(self, program: Program) -> dict[str, str]:
        """Return the texts of a program's components, by their names."""
        texts: dict[str, str] = {}
        for path, predictor in program.named_predictors():
            if self._evolves != "demos":
                texts[path] = predictor.signature.instructions
            if self._evolves != "instructions":
                texts[path + DEMOS] = self._text(predictor)
        return texts

    def made(self, program: Program, texts: Mapping[str, str]) -> Program:
        """Return a program with these components; what does not differ is left, so that an equal program stays equal.

        Args:
            program: What it is made from.
            texts: By name; those of demos must have been returned from here.
        """
        old = self.of(program)
        new = {name: text for name, text in texts.items() if old[name] != text}
        demos = {name.removesuffix(DEMOS): self._demos[text] for name, text in new.items() if name.endswith(DEMOS)}
        instructions = {path: text for path, text in new.items() if not path.endswith(DEMOS)}
        program = program.with_instructions(instructions) if instructions else program
        return program.with_demos(demos) if demos else program

    def with_shown(self, program: Program, path: str, rows: Sequence[Tried], perfect: float, rng: random.Random) -> str:
        """Return the demos of a predictor with some rows among them, as the text of the component.

        A row that scored perfectly is shown as it was answered, any other with its labels, if it has all the
        predictor's fields. Where there are more than may be, older ones go, by chance.

        Args:
            program: The program.
            path: The predictor's.
            rows: The rows, as the program did them.
            perfect: The score that cannot be bettered.
            rng: Chance.
        """
        predictor = dict(program.named_predictors())[path]

        def told(demo: Mapping[str, Any]) -> str:
            return repr([str(demo.get(name)) for name in predictor.signature.input_fields])

        found: dict[str, Mapping[str, Any]] = {}  # one for each question
        for tried in rows:
            calls = calls_of(tried, path)
            demo: Mapping[str, Any] | None = None
            if tried.score >= perfect and calls:
                call = rng.choice(calls)
                demo = {**call.inputs, **outputs_of(call)}
            elif fits(predictor, tried.example):
                demo = {name: tried.example[name] for name in predictor.signature.fields}
            if demo is not None:
                found[told(demo)] = demo
        new = list(found.values())
        if not new:
            return self._text(predictor)
        new = rng.sample(new, min(len(new), self._most))
        old = [demo for demo in predictor.demos if told(demo) not in map(told, new)]
        kept = sorted(rng.sample(range(len(old)), min(len(old), self._most - len(new))))
        return self._text(predictor.replace_demos([*(old[place] for place in kept), *new]))

    def _text(self, predictor: Predict) -> str:
        text = json.dumps(predictor.dump_predictor()["demos"])
        self._demos[text] = predictor.demos
        return text

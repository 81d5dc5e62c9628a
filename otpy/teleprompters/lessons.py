"""What a model can learn from runs of a program, and from rows that say the answers: records, in order. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from otpy.errors import OtpyError, TeleprompterError
from otpy.teleprompters.demos import fits
from otpy.training.records import Record

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from otpy.programs import Predict, Program
    from otpy.signatures import Example
    from otpy.teleprompters.tried import Tried

__all__ = ["Lesson", "lessons_of_rows", "lessons_of_runs", "taught"]

Lesson = tuple[str, Record]
"""Whose predictor's it is, by path, and what it is."""


def taught(student: Program, *, exclude_demos: bool) -> Program:
    """Return the program whose questions a model is to learn to answer.

    Args:
        student: The program.
        exclude_demos: Whether it is asked without demos from now on.
    """
    return student.map_predictors(lambda _, predictor: predictor.replace_demos(())) if exclude_demos else student


def lessons_of_runs(program: Program, runs: Iterable[Tried]) -> list[Lesson]:
    """Return what each call of each predictor teaches: the program's question, and the run's answer to it.

    Args:
        program: Asks the questions; its predictors are those of the program that ran.
        runs: What was run, with its calls.
    """
    predictors = dict(program.named_predictors())
    return [
        (entry.path, _lesson(entry.path, predictors[entry.path], entry.inputs, entry.prediction))
        for run in runs
        for entry in run.trace
        if entry.path in predictors
    ]


def lessons_of_rows(program: Program, rows: Iterable[Example]) -> list[Lesson]:
    """Return what rows teach that have all the fields of a predictor, of every predictor.

    Args:
        program: Asks the questions.
        rows: Examples.

    Raises:
        TeleprompterError: If no row has all the fields of a predictor.
    """
    several = list(rows)
    found: list[Lesson] = []
    for path, predictor in program.named_predictors():
        own = [(path, _lesson(path, predictor, row, row)) for row in several if fits(predictor, row)]
        if not own:
            raise TeleprompterError(
                f"no row of the trainset has all the fields of {path}: {', '.join(predictor.signature.fields)};"
                " with a metric, or a teacher, a program's own answers are learned instead"
            )
        found += own
    return found


def _lesson(path: str, predictor: Predict, inputs: Mapping[str, Any], outputs: Mapping[str, Any]) -> Record:
    signature = predictor.signature
    try:
        messages = predictor.messages(**{name: inputs[name] for name in signature.input_fields})
        said = {name: outputs[name] for name in signature.output_fields}
        return Record(messages, predictor.adapter.render(signature, said))
    except OtpyError as error:
        raise TeleprompterError(
            f"{path} has nothing that can be learned from {dict(inputs)!r:.200}: {error}"
        ) from error

"""`HumanMetric`: a metric that is a person."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from otpy.errors import TeleprompterError
from otpy.evaluate.plain import fields_as_json
from otpy.evaluate.score import Score
from otpy.evaluate.statistics import mean
from otpy.teleprompters.desk import current_office, desk_at
from otpy.teleprompters.questions import Question, about_score, choices_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from otpy.programs import Trace
    from otpy.signatures import Example, Prediction
    from otpy.teleprompters.questions import Verdict

__all__ = ["HumanMetric"]


class HumanMetric:
    """Lets people say how good an answer is.

    What is to be judged is put into a file, where `otpy judge FILE` finds it: in an optimization into the journal of
    the run, which therefore needs one; in an evaluation into `queue`. Rows that wait for a person hold no place among
    those under way, and no deadline runs. The process may end meanwhile: the same call again goes on, and what is in
    the file is not asked again.

    The same question with the same values shown is one judgement, whichever program has answered so.

    Args:
        question: What people are asked.
        scale: The least and the greatest whole number that may be given, at most ten in all; they count for 0 and 1,
            and those between in proportion. By default `(0, 1)`, no and yes.
        choices: Labels in the place of a scale, and what each counts for.
        fields: Inputs and outputs that are shown, and so decide which answers are the same; by default all.
        judges: How many people are asked about each; the mean counts, and the feedback says if they disagree.
        guidance: How to judge, shown with every question.
        queue: The file for the questions; in an optimization the run's journal if there is none.

    Raises:
        TeleprompterError: If an argument cannot be used.

    Example:
        >>> from otpy.teleprompters.human import HumanMetric
        >>> HumanMetric("Is it polite?", scale=(1, 5), queue="polite.db")
        HumanMetric('Is it polite?', scale=(1, 5))
        >>> HumanMetric(choices={"good": 1, "so-so": 0.3, "bad": 0}, judges=2)
        HumanMetric('Is this a good answer?', choices={'good': 1.0, 'so-so': 0.3, 'bad': 0.0}, judges=2)
    """

    asks_people: ClassVar[bool] = True
    """Rows measured by it hold no place while they wait; a metric of yours that awaits one says so too."""
    quick: ClassVar[bool] = True

    def __init__(  # noqa: PLR0913 - keyword-only facts
        self,
        question: str = "Is this a good answer?",
        *,
        scale: tuple[int, int] | None = None,
        choices: Mapping[str, float] | None = None,
        fields: Sequence[str] | None = None,
        judges: int = 1,
        guidance: str = "",
        queue: str | os.PathLike[str] | None = None,
    ) -> None:
        """Check the arguments."""
        for name, text in (("question", question), ("guidance", guidance)):
            if not isinstance(text, str) or (name == "question" and not text.strip()):
                raise TeleprompterError(f"{name}={text!r}; allowed: a text")
        given: Any = fields
        names: list[Any] = list(given) if isinstance(given, (list, tuple)) else []  # pyright: ignore[reportUnknownArgumentType] - looked at next
        if fields is not None and not (names and all(isinstance(one, str) for one in names)):
            raise TeleprompterError(f"fields={fields!r}; allowed: names of inputs and outputs, or None")
        if isinstance(judges, bool) or not isinstance(judges, int) or judges < 1:
            raise TeleprompterError(f"judges={judges!r}; allowed: an integer >= 1")
        if queue is not None and not isinstance(queue, (str, os.PathLike)):
            raise TeleprompterError(f"queue={queue!r}; allowed: a path, or None")
        self.question, self.guidance, self.judges = question, guidance, judges
        self.choices = choices_of(scale, choices)
        self.fields = None if fields is None else tuple(fields)
        self.queue = None if queue is None else Path(queue)
        values = {one.label: one.value for one in self.choices} if choices is not None else None
        self._words = {
            "scale": None if scale is None or tuple(scale) == (0, 1) else tuple(scale),
            "choices": values,
            "fields": self.fields,
            "judges": None if judges == 1 else judges,
            "guidance": guidance or None,
        }
        self.__name__ = repr(self)  # another question is another metric

    def __repr__(self) -> str:
        """Print what decides a judgement."""
        more = [f"{name}={value!r}" for name, value in self._words.items() if value is not None]
        return f"HumanMetric({', '.join([repr(self.question), *more])})"

    async def __call__(self, example: Example, prediction: Prediction, trace: Trace | None = None) -> Score:  # noqa: ARG002 - a metric
        """Have a prediction judged, however long that takes.

        Args:
            example: The row, with its inputs marked.
            prediction: What was answered.
            trace: Makes no difference.

        Raises:
            TeleprompterError: If there is no file for the question, or it cannot be used, or a field is not there.
        """
        office, question = current_office(), self.asked(example, prediction)
        if office is not None:
            return self.scored(await office.ask(question, self.queue))
        if self.queue is None:
            raise TeleprompterError(
                f"{self!r} has no file for its questions; give it queue=path, which `otpy judge` reads"
            )
        return self.scored(await desk_at(self.queue).ask(question))

    def asked(self, example: Example, prediction: Prediction) -> Question:
        """Return what people are asked about a prediction.

        Args:
            example: The row, with its inputs marked.
            prediction: What was answered.

        Raises:
            TeleprompterError: If one of `fields` is not there.
        """
        inputs, outputs, label = example.inputs(), dict(prediction), example.labels()
        if self.fields is not None:
            missing = [name for name in self.fields if name not in inputs and name not in outputs]
            if missing:
                there = ", ".join([*inputs, *outputs])
                raise TeleprompterError(f"fields={self.fields!r} of {self.question!r}: no {missing[0]!r} among {there}")
        shown = [
            fields_as_json(
                {name: value for name, value in values.items() if self.fields is None or name in self.fields}
            )
            for values in (inputs, outputs)
        ]
        return about_score(
            self.question,
            choices=self.choices,
            inputs=shown[0],
            outputs=shown[1],
            label=fields_as_json(label),
            guidance=self.guidance,
            needed=self.judges,
        )

    def scored(self, verdicts: Sequence[Verdict]) -> Score:
        r"""Return what verdicts come to: the mean, and the words, with what each has chosen if they disagree.

        Args:
            verdicts: One of each judge.

        Example:
            >>> from otpy.teleprompters.human import HumanMetric
            >>> from otpy.teleprompters.questions import Verdict
            >>> HumanMetric(judges=2).scored([Verdict("anna", 1.0, "yes"), Verdict("bob", 0.0, "no", "Too long.")])
            Score(0.5, 'The judges disagree: anna yes, bob no.\nbob: Too long.')
        """
        words = [one for one in verdicts if one.words]
        lines = [one.words if len(verdicts) == 1 else f"{one.judge}: {one.words}" for one in words]
        if len({one.choice for one in verdicts}) > 1:
            chosen = ", ".join(f"{one.judge} {one.choice}" for one in verdicts)
            lines.insert(0, f"The judges disagree: {chosen}.")
        return Score(mean([one.value or 0.0 for one in verdicts]), "\n".join(lines))

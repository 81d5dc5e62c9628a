"""`otpy demo`: a bicycle workshop's mail, sorted by a small model, before and after it has seen examples."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from otpy.application import start
from otpy.cli.local_models import pulled
from otpy.cli.measuring import finished, summary
from otpy.cli.targets import checked, writable
from otpy.clients import models
from otpy.evaluate import Evaluate, EvaluationResult, Scored, check_labels, exact_match, load_dataset
from otpy.programs import Predict, save
from otpy.signatures import InputField, OutputField, Signature
from otpy.teleprompters import BootstrapFewShot

if TYPE_CHECKING:
    from otpy.application import Application
    from otpy.cli.screen import Screen
    from otpy.signatures import Example

__all__ = ["Sort", "run_demo"]

DATA = Path(__file__).parent / "data"
DEMOS = 36
"""Demos that the better program gets: with fewer a model this small guesses, with many more its prompt gets long."""
BOOTSTRAPPED = 6
"""How many of them are its own right answers: it is right about some topics only, and demos have to cover them all."""
SHOWN = 5


class Sort(Signature):
    """Say what a customer's message to a bicycle workshop is about."""

    message: str = InputField()
    topic: Literal["brakes", "gears", "lights", "pickup", "price", "tyre"] = OutputField()


@dataclasses.dataclass(frozen=True, slots=True)
class Outcome:
    """What the demo found.

    Args:
        before: The program as it is written.
        after: The program with demos.
        better: The program with demos.
        tree: The supervision tree it all ran in.
    """

    before: EvaluationResult
    after: EvaluationResult
    better: Predict
    tree: str


def run_demo(
    screen: Screen, *, seed: int, lm: str, base_url: str | None, train: int | None, dev: int | None, out: Path
) -> None:
    """Evaluate, bootstrap, evaluate again, and show all of it.

    Args:
        screen: Where it is shown.
        seed: Decides which examples become demos.
        lm: The model.
        base_url: The server's address, for a model that is not ours to run.
        train: Rows to learn from, or `None` for all.
        dev: Rows to measure on, or `None` for all.
        out: Where the better program goes.
    """
    writable(out, "--out")
    application = checked(start(lm=lm, base_url=base_url))
    trainset, devset = _rows("train")[:train], _rows("dev")[:dev]
    if lm.startswith("local/") and models.runtime_installed():
        pulled(screen, lm.removeprefix("local/"))
    screen.line(
        f"{len(devset)} messages to a bicycle workshop are sorted by {lm}; {len(trainset)} others are examples."
    )
    found = _improved(application, screen, trainset, devset, seed)
    save(found.better, out)
    _show(screen, found, devset[0], out)
    screen.result(
        {
            "command": "demo",
            "seed": seed,
            "lm": lm,
            "before": summary(found.before),
            "after": summary(found.after),
            "demos": len(found.better.demos),
            "out": str(out),
        }
    )


def _rows(which: str) -> list[Example]:
    path = DATA / f"demo_{which}.jsonl"
    rows = load_dataset(path, inputs=Sort.input_fields, required=Sort.output_fields)
    check_labels(rows, Sort, str(path))
    return rows


def _improved(
    application: Application, screen: Screen, trainset: list[Example], devset: list[Example], seed: int
) -> Outcome:
    metric = exact_match("topic")
    program = Predict(Sort, temperature=0.0)
    evaluation = Evaluate(devset, metric=metric, display_progress=screen.shows_progress)
    teleprompter: BootstrapFewShot[Predict] = BootstrapFewShot(
        metric,
        max_bootstrapped_demos=BOOTSTRAPPED,
        max_labeled_demos=DEMOS,
        seed=seed,
        display_progress=screen.shows_progress,
    )
    with application:
        before = finished(evaluation, program)
        screen.line(f"zero-shot: {before}")
        better = teleprompter.compile(program, trainset=trainset)
        screen.line(
            f"bootstrapped {len(better.demos)} demos: up to {BOOTSTRAPPED} right answers of its own, and examples"
        )
        after = finished(evaluation, better)
        screen.line(f"few-shot:  {after}")
        return Outcome(before, after, better, application.render())


def _show(screen: Screen, found: Outcome, example: Example, out: Path) -> None:
    before, after = found.before, found.after
    screen.heading("Before and after")
    screen.table(
        ["", "zero-shot", f"with {len(found.better.demos)} demos"],
        [
            ["right", *(f"{100 * result.score:.1f} %" for result in (before, after))],
            [
                "rows",
                *(f"{sum(row.score for row in result.scored):g} of {len(result.rows)}" for result in (before, after)),
            ],
            ["failed", *(len(result.failed) for result in (before, after))],
            ["seconds", *(f"{result.seconds:.1f}" for result in (before, after))],
        ],
    )
    screen.heading("What changed")
    screen.table(["message", "topic", "zero-shot", "few-shot"], _changed(before, after))
    screen.heading("What the model reads now, shortened")
    for message in _excerpt(found.better, example):
        screen.line(message)
    screen.heading("The supervision tree that did it")
    screen.line(found.tree)
    screen.heading("Next")
    screen.line(f"saved {out}; measure it on rows of your own:")
    screen.line(f"  otpy eval --program {out} --data rows.jsonl --metric exact_match:topic --lm local/smollm2-135m")


def _changed(before: EvaluationResult, after: EvaluationResult) -> list[list[Any]]:
    """Rows whose answer changed, those that are wrong now first."""
    pairs = [
        [one.example["message"], one.example["topic"], _answer(one), _answer(other)]
        for one, other in zip(before.rows, after.rows, strict=True)
        if _answer(one) != _answer(other)
    ]
    wrong = [pair for pair in pairs if pair[3] != pair[1]]
    right = [pair for pair in pairs if pair[3] == pair[1]]
    return wrong[:SHOWN] + right[:SHOWN]


def _answer(row: Any) -> str:
    return str(row.prediction["topic"]) if isinstance(row, Scored) else row.explanation


def _excerpt(program: Predict, example: Example) -> list[str]:
    messages = program.messages(**example.inputs())
    shown = [f"{message.role}: {message.content}" for message in messages]
    return shown if len(shown) <= 6 else [*shown[:5], f"… {len(shown) - 6} more turns …", shown[-1]]

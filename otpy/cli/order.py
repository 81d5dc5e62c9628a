"""`Order`: what `otpy optimize` is told, as JSON data: a journal keeps it, and a command line is made of it."""

from __future__ import annotations

import dataclasses
import shlex
from pathlib import Path
from typing import Any

from otpy.cli.measuring import Job

__all__ = ["Order"]


@dataclasses.dataclass(frozen=True, slots=True)
class Order:
    """What `otpy optimize` is told, as it was typed: JSON data, so that a journal can keep it.

    Args:
        program: As for `Job`.
        data: Names the rows to learn from.
        metric: As for `Job`.
        optimizer: Its name on the command line.
        out: Where the program goes.
        settings: Parameters of the optimizer, each as `"name=value"`.
        max_demos: Demos a predictor gets, at most; `None` for the optimizer's own.
        seed: Decides every choice.
        val: Names the rows to choose by, or `None`.
        teacher: Names the program that solves the examples, or `None`.
        dev: Names the rows to measure on, before and after, or `None`.
        lm: As for `Job`, and so are the others up to `load`.
        base_url: See `Job`.
        temperature: See `Job`.
        max_tokens: See `Job`.
        max_concurrency: See `Job`.
        limit: See `Job`.
        inputs: See `Job`.
        load: A saved program whose state the program takes over, or `None`.
        max_requests: Requests it may make, or `None`.
        max_total_tokens: Tokens it may take, or `None`.
        max_money: Dollars it may spend, or `None`.
        journal: The journal's file, or `None` for one whose name says what is done.
        accept: Which program is returned, as for `start`; `None` for the best.
        objective: What is wanted besides a good score, `"cost"` or `"latency"`, or `None`.
        review: Whether people look at new instructions.
    """

    program: str
    data: str
    metric: str
    optimizer: str = "bootstrap"
    out: str = "program.json"
    settings: tuple[str, ...] = ()
    max_demos: int | None = None
    seed: int = 0
    val: str | None = None
    teacher: str | None = None
    dev: str | None = None
    lm: str | None = None
    base_url: str | None = None
    temperature: float | None = None
    max_tokens: int | None = None
    max_concurrency: int | None = None
    limit: int | None = None
    inputs: str | None = None
    load: str | None = None
    max_requests: int | None = None
    max_total_tokens: int | None = None
    max_money: float | None = None
    journal: str | None = None
    accept: str | None = None
    objective: str | None = None
    review: bool = False

    @property
    def job(self) -> Job:
        """What of it an evaluation is told too."""
        return Job(
            self.program,
            self.data,
            self.metric,
            self.lm,
            self.base_url,
            self.temperature,
            self.max_concurrency,
            self.limit,
            self.inputs,
            self.load,
            max_tokens=self.max_tokens,
        )

    def command(self) -> str:
        """Return it as it would be typed."""
        words = ["otpy", "optimize"]
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name == "settings":
                words += [word for one in value for word in ("--set", one)]
            elif value is True:
                words.append(f"--{field.name}")
            elif value is not None and (value != field.default or field.name == "optimizer"):
                words += [f"--{field.name.replace('_', '-')}", str(value)]
        return shlex.join(words)

    def kept(self) -> dict[str, Any]:
        """Return it as JSON data, with the directory that its paths are in."""
        return {"directory": str(Path.cwd()), "order": dataclasses.asdict(self)}

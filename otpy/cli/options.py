"""Options that several commands have, and how what is typed for them is read."""

from __future__ import annotations

import math
from typing import Annotated

import typer

__all__ = [
    "BaseURLOption",
    "ConcurrencyOption",
    "DataOption",
    "InputsOption",
    "JSONOption",
    "LMOption",
    "LimitOption",
    "LoadOption",
    "MaxTokensOption",
    "MetricOption",
    "ProgramOption",
    "TemperatureOption",
    "bound",
    "count",
    "examples",
    "money",
    "number",
    "seconds",
    "share",
    "whole",
]


def examples(*commands: str) -> str:
    """Lay out examples below a command's options, one a line whatever the terminal's width."""
    return "\n".join(["\b", "Examples:" if len(commands) > 1 else "Example:", *(f"  {line}" for line in commands)])


def whole(text: str | int) -> int:
    """Read a whole number, and name what was typed where it is none."""
    try:
        return int(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r}; allowed: a whole number") from None


def count(text: str | int) -> int:
    """Read a whole number from 1."""
    if (number := whole(text)) < 1:
        raise typer.BadParameter(f"{text}; allowed: a whole number from 1")
    return number


def number(text: str | float) -> float:
    """Read a finite number."""
    try:
        found = float(text)
    except ValueError:
        found = math.nan
    if not math.isfinite(found):
        raise typer.BadParameter(f"{text!r}; allowed: a number")
    return found


def seconds(text: str | float) -> float:
    """Read a time in seconds, above 0."""
    if (found := number(text)) <= 0:
        raise typer.BadParameter(f"{text}; allowed: seconds above 0")
    return found


def money(text: str | float) -> float:
    """Read an amount of dollars, from 0."""
    if (found := number(text)) < 0:
        raise typer.BadParameter(f"{text}; allowed: dollars, from 0")
    return found


def share(text: str | float) -> float:
    """Read a share, above 0 and at most 1."""
    if not 0 < (found := number(text)) <= 1:
        raise typer.BadParameter(f"{text}; allowed: a number above 0, at most 1")
    return found


def bound(text: str | float) -> float:
    """Read how many rows may fail: a whole number from 0, or a share of them."""
    found = number(text)
    if found < 0 or (found != int(found) and found > 1):
        raise typer.BadParameter(f"{text}; allowed: a whole number from 0, or a share between 0 and 1")
    return int(found) if found == int(found) else found


ProgramOption = Annotated[
    str,
    typer.Option("--program", help="module:attribute, a saved program.json, or a signature: 'question -> answer'."),
]
DataOption = Annotated[str, typer.Option("--data", help="Rows, as .jsonl, .csv, .tsv or .json, one column per field.")]
MetricOption = Annotated[str, typer.Option("--metric", help="exact_match:FIELD, f1:FIELD, or module:function.")]
LMOption = Annotated[
    str | None,
    typer.Option("--lm", help="provider/model, such as local/smollm2-135m; default: what otpy.toml or OTPY_… say."),
]
BaseURLOption = Annotated[str | None, typer.Option("--base-url", help="Where an OpenAI-compatible server listens.")]
TemperatureOption = Annotated[
    float | None,
    typer.Option(
        "--temperature",
        min=0.0,
        metavar="T",
        help="Sampling temperature; default: the provider's own, 0 for a local model.",
    ),
]
MaxTokensOption = Annotated[
    int | None,
    typer.Option(
        "--max-tokens", parser=count, metavar="N", help="Longest answer, in tokens; default: the provider's own."
    ),
]
ConcurrencyOption = Annotated[
    int | None, typer.Option("--max-concurrency", parser=count, metavar="N", help="Rows in flight at once.")
]
LimitOption = Annotated[
    int | None, typer.Option("--limit", parser=count, metavar="N", help="Take this many rows from the top.")
]
InputsOption = Annotated[
    str | None, typer.Option("--inputs", help="Input columns, comma between, if the program does not say.")
]
LoadOption = Annotated[
    str | None, typer.Option("--load", help="A saved program whose demos and instructions --program takes over.")
]
JSONOption = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]

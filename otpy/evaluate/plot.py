"""Scores and latencies as a picture, by matplotlib: the only room that knows it."""

from __future__ import annotations

import html
import io
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Mapping, Sequence
from math import isfinite
from pathlib import Path
from typing import Any, Final, cast

from otpy.errors import ConfigError, EvaluationError
from otpy.evaluate.export import replacing
from otpy.evaluate.result import EvaluationResult
from otpy.evaluate.tally import ONLY_FAILED

__all__ = ["check_picture", "plot"]

INSTALL: Final = "pip install 'otpy-framework[plot]' (in a checkout: pip install -e '.[plot]')"
COLORS: Final = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C8C00")
"""Of Okabe and Ito, told apart by colour-blind readers too; so many results fit in a picture."""
INK: Final = "#222222"
FAINT: Final = "#D9D9D9"
VALUES: Final = 8
"""Different scores up to which each has a bar of its own."""
BINS: Final = 20
COUNTED: Final = 16
"""Bars up to which each says how many rows it stands for."""
POINTS: Final = 2_000
"""Points of a curve; more are not seen."""
PERCENTILES: Final = (50, 90, 99)
WIDE: Final = 50
"""How many times the median the slowest row must take for the seconds to be shown by their order of magnitude."""


def plot(
    results: EvaluationResult | Sequence[EvaluationResult] | Mapping[str, EvaluationResult], path: str | Path
) -> None:
    """Draw the scores and the latencies of a result, or of several side by side.

    Args:
        results: A result; several; or several by name, as in `{"before": before, "after": after}`.
        path: The picture: `.png`, or `.html`, a page that needs nothing else.

    Raises:
        EvaluationError: If a result has no rows, there are more than eight, the file is of another kind, or it cannot
            be written.
        ConfigError: If matplotlib is not installed.
    """
    check_picture(path)
    named = _named(results)
    figure = _figure(named)
    picture = io.BytesIO()
    if Path(path).suffix.lower() == ".png":
        figure.savefig(picture, format="png", dpi=150)
        content = picture.getvalue()
    else:
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(picture, format="svg", metadata=nothing)
        content = _page(named, picture.getvalue().decode()).encode("utf-8", "backslashreplace")
    with replacing(path) as file:
        file.write(content)


def check_picture(path: str | Path) -> None:
    """Refuse a picture that `plot` could not write, before there is a result.

    Args:
        path: The picture.

    Raises:
        EvaluationError: If it is of another kind than `plot` makes.
        ConfigError: If matplotlib is not installed.
    """
    kind = Path(path).suffix.lower()
    if kind not in {".png", ".html"}:
        raise EvaluationError(f"{path}: unknown kind of picture {kind!r}; known: .png, .html")
    _matplotlib()


def _matplotlib() -> tuple[Any, Any]:
    """Import what draws, late, because few need it; pyplot, with its global state, is not asked."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415 - late, see above
        from matplotlib.figure import Figure  # noqa: PLC0415 - the same
    except ImportError as error:
        raise ConfigError(f"a picture needs the extra 'plot': {INSTALL}") from error
    return Figure, FigureCanvasAgg


def _named(results: Any) -> dict[str, EvaluationResult]:
    if isinstance(results, EvaluationResult):
        named = {"": results}
    elif isinstance(results, Mapping):
        named = {f"{name}: ": result for name, result in cast("Mapping[Any, EvaluationResult]", results).items()}
    else:
        named = {f"{number}: ": result for number, result in enumerate(cast("Sequence[EvaluationResult]", results), 1)}
    if not 1 <= len(named) <= len(COLORS):
        raise EvaluationError(f"{len(named)} results in a picture; allowed: 1 to {len(COLORS)}")
    for name, result in named.items():
        if not len(result.tally):
            raise EvaluationError(f"{name}a result without rows; there is nothing to draw")
        if result.missing:
            raise EvaluationError(f"{name}a result with {len(result.rows)} of its rows: {ONLY_FAILED}")
    return named


def _figure(named: Mapping[str, EvaluationResult]) -> Any:
    figure, canvas = _matplotlib()
    drawn = figure(figsize=(11, 4.4 + 0.22 * len(named)), facecolor="white", layout="constrained")
    canvas(drawn)
    scores, latencies = drawn.subplots(1, 2)
    _draw_scores(scores, named)
    _draw_latencies(latencies, named)
    return drawn


def _draw_scores(axes: Any, named: Mapping[str, EvaluationResult]) -> None:
    """Bars, one for each score if they are few, else for ranges of them; beside them the rows that failed."""
    values = sorted({float(row.score) for result in named.values() for row in result.scored})
    ranges = _ranges(values) if len(values) > VALUES else None
    places = len(values) if ranges is None else BINS
    beyond = places + (0.0 if ranges is None else 2.5)  # where the failed rows stand, apart from a scale
    width = (0.8 if ranges is None else 2.4) / len(named)
    for number, (color, (name, result)) in enumerate(zip(COLORS, named.items(), strict=False)):
        label = f"{name}{_mean(result)} of {len(result.rows):,} rows"
        share = 100 / len(result.rows)
        aside = (number - (len(named) - 1) / 2) * width
        bars: dict[float, int] = {}
        if ranges is None:
            counts = Counter(bisect_left(values, row.score) for row in result.scored)
            bars = {place + aside: counts[place] for place in range(places)}
        else:
            counts = Counter(min(bisect_right(ranges, row.score), BINS) - 1 for row in result.scored)
            heights = [share * counts[place] for place in range(places)]
            axes.stairs(heights, color=color, fill=len(named) == 1, linewidth=1.8, label=label)
        if result.failed:
            bars[beyond + aside] = len(result.failed)
        if bars:
            heights = [share * count for count in bars.values()]
            drawn = axes.bar(list(bars), heights, width, color=color, label=label if ranges is None else None)
            if len(named) * len(bars) <= COUNTED:
                texts = [f"{count:,}" for count in bars.values()]
                axes.bar_label(drawn, texts, padding=2, fontsize=8, color=INK)
    scale: dict[float, str] = (
        {place: f"{value:.3g}" for place, value in enumerate(values)}
        if ranges is None
        else {place: f"{ranges[place]:.3g}" for place in range(0, BINS + 1, 4)}
    )
    if any(result.failed for result in named.values()):
        scale[beyond] = "failed"
    axes.set_xticks(list(scale), list(scale.values()))
    if ranges is None:
        axes.set_xlim(-0.6, max(2, len(scale)) - 0.4)
    metrics = {result.metric for result in named.values()}
    _dress(axes, "Scores", f"score by {metrics.pop()}" if len(metrics) == 1 else "score", "rows [%]")


def _mean(result: EvaluationResult) -> str:
    if not len(result.tally.scores()):
        return "no score"
    low, high = result.interval
    chance = f" (95 %: {low:.3g} to {high:.3g})" if isfinite(high - low) else ""
    return f"mean {result.score:.3g}{chance}"


def _ranges(values: Sequence[float]) -> list[float]:
    """The bounds of the ranges; most metrics go from 0 to 1, and then so does the scale."""
    low, high = (0.0, 1.0) if values[0] >= 0 and values[-1] <= 1 else (values[0], values[-1])
    return [low + (high - low) * number / BINS for number in range(BINS + 1)]


def _draw_latencies(axes: Any, named: Mapping[str, EvaluationResult]) -> None:
    """The share of rows that took so long at most."""
    slowest, medians = 0.0, list[float]()
    for color, (name, result) in zip(COLORS, named.items(), strict=False):
        seconds = sorted(row.seconds for row in result.rows)
        chosen = sorted({round(number * (len(seconds) - 1) / (POINTS - 1)) for number in range(POINTS)})
        marks = result.tally.latencies(*(percent / 100 for percent in PERCENTILES))
        said = ", ".join(f"p{percent} {_seconds(mark)}" for percent, mark in zip(PERCENTILES, marks, strict=True))
        axes.step(
            [seconds[0], *(seconds[place] for place in chosen)],
            [0, *(100 * (place + 1) / len(seconds) for place in chosen)],
            where="post",
            color=color,
            linewidth=1.8,
            label=f"{name}{said}",
        )
        axes.plot(marks, PERCENTILES, "o", color=color, markersize=5)
        slowest, medians = max(slowest, seconds[-1]), [*medians, marks[0]]
    if min(medians) > 0 and slowest > WIDE * min(medians):
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
    else:
        axes.set_xlim(left=0)
    axes.set_ylim(0, 103)
    axes.set_yticks([0, 25, 75, *PERCENTILES])
    _dress(axes, "Latency", "seconds a row took", "rows that took so long at most [%]")


def _dress(axes: Any, title: str, x: str, y: str) -> None:
    """Dark on white, whatever style the reader has chosen for pictures of their own."""
    axes.set_facecolor("white")
    axes.set_title(title, loc="left", color=INK, fontsize=13, fontweight="bold")
    axes.set_xlabel(x, color=INK, fontsize=10)
    axes.set_ylabel(y, color=INK, fontsize=10)
    axes.tick_params(colors=INK, labelsize=9)
    axes.set_axisbelow(True)
    axes.grid(visible=True, axis="both" if title == "Latency" else "y", color=FAINT, linewidth=0.8)
    for side, spine in axes.spines.items():
        spine.set_visible(side in {"left", "bottom"})
        spine.set_color(INK)
    below = (0, -0.16)
    axes.legend(loc="upper left", bbox_to_anchor=below, borderaxespad=0, frameon=False, labelcolor=INK, fontsize=9)


def _seconds(seconds: float) -> str:
    return f"{1_000 * seconds:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"


def _page(named: Mapping[str, EvaluationResult], picture: str) -> str:
    """A page with the picture and its numbers as text."""
    lines = "".join(f"<li>{html.escape(name)}{html.escape(str(result))}</li>" for name, result in named.items())
    svg = picture[picture.index("<svg") :].replace("<svg", "<svg role='img' aria-label='scores and latencies'", 1)
    return (
        "<!DOCTYPE html><html lang='en'><head><meta charset='utf-8'><title>Evaluation</title>"
        "<style>body{font-family:sans-serif;background:#fff;color:#222;max-width:70em;margin:2em auto;padding:0 1em}"
        "svg{width:100%;height:auto}</style></head>"
        f"<body><h1>Evaluation</h1><ul>{lines}</ul>{svg}</body></html>\n"
    )

"""Outcomes for people: the candidates as a table in the terminal, and as HTML in a notebook.

What a search calls its candidates is shown as text: it cannot style a page, run in it, or move the terminal's cursor.
"""

from __future__ import annotations

import html
import shutil
import sys
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from otpy.evaluate.statistics import mean_interval
from otpy.teleprompters.choosing import cost_of, priced

if TYPE_CHECKING:
    from collections.abc import Iterable

    from otpy.teleprompters.outcome import Outcome
    from otpy.teleprompters.tried import Candidate

__all__ = ["Shown", "as_html", "as_text", "printed"]

NAME: Final = 1
"""The column of names; those before it and itself are texts, the others numbers."""
LEAST: Final = 8
"""Letters of a name that are shown in the narrowest terminal."""
SHOWN: Final = 50
"""Candidates of a page."""


class Shown(NamedTuple):
    """What of an outcome stands in its table; the names are those of `Outcome`."""

    program: Any
    measured: tuple[Candidate, ...]
    p_values: dict[str, float]
    front: tuple[Candidate, ...]


def as_text(outcome: Outcome | Shown, n: int = 20, width: int | None = None) -> str:
    """Return the candidates as a table for a terminal; see `Outcome.table`."""
    if not outcome.measured:
        return "nothing was measured on all rows\n"
    titles, rows = _content(outcome, n)
    room = (shutil.get_terminal_size().columns if width is None else width) - 1
    wide = [max(map(len, column)) for column in zip(titles, *rows, strict=True)]
    others = sum(wide) - wide[NAME] + 2 * (len(wide) - 1)
    wide[NAME] = min(wide[NAME], max(room - others, LEAST))

    def line(cells: list[str]) -> str:
        texts = [
            cell.ljust(size) if place <= NAME else cell.rjust(size)
            for place, (cell, size) in enumerate(zip(cells, wide, strict=True))
        ]
        texts[NAME] = texts[NAME] if len(texts[NAME]) <= wide[NAME] else f"{texts[NAME][: wide[NAME] - 1]}…"
        return "  ".join(texts).rstrip()

    return "\n".join([line(titles), *map(line, rows), *_below(outcome, n)]) + "\n"


def printed(line: str, notes: Iterable[str], table: str) -> None:
    """Print the line, the notes and the table to standard output; see `Outcome.print`."""
    text = "".join([f"{line}\n", *(f"  {_visible(note)}\n" for note in notes), table])
    encoding = sys.stdout.encoding or "utf-8"
    sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding))  # a terminal may not know all letters
    sys.stdout.flush()


def as_html(outcome: Outcome) -> str:
    """Return an outcome as HTML: no script, no style sheet, nothing that is fetched."""
    titles, rows = _content(outcome, SHOWN)
    head = "".join(f'<th style="text-align:left">{html.escape(title)}</th>' for title in titles)
    body = "".join(
        "<tr>" + "".join(f'<td style="text-align:left">{html.escape(cell)}</td>' for cell in row) + "</tr>"
        for row in rows
    )
    notes = "".join(f"<br>{html.escape(note)}" for note in (*outcome.notes, *_below(outcome, SHOWN)))
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>" if rows else ""
    return f"<p><b>{html.escape(str(outcome))}</b>{notes}</p>{table}"


def _content(outcome: Outcome | Shown, n: int) -> tuple[list[str], list[list[str]]]:
    dollars = priced(outcome.measured)
    titles = ["", "candidate", "score", "95 %", "p", "dollars" if dollars else "tokens", "seconds", "failed"]
    order = sorted(outcome.measured, key=lambda one: -one.score)[: max(n, 0)]
    return titles, [_cells(outcome, one, dollars=dollars) for one in order]


def _cells(outcome: Outcome | Shown, one: Candidate, *, dollars: bool) -> list[str]:
    low, high = mean_interval(one.scores.values)
    value, cost = outcome.p_values.get(one.name), cost_of(one, dollars=dollars)
    returned: Any = outcome.program
    marks = ("→" if one.program == returned else "") + ("*" if one in outcome.front else "")
    return [
        marks,
        _visible(one.name),
        f"{100 * one.score:.1f} %",
        f"{100 * low:.1f} to {100 * high:.1f}",
        "" if value is None else f"{value:.2g}",
        f"{cost:.6f}" if dollars else f"{cost:,.0f}",
        f"{one.scores.seconds:.3g}",
        str(one.scores.failed or ""),
    ]


def _below(outcome: Outcome | Shown, n: int) -> list[str]:
    """What the marks mean, and what is left out."""
    if not outcome.measured:
        return ["nothing was measured on all rows"]
    more = len(outcome.measured) - max(n, 0)
    left = [f"and {more} more"] if more > 0 else []
    cost = "dollars" if priced(outcome.measured) else "tokens"
    corrected = f"p: beside the student, corrected for {len(outcome.p_values)}" if outcome.p_values else ""
    marks = "→ returned", "* not beaten in score, cost and latency", f"{cost}, seconds: of a row", corrected
    return [*left, "; ".join(filter(None, marks))]


def _visible(text: str) -> str:
    """Show control characters instead of obeying them."""
    return text if text.isprintable() else text.encode("unicode_escape").decode()

"""Results for people: in a line, as a table in the terminal, and as HTML in a notebook.

Whatever a model or a user wrote is shown as text: it cannot style the page, run in it, or move the terminal's cursor.
"""

from __future__ import annotations

import html
import io
import math
import sys
import unicodedata
from decimal import Decimal
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, Literal

from otpy.evaluate.row import Failed, Row, Scored
from otpy.evaluate.tally import ONLY_FAILED

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from otpy.evaluate.comparison import Comparison, Flip
    from otpy.evaluate.result import EvaluationResult

__all__ = [
    "comparison_as_html",
    "comparison_in_words",
    "failures_in_words",
    "print_result",
    "result_as_html",
    "result_as_text",
    "result_in_words",
]

LONGEST: Final = 300
"""Characters of a value that are looked at for a table."""
LEAST: Final = 5
"""Columns that a text has in the narrowest terminal."""
SHOWN: Final = 50
"""Rows of a page."""
FLIPS: Final = 10
"""Rows that a page shows of those that were won, and of those that were lost."""
KINDS: Final = 10
"""Kinds of failures that are listed; of several rows each."""
SAID: Final = 160
"""Letters of a failure's message there."""
PERCENTILES: Final = (0.5, 0.9, 0.99)
_TEXTS: Final = frozenset({"input", "expected", "predicted", "feedback"})
_NUMBERS: Final = frozenset({"row", "run", "score", "seconds", "difference"})
_TURNING: Final = frozenset("\u2028\u2029\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Characters that break lines or turn the direction in which what follows is written."""
_FAILED: Final = "color:#c33"
_LEFT: Final = "text-align:left"
_RIGHT: Final = "text-align:right"


# -- in words ---------------------------------------------------------------------------------------------------------


def result_in_words(result: EvaluationResult) -> str:
    """Put a result in one line.

    Args:
        result: The result.
    """
    tally, rows = result.tally, len(result.tally)
    if not rows:
        return "no row was finished"
    excluded = result.on_failure == "exclude" and tally.failed > 0
    facts = [
        _score(result),
        f"{_failed(result)}{' and left out' if excluded else ''}",
        f"{result.seconds:.1f} s",
    ]
    if cost := _cost(result):
        facts.append(cost)
    if not result.complete:
        facts.append(f"stopped after {rows} of {result.total} {tally.unit}s")
    return ", ".join(facts)


def _score(result: EvaluationResult) -> str:
    scores = result.tally.scores()
    if not scores:
        return "no row was scored"
    share = min(scores) >= 0.0 and max(scores) <= 1.0
    if result.tally.repeated:
        counted = result.tally.scored if result.on_failure == "exclude" else len(result.tally)
        over = f"{_rows(len(scores))} in {_rows(counted, 'run')}"
    elif all(score in {0.0, 1.0} for score in scores):
        over = f"{sum(scores):.0f} of {len(scores)}"
    else:
        over = _rows(len(scores))
    score = f"{100 * result.score:.1f} %" if share else f"{result.score:.4g}"
    return f"{score} ({over}; {_ends(result.interval, share=share)})"


def comparison_in_words(comparison: Comparison) -> str:
    """Put a comparison in one line.

    Args:
        comparison: The comparison.
    """
    share = all(0 <= score <= 1 for score in (comparison.score, comparison.other_score))
    difference = f"{100 * comparison.difference:+.1f} points" if share else f"{comparison.difference:+.4g}"
    p_value = "p < 0.001" if comparison.p_value < 0.001 else f"p = {comparison.p_value:.3g}"
    found = f"{difference} ({_ends(comparison.interval, share=share)}), {p_value} ({comparison.test})"
    facts = [f"{found}: {_rows(comparison.wins)} better, {comparison.losses} worse, {comparison.ties} alike"]
    low, high = comparison.interval
    if (low <= 0 <= high) != (comparison.p_value >= 0.05):
        facts.append("interval and p-value differ, as they are found in two ways; the p-value decides")
    if comparison.left_out:
        facts.append(f"{comparison.left_out} left out, as they failed in one of the two")
    if comparison.unmatched:
        facts.append(f"{comparison.unmatched} in one of the two only")
    return ", ".join(facts)


def failures_in_words(result: EvaluationResult) -> list[str]:
    """Return how many rows failed where and how, a line each, with what the first of them said; the most first.

    Args:
        result: The result.
    """
    first: dict[tuple[str, str], Failed] = {}
    for failed in result.failed:
        first.setdefault((failed.where, failed.kind), failed)
    classes, lines = result.failures_by_class(), list[str]()
    for (where, kind), count in classes.most_common(KINDS):
        words, row = _line(f"{where}: {kind}"), first.get((where, kind))
        if row is not None and row.explanation != row.kind:
            said = _line(row.explanation.removeprefix(f"{kind}: "), SAID)
            words += f": {said}" if count == 1 else f", as in row {row.index}: {said}"
        lines.append(f"{count} × {words}")  # noqa: RUF001 - a multiplication sign
    if (more := len(classes) - KINDS) > 0:
        lines.append(f"and {more} more kind{'' if more == 1 else 's'} of failures")
    return lines


def _failed(result: EvaluationResult) -> str:
    """How many failed: of rows that were run several times, how many runs."""
    failed = result.tally.failed
    return f"{_rows(failed, 'run')} failed" if result.tally.repeated else f"{failed} failed"


def _rows(count: int, unit: str = "row") -> str:
    return f"{count} {unit}{'' if count == 1 else 's'}"


def _ends(interval: tuple[float, float], *, share: bool) -> str:
    low, high = interval
    if math.isinf(low) or math.isinf(high):
        return "too few different scores for an interval"
    if share:
        return f"95 %: {100 * low:.1f} to {100 * high:.1f}"
    return f"95 %: {low:.4g} to {high:.4g}"


def _cost(result: EvaluationResult) -> str:
    money = result.money
    if not money:
        return ""
    amount = f"{money:.2f}" if money >= 1 else f"{Decimal(f'{money:.2e}').normalize():f}"
    return f"{'at least ' if result.money_is_lower_bound else ''}${amount}"


def _facts(result: EvaluationResult) -> list[str]:
    """What does not fit in the line."""
    if not len(result.tally):
        return []
    slow = result.tally.latencies(*PERCENTILES)
    took = ", ".join(f"p{100 * q:g} {_seconds(seconds)}" for q, seconds in zip(PERCENTILES, slow, strict=True))
    lines, usage = [f"seconds a row: {took}"], result.usage
    if usage.total_tokens or result.attempts:
        sent = f", {result.attempts:,} requests sent" if result.attempts else ""
        lines.append(f"{usage.input_tokens:,} tokens read, {usage.output_tokens:,} written{sent}")
    if result.money_is_lower_bound:
        lines.append(f"the price of {_rows(result.tally.unpriced, result.tally.unit)} is not known")
    if parts := result.subscores:
        lines.append("subscores: " + ", ".join(f"{_line(name)} {value:.4g}" for name, value in parts.items()))
    lines += failures_in_words(result)
    return [_visible(line) for line in lines]


def _seconds(seconds: float) -> str:
    if 0 < seconds < 0.001:
        return "<0.001"
    return f"{seconds:.3g}" if seconds < 99.95 else f"{seconds:.0f}"


# -- in a terminal ----------------------------------------------------------------------------------------------------


def result_as_text(result: EvaluationResult, n: int = 20, width: int | None = None) -> str:
    """Return the first rows as a table for a terminal.

    Args:
        result: The result.
        n: How many rows.
        width: Columns; by default those of the terminal.
    """
    return _drawn(result, n, width, colours=False)


def print_result(result: EvaluationResult, n: int = 20) -> None:
    """Print a result to standard output: the line, what does not fit in it, and the first rows.

    Args:
        result: The result.
        n: How many rows.
    """
    lines = [f"{_visible(result.metric)}: {result}", *(f"  {fact}" for fact in _facts(result))]
    text = "\n".join(lines) + "\n" + _drawn(result, n, None, colours=sys.stdout.isatty())
    encoding = sys.stdout.encoding or "utf-8"
    sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding))  # a terminal may not know all letters
    sys.stdout.flush()


def _drawn(result: EvaluationResult, n: int, width: int | None, *, colours: bool) -> str:
    from rich import box  # noqa: PLC0415 - 80 ms, only where something is shown
    from rich.cells import cell_len  # noqa: PLC0415 - the same
    from rich.console import Console  # noqa: PLC0415 - the same
    from rich.table import Table  # noqa: PLC0415 - the same
    from rich.text import Text  # noqa: PLC0415 - the same

    file = io.StringIO()
    console = Console(file=file, width=width, force_terminal=colours, force_jupyter=False, highlight=False)
    shown, titles = list(islice(result.rows, n)), _titles(result)
    lines = [_cells(row, titles) for row in shown]
    wide = [max(map(cell_len, column)) for column in zip(titles, *lines, strict=True)]
    texts = [place for place, title in enumerate(titles) if title in _TEXTS]
    room = console.width - sum(size for place, size in enumerate(wide) if place not in texts) - 2 * len(titles)
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for place, (title, size) in enumerate(zip(titles, _fitted(wide, texts, room), strict=True)):
        justify: Literal["left", "right"] = "left" if place in texts else "right"
        table.add_column(title, justify=justify, width=size, no_wrap=True, overflow="ellipsis")
    for row, line in zip(shown, lines, strict=True):
        table.add_row(*map(Text, line), style="red" if isinstance(row, Failed) else "")
    console.print(table)
    if more := _more(result, n):
        console.print(more, markup=False, soft_wrap=True)
    return "\n".join(line.rstrip() for line in file.getvalue().strip("\n").split("\n")) + "\n"


def _fitted(wide: list[int], texts: list[int], room: int) -> list[int]:
    """Share the room among the texts: the short ones have what they need, the others the same."""
    fitted = list(wide)
    for rank, place in enumerate(sorted(texts, key=wide.__getitem__)):
        fitted[place] = min(wide[place], max(LEAST, room // (len(texts) - rank)))
        room -= fitted[place]
    return fitted


def _more(result: EvaluationResult, shown: int) -> str:
    """What a table leaves out, of the rows that are held, and why others are not."""
    more = len(result.rows) - shown
    left = f"and {more} more {'failed ' if result.missing else ''}{result.tally.unit}{'' if more == 1 else 's'}"
    return "; ".join([*([left] if more > 0 else []), *([ONLY_FAILED] if result.missing else [])])


def _titles(result: EvaluationResult) -> list[str]:
    run = ["run"] if result.tally.repeated else []
    feedback = ["feedback"] if any(isinstance(row, Scored) and row.feedback for row in result.rows) else []
    return ["row", *run, "input", "expected", "predicted", "score", *feedback, "seconds"]


def _cells(row: Row, titles: Sequence[str]) -> list[str]:
    given, wanted = _parts(row)
    cells = {
        "row": str(row.index),
        "run": str(row.repeat),
        "input": given,
        "expected": wanted,
        "predicted": _fate(row),
        "score": f"{float(row.score):.4g}" if isinstance(row, Scored) else "failed",
        "feedback": _line(row.feedback) if isinstance(row, Scored) else "",
        "seconds": _seconds(row.seconds),
    }
    return [cells[title] for title in titles]


def _parts(row: Row) -> tuple[str, str]:
    """The inputs and the labels of a row, if they are told apart."""
    if row.example.input_names is None:
        return _fields(row.example), ""
    return _fields(row.example.inputs()), _fields(row.example.labels())


def _fate(row: Row) -> str:
    return _fields(row.prediction) if isinstance(row, Scored) else _line(f"{row.where}: {row.explanation}")


def _fields(fields: Mapping[str, Any]) -> str:
    """One value, or several by name, in one line."""
    if len(fields) == 1:
        return _line(*fields.values())
    return _line(", ".join(f"{name}: {str(value)[:LONGEST]}" for name, value in fields.items()))


def _line(value: Any, longest: int = LONGEST) -> str:
    text = str(value)
    cut = text[:longest] + ("…" if len(text) > longest else "")
    return _visible(" ".join(cut.split()))


def _visible(text: str) -> str:
    """Show control characters instead of obeying them; what joins letters and emoji stays."""
    if text.isprintable():
        return text
    return "".join(
        char.encode("unicode_escape").decode()
        if unicodedata.category(char) in {"Cc", "Cs"} or char in _TURNING
        else char
        for char in text
    )


# -- in a notebook ----------------------------------------------------------------------------------------------------


def result_as_html(result: EvaluationResult) -> str:
    """Return a result as HTML: no script, no style sheet, nothing that is fetched.

    Args:
        result: The result.
    """
    lines = "".join(f"<br>{html.escape(fact)}" for fact in _facts(result))
    titles = _titles(result)
    rows = "".join(
        _html_row(titles, _cells(row, titles), _FAILED if isinstance(row, Failed) else "")
        for row in islice(result.rows, SHOWN)
    )
    left = _more(result, SHOWN)
    more = f"<p>{html.escape(left)}</p>" if left else ""
    said = html.escape(f"{_visible(result.metric)}: {result}")
    return f"<p><b>{said}</b>{lines}</p>{_html_table(titles, rows)}{more}"


def comparison_as_html(comparison: Comparison) -> str:
    """Return a comparison as HTML, with the rows that have changed most.

    Args:
        comparison: The comparison.
    """
    said = html.escape(f"{_visible(comparison.metric)}: {comparison}")
    parts = [("better", comparison.won), ("worse", comparison.lost)]
    return f"<p><b>{said}</b></p>" + "".join(_html_flips(word, flips) for word, flips in parts if flips)


def _html_flips(word: str, flips: Sequence[Flip]) -> str:
    titles = ["row", "input", "expected", "predicted here", "predicted there", "difference"]
    rows = "".join(
        _html_row(
            titles,
            [str(flip.index), *_parts(flip.this), _fate(flip.this), _fate(flip.other), f"{flip.difference:+.4g}"],
            "",
        )
        for flip in flips[:FLIPS]
    )
    first = f", the first {FLIPS}" if len(flips) > FLIPS else ""
    return f"<p>{_rows(len(flips))} {word}{first}:</p>{_html_table(titles, rows)}"


def _html_table(titles: Iterable[str], rows: str) -> str:
    head = "".join(f'<th style="{_side(title)}">{title}</th>' for title in titles)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"


def _html_row(titles: Iterable[str], cells: Iterable[str], style: str) -> str:
    inside = "".join(
        f'<td style="{_side(title)};overflow-wrap:anywhere">{_marked(html.escape(cell), title, style)}</td>'
        for title, cell in zip(titles, cells, strict=True)
    )
    return f'<tr style="{style}">{inside}</tr>' if style else f"<tr>{inside}</tr>"


def _side(title: str) -> str:
    return _RIGHT if title in _NUMBERS else _LEFT


def _marked(text: str, title: str, style: str) -> str:
    """A failed row's word in bold: not everybody sees colours, and not every page keeps them."""
    return f"<b>{text}</b>" if style and title == "score" else text

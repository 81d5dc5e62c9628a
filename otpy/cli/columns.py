"""Tables as wide as the terminal: what is of least use is left out, and nothing is wrapped. Pure."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any, Final, cast

from rich.cells import cell_len, set_cell_size

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["cut", "said", "table", "wrapped"]

_BETWEEN: Final = "  "
_LONGEST: Final = 40
"""Characters of a text among other values."""
_MOST: Final = 8
"""Items of a list among other values."""


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], less: Sequence[str], width: int | None) -> list[str]:
    """Return the lines of a table, its titles first.

    Args:
        columns: The titles.
        rows: The cells.
        less: Titles of columns that may be left out, the first of them first.
        width: Cells of a terminal; `None` for a pipe, in which all is shown.

    Example:
        >>> from otpy.cli.columns import table
        >>> for line in table(["run", "best", "changed"], [["gepa-1a", "97.1 %", "2026-01-02"]], ["changed"], 20):
        ...     print(line)
        run      best
        gepa-1a  97.1 %
    """
    lines = [list(columns), *(list(row) for row in rows)]
    wide = [max(cell_len(line[place]) for line in lines) for place in range(len(columns))]
    kept = list(range(len(columns)))
    for title in less:
        if width is None or sum(wide[place] for place in kept) + len(_BETWEEN) * (len(kept) - 1) <= width:
            break
        kept.remove(list(columns).index(title))
    laid = [_BETWEEN.join(set_cell_size(line[place], wide[place]) for place in kept).rstrip() for line in lines]
    return laid if width is None else [cut(line, width) for line in laid]


def cut(text: str, width: int) -> str:
    """Return a text that fits into a line of a terminal.

    Args:
        text: The text.
        width: Cells of the line.

    Example:
        >>> from otpy.cli.columns import cut
        >>> cut("max_demos=16", 10), cut("k=3", 10)
        ('max_demos…', 'k=3')
    """
    return text if cell_len(text) <= width else set_cell_size(text, width - 1).rstrip() + "…"


def wrapped(text: str, width: int, indent: int) -> str:
    """Return a text in lines that are broken between words alone, the later ones indented.

    Args:
        text: The text.
        width: Cells of a line.
        indent: Of all lines but the first.
    """
    return textwrap.fill(text, width, subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False)


def said(params: Mapping[str, Any]) -> str:
    """Return parameters in few words: numbers rounded, texts and lists shortened.

    Args:
        params: JSON data.

    Example:
        >>> from otpy.cli.columns import said
        >>> said({"score": 0.9714285714285714, "parents": [0, 1], "texts": {"predict": "Sort it. " * 9}})
        "score=0.9714, parents=[0, 1], texts={predict: 'Sort it. Sort it. Sort it. Sort it. Sor…'}"
    """
    return ", ".join(f"{name}={_said(value)}" for name, value in params.items())


def _said(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, str):
        return repr(value if len(value) <= _LONGEST else value[: _LONGEST - 1] + "…")
    if isinstance(value, list):
        items: list[Any] = value  # pyright: ignore[reportUnknownVariableType] - JSON
        more = [f"… {len(items) - _MOST} more"] if len(items) > _MOST else []
        return f"[{', '.join([*map(_said, items[:_MOST]), *more])}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name}: {_said(one)}" for name, one in cast("dict[str, Any]", value).items()) + "}"
    return repr(value)

"""Where the command line writes: results to stdout, progress to stderr, rich on a terminal and plain in a pipe."""

from __future__ import annotations

import io
import json
import sys
from typing import TYPE_CHECKING, Any, Final

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from otpy.cli import columns as layout

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["Screen", "harmless"]

_JOINER: Final = "\u200d"
"""Holds emoji together; not printable by itself."""


def harmless(text: str) -> str:
    r"""Return a text in which what would move a terminal's cursor, or turn the order of letters, is written out.

    Args:
        text: A text that a model may have written.

    Example:
        >>> from otpy.cli.screen import harmless
        >>> print(harmless("red: \x1b[31m"))
        red: \x1b[31m
    """
    kept = "\n\t" + _JOINER
    return "".join(one if one.isprintable() or one in kept else ascii(one)[1:-1] for one in text)


class Screen:
    """Writes results for people, or one JSON object for programs, never both.

    Args:
        as_json: Keep silent until `result` prints its object.

    Example:
        >>> from otpy.cli.screen import Screen
        >>> screen = Screen(as_json=True)
        >>> screen.line("for people")
        >>> screen.result({"score": 0.5})
        {"score": 0.5}
    """

    def __init__(self, *, as_json: bool = False) -> None:
        """Find out whether there is a terminal."""
        self.as_json = as_json
        terminal = sys.stdout.isatty()
        self._box = box.SIMPLE_HEAD if terminal else None
        # A pipe has no width: lines are for grep, not for 80 columns.
        self._terminal = terminal
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")  # a model may answer what no encoding knows
        self._console = Console(file=sys.stdout, width=None if terminal else 160, highlight=False)
        self.shows_progress = sys.stderr.isatty() and not as_json

    def line(self, text: str = "", style: str = "") -> None:
        """Print a line; on a terminal in a style."""
        if not self.as_json:
            self._console.print(Text(harmless(text), style=style), soft_wrap=True)

    def heading(self, text: str) -> None:
        """Print a line that begins a part."""
        self.line()
        self.line(text, "bold")

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        """Print rows under column titles."""
        if self.as_json:
            return
        table = Table(box=self._box, pad_edge=False)
        for place, name in enumerate(columns):  # what a row is called is needed whole: the next command names it
            table.add_column(name, no_wrap=place == 0, overflow="fold")
        for row in rows:
            table.add_row(*(Text(harmless(str(cell))) for cell in row))
        self._console.print(table)

    def words(self, text: str, style: str = "", *, indent: int = 2) -> None:
        """Print a text; on a terminal its lines are broken between words, and all but the first indented."""
        text = harmless(text)
        self.line(layout.wrapped(text, self._console.width, indent) if self._terminal else text, style)

    def fact(self, name: str, value: object) -> None:
        """Print what something is, beside its name."""
        self.words(f"{name:10}  {value}", indent=12)

    def rows(
        self,
        columns: Sequence[str],
        rows: Iterable[Sequence[object]],
        *,
        less: Sequence[str],
        below: str | None = None,
    ) -> None:
        """Print rows of short cells under column titles, none of them wrapped.

        Args:
            columns: The titles.
            rows: The cells.
            less: Titles of columns that a terminal is not shown where it is too narrow, the first of them first.
            below: The title of a column that a terminal is shown in a line of its own, cut where it is too long.
        """
        if self.as_json:
            return
        cells = [[harmless(str(cell)) for cell in row] for row in rows]
        if not self._terminal:
            for line in layout.table(columns, cells, (), None):
                self.line(line)
            return
        width = self._console.width
        apart = None if below is None else list(columns).index(below)
        beside = [place for place in range(len(columns)) if place != apart]
        shown = [[row[place] for place in beside] for row in cells]
        title, *lines = layout.table([columns[place] for place in beside], shown, less, width)
        self.line(title, "bold")
        for line, row in zip(lines, cells, strict=True):
            self.line(line)
            if apart is not None and row[apart]:
                self.line(layout.cut(f"  {row[apart]}", width), "dim")

    def result(self, result: dict[str, Any]) -> None:
        """Print the one JSON object, if that is what was asked for."""
        if self.as_json:
            print(json.dumps(result, ensure_ascii=False), flush=True)

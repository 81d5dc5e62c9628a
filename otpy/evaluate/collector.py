"""How often Python looks for reference cycles, while thousands of rows are under way.

The collector runs after every 700 new objects, and walks over all that have come since it last did; a full walk, over
all objects there are, comes whenever a quarter more have stayed. With ten thousand rows in flight, each some hundred
objects that stay for as long as a model takes, that is half of all time (measured: 9.2 s against 4.7 s for 20,000
rows of 1 s). Rows make no cycles: they go when nobody refers to them. So while rows are under way, the first walk comes
after as many new objects as a share of the rows holds.
"""

from __future__ import annotations

import contextlib
import gc
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Generator

__all__ = ["unhurried"]

PER_ROW: Final = 20
"""New objects between two walks, for each row that may be under way."""
SECOND: Final = 100
"""Walks over the newest before one over those that have outlived one: in between are the rows under way."""
MOST: Final = 200_000
"""No longer than this, or what other code leaves in cycles stays for too long."""

_usual: tuple[int, int, int] | None = None
_wanted: list[int] = []


@contextlib.contextmanager
def unhurried(rows: int) -> Generator[None]:
    """Let the collector run less often inside the block; several blocks at once are as patient as the most patient.

    Args:
        rows: How many rows may be under way.

    Example:
        >>> import gc
        >>> from otpy.evaluate.collector import unhurried
        >>> before = gc.get_threshold()
        >>> with unhurried(5_000):
        ...     gc.get_threshold()[0]
        100000
        >>> gc.get_threshold() == before
        True
    """
    global _usual  # noqa: PLW0603 - the collector is one for all of Python
    if not _wanted:
        _usual = gc.get_threshold()
    _wanted.append(min(PER_ROW * rows, MOST))
    _set()
    try:
        yield
    finally:
        _wanted.remove(min(PER_ROW * rows, MOST))
        _set()


def _set() -> None:
    assert _usual is not None
    if _usual[0]:  # else somebody has switched it off
        first = max(_usual[0], *_wanted, 0)
        gc.set_threshold(first, _usual[1] if first == _usual[0] else max(_usual[1], SECOND), _usual[2])

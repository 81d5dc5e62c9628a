"""Where rows come from: a list, or a generator that is read as there is room."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from otpy.errors import EvaluationError
from otpy.evaluate.rows import Item, marked
from otpy.signatures import Example

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable, Mapping

    from otpy.evaluate.journal import Journal
    from otpy.programs import Program

__all__ = ["Rows", "Unreadable", "items_of", "rows_of"]

Rows: TypeAlias = "Iterable[Example | Mapping[str, Any]] | AsyncIterable[Example | Mapping[str, Any]]"


class Unreadable(Exception):
    """The devset has raised an error, or has a row that is none.

    Args:
        error: What was wrong.
    """

    def __init__(self, error: Exception) -> None:
        """Keep it."""
        self.error = error
        super().__init__(str(error))


def rows_of(devset: object) -> tuple[Example, ...] | Rows:
    """Return the examples of a list, and anything else that has rows as it is.

    Args:
        devset: What somebody gave as a devset.

    Raises:
        EvaluationError: If it has no rows, or a row of a list is none.
    """
    if isinstance(devset, Sequence) and not isinstance(devset, (str, bytes)):
        return tuple(_example(index, row) for index, row in enumerate(cast("Sequence[object]", devset)))
    if callable(devset) and not hasattr(devset, "__iter__"):
        name = getattr(devset, "__name__", "it")
        raise EvaluationError(f"devset={devset!r:.100} is a function; call it: {name}()")
    if isinstance(devset, (str, bytes)) or not (hasattr(devset, "__iter__") or isinstance(devset, AsyncIterable)):
        raise EvaluationError(f"devset={devset!r:.100}; allowed: examples, in a list or from a generator")
    return cast("Rows", devset)


async def items_of(rows: Any, program: Program, runs: int, journal: Journal | None) -> AsyncGenerator[Item]:
    """Yield the rows, each as often as it is run, with what the journal knows of it.

    Args:
        rows: A list of examples with their inputs marked, or what has to be read.
        program: The program they are for.
        runs: How often each is run.
        journal: The journal, if there is one.

    Raises:
        Unreadable: If the source raises, or a row of it is none.
    """
    index = 0
    source: AsyncIterator[Any] = aiter(rows) if hasattr(rows, "__aiter__") else _one_by_one(rows)
    while True:
        try:
            row: Any = await anext(source)
            example = row if isinstance(rows, list) else marked(_example(index, row), index, program)
        except StopAsyncIteration:
            return
        except Exception as error:
            raise Unreadable(error) from error
        for repeat in range(runs):
            known = None if journal is None else journal.take(index, example, repeat)
            yield Item(index, example, repeat, known=known)
        index += 1


async def _one_by_one(rows: Iterable[Any]) -> AsyncGenerator[Any]:
    for row in rows:
        yield row


def _example(index: int, row: object) -> Example:
    if isinstance(row, Example):
        return row
    if hasattr(row, "keys"):
        return Example(cast("Mapping[str, Any]", row))
    raise EvaluationError(f"row {index} of the devset is {row!r:.100}, not an Example")

"""Where rows come from: a list, or a generator that is read as there is room."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterable, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast

from otpy.errors import EvaluationError
from otpy.evaluate.rows import Item, marked
from otpy.signatures import Example

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping

    from otpy.evaluate.journal import Journal
    from otpy.programs import Program

__all__ = ["Rows", "Source", "Unreadable", "rows_of"]

Rows: TypeAlias = "Iterable[Example | Mapping[str, Any]] | AsyncIterable[Example | Mapping[str, Any]]"

PATIENCE: Final = 0.05
"""Seconds that a row of a plain source may take; past it the others are read in a thread."""
_LATER: Final = object()
_END: Final = object()


class Unreadable(Exception):
    """The devset has raised an error, or has a row that is none.

    Args:
        error: What was wrong.
    """

    def __init__(self, error: BaseException) -> None:
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


class Source:
    """Rows as items, each as often as it is run, with what the journal knows of it.

    What is there is handed out at once. An asynchronous source may let one wait, and so may a plain one: once it has
    taken long, it is read in a thread.

    Args:
        rows: A list of examples with their inputs marked, or what has to be read.
        program: The program they are for.
        runs: How often each is run.
        journal: The journal, if there is one.
    """

    def __init__(self, rows: Any, program: Program, runs: int, journal: Journal | None) -> None:
        """Read nothing yet."""
        self._program, self._runs, self._journal = program, runs, journal
        self._marked = isinstance(rows, list)
        self._next = aiter(rows).__anext__ if hasattr(rows, "__aiter__") else None
        self._rows: Iterator[Any] = iter(()) if self._next else iter(rows)
        self._index = 0
        self._ready: deque[Item] = deque()
        self._reading: asyncio.Future[Any] | None = None
        self._listener: Callable[[], None] = _nothing

    def listen(self, listener: Callable[[], None]) -> None:
        """Have somebody called when there is something that was not there when it was asked for.

        Args:
            listener: Whom.
        """
        self._listener = listener

    def read(self) -> Item | None:
        """Return the next item, or `None` if it is not there yet.

        Raises:
            StopIteration: At the end.
            Unreadable: If the source raises, or a row of it is none.
        """
        if self._ready:
            return self._ready.popleft()
        try:
            row: Any = self._read()
            if row is _LATER:
                return None
            example = row if self._marked else marked(_example(self._index, row), self._index, self._program)
        except (StopIteration, StopAsyncIteration):
            raise StopIteration from None
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            raise Unreadable(error) from error
        index = self._index
        self._index += 1
        for repeat in range(self._runs):
            known = None if self._journal is None else self._journal.take(index, example, repeat)
            self._ready.append(Item(index, example, repeat, known=known))
        return self._ready.popleft()

    def _read(self) -> Any:
        """The next row, or that it comes later."""
        if self._reading is None and self._next is None:
            began = time.perf_counter()
            row: Any = next(self._rows)
            if time.perf_counter() - began > PATIENCE:
                self._next = self._in_thread
            return row
        if self._reading is None:
            self._reading = asyncio.ensure_future(self._told())
            self._reading.add_done_callback(lambda _: self._listener())
        if not self._reading.done():
            return _LATER
        reading, self._reading = self._reading, None
        row, error = reading.result()
        if error is not None:
            raise error
        return row

    async def _told(self) -> tuple[Any, BaseException | None]:
        """The next row, or what was raised instead: some of it would not stay in a task."""
        assert self._next is not None
        try:
            return await self._next(), None
        except BaseException as error:  # noqa: BLE001 - as above
            return None, error

    async def _in_thread(self) -> Any:
        def read() -> Any:
            return next(self._rows, _END)  # StopIteration cannot leave a thread

        row: Any = await asyncio.to_thread(read)
        if row is _END:
            raise StopAsyncIteration
        return row

    async def __aiter__(self) -> AsyncGenerator[Item]:
        """Yield every item, waiting for it."""
        news = asyncio.Event()
        self.listen(news.set)
        while True:
            news.clear()
            try:
                item = self.read()
            except StopIteration:
                return
            if item is None:
                await news.wait()
            else:
                yield item

    def close(self) -> None:
        """Read no more."""
        if self._reading is not None:
            self._reading.cancel()


def _nothing() -> None:
    """Tell nobody."""


def _example(index: int, row: object) -> Example:
    if isinstance(row, Example):
        return row
    if hasattr(row, "keys"):
        return Example(cast("Mapping[str, Any]", row))
    raise EvaluationError(f"row {index} of the devset is {row!r:.100}, not an Example")

"""Whose request it is: labels that follow the context, to the tasks, threads and processes that are started in it."""

from __future__ import annotations

import contextlib
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Generator

__all__ = ["ANYBODY", "Labels", "current_labels", "labels", "relabel"]


class Labels(NamedTuple):
    """Whose request it is; what is `None` is not said.

    Args:
        client: The client it goes through.
        model: The model that is asked.
        run: The evaluation, the optimization, or whatever was called a run.
        program: The program that was called.
        predictor: The predictor that asks, by its path in the program.
        example: The example it is about.
    """

    client: str | None = None
    model: str | None = None
    run: str | None = None
    program: str | None = None
    predictor: str | None = None
    example: str | None = None

    def __str__(self) -> str:
        """Print those that are said."""
        said = (f"{name} {value!r}" for name, value in zip(self._fields, self, strict=True) if value is not None)
        return ", ".join(said) or "the whole application"


ANYBODY: Final = Labels()
"""No label is said: of a request, that nobody said whose it is; of a cap, that it is for all."""
_labels: ContextVar[Labels] = ContextVar("otpy_labels", default=ANYBODY)


relabel: Final = _labels.set
"""Set the labels of the calling code, without a way back: for hot paths, which come back by another call."""


def current_labels() -> Labels:
    """Return the labels of the calling code."""
    return _labels.get()


@contextlib.contextmanager
def labels(**said: str | int | None) -> Generator[Labels]:
    """Label every request made inside the block, by the tasks, threads and processes it starts too.

    Args:
        said: As in `Labels`; the others stay as they are outside of the block.

    Raises:
        TypeError: If there is no such label.

    Example:
        >>> from otpy.clients.labels import current_labels, labels
        >>> with labels(run="first"), labels(example=3):
        ...     print(current_labels())
        run 'first', example '3'
    """
    unknown = said.keys() - set(Labels._fields)
    if unknown:
        raise TypeError(f"no label {', '.join(sorted(unknown))}; there are {', '.join(Labels._fields)}")
    new = _labels.get()._replace(**{name: None if value is None else str(value) for name, value in said.items()})
    token = _labels.set(new)
    try:
        yield new
    finally:
        with contextlib.suppress(ValueError):  # left in another context than it was entered in, as fixtures do
            _labels.reset(token)

"""Tracing: which predictor was called with what, and what it said, across tasks and threads."""

from __future__ import annotations

import contextlib
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from otpy.programs.predict import Predict
    from otpy.programs.program import Program
    from otpy.signatures import Prediction

__all__ = ["Trace", "TraceEntry", "tracing"]


@dataclass(frozen=True, slots=True)
class TraceEntry:
    """One call of one predictor.

    Args:
        path: Where the predictor stands in the program that was called, as in `named_predictors()`.
        predictor: The predictor.
        inputs: What it was given.
        prediction: What it returned.
    """

    path: str
    predictor: Predict
    inputs: Mapping[str, Any]
    prediction: Prediction


Trace = list[TraceEntry]

_traces: ContextVar[tuple[Trace, ...]] = ContextVar("otpy_traces", default=())
_outermost: ContextVar[Program | None] = ContextVar("otpy_outermost_program", default=None)


@contextlib.contextmanager
def tracing() -> Iterator[Trace]:
    """Collect every predictor call made inside the block, including those of tasks and threads it starts.

    Example:
        >>> from otpy.programs import tracing
        >>> with tracing() as trace:
        ...     pass
        >>> trace
        []
    """
    trace: Trace = []
    token = _traces.set((*_traces.get(), trace))
    try:
        yield trace
    finally:
        _traces.reset(token)


@contextlib.contextmanager
def calling(program: Program) -> Iterator[None]:
    """Remember which program was called first, so that its predictors can be told apart."""
    if _outermost.get() is not None:
        yield
        return
    token = _outermost.set(program)
    try:
        yield
    finally:
        _outermost.reset(token)


def record(predictor: Predict, inputs: Mapping[str, Any], prediction: Prediction) -> None:
    """Add a call to every trace that is being collected here."""
    traces = _traces.get()
    if traces:
        outermost = _outermost.get()
        path = "self" if outermost is None else outermost.path_of(predictor)
        entry = TraceEntry(path, predictor, inputs, prediction)
        for trace in traces:
            trace.append(entry)

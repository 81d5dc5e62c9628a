"""What goes on while programs call each other: who was called first, which predictors were asked, what it cost.

All of it follows the context (`contextvars`), so it reaches the tasks and worker threads that a call starts, and calls
that run at the same time never mix.
"""

from __future__ import annotations

import contextlib
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from otpy.lm import Usage

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

    from otpy.programs.predict import Predict
    from otpy.programs.program import Program
    from otpy.signatures import Prediction

__all__ = ["Call", "Trace", "TraceEntry", "calling", "record", "spent", "tracing"]


@dataclass(frozen=True, slots=True)
class TraceEntry:
    """One call of one predictor.

    Args:
        path: Where the predictor stands in the program that was called, as in `named_predictors()`; `None` if it is no
            part of it.
        predictor: The predictor.
        inputs: What it was given.
        prediction: What it returned.
    """

    path: str | None
    predictor: Predict
    inputs: Mapping[str, Any]
    prediction: Prediction


Trace: TypeAlias = list[TraceEntry]


@dataclass(frozen=True, slots=True)
class Call:
    """A composition that is running now.

    Args:
        root: The program that was called first.
        outer: The composition that called this one, if any.
        usages: What each question asked in it, at any depth, has cost; appending is safe from any thread.
    """

    root: Program
    outer: Call | None = None
    usages: list[Usage] = field(default_factory=list[Usage])

    @property
    def usage(self) -> Usage:
        """What it has cost so far."""
        return sum(self.usages, Usage())


_traces: ContextVar[tuple[Trace, ...]] = ContextVar("otpy_traces", default=())
_call: ContextVar[Call | None] = ContextVar("otpy_call", default=None)


@contextlib.contextmanager
def tracing() -> Generator[Trace]:
    """Collect every predictor call made inside the block, including those of tasks and threads it starts.

    The block begins anew: paths are those in the program that is called first inside it.

    Example:
        >>> from otpy.programs import tracing
        >>> with tracing() as trace:
        ...     pass
        >>> trace
        []
    """
    trace: Trace = []
    traces, call = _traces.set((*_traces.get(), trace)), _call.set(None)
    try:
        yield trace
    finally:
        _call.reset(call)
        _traces.reset(traces)


@contextlib.contextmanager
def calling(program: Program) -> Generator[Call]:
    """Note that a composition runs, and which program was called first.

    Args:
        program: The composition.
    """
    outer = _call.get()
    call = Call(program if outer is None else outer.root, outer)
    token = _call.set(call)
    try:
        yield call
    finally:
        _call.reset(token)


def spent(usage: Usage) -> None:
    """Charge every composition that is running here.

    Args:
        usage: What one question cost, answered well or not.
    """
    call = _call.get()
    while call is not None:
        call.usages.append(usage)
        call = call.outer


def record(predictor: Predict, inputs: Mapping[str, Any], prediction: Prediction) -> None:
    """Add a predictor's call to every trace that is being collected here.

    Args:
        predictor: Who was asked.
        inputs: What it was given.
        prediction: What it returned.
    """
    if traces := _traces.get():
        call = _call.get()
        path = "self" if call is None else call.root.path_of(predictor)
        entry = TraceEntry(path, predictor, inputs, prediction)
        for trace in traces:
            trace.append(entry)

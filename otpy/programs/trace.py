"""What goes on while programs call each other: who was called first, which predictors were asked, what it cost.

All of it follows the context (`contextvars`), so it reaches the tasks and worker threads that a call starts, and calls
that run at the same time never mix.

Whose request it is, for the ledger, is said by those who know: the program that is called first says `program`, every
predictor `predictor`. What is said already stays, so the outermost counts, and above all what you say yourself.
"""

from __future__ import annotations

import contextlib
from bisect import insort
from collections import deque
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from otpy.clients.history import expected
from otpy.clients.labels import Labels, current_labels, relabel
from otpy.lm import Usage
from otpy.programs.lanes import Place, begun, ordering

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping

    from otpy.lm import LMRequest
    from otpy.programs.predict import Predict
    from otpy.programs.program import Program
    from otpy.signatures import Prediction

__all__ = [
    "Call",
    "Trace",
    "TraceEntry",
    "asking",
    "attempting",
    "begun",
    "calling",
    "place_of",
    "record",
    "recorded",
    "relabelled",
    "signed",
    "spent",
    "tracing",
]

KEPT: Final = 1_000
"""Exchanges that a call remembers, the latest; so many are kept by a history too, unless told otherwise."""


@dataclass(frozen=True, slots=True)
class TraceEntry:
    """One call of one predictor; unpacked it is DSPy's triple: `predictor, inputs, prediction = entry`.

    Args:
        path: Where the predictor stands in the program that was called, as in `named_predictors()`; `None` if it is no
            part of it.
        predictor: The predictor.
        inputs: What it was given.
        prediction: What it returned.
        place: Where it stands among the others of its trace, however long each took.

    Example:
        >>> from otpy.programs import Predict, TraceEntry
        >>> from otpy.signatures import Prediction
        >>> asked = TraceEntry("self", Predict("q -> a"), {"q": "why?"}, Prediction(a="so"))
        >>> for predictor, inputs, prediction in [asked]:
        ...     print(inputs["q"], prediction.a)
        why? so
    """

    path: str | None
    predictor: Predict
    inputs: Mapping[str, Any]
    prediction: Prediction
    place: Place = field(default=(), compare=False, repr=False)

    def __iter__(self) -> Iterator[Any]:
        """Unpack it into the predictor, its inputs and its prediction."""
        return iter((self.predictor, self.inputs, self.prediction))


Trace: TypeAlias = list[TraceEntry]


@dataclass(frozen=True, slots=True)
class Call:
    """A composition that is running now.

    Args:
        root: The program that was called first.
        outer: The composition that called this one, if any.
        usages: What each question asked in it, at any depth, has cost; appending is safe from any thread.
        exchanges: The numbers of their exchanges in the application's history.
        stands_for: If `root` is a changed copy of a part of another program: that part.
        beyond: The call of the program it is a part of, if any.
    """

    root: Program
    outer: Call | None = None
    usages: list[Usage] = field(default_factory=list[Usage])
    exchanges: deque[int] = field(default_factory=lambda: deque(maxlen=KEPT))
    stands_for: Program | None = None
    beyond: Call | None = None

    @property
    def usage(self) -> Usage:
        """What it has cost so far."""
        return sum(self.usages, Usage())

    def original_of(self, predictor: Predict) -> Predict:
        """Return the predictor that one of a changed copy stands for; itself, if it is in none.

        Args:
            predictor: The predictor.
        """
        if self.stands_for is None or (path := self.root.path_of(predictor)) is None:
            return predictor
        original = dict(self.stands_for.named_predictors())[path]
        return original if self.beyond is None else self.beyond.original_of(original)

    def path_of(self, predictor: Predict) -> str | None:
        """Return where a predictor stands in the program that was called first; `None` if nowhere.

        Args:
            predictor: The predictor, or one that stands for it.
        """
        path = self.root.path_of(predictor)
        if path is None or self.stands_for is None or self.beyond is None:
            return path
        return self.beyond.path_of(dict(self.stands_for.named_predictors())[path])


_traces: ContextVar[tuple[Trace, ...]] = ContextVar("otpy_traces", default=())
_call: ContextVar[Call | None] = ContextVar("otpy_call", default=None)


@contextlib.contextmanager
def tracing() -> Generator[Trace]:
    """Collect every predictor call made inside the block, including those of tasks and threads it starts.

    Calls that were made at the same time stand in the order in which they began, whichever was answered first.

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
        with ordering():
            yield trace
    finally:
        _call.reset(call)
        _traces.reset(traces)


class calling:  # noqa: N801 - used as a block, and often: a generator costs twice as much
    """Note that a composition runs, and which program was called first, during a block.

    Args:
        program: The composition.
    """

    __slots__ = ("_call", "_said", "_token")

    def __init__(self, program: Program) -> None:
        """Find out what it is part of."""
        outer = _call.get()
        if outer is None:
            self._call = Call(program)
        else:
            self._call = Call(outer.root, outer, stands_for=outer.stands_for, beyond=outer.beyond)

    def __enter__(self) -> Call:
        """Note it."""
        call, said = self._call, current_labels()
        self._token = _call.set(call)
        self._said = None if said.program is not None else said
        if self._said is not None:
            kind = type(call.root).__name__
            relabel(Labels(said.client, said.model, said.run, kind, said.predictor, said.example))
        return call

    def __exit__(self, *_: object) -> None:
        """Forget it."""
        _call.reset(self._token)
        if self._said is not None:
            relabel(self._said)


def place_of(predictor: Predict) -> str | None:
    """Return where a predictor stands in the program that was called first; `None` if nowhere.

    Args:
        predictor: The predictor.
    """
    call = _call.get()
    return "self" if call is None else call.path_of(predictor)


def signed(predictor: Predict) -> Labels | None:
    """Say that the requests that follow are this predictor's; returns what is to be `relabelled` behind them.

    `None` if nothing has changed: somebody else has said it, or the predictor is no part of the program.

    Args:
        predictor: Who asks.
    """
    said = current_labels()
    if said.predictor is not None:
        return None
    path = place_of(predictor)
    if path is None:
        return None
    program = said.program or type(predictor).__name__
    relabel(Labels(said.client, said.model, said.run, program, path, said.example))
    return said


@contextlib.contextmanager
def attempting(part: Program, copy: Program) -> Generator[Trace]:
    """Let a changed copy run in the place of a part of the program, and collect its trace apart, inside the block.

    What it costs is charged as ever. Its calls are recorded as the part's, in the trace that is returned alone:
    `recorded` passes on those of an attempt that counts.

    Args:
        part: The part of the program.
        copy: What runs in its place.
    """
    trace: Trace = []
    outer = _call.get()
    traces = _traces.set((trace,))
    call = _call.set(Call(copy, outer, stands_for=part, beyond=outer))
    try:
        yield trace
    finally:
        _call.reset(call)
        _traces.reset(traces)


def recorded(trace: Trace) -> None:
    """Add what an attempt has collected to every trace that is being collected here.

    Args:
        trace: Of the attempt that counts.
    """
    for outer in _traces.get():
        for entry in trace:
            _put(outer, entry)


def _put(trace: Trace, entry: TraceEntry) -> None:
    if not trace or trace[-1].place <= entry.place:
        trace.append(entry)
    else:
        insort(trace, entry, key=lambda one: one.place)


relabelled = relabel
"""Put the labels back that `signed` has returned."""


def asking(request: LMRequest) -> int:
    """Tell every composition that is running here of a question; returns the number of its exchange.

    Args:
        request: What is about to be asked; see `otpy.clients.history.expected`.
    """
    number = expected(request)
    call = _call.get()
    while call is not None:
        call.exchanges.append(number)
        call = call.outer
    return number


def spent(usage: Usage) -> None:
    """Charge every composition that is running here.

    Args:
        usage: What one question cost, answered well or not.
    """
    call = _call.get()
    while call is not None:
        call.usages.append(usage)
        call = call.outer


def record(predictor: Predict, inputs: Mapping[str, Any], prediction: Prediction, place: Place) -> None:
    """Add a predictor's call to every trace that is being collected here.

    Args:
        predictor: Who was asked.
        inputs: What it was given.
        prediction: What it returned.
        place: What `begun` said when it began.
    """
    if traces := _traces.get():
        call = _call.get()
        if call is not None:
            path, predictor = call.path_of(predictor), call.original_of(predictor)
        else:
            path = "self"
        entry = TraceEntry(path, predictor, inputs, prediction, place)
        for trace in traces:
            _put(trace, entry)

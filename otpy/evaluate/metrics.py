"""Metrics: how good a prediction is, as a number from 0 to 1 or a yes or no."""

from __future__ import annotations

import inspect
import re
import string
from collections import Counter
from enum import Enum
from typing import TYPE_CHECKING, Any, Protocol

from otpy.errors import EvaluationError
from otpy.evaluate.score import Score
from otpy.programs.worker import in_worker

if TYPE_CHECKING:
    from otpy.programs import Trace
    from otpy.signatures import Example, Prediction

__all__ = ["Metric", "check_metric", "exact_match", "f1", "measure", "metric_name", "normalized"]


class Metric(Protocol):
    """A function, plain or `async`, that compares a prediction with the example it was made for.

    It returns a number, a bool or a `Score`. `trace` is `None` when a program is evaluated, and the calls of its
    predictors when demos are bootstrapped, where the answer counts as a yes or no.
    """

    def __call__(self, example: Example, prediction: Prediction, trace: Trace | None = None) -> Any:
        """Score a prediction."""
        ...


def exact_match(field: str, *, normalize: bool = False) -> Metric:
    """Make a metric: whether a field of the prediction equals the example's.

    Args:
        field: The field. A text in the example also equals a value that is written so, since CSV files hold only texts.
        normalize: Compare texts without case, punctuation, articles and runs of spaces.

    Example:
        >>> from otpy.evaluate import exact_match
        >>> from otpy.signatures import Example, Prediction
        >>> exact_match("answer", normalize=True)(Example(answer="Paris"), Prediction(answer="paris."))
        True
    """

    def metric(example: Example, prediction: Prediction, trace: Trace | None = None) -> bool:  # noqa: ARG001 - a metric
        wanted, got = _both(example, prediction, field)
        if isinstance(wanted, str):
            got = str(got)
            return normalized(wanted) == normalized(got) if normalize else wanted == got
        return bool(wanted == got)

    metric.__name__ = f"exact_match({field!r})"
    metric.quick, metric.field = True, field  # type: ignore[attr-defined]  # it needs no thread
    return metric


def _both(example: Example, prediction: Prediction, field: str) -> tuple[Any, Any]:
    """A field's two values, as data files hold them: an enum's member counts as its value."""
    for what, row in (("example", example), ("prediction", prediction)):
        if field not in row:
            raise EvaluationError(f"the {what} has no field {field!r}; it has {', '.join(row) or 'none'}")
    wanted, got = (value.value if isinstance(value, Enum) else value for value in (example[field], prediction[field]))
    return wanted, got


def f1(field: str) -> Metric:
    """Make a metric: the harmonic mean of precision and recall over words.

    Source: Rajpurkar et al. 2016, "SQuAD", the official evaluation script.

    Args:
        field: The field, a text.

    Example:
        >>> from otpy.evaluate import f1
        >>> from otpy.signatures import Example, Prediction
        >>> round(f1("answer")(Example(answer="the blue car"), Prediction(answer="a blue bus")), 2)
        0.5
    """

    def metric(example: Example, prediction: Prediction, trace: Trace | None = None) -> float:  # noqa: ARG001 - a metric
        wanted, got = (normalized(str(value)).split() for value in _both(example, prediction, field))
        if not wanted or not got:
            return float(wanted == got)
        common = sum((Counter(wanted) & Counter(got)).values())
        return 2 * common / (len(wanted) + len(got))

    metric.__name__ = f"f1({field!r})"
    metric.quick, metric.field = True, field  # type: ignore[attr-defined]  # the same
    return metric


def normalized(text: str) -> str:
    """Return a text without case, punctuation, articles and runs of spaces.

    Example:
        >>> from otpy.evaluate.metrics import normalized
        >>> normalized("The  Eiffel Tower!")
        'eiffel tower'
    """
    text = "".join(character for character in text.lower() if character not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def metric_name(metric: object) -> str:
    """Return what to call a metric."""
    return getattr(metric, "__name__", type(metric).__name__)


def check_metric(metric: object) -> None:
    """Refuse what cannot be a metric.

    Raises:
        EvaluationError: If it cannot be called, or not with an example, a prediction and a trace.
    """
    if not callable(metric):
        raise EvaluationError(f"metric={metric!r}: a function (example, prediction, trace=None)")
    try:
        signature = inspect.signature(metric)
    except (TypeError, ValueError):
        return
    try:
        signature.bind(None, None, trace=None)
    except TypeError:
        raise EvaluationError(
            f"metric {metric_name(metric)}{signature} cannot be called with (example, prediction, trace=None)"
        ) from None


async def measure(metric: Metric, example: Example, prediction: Prediction, trace: Trace | None = None) -> float:
    """Return a metric's score: a number, a `Score` if the metric gave reasons.

    A plain function runs in a worker thread: it may block, and then it costs its own row and no other.

    Raises:
        EvaluationError: If it returns anything but a finite number, a bool or a `Score`.
        Exception: Whatever the metric raises.
    """
    if inspect.iscoroutinefunction(metric) or getattr(metric, "quick", False):
        answer: Any = metric(example, prediction, trace=trace)
    else:
        answer = await in_worker(lambda: metric(example, prediction, trace=trace))
    result: Any = await answer if inspect.isawaitable(answer) else answer
    if isinstance(result, Score):
        return result
    try:
        return float(Score(result))
    except EvaluationError:
        raise EvaluationError(
            f"metric {metric_name(metric)} returned {result!r:.200}; allowed: a finite number, or a bool, or a Score"
        ) from None

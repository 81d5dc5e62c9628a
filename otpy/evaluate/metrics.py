"""Metrics: how good a prediction is, as a number from 0 to 1 or a yes or no."""

from __future__ import annotations

import inspect
import re
import string
from collections import Counter
from contextlib import suppress
from enum import Enum
from typing import TYPE_CHECKING, Any, Protocol, cast

from otpy.errors import EvaluationError
from otpy.evaluate.metric_names import metric_name
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

    def __call__(self, example: Example, prediction: Prediction, /, trace: Trace | None = None) -> Any:
        """Score a prediction."""
        ...


def exact_match(field: str, *, normalize: bool = False) -> Metric:
    """Make a metric: whether a field of the prediction equals the example's.

    Args:
        field: The field. A text on one side equals a value on the other that is written so, since CSV files hold only
            texts, and models write them. An example may have a list of right answers where the prediction has one: any
            of them will do, and if there are none, the empty text.
        normalize: Compare texts without case, punctuation, articles and runs of spaces.

    Example:
        >>> from otpy.evaluate import exact_match
        >>> from otpy.signatures import Example, Prediction
        >>> exact_match("answer", normalize=True)(Example(answer="Paris"), Prediction(answer="paris."))
        True
        >>> exact_match("answer")(Example(answer=["2", "two"]), Prediction(answer=2))
        True
    """

    def metric(example: Example, prediction: Prediction, trace: Trace | None = None) -> bool:  # noqa: ARG001 - a metric
        answers, got = _both(example, prediction, field)
        return any(_same(wanted, got, normalize=normalize) for wanted in answers)

    metric.__name__ = f"exact_match({field!r}{', normalize=True' if normalize else ''})"
    metric.quick, metric.field = True, field  # type: ignore[attr-defined]  # it needs no thread
    return metric


def _same(wanted: Any, got: Any, *, normalize: bool) -> bool:
    if not isinstance(wanted, str) and (wanted is None or not isinstance(got, str)):
        return bool(wanted == got)
    one, other = str(wanted), str(got)
    return normalized(one) == normalized(other) if normalize else one == other


def _both(example: Example, prediction: Prediction, field: str) -> tuple[list[Any], Any]:
    """The right answers and the one that was given, as data files hold them: an enum's member counts as its value."""
    for what, row in (("example", example), ("prediction", prediction)):
        if field not in row:
            raise EvaluationError(f"the {what} has no field {field!r}; it has {', '.join(row) or 'none'}")
    wanted, got = example[field], _value(prediction[field])
    if isinstance(wanted, (list, tuple)) and not isinstance(cast("object", got), (list, tuple, set, frozenset)):
        return [_value(answer) for answer in cast("list[Any]", wanted)] or [""], got
    return [_value(wanted)], got


def _value(value: Any) -> Any:
    return value.value if isinstance(value, Enum) else value


def f1(field: str) -> Metric:
    """Make a metric: the harmonic mean of precision and recall over words.

    Source: Rajpurkar et al. 2016, "SQuAD", the official evaluation script.

    Args:
        field: The field, a text. An example may have a list of right answers: the one that fits best counts, and if
            there are none, the empty text is right.

    Example:
        >>> from otpy.evaluate import f1
        >>> from otpy.signatures import Example, Prediction
        >>> round(f1("answer")(Example(answer="the blue car"), Prediction(answer="a blue bus")), 2)
        0.5
        >>> f1("answer")(Example(answer=["a car", "blue bus"]), Prediction(answer="a blue bus"))
        1.0
    """

    def metric(example: Example, prediction: Prediction, trace: Trace | None = None) -> float:  # noqa: ARG001 - a metric
        answers, got = _both(example, prediction, field)
        return max(_overlap(str(wanted), str(got)) for wanted in answers)

    metric.__name__ = f"f1({field!r})"
    metric.quick, metric.field = True, field  # type: ignore[attr-defined]  # the same
    return metric


def _overlap(one: str, other: str) -> float:
    wanted, got = normalized(one).split(), normalized(other).split()
    if not wanted or not got:
        return float(wanted == got)
    common = sum((Counter(wanted) & Counter(got)).values())
    return 2 * common / (len(wanted) + len(got))


def normalized(text: str) -> str:
    """Return a text without case, punctuation, articles and runs of spaces.

    Example:
        >>> from otpy.evaluate.metrics import normalized
        >>> normalized("The  Eiffel Tower!")
        'eiffel tower'
    """
    text = "".join(character for character in text.lower() if character not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


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
        why = f"metric {metric_name(metric)}{signature} cannot be called with (example, prediction, trace=None)"
        third = [name for name, found in signature.parameters.items() if found.kind is found.POSITIONAL_OR_KEYWORD][2:3]
        with suppress(TypeError):
            signature.bind(None, None)
            why += "; give it a third parameter, trace=None"
        if third:
            with suppress(TypeError):
                signature.bind(None, None, None)
                why += f"; its third parameter has to be named trace, and is named {third[0]}"
        raise EvaluationError(why) from None


async def measure(metric: Metric, example: Example, prediction: Prediction, trace: Trace | None = None) -> float:
    """Return a metric's score: a number, a `Score` if the metric gave reasons.

    A plain function runs in a worker thread: it may block, and then it costs its own row and no other. What DSPy's
    metrics for GEPA return is understood too: a dict or a `Prediction` with `score`, and `feedback` and `subscores` if
    there are any.

    Raises:
        EvaluationError: If it returns anything but a finite number, a bool, a `Score`, or one of these.
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
        if hasattr(result, "keys") and "score" in result:
            return Score(result["score"], result.get("feedback") or "", result.get("subscores"))
        return float(Score(result))
    except EvaluationError:
        raise EvaluationError(
            f"metric {metric_name(metric)} returned {result!r:.200}; allowed: a finite number, or a bool, or a Score"
        ) from None

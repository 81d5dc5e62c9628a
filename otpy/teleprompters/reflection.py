"""What a model is asked that is to learn from what happened: its words, and how the calls of a predictor are told.

Sources: Agrawal et al. 2025 (GEPA: a new instruction from traces and feedback); SIMBA of DSPy (advice from a better and
a worse trajectory).
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, Final

from otpy.errors import AdapterParseError, LMContextWindowExceeded
from otpy.evaluate import measure
from otpy.programs import Predict
from otpy.signatures import InputField, OutputField, Signature
from otpy.telemetry import bus as telemetry

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from otpy.evaluate import Metric
    from otpy.programs import Program, TraceEntry
    from otpy.signatures import Prediction
    from otpy.teleprompters.lab import Lab
    from otpy.teleprompters.tried import Tried

__all__ = [
    "ADVISE",
    "REWRITE",
    "advised",
    "asked_for",
    "calls_of",
    "in_one",
    "labels",
    "listed",
    "modules",
    "record_of",
    "told",
    "trajectory",
]

LONGEST: Final = 4_000
"""Characters of one value that a reader is shown."""


class Rewrite(Signature):
    """A language model follows an instruction, and its calls were judged.

    Write a better instruction for it: keep what works, correct what the feedback finds wrong, and put in every fact and
    rule of the task that the model cannot know by itself. The next inputs will be others of the same kind, so state
    rules, not single answers. Write the whole instruction and nothing else.
    """

    instruction: str = InputField(desc="what the model is told now")
    calls: str = InputField(desc="its calls: inputs, outputs, and feedback")
    new_instruction: str = OutputField(desc="the better instruction, whole")


class Advise(Signature):
    """The modules of a program ran on the same input twice, once better and once worse.

    Find out what made the difference, and advise the modules that have a part in it: in which situation to do what. The
    advice is added to the module's instruction and has to help with other inputs of the kind.
    """

    modules: str = InputField(desc="each module's name, fields and instruction")
    example: str = InputField(desc="the input, and what is known of the right answer")
    worse: str = InputField(desc="the calls of the worse run, its score and feedback")
    better: str = InputField(desc="the calls of the better run, its score and feedback")
    advice: dict[str, str] = OutputField(desc="for each module to be advised, by its name: the advice")


REWRITE: Final = Predict(Rewrite)
ADVISE: Final = Predict(Advise)


async def asked_for(lab: Lab, predictor: Predict, **inputs: Any) -> Prediction | None:
    """Ask for advice; `None` if the answer would not do or the question is too long, which costs this advice alone.

    Args:
        lab: Asks.
        predictor: Is asked.
        inputs: Its inputs.

    Raises:
        ClientError: If the model cannot be asked at all.
    """
    try:
        return await lab.ask(predictor, **inputs)
    except (AdapterParseError, LMContextWindowExceeded) as error:
        if telemetry.listening:
            telemetry.emit("otpy.teleprompter.no_advice", error=error)
        return None


# -- how calls are told ------------------------------------------------------------------------------------------------


def told(value: object, longest: int = LONGEST) -> str:
    """Return a value as a reader is shown it, and how much was left out, if anything was.

    Args:
        value: The value.
        longest: Characters of it at most.

    Example:
        >>> from otpy.teleprompters.reflection import told
        >>> told("a long story", 6)
        'a long … (6 characters more)'
    """
    text = str(value)
    return text if len(text) <= longest else f"{text[:longest]} … ({len(text) - longest} characters more)"


def listed(values: Mapping[str, Any], longest: int = LONGEST) -> str:
    """Return named values, a line each.

    Args:
        values: The values.
        longest: Characters of each at most.

    Example:
        >>> from otpy.teleprompters.reflection import listed
        >>> print(listed({"word": "pear", "kind": "fruit"}))
        word: pear
        kind: fruit
    """
    return "\n".join(f"{name}: {told(value, longest)}" for name, value in values.items())


def outputs_of(entry: TraceEntry) -> dict[str, Any]:
    """Return what a predictor has answered in a call, the fields of its signature alone."""
    return {
        name: entry.prediction[name] for name in entry.predictor.signature.output_fields if name in entry.prediction
    }


def labels(tried: Tried) -> dict[str, Any]:
    """Return what an example knows beyond its inputs."""
    inputs = tried.example.inputs()
    return {name: value for name, value in tried.example.items() if name not in inputs}


async def record_of(  # noqa: PLR0913 - what there is to be said
    metric: Metric, tried: Tried, path: str, predictor: Predict, *, entry: TraceEntry | None, format_failures: bool
) -> str | None:
    """Return one call of a predictor with what is to be said of it; `None` if there is nothing to learn for it.

    The feedback is the metric's; of one that gives none, the score and the example's labels. A metric with the
    parameters `pred_name` and `pred_trace` is asked for feedback on this call.

    Args:
        metric: The metric.
        tried: The example the call was made for.
        path: Where the predictor stands.
        predictor: The predictor.
        entry: The call; `None` if it came to none.
        format_failures: Whether an answer that did not fulfil the signature is told as a call too.

    Raises:
        Exception: What the metric raises when it is asked about a call.
    """
    if entry is None:
        error = tried.error
        if not (format_failures and isinstance(error, AdapterParseError) and _is_of(error, predictor, path, tried)):
            return None
        why = f"The answer could not be read: {error.detail or 'it lacks ' + ', '.join(error.missing)}"
        return _record(listed(tried.example.inputs()), told(error.text), why)
    words = tried.feedback
    if tried.prediction is not None and _takes_calls(metric):
        words = getattr(await _asked_about(metric, tried, path, entry), "feedback", "") or words
    if not words:
        words = "\n".join(part for part in (f"score {tried.score:g}", _wanted(tried)) if part)
    return _record(listed(entry.inputs), listed(outputs_of(entry)), words)


def _record(inputs: str, outputs: str, feedback: str) -> str:
    return f"## Inputs\n{inputs}\n## Outputs\n{outputs}\n## Feedback\n{feedback}"


def _wanted(tried: Tried) -> str:
    known = labels(tried)
    return f"the right answer:\n{listed(known)}" if known else ""


def _is_of(error: AdapterParseError, predictor: Predict, path: str, tried: Tried) -> bool:
    """Whether it was this predictor whose answer could not be read: its name, and no answer of it in the trace."""
    return error.signature == predictor.signature.__name__ and all(entry.path != path for entry in tried.trace)


def _takes_calls(metric: Metric) -> bool:
    try:
        parameters = inspect.signature(metric).parameters
    except (TypeError, ValueError):
        return False
    return {"pred_name", "pred_trace"} <= parameters.keys()


async def _asked_about(metric: Metric, tried: Tried, path: str, entry: TraceEntry) -> float:
    def about_it(example: Any, prediction: Any, trace: Any = None) -> Any:  # noqa: ARG001 - a metric
        asked: Any = metric
        return asked(example, prediction, trace=list(tried.trace), pred_name=path, pred_trace=[entry])

    assert tried.prediction is not None
    return await measure(about_it, tried.example, tried.prediction)


def trajectory(tried: Tried) -> str:
    """Return a whole run, for a reader: the calls of its predictors, the score, the feedback.

    Args:
        tried: The run.
    """
    calls = [f"## {entry.path}\n{listed(entry.inputs)}\n->\n{listed(outputs_of(entry))}" for entry in tried.trace]
    return "\n".join([*calls, f"## Score\n{tried.score:g}", *([told(tried.feedback)] if tried.feedback else [])])


def modules(program: Program) -> str:
    """Return the modules of a program for a reader: names, fields and instructions."""
    return "\n".join(
        f"## {path}\n{predictor.signature.signature}\n{predictor.signature.instructions}"
        for path, predictor in program.named_predictors()
    )


def in_one(records: Iterable[str]) -> str:
    """Return several calls as one text."""
    return "\n\n".join(f"# Call {number}\n{record}" for number, record in enumerate(records, 1))


def advised(program: Program, advice: Mapping[str, str]) -> dict[str, str]:
    """Return the instructions of the predictors that were advised, with the advice.

    Args:
        program: The program.
        advice: By path; other names are left out.
    """
    return {
        path: f"{predictor.signature.instructions}\n\n{advice[path].strip()}"
        for path, predictor in program.named_predictors()
        if advice.get(path, "").strip()
    }


def calls_of(tried: Tried, path: str) -> Sequence[TraceEntry]:
    """Return the calls of a predictor in a run."""
    return [entry for entry in tried.trace if entry.path == path]

"""What an evaluation may be told: every argument is checked before anything is started."""

from __future__ import annotations

import math
import os
from typing import Any, cast

from otpy.errors import EvaluationError

__all__ = ["check_arguments"]


def check_arguments(  # noqa: PLR0913 - those of `Evaluate`
    *,
    max_concurrency: Any,
    timeout: Any,
    max_failures: Any,
    failure_score: Any,
    on_failure: Any,
    n_runs: Any,
    isolation: Any,
    workers: Any,
    memory: Any,
    journal: Any,
    retry_failed: Any,
    keep: Any,
    display_progress: Any,
    on_progress: Any,
) -> None:
    """Refuse arguments of `Evaluate` that cannot be used, or would be of no use.

    Raises:
        EvaluationError: With the first such argument, its value, and what is allowed.
    """
    for name, value, ok, allowed in (
        ("max_concurrency", max_concurrency, _whole(max_concurrency), "an integer >= 1, or None"),
        ("timeout", timeout, timeout is None or (_number(timeout) and timeout > 0), "seconds > 0, or None"),
        ("max_failures", max_failures, _bound(max_failures), "an integer >= 0, a share between 0 and 1, or None"),
        ("failure_score", failure_score, _number(failure_score), "a finite number"),
        ("on_failure", on_failure, on_failure in {"score", "exclude", "raise"}, "'score', 'exclude' or 'raise'"),
        ("n_runs", n_runs, _integer(n_runs, 1), "an integer >= 1"),
        ("isolation", isolation, isolation in {"task", "thread", "process"}, "'task', 'thread' or 'process'"),
        ("workers", workers, _whole(workers), "an integer >= 1, or None"),
        ("workers", workers, workers is None or isolation != "task", "None; or isolation='thread' or 'process' too"),
        ("memory", memory, memory is None or isolation == "process", "None; or isolation='process' too"),
        ("journal", journal, journal is None or isinstance(journal, (str, os.PathLike)), "a path, or None"),
        ("retry_failed", retry_failed, retry_failed in {None, True, False}, "True, False or None"),
        ("retry_failed", retry_failed, retry_failed is None or journal is not None, "None; or a journal too"),
        ("keep", keep, keep in {None, "all", "failed"}, "'all', 'failed' or None"),
        ("display_progress", display_progress, isinstance(display_progress, bool), "True or False"),
        ("on_progress", on_progress, on_progress is None or callable(on_progress), "a function of one argument"),
    ):
        if not ok:
            raise EvaluationError(f"{name}={value!r}; allowed: {allowed}")


def _whole(value: object) -> bool:
    return value is None or _integer(value, 1)


def _integer(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _bound(value: object) -> bool:
    if value is None or _integer(value, 0):
        return True
    return _number(value) and 0 < cast("float", value) < 1

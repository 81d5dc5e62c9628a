"""How good is a program? Rows in, every row's fate out."""

from __future__ import annotations

from otpy.evaluate.comparison import Comparison, Flip
from otpy.evaluate.dataset import check_labels, iter_dataset, load_dataset
from otpy.evaluate.evaluate import Evaluate
from otpy.evaluate.journal import Journal, JournalError
from otpy.evaluate.journal_failures import RecordedFailure
from otpy.evaluate.keeper import ProcessCrashed
from otpy.evaluate.leakage import LeakReport, leaks
from otpy.evaluate.loading import load_result
from otpy.evaluate.metrics import Metric, check_metric, exact_match, f1, measure, metric_name
from otpy.evaluate.result import EvaluationResult
from otpy.evaluate.row import Failed, Row, Scored
from otpy.evaluate.rows import prepared
from otpy.evaluate.sampling import sample, split
from otpy.evaluate.score import Score
from otpy.evaluate.tally import Tally

__all__ = [
    "Comparison",
    "Evaluate",
    "EvaluationResult",
    "Failed",
    "Flip",
    "Journal",
    "JournalError",
    "LeakReport",
    "Metric",
    "ProcessCrashed",
    "RecordedFailure",
    "Row",
    "Score",
    "Scored",
    "Tally",
    "check_labels",
    "check_metric",
    "exact_match",
    "f1",
    "iter_dataset",
    "leaks",
    "load_dataset",
    "load_result",
    "measure",
    "metric_name",
    "prepared",
    "sample",
    "split",
]

"""On a scripted problem our GEPA does what the authors' package does, in no more measurements."""

from __future__ import annotations

import re
from statistics import mean

import pytest

from otpy.teleprompters.gepa import GEPA
from otpy.teleprompters.outcome import outcome_of
from tests.teleprompters.test_gepa import TRAIN, VAL, compiled, feedback, rewritten

reference = pytest.importorskip("gepa", reason="needs the extra: pip install otpy[gepa]")
BUDGET = 250
SEEDS = range(8)


def theirs(seed):
    """The package on the same rows, model and reflecting model; it returns scores of candidates and metric calls."""
    from gepa.core.adapter import EvaluationBatch

    class Adapter:
        def evaluate(self, batch, candidate, capture_traces=False):
            rules = re.findall(r"rule-(\w)", candidate["self"])
            kinds = [row.kind if row.kind in rules else "?" for row in batch]
            scores = [float(kind == row.kind) for kind, row in zip(kinds, batch, strict=True)]
            calls = [(row.word, kind, row.kind) for kind, row in zip(kinds, batch, strict=True)]
            return EvaluationBatch(kinds, scores, calls if capture_traces else None)

        def make_reflective_dataset(self, candidate, found, components):
            words = [
                f"## Inputs\nword: {word}\n## Outputs\nkind: {kind}\n## Feedback\n"
                + (f"needs rule-{wanted}" if kind != wanted else "score 1")
                for word, kind, wanted in found.trajectories
            ]
            return {"self": [{"words": text} for text in words]}

        def propose_new_texts(self, candidate, dataset, components):
            calls = "\n\n".join(row["words"] for row in dataset["self"])
            return {"self": rewritten(candidate["self"], calls)}

    class Silent:
        def log(self, message):
            pass

    perfect = []

    def stop(state):
        perfect[:] = [max(state.program_full_scores_val_set)] if state.program_full_scores_val_set else []
        return bool(perfect and perfect[0] >= 1)

    result = reference.optimize(
        {"self": "Sort the word."},
        TRAIN,
        VAL,
        adapter=Adapter(),
        reflection_minibatch_size=3,
        max_metric_calls=BUDGET,
        use_merge=True,
        seed=seed,
        stop_callbacks=[stop],
        logger=Silent(),
    )
    return max(result.val_aggregate_scores), result.total_metric_calls


def ours(seed):
    better, _ = compiled(GEPA(feedback, max_metric_calls=BUDGET, seed=seed))
    outcome = outcome_of(better)
    return outcome.score, outcome.candidates[-1].params["calls"]


def test_it_ends_at_the_same_score_in_about_as_many_measurements():
    both = [(ours(seed), theirs(seed)) for seed in SEEDS]
    assert [score for (score, _), _ in both] == [score for _, (score, _) in both] == [1.0] * len(SEEDS)
    assert mean(calls for (_, calls), _ in both) <= 1.25 * mean(calls for _, (_, calls) in both)

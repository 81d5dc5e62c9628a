"""Every optimizer with a task whose optimum is planted: what it is tried on, and the score it is to find."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import otpy
from otpy.teleprompters.gepa import GEPA
from otpy.teleprompters.simba import SIMBA
from otpy.testing import LoopbackLM
from tests.teleprompters import (
    planted,
    test_better_together,
    test_gepa,
    test_gepa_demos,
    test_infer_rules,
    test_instruction_search,
    test_knn_few_shot,
    test_optuna_search,
    test_random_search,
    test_simba,
)

__all__ = ["TASKS", "Task", "run"]


@dataclass(frozen=True)
class Task:
    """An optimizer on its task.

    Args:
        make: Makes the optimizer of a seed.
        script: Makes the model of a seed.
        student: The program.
        trainset: Examples to learn from.
        valset: Examples to choose by; those to measure by, if the optimizer has no use for some.
        metric: Measures.
        best: The planted score.
    """

    make: Any
    script: Any
    student: Any = planted.STUDENT
    trainset: Any = tuple(planted.TRAIN)
    valset: Any = tuple(planted.VAL)
    metric: Any = planted.METRIC
    best: float = 1.0


def always(script):
    return lambda seed: script


def of(module, make, script, **given):
    return Task(make, script, module.STUDENT, module.TRAIN, module.VAL, **given)


INSTRUCTIONS, BETTER = test_instruction_search, test_better_together
FEW = {"max_bootstrapped_demos": 14, "max_labeled_demos": 0, "max_concurrency": 4}
TASKS = {
    "LabeledFewShot": Task(lambda seed: otpy.LabeledFewShot(14, seed=seed), always(planted.needs("plum"))),
    "BootstrapFewShot": Task(
        lambda seed: otpy.BootstrapFewShot(planted.METRIC, seed=seed, **FEW), always(planted.needs("plum"))
    ),
    "BootstrapFewShotWithRandomSearch": Task(
        lambda seed: test_random_search.searching(seed=seed), always(test_random_search.SCRIPT)
    ),
    "BootstrapFewShotWithOptuna": Task(
        lambda seed: test_optuna_search.searching(seed=seed), always(test_optuna_search.SCRIPT)
    ),
    "KNNFewShot": Task(lambda seed: test_knn_few_shot.nearest(14, seed=seed), always(planted.needs("plum"))),
    "COPRO": of(INSTRUCTIONS, INSTRUCTIONS.copro, INSTRUCTIONS.Model, metric=INSTRUCTIONS.METRIC, best=0.75),
    "MIPROv2": of(INSTRUCTIONS, INSTRUCTIONS.mipro, INSTRUCTIONS.Model, metric=INSTRUCTIONS.METRIC),
    "SIMBA": of(
        test_simba,
        lambda seed: SIMBA(test_simba.metric, bsize=8, seed=seed),
        lambda seed: test_simba.Model(),
        metric=test_simba.metric,
    ),
    "GEPA": of(
        test_gepa,
        lambda seed: GEPA(test_gepa.feedback, max_metric_calls=300, seed=seed),
        always(test_gepa.model),
        metric=test_gepa.feedback,
    ),
    "GEPA of demos": Task(
        lambda seed: GEPA(test_gepa_demos.METRIC, max_metric_calls=200, evolve="demos", max_demos=8, seed=seed),
        always(test_gepa_demos.by_demos),
        test_gepa.STUDENT,
        test_gepa_demos.ROWS,
        test_gepa.VAL,
        test_gepa_demos.METRIC,
    ),
    "InferRules": Task(lambda seed: test_infer_rules.inferring(seed=seed), always(test_infer_rules.script)),
    "BetterTogether": Task(BETTER.chain, always(BETTER.both)),
}


def run(task, seed):
    """Run it: the score of what comes of it on the valset, its outcome, and its estimate."""
    optimizer = task.make(seed=seed)
    more = {"valset": task.valset} if optimizer.uses_valset else {}
    with LoopbackLM(task.script(seed)) as server:
        client = {"model": "openai/x", "base_url": server.url, "api_key": "none", "retry": {"max_attempts": 1}}
        client |= {"breaker": {"fail_max": 1000}, "max_concurrency": 64}
        with otpy.start(settings={"clients": {"default": client}, "cache": {"enabled": False}}):
            estimate = optimizer.estimate(task.student, trainset=task.trainset, **more)
            program = optimizer.compile(task.student, trainset=task.trainset, **more)
            outcome = otpy.outcome_of(program)
            score = outcome.score
            if score is None:
                rows = [row.with_inputs(*task.student.input_names) for row in task.valset]
                score = otpy.Evaluate(rows, metric=task.metric)(program).score
    return score, outcome, estimate

"""The embedded model learns by reward (GRPO): does the reward rise?

    python benchmarks/grpo.py --steps 20

A word is to be sorted, `word -> kind`, by a prompt with a few demos; the model writes freely, so an answer may be none
at all (-1), wrong (0) or right (1). For each seed it prints the mean reward of every step, that of the first five and
of the last five, and the seconds a step took, as JSON. Where the extra `train` or the weights are missing it says so,
and measures nothing.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import Any

import otpy
from otpy.errors import ModelNotAvailable
from otpy.telemetry import bus as telemetry
from otpy.teleprompters.grpo import COMPARED, GRPO
from otpy.teleprompters.outcome import outcome_of
from otpy.training.rewarded import RewardTrainer

BASE = "smollm2-135m"
KINDS = {
    "fruit": ("apple", "pear", "plum", "cherry", "mango", "grape", "peach", "lemon"),
    "tool": ("hammer", "saw", "axe", "drill", "wrench", "chisel", "pliers", "spade"),
}


def once(seed: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """Train once, and return what came of it."""
    rows = [
        otpy.Example(word=word, kind=kind)
        for pair in zip(*([(word, kind) for word in words] for kind, words in KINDS.items()), strict=True)
        for word, kind in pair
    ]
    demos, train, dev = rows[:2], rows[2:10], rows[10:]
    rewards: list[float] = []

    def heard(_: str, fields: dict[str, Any]) -> None:
        if fields["what"] == "training":
            rewards.append(fields["reward"])
            print(f"step {fields['step']} of {fields['steps']}: {rewards[-1]:.3f}", file=sys.stderr, flush=True)

    grpo = GRPO[otpy.Predict](
        otpy.exact_match("kind"),
        num_train_steps=arguments.steps,
        num_rollouts_per_grpo_step=arguments.rollouts,
        exclude_demos=False,
        learning_rate=arguments.learning_rate,
        max_tokens=12,
        seed=seed,
    )
    began = time.perf_counter()
    with (
        otpy.start(lm=f"local/{BASE}", temperature=0, cache=False),
        telemetry.attached("benchmark", heard, "otpy.teleprompter.training"),
    ):
        student = otpy.Predict("word -> kind: Literal['fruit', 'tool']", demos=demos)
        better = grpo.compile(student, trainset=train, valset=dev)
    outcome = outcome_of(better)
    assert outcome is not None
    (trained,) = (one for one in outcome.candidates if one.name == "trained")
    curve: list[float] = trained.params["rewards"]
    several = min(COMPARED, len(curve) // 2) or 1
    return {
        "seed": seed,
        "model": trained.params["model"],
        "first": round(sum(curve[:several]) / several, 3),
        "last": round(sum(curve[-several:]) / several, 3),
        "curve": [round(reward, 3) for reward in curve],
        "score_before": None if outcome.student is None else outcome.student.score,
        "score_after": trained.score,
        "seconds": round(time.perf_counter() - began, 1),
        "steps_in_one_go": len(rewards),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rollouts", type=int, default=8)
    parser.add_argument("--learning-rate", type=float, default=5e-4)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    arguments = parser.parse_args()
    try:
        RewardTrainer(BASE).check()
    except ModelNotAvailable as error:
        print(json.dumps({"skipped": str(error)}))
        return
    runs = [once(seed, arguments) for seed in arguments.seeds]
    print(json.dumps({"rises": all(run["last"] > run["first"] for run in runs), "runs": runs}, indent=1))


if __name__ == "__main__":
    main()

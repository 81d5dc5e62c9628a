"""Intent classification with the embedded model, before and after its weights have learned the training rows (LoRA).

    python benchmarks/finetune.py --train banking_train.jsonl --dev banking_dev.jsonl

Rows are `{"query", "intent"}`: six intents of BANKING77 (Casanueva et al. 2020). The same prompt before and after,
without demos, held to the signature's JSON schema, temperature 0, no cache. Prints one JSON object: the score on the
dev rows before and after with the paired comparison, the losses, and the time the training took. Where the extra
`train`, the weights or the rows are missing it says so, and measures nothing.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import otpy
from otpy.clients import models
from otpy.errors import ModelNotAvailable
from otpy.evaluate import load_dataset
from otpy.evaluate.statistics import paired
from otpy.telemetry import bus as telemetry
from otpy.teleprompters.bootstrap_finetune import BootstrapFinetune
from otpy.training.local import check_extra

BASE = "smollm2-135m"


def missing(arguments: argparse.Namespace) -> str | None:
    """Why nothing can be measured here, if so."""
    for file in (arguments.train, arguments.dev):
        if not file.exists():
            return f"no rows: {file} is not here"
    try:
        check_extra(BASE)
        models.server_command(BASE, parallel=1)
    except ModelNotAvailable as error:
        return str(error)
    return None


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--train", type=Path, default=Path("../shared/data/banking_train.jsonl"))
    parser.add_argument("--dev", type=Path, default=Path("../shared/data/banking_dev.jsonl"))
    parser.add_argument("--rows", type=int, default=300, help="training rows to learn, at most")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--learning-rate", type=float, default=5e-4)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    why = missing(arguments)
    if why is not None:
        json.dump({"skipped": why}, sys.stdout)
        print()
        return
    train = load_dataset(arguments.train, inputs=["query"], required=["intent"])[: arguments.rows]
    dev = load_dataset(arguments.dev, inputs=["query"], required=["intent"])
    labels = sorted({row.intent for row in train})
    signature = otpy.Signature(
        f"query: str -> intent: Literal[{', '.join(map(repr, labels))}]", "Classify the customer's banking query."
    )
    evaluate = otpy.Evaluate(dev, metric=otpy.exact_match("intent"), display_progress=True)
    finetune = BootstrapFinetune[otpy.Predict](
        epochs=arguments.epochs, rank=arguments.rank, learning_rate=arguments.learning_rate, seed=arguments.seed
    )
    losses: list[float] = []

    def heard(_: str, fields: dict[str, Any]) -> None:
        if fields["what"] == "training":
            losses.append(fields["loss"])
            print(f"step {fields['step']} of {fields['steps']}, loss {losses[-1]:.3f}", file=sys.stderr, flush=True)

    with otpy.start(lm=f"local/{BASE}", temperature=0, cache=False):
        program = otpy.Predict(signature)
        before = evaluate(program)
        began = time.perf_counter()
        with telemetry.attached("benchmark", heard, "otpy.teleprompter.training"):
            better = finetune.compile(program, trainset=train)
        seconds = time.perf_counter() - began
        after = evaluate(better)
    found = paired(*([getattr(row, "score", 0.0) for row in one.rows] for one in (after, before)))
    report = {
        "model": f"local/{BASE}",
        "trained": better.client,
        "train": len(train),
        "dev": len(dev),
        "epochs": arguments.epochs,
        "before": round(before.score, 4),
        "after": round(after.score, 4),
        "difference": round(found.difference, 4),
        "p_value": found.p_value,
        "failed": [len(before.failed), len(after.failed)],
        "training_seconds": round(seconds, 1),
        "steps": len(losses),
        "loss_first_and_last_5": [round(sum(part) / len(part), 4) for part in (losses[:5], losses[-5:]) if part],
    }
    json.dump(report, sys.stdout, indent=2)
    print()


if __name__ == "__main__":
    main()

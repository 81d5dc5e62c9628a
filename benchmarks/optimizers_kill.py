"""How often `kill -9` changes what an optimization ends in, or has it ask again what was answered: never, it should be.

    python benchmarks/optimizers_kill.py BootstrapFewShot MIPROv2 GEPA --kills 20

Each optimizer runs once undisturbed, then again and again with a kill after a random number of requests, on one journal
until it has been killed often enough or comes to its end; then a new journal is begun. The model is a scripted server.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from otpy.testing import FakeProvider
from tests.survival.test_optimization_kill import Model, finished, kept, killed, same


def measured(name: str, kills: int, seed: int) -> dict[str, object]:
    """Kill one optimizer so often, and tell what came of it."""
    model, chance, began = Model(), random.Random(seed), time.perf_counter()
    identical = runs = done = again = 0
    with tempfile.TemporaryDirectory() as directory, FakeProvider(model, keep=1) as provider:
        undisturbed = finished(name, Path(directory) / "undisturbed", provider)
        requests = sum(model.begun.values())
        while done < kills:
            runs += 1
            journal = Path(directory) / f"journal-{runs}"
            model.begun.clear()
            while done < kills and (not journal.exists() or kept(journal) < requests - 8):
                left = requests - (kept(journal) if journal.exists() else 0)
                killed(name, journal, provider, chance.randrange(1, max(2, left // 2)))
                done += 1
                if chance.random() < 0.3:  # not every run is killed to its end
                    break
            in_flight = sum(model.begun.values()) - kept(journal)
            identical += same(finished(name, journal, provider), undisturbed)
            again += sum(model.begun.values()) - len(model.begun) - in_flight
    return {
        "requests": requests,
        "kills": done,
        "identical": f"{identical} of {runs}",
        "asked again": max(again, 0),
        "seconds": round(time.perf_counter() - began),
    }


def main() -> None:
    """Print a row for each optimizer."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("optimizers", nargs="*", default=["BootstrapFewShot"])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    for name in arguments.optimizers:
        found = measured(name, arguments.kills, arguments.seed)
        print(name, "  ".join(f"{what}: {value}" for what, value in found.items()), flush=True)


if __name__ == "__main__":
    main()

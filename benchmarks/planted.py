"""How often each optimizer finds what was planted, and whether it takes as many requests as it says.

    python benchmarks/planted.py --seeds 50

The model is a scripted server whose accuracy is a known function of instruction and demos. Ends with 1 if an optimizer
finds the optimum for fewer than nine seeds of ten, or makes more or fewer requests than it has stated.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.teleprompters.tasks import TASKS, run


def measured(name: str, seeds: int) -> tuple[str, bool]:
    """Run one optimizer with so many seeds, and tell what came of it, in a line."""
    began, found, requests, stated, inside = time.perf_counter(), 0, [], "", True
    for seed in range(seeds):
        score, outcome, estimate = run(TASKS[name], seed)
        low, high = estimate.requests
        found += score == TASKS[name].best
        requests.append(outcome.requests)
        stated, inside = f"{low} to {high}", inside and low <= outcome.requests <= (high or outcome.requests)
    took = f"{min(requests)} to {max(requests)}"
    good = inside and found >= 0.9 * seeds
    line = f"{name:<34}{found:>4} of {seeds:<4}{took:>14}{stated:>16}  {'yes' if inside else 'NO':<4}"
    return f"{line}{time.perf_counter() - began:>8.1f} s", good


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(TASKS)}; by default all")
    parser.add_argument("--seeds", type=int, default=50)
    asked = parser.parse_args()
    if unknown := [name for name in asked.names if name not in TASKS]:
        parser.error(f"no optimizer {unknown[0]!r}; there are {', '.join(TASKS)}")
    if asked.seeds < 1:
        parser.error(f"--seeds {asked.seeds}; allowed: 1 or more")
    print(f"{'optimizer':<34}{'found':>6}      {'requests':>14}{'stated':>16}  in  {'time':>9}")
    good = True
    for name in asked.names or TASKS:
        line, fine = measured(name, asked.seeds)
        print(line, flush=True)
        good = good and fine
    sys.exit(not good)


if __name__ == "__main__":
    main()

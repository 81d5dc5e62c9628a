"""What `isolation="process"` costs: the start of a worker, a row, a crash; and what 1,000 rows with crashes come to.

    python benchmarks/isolation.py --json

The program does nothing, so all that is measured is ours. The crashes of the last part are `os._exit`, `os.abort` and
memory without end, and every one has to cost its own row and no other.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import time
from collections import Counter
from typing import Any, Never

import otpy
from otpy.evaluate.isolation import Isolated
from otpy.evaluate.row import Failed, Scored
from otpy.evaluate.threaded import InThreads

CRASHES = ("exit", "abort", "memory")


class Instant(otpy.Program):
    """Answers at once, or crashes."""

    async def forward(self, act: str) -> otpy.Prediction:
        """Do as the row says."""
        if act == "exit":
            os._exit(3)
        if act == "abort":
            os.abort()
        if act == "memory":
            _allocate()
        return otpy.Prediction(act=act)


def _allocate() -> Never:
    held: list[bytearray] = []
    while True:
        held.append(bytearray(1 << 24))


def row(act: str = "fine") -> otpy.Example:
    """Return a row that does this."""
    return otpy.Example(act=act).with_inputs("act")


async def every(pool: Any, rows: list[otpy.Example]) -> tuple[float, list[Any]]:
    """Evaluate rows, all waiting at once; returns the seconds it took, and the fates."""
    began = time.perf_counter()
    fates = await asyncio.gather(*(pool.evaluate(index, example, 60.0) for index, example in enumerate(rows)))
    return time.perf_counter() - began, fates


async def measure(workers: int, rows: int, crashes: int, memory: int) -> dict[str, Any]:
    """Measure all of it."""
    program, metric = Instant(), otpy.exact_match("act")
    found: dict[str, Any] = {"workers": workers, "memory_mib": memory}
    async with otpy.start(lm="openai/none", base_url="http://127.0.0.1:9/v1", api_key="none", cache=False):
        began = time.perf_counter()
        async with Isolated(program, metric, 1, memory) as pool:
            found["start_ms"] = round(1e3 * (time.perf_counter() - began))
            for act in CRASHES:
                took = []
                for index in range(crashes):
                    began = time.perf_counter()
                    await pool.evaluate(index, row(act))
                    await pool.evaluate(index, row())
                    took.append(time.perf_counter() - began)
                found[f"crash_ms_{act}"] = round(1e3 * statistics.median(took))
        async with Isolated(program, metric, workers, memory) as pool:
            await every(pool, [row()] * 100)
            seconds, _ = await every(pool, [row()] * rows)
            found["rows_per_second"] = round(rows / seconds)
            acts = ["fine"] * 1000
            acts[::50] = [CRASHES[n % 3] for n in range(20)]
            seconds, fates = await every(pool, list(map(row, acts)))
            found["with_20_crashes_in_1000"] = {
                "seconds": round(seconds, 2),
                "failed_as": dict(Counter(fate.kind for fate in fates if isinstance(fate, Failed))),
                "only_their_own_rows": [isinstance(fate, Scored) for fate in fates] == [act == "fine" for act in acts],
            }
        async with InThreads(program, metric) as threads:
            seconds, _ = await every(threads, [row()] * rows)
            found["rows_per_second_in_threads"] = round(rows / seconds)
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--rows", type=int, default=5000)
    parser.add_argument("--crashes", type=int, default=5, help="of each kind, one after the other")
    parser.add_argument("--memory", type=int, default=512, help="MiB of a worker")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    found = asyncio.run(measure(options.workers, options.rows, options.crashes, options.memory))
    if options.json:
        print(json.dumps(found, indent=2))
        return
    for name, value in found.items():
        print(f"{name:28} {value}")


if __name__ == "__main__":
    main()

"""How long `import otpy` takes: the median over fresh interpreters, their own start not counted.

Run it: `python benchmarks/import_time.py --json`
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys

CLOCKED = "import time; t = time.perf_counter(); import {module}; print(time.perf_counter() - t)"


def seconds(module: str) -> float:
    """Import a module in a fresh interpreter and return how long that took there, in seconds."""
    ran = subprocess.run(
        [sys.executable, "-c", CLOCKED.format(module=module)], capture_output=True, text=True, check=True
    )
    return float(ran.stdout)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--module", default="otpy", help="what to import (default: otpy)")
    parser.add_argument("--runs", type=int, default=20, help="fresh interpreters (default: 20)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    asked = parser.parse_args()

    seconds(asked.module)  # the first run writes bytecode, which users have
    runs = sorted(seconds(asked.module) for _ in range(asked.runs))
    result = {
        "benchmark": "import_time",
        "module": asked.module,
        "runs": asked.runs,
        "median_seconds": statistics.median(runs),
        "min_seconds": runs[0],
        "max_seconds": runs[-1],
        "limit_seconds": 0.15,
    }
    if asked.json:
        print(json.dumps(result))
    else:
        median = statistics.median(runs) * 1000
        print(f"import {asked.module}: median {median:.1f} ms of {asked.runs} runs (limit 150 ms)")


if __name__ == "__main__":
    main()

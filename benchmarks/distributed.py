"""Many nodes against one: how much of what each could do is left, and what a killed node costs.

    python benchmarks/distributed.py --nodes 2 4 8 --json

Starts a Ray cluster on this machine with so many nodes (each its own raylet, its own process and its own otpy tree) and
evaluates rows that sleep 200 ms, 50 in flight a node, as many for each node as for the one. Efficiency is the rate of n
nodes divided by n times the rate of one, from the moment at which all nodes take part to the last row. With `--kill`
also kills one node halfway. Needs the extra `ray`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import sys
import threading
import time
from typing import Any

import otpy
from otpy.integrations.ray_nodes import run_distributed
from otpy.telemetry import bus

SECONDS, IN_FLIGHT = 0.2, 50
STORE = 80_000_000  # bytes; rows are small


class Sleeps(otpy.Program):
    """Takes as long as a model would."""

    async def forward(self, question: str) -> otpy.Prediction:
        """Sleep and answer."""
        await asyncio.sleep(SECONDS)
        return otpy.Prediction(answer=question)


def exact(example: otpy.Example, prediction: otpy.Prediction, trace: Any = None) -> bool:  # noqa: ARG001 - a metric
    """Compare."""
    return bool(example.answer == prediction.answer)


def rows(count: int) -> list[otpy.Example]:
    """Every third one is answered wrongly."""
    return [otpy.Example(question=str(n), answer=str(n) if n % 3 else "another") for n in range(count)]


def cluster(nodes: int) -> Any:
    """Start a cluster, and connect to it."""
    import ray
    from ray.cluster_utils import Cluster

    there = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 1, "include_dashboard": False, "object_store_memory": STORE},
    )
    for _ in range(nodes - 1):
        there.add_node(num_cpus=1, object_store_memory=STORE)
    ray.init(address=there.address, logging_level="ERROR", log_to_driver=False)
    return there


def measured(nodes: int, each: int, *, kill: bool = False) -> dict[str, Any]:
    """Evaluate on so many nodes, all of them started before the clock is."""
    import ray

    there, devset = cluster(nodes), rows(nodes * each)
    moments: list[float] = []
    joined: list[float] = []
    lost: list[float] = []
    halfway = threading.Event()

    def hear(event: str, fields: dict[str, Any]) -> None:
        now = time.perf_counter()
        if event == "otpy.evaluate.row":
            moments.append(now)
            if len(moments) == len(devset) // 2:
                halfway.set()
        elif event == "otpy.evaluate.node":
            (joined if fields["event"] == "joined" else lost).append(now)

    def strike() -> None:
        halfway.wait()
        there.remove_node(next(iter(there.worker_nodes)), allow_graceful=False)

    striking = threading.Thread(target=strike, daemon=True)
    bus.attach("benchmark", hear, "otpy.evaluate.")
    began = time.perf_counter()
    if kill:
        striking.start()
    try:
        with otpy.start(lm="openai/none", api_key="none", base_url="http://127.0.0.1:1/v1", cache=False):
            result = run_distributed(Sleeps(), devset, exact, max_concurrency=IN_FLIGHT)
    finally:
        bus.detach("benchmark")
        ray.shutdown()
        there.shutdown()
    ready = sorted(joined)[nodes - 1]
    since = [moment for moment in moments if moment > ready]
    return {
        "nodes": nodes,
        "rows": len(devset),
        "rate": len(since) / (since[-1] - ready),
        "seconds_from_all_nodes": since[-1] - ready,
        "seconds_with_their_start": moments[-1] - began,
        "lost_nodes": len(lost),
        "complete": result.complete and [row.index for row in result.rows] == list(range(len(devset))),
        "failed": len(result.failed),
        "score": result.score,
        "summary": result.summary().replace(f"{result.seconds:.1f} s", "").strip(),
    }


def at_home(count: int) -> dict[str, Any]:
    """Evaluate the same rows without Ray."""
    with otpy.start(lm="openai/none", api_key="none", base_url="http://127.0.0.1:1/v1", cache=False):
        result = otpy.Evaluate(rows(count), metric=exact, max_concurrency=IN_FLIGHT * 8)(Sleeps())
    return {"summary": result.summary().replace(f"{result.seconds:.1f} s", "").strip(), "score": result.score}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nodes", type=int, nargs="+", default=[2, 4, 8])
    parser.add_argument("--rows", type=int, default=5_000, help="rows for each node")
    parser.add_argument("--kill", action="store_true", help="kill one of two nodes halfway too")
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    with contextlib.redirect_stdout(sys.stderr):  # where Ray may say what it likes
        report = compared(chosen.nodes, chosen.rows, kill=chosen.kill)
    if chosen.json:
        print(json.dumps(report, indent=2))
        return
    for run in [*report["runs"], *([report["killed"]] if chosen.kill else [])]:
        words = f"{run['efficiency']:.3f} efficiency" if "efficiency" in run else "one of them killed halfway"
        print(
            f"{run['nodes']} nodes: {run['rows']:,} rows, {run['rate']:,.0f} rows/s, {words},"
            f" {run['seconds_from_all_nodes']:.1f} s, complete: {run['complete']}, {run['failed']} failed"
        )


def compared(numbers: list[int], each: int, *, kill: bool) -> dict[str, Any]:
    """Evaluate on one node and on so many others."""
    one = measured(1, each)
    found = [{**one, "efficiency": 1.0}]
    for nodes in numbers:
        many = measured(nodes, each)
        many["efficiency"] = many["rate"] / (nodes * one["rate"])
        many["summary_is_the_local_one"] = many["summary"] == at_home(many["rows"])["summary"]
        found.append(many)
    report: dict[str, Any] = {"in_flight": IN_FLIGHT, "row_seconds": SECONDS, "runs": found}
    if kill:
        report["killed"] = measured(2, each, kill=True)
    return report


if __name__ == "__main__":
    main()

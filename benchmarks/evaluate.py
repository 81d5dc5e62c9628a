"""Evaluation at 10,000 in flight against the bare HTTP client in the same run; with faulty rows; over a million rows.

    python benchmarks/evaluate.py --json

`clean`: 20,000 rows of `Predict("question -> answer")`, exact match, 1 s latency, cache off, breaker and limiter on.
The floor is so many bare POSTs by pyreqwest (`http_floor.py`), the server a stub in its own process (`lm_stub.py`).
`faults`: the same with 1 % of rows in each of: the program raises, the metric raises, it hangs past its deadline, the
connection is dropped, the answer is garbage. `million`: rows from a generator through a program without a model; how
much memory grows beyond the first 10,000.

Every measurement is a process of its own. The floor needs `pip install pyreqwest`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import resource
import statistics
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import otpy
from otpy.actors import new_event_loop

if TYPE_CHECKING:
    from collections.abc import Coroutine, Generator, Iterator

ROWS, IN_FLIGHT, LATENCY = 20_000, 10_000, 1.0
DEADLINE = 10.0
"""Seconds a row may take in `faults`: three times what an answer takes at this load, as some are lost twice."""
FAULTS = 100
"""One row in so many for each kind of fault."""
MILLION = 1_000_000


class Faulty(otpy.Program):
    """Asks, unless it is told to raise or to hang."""

    ask: otpy.Predict

    def __init__(self) -> None:
        """Have one predictor."""
        self.ask = otpy.Predict("question -> answer")

    @property
    def input_names(self) -> tuple[str, ...]:
        """The question."""
        return ("question",)

    async def forward(self, question: str) -> otpy.Prediction:
        """Ask."""
        number = int(question.split()[1])
        if number % FAULTS == 1:
            raise RuntimeError("scripted")
        if number % FAULTS == 3:
            await asyncio.sleep(3600)
        return await self.ask.acall(question=question)


class Instant(otpy.Program):
    """Answers by itself."""

    def __init__(self) -> None:
        """Have nothing."""

    @property
    def input_names(self) -> tuple[str, ...]:
        """The number."""
        return ("n",)

    async def forward(self, n: int) -> otpy.Prediction:
        """Answer."""
        return otpy.Prediction(answer=n)


def picky(example: otpy.Example, prediction: otpy.Prediction, trace: object = None) -> bool:  # noqa: ARG001 - a metric
    """Be right or wrong, or raise."""
    if int(example["question"].split()[1]) % FAULTS == 2:
        raise ValueError("scripted")
    return bool(example["answer"] == prediction["answer"])


picky.quick = True  # type: ignore[attr-defined]  # it needs no thread


def devset(rows: int) -> list[otpy.Example]:
    """Rows with questions of the length that the floor's have."""
    filler = "What is the capital of France? " * 4
    return [otpy.Example(question=f"Number {n} {filler}", answer="Paris") for n in range(rows)]


def started(url: str) -> otpy.Application:
    """An application with one client, everything on but the cache."""
    client = {"model": "acme/stub", "base_url": url, "breaker": {"fail_max": 1_000}}
    return otpy.start(settings={"clients": {"default": client}, "cache": {"enabled": False}})


async def clean(url: str, rows: int, in_flight: int) -> dict[str, Any]:
    """Evaluate without faults."""
    async with started(url):
        evaluate = otpy.Evaluate(devset(rows), metric=otpy.exact_match("answer"), max_concurrency=in_flight)
        began, cpu = time.perf_counter(), time.process_time()
        result = await evaluate.acall(otpy.Predict("question -> answer"))
        wall = time.perf_counter() - began
    return {
        "wall_s": wall,
        "cpu_us_per_row": (time.process_time() - cpu) / rows * 1e6,
        "score": result.score,
        "failed": len(result.failed),
    }


async def faults(url: str, rows: int, in_flight: int) -> dict[str, Any]:
    """Evaluate with faults, and compare every row's fate with what was scripted."""
    wrong, late, fates = 0, list[float](), Counter[str]()
    async with started(url):
        evaluate = otpy.Evaluate(devset(rows), metric=picky, max_concurrency=in_flight, timeout=DEADLINE)
        began = time.perf_counter()
        async with aclosing(evaluate.stream(Faulty())) as stream:
            async for row in stream:
                fate = "scored" if isinstance(row, otpy.Scored) else f"{row.where}: {row.kind}"
                expected = {
                    1: "program: RuntimeError",
                    2: "metric: ValueError",
                    3: "task: timeout",
                }.get(row.index % FAULTS, "scored")
                fates[fate] += 1
                wrong += fate != expected
                if fate == "task: timeout":
                    late.append(row.seconds - DEADLINE)
        wall = time.perf_counter() - began
    return {"wall_s": wall, "wrong": wrong, "fates": dict(fates), "killed_late_s": max(late)}


async def million(_: str, rows: int, in_flight: int) -> dict[str, Any]:
    """Evaluate rows from a generator."""
    grown = {}

    def rss() -> float:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        return pages * resource.getpagesize() / 2**20

    def source() -> Iterator[dict[str, int]]:
        for n in range(rows):
            if n in {10_000, rows - 1} or n % 100_000 == 99_999:
                grown[n] = rss()
            yield {"n": n, "answer": n}

    async with otpy.start(settings={"clients": {}}):
        began = time.perf_counter()
        result = await otpy.Evaluate(source(), metric=otpy.exact_match("answer"), max_concurrency=in_flight).acall(
            Instant()
        )
        wall = time.perf_counter() - began
    assert result.score == 1.0, result
    return {"wall_s": wall, "rows_per_s": rows / wall, "grown_mb": max(grown.values()) - grown[10_000]}


CHILDREN = {"clean": clean, "faults": faults, "million": million}


def child(what: str, url: str, rows: int, in_flight: int) -> None:
    """Measure one thing, and print it."""
    run: Coroutine[Any, Any, dict[str, Any]] = CHILDREN[what](url, rows, in_flight)
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        found = runner.run(run)
    found["rss_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps(found))


@contextlib.contextmanager
def stub(yardstick: Path) -> Generator[str]:
    """Run the server."""
    command = [sys.executable, str(yardstick / "lm_stub.py"), "--port", "0", "--latency", str(LATENCY)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield server.stdout.readline().split()[-1]
        finally:
            server.terminate()


def said(url: str, path: str, body: object = None) -> dict[str, Any]:
    """Ask the server how it was, or tell it how to be."""
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(url.removesuffix("/v1") + path, data, timeout=30) as answer:
        return dict(json.load(answer))


def measured(*command: str) -> dict[str, Any]:
    """Run a command that prints one JSON object."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)}: {done.stderr[-2000:]}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def main() -> None:  # noqa: C901 - one thing after the other
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "what", nargs="*", default=["clean", "faults", "million"], help="clean, faults, million (default: all)"
    )
    parser.add_argument(
        "--rounds", type=int, default=3, help="rounds of `clean`, each with a floor (default: %(default)s)"
    )
    parser.add_argument("--rows", type=int, default=ROWS, help="rows of `clean` and `faults` (default: %(default)s)")
    parser.add_argument("--in-flight", type=int, default=IN_FLIGHT, help="rows at the same time (default: %(default)s)")
    parser.add_argument("--yardstick", type=Path, default=Path("../shared/yardstick"), help="where stub and floor are")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.child:
        child(asked.child[0], asked.child[1], asked.rows, asked.in_flight)
        return
    unknown = set(asked.what) - CHILDREN.keys()
    if unknown:
        parser.error(f"{', '.join(sorted(unknown))}: there are {', '.join(CHILDREN)}")
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard < asked.in_flight + 100:
        sys.exit(
            f"{hard} descriptors are allowed, {asked.in_flight + 100} needed: --in-flight {hard - 100}, or ulimit -n"
        )
    rows, many = str(asked.rows), str(asked.in_flight)

    def ours(what: str, url: str, *more: str) -> dict[str, Any]:
        return measured(sys.executable, __file__, "--child", what, url, "--rows", rows, "--in-flight", many, *more)

    result: dict[str, Any] = {
        "benchmark": "evaluate",
        "rows": asked.rows,
        "in_flight": asked.in_flight,
        "cores": os.cpu_count(),
    }
    with stub(asked.yardstick) as url:
        if "clean" in asked.what or "faults" in asked.what:
            rounds = []
            for _ in range(asked.rounds):
                bare = str(asked.yardstick / "http_floor.py")
                floor = measured(sys.executable, bare, "--url", f"{url}/chat/completions", "-n", rows, "-c", many)
                said(url, "/stats")
                found = ours("clean", url)
                rounds.append({"floor": floor, "ours": found, "server": said(url, "/stats")})
            ratios = [one["ours"]["wall_s"] / one["floor"]["wall_s"] for one in rounds]
            result["clean"] = {
                "floor_s": statistics.median(one["floor"]["wall_s"] for one in rounds),
                "ours_s": statistics.median(one["ours"]["wall_s"] for one in rounds),
                "ratio": statistics.median(ratios),
                "peak_in_flight": min(one["server"]["peak_in_flight"] for one in rounds),
                "floor_rss_mb": statistics.median(one["floor"]["peak_rss_mb"] for one in rounds),
                "rss_mb": statistics.median(one["ours"]["rss_mb"] for one in rounds),
                "rss_ratio": statistics.median(one["ours"]["rss_mb"] / one["floor"]["peak_rss_mb"] for one in rounds),
                "cpu_us_per_row": statistics.median(one["ours"]["cpu_us_per_row"] for one in rounds),
                "failed": max(one["ours"]["failed"] for one in rounds),
            }
        if "faults" in asked.what:
            said(url, "/admin", {"drop_rate": 1 / FAULTS, "garbage_rate": 1 / FAULTS, "seed": 1})
            found = ours("faults", url)
            found["bound_s"] = 1.25 * result["clean"]["ours_s"] + DEADLINE
            result["faults"] = {**found, "server": said(url, "/stats")["kinds"]}
    if "million" in asked.what:
        result["million"] = measured(
            sys.executable, __file__, "--child", "million", "-", "--rows", str(MILLION), "--in-flight", "1000"
        )
    if asked.json:
        print(json.dumps(result))
        return
    for name, value in result.items():
        for inner, figure in value.items() if isinstance(value, dict) else [("", value)]:
            print(
                f"{name:10} {inner:16} {figure:,.3f}" if isinstance(figure, float) else f"{name:10} {inner:16} {figure}"
            )


if __name__ == "__main__":
    main()

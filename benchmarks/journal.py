"""An evaluation with a journal is killed with -9 at random moments; the same call then ends in the same result.

    python benchmarks/journal.py --json
    python benchmarks/journal.py --stub lm_stub.py

Every kill is a run of its own, with a new journal: it is begun, killed, and begun again. Shown are, for each:

* on_disk: rows in the journal after the kill. Those that were reported before are among them;
* in_flight: requests that had no row on disk at the kill, which are the only ones that are asked a second time: the
  server has seen every distinct request body, and in all as many requests as rows and these;
* identical: whether the rows of the resumed run are those of a run that nobody has killed.

Then what a journal costs: a run with one and without; and, with no model at all, time and memory a row.

The server is a process of its own: otpy's fake provider, or a script given by `--stub` that takes `--port`, `--latency`
and `--content`, says its address in its first line, and counts `requests` and distinct bodies (`seen`) under `/stats`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import otpy
from otpy.evaluate import Scored
from otpy.evaluate.journal import Journal
from otpy.lm import Usage

if TYPE_CHECKING:
    from collections.abc import Generator

SERVER = """
import json, sys
from otpy.testing import FakeProvider, Say
bodies, before = set(), 0
def script(request):
    bodies.add(json.dumps(request.body, sort_keys=True))
    return Say(sys.argv[2], delay=float(sys.argv[1]))
with FakeProvider(script, keep=1) as fake:
    print(fake.url("openai_chat"), flush=True)
    for _ in sys.stdin:
        fake.wait_for(lambda counts: not counts.in_flight)
        requests = fake.counts.requests
        print(json.dumps({"requests": requests - before, "seen": len(bodies)}), flush=True)
        before = requests
        bodies.clear()
"""
MEMORY = """
import os, sys
from pathlib import Path
from otpy.evaluate.journal import Journal
from otpy.programs import Predict
def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
program = Predict("question -> answer")
before = resident()
journal = Journal(sys.argv[1], program=program, metric_name="m")
print((resident() - before) / journal.count)
"""
ANSWER = '{"answer": "Paris"}'
PROGRAM = otpy.Predict("question -> answer")


def devset(count: int) -> list[otpy.Example]:
    """Return examples of which every other one is answered rightly."""
    return [
        otpy.Example(question=f"What is the capital of country {n}?", answer="Paris" if n % 2 else "Rome").with_inputs(
            "question"
        )
        for n in range(count)
    ]


# -- the process that is killed ------------------------------------------------------------------------------------


def tell(word: str, what: object) -> None:
    """Say something by a write of its own, so that it is said even if this process is killed next."""
    os.write(1, f"{word} {json.dumps(what)}\n".encode())


def on_disk(path: str) -> list[int]:
    """Return the indices of the rows in a journal."""
    if not path or not Path(path).exists():
        return []
    lines = Path(path).read_bytes().splitlines(keepends=True)[1:]
    return sorted(json.loads(line)["index"] for line in lines if line.endswith(b"}\n"))


async def evaluate(path: str, url: str, count: int, concurrency: int) -> None:
    """Evaluate with a journal, or without if there is no path, and tell what happens."""
    settings = {
        "clients": {"default": {"model": "acme/m", "base_url": url, "api_key": "none"}},
        "cache": {"enabled": False},
    }
    found = on_disk(path)
    async with otpy.start(settings=settings):
        measured = otpy.Evaluate(
            devset(count), metric=otpy.exact_match("answer"), max_concurrency=concurrency, journal=path or None
        )
        tell("found", found)
        began, rows = time.perf_counter(), list[list[Any]]()
        async with contextlib.aclosing(measured.stream(PROGRAM)) as stream:
            async for row in stream:
                assert isinstance(row, Scored), row
                tell("reported", row.index)
                rows.append([row.index, row.prediction.answer, row.score])
        tell("seconds", time.perf_counter() - began)
        tell("rows", sorted(rows))


class Worker:
    """A process that evaluates.

    Args:
        options: The options of this script.
        path: Its journal.
        url: Of the server.
    """

    def __init__(self, options: argparse.Namespace, path: Path | str, url: str) -> None:
        """Start it, and wait until it begins to ask."""
        command = [sys.executable, __file__, "--worker", str(path), url]
        command += ["--rows", str(options.rows), "--concurrency", str(options.concurrency)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert self.process.stdout is not None
        self.out = self.process.stdout
        self.found: list[int] = self._said()[1]

    def _said(self) -> tuple[str, Any]:
        word, _, what = self.out.readline().decode().partition(" ")
        if not what:
            sys.exit(f"journal.py: the worker ended with {self.process.wait()}")
        return word, json.loads(what)

    def kill(self, after: float) -> list[int]:
        """Kill it after some seconds; returns the rows that it has reported."""
        time.sleep(after)
        os.kill(self.process.pid, signal.SIGKILL)
        lines = [line.decode().partition(" ") for line in self.out if line.endswith(b"\n")]
        self.process.wait()
        self.out.close()
        return [json.loads(what) for word, _, what in lines if word == "reported"]

    def end(self) -> tuple[float, list[Any]]:
        """Wait for it; returns how long it took and its rows."""
        said = dict[str, Any]()
        while "rows" not in said:
            word, what = self._said()
            said[word] = what
        self.process.wait()
        self.out.close()
        return said["seconds"], said["rows"]


# -- the server ----------------------------------------------------------------------------------------------------


class Server:
    """A model server in a process of its own.

    Args:
        options: The options of this script.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        """Start it."""
        latency = str(options.latency)
        self.own = not options.stub
        command = [sys.executable, "-c", SERVER, latency, ANSWER]
        if options.stub:
            command = [sys.executable, options.stub, "--port", "0", "--latency", latency, "--content", ANSWER]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.input, self.out = self.process.stdin, self.process.stdout
        found = re.search(r"http://\S+", self.out.readline())
        if found is None:
            sys.exit("journal.py: the server did not say where it is")
        self.url = found[0]

    def counts(self) -> dict[str, int]:
        """Return `requests` and distinct bodies (`seen`) since the last time, when nothing is in flight any more."""
        if not self.own:
            root = self.url.removesuffix("/v1")
            with urllib.request.urlopen(f"{root}/stats") as answer:
                return dict(json.load(answer))
        self.input.write("how many?\n")
        self.input.flush()
        return dict(json.loads(self.out.readline()))

    def stop(self) -> None:
        """End it."""
        self.process.kill()
        self.process.wait()
        self.input.close()
        self.out.close()


# -- what is measured ----------------------------------------------------------------------------------------------


def kills(options: argparse.Namespace, server: Server, folder: Path) -> Generator[dict[str, Any]]:
    """Kill runs, each once at a moment between its first and its last request, and begin them again."""
    usual, rows = Worker(options, folder / "undisturbed.jsonl", server.url).end()
    server.counts()
    chance = random.Random(options.seed)
    for number in range(options.kills):
        path, moment = folder / f"{number}.jsonl", chance.uniform(0, usual)
        reported = Worker(options, path, server.url).kill(moment)
        resumed = Worker(options, path, server.url)
        _, found = resumed.end()
        counts = server.counts()
        in_flight = counts["requests"] - options.rows
        yield {
            "moment": moment,
            "reported": len(reported),
            "on_disk": len(resumed.found),
            "in_flight": in_flight,
            "requests": counts["requests"],
            "seen": counts["seen"],
            "identical": found == rows,
            "ok": found == rows
            and set(reported) <= set(resumed.found)
            and counts["seen"] == options.rows
            and 0 <= in_flight <= options.concurrency,
        }


def walls(options: argparse.Namespace, server: Server, folder: Path) -> dict[str, float]:
    """Return the seconds of a run with a journal, and without."""
    return {
        "with": Worker(options, folder / "with.jsonl", server.url).end()[0],
        "without": Worker(options, "", server.url).end()[0],
    }


def alone(path: Path, count: int) -> dict[str, float]:
    """Return what a journal takes a row, with nothing else to do: microseconds of CPU, and bytes."""
    memory = [sys.executable, "-c", MEMORY, str(path)]
    return {
        "rows": count,
        **asyncio.run(times(path, count)),
        "bytes_in_memory": float(subprocess.run(memory, stdout=subprocess.PIPE, check=True).stdout),
        "bytes_on_disk": path.stat().st_size / count,
    }


async def times(path: Path, count: int) -> dict[str, float]:
    """Return the microseconds of this process's CPU that a row takes."""
    usage = Usage(100, 10, requests=1)
    examples = devset(1000)

    def example(number: int) -> otpy.Example:
        return examples[number % 1000].copy(question=f"question {number}")

    began = time.process_time()
    async with Journal(path, program=PROGRAM, metric_name="m") as journal:
        for start in range(0, count, 1000):
            waiting: list[asyncio.Future[None]] = []
            for number in range(start, min(start + 1000, count)):
                row = example(number)
                journal.take(number, row)
                prediction = otpy.Prediction(answer="Paris", usage=usage, attempts=(ANSWER,))
                waiting.append(journal.add(Scored(number, row, prediction, 1.0, 0.5, usage))[1])
            await asyncio.gather(*waiting)
    wrote = time.process_time()
    again = Journal(path, program=PROGRAM, metric_name="m")
    opened = time.process_time()
    for number in range(count):
        assert again.take(number, example(number)) is not None
    took = time.process_time()
    again.close()
    return {
        "put_us": 1e6 * (wrote - began) / count,
        "open_us": 1e6 * (opened - wrote) / count,
        "take_us": 1e6 * (took - opened) / count,
    }


def main() -> None:
    """Measure, print, and end with 1 if a run was not as it has to be."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--concurrency", type=int, default=100)
    parser.add_argument("--latency", type=float, default=0.05, help="seconds before the server answers")
    parser.add_argument("--stub", default="", help="a server's script to use in the fake provider's place")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--alone", type=int, default=200_000, help="rows for the figures without a model")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--worker", nargs=2, metavar=("JOURNAL", "URL"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        path, url = options.worker
        asyncio.run(evaluate(path, url, options.rows, options.concurrency))
        return
    results = list[dict[str, Any]]()
    with tempfile.TemporaryDirectory() as name:
        folder, server = Path(name), Server(options)
        try:
            for result in kills(options, server, folder):
                results.append(result)
                if not options.json:
                    print(", ".join(f"{what} {value:.3g}" if isinstance(value, float) else f"{what} {value}"
                                    for what, value in result.items()), flush=True)  # fmt: skip
            seconds = walls(options, server, folder)
        finally:
            server.stop()
        figures = alone(folder / "alone.jsonl", options.alone)
    ok = all(result["ok"] for result in results)
    if options.json:
        print(json.dumps({"ok": ok, "kills": results, "seconds": seconds, "alone": figures}, indent=1))
    else:
        print("seconds:", ", ".join(f"{what} {value:.2f}" for what, value in seconds.items()))
        print("a row:", ", ".join(f"{what} {value:.1f}" for what, value in figures.items()))
        print("as it has to be" if ok else "NOT as it has to be")
    sys.exit(not ok)


if __name__ == "__main__":
    main()

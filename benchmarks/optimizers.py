"""Optimizers on real data and a real model, beside DSPy's on the same rows and the same server.

    python benchmarks/optimizers.py --dspy PYTHON --out results.jsonl
    python benchmarks/optimizers.py --table results.jsonl

PYTHON is an interpreter that has `dspy==3.4.1` and `gepa==0.1.4`. The rows are six intents of BANKING77 (Casanueva et
al. 2020). Of the training rows some are learned from and some chosen by, balanced over the labels; the score is that on
the dev rows, which no optimizer sees. Both libraries ask one llama.cpp server with the embedded model, at
temperature 0, both held to the signature's JSON schema (`--adapters chat` is DSPy's default adapter), with the same
numbers of demos, candidates and rows, and as many requests at once. Requests and tokens are counted between them and
the server, the same way for both; those for the final score are not counted in.

Neither remembers answers of before (otpy: `cache=False`; DSPy: `cache=False`). Within one run otpy asks no question
twice, which its journal sees to; `--dspy-cache` lets DSPy's memory cache do the same for it.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).parent))

from banking import signature
from counting_proxy import CountingProxy

import otpy
from otpy.clients.local_server import command
from otpy.config.local_models import LOCAL_MODELS
from otpy.evaluate import Score, check_labels, load_dataset
from otpy.teleprompters.demos import interleaved

if TYPE_CHECKING:
    from collections.abc import Iterator

    from otpy.teleprompters import Teleprompter

MODEL = "smollm2-135m"
AFTER = " after BootstrapFewShot"
OPTIMIZERS = (
    "Predict",
    "BootstrapFewShot",
    "BootstrapFewShotWithRandomSearch",
    "MIPROv2",
    "GEPA",
    "GEPA of demos",
    f"GEPA{AFTER}",
)
BAR = "BootstrapFewShot"
OURS = "GEPA of demos"
"""DSPy has none."""
SIZES = ("learn", "choose", "split", "bootstrapped", "labeled", "candidates", "gepa_calls", "tokens", "threads")


def judged(example: Any, prediction: Any, trace: Any = None) -> Score:  # noqa: ARG001 - a metric's
    """Tell GEPA what was wrong."""
    right = example.intent == prediction.intent
    return Score(float(right), "Right." if right else f"The right intent is {example.intent}.")


def optimizer(name: str, arguments: argparse.Namespace, seed: int) -> Teleprompter[otpy.Predict] | None:
    """Return an optimizer of ours, `None` for the program as it is."""
    metric, width = otpy.exact_match("intent"), arguments.threads
    demos = {"max_bootstrapped_demos": arguments.bootstrapped, "max_labeled_demos": arguments.labeled}
    known: dict[str, Any] = {
        "BootstrapFewShot": lambda: otpy.BootstrapFewShot(metric, seed=seed, max_concurrency=width, **demos),
        "BootstrapFewShotWithRandomSearch": lambda: otpy.BootstrapFewShotWithRandomSearch(
            metric, num_candidate_programs=arguments.candidates, seed=seed, max_concurrency=width, **demos
        ),
        "MIPROv2": lambda: otpy.MIPROv2(
            metric, auto="light", seed=seed, max_concurrency=width, prompt_max_tokens=arguments.tokens, **demos
        ),
        "GEPA": lambda: otpy.GEPA(
            judged,
            max_metric_calls=arguments.gepa_calls,
            reflection_max_tokens=arguments.tokens,
            seed=seed,
            max_concurrency=width,
        ),
        "GEPA of demos": lambda: otpy.GEPA(
            judged,
            max_metric_calls=arguments.gepa_calls,
            evolve="demos",
            max_demos=arguments.labeled,
            reflection_minibatch_size=arguments.labeled // 2,
            seed=seed,
            max_concurrency=width,
        ),
    }
    return known[name]() if name in known else None


class Bench:
    """The rows, the server, and what is counted between.

    Args:
        arguments: The command line's.
        proxy: Counts.
    """

    def __init__(self, arguments: argparse.Namespace, proxy: CountingProxy) -> None:
        """Read the rows and part them."""
        self.arguments, self.proxy, self._runs = arguments, proxy, 0
        train = load_dataset(arguments.train, inputs=["query"], required=["intent"])
        self.dev = load_dataset(arguments.dev, inputs=["query"], required=["intent"])
        self.contract = signature(train)
        check_labels(self.dev, self.contract, str(arguments.dev))
        order = interleaved(train, ["intent"], arguments.split)
        wanted = arguments.choose + arguments.learn
        if wanted > len(train):
            sys.exit(f"--choose {arguments.choose} --learn {arguments.learn}: there are {len(train)} training rows")
        self.choose = [train[at] for at in order[: arguments.choose]]
        self.learn = [train[at] for at in order[arguments.choose : wanted]]

    def _names(self) -> tuple[str, str]:
        self._runs += 1
        return f"search-{self._runs}", f"score-{self._runs}"

    def ours(self, name: str, seed: int) -> dict[str, Any]:
        """Run one of ours."""
        searching, scoring = self._names()
        rows = list(self.learn)
        random.Random(seed).shuffle(rows)
        kind = name.removesuffix(AFTER)
        found: dict[str, Any] = {"version": otpy.__version__, "adapter": "json"}
        program = otpy.Predict(self.contract)
        began = time.perf_counter()
        with self._app(searching):
            for each in [BAR, kind] if name != kind else [kind]:
                chosen = optimizer(each, self.arguments, seed)
                if chosen is None:
                    continue
                more: dict[str, Any] = {"valset": self.choose} if chosen.uses_valset else {}
                program = chosen.compile(program, trainset=rows, max_requests=self.arguments.most, **more)
                outcome = otpy.outcome_of(program)
                assert outcome is not None
                found |= {"stopped": outcome.stopped, "candidates": len(outcome.candidates), "outcome": str(outcome)}
        found |= {"seconds": round(time.perf_counter() - began, 1), "demos": len(program.demos)}
        found["instruction"], found["hash"] = program.signature.instructions, program.content_hash()
        with self._app(scoring):
            found["score"] = round(otpy.Evaluate(self.dev, metric=otpy.exact_match("intent"))(program).score, 4)
        return found | self._counted(searching)

    def _app(self, name: str) -> otpy.Application:
        return otpy.start(
            lm=f"openai/{MODEL}",
            base_url=self.proxy.url(name),
            api_key="none",
            temperature=0,
            max_tokens=self.arguments.tokens,
            max_concurrency=self.arguments.threads,
            timeout=600,
            cache=False,
            settings={},
        )

    def theirs(self, name: str, seed: int, adapter: str) -> dict[str, Any]:
        """Run one of DSPy's, in its own interpreter."""
        searching, scoring = self._names()
        kind = name.removesuffix(AFTER)
        job = {
            "optimizer": kind,
            "after_bootstrap": name != kind,
            "seed": seed,
            "adapter": adapter,
            "threads": self.arguments.threads,
            "bootstrapped": self.arguments.bootstrapped,
            "labeled": self.arguments.labeled,
            "candidates": self.arguments.candidates,
            "gepa_calls": self.arguments.gepa_calls,
            "answer_tokens": self.arguments.tokens,
            "advice_tokens": self.arguments.tokens,
            "cache": self.arguments.dspy_cache,
            "search_url": self.proxy.url(searching),
            "score_url": self.proxy.url(scoring),
            "instructions": self.contract.instructions,
            "labels": sorted({row.intent for row in self.learn}),
            **{what: [dict(row) for row in getattr(self, what)] for what in ("learn", "choose", "dev")},
        }
        with tempfile.TemporaryDirectory() as directory:
            asked, answer = Path(directory) / "job.json", Path(directory) / "result.json"
            asked.write_text(json.dumps(job))
            script = Path(__file__).with_name("optimizers_dspy.py")
            asking = [self.arguments.dspy, str(script), str(asked), str(answer)]
            ran = subprocess.run(asking, cwd=directory, capture_output=True, text=True, check=False)
            if not answer.exists():
                return {"error": ran.stderr[-500:], **self._counted(searching)}
            return json.loads(answer.read_text()) | self._counted(searching)

    def _counted(self, name: str) -> dict[str, int]:
        return dict(vars(self.proxy.counts[name]))


@contextmanager
def serving(arguments: argparse.Namespace) -> Iterator[str]:
    """Give the address of a server with the embedded model: the one that was named, or one of its own."""
    if arguments.url:
        yield arguments.url
        return
    weights = LOCAL_MODELS[MODEL].file
    if not weights.exists():
        sys.exit(f"no weights: otpy models pull {MODEL}")
    asked = command(str(weights), context=8192, parallel=arguments.threads)
    with subprocess.Popen(asked, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        assert server.stdout is not None
        try:
            yield json.loads(server.stdout.readline())["url"]
        finally:
            server.kill()


def table(lines: list[dict[str, Any]]) -> str:
    """Return results as a Markdown table: for each optimizer the medians over seeds, and each seed's score.

    The bar is what `BootstrapFewShot` of the same library and adapter scored with the same seeds.
    """
    if len({json.dumps(line.get("sizes"), sort_keys=True) for line in lines}) > 1:
        sys.exit("these results are of runs of different sizes, which are not to be compared")
    groups: dict[tuple[str, str, str], dict[int, dict[str, Any]]] = {}
    for line in lines:
        groups.setdefault((line["optimizer"], line["side"], line["adapter"]), {})[line["seed"]] = line
    counted = ("requests", "input_tokens", "output_tokens", "seconds")
    head = ["optimizer", "of", "score on dev", "each seed", f"≥ {BAR}", *(name.replace("_", " ") for name in counted)]
    rows = [head, ["---", "---", *["---:"] * (len(head) - 2)]]
    for name, side, adapter in sorted(groups, key=lambda key: (OPTIMIZERS.index(key[0]), *key[1:])):
        group = groups[name, side, adapter]
        found = {seed: line for seed, line in sorted(group.items()) if "score" in line}
        each = ", ".join(f"{100 * found[seed]['score']:.1f}" if seed in found else "failed" for seed in sorted(group))
        row = [name, f"{side}, {adapter}", "failed", each, *["—"] * (1 + len(counted))]
        if found:
            score = statistics.median(line["score"] for line in found.values())
            bar = {at: line["score"] for at, line in groups.get((BAR, side, adapter), {}).items() if "score" in line}
            numbers = (statistics.median(line[what] for line in found.values()) for what in counted)
            reached = "—" if name in {BAR, "Predict"} else _reached(found, bar)
            row = [*row[:2], f"{100 * score:.1f} %", each, reached, *(f"{number:,.0f}" for number in numbers)]
        rows.append(row)
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _reached(found: dict[int, dict[str, Any]], bar: dict[int, float]) -> str:
    pairs = [(line["score"], bar[seed]) for seed, line in found.items() if seed in bar]
    if not pairs:
        return "—"
    mine, theirs = (statistics.median(one) for one in zip(*pairs, strict=True))
    return f"{'yes' if mine >= theirs else 'no'}, {sum(one >= other for one, other in pairs)} of {len(pairs)}"


def parsed() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--train", type=Path, default=Path("../shared/data/banking_train.jsonl"))
    parser.add_argument("--dev", type=Path, default=Path("../shared/data/banking_dev.jsonl"))
    parser.add_argument("--learn", type=int, default=100, help="training rows to learn from")
    parser.add_argument("--choose", type=int, default=48, help="training rows to choose by")
    parser.add_argument("--split", type=int, default=0, help="decides which rows are which")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--optimizers", nargs="+", choices=OPTIMIZERS, default=list(OPTIMIZERS))
    parser.add_argument("--bootstrapped", type=int, default=4, help="demos a teacher solved, at most")
    parser.add_argument("--labeled", type=int, default=16, help="demos in all, at most")
    parser.add_argument("--candidates", type=int, default=4, help="random candidates of the random search")
    parser.add_argument("--gepa-calls", type=int, default=300, help="rows GEPA may measure")
    parser.add_argument("--most", type=int, default=1000, help="requests each of ours may make")
    parser.add_argument("--tokens", type=int, default=256, help="longest answer")
    parser.add_argument("--threads", type=int, default=2, help="requests at once")
    parser.add_argument("--dspy", help="an interpreter that has DSPy; without it only ours are run")
    parser.add_argument("--adapters", nargs="+", choices=["chat", "json"], default=["json"], help="DSPy's")
    parser.add_argument("--dspy-cache", action="store_true", help="let DSPy ask no question twice in one run")
    parser.add_argument("--skip-ours", action="store_true")
    parser.add_argument("--url", help="an OpenAI-compatible server; by default one with the embedded model is started")
    parser.add_argument("--out", type=Path, help="a file to which results are added, a JSON object a line")
    parser.add_argument("--table", type=Path, nargs="+", help="print such files as a table, and run nothing")
    return parser.parse_args()


def main() -> None:
    """Measure, or print what was measured."""
    arguments = parsed()
    if arguments.table:
        print(table([json.loads(line) for path in arguments.table for line in path.read_text().splitlines()]))
        return
    lines: list[dict[str, Any]] = []
    sizes = {name: getattr(arguments, name) for name in SIZES}

    def told(side: str, name: str, seed: int, found: dict[str, Any]) -> None:
        line = {"side": side, "optimizer": name, "seed": seed, **found, "sizes": sizes}
        lines.append(line)
        text = json.dumps(line)
        print(text, file=sys.stderr, flush=True)
        if arguments.out:
            with arguments.out.open("a") as file:
                file.write(text + "\n")

    with serving(arguments) as url, CountingProxy(url) as proxy:
        bench = Bench(arguments, proxy)
        for seed in arguments.seeds:
            for name in arguments.optimizers:
                if not arguments.skip_ours:
                    told("otpy", name, seed, bench.ours(name, seed))
                for adapter in arguments.adapters if arguments.dspy and name != OURS else []:
                    cached = " with its cache" if arguments.dspy_cache else ""
                    told(f"DSPy{cached}", name, seed, {"adapter": adapter, **bench.theirs(name, seed, adapter)})
    print(table(lines))


if __name__ == "__main__":
    main()

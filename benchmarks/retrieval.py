"""BM25 and vectors against other libraries and brute force, in the same run, with recall against exact results.

    python benchmarks/retrieval.py --json
    python benchmarks/retrieval.py --passages 20000 --width 128

Passages are words by Zipf's law, 60 to each; vectors stand in 2,000 clouds. A query's time is the best of three rounds
over all queries, with its words split and its best ten taken. `agree` is the share of queries for which the ten best
scores are those of bm25s to six digits (two libraries may order equal scores in two ways); `recall` the share of the
exact ten best that were found. Needs `pip install bm25s rank-bm25 usearch faiss-cpu`.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import random
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from otpy.retrieval import BM25, Embeddings, FunctionEmbedder, bm25

if TYPE_CHECKING:
    from collections.abc import Callable

K, ROUNDS = 10, 3


def timed(function: Callable[[], Any]) -> tuple[float, Any]:
    """Return seconds and the result."""
    start = time.perf_counter()
    result = function()
    return time.perf_counter() - start, result


def per_query(queries: list[Any], ask: Callable[[Any], Any], rounds: int = ROUNDS) -> tuple[float, list[Any]]:
    """Return milliseconds a query, of the best round, and the answers."""
    runs = [timed(lambda: [ask(query) for query in queries]) for _ in range(rounds)]
    return min(seconds for seconds, _ in runs) * 1000 / len(queries), runs[0][1]


def corpus(count: int, queries: int) -> tuple[list[str], list[str]]:
    """Return passages and queries."""
    dice = random.Random(1)
    words = [f"w{number}" for number in range(50_000)]
    shares = list(itertools.accumulate(1 / (number + 1) for number in range(50_000)))
    make = lambda length: " ".join(dice.choices(words, cum_weights=shares, k=length))  # noqa: E731 - short and local
    return [make(60) for _ in range(count)], [make(8) for _ in range(queries)]


def by_words(count: int) -> list[dict[str, Any]]:
    """Measure BM25."""
    import bm25s
    from rank_bm25 import BM25Okapi

    passages, queries = corpus(count, 200)
    rows: list[dict[str, Any]] = []

    def theirs(query: str) -> list[float]:
        tokens = bm25s.tokenize([query], stopwords=None, show_progress=False)
        return [float(score) for score in other.retrieve(tokens, k=K, show_progress=False).scores[0] if score > 0]

    def build() -> Any:
        index = bm25s.BM25(method="lucene", k1=1.2, b=0.75)
        index.index(bm25s.tokenize(passages, stopwords=None, show_progress=False), show_progress=False)
        return index

    built, other = timed(build)
    spent, expected = per_query(queries, theirs)
    rows.append({"what": "bm25s", "build_s": built, "query_ms": spent})

    built, index = timed(lambda: BM25(passages))
    spent, found = per_query(queries, lambda query: [passage.score for passage in index.top(query, K)])
    agree = sum(np.allclose(one, two, rtol=1e-5) for one, two in zip(found, expected, strict=True)) / len(queries)
    first, _ = timed(lambda: [BM25.top(fresh, query, K) for fresh in [index.add([])] for query in queries])
    rows.append({
        "what": "otpy", "build_s": built, "query_ms": spent, "first_query_ms": first * 1000 / len(queries),
        "agree": agree, "add_one_ms": timed(lambda: index.add(["one more passage w0 w1"]))[0] * 1000,
    })  # fmt: skip
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "bench.index"
        saved, _ = timed(lambda: index.save(file))
        loaded, again = timed(lambda: BM25.load(file))
        rows[-1] |= {"save_s": saved, "load_s": loaded, "file_mb": file.stat().st_size / 1e6}
        assert again.passages == index.passages

    bm25.numpy, keep = lambda: None, bm25.numpy  # type: ignore[assignment]
    spent, plain = per_query(queries[:20], lambda query: [passage.score for passage in index.top(query, K)], 1)
    bm25.numpy = keep
    assert plain == found[:20]
    rows.append({"what": "otpy without numpy", "query_ms": spent})

    built, okapi = timed(lambda: BM25Okapi([passage.split() for passage in passages]))
    spent, _ = per_query(queries[:5], lambda query: okapi.get_top_n(query.split(), passages, n=K), 1)
    rows.append({"what": "rank-bm25", "build_s": built, "query_ms": spent})
    return rows


def by_meaning(count: int, width: int) -> list[dict[str, Any]]:
    """Measure vectors."""
    dice = np.random.default_rng(0)
    clouds = dice.normal(size=(2_000, width))
    vectors = (clouds[dice.integers(0, 2_000, count)] + 0.4 * dice.normal(size=(count, width))).astype("float32")
    asked = (clouds[dice.integers(0, 2_000, 100)] + 0.4 * dice.normal(size=(100, width))).astype("float32")
    table = {f"p{number}": row for number, row in enumerate(vectors)} | {f"q{n}": row for n, row in enumerate(asked)}

    async def embed(texts: list[str]) -> list[Any]:
        return [table[text] for text in texts]

    embedder = FunctionEmbedder(embed, "table", batch=count)
    queries = [f"q{number}" for number in range(len(asked))]
    passages = [f"p{number}" for number in range(count)]
    loop = asyncio.new_event_loop()
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    def brute(query: str) -> list[str]:
        row = table[query]
        scores = unit @ (row / np.linalg.norm(row))
        best = np.argpartition(scores, -K)[-K:]
        return [f"p{place}" for place in best[np.argsort(-scores[best])]]

    spent, exact = per_query(queries, brute)
    rows: list[dict[str, Any]] = [{"what": "numpy, brute force", "query_ms": spent, "recall": 1.0}]
    for engine in ("exact", "usearch", "faiss"):
        index = Embeddings(passages, embedder, engine=engine)  # type: ignore[arg-type]
        built, _ = timed(lambda index=index: loop.run_until_complete(index.embedded()))
        graph, _ = timed(lambda index=index: loop.run_until_complete(index.search("q0", K)))

        def ask(query: str, index: Embeddings = index) -> list[str]:
            return [passage.text for passage in loop.run_until_complete(index.search(query, K))]

        spent, found = per_query(queries, ask)
        recall = sum(len({*one} & {*two}) for one, two in zip(found, exact, strict=True)) / (K * len(queries))
        rows.append({"what": f"otpy, {engine}", "build_s": built + graph, "query_ms": spent, "recall": recall})
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()
    return rows


def main(count: int, width: int, *, as_json: bool) -> None:
    """Measure and print."""
    results = {"passages": count, "width": width, "bm25": by_words(count), "vectors": by_meaning(count, width)}
    if as_json:
        print(json.dumps(results, indent=2))
        return
    for part in ("bm25", "vectors"):
        print(part)
        for row in results[part]:  # type: ignore[attr-defined]
            numbers = (f"{name} {value:.3g}" for name, value in row.items() if name != "what")
            print(f"  {row['what']:20}", "  ".join(numbers))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--passages", type=int, default=100_000)
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    main(arguments.passages, arguments.width, as_json=arguments.json)

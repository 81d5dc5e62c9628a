"""A journalled evaluation as an OS process for tests: prints the index of each row as it is reported, then the result.

python journalled.py JOURNAL URL ROWS CONCURRENCY

The right answer is always "Paris".
"""

import asyncio
import json
import os
import sys
from contextlib import aclosing

import otpy

PATH, URL, ROWS, CONCURRENCY = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
DEVSET = [
    otpy.Example(question=f"question {n // 2 if n % 10 == 1 else n}", answer="Paris").with_inputs("question")
    for n in range(ROWS)
]
"""Some examples are there twice, at different places."""


def report(row):
    """Report a row by a write of its own, so that what is reported is known though this process is killed."""
    os.write(1, f"{row.index}\n".encode())


async def evaluate():
    settings = {
        "clients": {"default": {"model": "acme/m", "base_url": URL, "api_key": "none"}},
        "cache": {"enabled": False},
    }
    rows = []
    async with otpy.start(settings=settings):
        evaluate = otpy.Evaluate(DEVSET, metric=otpy.exact_match("answer"), max_concurrency=CONCURRENCY, journal=PATH)
        async with aclosing(evaluate.stream(otpy.Predict("question -> answer"))) as stream:
            async for row in stream:
                report(row)
                rows.append([row.index, row.prediction.answer, row.score])
    os.write(1, (json.dumps(sorted(rows)) + "\n").encode())


asyncio.run(evaluate())

"""A journalled evaluation as an OS process for tests: prints the index of each row as it is reported, then the result.

python journalled.py JOURNAL URL ROWS CONCURRENCY

The right answer is always "Paris".
"""

import asyncio
import json
import os
import sys

import otpy
from otpy.clients.running import running
from otpy.evaluate import Scored, exact_match, measure
from otpy.evaluate.journal import Journal, asked

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
    program, metric = otpy.Predict("question -> answer"), exact_match("answer")
    settings = {
        "clients": {"default": {"model": "acme/m", "base_url": URL, "api_key": "none"}},
        "cache": {"enabled": False},
    }
    async with otpy.start(settings=settings):
        models = await asked(program, running().names)
        journal = await asyncio.to_thread(Journal, PATH, program=program, metric_name="exact_match", asked=models)
        left = iter(enumerate(DEVSET))

        async def work():
            for index, example in left:
                if journal.take(index, example) is not None:
                    continue
                prediction = await program.acall(**example.inputs())
                score = await measure(metric, example, prediction)
                row = Scored(index, example, prediction, score, 0.0, prediction.usage)
                await journal.put(row)
                report(row)

        async with journal:
            await asyncio.gather(*(work() for _ in range(CONCURRENCY)))
        rows = [[row.index, row.prediction.answer, row.score] for row in journal.rows(DEVSET)]
    os.write(1, (json.dumps(rows) + "\n").encode())


asyncio.run(evaluate())

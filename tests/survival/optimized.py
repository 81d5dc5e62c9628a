"""A journalled optimization as an OS process for tests: prints the content hash of the program it ends in.

python optimized.py OPTIMIZER JOURNAL URL [MAX_REQUESTS]
"""

import importlib
import json
import os
import sys

import otpy
from otpy.teleprompters.outcome import outcome_of

OPTIMIZER, PATH, URL = sys.argv[1:4]
LIMITS = {"max_requests": int(sys.argv[4])} if len(sys.argv) > 4 else {}
ROWS = [otpy.Example(number=n, parity="odd" if n % 2 else "even") for n in range(60)]
SETTINGS = {
    "clients": {"default": {"model": "acme/m", "base_url": URL, "api_key": "none", "max_concurrency": 6}},
    "cache": {"enabled": False},
}


def optimizer():
    """The optimizer of a name, small enough for a test."""
    metric = otpy.exact_match("parity")
    arguments = {
        "BootstrapFewShot": {"max_bootstrapped_demos": 8, "max_labeled_demos": 10, "max_rounds": 2},
        "BootstrapFewShotWithRandomSearch": {"num_candidate_programs": 4},
        "MIPROv2": {"auto": "light"},
        "GEPA": {"max_metric_calls": 120},
    }[OPTIMIZER]
    rooms = {"MIPROv2": "mipro", "GEPA": "gepa", "BootstrapFewShotWithRandomSearch": "random_search"}
    room = importlib.import_module(f"otpy.teleprompters.{rooms.get(OPTIMIZER, 'bootstrap_few_shot')}")
    return getattr(room, OPTIMIZER)(metric, seed=3, max_concurrency=4, **arguments)


with otpy.start(settings=SETTINGS):
    student = otpy.Predict("number: int -> parity: Literal['even', 'odd']")
    better = optimizer().compile(student, trainset=ROWS, journal=PATH, **LIMITS)
outcome = outcome_of(better)
said = {
    "hash": better.content_hash(),
    "score": outcome.score,
    "stopped": outcome.stopped,
    "candidates": [[one.name, one.program.content_hash(), one.score] for one in outcome.candidates],
    "requests": outcome.requests,
}
os.write(1, (json.dumps(said) + "\n").encode())

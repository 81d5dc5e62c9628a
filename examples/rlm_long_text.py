"""Ask a question about a text that is far too long for a prompt. A script plays the model: the local one is too small.

python examples/rlm_long_text.py
"""

from __future__ import annotations

import json

import otpy
from otpy.programs.rlm import RLM
from otpy.testing import FakeProvider

LOG = "\n".join(f"2026-03-{day:02} service {n % 7}: {'timeout' if n % 911 == 0 or n % 217 == 4 else 'ok'}"
                for day in range(1, 29) for n in range(2_000))  # fmt: skip

STEPS = iter([
    ("Look at the form of a line.", "lines = log.split('\\n')\nprint(len(lines), lines[:3])"),
    ("Count the timeouts of each service.",
     ("counts = {}\nfor line in lines:\n    if line.endswith('timeout'):\n        name = line.split()[2].strip(':')\n"
     "        counts[name] = counts.get(name, 0) + 1\nprint(counts)")),
    ("The one with most of them.",
     "worst = max(counts, key=lambda name: counts[name])\nSUBMIT(service=int(worst), timeouts=counts[worst])"),
])  # fmt: skip


def model(_request):
    reasoning, code = next(STEPS)
    return json.dumps({"reasoning": reasoning, "code": code})


def main():
    program = RLM("log, question -> service: int, timeouts: int", max_iters=6)
    with FakeProvider(model) as fake:
        with otpy.start(lm="openai/scripted", base_url=fake.url("openai_chat"), api_key="none", cache=False):
            prediction = program(log=LOG, question="Which service has the most timeouts, and how many?")
        longest = max(len(request.prompt) for request in fake.requests)
    for step in prediction.trajectory:
        print(f"# {step['reasoning']}\n{step['code']}\n-> {step['output']}\n")
    print(f"service {prediction.service}: {prediction.timeouts} timeouts")
    print(f"{len(LOG):,} characters of log; the longest prompt had {longest:,}")


if __name__ == "__main__":
    main()

"""Ten thousand requests at once while 17 % of them go wrong: each ends answered or typed, and the ledger is exact.

    python benchmarks/faults.py --json

A fake provider in a process of its own drops 5 % of the connections (half of them before there is an answer, half
within it), answers 5 % with 500, 5 % with 429 and Retry-After, and 2 % with garbage. One application asks it, as it is
by default. Then its ledger is held against what the fake has counted:

* attempts: the ledger's requests are those that came to the fake, its answered those that left whole, and the rest
  failed;
* tokens: what the ledger has spent is what the fake counted for answers that left whole, and what the callers were
  told;
* lost: of an answer that broke or was garbage nobody here can know what it took. The ledger counts those requests
  (`unmeasured`), exactly as many as the fake broke, and the cap counts what was set aside for them: exactly that, which
  is at least what the fake had generated for them. Errors (429, 500) took nothing on either side.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import subprocess
import sys
import time
from collections import Counter
from typing import Any

import otpy
from otpy.actors import new_event_loop
from otpy.clients.budget import input_ceiling
from otpy.errors import OtpyError
from otpy.lm import LMRequest, LMResponse, Message

SERVER = """
import json, sys
from otpy.testing import FakeProvider, Fault, Say, Sometimes
delay = float(sys.argv[1])
text, pause = "one two three", Say(delay=delay)
whole = Say(text, delay=delay)
faults = {
    Fault("drop", say=pause): 0.025, Fault("cut", say=whole): 0.025, Fault(status=500, say=pause): 0.05,
    Fault(status=429, retry_after=0.05, say=pause): 0.05, Fault("garbage", say=whole): 0.02,
}
with FakeProvider(Sometimes(faults, otherwise=whole, seed=int(sys.argv[2])), keep=1) as fake:
    print(fake.url("openai_chat"), flush=True)
    sys.stdin.readline()
    fake.wait_for(lambda counts: not counts.in_flight)
    counts = fake.counts
    names = ("requests", "input_tokens", "output_tokens", "lost_input_tokens", "lost_output_tokens", "peak_in_flight",
             "connections")
    print(json.dumps({name: getattr(counts, name) for name in names} | {
        "answers": counts.statuses[200], "statuses": counts.statuses, "faults": counts.faults,
        "departures": len(counts.departures)}), flush=True)
"""
PATIENCE = 300.0
"""Seconds in which all have to end: more than any retry takes, so what is not over by then hangs."""
MAX_TOKENS = 20


def request(number: int) -> LMRequest:
    """Return one of the questions, all of which are equally long: so the same is set aside for each."""
    return LMRequest((Message("user", f"question {number:06} of many"),), max_tokens=MAX_TOKENS)


def allow_files(wanted: int) -> None:
    """Raise the limit of open files; end with what to do if it can't be high enough."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < wanted:
        sys.exit(
            f"faults.py: {wanted} open files are needed and {hard} allowed: raise the hard limit (`ulimit -Hn {wanted}`"
            f" as root, /etc/security/limits.conf), or ask for fewer: --requests {max(hard - 200, 1)}"
        )
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


async def ask_all(url: str, count: int, server: subprocess.Popen[str]) -> dict[str, Any]:
    """Ask them all at once, and hold the ledger against the fake."""
    settings = {
        "clients": {"default": {"model": "acme/m", "base_url": url, "api_key": "none"}},
        "cache": {"enabled": False},
        "budget": {"tokens": 10**12},
    }
    async with otpy.start(settings=settings) as app:
        began = time.monotonic()
        asking = [asyncio.ensure_future(app.ask("default", request(number))) for number in range(count)]
        _, hanging = await asyncio.wait(asking, timeout=PATIENCE)
        wall = time.monotonic() - began
        for task in hanging:
            task.cancel()
        outcomes = await asyncio.gather(*asking, return_exceptions=True)
        status = await app.aclient_status()
        ((_, sums),) = (await app.aspent()).items()
        (cap,) = await app.acaps()
    assert server.stdin is not None
    assert server.stdout is not None
    server.stdin.write("how was it?\n")
    server.stdin.flush()
    fake: dict[str, Any] = json.loads(server.stdout.readline())
    answers = [outcome for outcome in outcomes if isinstance(outcome, LMResponse)]
    errors = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
    faults = Counter[str](fake["faults"])
    broken = faults["drop"] + faults["cut"] + faults["garbage"] + fake["departures"]
    aside = input_ceiling(request(0)) + MAX_TOKENS
    lost = cap.spent - sums.input_tokens - sums.output_tokens
    equal = {
        "requests": (sums.requests, fake["requests"]),
        "answered": (sums.answered, fake["answers"] - faults["cut"] - faults["garbage"]),
        "answered_callers": (sums.answered, len(answers)),
        "failed": (sums.failed, broken + faults["status"]),
        "input_tokens": (sums.input_tokens, fake["input_tokens"]),
        "output_tokens": (sums.output_tokens, fake["output_tokens"]),
        "input_tokens_callers": (sums.input_tokens, sum(answer.usage.input_tokens for answer in answers)),
        "output_tokens_callers": (sums.output_tokens, sum(answer.usage.output_tokens for answer in answers)),
        "lost_requests": (sums.unmeasured, broken),
        "lost_tokens_set_aside": (lost, broken * aside),
        "left_behind": (status["in_flight"] + status["waiting"] + cap.reserved, 0),
    }
    typed = Counter(type(error).__name__ for error in errors if isinstance(error, OtpyError))
    untyped = Counter(type(error).__name__ for error in errors if not isinstance(error, OtpyError))
    generated = fake["lost_input_tokens"] + fake["lost_output_tokens"]
    return {
        "wall_s": wall,
        "answered": len(answers),
        "typed_errors": dict(typed),
        "untyped_errors": dict(untyped),
        "hanging": len(hanging),
        "attempts": sums.requests,
        "retries": status["retries"],
        "peak_in_flight": fake["peak_in_flight"],
        "connections": fake["connections"],
        "statuses": fake["statuses"],
        "faults": fake["faults"],
        "ledger_and_fake": equal,
        "lost_tokens_generated": generated,
        "met": not untyped and not hanging and generated <= lost and all(one == other for one, other in equal.values()),
    }


def main() -> None:
    """Ask, compare and print; the exit status is 1 if they differ."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=10_000, help="requests at once (default: %(default)s)")
    parser.add_argument("--delay", type=float, default=5.0, help="seconds to an answer (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the faults (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    asked = parser.parse_args()
    allow_files(asked.requests + 200)
    command = [sys.executable, "-c", SERVER, str(asked.delay), str(asked.seed)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            url = server.stdout.readline().strip()
            with asyncio.Runner(loop_factory=new_event_loop) as runner:
                found = runner.run(ask_all(url, asked.requests, server))
        finally:
            server.terminate()
    rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
    result = {"benchmark": "faults", "requests": asked.requests, "delay_s": asked.delay, **found, "rss_mib": rss}
    if asked.json:
        print(json.dumps(result))
    else:
        for name, value in result.items():
            print(f"{name:24} {value:,.1f}" if isinstance(value, float) else f"{name:24} {value}")
    sys.exit(not result["met"])


if __name__ == "__main__":
    main()

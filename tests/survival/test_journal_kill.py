"""A journalled evaluation that is killed with -9 at any moment goes on from there: the result is the same."""

import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from otpy.testing import FakeProvider, Say

SCRIPT = Path(__file__).with_name("journalled.py")


def number(row):
    """Which question a row asks; some are asked at two places."""
    return row // 2 if row % 10 == 1 else row


ROWS, CONCURRENCY, KILLS = 300, 20, 3
ANSWERS = ["Paris" if number(n) % 2 else "Rome" for n in range(ROWS)]
UNDISTURBED = [[n, answer, float(answer == "Paris")] for n, answer in enumerate(ANSWERS)]


@pytest.fixture
def provider():
    """A model that answers half of the questions rightly, and keeps every question."""

    def script(request):
        asked = int(request.prompt.split()[-1])
        return Say(json.dumps({"answer": "Paris" if asked % 2 else "Rome"}), delay=0.005)

    with FakeProvider(script, keep=10 * ROWS) as fake:
        yield fake


def start(journal, provider):
    arguments = [sys.executable, str(SCRIPT), str(journal), provider.url("openai_chat"), str(ROWS), str(CONCURRENCY)]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE)


def finished(journal, provider):
    """Run to the end; returns the rows."""
    with start(journal, provider) as process:
        out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    return json.loads(out.splitlines()[-1])


def killed(journal, provider, after):
    """Kill it with -9 when so many rows were reported; returns the indices of those that were, in the end."""
    with start(journal, provider) as process:
        reported = [process.stdout.readline() for _ in range(after)]
        os.kill(process.pid, signal.SIGKILL)
        reported += process.stdout.readlines()
    return [int(line) for line in reported]


def kept(journal):
    """The indices of the rows on disk."""
    lines = journal.read_bytes().splitlines(keepends=True)[1:] if journal.exists() else []
    return [json.loads(line)["index"] for line in lines if line.endswith(b"}\n")]


def test_however_often_it_is_killed_the_same_call_ends_in_the_same_result_and_asks_nothing_twice(tmp_path, provider):
    journal, chance, asked_in_vain = tmp_path / "killed.jsonl", random.Random(5), 0
    before = provider.counts.requests
    for _ in range(KILLS):
        there = kept(journal)
        reported = killed(journal, provider, len(there) + chance.randrange(1, ROWS // KILLS - CONCURRENCY))
        provider.wait_for(lambda counts: not counts.in_flight)
        assert set(there) <= set(reported) <= set(kept(journal)), "a row was reported that is not on disk"
        in_flight = provider.counts.requests - before - len(kept(journal)) - asked_in_vain
        assert 0 <= in_flight <= CONCURRENCY
        asked_in_vain += in_flight
    assert finished(journal, provider) == UNDISTURBED
    assert len(kept(journal)) == ROWS
    assert provider.counts.requests - before == ROWS + asked_in_vain

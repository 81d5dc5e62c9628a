"""An optimization that is killed with -9 at any moment goes on: the program is the same, and nothing is asked twice."""

import contextlib
import hashlib
import json
import os
import random
import re
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from otpy.testing import FakeProvider, Fault, Say

SCRIPT = Path(__file__).with_name("optimized.py")


def digest(request):
    return hashlib.sha256(json.dumps(request.body, sort_keys=True).encode()).hexdigest()


class Model:
    """A model whose answer is a function of the question, and that knows what it has answered in full."""

    def __init__(self):
        self.begun = Counter()
        self.down = False

    def __call__(self, request):
        if self.down:
            return Fault("status", 503)
        key = digest(request)
        self.begun[key] += 1
        wise = int(key[:8], 16) % 3 > 0
        system = request.body["messages"][0]["content"]
        if '"parity"' not in system.splitlines()[-1]:  # it is asked for advice
            names = re.findall(r'"(\w+)"', system.splitlines()[-1])
            return Say(json.dumps(dict.fromkeys(names, f"Think of {key[:6]}.")), delay=0.003)
        number = int(re.findall(r"\d+", request.body["messages"][-1]["content"])[-1])
        right = "odd" if number % 2 else "even"
        wrong = "even" if number % 2 else "odd"
        return Say(json.dumps({"parity": right if wise else wrong}), delay=0.003)


@pytest.fixture
def model():
    return Model()


@pytest.fixture
def provider(model):
    with FakeProvider(model, keep=10_000) as fake:
        yield fake


def start(name, journal, provider, *limits):
    arguments = [sys.executable, str(SCRIPT), name, str(journal), provider.url("openai_chat"), *map(str, limits)]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def finished(name, journal, provider, *limits):
    with start(name, journal, provider, *limits) as process:
        out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err.decode()[-2000:]
    return json.loads(out)


def kept(journal):
    """How many answers are on disk."""
    with sqlite3.connect(f"file:{journal}?mode=ro", uri=True) as base:
        return base.execute("SELECT count(*) FROM answers").fetchone()[0]


def killed(name, journal, provider, after, signal_=signal.SIGKILL):
    """Kill it when so many more requests have come."""
    goal = provider.counts.requests + after
    with start(name, journal, provider) as process:
        while process.poll() is None and provider.counts.requests < goal:
            with contextlib.suppress(TimeoutError):
                provider.wait_for(lambda counts: counts.requests >= goal, 0.2)
        assert process.poll() is None, process.stderr.read().decode()[-2000:]
        os.kill(process.pid, signal_)
        process.communicate(timeout=60)
    provider.wait_for(lambda counts: not counts.in_flight)
    return process.returncode


def same(result, undisturbed):
    return {**result, "requests": 0} == {**undisturbed, "requests": 0}


@pytest.mark.parametrize("name", ["BootstrapFewShot"])
def test_however_often_it_is_killed_the_same_call_ends_in_the_same_program(name, tmp_path, provider, model):
    undisturbed = finished(name, tmp_path / "undisturbed", provider)
    asked = set(model.begun)
    assert set(model.begun.values()) == {1}
    model.begun.clear()
    journal, chance = tmp_path / "killed", random.Random(7)
    for _ in range(3):
        before = kept(journal) if journal.exists() else 0
        killed(name, journal, provider, chance.randrange(1, max(2, len(asked) // 4)))
        assert kept(journal) >= before
    there = kept(journal)
    again = sum(model.begun.values()) - there  # answered into the void: at most those in flight at a kill
    assert 0 <= again <= 3 * 4
    result = finished(name, journal, provider)
    assert same(result, undisturbed)
    assert set(model.begun) == asked
    assert sum(model.begun.values()) == len(asked) + again, "what was on disk was asked again"
    provider.script = Fault("status", 500)
    assert same(finished(name, journal, provider), undisturbed), "all of it is in the journal"


def test_ctrl_c_keeps_what_was_answered(tmp_path, provider, model):
    undisturbed = finished("BootstrapFewShot", tmp_path / "undisturbed", provider)
    model.begun.clear()
    journal = tmp_path / "interrupted"
    assert killed("BootstrapFewShot", journal, provider, 6, signal.SIGINT) not in {0, -signal.SIGKILL}
    assert kept(journal) >= 2
    with sqlite3.connect(journal) as base:
        assert json.loads(base.execute("SELECT value FROM about WHERE name = 'status'").fetchone()[0]) == "cancelled"
    assert same(finished("BootstrapFewShot", journal, provider), undisturbed)
    assert sum(model.begun.values()) - len(model.begun) <= 4


def test_requests_of_the_part_that_was_killed_count_toward_the_cap(tmp_path, provider):
    journal, cap = tmp_path / "capped", 9
    killed("BootstrapFewShot", journal, provider, 5)
    there = kept(journal)
    before = provider.counts.requests
    result = finished("BootstrapFewShot", journal, provider, cap)
    assert result["stopped"] == "budget"
    assert provider.counts.requests - before <= cap - there
    assert result["requests"] <= cap

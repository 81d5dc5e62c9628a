"""What `benchmarks/faults.py` does with ten thousand requests, with one thousand: the ledger stays exact."""

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "faults.py"


def run(*arguments, **more):
    environ = {**os.environ, "PYTHONPATH": ":".join([str(SCRIPT.parents[1]), *sys.path])}
    command = [sys.executable, str(SCRIPT), "--json", *arguments]
    return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=100, check=False, **more)


@pytest.fixture(scope="module")
def found():
    ran = run("--requests", "1000", "--delay", "0.5", "--seed", "3")
    assert ran.stdout, ran.stderr
    return json.loads(ran.stdout)


def test_every_request_ends_answered_or_typed(found):
    assert (found["hanging"], found["untyped_errors"]) == (0, {})
    assert found["answered"] + sum(found["typed_errors"].values()) == 1000
    assert found["answered"] > 900
    assert found["peak_in_flight"] > 500


def test_every_kind_of_fault_was_met(found):
    assert found["faults"].keys() == {"drop", "cut", "status", "garbage"}
    assert found["statuses"].keys() == {"200", "429", "500"}


def test_the_ledger_is_what_the_provider_counted_to_the_request_and_to_the_token(found):
    assert {name: one for name, (one, _) in found["ledger_and_fake"].items()} == {
        name: other for name, (_, other) in found["ledger_and_fake"].items()
    }
    assert found["met"]


def test_what_is_set_aside_for_lost_answers_covers_what_was_generated_for_them(found):
    ledger, _ = found["ledger_and_fake"]["lost_tokens_set_aside"]
    assert 0 < found["lost_tokens_generated"] <= ledger


def test_too_few_open_files_are_said_before_anything_is_asked():
    few = lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))  # noqa: E731
    ran = run("--requests", "1000", preexec_fn=few)
    assert ran.returncode == 1
    assert "1200 open files are needed and 256 allowed: raise the hard limit" in ran.stderr
    assert "--requests 56" in ran.stderr

"""otpy does what Erlang/OTP did: every scenario of the corpus, replayed in virtual time.

`OTPY_CONFORMANCE_CORPUS=DIR` names another directory of scenarios, laid out the same way.
"""

import json
import logging
import os
import sys
from pathlib import Path

import pytest

from otpy.testing import run_in_virtual_time

sys.path.insert(0, str(Path(__file__).parent))

import servers
import trees
from compare import difference

CORPUS = Path(os.environ.get("OTPY_CONFORMANCE_CORPUS") or Path(__file__).parents[3] / "shared/conformance/corpus")


def scenarios():
    found = []
    for file in sorted([*CORPUS.glob("rules/*.json"), *CORPUS.glob("process/*.json")]):
        found += json.loads(file.read_text())["scenarios"]
    random = CORPUS / "random.jsonl"
    if random.exists():
        found += [json.loads(line) for line in random.read_text().splitlines() if line.strip()]
    return found


ALL = scenarios()


@pytest.fixture(autouse=True)
def quiet_log():
    """What supervisors say of scripted crashes is of no interest here, and only here."""
    log = logging.getLogger("otpy")
    log.disabled = True
    yield
    log.disabled = False


@pytest.mark.skipif(not ALL, reason=f"no corpus at {CORPUS}; OTPY_CONFORMANCE_CORPUS names one")
@pytest.mark.parametrize("scenario", [s for s in ALL if s["kind"] == "supervisor"], ids=lambda scenario: scenario["id"])
def test_supervisors(scenario):
    replay(trees.Runner(scenario), scenario)


@pytest.mark.skipif(not ALL, reason=f"no corpus at {CORPUS}; OTPY_CONFORMANCE_CORPUS names one")
@pytest.mark.parametrize("scenario", [s for s in ALL if s["kind"] == "process"], ids=lambda scenario: scenario["id"])
def test_processes(scenario):
    replay(servers.Runner(scenario), scenario)


def replay(runner, scenario):
    async def main():
        async for where, expected, got in runner.run():
            problem = difference(scenario["kind"], expected, got, scenario.get("ignore", ()))
            assert not problem, f"{scenario['title']}\n{where}\n{problem}"

    run_in_virtual_time(main())

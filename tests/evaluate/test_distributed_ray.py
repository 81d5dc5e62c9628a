"""Evaluations on a real Ray: a cluster of two nodes on this machine, one of which may be killed."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Literal

import pytest

import otpy
from otpy.errors import EvaluationAborted, EvaluationError
from otpy.telemetry import bus
from otpy.testing import FakeProvider

ray = pytest.importorskip("ray", reason="no ray: pip install -e '.[ray]'")
pytestmark = [
    pytest.mark.filterwarnings("ignore"),  # Ray's own, of which there are many
    pytest.mark.timeout(120),
]
SECONDS = 0.2
STORE = {"object_store_memory": 80_000_000}


class Waits(otpy.Program):
    async def forward(self, question):
        await asyncio.sleep(SECONDS)
        if question.endswith("7"):
            raise Odd(question, "odd")
        return otpy.Prediction(answer=question)


class Dies(otpy.Program):
    """Takes its node with it, the one row of all that does."""

    async def forward(self, question):
        await asyncio.sleep(0.01)
        if question == "5":
            os._exit(9)
        return otpy.Prediction(answer=question)


class Triage(otpy.Signature):
    """Classify the query."""

    query: str = otpy.InputField()
    answer: Literal["1", "2"] = otpy.OutputField()


class Odd(Exception):
    def __init__(self, one, other):
        super().__init__(f"{one} is {other}")


def exact(example, prediction, trace=None):
    return example.answer == prediction.answer


@pytest.fixture(autouse=True)
def nothing_is_left_running():
    """The processes of a cluster come and go; the cluster's own fixture ends them all."""


@pytest.fixture(scope="module")
def cluster():
    """Two nodes, and this module's classes sent as they are: no node can import a test."""
    from ray import cloudpickle
    from ray.cluster_utils import Cluster

    there = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False, **STORE})
    there.add_node(num_cpus=1, **STORE)
    ray.init(address=there.address, logging_level="ERROR", log_to_driver=False)
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    yield there
    ray.shutdown()
    there.shutdown()


@pytest.fixture
def app():
    with otpy.start(lm="openai/x", api_key="none", base_url="http://127.0.0.1:1/v1", cache=False) as app:
        yield app


def devset(count):
    return [otpy.Example(question=str(number), answer=str(number)) for number in range(count)]


def essence(result):
    return [
        (row.index, row.example, row.prediction, row.score)
        if isinstance(row, otpy.Scored)
        else (row.index, row.example, row.kind, row.explanation, row.where)
        for row in result.rows
    ]


def far(program, rows, **options):
    from otpy.integrations.ray_nodes import run_distributed

    return run_distributed(program, rows, exact, **options)


def test_the_result_on_two_nodes_is_the_one_at_home(cluster, app):
    rows = devset(300)
    there = far(Waits(), rows, max_concurrency=25)
    here = otpy.Evaluate(rows, metric=exact, max_concurrency=50)(Waits())
    assert essence(there) == essence(here)
    assert there.summary().splitlines()[1:] == here.summary().splitlines()[1:]
    assert (there.score, there.total, there.complete) == (here.score, here.total, here.complete)


def test_a_node_that_is_killed_mid_run_loses_no_row_and_one_that_joins_is_used(cluster, app):
    events, results, under_way = [], [], threading.Event()
    bus.attach("test", lambda event, fields: events.append((event, fields)), "otpy.evaluate.")

    def tell(live):
        if live.done > 50:
            under_way.set()

    work = threading.Thread(
        target=lambda: results.append(far(Waits(), devset(2_000), max_concurrency=25, on_progress=tell))
    )
    try:
        work.start()
        assert under_way.wait(30)
        cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False)
        cluster.add_node(num_cpus=1, **STORE)  # Ray wants the main thread for this
        work.join(60)
    finally:
        bus.detach("test")
    [result] = results
    assert [row.index for row in result.rows] == list(range(2_000))
    assert {row.kind for row in result.failed} == {"Odd"}
    assert len(result.failed) == 200
    nodes = [fields for event, fields in events if event == "otpy.evaluate.node"]
    assert [fields["event"] for fields in nodes].count("lost") == 1
    assert len({fields["node"] for fields in nodes if fields["event"] == "joined"}) == 3


def test_a_row_that_kills_its_node_fails_alone(cluster, app):
    result = far(Dies(), devset(60), max_concurrency=10, losses=2, restarts=5)
    assert [(row.index, row.explanation) for row in result.failed] == [(5, "lost with its node 2 times")]
    assert len(result.scored) == 59


def test_a_signature_of_a_script_and_an_answer_that_is_none_travel(cluster):
    with (
        FakeProvider("no idea") as fake,
        otpy.start(lm="openai/x", api_key="none", base_url=fake.url("openai_chat"), cache=False),
    ):
        result = far(otpy.Predict(Triage), [otpy.Example(query="?", answer="1")])
    [row] = result.failed
    assert isinstance(row.reason, otpy.errors.AdapterParseError)


def test_one_budget_holds_for_both_nodes(cluster):
    with FakeProvider('{"answer": "4"}') as fake:
        settings = {"budget": {"requests": 20}, "cache": {"enabled": False}}
        with otpy.start(lm="openai/x", api_key="none", base_url=fake.url("openai_chat"), settings=settings) as app:
            result = far(otpy.Predict("question -> answer"), devset(40), max_concurrency=4)
            assert app.book.total().requests == 20
        assert len(fake.requests) == 20
    assert {row.kind for row in result.failed} == {"BudgetExceeded"}
    assert result.tally.attempts == 20


def test_ctrl_c_stops_the_nodes_and_keeps_what_is_done(cluster, app):
    import signal

    main = threading.get_ident()

    def interrupt(live):
        if live.done:
            signal.pthread_kill(main, signal.SIGINT)

    began = time.monotonic()
    with pytest.raises(EvaluationAborted, match="interrupted") as aborted:
        far(Waits(), devset(5_000), max_concurrency=10, on_progress=interrupt)
    assert 0 < len(aborted.value.result.rows) < 5_000
    assert time.monotonic() - began < 30


def test_a_key_that_a_node_does_not_have_is_said(cluster, monkeypatch):
    monkeypatch.setenv("SOME_KEY", "secret")  # here only: the nodes were started before
    settings = {"clients": {"default": {"model": "openai/x", "api_key_env": "SOME_KEY"}}, "cache": {"enabled": False}}
    with otpy.start(settings=settings), pytest.raises(EvaluationError, match=r"node .* cannot begin: .*SOME_KEY"):
        far(otpy.Predict("question -> answer"), devset(3))


def test_the_script_of_the_document_runs_on_a_cluster(cluster, tmp_path):
    document = (Path(__file__).parents[2] / "docs" / "distributed.md").read_text()
    script, rows = tmp_path / "evaluate.py", tmp_path / "questions.jsonl"
    script.write_text(document.partition("```py\n")[2].partition("```")[0])
    rows.write_text("".join(json.dumps({"question": f"{n}?", "answer": "4"}) + "\n" for n in range(20)))
    with FakeProvider('{"answer": "4"}') as fake:
        ran = subprocess.run(
            [sys.executable, script, "--address", cluster.address],
            cwd=tmp_path,
            env=os.environ
            | {"OTPY_CLIENTS__DEFAULT__BASE_URL": fake.url("openai_chat"), "OPENAI_API_KEY": "none"}
            | {"OTPY_CLIENTS__DEFAULT__API_KEY": "none", "OTPY_CACHE__ENABLED": "false"},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert ran.returncode == 0, ran.stderr
        assert len(fake.requests) == 20
    assert "100.0 % (20 of 20" in ran.stdout
    assert "20 requests, 20 answered" in ran.stdout

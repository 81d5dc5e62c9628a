"""Every script in examples/ runs, as a newcomer would run it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from otpy.testing import LoopbackLM

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def run(script, *arguments, cwd, code=0):
    result = subprocess.run(
        [sys.executable, EXAMPLES / script, *arguments],
        cwd=cwd,
        env=os.environ | {"OPENAI_API_KEY": "none", "COLUMNS": "120"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert result.returncode == code, result.stderr
    return result.stdout


def test_no_example_is_forgotten_here():
    assert {path.name for path in EXAMPLES.glob("*.py")} == {
        "http_retriever.py",  # in tests/retrieval
        "rag_200_passages.py",  # in tests/retrieval
        "react_two_tools.py",  # in tests/programs
        "rlm_long_text.py",
        "ticker.py",
        "triage.py",
    }


def test_the_ticker_outlives_its_feeds(tmp_path):
    printed = run("ticker.py", "--ticks", "40", cwd=tmp_path)
    assert "EURUSD" in printed
    assert "restarts" in printed


def test_triage_on_any_server(tmp_path):
    def answer(body):
        few_shot = len(body["messages"]) > 2
        message = body["messages"][-1]["content"]
        brakes = few_shot and ("pads" in message or "Stopping" in message)
        return {"topic": "brakes" if brakes else "price"}

    with LoopbackLM(answer) as server:
        printed = run("triage.py", "--lm", "openai/scripted", "--base-url", server.url, cwd=tmp_path)
    assert "33.3 %" in printed
    assert "66.7 %" in printed
    assert (tmp_path / "triage.json").exists()


@pytest.mark.local_model
def test_triage_on_the_local_model(tmp_path):
    assert "saved: triage.json" in run("triage.py", cwd=tmp_path)


def test_a_question_about_a_long_text_is_answered_in_a_sandbox(tmp_path):
    pytest.importorskip("pydantic_monty", reason="pip install -e '.[sandbox]'")
    assert "timeouts" in run("rlm_long_text.py", cwd=tmp_path)

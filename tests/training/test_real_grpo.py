"""The real program of GRPO on the real model: killed with -9 behind a checkpoint, it ends in the very same adapter."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from otpy.clients import models
from otpy.config.local_models import LOCAL_MODELS

MISSING = [room for room in ("torch", "trl", "peft", "gguf", "datasets") if importlib.util.find_spec(room) is None]
pytestmark = [
    pytest.mark.local_model,
    pytest.mark.timeout(900),
    pytest.mark.skipif(bool(MISSING), reason=f"the extra 'train' is not installed: {', '.join(MISSING)} missing"),
    pytest.mark.skipif(not models.installed("smollm2-135m"), reason="the weights are not here: otpy models pull"),
]
PROMPTS = [[{"role": "user", "content": f"Say a word for the number {n}."}] for n in range(3)]


def reward(text):
    """Any function of the text will do, and short answers are judged best."""
    return 1.0 / (1 + len(text.split()))


def prepared(folder):
    folder.mkdir()
    base = LOCAL_MODELS["smollm2-135m"]
    plan = {
        "base": base.name, "weights": str(base.file), "adapters": str(folder / "adapters"), "rank": 2, "alpha": 4.0,
        "learning_rate": 1e-3, "steps": 4, "examples": 1, "rollouts": 4, "temperature": 1.0, "max_tokens": 6,
        "beta": 0.0, "seed": 5, "checkpoint_steps": 2,
    }  # fmt: skip
    (folder / "plan.json").write_text(json.dumps(plan))
    lines = (json.dumps({"row": row, "messages": prompt}) for row, prompt in enumerate(PROMPTS))
    (folder / "prompts.jsonl").write_text("\n".join(lines))
    return folder


def run(folder, kill_at=None):
    """Answer what it asks, until it ends, or is killed when it asks for the rewards of a step."""
    command = [sys.executable, "-m", "otpy.training.grpo", str(folder)]
    steps = []
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        for line in process.stdout:
            said = json.loads(line)
            assert "error" not in said, said
            if "ask" in said:
                steps.append(said["step"])
                if said["step"] == kill_at:
                    os.kill(process.pid, signal.SIGKILL)
                    break
                rewards = [None if "?" in one["text"] else reward(one["text"]) for one in said["completions"]]
                process.stdin.write(json.dumps({"ask": said["ask"], "rewards": rewards}) + "\n")
                process.stdin.flush()
            if "adapter" in said:
                with Path(said["adapter"]).open("rb") as file:
                    return steps, hashlib.file_digest(file, "sha256").hexdigest()
    return steps, None


def test_killed_behind_a_checkpoint_it_ends_in_the_same_adapter(tmp_path):
    undisturbed = run(prepared(tmp_path / "undisturbed"))
    assert undisturbed[0] == [1, 2, 3, 4]
    killed = prepared(tmp_path / "killed")
    assert run(killed, kill_at=4) == ([1, 2, 3, 4], None)
    assert run(killed) == ([3, 4], undisturbed[1])
    curves = [json.loads((tmp_path / name / "curve.json").read_text()) for name in ("undisturbed", "killed")]
    assert curves[0] == curves[1]
    assert len(curves[0]) == 4
    assert run(killed) == ([], undisturbed[1]), "what is done is done"

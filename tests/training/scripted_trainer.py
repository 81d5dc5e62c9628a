"""A trainer's program for tests: it trains nothing, and says what it is asked to.

Its folder is that of a real one. What it is to do is in the JSON of the environment variable SCRIPT:
`{"steps": 6, "kill_at": 3, "always": false, "error": "…", "hang_at": 2, "pause": 0.01}`. Each start and each step is a
line of the file LOG.
"""

import hashlib
import json
import os
import signal
import sys
import time
from pathlib import Path

from otpy.training.folder import CHECKPOINT, alone, done, finish, kept

FOLDER = Path(sys.argv[1])
SCRIPT = json.loads(os.environ.get("SCRIPT", "{}"))
LOG = Path(os.environ["LOG"])


def log(text):
    with LOG.open("a") as file:
        file.write(f"{text}\n")


def say(**data):
    print(json.dumps(data), flush=True)  # noqa: T201 - a program


def train():
    plan = json.loads((FOLDER / "plan.json").read_text())
    steps = SCRIPT.get("steps", 6)
    checkpoint = FOLDER / CHECKPOINT
    before = int(checkpoint.read_text()) if checkpoint.exists() else 0
    for step in range(before + 1, steps + 1):
        if step == SCRIPT.get("hang_at"):
            time.sleep(3600)
        time.sleep(SCRIPT.get("pause", 0))
        log(f"step {step}")
        if step == SCRIPT.get("kill_at") and (SCRIPT.get("always") or before == 0):
            print("out of memory, say", file=sys.stderr, flush=True)  # noqa: T201 - a program
            os.kill(os.getpid(), signal.SIGKILL)
        kept(checkpoint, str(step))
        say(what="training", step=step, steps=steps, loss=1 / step)
    learned = (FOLDER / "records.jsonl").read_bytes()
    adapter = Path(plan["adapters"]) / f"{plan['base']}-{hashlib.sha256(learned).hexdigest()[:12]}.gguf"
    kept(adapter, learned.decode())
    return adapter


log(f"start {os.getpid()}")
say(what="loading")
if "error" in SCRIPT:
    say(error=SCRIPT["error"])
else:
    with alone(FOLDER, lambda: say(what="waiting")):
        adapter = done(FOLDER)
        if adapter is None:
            adapter = train()
            finish(FOLDER, adapter)
    say(adapter=str(adapter))

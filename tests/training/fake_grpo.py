"""A stand-in for `otpy.training.grpo` in tests: it writes what it is told to, asks for rewards, and trains nothing.

python fake_grpo.py FOLDER

`script.json` in the folder's parent says `{"texts": [...], "die_at": [steps], "hang_at": step, "error": why}`.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

folder = Path(sys.argv[1])
script = json.loads((folder.parent / "script.json").read_text())
plan = json.loads((folder / "plan.json").read_text())
rows = [json.loads(line)["row"] for line in (folder / "prompts.jsonl").read_text().splitlines()]
state = folder / "state.json"
curve = json.loads(state.read_text()) if state.exists() else []
deaths = folder.parent / "deaths"


def say(**said):
    print(json.dumps(said), flush=True)  # noqa: T201 - its purpose


say(what="loading", step=len(curve), steps=plan["steps"])
if script.get("error"):
    say(error=script["error"])
    sys.exit()
for step in range(len(curve) + 1, plan["steps"] + 1):
    texts = [script["texts"][(step + n) % len(script["texts"])] for n in range(plan["rollouts"])]
    row = rows[step % len(rows)]
    say(ask=step, step=step, completions=[{"row": row, "text": text, "cut": False} for text in texts])
    if script.get("hang_at") == step:
        time.sleep(600)
    dead = deaths.read_text().split() if deaths.exists() else []
    if step in script.get("die_at", []) and str(step) not in dead:
        deaths.write_text(" ".join([*dead, str(step)]))
        os.kill(os.getpid(), signal.SIGKILL)
    answer = json.loads(input())
    while answer["ask"] != step:
        answer = json.loads(input())
    with (folder.parent / "rewards.jsonl").open("a") as kept:
        kept.write(json.dumps([step, answer["rewards"]]) + "\n")
    known = [reward for reward in answer["rewards"] if reward is not None]
    curve.append(sum(known) / len(known) if known else 0.0)
    state.write_text(json.dumps(curve))
    say(what="training", step=step, steps=plan["steps"], reward=curve[-1])
(folder / "curve.json").write_text(json.dumps(curve))
adapter = Path(plan["adapters"]) / f"{plan['base']}-0123456789ab.gguf"
adapter.parent.mkdir(parents=True, exist_ok=True)
adapter.write_text("no adapter")
(folder / "done.json").write_text(json.dumps({"adapter": str(adapter)}))
say(adapter=str(adapter))

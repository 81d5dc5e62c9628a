"""A GRPO run that is killed with -9 goes on from the last checkpoint of its program, which has not outlived it."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from otpy.testing import FakeProvider, Say

SCRIPT = Path(__file__).with_name("rewarded.py")


def answered(request):
    number = int(request.body["messages"][-1]["content"].split()[-1])
    return Say('{"parity": "odd"}' if number % 2 and request.body["model"] == "trained" else '{"parity": "even"}')


def start(tmp_path, url):
    return subprocess.Popen(
        [sys.executable, str(SCRIPT), str(tmp_path / "journal"), url],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "OTPY_CACHE_DIR": str(tmp_path)},
    )


def test_the_same_call_goes_on_from_the_checkpoint(tmp_path):
    folder = tmp_path / "training"
    folder.mkdir()
    script = {"texts": ['{"parity": "odd"}', '{"parity": "even"}']}
    (folder / "script.json").write_text(json.dumps({**script, "hang_at": 3}))
    kept = folder / "rewards.jsonl"
    with FakeProvider(answered) as fake:
        url = fake.url("openai_chat")
        with start(tmp_path, url) as process:
            until = time.monotonic() + 60
            while not kept.exists() or len(kept.read_text().splitlines()) < 2:
                assert time.monotonic() < until
                assert process.poll() is None, process.stderr.read().decode()[-2000:]
                time.sleep(0.02)
            os.kill(process.pid, signal.SIGKILL)
            process.communicate(timeout=30)
        asked = fake.counts.requests
        (folder / "script.json").write_text(json.dumps(script))
        with start(tmp_path, url) as process:
            out, err = process.communicate(timeout=60)
        assert (out.decode(), process.returncode) == ("acme/trained", 0), err.decode()[-2000:]
        assert asked == 4, "the student was measured, and the journal has it"
        assert fake.counts.requests == 8
    assert [json.loads(line)[0] for line in kept.read_text().splitlines()] == [1, 2, 3, 4]

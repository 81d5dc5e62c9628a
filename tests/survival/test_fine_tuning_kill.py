"""Killed with -9 at any request to the provider, the same call goes on with the same file and the same job."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from otpy.testing.fake_finetuning import FakeFineTuning

SCRIPT = Path(__file__).with_name("tuned.py")


def start(journal, url):
    arguments = [sys.executable, str(SCRIPT), str(journal), url]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def finished(journal, url):
    with start(journal, url) as process:
        out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err.decode()[-2000:]
    return out.decode()


@pytest.mark.parametrize("at", [2, 4, 6], ids=["upload", "create", "a look"])
def test_a_kill_makes_nothing_twice(tmp_path, at):
    reached = threading.Event()
    fake = FakeFineTuning(stages=("running", "succeeded"))
    fake.trouble = lambda _method, _path, number: reached.set() if number == at else None  # the answer still comes
    with fake.serving() as url, start(tmp_path / "journal", url) as process:
        assert reached.wait(30)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate(timeout=30)
        assert process.returncode == -signal.SIGKILL
        assert finished(tmp_path / "journal", url) == "openai/ft:gpt-x:otpy:1"
        asked = len(fake.requests)
        assert finished(tmp_path / "journal", url) == "openai/ft:gpt-x:otpy:1"
    assert (len(fake.files), len(fake.jobs)) == (1, 1)
    assert set(fake.requests[asked:]) == {"GET /fine_tuning/jobs/ftjob-1", "GET /fine_tuning/jobs/ftjob-1/events"}
    assert b"sk-of-this-test" not in (tmp_path / "journal").read_bytes()

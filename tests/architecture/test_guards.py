"""The test suite's own guards bite: a warning is an error, and what a test leaves running fails it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

PLANTED = {
    "a warning": ("import warnings; warnings.warn('old', DeprecationWarning)", "DeprecationWarning: old"),
    "a coroutine nobody awaited": ("async def f(): pass\n    f()\n    import gc; gc.collect()", "was never awaited"),
    "a thread": (
        "import threading; threading.Thread(target=threading.Event().wait, args=(4,), name='lingerer').start()",
        "left running: thread <Thread(lingerer",
    ),
    "a child process": (
        """import builtins, subprocess, sys
    builtins.kept = subprocess.Popen([sys.executable, '-c', 'input()'], stdin=subprocess.PIPE)""",
        "left running: child process",
    ),
    "a task": (
        """import asyncio, builtins; loop = asyncio.new_event_loop()
    builtins.kept = loop, loop.create_task(asyncio.sleep(9)); loop.run_until_complete(asyncio.sleep(0))""",
        "left running: asyncio task",
    ),
}


@pytest.mark.parametrize("what", PLANTED)
def test_a_test_fails_that_leaves_behind(what, tmp_path):
    if what == "a task" and sys.version_info >= (3, 14):
        pytest.skip("from Python 3.14 on, tasks of other loops cannot be listed")
    body, said = PLANTED[what]
    guards = (ROOT / "tests/conftest.py").read_text().replace("GRACE = 3.0", "GRACE = 0.1")
    (tmp_path / "conftest.py").write_text(guards)
    (tmp_path / "test_planted.py").write_text(f"def test_planted():\n    {body}\n")
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-c", ROOT / "pyproject.toml", "--rootdir", tmp_path, "test_planted.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert ran.returncode == 1, ran.stdout + ran.stderr
    assert said in ran.stdout

"""`kill -9` of the host leaves no interpreter behind, busy or idle."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from otpy.sandboxes import Limits, SandboxNotAvailable, engine

HOST = """
import asyncio, dataclasses, sys
from otpy.actors import named
from otpy.sandboxes import Limits, Sandbox, engine, pool
from otpy.supervisors import Supervisor

async def main():
    kind = dataclasses.replace(engine(sys.argv[1]), limits=Limits(seconds=3))
    async with Supervisor([pool(kind)]):
        desk = named(("sandboxes", kind)).whereis()
        async with Sandbox(desk) as idle, Sandbox(desk) as busy:
            await asyncio.gather(idle.run("x = 1"), busy.run("x = 1"))
            running = asyncio.ensure_future(busy.run("while True: pass"))
            await asyncio.sleep(0.2)
            print("up", flush=True)
            await running

asyncio.run(main())
"""


def descendants(root: int) -> set[int]:
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    found = {root}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {root}


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in {"Z", "X"}
    except OSError:
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize("name", ["monty", "bubblewrap", "pyodide"])
def test_no_interpreter_outlives_its_host(name):
    try:
        engine(name).check()
    except SandboxNotAvailable as error:
        pytest.skip(str(error))
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    host = subprocess.Popen([sys.executable, "-c", HOST, name], stdout=subprocess.PIPE, text=True, env=environment)
    assert host.stdout is not None
    with host.stdout:
        assert host.stdout.readline() == "up\n"
        left = descendants(host.pid)
    assert len(left) >= 2
    host.send_signal(signal.SIGKILL)
    host.wait()
    deadline = time.monotonic() + Limits(seconds=3).seconds + 5
    while any(map(runs, left)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not [pid for pid in left if runs(pid)]

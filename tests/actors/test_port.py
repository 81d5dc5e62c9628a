"""A port owns a program of the operating system, and neither outlives the other."""

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from otpy.actors import KILL, FirstLine, GenServer, OsPid, Port, PortExited, PortLine
from otpy.errors import StartFailed
from otpy.supervisors import Supervisor


def python(code):
    return [sys.executable, "-c", textwrap.dedent(code)]


WAITS = python("print('up', flush=True); input()")


def run(main):
    return asyncio.run(asyncio.wait_for(main(), 30))


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    try:  # a zombie that nobody has waited for yet is as dead as can be
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return True


def test_it_starts_when_the_first_line_is_there_and_stops_with_the_port():
    async def main():
        port = await Port.start(WAITS, first_line=True)
        assert await port.call(FirstLine()) == "up"
        pid = await port.call(OsPid())
        assert alive(pid)
        await port.stop()
        assert not alive(pid)

    run(main)


def test_a_program_that_ends_ends_its_port_with_its_status_and_last_words():
    async def main():
        port = await Port.start(python("import sys; print('up'); sys.exit('out of paper')"), first_line=True)
        reason = await port.join(10)
        assert isinstance(reason, PortExited)
        assert reason.status == 1
        assert "out of paper" in str(reason)

    run(main)


def test_a_killed_program_is_restarted_by_the_supervisor():
    async def main():
        async with Supervisor([Port.child_spec(WAITS, first_line=True, id="port")]) as tree:
            first = tree.child("port")
            pid = await first.call(OsPid())
            os.kill(pid, signal.SIGKILL)
            reason = await first.join(10)
            assert reason.status == -9
            await tree.settled()
            second = await tree.child("port").call(OsPid())
            assert second != pid
            assert alive(second)
        assert not alive(second)

    run(main)


def test_a_killed_port_takes_its_program_along():
    async def main():
        port = await Port.start(WAITS, first_line=True)
        pid = await port.call(OsPid())
        port.exit(KILL)
        deadline = time.monotonic() + 10
        while alive(pid) and time.monotonic() < deadline:  # noqa: ASYNC110 - only the system knows
            await asyncio.sleep(0)
        assert not alive(pid)

    run(main)


def test_a_program_that_ignores_the_request_is_killed_after_the_grace():
    async def main():
        stubborn = python("""
            import signal, time
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            print("up", flush=True)
            while True: time.sleep(1)
        """)
        port = await Port.start(stubborn, first_line=True, grace=0.1)
        pid = await port.call(OsPid())
        await port.stop()
        assert not alive(pid)

    run(main)


def test_lines_go_to_the_owner():
    class Owner(GenServer):
        def init(self):
            self.lines = []

        def handle_info(self, message):
            if isinstance(message, PortLine):
                self.lines.append(message.line)

        def handle_call(self, request, caller):
            return self.lines

    async def main():
        owner = await Owner.start()
        port = await Port.start(python("print('one'); print('two')"), owner=owner)
        await port.join(10)
        assert await owner.call("lines") == ["one", "two"]

    run(main)


@pytest.mark.parametrize(
    ("command", "arguments", "message"),
    [
        (["/no/such/program"], {}, "No such file"),
        (python("pass"), {"first_line": True}, "exited with status 0"),
        (
            python("import time; time.sleep(60)"),
            {"first_line": True, "start_timeout": 0.1},
            "wrote no line within 0.1 s",
        ),
    ],
    ids=["missing", "ends at once", "silent"],
)
def test_what_does_not_come_up_is_a_failed_start(command, arguments, message):
    async def main():
        with pytest.raises(StartFailed, match=message):
            await Port.start(command, **arguments)

    run(main)


def test_a_program_that_reads_its_input_leaves_when_python_is_killed():
    parent = subprocess.Popen(
        python("""
            import asyncio, sys
            from otpy.actors import OsPid, Port

            async def main():
                port = await Port.start([sys.executable, "-c", "print('up', flush=True); input()"], first_line=True)
                print(await port.call(OsPid()), flush=True)
                await asyncio.sleep(60)

            asyncio.run(main())
        """),
        stdout=subprocess.PIPE,
        text=True,
    )
    with parent:
        pid = int(parent.stdout.readline())
        assert alive(pid)
        parent.kill()
        parent.wait()
    deadline = time.monotonic() + 10
    while alive(pid) and time.monotonic() < deadline:
        os.sched_yield()
    assert not alive(pid), "the program outlived the Python process"

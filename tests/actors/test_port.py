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

from otpy.actors import KILL, FirstLine, GenServer, NoReply, OsPid, Port, PortExited, PortLine
from otpy.actors import port as port_module
from otpy.actors.port import SendLine
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
        return not Path("/proc/self").exists()  # where there is one, it has gone in between


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
        while alive(pid) and time.monotonic() < deadline:
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


def gone(*pids):
    """Wait until the system has no such processes."""
    deadline = time.monotonic() + 10
    while any(map(alive, pids)) and time.monotonic() < deadline:
        os.sched_yield()
    return not any(map(alive, pids))


STUBBORN = """
    import os, signal, subprocess, sys, time
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])  # it inherits what is ignored
    print(os.getpid(), child.pid, flush=True)
    time.sleep(600)
"""


def owner_of(command, then="await asyncio.sleep(600)"):
    """A Python process that owns a port and prints its first line."""
    return python(f"""
        import asyncio
        from otpy.actors import FirstLine, Port

        async def main():
            port = await Port.start({command!r}, first_line=True)
            print(await port.call(FirstLine()), flush=True)
            {then}

        asyncio.run(main())
    """)


def test_a_program_that_ignores_everything_is_killed_with_python_and_its_children_too():
    with subprocess.Popen(owner_of(python(STUBBORN)), stdout=subprocess.PIPE, text=True) as parent:
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        assert all(map(alive, pids))
        parent.kill()
        assert parent.wait() == -9
        assert gone(*pids), "the program outlived the Python process"


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's own tie")
def test_the_kernel_kills_it_even_if_somebody_has_killed_the_watcher():
    then = "print(port.process.actor._program.watcher, flush=True); await asyncio.sleep(600)"
    with subprocess.Popen(owner_of(python(STUBBORN), then), stdout=subprocess.PIPE, text=True) as parent:
        program, child = (int(pid) for pid in parent.stdout.readline().split())
        watcher = int(parent.stdout.readline())
        os.kill(watcher, signal.SIGKILL)
        assert gone(watcher)
        parent.kill()
        parent.wait()
        assert gone(program), "the program outlived the Python process"
        os.kill(child, signal.SIGKILL)  # which nobody was left to see to


def test_the_watcher_kills_it_where_the_kernel_does_not():
    life, hold = os.pipe()
    status, told = os.pipe()
    leash = Path(port_module.__file__).with_name("leash.py")
    code = f"import runpy, sys; sys.platform = 'elsewhere'; runpy.run_path({str(leash)!r}, run_name='__main__')"
    command = [sys.executable, "-I", "-S", "-c", code, *map(str, (os.getpid(), life, told)), "", *python(STUBBORN)]
    program = subprocess.Popen(command, pass_fds=(life, told), start_new_session=True, stdout=subprocess.PIPE)
    with program, os.fdopen(status, "rb") as said:
        os.close(life)
        os.close(told)
        watcher = int(said.read())
        pids = [int(pid) for pid in program.stdout.readline().split()]
        assert all(map(alive, (watcher, *pids)))
        os.close(hold)
        assert program.wait() == -signal.SIGKILL
        assert gone(watcher, *pids)


def test_the_watcher_leaves_with_an_orderly_end():
    async def main():
        port = await Port.start(WAITS, first_line=True)
        watcher = port.process.actor._program.watcher
        assert alive(watcher)
        await port.stop()
        return watcher

    assert gone(run(main))


def test_a_parent_that_is_gone_before_the_program_begins_is_noticed():
    status, told = os.pipe()
    life, hold = os.pipe()
    leash = str(Path(port_module.__file__).with_name("leash.py"))
    nobody = str(2**22 + 1)
    command = [sys.executable, "-I", "-S", leash, nobody, str(life), str(told), "", "/bin/echo", "began"]
    done = subprocess.run(command, pass_fds=(life, told), capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (1, b"")
    for descriptor in (status, told, life, hold):
        os.close(descriptor)


# -- the program is what was asked for --------------------------------------------------------------------------------


def shows(code, **options):
    async def main():
        lines = await Lines.start()
        port = await Port.start(python(code), owner=lines, **options)
        reason = await port.join(10)
        return (await lines.call("lines"))[0], getattr(reason, "status", 0)

    return run(main)


@pytest.mark.parametrize(
    ("end", "status"),
    [("sys.exit(7)", 7), ("os.kill(os.getpid(), signal.SIGSEGV)", -11), ("os.kill(os.getpid(), signal.SIGTERM)", -15)],
)
def test_its_status_and_its_signals_are_its_own(end, status):
    assert shows(f"import os, signal, sys; print('up', flush=True); {end}") == ("up", status)


@pytest.mark.parametrize("locale", [{}, {"LC_CTYPE": "C"}, {"LC_ALL": "C"}, {"LC_CTYPE": "C.UTF-8"}])
def test_its_environment_is_what_was_asked_for(locale):
    env = {"PATH": os.environ["PATH"], "EMPTY": "", "WORD": "wört", **locale}

    async def main():
        lines = await Lines.start()
        port = await Port.start(["/usr/bin/env"], env=env, owner=lines)
        await port.join(10)
        return dict(line.split("=", 1) for line in await lines.call("lines"))

    assert run(main) == env


def test_it_inherits_no_file_and_no_ignored_signal():
    code = """
        import os, signal
        files = [n for n in range(3, 256) if os.path.exists(f"/proc/self/fd/{n}") and os.get_inheritable(n)]
        ignored = int(next(line for line in open("/proc/self/status") if line.startswith("SigIgn")).split()[1], 16)
        print(files, [n for n in (signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD) if ignored >> (n - 1) & 1])
    """
    if sys.platform == "linux":
        assert shows(code)[0] == "[] []"


def test_sigpipe_is_not_ignored():
    async def main():
        lines = await Lines.start()
        port = await Port.start(["/bin/sh", "-c", "sh -c 'kill -PIPE $$; echo ignored'; echo $?"], owner=lines)
        await port.join(10)
        return await lines.call("lines")

    assert run(main) == [str(128 + signal.SIGPIPE)]


def test_what_it_leaves_behind_is_ended_with_it():
    async def main():
        code = "import subprocess as s; print(s.Popen(['/bin/sleep', '600']).pid)"  # it holds the pipes open, too
        lines = await Lines.start()
        port = await Port.start(python(code), owner=lines)
        await port.join(10)
        return int((await lines.call("lines"))[0])

    assert gone(run(main))


def test_a_stop_ends_its_children_with_it():
    async def main():
        port = await Port.start(python(STUBBORN), first_line=True, grace=0.05)
        pids = [int(pid) for pid in (await port.call(FirstLine())).split()]
        await port.stop()
        return pids

    assert gone(*run(main))


# -- lines ------------------------------------------------------------------------------------------------------------

ECHO = python("import sys\nfor line in sys.stdin: print(line, end='', flush=True)")


class Lines(GenServer):
    def init(self, expected=None):
        self.lines, self.expected, self.waiting = [], expected, None

    def handle_info(self, message):
        self.lines.append(message.line if message.complete else (message.line,))
        if self.waiting is not None and len(self.lines) == self.expected:
            self.waiting.reply(self.lines)

    def handle_call(self, request, caller):
        if self.expected is None or len(self.lines) == self.expected:
            return self.lines
        self.waiting = caller
        return NoReply()


def test_lines_can_be_sent_and_come_in_order():
    async def main():
        lines = await Lines.start(3)
        port = await Port.start(ECHO, owner=lines)
        for line in ("one", "", "drei: ß"):
            await port.call(SendLine(line))
        assert await lines.call("lines") == ["one", "", "drei: ß"]
        await port.stop()

    run(main)


def test_a_line_larger_than_the_pipe_waits_for_the_program_without_holding_up_the_loop():
    line = "x" * 1_000_000

    async def main():
        lines = await Lines.start(2)
        port = await Port.start(ECHO, owner=lines)
        sent = port.call(SendLine(line), None)
        await asyncio.gather(sent, port.call(SendLine("after"), None))
        assert await lines.call("lines") == [line, "after"]
        await port.stop()

    run(main)


@pytest.mark.parametrize("line", ["two\nlines", "x" * 100])
def test_what_is_no_line_of_the_length_allowed_is_refused_and_the_port_lives(line):
    async def main():
        port = await Port.start(ECHO, max_line=100)
        with pytest.raises(ValueError, match="at most 100 bytes"):
            await port.call(SendLine(line))
        await port.call(SendLine("x" * 99))
        await port.stop()

    run(main)


def test_a_line_nobody_reads_fails_when_the_program_ends():
    async def main():
        port = await Port.start(python("import time; print('up', flush=True); time.sleep(600)"), first_line=True)
        sent = port.call(SendLine("x" * 1_000_000), None)
        os.kill(await port.call(OsPid()), signal.SIGKILL)
        with pytest.raises(BrokenPipeError):
            await sent
        await port.join(10)

    run(main)


def test_output_without_an_end_comes_in_pieces_and_no_letter_is_cut():
    async def main():
        lines = await Lines.start()
        code = "import sys; sys.stdout.buffer.write('ääääää\\nok\\nlast'.encode())"
        port = await Port.start(python(code), owner=lines, max_line=5)
        await port.join(10)
        return await lines.call("lines")

    assert run(main) == [("ää",), ("äää",), "ä", "ok", "last"]


def test_the_last_words_are_bounded_too():
    async def main():
        code = "import sys; sys.stderr.write('x' * 1000); sys.exit(3)"
        port = await Port.start(python(code), max_line=10)
        return await port.join(10)

    assert run(main).output == "\n".join(["x" * 10] * 5)


def test_a_program_that_has_closed_its_input_is_an_error_to_whoever_writes_and_to_nobody_else():
    uvloop = pytest.importorskip("uvloop")  # its loops end the whole of Python over a file that is closed while watched
    deaf = "import os, time; os.close(0); print('up', flush=True); time.sleep(60)"

    async def main():
        port = await Port.start([sys.executable, "-c", deaf], first_line=True)
        for _ in range(3):
            with pytest.raises(BrokenPipeError):
                await port.call(SendLine("hello"), 5)
            await asyncio.sleep(0.01)
        await port.stop()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())

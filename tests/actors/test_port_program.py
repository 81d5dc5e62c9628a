"""What a port may be asked to run, where, with which streams; and what many of them, or a failed one, leave behind."""

import asyncio
import contextlib
import gc
import os
import signal
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from otpy.actors import FirstLine, GenServer, OsPid, Port, PortExited, SendLine
from otpy.errors import StartFailed


def python(code):
    return [sys.executable, "-c", textwrap.dedent(code)]


def run(main):
    return asyncio.run(asyncio.wait_for(main(), 60))


class Sink(GenServer):
    def init(self):
        self.lines = []

    def handle_info(self, message):
        self.lines.append(message.line)

    def handle_call(self, request, caller):
        return self.lines


def failed_start(command, **options):
    async def main():
        with pytest.raises(StartFailed) as failed:
            await Port.start(command, **options)
        return failed.value.reason

    return run(main)


def said(command, **options):
    """The lines of a program and why its port ended."""

    async def main():
        sink = await Sink.start()
        port = await Port.start(command, owner=sink, **options)
        reason = await port.join(20)
        return await sink.call("lines"), reason

    return run(main)


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("echo hi", r"shlex.split\('echo hi'\).*\['sh', '-c', 'echo hi'\]"),
        ([], "is empty"),
        (["echo", 3], "has 3 in it"),
        ([b"echo"], "has b'echo' in it"),
        (None, "command=None; allowed: a list"),
        (iter(["echo"]), "allowed: a list"),
    ],
    ids=["string", "empty", "number", "bytes", "none", "iterator"],
)
def test_what_is_no_list_of_words_is_refused(command, message):
    reason = failed_start(command)
    assert isinstance(reason, (TypeError, ValueError))
    with pytest.raises(type(reason), match=message):
        raise reason


@pytest.mark.parametrize("options", [{"stderr": "nowhere"}, {"max_line": 0}])
def test_an_option_without_a_meaning_is_refused(options):
    assert isinstance(failed_start(["true"], **options), ValueError)


@pytest.mark.parametrize("program", ["/no/such/program", "no-such-program"])
def test_a_program_that_is_not_there_is_named(program):
    reason = failed_start([program, "argument"])
    assert isinstance(reason, FileNotFoundError)
    assert reason.filename == program
    assert program in str(reason)


def test_a_directory_that_is_not_there_is_named():
    reason = failed_start(["true"], cwd="/no/such/directory")
    assert isinstance(reason, FileNotFoundError)
    assert reason.filename == "/no/such/directory"


def test_a_path_is_a_word():
    assert said([Path("/bin/echo"), Path("hi")])[0] == ["hi"]


@pytest.mark.parametrize("kind", [str, Path])
def test_it_runs_where_it_is_asked_to(tmp_path, kind):
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\npwd -P\n")
    program.chmod(0o755)
    assert said(["./program"], cwd=kind(tmp_path))[0] == [str(tmp_path.resolve())]


def test_standard_error_is_kept_for_the_report():
    lines, reason = said(["sh", "-c", "echo out; echo err >&2; exit 3"])
    assert lines == ["out"]
    assert isinstance(reason, PortExited)
    assert (reason.status, reason.output) == (3, "err")


def test_standard_error_can_be_among_the_lines_and_in_their_order():
    lines, reason = said(["sh", "-c", "echo one; echo two >&2; echo three; exit 3"], stderr="lines")
    assert lines == ["one", "two", "three"]
    assert reason.output == ""


def test_only_the_end_of_a_line_is_cut_off():
    lines, _ = said(python(r"import sys; sys.stdout.buffer.write(b'one\r\ntwo\r\r\n\n  three \n')"))
    assert lines == ["one", "two\r", "", "  three "]


@pytest.mark.parametrize("line", [b"bytes", None, "half a letter: \ud800"], ids=["bytes", "none", "surrogate"])
def test_what_cannot_be_written_is_refused_and_the_port_lives(line):
    async def main():
        port = await Port.start(["cat"])
        with pytest.raises((TypeError, ValueError)):
            await port.call(SendLine(line))
        await port.call(SendLine("fine"))
        await port.stop()

    run(main)


# -- nothing is left --------------------------------------------------------------------------------------------------


def descriptors():
    gc.collect()
    return sorted(Path("/proc/self/fd").iterdir())


async def no_threads():
    for thread in threading.enumerate():
        if thread.name.startswith("otpy-port-"):
            await asyncio.to_thread(thread.join, 10)
            assert not thread.is_alive()


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
def test_two_hundred_ports_leave_no_file_and_no_thread():
    async def main():
        await asyncio.to_thread(int)
        before = descriptors()
        ports = await asyncio.gather(*[Port.start(["cat"]) for _ in range(200)])
        assert len({await port.call(OsPid()) for port in ports}) == 200
        for port in ports[::2]:
            port.exit("kill")
        await asyncio.gather(*[port.stop() for port in ports[1::2]])
        await no_threads()
        assert descriptors() == before

    run(main)


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
@pytest.mark.parametrize(
    ("command", "options"),
    [(["/no/such/program"], {}), (["true"], {"cwd": "/no/such"}), (["sleep", "60"], {"start_timeout": 0.05})],
    ids=["program", "directory", "silent"],
)
def test_a_failed_start_leaves_no_file_and_no_thread(command, options):
    async def main():
        await asyncio.to_thread(int)
        before = descriptors()
        for _ in range(3):
            with pytest.raises(StartFailed):
                await Port.start(command, first_line=True, **options)
        await no_threads()
        assert descriptors() == before

    run(main)


def test_a_system_without_threads_to_give_fails_the_start_and_keeps_no_program(monkeypatch):
    async def main():
        await asyncio.to_thread(int)
        before = descriptors()
        started, left = threading.Thread.start, [2]

        def start(thread):
            if thread.name.startswith("otpy-port-"):
                left[0] -= 1
                if left[0] < 0:
                    raise RuntimeError("can't start new thread")
            started(thread)

        with monkeypatch.context() as patched:
            patched.setattr(threading.Thread, "start", start)
            with pytest.raises(StartFailed, match="can't start new thread"):
                await Port.start(["cat"])
        await no_threads()
        assert descriptors() == before

    run(main)


def test_a_program_that_somebody_else_has_reaped_ends_its_port_all_the_same():
    async def main():
        port = await Port.start(["cat"])
        pid = await port.call(OsPid())
        reaping = asyncio.create_task(asyncio.to_thread(os.waitpid, pid, 0))
        os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):  # the port was first
            await reaping
        await port.join(10)
        await no_threads()

    run(main)


def test_the_first_line_counts_with_standard_error_too():
    async def main():
        port = await Port.start(["sh", "-c", "echo ready >&2; read x"], stderr="lines", first_line=True)
        assert await port.call(FirstLine()) == "ready"
        await port.stop()

    run(main)

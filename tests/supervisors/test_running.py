"""`run`: a tree as the whole program, in a real process with real signals."""

import signal
import subprocess
import sys
import textwrap

import pytest

from otpy.actors import GenServer, Task
from otpy.errors import MaxRestartsReached, StartFailed
from otpy.supervisors import Supervisor, run

PROGRAM = """
    import asyncio, sys
    from otpy.actors import GenServer
    from otpy.supervisors import Supervisor, run

    class Daemon(GenServer):
        trap_exit = True

        async def init(self, slow=0.0):
            print("starting", flush=True)
            await asyncio.sleep(slow)
            print("up", flush=True)

        async def terminate(self, reason):
            print("cleaning up", flush=True)
            await asyncio.sleep({cleaning})
            print("clean", flush=True)

    ended = run(Supervisor([Daemon.child_spec({slow}, shutdown=20.0)]))
    print(ended.name)
"""


class Started:
    """The program above, line by line."""

    def __init__(self, **values):
        code = textwrap.dedent(PROGRAM).format(**{"slow": 0.0, "cleaning": 0.0, **values})
        self.process = subprocess.Popen(
            [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def until(self, line):
        for seen in self.process.stdout:
            if seen.strip() == line:
                return
        raise AssertionError(f"{line!r} never came: {self.process.stderr.read()}")

    def rest(self):
        out, err = self.process.communicate(timeout=20)
        return out.split("\n"), err, self.process.returncode


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_the_tree_in_order_and_the_program_goes_on(number):
    program = Started()
    program.until("up")
    program.process.send_signal(number)
    out, err, code = program.rest()
    assert out == ["cleaning up", "clean", number.name, ""]
    assert (err, code) == ("", 0)


def test_a_second_sigterm_cuts_no_cleanup_short():
    program = Started(cleaning=0.5)
    program.until("up")
    program.process.send_signal(signal.SIGTERM)
    program.until("cleaning up")
    program.process.send_signal(signal.SIGTERM)
    out, err, code = program.rest()
    assert out == ["clean", "SIGTERM", ""]
    assert "SIGTERM again" in err
    assert code == 0


def test_a_second_ctrl_c_kills_the_tree():
    program = Started(cleaning=60)
    program.until("up")
    program.process.send_signal(signal.SIGINT)
    program.until("cleaning up")
    program.process.send_signal(signal.SIGINT)
    out, _, code = program.rest()
    assert (out, code) == (["SIGINT", ""], 0)


def test_a_signal_while_it_starts_ends_the_start():
    program = Started(slow=60)
    program.until("starting")
    program.process.send_signal(signal.SIGTERM)
    out, err, code = program.rest()
    assert (out, err, code) == (["SIGTERM", ""], "", 0)


class Crashes(GenServer):
    def init(self, *, at_once=False):
        if at_once:
            raise KeyError("no disk")
        self.ref.send("crash")

    def handle_info(self, message):
        raise KeyError("disk gone")


async def work():
    return None


def test_a_tree_that_gives_up_says_why():
    with pytest.raises(MaxRestartsReached, match=r"child 'disk'.*last reason was KeyError") as caught:
        run(Supervisor([Crashes.child_spec(id="disk")], max_restarts=2))
    assert isinstance(caught.value.__cause__, KeyError)


def test_a_tree_that_does_not_start_says_why():
    with pytest.raises(StartFailed, match="no disk"):
        run(Supervisor([Crashes.child_spec(at_once=True)]))


def test_a_tree_that_ends_by_itself_ends_the_program():
    job = Task.child_spec(work, restart="transient", significant=True)
    assert run(Supervisor([job], auto_shutdown="any_significant")) is None


def test_the_handlers_are_given_back():
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    run(Supervisor([Task.child_spec(work, restart="transient", significant=True)], auto_shutdown="any_significant"))
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


def test_what_is_no_supervisor_is_refused():
    with pytest.raises(TypeError, match=r"allowed is a Supervisor"):
        run([Crashes.child_spec()])

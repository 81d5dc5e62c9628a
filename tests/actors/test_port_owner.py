"""A port's lines reach their owner at the owner's pace, and the port keeps to its owner as Erlang's ports do."""

import asyncio
import logging
import os
import sys
import textwrap
import threading
import time

import pykka
import pytest

from otpy.actors import (
    KILL,
    ExitMessage,
    FirstLine,
    GenServer,
    Mailbox,
    Names,
    Node,
    Port,
    PortExited,
    PortLine,
    Registry,
    SendLine,
    Shutdown,
    Stop,
    names_context,
    port_lines,
    port_program,
)
from otpy.actors.named import named
from otpy.errors import ActorDown, MailboxFull, NotRegistered, StartFailed
from otpy.supervisors import Supervisor


def python(code):
    return [sys.executable, "-c", textwrap.dedent(code)]


COUNTS = python("import sys\nfor n in range(int(sys.argv[1])): print(n)")
WAITS = python("print('up', flush=True); input()")
ECHO = python("import sys\nfor line in sys.stdin: print(line, end='', flush=True)")


def count(lines):
    return [*COUNTS, str(lines)]


@pytest.fixture(autouse=True)
def _nothing_escapes_into_the_loop(caplog):
    """No exception ever in a callback of the loop."""
    yield
    assert not [record for record in caplog.records if record.name == "asyncio"]


def run(main):
    return asyncio.run(asyncio.wait_for(main(), 30))


class Sink(GenServer):
    """Keeps lines, and takes one only when its gate, if it has one, is open."""

    def init(self, gate=None, into=None):
        self.gate, self.lines = gate, [] if into is None else into

    async def handle_info(self, message):
        if isinstance(message, PortLine):
            if self.gate is not None:
                await self.gate.wait()
            self.lines.append(message.line)

    def handle_call(self, request, caller):
        if request == "crash":
            return Stop(RuntimeError("crashed"))
        return self.lines


def narrow(overflow, capacity=10):
    return type("Narrow", (Sink,), {"mailbox": Mailbox(capacity, overflow=overflow)})


async def until(condition):
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.001)


# -- pace -------------------------------------------------------------------------------------------------------------


def test_an_owner_that_lets_senders_wait_gets_every_line_in_order():
    async def main():
        sink = await narrow("wait").start()
        port = await Port.start(count(2000), owner=sink)
        await port.join()
        assert await sink.call("lines") == [str(n) for n in range(2000)]

    run(main)


def test_a_program_waits_while_its_owner_takes_nothing():
    """So many lines are on their way, and no more, however many the program has."""

    async def main():
        gate = asyncio.Event()
        sink = await narrow("wait").start(gate)
        wordy = python("""
            import sys
            for n in range(2000):
                print("x" * 10_000, flush=True)
                print(n, file=sys.stderr, flush=True)
        """)
        port = await Port.start(wordy, owner=sink, first_line=True)
        program = port.process.actor._program
        await until(lambda: program.lines.full)
        said = None
        while said != program.last_words:  # it says no more: it is stuck in a write
            said = program.last_words
            await asyncio.sleep(0.2)
        assert int(said.rsplit("\n", 1)[-1]) < 300
        gate.set()
        assert isinstance(await port.join(), Shutdown)
        assert len(await sink.call("lines", None)) == 2000

    run(main)


def test_what_an_ended_program_has_written_is_given_however_long_the_owner_takes(monkeypatch):
    monkeypatch.setattr(port_program, "_PATIENCE", 0.3)

    async def main():
        gate = asyncio.Event()
        sink = await narrow("wait", 1).start(gate)
        port = await Port.start(count(1000), owner=sink)
        await until(port.process.actor._program.gone.done)
        await asyncio.sleep(0.7)  # longer than a silent pipe would be waited for
        assert port.is_alive()
        gate.set()
        assert isinstance(await port.join(), Shutdown)
        assert len(await sink.call("lines", None)) == 1000

    run(main)


def test_a_full_owner_that_refuses_ends_the_port_and_the_supervisor_sees_why():
    async def main():
        sink = await narrow("refuse").start(asyncio.Event())
        port = await Port.start(count(100), owner=sink)
        assert isinstance(await port.join(), MailboxFull)
        assert sink.is_alive()
        sink.exit(KILL)

    run(main)


def test_an_owner_that_refuses_but_keeps_up_is_never_full():
    async def main():
        sink = await narrow("refuse").start()
        port = await Port.start(count(2000), owner=sink)
        assert isinstance(await port.join(), Shutdown)
        assert len(await sink.call("lines")) == 2000

    run(main)


def test_an_owner_that_drops_the_oldest_has_the_newest():
    async def main():
        gate = asyncio.Event()
        sink = await narrow("drop_oldest").start(gate)
        port = await Port.start(count(100), owner=sink)
        assert isinstance(await port.join(), Shutdown)
        sink.process.actor.gate.set()
        await until(lambda: sink.process.queued() == 0)
        assert (await sink.call("lines"))[-9:] == [str(n) for n in range(91, 100)]

    run(main)


def test_an_owner_on_another_loop_is_waited_for_too():
    with Node() as node:
        sink = node.run(narrow("wait").start())

        async def main():
            port = await Port.start(count(1000), owner=sink)
            await port.join()
            return await sink.call("lines")

        assert run(main) == [str(n) for n in range(1000)]


def test_a_port_whose_owner_is_stuck_still_stops():
    async def main():
        sink = await narrow("wait").start(asyncio.Event())
        port = await Port.start(count(10_000), owner=sink, first_line=True, grace=0.1)
        threads = [thread for thread in threading.enumerate() if thread.name.startswith("otpy-port-")]
        await port.stop()
        for thread in threads:
            await asyncio.to_thread(thread.join, 10)
            assert not thread.is_alive()
        sink.exit(KILL)

    run(main)


def test_two_hundred_thousand_lines_take_seconds():
    class Counter(GenServer):
        def init(self):
            self.count, self.last = 0, None

        def handle_info(self, message):
            self.count, self.last = self.count + 1, message.line

        def handle_call(self, request, caller):
            return self.count, self.last

    async def main():
        counter = await Counter.start()
        port = await Port.start(["seq", "200000"], owner=counter)
        await port.join(20)
        assert await counter.call("count") == (200_000, "200000")

    run(main)


def test_a_line_without_an_end_needs_no_memory_to_speak_of():
    code = """
        import asyncio, resource
        from otpy.actors import GenServer, Port

        class Counter(GenServer):
            def init(self): self.letters = 0
            def handle_info(self, message): self.letters += len(message.line)
            def handle_call(self, request, caller): return self.letters

        async def main():
            counter = await Counter.start()
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            port = await Port.start(["head", "-c", "200000000", "/dev/zero"], owner=counter)
            await port.join()
            after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            print(await counter.call("letters"), (after - before) // 1024, flush=True)

        asyncio.run(main())
    """

    async def main():
        sink = await Sink.start()
        port = await Port.start(python(code), owner=sink)
        await port.join()
        return (await sink.call("lines"))[0].split()

    letters, megabytes = map(int, run(main))
    assert letters == 200_000_000
    assert megabytes < 40


# -- by name ----------------------------------------------------------------------------------------------------------


def test_an_owner_by_name_that_is_restarted_gets_the_following_lines():
    async def main():
        children = [Sink.child_spec(name="sink"), Port.child_spec(ECHO, owner="sink", id="port")]
        async with Supervisor(children) as tree:
            port, first = tree.child("port"), tree.child("sink")
            await port.call(SendLine("one"))
            await until(lambda: first.process.actor.lines == ["one"])
            logging.disable()
            with pytest.raises(ActorDown):
                await first.call("crash")
            logging.disable(logging.NOTSET)
            await port.call(SendLine("two"))
            await tree.settled()
            second = tree.child("sink")
            assert second != first
            await until(lambda: second.process.actor.lines == ["two"])
            assert tree.child("port") == port

    run(main)


def test_lines_wait_while_nobody_has_the_name():
    async def main():
        port = await Port.start(count(1000), owner="late")
        await until(lambda: port.process.actor._program.lines.full)
        sink = await Sink.start(name="late")
        await port.join()
        assert await sink.call("lines") == [str(n) for n in range(1000)]

    run(main)


def test_a_full_owner_by_name_that_ends_leaves_the_waiting_line_to_the_next():
    async def main():
        first = await narrow("wait", 1).start(asyncio.Event(), name="sink")
        port = await Port.start(count(10), owner="sink")
        await until(lambda: first.process._outside)
        first.exit(KILL)
        await first.join()
        second = await Sink.start(name="sink")
        await port.join()
        lines = await second.call("lines")
        assert len(lines) in {8, 9}  # one was in the first one's hands, and perhaps one in its mailbox
        assert lines == [str(n) for n in range(10)][-len(lines) :]

    run(main)


def test_an_owner_may_be_a_key_of_a_registry():
    async def main():
        registry = await Registry.start(name="registry")
        port = await Port.start(count(3), owner=registry.via("sink"))
        sink = await Sink.start(name=registry.via("sink"))
        await port.join()
        assert await sink.call("lines") == ["0", "1", "2"]

    run(main)


def test_a_key_that_a_running_process_takes_is_found_too(monkeypatch):
    monkeypatch.setattr(port_lines, "_LOOK_AGAIN", 0.01)

    async def main():
        registry = await Registry.start(name="registry")
        port = await Port.start(count(3), owner=registry.via("sink"))
        sink = await Sink.start()
        await until(port.process.actor._program.gone.done)
        registry.register("sink", None, sink)
        await port.join()
        assert await sink.call("lines") == ["0", "1", "2"]

    run(main)


def test_the_name_is_looked_up_where_the_port_was_started():
    async def main():
        names = Names()
        before = names_context.set(names)
        port = await Port.start(count(3), owner="sink")
        inner = await Sink.start(name="sink")
        names_context.reset(before)
        outer = await Sink.start(name="sink")
        await port.join()
        assert (await inner.call("lines"), await outer.call("lines")) == (["0", "1", "2"], [])

    run(main)


def test_a_port_without_anybody_of_the_name_stops_at_once():
    async def main():
        port = await Port.start(count(1000), owner="nobody", first_line=True, grace=60.0)
        assert await port.call(FirstLine()) == "0"
        async with asyncio.timeout(5):
            await port.stop()

    run(main)


@pytest.mark.parametrize("owner", [7, named(7)], ids=["plain", "named"])
def test_any_hashable_is_a_name(owner):
    async def main():
        sink = await Sink.start(name=7)
        port = await Port.start(count(1), owner=owner)
        await port.join()
        assert await sink.call("lines") == ["0"]

    run(main)


class Plain(pykka.ThreadingActor):
    pass


@pytest.mark.parametrize("owner", [["sink"], {}, Sink(), Plain], ids=["list", "dict", "actor", "foreign"])
def test_what_is_neither_a_reference_nor_a_name_is_refused(owner):
    foreign = owner.start() if owner is Plain else owner

    async def main():
        with pytest.raises(StartFailed, match="allowed: a Ref") as failed:
            await Port.start(WAITS, owner=foreign)
        assert isinstance(failed.value.reason, TypeError)

    run(main)
    if owner is Plain:
        foreign.stop()


# -- with its owner ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reason", ["normal", "shutdown", KeyError("x")])
def test_a_port_ends_with_its_owner_and_for_the_same_reason(reason):
    async def main():
        sink = await Sink.start()
        port = await Port.start(WAITS, owner=sink, first_line=True)
        await sink.stop(reason)
        assert await port.join(10) == reason

    run(main)


def test_a_port_whose_owner_was_killed_says_so():
    async def main():
        sink = await Sink.start()
        port = await Port.start(WAITS, owner=sink)
        sink.exit(KILL)
        assert await port.join(10) == "killed"

    run(main)


def test_a_port_in_the_middle_of_its_lines_ends_with_a_full_owner():
    async def main():
        sink = await narrow("wait").start(asyncio.Event())
        port = await Port.start(count(10_000), owner=sink)
        await until(lambda: port.process.actor._program.lines.full)
        sink.exit("enough")
        assert await port.join(10) == "enough"

    run(main)


def test_an_owner_that_is_dead_already_is_refused():
    async def main():
        sink = await Sink.start()
        await sink.stop()
        with pytest.raises(StartFailed, match="noproc"):
            await Port.start(WAITS, owner=sink)

    run(main)


def test_a_server_may_own_the_port_it_starts_in_its_init():
    class Shell(GenServer):
        trap_exit = True
        mailbox = Mailbox(5, overflow="wait")

        async def init(self, command):
            self.said, self.why = [], None
            self.port = await Port.start_link(command, owner=self.ref, first_line=True)

        def handle_info(self, message):
            match message:
                case PortLine():
                    self.said.append(message.line)
                case ExitMessage():
                    self.why = message.reason

    async def main():
        shell = await Shell.start(count(50))
        state = shell.process.actor
        await until(lambda: state.why is not None)
        assert state.said == [str(n) for n in range(50)]
        assert state.why.detail.status == 0

        shell = await Shell.start(WAITS)
        port = shell.process.actor.port
        await shell.stop()
        assert await port.join(10) == "normal"

    run(main)


def test_an_exit_signal_ends_a_port_unless_it_is_normal():
    async def main():
        port = await Port.start(ECHO)
        port.exit("normal")
        await port.call(SendLine("still there"))
        port.exit("enough")
        assert await port.join(10) == "enough"

    run(main)


def test_a_loop_that_ends_takes_its_ports_along():
    async def main():
        port = await Port.start(["sh", "-c", "echo up; exec sleep 600"], first_line=True)
        return port, port.process.actor._program

    port, program = run(main)
    deadline = time.monotonic() + 10
    while program._popen.returncode is None and time.monotonic() < deadline:
        os.sched_yield()
    assert program._popen.returncode == -9
    assert port.exit_reason == "killed"


# -- status -----------------------------------------------------------------------------------------------------------


def test_status_0_is_no_abnormal_end_so_a_transient_port_is_not_restarted():
    async def main():
        spec = Port.child_spec(python("print('done')"), id="port", restart="transient")
        async with Supervisor([spec]) as tree:
            port = tree.child("port")
            reason = await port.join(10)
            assert isinstance(reason, Shutdown)
            assert isinstance(reason.detail, PortExited)
            assert reason.detail.status == 0
            await tree.settled()
            with pytest.raises(NotRegistered, match="down"):
                tree.child("port")

    run(main)

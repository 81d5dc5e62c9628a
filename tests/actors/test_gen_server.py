"""A GenServer keeps the contract of gen_server(3)."""

import asyncio
from dataclasses import dataclass

import pytest

from otpy.actors import (
    IGNORE,
    KILL,
    KILLED,
    NOPROC,
    NORMAL,
    SHUTDOWN,
    TIMEOUT,
    BadReturnValue,
    Call,
    Down,
    Exit,
    ExitMessage,
    GenServer,
    Ignore,
    NoReply,
    Reply,
    Stop,
    Timeout,
    demonitor,
    link,
    monitor,
    send_after,
    whereis,
)
from otpy.errors import ActorDown, AlreadyRegistered, CallTimeout, StartFailed
from otpy.testing import run_in_virtual_time


@dataclass(frozen=True)
class Do(Call[object]):
    """Carries the code that the server's callback runs."""

    code: object


class Server(GenServer):
    """Runs what it is sent; `log` remembers what happened."""

    def init(self, log=None, *, trap_exit=False, outcome=None):
        self.log = [] if log is None else log
        self.trap_exit = trap_exit
        return outcome

    def handle_call(self, request, caller):
        if isinstance(request, Do):
            return request.code(self, caller)
        return request

    def handle_cast(self, message):
        self.log.append(("cast", message))
        return message(self) if callable(message) else None

    def handle_info(self, message):
        self.log.append(("info", message))

    def handle_continue(self, argument):
        self.log.append(("continue", argument))

    def terminate(self, reason):
        self.log.append(("terminate", reason))


class AsyncServer(Server):
    async def handle_call(self, request, caller):
        result = super().handle_call(request, caller)
        return await result if asyncio.iscoroutine(result) else result


both = pytest.mark.parametrize("kind", [Server, AsyncServer])


def run(main):
    return run_in_virtual_time(main())


@both
def test_a_call_is_answered_by_what_the_callback_returns(kind):
    async def main():
        server = await kind.start()
        assert await server.call("hello") == "hello"
        assert await server.call(Do(lambda self, caller: Reply("wrapped"))) == "wrapped"

    run(main)


@both
def test_messages_are_handled_one_at_a_time_in_the_order_sent(kind):
    async def main():
        server = await kind.start()
        for number in range(200):
            server.cast(number)
        server.send("last")
        await server.call("settled")
        assert server.process.actor.log == [("cast", number) for number in range(200)] + [("info", "last")]

    run(main)


@both
def test_an_exception_ends_the_server_and_the_caller_hears_the_reason(kind):
    async def main():
        log = []
        server = await kind.start(log)
        error = LookupError("nothing here")

        def fail(self, caller):
            raise error

        with pytest.raises(ActorDown) as caught:
            await server.call(Do(fail))
        assert caught.value.reason is error
        assert caught.value.__cause__ is error
        assert await server.join() is error
        assert log == [("terminate", error)]

    run(main)


def test_calls_waiting_in_the_mailbox_hear_of_the_crash_too():
    async def main():
        server = await Server.start()

        def fail(self, caller):
            raise ValueError

        first, second = server.call(Do(fail)), server.call("never reached")
        for call in (first, second):
            with pytest.raises(ActorDown):
                await call

    run(main)


def test_a_call_to_a_dead_server_is_refused_at_once():
    async def main():
        server = await Server.start()
        await server.stop()
        with pytest.raises(ActorDown) as caught:
            await server.call("anybody?", None)
        assert caught.value.reason == NOPROC

    run(main)


@both
def test_a_reply_may_come_later_from_anywhere(kind):
    async def main():
        server = await kind.start()
        kept = []

        def keep(self, caller):
            kept.append(caller)
            return NoReply()

        waiting = server.call(Do(keep))
        assert await server.call("still serving") == "still serving"
        kept[0].reply("at last")
        assert await waiting == "at last"
        kept[0].reply("twice")  # dropped

    run(main)


def test_a_caller_can_be_answered_with_an_error_and_the_server_lives_on():
    async def main():
        server = await Server.start()

        def refuse(self, caller):
            caller.fail(PermissionError("not you"))
            return NoReply()

        with pytest.raises(PermissionError):
            await server.call(Do(refuse))
        assert server.is_alive()

    run(main)


def test_whoever_waits_for_a_late_answer_hears_of_the_death():
    async def main():
        server = await Server.start()
        waiting = server.call(Do(lambda self, caller: NoReply()), None)
        await server.call("settled")
        server.exit(KILL)
        with pytest.raises(ActorDown) as caught:
            await waiting
        assert caught.value.reason == KILLED

    run(main)


def test_a_delegated_caller_hears_of_the_delegates_death_and_not_of_the_servers():
    async def main():
        server, worker = await Server.start(), await Server.start()

        def hand_over(self, caller):
            caller.delegate(worker)
            return NoReply()

        waiting = server.call(Do(hand_over), None)
        await server.call("settled")
        await server.stop()
        assert not waiting.done()
        worker.exit("worn out")
        with pytest.raises(ActorDown) as caught:
            await waiting
        assert caught.value.reason == "worn out"

    run(main)


def test_a_call_times_out_and_the_late_answer_is_dropped():
    async def main():
        server = await AsyncServer.start()

        async def slow(self, caller):
            await asyncio.sleep(10)
            return "late"

        with pytest.raises(CallTimeout) as caught:
            await server.call(Do(slow), timeout=3)
        assert caught.value.timeout == 3
        assert await server.call("next", timeout=30) == "next"

    run(main)


def test_a_cancelled_caller_is_noticed():
    async def main():
        server = await Server.start()
        gone = []

        def watch(self, caller):
            caller.when_gone(lambda: gone.append(True))
            return NoReply()

        waiting = server.call(Do(watch))
        await server.call("settled")
        waiting.cancel()
        await asyncio.sleep(0)
        assert gone == [True]
        assert server.is_alive()

    run(main)


@pytest.mark.parametrize(
    ("outcome", "reason", "exit_reason"),
    [(Ignore(), IGNORE, NORMAL), (Stop("no room"), "no room", "no room")],
    ids=["ignore", "stop"],
)
def test_init_decides_whether_the_server_starts(outcome, reason, exit_reason):
    async def main():
        with pytest.raises(StartFailed) as caught:
            await Server.start(outcome=outcome, name="picky")
        assert caught.value.reason == reason
        assert whereis("picky") is None

    run(main)


def test_an_exception_in_init_is_the_starters_error():
    class Broken(GenServer):
        async def init(self):
            await asyncio.sleep(1)
            raise OSError("no such disk")

    async def main():
        with pytest.raises(StartFailed, match="no such disk") as caught:
            await Broken.start()
        assert isinstance(caught.value.__cause__, OSError)

    run(main)


def test_start_returns_after_init_and_messages_wait_for_it():
    log = []

    class Slow(Server):
        async def init(self):
            self.log = log
            asyncio.get_running_loop().call_later(0.5, self.ref.cast, "early bird")
            await asyncio.sleep(1)
            log.append("ready")

    async def main():
        server = await Slow.start()
        await server.call("settled")
        assert log == ["ready", ("cast", "early bird")]

    run(main)


def test_a_start_that_is_cancelled_leaves_nothing_behind():
    class Never(GenServer):
        async def init(self):
            await asyncio.get_running_loop().create_future()

    async def main():
        starting = asyncio.ensure_future(Never.start(name="never"))
        await asyncio.sleep(0)
        assert whereis("never") is not None
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
        await asyncio.sleep(0)
        assert whereis("never") is None

    run(main)


def test_init_has_no_longer_than_its_timeout():
    class Never(GenServer):
        init_timeout = 2.0

        async def init(self):
            await asyncio.get_running_loop().create_future()

    async def main():
        with pytest.raises(StartFailed) as caught:
            await Never.start()
        assert caught.value.reason == TIMEOUT

    run(main)


def test_continue_runs_before_any_other_message():
    class Eager(Server):
        async def init(self):
            await super_init(self)
            self.ref.cast("first in the mailbox")
            return NoReply(then="but this comes first")

    async def super_init(self):
        self.log = []

    async def main():
        server = await Eager.start()
        await server.call("settled")
        assert server.process.actor.log == [("continue", "but this comes first"), ("cast", "first in the mailbox")]

    run(main)


def test_a_receive_timeout_fires_only_when_no_message_came_first():
    async def main():
        server = await Server.start()
        server.cast(lambda self: NoReply(timeout=2))
        await asyncio.sleep(1)
        server.cast("something")
        await asyncio.sleep(5)
        log = server.process.actor.log
        assert ("info", Timeout()) not in log
        server.cast(lambda self: NoReply(timeout=2))
        await asyncio.sleep(5)
        assert log[-1] == ("info", Timeout())

    run(main)


@pytest.mark.parametrize("value", ["garbage", 42, Reply("to whom?")])
def test_a_bad_return_value_ends_the_server(value):
    async def main():
        server = await Server.start()
        server.cast(lambda self: value)
        reason = await server.join()
        assert isinstance(reason, BadReturnValue)
        assert (reason.callback, reason.value) == ("handle_cast", value)

    run(main)


def test_stop_runs_terminate_behind_the_messages_already_there():
    async def main():
        log = []
        server = await Server.start(log)
        server.cast("one")
        await server.stop("enough")
        assert log == [("cast", "one"), ("terminate", "enough")]
        assert server.exit_reason == "enough"

    run(main)


def test_a_call_may_stop_the_server_with_an_answer():
    async def main():
        server = await Server.start()
        assert await server.call(Do(lambda self, caller: Stop(NORMAL, reply="bye"))) == "bye"
        assert await server.join() == NORMAL
        other = await Server.start()
        with pytest.raises(ActorDown) as caught:
            await other.call(Do(lambda self, caller: Stop("tired")))
        assert caught.value.reason == "tired"

    run(main)


def test_what_terminate_raises_replaces_the_reason():
    class Clumsy(Server):
        def terminate(self, reason):
            raise Exit("clumsy")

    async def main():
        server = await Clumsy.start()
        await server.stop(NORMAL)
        assert server.exit_reason == "clumsy"

    run(main)


def test_exit_from_any_depth_ends_with_its_reason():
    async def main():
        server = await Server.start()
        with pytest.raises(ActorDown) as caught:
            await server.call(Do(lambda self, caller: self.exit("from below")))
        assert caught.value.reason == "from below"

    run(main)


def test_system_exit_in_a_callback_ends_that_process_only():
    async def main():
        bystander, server = await Server.start(), await Server.start()

        def leave(self, caller):
            raise SystemExit(3)

        with pytest.raises(ActorDown):
            await server.call(Do(leave))
        assert await bystander.call("fine") == "fine"

    run(main)


class TestExitSignals:
    def test_kill_cannot_be_trapped_and_runs_no_terminate(self):
        async def main():
            log = []
            server = await Server.start(log, trap_exit=True)
            server.exit(KILL)
            assert await server.join() == KILLED
            assert log == []

        run(main)

    def test_a_trapping_server_gets_other_signals_as_messages(self):
        async def main():
            log = []
            server = await Server.start(log, trap_exit=True)
            server.exit("please")
            await server.call("settled")
            assert log == [("info", ExitMessage(None, "please"))]

        run(main)

    def test_normal_from_somebody_else_is_ignored(self):
        async def main():
            server = await Server.start()
            server.exit(NORMAL)
            assert await server.call("alive") == "alive"
            server.exit(SHUTDOWN)
            assert await server.join() == SHUTDOWN

        run(main)

    def test_kill_interrupts_a_waiting_callback(self):
        async def main():
            server = await AsyncServer.start()

            async def hang(self, caller):
                await asyncio.get_running_loop().create_future()

            waiting = server.call(Do(hang), None)
            await asyncio.sleep(1)
            server.exit(KILL)
            with pytest.raises(ActorDown):
                await waiting
            assert server.exit_reason == KILLED

        run(main)

    def test_kill_insists_against_a_callback_that_swallows_cancellation(self):
        async def main():
            server = await AsyncServer.start()
            swallowed = []

            async def stubborn(self, caller):
                while True:
                    try:
                        await asyncio.get_running_loop().create_future()
                    except asyncio.CancelledError:
                        swallowed.append(1)
                        if len(swallowed) == 5:
                            raise

            waiting = server.call(Do(stubborn), None)
            await asyncio.sleep(1)
            server.exit(KILL)
            with pytest.raises(ActorDown):
                await waiting
            assert len(swallowed) == 5

        run(main)

    def test_a_killed_process_that_never_lets_go_is_taken_for_dead(self):
        async def main():
            server = await AsyncServer.start()
            done = asyncio.get_running_loop().create_future()

            async def deaf(self, caller):
                while not done.done():
                    try:
                        await asyncio.shield(done)
                    except asyncio.CancelledError:
                        continue

            waiting = server.call(Do(deaf), None)
            await asyncio.sleep(1)
            server.exit(KILL)
            with pytest.raises(ActorDown):
                await waiting
            assert not server.is_alive()
            done.set_result(None)
            await asyncio.sleep(0)

        run(main)

    def test_a_link_takes_the_other_side_down_unless_the_end_was_normal(self):
        async def main():
            a, b, c = [await Server.start() for _ in range(3)]
            for other in (b, c):
                await a.call(Do(lambda self, caller, other=other: link(other)))
            await b.stop(NORMAL)
            assert await a.call("alive") == "alive"
            c.exit("broken")
            assert await a.join() == "broken"

        run(main)

    def test_linking_to_the_dead_is_an_exit_signal(self):
        async def main():
            dead, server = await Server.start(), await Server.start(log := [], trap_exit=True)
            await dead.stop()
            await server.call(Do(lambda self, caller: link(dead)))
            await server.call("settled")
            assert log == [("info", ExitMessage(dead, NOPROC))]

        run(main)


class TestMonitors:
    def test_one_down_message_at_death(self):
        async def main():
            watcher, watched = await Server.start(log := []), await Server.start()
            reference = await watcher.call(Do(lambda self, caller: monitor(watched)))
            watched.exit("gone")
            await watcher.call("settled")
            assert log == [("info", Down(reference, watched, "gone"))]

        run(main)

    def test_monitoring_the_dead_says_noproc(self):
        async def main():
            watcher, dead = await Server.start(log := []), await Server.start()
            await dead.stop()
            reference = await watcher.call(Do(lambda self, caller: monitor(dead)))
            await watcher.call("settled")
            assert log == [("info", Down(reference, dead, NOPROC))]

        run(main)

    def test_a_monitor_taken_back_says_nothing(self):
        async def main():
            watcher, watched = await Server.start(log := []), await Server.start()
            reference = await watcher.call(Do(lambda self, caller: monitor(watched)))
            assert await watcher.call(Do(lambda self, caller: demonitor(reference))) is True
            watched.exit("gone")
            await watcher.call("settled")
            assert log == []
            assert await watcher.call(Do(lambda self, caller: demonitor(reference))) is False

        run(main)


class TestNames:
    def test_a_name_belongs_to_one_live_process(self):
        async def main():
            first = await Server.start(name="only")
            assert whereis("only") == first
            with pytest.raises(AlreadyRegistered):
                await Server.start(name="only")
            first.exit(KILL)
            assert whereis("only") is None
            assert await Server.start(name="only") != first

        run(main)


def test_timers_send_later_and_can_be_taken_back():
    async def main():
        server = await Server.start(log := [])
        kept, cancelled = send_after(server, 60, "tick"), send_after(server, 30, "never")
        assert cancelled.cancel() is True
        await asyncio.sleep(61)
        await server.call("settled")
        assert log == [("info", "tick")]
        assert (kept.cancel(), cancelled.cancel()) == (False, False)

    run(main)


def test_a_name_is_free_again_when_the_loop_of_its_owner_is_closed():
    class Forgotten(GenServer):
        pass

    async def main():
        return await Forgotten.start(name="forgotten")

    first = asyncio.run(main())
    assert whereis("forgotten") is None
    assert asyncio.run(main()) != first

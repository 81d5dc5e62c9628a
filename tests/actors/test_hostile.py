"""Whatever a state, a reason or a log handler does, a process dies when it has to, and everybody hears of it."""

import asyncio
import contextlib
import gc
import logging
import threading

import pytest

from otpy.actors import (
    GenServer,
    Groups,
    Mailbox,
    Names,
    Node,
    NoReply,
    Registry,
    Task,
    current_process,
    deadlines,
    monitor,
    names_context,
    send_after,
    sys,
)
from otpy.errors import ActorDown, CallTimeout, NotRegistered
from otpy.supervisors import Supervisor
from otpy.telemetry import bus
from otpy.testing import run_in_virtual_time


class Detached(Exception):
    def __repr__(self):
        raise RuntimeError("repr")

    __str__ = __repr__


class Array:
    """Compares as a numpy array does."""

    __hash__ = None

    def __eq__(self, other):
        return self

    def __ne__(self, other):
        return self

    def __bool__(self):
        raise ValueError("the truth value is ambiguous")


class Does(GenServer):
    """Does what it is asked to."""

    trap_exit = False

    def handle_call(self, request, caller):
        return request(self)

    def handle_cast(self, message):
        message(self)

    def handle_info(self, message):
        self.last = message


class DoesLater(Does):
    async def handle_call(self, request, caller):
        return await request(self)


def run(main):
    return run_in_virtual_time(main())


def raises(error):
    def function(_):
        raise error

    return function


class TestAReasonMayBeAnything:
    @pytest.mark.parametrize(
        "reason", [Detached(), Array(), "plain", None], ids=["repr raises", "array", "text", "none"]
    )
    def test_a_crash_is_heard_by_callers_monitors_and_the_supervisor(self, reason):
        async def main():
            watcher = await Does.start()
            async with Supervisor([Does.child_spec(id="it")]) as tree:
                child = tree.child("it")
                await watcher.call(lambda _: monitor(child))
                crash = raises(reason) if isinstance(reason, Exception) else lambda server: server.exit(reason)
                with pytest.raises(ActorDown) as down:
                    await child.call(crash)
                assert down.value.reason is reason
                assert await child.join(1) is reason
                assert (await watcher.call(lambda server: server.last)).reason is reason
                await tree.settled()
                assert tree.child("it") != child

        run(main)

    def test_a_signal_may_carry_what_compares_oddly(self):
        async def main():
            server, reason = await Does.start(), Array()
            server.exit(reason)
            assert await server.join(1) is reason

        run(main)

    def test_a_waiting_sender_gives_up_beside_messages_that_compare_oddly(self):
        class Full(DoesLater):
            mailbox = Mailbox(1, overflow="wait")

            async def handle_cast(self, message):
                await asyncio.sleep(60)

        async def main():
            full = await Full.start()
            for _ in range(2):
                full.cast(Array())
                await asyncio.sleep(0)
            patient = asyncio.ensure_future(full.offer(Array()))
            with pytest.raises(CallTimeout):
                await full.offer(Array(), 0.5)
            patient.cancel()
            full.exit("kill")

        run(main)


class Raising(logging.Handler):
    def emit(self, record):
        raise OSError("disk full")


class TestReportsDecideNothing:
    @pytest.fixture
    def handlers(self):
        handler = Raising()
        loggers = [logging.getLogger(name) for name in ("otpy.actors", "otpy.supervisors")]
        for logger in loggers:
            logger.addHandler(handler)
        yield
        for logger in loggers:
            logger.removeHandler(handler)

    def test_a_log_handler_that_raises_keeps_nobody_alive_and_kills_nobody(self, handlers, capsys):
        async def main():
            async with Supervisor([Does.child_spec(id="it")]) as tree:
                child = tree.child("it")
                with pytest.raises(ActorDown):
                    await child.call(raises(ValueError("boom")))
                await tree.settled()
                assert tree.child("it") != child

        run(main)
        assert "disk full" in capsys.readouterr().err

    @pytest.mark.parametrize("error", [asyncio.CancelledError(), SystemExit(1), Detached()])
    def test_a_format_status_may_raise_anything(self, error):
        class Secretive(Does):
            def format_status(self, state):
                raise error

        async def main():
            server = await Secretive.start()
            with pytest.raises(ActorDown):
                await server.call(raises(ValueError("boom")))
            assert not server.is_alive()

        with bus.attached("any", lambda event, fields: None):
            run(main)

    def test_a_terminate_that_raises_is_logged(self, caplog):
        class Unclean(Does):
            def terminate(self, reason):
                raise OSError("cleanup failed")

        async def main():
            server = await Unclean.start()
            await server.stop()
            assert isinstance(server.exit_reason, OSError)

        run(main)
        assert "cleanup failed" in caplog.text


class TestNobodyWaitsForHimself:
    @pytest.mark.parametrize(
        "wait", [lambda ref: ref.stop(), lambda ref: ref.join(), sys.get_state], ids=["stop", "join", "get_state"]
    )
    def test_in_a_coroutine(self, wait):
        async def main():
            server = await DoesLater.start()
            with pytest.raises(ActorDown) as down:
                await server.call(lambda server: wait(server.ref), 1)
            assert "calling_self" in str(down.value)

        run(main)

    def test_a_server_in_a_thread_that_stops_itself_ends(self):
        class InThread(Does):
            scheduling = "thread"

        async def main():
            server = await InThread.start()
            server.cast(lambda server: server.ref.stop())
            assert await server.join(10) == "normal"

        asyncio.run(main())


class TestLoopsComeAndGo:
    def test_a_join_from_a_loop_that_is_gone_is_forgotten(self):
        async def main():
            server = await Does.start()

            async def give_up():
                with pytest.raises(CallTimeout):
                    await server.join(0.01)

            await asyncio.to_thread(lambda: asyncio.run(give_up()))
            await asyncio.sleep(0.01)
            assert not server.process.on_exit
            await server.stop()

        asyncio.run(main())

    def test_a_callback_at_death_that_fails_keeps_no_other_from_hearing(self):
        async def main():
            heard = []
            server = await Does.start()
            asyncio.get_running_loop().set_exception_handler(lambda loop, context: heard.append(context["exception"]))
            server.process.when_down(raises(OSError("first")))
            server.process.when_down(lambda _: heard.append("second"))
            server.exit("kill")
            assert [type(entry) for entry in heard] == [OSError, str]

        run(main)

    def test_a_node_that_stops_leaves_nobody_waiting(self):
        class Silent(GenServer):
            def handle_call(self, request, caller):
                return NoReply()

        node = Node().start()
        server = node.run(Silent.start(name="silent"))
        in_thread = []

        def ask():
            with pytest.raises(ActorDown) as down:
                server.call_sync("anything", None)
            in_thread.append(down.value)

        async def main():
            waiting = server.call("anything", None)
            joined = asyncio.ensure_future(server.join())
            thread = threading.Thread(target=ask)
            thread.start()
            await asyncio.sleep(0.05)
            await asyncio.to_thread(node.stop)
            with pytest.raises(ActorDown):
                await asyncio.wait_for(waiting, 10)
            assert await asyncio.wait_for(joined, 10) == "killed"
            await asyncio.to_thread(thread.join, 10)
            with pytest.raises(ActorDown):
                await server.call("late")
            assert await server.join(1) == "killed"
            assert not server.is_alive()

        asyncio.run(main())
        assert len(in_thread) == 1
        with pytest.raises(ActorDown):
            server.call_sync("late")

    def test_waiting_in_a_thread_for_a_loop_that_does_not_run_is_refused(self):
        loop = asyncio.new_event_loop()
        server = loop.run_until_complete(Does.start())
        for wait in (server.stop, lambda: server.call_sync("x")):
            with pytest.raises(RuntimeError, match="does not run"):
                wait()

        async def stop():
            return await server.stop()

        assert loop.run_until_complete(stop()) is True
        loop.close()

    def test_a_name_taken_on_another_loop_wakes_who_waits_for_it_and_is_gone_with_it(self):
        async def main():
            names = Names()
            token = names_context.set(names)
            with Node() as node:
                waiting = asyncio.ensure_future(names.wait_for("late", 20))
                await asyncio.sleep(0.01)
                began = asyncio.get_running_loop().time()
                await asyncio.to_thread(node.run, Does.start(name="late"))
                assert (await waiting).name == "late"
                assert asyncio.get_running_loop().time() - began < 5
            with pytest.raises(NotRegistered):
                await names.wait_for("late", 0.01)
            names_context.reset(token)

        asyncio.run(main())

    def test_registries_and_groups_know_nobody_whose_loop_is_gone(self):
        with Node() as node:
            registry, groups = node.run(Registry.start()), node.run(Groups.start())
            loop = asyncio.new_event_loop()
            gone = loop.run_until_complete(Does.start())
            loop.run_until_complete(_enter(registry, groups, gone))
            loop.close()
            assert registry.lookup("key") == []
            assert groups.members("group") == []
            assert groups.broadcast("group", "anything") == 0
            here = node.run(Does.start())
            registry.register("key", None, here)
            assert [entry.process for entry in registry.lookup("key")] == [here]

    def test_nothing_is_restarted_on_a_loop_that_is_being_taken_down(self):
        started = []

        class Busy(GenServer):
            def init(self):
                started.append(self)
                return NoReply(then="work")

            async def handle_continue(self, argument):
                await asyncio.sleep(60)

        async def main():
            await Supervisor.start([Busy.child_spec()])
            await asyncio.sleep(0)

        asyncio.run(main())
        assert len(started) == 1

    def test_timeouts_of_several_loops_do_not_disturb_each_other(self):
        failures = []

        def ask():
            async def main():
                server = await Does.start()
                for number in range(300):
                    with pytest.raises(CallTimeout):
                        await server.call(lambda _: NoReply(), number / 1e6)

            try:
                asyncio.run(main())
            except BaseException as error:  # noqa: BLE001 - of a thread
                failures.append(error)

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert failures == []


async def _enter(registry, groups, ref):
    await registry.register("key", None, ref)
    await groups.join_group("group", ref)


class TestStatesSurvive:
    @pytest.mark.parametrize("bad", [None, 5])
    def test_a_replacement_that_is_no_state_changes_nothing(self, bad):
        async def main():
            server = await Does.start()
            await server.call(lambda server: setattr(server, "kept", 1))
            with pytest.raises(TypeError):
                await sys.replace_state(server, lambda _: bad)
            assert await server.call(lambda server: server.kept) == 1

        run(main)

    def test_a_suspended_server_ends_as_itself(self):
        seen = []

        class Sees(Does):
            def terminate(self, reason):
                seen.append(current_process())

        async def main():
            server = await Sees.start()
            await sys.suspend(server)
            await server.stop()
            assert seen == [server.process]

        run(main)

    def test_a_leftover_cancellation_masks_no_error(self):
        class Swallows(DoesLater):
            async def handle_cast(self, message):
                asyncio.current_task().cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.sleep(1)

        async def main():
            async def bug(_):
                raise ValueError("a bug")

            server = await Swallows.start()
            server.cast("first")
            with pytest.raises(ActorDown) as down:
                await server.call(bug)
            assert isinstance(down.value.reason, ValueError)

        run(main)

    def test_a_stop_iteration_for_a_caller_is_a_runtime_error(self):
        async def main():
            server = await Does.start()
            with pytest.raises(RuntimeError, match="StopIteration"):
                await sys.replace_state(server, lambda _: next(iter([])))
            assert server.is_alive()

        run(main)

    def test_what_a_dead_process_starts_is_refused_and_leaves_no_name(self):
        async def main():
            outcome = asyncio.get_running_loop().create_future()

            async def late():
                await asyncio.sleep(1)
                failed = []
                try:
                    await Does.start_link(name="x")
                except ActorDown as down:
                    failed.append(down)
                try:
                    Task.async_(asyncio.sleep, 1)
                except ActorDown as down:
                    failed.append(down)
                outcome.set_result(failed)

            server = await Does.start()
            await server.call(lambda _: asyncio.ensure_future(late()) and None)
            server.exit("kill")
            assert len(await outcome) == 2
            await Does.start(name="x")

        run(main)

    def test_a_task_that_fails_with_a_timeout_of_its_own_has_failed(self):
        async def main():
            async def fails():
                raise CallTimeout("inner", 1.0)

            task = Task.async_(fails)
            with pytest.raises(CallTimeout):
                await task.yield_(5)

        run(main)


class TestDoors:
    @pytest.mark.parametrize("value", [-1, float("nan"), True, "5", []])
    def test_a_timeout_that_is_none_is_refused(self, value):
        async def main():
            server = await Does.start()
            for door in (
                lambda: server.call("x", value),
                lambda: server.join(value),
                lambda: sys.get_state(server, value),
                lambda: send_after(server, value, "x"),
            ):
                with pytest.raises((TypeError, ValueError), match=r"allowed: .*seconds"):
                    await door()
            with pytest.raises(ActorDown, match=r"allowed: .*seconds"):
                await server.call(lambda _: NoReply(timeout=value))

        run(main)

    def test_a_timeout_beyond_all_numbers_is_for_ever(self):
        async def main():
            server = await Does.start()
            assert await server.call(lambda _: 1, 10**400) == 1

        run(main)

    def test_a_task_of_a_plain_function_is_refused(self):
        async def main():
            with pytest.raises(TypeError, match="blocking"):
                Task.async_(abs, -1)

        run(main)

    def test_code_that_cannot_be_changed_to_is_refused(self):
        class InThread(Does):
            scheduling = "thread"

        class Slow(Does):
            async def code_change(self, old, extra):
                pass

        async def main():
            server = await Does.start()
            await sys.suspend(server)
            for new in (InThread, Slow):
                with pytest.raises(TypeError, match=r"async|allowed"):
                    await sys.change_code(server, new)
            with pytest.raises(TypeError, match="allowed: True, False, or a function"):
                await sys.trace(server, 5)

        run(main)

    def test_many_different_timeouts_cost_and_keep_no_more_than_equal_ones(self):
        async def main():
            server = await Does.start()
            waiting = [server.call(lambda _: NoReply(), 100.0 + number) for number in range(200)]
            assert len(deadlines._here.by_timeout) <= deadlines.MOST_LANES
            server.exit("kill")
            await asyncio.gather(*waiting, return_exceptions=True)

        run(main)
        gc.collect()

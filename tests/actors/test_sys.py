"""The sys toolbox looks into live processes without their knowing."""

import asyncio

import pytest

from otpy.actors import KILL, GenServer, GenStateMachine, NoReply, Reply, Stop, Task, send_after, sys
from otpy.errors import ActorDown, CallTimeout
from otpy.supervisors import ONE_FOR_ONE, Supervisor
from otpy.telemetry import bus
from otpy.testing import run_in_virtual_time


class Counter(GenServer):
    def init(self, count=0):
        self.count = count

    def handle_call(self, request, caller):
        if request == "later":
            self.caller = caller
            return NoReply()
        self.count += 1
        return self.count

    async def handle_cast(self, message):
        await asyncio.sleep(message)
        self.count += 100

    def handle_info(self, message):
        self.count += 1000


def run(main):
    return run_in_virtual_time(main())


def test_the_state_is_shown_and_replaced():
    async def main():
        counter = await Counter.start(5)
        assert await sys.get_state(counter) == {"count": 5}
        assert await sys.replace_state(counter, lambda state: {"count": state["count"] * 2}) == {"count": 10}
        assert await counter.call("next") == 11

    run(main)


def test_a_replacement_that_raises_leaves_the_state_as_it_was():
    async def main():
        counter = await Counter.start(5)
        with pytest.raises(KeyError):
            await sys.replace_state(counter, lambda state: {"count": state["no such"]})
        assert await counter.call("next") == 6

    run(main)


def test_a_request_waits_for_the_callback_under_way_and_overtakes_the_mailbox():
    async def main():
        counter = await Counter.start()
        counter.cast(1.0)
        counter.cast(1.0)
        await asyncio.sleep(0.5)
        loop = asyncio.get_running_loop()
        began = loop.time()
        assert await sys.get_state(counter) == {"count": 100}
        assert loop.time() - began == pytest.approx(0.5)

    run(main)


def test_a_process_that_is_busy_for_too_long_is_a_timeout():
    async def main():
        counter = await Counter.start()
        counter.cast(10.0)
        await asyncio.sleep(0.1)
        with pytest.raises(CallTimeout):
            await sys.get_state(counter, 1.0)

    run(main)


def test_a_suspended_process_takes_up_nothing_until_it_is_resumed():
    async def main():
        counter = await Counter.start()
        await sys.suspend(counter)
        asked = counter.call("next")
        await asyncio.sleep(1.0)
        assert not asked.done()
        assert (await sys.get_status(counter)).suspended
        assert (await sys.get_status(counter)).queued == 1
        await sys.resume(counter)
        assert await asked == 1

    run(main)


def test_a_message_that_came_just_before_the_suspension_is_held_too():
    async def main():
        counter = await Counter.start()
        counter.send("this is first, so the call has to wait")
        asked = counter.call("next")
        await sys.suspend(counter)
        await asyncio.sleep(0.1)
        assert not asked.done()
        await sys.resume(counter)
        assert await asked == 1001

    run(main)


@pytest.mark.parametrize("end", ["stop", "kill", "signal"])
def test_a_suspended_process_can_be_ended(end):
    async def main():
        counter = await Counter.start()
        await sys.suspend(counter)
        waiting = counter.call("next", 1.0)
        if end == "stop":
            await counter.stop()
        else:
            counter.exit(KILL if end == "kill" else "enough")
        assert await counter.join(1.0) == {"stop": "normal", "kill": "killed", "signal": "enough"}[end]
        with pytest.raises(ActorDown):
            await waiting

    run(main)


@pytest.mark.parametrize("before", [True, False])
def test_a_suspended_process_that_traps_exits_obeys_its_supervisor(before):
    class Careful(Counter):
        trap_exit = True

        def terminate(self, reason):
            ended.append(reason)

    async def main():
        async with Supervisor([Careful.child_spec(id="careful")], strategy=ONE_FOR_ONE) as tree:
            careful = tree.child("careful")
            if before:
                stopping = asyncio.ensure_future(tree.terminate_child("careful"))
                await sys.suspend(careful)
            else:
                await sys.suspend(careful)
                stopping = asyncio.ensure_future(tree.terminate_child("careful"))
            await asyncio.wait_for(stopping, 1.0)

    ended = []
    run(main)
    assert ended == ["shutdown"]


def test_a_trace_shows_what_comes_and_what_is_answered():
    async def main():
        counter = await Counter.start()
        seen = []
        await sys.trace(counter, seen.append)
        await counter.call("next")
        counter.cast(0.0)
        counter.send("news")
        later = counter.call("later")
        await sys.trace(counter, tracer=False)
        await asyncio.sleep(0.1)
        await sys.trace(counter, seen.append)
        (await sys.get_state(counter))["caller"].reply("at last")
        assert await later == "at last"
        assert [(event.kind, event.message) for event in seen] == [("call", "next"), ("reply", 1), ("reply", "at last")]
        assert str(seen[1]).endswith("--> reply 1")

    run(main)


def test_a_trace_can_be_printed(capsys):
    async def main():
        counter = await Counter.start(name="counter")
        await sys.trace(counter)
        await counter.call("next")
        counter.cast(0.0)
        counter.send("news")
        await asyncio.sleep(0.1)
        await sys.trace(counter, tracer=False)
        await counter.call("unseen")
        await counter.stop()

    run(main)
    assert capsys.readouterr().out.splitlines() == [
        "Counter 'counter' <-- call 'next'",
        "Counter 'counter' --> reply 1",
        "Counter 'counter' <-- cast 0.0",
        "Counter 'counter' <-- info 'news'",
    ]


def test_a_tracer_that_raises_is_taken_off_and_the_process_lives(capsys):
    async def main():
        counter = await Counter.start()
        await sys.trace(counter, lambda _: 1 / 0)
        assert await counter.call("next") == 1
        assert not (await sys.get_status(counter)).tracing

    run(main)
    assert "ZeroDivisionError" in capsys.readouterr().out


def test_statistics_count_messages_from_when_they_are_turned_on():
    async def main():
        counter = await Counter.start()
        await counter.call("uncounted")
        assert await sys.statistics(counter) is None
        await sys.statistics(counter, switch=True)
        await counter.call("next")
        counter.cast(0.0)
        counter.send(b"news")
        await asyncio.sleep(0.1)
        counted = await sys.statistics(counter)
        assert (counted.messages_in, counted.replies) == (3, 1)
        assert counted.by_type == {"str": 1, "float": 1, "bytes": 1}
        assert await sys.statistics(counter, switch=False) is None

    run(main)


def test_the_status_names_links_monitors_and_ancestors():
    class Parent(GenServer):
        async def init(self):
            self.child = await Counter.start_link(name="child")
            self.process.monitor(self.child.process)

    async def main():
        async with Supervisor([Parent.child_spec(name="parent")], strategy=ONE_FOR_ONE) as tree:
            parent = tree.child("parent")
            child = (await sys.get_state(parent))["child"]
            status = await sys.get_status(child)
            assert status.ancestors == (parent, tree)
            assert status.links == (parent,)
            assert status.monitored_by == 1
            assert (await sys.get_status(parent)).monitors == (child,)

    run(main)


def test_reports_show_of_the_state_what_format_status_lets_through():
    class Vault(GenServer):
        def init(self):
            self.password, self.attempts = "hunter2", 3

        def format_status(self, state):
            return state | {"password": "***"}

        def handle_cast(self, message):
            raise ValueError(message)

    async def main():
        vault = await Vault.start(name="vault")
        assert (await sys.get_status(vault)).state == {"password": "***", "attempts": 3}
        vault.cast("open")
        await vault.join()

    reports = []
    with bus.attached("test", lambda event, fields: reports.append(fields), "otpy.process.crash"):
        run(main)
    (report,) = reports
    assert report["state"] == {"password": "***", "attempts": 3}
    assert (report["message"], repr(report["reason"])) == ("open", "ValueError('open')")
    assert report["process"] == "Vault 'vault'"


def test_a_format_status_that_raises_spoils_no_report():
    class Odd(Counter):
        def format_status(self, state):
            raise KeyError("no")

    async def main():
        odd = await Odd.start()
        assert "format_status raised KeyError" in (await sys.get_status(odd)).state

    run(main)


class TestCodeChange:
    class Newer(Counter):
        def code_change(self, old, extra):
            assert old is Counter
            self.total, self.step = self.count, extra
            del self.count

        def handle_call(self, request, caller):
            self.total += self.step
            return self.total

    def test_a_suspended_process_goes_on_with_other_callbacks_and_its_state(self):
        async def main():
            counter = await Counter.start(5)
            await sys.suspend(counter)
            await sys.change_code(counter, self.Newer, 10)
            await sys.resume(counter)
            assert await counter.call("next") == 15
            assert counter.actor_class is self.Newer

        run(main)

    def test_a_process_that_is_not_suspended_is_left_alone(self):
        async def main():
            counter = await Counter.start()
            with pytest.raises(RuntimeError, match="suspend it first"):
                await sys.change_code(counter, self.Newer, 10)
            assert await counter.call("next") == 1

        run(main)

    def test_a_change_that_raises_keeps_the_old_class(self):
        class Broken(Counter):
            def code_change(self, old, extra):
                raise ValueError("no")

        async def main():
            counter = await Counter.start()
            await sys.suspend(counter)
            with pytest.raises(ValueError, match="no"):
                await sys.change_code(counter, Broken)
            await sys.resume(counter)
            assert await counter.call("next") == 1
            assert counter.actor_class is Counter

        run(main)


def test_the_dead_and_tasks_are_refused():
    async def main():
        counter = await Counter.start()
        await counter.stop()
        with pytest.raises(ActorDown, match="noproc"):
            await sys.get_state(counter)
        task = Task.async_(asyncio.sleep, 1)
        with pytest.raises(TypeError, match="no server process"):
            await sys.get_state(task.ref)
        await task

    run(main)


def test_whoever_looks_in_hears_of_a_death_meanwhile():
    class Dying(GenServer):
        def init(self):
            send_after(self.ref, 1.0, "end")

        async def handle_info(self, message):
            await asyncio.sleep(1.0)
            return Stop("tired")

    async def main():
        dying = await Dying.start()
        await asyncio.sleep(1.5)
        with pytest.raises(ActorDown, match="tired"):
            await sys.get_state(dying)

    run(main)


def test_answers_that_come_later_are_traced_and_counted_too():
    class Machine(GenStateMachine):
        def init(self):
            return "on"

        def handle_event(self, event, state):
            return Reply("now") if event.request == "now" else self.later(event.caller)

        def later(self, caller):
            send_after(self.ref, 1.0, "ignored")
            asyncio.get_running_loop().call_later(0.5, caller.reply, "later")

    async def main():
        seen = []
        machine = await Machine.start()
        await sys.trace(machine, lambda event: seen.append(str(event).partition(" ")[2].partition(" ")[2]))
        await sys.statistics(machine, switch=True)
        assert [await machine.call("now"), await machine.call("later")] == ["now", "later"]
        assert seen == ["<-- call 'now'", "--> reply 'now'", "<-- call 'later'", "--> reply 'later'"]
        assert (await sys.statistics(machine)).replies == 2
        await machine.stop()

    run(main)

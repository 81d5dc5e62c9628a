"""A pykka actor that nobody changed lives under our supervisors: its start, its failures and its end are heard of."""

import asyncio
import functools
import logging
import threading

import pykka
import pytest

from otpy.actors import (
    BRUTAL_KILL,
    INFINITY,
    KILL,
    NORMAL,
    SHUTDOWN,
    Down,
    GenServer,
    link,
    monitor,
    orphans,
    sys,
    whereis,
)
from otpy.actors.pykka_actor import PykkaActor, PykkaActorRef
from otpy.errors import ActorDown, StartFailed
from otpy.supervisors import ONE_FOR_ALL, Supervisor
from otpy.telemetry import bus


class Counter(pykka.ThreadingActor):
    """As anybody who has never heard of otpy would write it."""

    def __init__(self, count=0, gate=None, log=None, name=None):
        super().__init__()
        self.count = count
        self.gate = gate
        self.log = [] if log is None else log
        self.name = name

    def on_start(self):
        self.log.append("on_start")

    def on_stop(self):
        self.log.append("on_stop")

    def on_failure(self, exception_type, exception_value, traceback):
        self.log.append(f"on_failure {exception_type.__name__}")

    def increase(self, by=1):
        self.count += by
        return self.count

    def on_receive(self, message):
        if isinstance(message, BaseException):
            raise message
        if message == "block":
            self.gate.wait(10)
        if message == "thread":
            return threading.current_thread()
        if message == "stop":
            self.stop()
        self.log.append(message)
        return message


class NotUp(pykka.ThreadingActor):
    def __init__(self, error):
        super().__init__()
        self.error = error

    def on_start(self):
        raise self.error


class Watcher(GenServer):
    def init(self, ref):
        self.monitored, self.down = monitor(ref), self.process.loop.create_future()

    def handle_info(self, message):
        if isinstance(message, Down):
            self.down.set_result(message)


def run(main):
    try:
        return asyncio.run(asyncio.wait_for(main(), 30))
    finally:
        assert pykka.ActorRegistry.get_all() == []


async def restarted(tree, id, old):  # noqa: A002
    await old.join(10)
    await tree.settled()
    return tree.child(id)


@pytest.fixture
def orphaned():
    """The processes that were reported as orphans."""
    seen = []
    bus.attach("orphaned", lambda _, fields: seen.append(fields["process"]), prefix="otpy.process.orphaned")
    yield seen
    bus.detach("orphaned")


# -- start ------------------------------------------------------------------------------------------------------------


def test_it_starts_under_a_supervisor_and_stops_with_it():
    log = []

    async def main():
        async with Supervisor([PykkaActor.child_spec(Counter, 5, log=log, id="counter")]) as tree:
            ref = tree.child("counter")
            assert isinstance(ref, PykkaActorRef)
            assert await ref.call("one") == "one"
            ref.cast("two")
            actor = ref.pykka_ref
            assert pykka.ActorRegistry.get_by_class(Counter) == [actor]
            assert str(ref).startswith("Counter <")
        assert not actor.is_alive()

    run(main)
    assert log == ["on_start", "one", "two", "on_stop"]


@pytest.mark.parametrize("error", [ValueError("no"), SystemExit("no")])
def test_an_on_start_that_raises_is_a_failed_start_with_that_exception(error):
    async def main():
        with pytest.raises(StartFailed) as caught:
            await PykkaActor.start(NotUp, error)
        assert caught.value.reason is error

    run(main)


def test_a_supervisor_whose_pykka_child_does_not_start_fails_with_its_exception():
    async def main():
        with pytest.raises(StartFailed, match="no disk"):
            async with Supervisor([PykkaActor.child_spec(NotUp, OSError("no disk"))]):
                pass

    run(main)


def test_a_constructor_that_raises_is_a_failed_start_with_that_exception():
    async def main():
        with pytest.raises(StartFailed) as caught:
            await PykkaActor.start(Counter, wrong="argument")
        assert isinstance(caught.value.reason, TypeError)

    run(main)


@pytest.mark.parametrize("made", [dict, Watcher])
def test_what_is_no_pykka_actor_is_refused(made):
    async def main():
        with pytest.raises(StartFailed, match="is no pykka actor"):
            await PykkaActor.start(made)

    run(main)


def test_a_constructor_that_blocks_does_not_block_the_loop():
    gate = threading.Event()

    def make():
        assert gate.wait(10)
        return Counter()

    async def main():
        starting = asyncio.ensure_future(PykkaActor.start(make))
        await asyncio.sleep(0)
        gate.set()
        await (await starting).stop()

    run(main)


def test_the_id_is_the_name_of_the_class_unless_it_is_given():
    assert PykkaActor.child_spec(Counter).id == "Counter"
    assert PykkaActor.child_spec(functools.partial(Counter, name="bound")).id == "Counter"
    assert PykkaActor.child_spec(Counter, name="named").id == "named"
    assert PykkaActor.child_spec(Counter, name="named", id=7).id == 7


def test_a_name_leads_to_it_and_to_whoever_comes_after_it():
    async def main():
        async with Supervisor([PykkaActor.child_spec(functools.partial(Counter, name="own"), name="counter")]) as tree:
            first = whereis("counter")
            assert await first.call("hello") == "hello"
            first.cast(ValueError("lost"))
            second = await restarted(tree, "counter", first)
            assert whereis("counter") == second != first

    run(main)


# -- messages ---------------------------------------------------------------------------------------------------------


def test_an_ask_that_raises_is_answered_and_the_actor_lives_on():
    async def main():
        ref = await PykkaActor.start(Counter, 1)
        with pytest.raises(KeyError):
            await ref.call(KeyError("lost"))
        assert await ref.call("still here") == "still here"
        with pytest.raises(KeyError):
            await asyncio.to_thread(ref.pykka_ref.ask, KeyError("lost"))
        assert ref.is_alive()
        await ref.stop()

    run(main)


def test_pykkas_side_works_as_ever():
    async def main():
        ref = await PykkaActor.start(Counter, 1)

        def in_a_thread():
            proxy = ref.pykka_ref.proxy()
            assert proxy.increase(2).get() == 3
            proxy.count = 10
            assert proxy.count.get() == 10
            assert ref.pykka_ref.ask("asked") == "asked"
            assert ref.proxy().increase().get() == 11
            assert ref.call_sync("called") == "called"
            assert ref.ask("by our reference") == "by our reference"
            ref.tell("told")
            assert ref.call_sync("after")
            assert proxy.log.get() == ["on_start", "asked", "called", "by our reference", "told", "after"]

        await asyncio.to_thread(in_a_thread)
        assert await ref.ask("awaited, by our future", block=False) == "awaited, by our future"
        await ref.stop()
        with pytest.raises(ActorDown):
            _ = ref.pykka_ref

    run(main)


def test_the_actors_code_knows_its_process_and_the_names_around_it():
    class Asks(pykka.ThreadingActor):
        def on_receive(self, message):
            return whereis("counter").call_sync(message)

    async def main():
        tree = [PykkaActor.child_spec(Counter, name="counter"), PykkaActor.child_spec(Asks, name="asks")]
        async with Supervisor(tree):
            assert await whereis("asks").call("through two") == "through two"

    run(main)


def test_a_caller_whose_question_is_left_behind_hears_of_the_end():
    async def main():
        gate = threading.Event()
        ref = await PykkaActor.start(Counter, gate=gate)
        blocked = ref.call("block")
        ref.cast(ValueError("lost"))
        left_behind = ref.call("never")
        gate.set()
        assert await blocked == "block"
        with pytest.raises(ActorDown, match="lost"):
            await left_behind
        with pytest.raises(ActorDown):
            await ref.call("dead")

    run(main)


def test_its_attributes_can_be_looked_at_but_not_replaced():
    async def main():
        ref = await PykkaActor.start(Counter, 3)
        state = await sys.get_state(ref)
        assert state == {"count": 3, "gate": None, "log": ["on_start"], "name": None}
        with pytest.raises(TypeError, match="belongs to its thread"):
            await sys.replace_state(ref, lambda state: state)
        await ref.stop()

    run(main)


# -- the end ----------------------------------------------------------------------------------------------------------


def test_a_tell_that_raises_ends_it_with_the_exception_and_the_supervisor_starts_another():
    log = []

    async def main():
        async with Supervisor([PykkaActor.child_spec(Counter, 7, log=log, id="counter")]) as tree:
            first = tree.child("counter")
            first.pykka_ref.tell(ValueError("lost"))
            second = await restarted(tree, "counter", first)
            assert isinstance(first.exit_reason, ValueError)
            assert await second.call("again") == "again"
            assert not second.pykka_ref.actor_stopped.is_set()

    run(main)
    assert log == ["on_start", "on_failure ValueError", "on_start", "again", "on_stop"]


@pytest.mark.parametrize("stop", ["itself", "pykka", "registry"])
@pytest.mark.parametrize("restart", ["permanent", "transient"])
def test_a_normal_stop_restarts_only_a_permanent_one(stop, restart):
    async def main():
        async with Supervisor([PykkaActor.child_spec(Counter, id="counter", restart=restart)]) as tree:
            ref = tree.child("counter")
            if stop == "itself":
                ref.cast("stop")
            elif stop == "pykka":
                assert await asyncio.to_thread(ref.pykka_ref.stop) is True
            else:
                for actor in pykka.ActorRegistry.get_by_class(Counter):
                    await asyncio.to_thread(actor.stop)
            assert await ref.join(10) == NORMAL
            await tree.settled()
            assert [child.ref is not None for child in await tree.which_children()] == [restart == "permanent"]

    run(main)


@pytest.mark.parametrize("asked", [True, False])
def test_a_system_exit_ends_that_actor_alone(asked):
    log = []

    async def main():
        async with Supervisor(
            [PykkaActor.child_spec(Counter, log=log, id="first", restart="temporary"), PykkaActor.child_spec(Counter)]
        ) as tree:
            first, other = tree.child("first"), tree.child("Counter")
            if asked:
                with pytest.raises(ActorDown):
                    await first.call(SystemExit("enough"))
            else:
                first.cast(SystemExit("enough"))
            assert isinstance(await first.join(10), SystemExit)
            assert await other.call("not me") == "not me"

    run(main)
    assert log[0] == "on_start"
    assert len(log) == 2
    assert log[1].startswith("on_failure")


def test_an_on_stop_that_raises_is_the_reason_of_the_end():
    class Untidy(Counter):
        def on_stop(self):
            raise OSError("still open")

    async def main():
        ref = await PykkaActor.start(Untidy)
        ref.cast("stop")
        assert isinstance(await ref.join(10), OSError)

    run(main)


def test_stop_all_ends_every_actor_and_their_supervisor():
    async def main():
        ref = await PykkaActor.start(Counter)
        tree = await Supervisor.start([PykkaActor.child_spec(Counter)])
        loose = Counter.start()
        assert all(await asyncio.to_thread(pykka.ActorRegistry.stop_all))
        assert await ref.join(10) == NORMAL
        assert await tree.join(10) == NORMAL
        assert not loose.is_alive()

    run(main)


def test_a_monitor_hears_of_the_end_with_its_reason():
    async def main():
        ref = await PykkaActor.start(Counter)
        watcher = await Watcher.start(ref)
        ref.pykka_ref.tell(ValueError("lost"))
        down = await watcher.process.actor.down
        assert down.process == ref
        assert isinstance(down.reason, ValueError)
        await watcher.stop()

    run(main)


def test_linked_processes_fall_with_it_and_it_with_them():
    class Linked(GenServer):
        def init(self, ref):
            link(ref)

    async def main():
        log = []
        ref = await PykkaActor.start(Counter, log=log)
        linked = await Linked.start(ref)
        linked.exit("pulled")
        assert await ref.join(10) == "pulled"
        assert log == ["on_start", "on_stop"]
        ref = await PykkaActor.start(Counter)
        linked = await Linked.start(ref)
        ref.cast(ValueError("lost"))
        assert isinstance(await linked.join(10), ValueError)

    run(main)


def test_one_for_all_restarts_pykka_actors_with_ours():
    class Ours(GenServer):
        def handle_cast(self, message):
            raise ValueError(message)

    async def main():
        children = [PykkaActor.child_spec(Counter), Ours.child_spec()]
        async with Supervisor(children, strategy=ONE_FOR_ALL) as tree:
            before = tree.child("Counter")
            tree.child("Ours").cast("fall")
            after = await restarted(tree, "Counter", before)
            assert before.exit_reason == SHUTDOWN
            assert after != before
            assert await after.call("up") == "up"

    run(main)


# -- shutdown ---------------------------------------------------------------------------------------------------------


def test_shutdown_waits_for_the_messages_that_are_in_the_inbox():
    log = []

    async def main():
        async with Supervisor([PykkaActor.child_spec(Counter, log=log, shutdown=INFINITY)]) as tree:
            for number in range(100):
                tree.child("Counter").pykka_ref.tell(number)

    run(main)
    assert log == ["on_start", *range(100), "on_stop"]


def test_past_the_deadline_it_is_an_orphan_and_the_supervisor_goes_on(orphaned, caplog):
    gate, log = threading.Event(), []

    async def main():
        blocks = PykkaActor.child_spec(Counter, gate=gate, log=log, id="blocks", shutdown=0.05)
        async with Supervisor([blocks, PykkaActor.child_spec(Counter, id="other", log=[])]) as tree:
            ref = tree.child("blocks")
            thread = await ref.call("thread")
            answer = ref.call("block")
            ref.cast("never")
        assert ref.exit_reason == "killed"
        with pytest.raises(ActorDown):
            await answer
        assert [orphan.thread for orphan in orphans()] == [thread]
        assert thread.daemon
        assert orphaned == [str(ref)]
        gate.set()
        await asyncio.to_thread(thread.join, 10)
        assert orphans() == []

    with caplog.at_level(logging.ERROR, "otpy.actors"):
        run(main)
    assert "runs on as an orphan" in caplog.text
    assert log == ["on_start", "block"]


@pytest.mark.parametrize("brutally", [True, False])
def test_one_that_is_killed_while_idle_leaves_nothing_behind(brutally, orphaned):
    log = []

    async def main():
        async with Supervisor([PykkaActor.child_spec(Counter, log=log, id="it", shutdown=BRUTAL_KILL)]) as tree:
            ref = tree.child("it")
            thread = await ref.call("thread")
            if not brutally:
                ref.exit(KILL)
                await restarted(tree, "it", ref)
        await asyncio.to_thread(thread.join, 10)
        assert not thread.is_alive()

    run(main)
    assert orphaned == []
    assert "on_stop" not in log


def test_one_that_is_killed_while_it_starts_is_an_orphan_until_it_has(orphaned):
    gate, ready, thread = threading.Event(), threading.Event(), []

    class Slow(pykka.ThreadingActor):
        def on_start(self):
            thread.append(threading.current_thread())
            ready.set()
            gate.wait(10)

    class Hurried(PykkaActor):
        init_timeout = 0.05

    async def main():
        with pytest.raises(StartFailed, match="timeout"):
            await Hurried.start(Slow)
        assert ready.is_set()
        assert len(orphaned) == 1
        gate.set()
        await asyncio.to_thread(thread[0].join, 10)
        assert orphans() == []

    run(main)

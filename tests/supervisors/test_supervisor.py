"""A Supervisor keeps the contract of supervisor(3)."""

import asyncio
from typing import ClassVar

import pytest

from otpy.actors import BRUTAL_KILL, INFINITY, KILL, NORMAL, SHUTDOWN, ChildSpec, GenServer, Ignore, Shutdown, whereis
from otpy.errors import (
    ActorDown,
    AlreadyRegistered,
    InvalidChildSpec,
    MaxRestartsReached,
    NotRegistered,
    StartFailed,
    SupervisionError,
)
from otpy.supervisors import ONE_FOR_ONE, DynamicSupervisor, Supervisor, SupervisorRef
from otpy.telemetry import bus
from otpy.testing import run_in_virtual_time


class Worker(GenServer):
    """Logs its life under its letter."""

    trap_exit = True
    log: ClassVar[list] = []
    failing: ClassVar[set] = set()

    def init(self, letter):
        self.letter = letter
        Worker.log.append(f"+{letter}")
        if letter in Worker.failing:
            raise OSError(f"{letter} cannot start")

    def handle_call(self, request, caller):
        return self.letter

    def handle_info(self, message):
        self.exit(message.reason)

    def terminate(self, reason):
        Worker.log.append(f"-{self.letter}")


@pytest.fixture(autouse=True)
def log():
    Worker.log, Worker.failing = [], set()
    return Worker.log


def run(main):
    return run_in_virtual_time(main())


def workers(letters="abc", **spec):
    return [Worker.child_spec(letter, id=letter, **spec) for letter in letters]


def clear():
    Worker.log.clear()


def test_children_start_in_order_and_stop_in_reverse(log):
    async def main():
        async with Supervisor(workers()) as tree:
            assert [info.id for info in await tree.which_children()] == ["a", "b", "c"]
        assert log == ["+a", "+b", "+c", "-c", "-b", "-a"]

    run(main)


def test_a_failed_start_undoes_in_reverse_what_was_started(log):
    Worker.failing = {"c"}

    async def main():
        with pytest.raises(StartFailed) as caught:
            async with Supervisor(workers("abcd")):
                pass
        assert isinstance(caught.value.reason, Shutdown)
        assert caught.value.reason.detail.child == "c"
        assert "c cannot start" in str(caught.value)
        assert log == ["+a", "+b", "+c", "-b", "-a"]

    run(main)


RESTARTED = {
    "one_for_one": ["+b"],
    "one_for_all": ["-c", "-a", "+a", "+b", "+c"],
    "rest_for_one": ["-c", "+b", "+c"],
}


@pytest.mark.parametrize("strategy", RESTARTED)
def test_the_strategy_says_who_falls_with_a_child(strategy, log):
    async def main():
        async with Supervisor(workers(), strategy=strategy) as tree:
            clear()
            tree.child("b").exit(KILL)
            await tree.settled()
            assert log == RESTARTED[strategy]
            assert await tree.child("b").call("who") == "b"

    run(main)


@pytest.mark.parametrize(
    ("restart", "reason", "restarted"),
    [
        ("permanent", NORMAL, True),
        ("permanent", SHUTDOWN, True),
        ("permanent", "crash", True),
        ("transient", NORMAL, False),
        ("transient", SHUTDOWN, False),
        ("transient", Shutdown("done"), False),
        ("transient", "crash", True),
        ("temporary", NORMAL, False),
        ("temporary", "crash", False),
    ],
)
def test_the_restart_type_says_who_is_started_again(restart, reason, restarted, log):
    async def main():
        async with Supervisor(workers("a", restart=restart)) as tree:
            clear()
            await tree.child("a").stop(reason)
            await tree.settled()
            assert ("+a" in log) is restarted
            known = [info.id for info in await tree.which_children()]
            assert known == ([] if restart == "temporary" else ["a"])

    run(main)


def test_too_many_restarts_and_the_supervisor_gives_up(log):
    async def main():
        with pytest.raises(MaxRestartsReached, match="more than 2 restarts in 5 s"):
            async with Supervisor(workers("ab"), max_restarts=2, max_seconds=5) as tree:
                for _ in range(3):
                    tree.child("b").exit("crash")
                    await tree.settled() if _ < 2 else None
                await tree.join()
        assert log[-1] == "-a"

    run(main)


def test_restarts_spread_over_time_are_tolerated():
    async def main():
        async with Supervisor(workers("a"), max_restarts=1, max_seconds=5) as tree:
            for _ in range(10):
                tree.child("a").exit(KILL)
                await tree.settled()
                await asyncio.sleep(6)
            assert tree.is_alive()

    run(main)


def test_a_restart_that_fails_is_tried_again_until_the_intensity_says_no(log):
    async def main():
        supervisor = Supervisor(workers("a"), max_restarts=3, max_seconds=5)
        with pytest.raises(MaxRestartsReached):
            async with supervisor as tree:
                Worker.failing = {"a"}
                tree.child("a").exit(KILL)
                await tree.join()
        assert log == ["+a"] * 4

    run(main)


def test_a_child_that_does_not_stop_in_time_is_killed():
    class Slow(GenServer):
        trap_exit = True

        async def terminate(self, reason):
            await asyncio.sleep(60)

    async def main():
        loop = asyncio.get_running_loop()
        supervisor = Supervisor([Slow.child_spec(shutdown=2.0)])
        async with supervisor:
            started = loop.time()
        assert loop.time() - started == pytest.approx(2.0)

    run(main)


def test_brutal_kill_leaves_no_time_to_clean_up(log):
    async def main():
        async with Supervisor(workers("a", shutdown=BRUTAL_KILL)):
            clear()
        assert log == []

    run(main)


def test_an_ignored_child_is_kept_without_a_process():
    class Shy(GenServer):
        def init(self):
            return Ignore()

    async def main():
        async with Supervisor([Shy.child_spec(id="shy")]) as tree:
            (info,) = await tree.which_children()
            assert (info.id, info.ref, info.state) == ("shy", None, "down")
            with pytest.raises(NotRegistered):
                tree.child("shy")

    run(main)


def test_children_can_be_added_stopped_restarted_and_deleted(log):
    async def main():
        async with Supervisor(workers("a")) as tree:
            added = await tree.start_child(workers("b")[0])
            assert await added.call("who") == "b"
            with pytest.raises(AlreadyRegistered):
                await tree.start_child(workers("b")[0])
            with pytest.raises(SupervisionError, match="running"):
                await tree.restart_child("b")
            with pytest.raises(SupervisionError, match="running"):
                await tree.delete_child("b")
            await tree.terminate_child("b")
            assert await (await tree.restart_child("b")).call("who") == "b"
            await tree.terminate_child("b")
            await tree.delete_child("b")
            with pytest.raises(NotRegistered, match="registered: a"):
                await tree.terminate_child("b")

    run(main)


def test_a_killed_supervisor_takes_its_children_along(log):
    async def main():
        outer = Supervisor([Supervisor.child_spec(workers(), id="inner")])
        async with outer as tree:
            inner = tree.child("inner")
            children = [inner.child(letter) for letter in "abc"]
            inner.exit(KILL)
            await tree.settled()
            assert tree.child("inner") != inner
            assert [await child.join() for child in children] == ["killed"] * 3
            assert await tree.child("inner").child("a").call("who") == "a"

    run(main)


def test_the_tree_can_be_printed():
    async def main():
        inner = Supervisor.child_spec(workers("xy"), id="pool", strategy="one_for_all")
        async with Supervisor([inner, *workers("a")], strategy="rest_for_one") as tree:
            tree.child("pool").child("y").exit(KILL)
            await tree.child("pool").settled()
            assert tree.render() == (
                "Supervisor  rest_for_one  up\n"
                "├─ pool     one_for_all   up\n"
                "│  ├─ x     permanent     up\n"
                "│  └─ y     permanent     up  restarts 1\n"
                "└─ a        permanent     up"
            )

    run(main)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"strategy": "one_for_two"}, "'one_for_two'; allowed: 'one_for_one', 'one_for_all', 'rest_for_one'"),
        ({"max_restarts": -1}, "-1; allowed: an integer >= 0"),
        ({"max_restarts": True}, "True; allowed: an integer >= 0"),
        ({"max_seconds": 0}, "0; allowed: seconds > 0"),
        ({"auto_shutdown": "sometimes"}, "'sometimes'; allowed: 'never'"),
        ({"children": workers("aa")}, "'a'; allowed: an id no other child"),
        ({"children": [Worker]}, "allowed: a ChildSpec"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_starts(arguments, message, log):
    with pytest.raises(InvalidChildSpec, match=message):
        Supervisor(**arguments)
    assert log == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"restart": "sometimes"}, "'sometimes'; allowed: 'permanent', 'transient', 'temporary'"),
        ({"shutdown": -1}, "-1; allowed: seconds >= 0"),
        ({"shutdown": "soon"}, "'soon'; allowed: seconds >= 0"),
        ({"significant": True}, "False for a permanent child"),
    ],
)
def test_a_child_spec_is_checked_when_it_is_made(arguments, message):
    with pytest.raises(InvalidChildSpec, match=message):
        Worker.child_spec("a", id="a", **arguments)


def test_a_start_function_that_returns_something_else_is_a_failed_start():
    async def main():
        spec = Worker.child_spec("a", id="a").but(start=lambda: "not a process")
        with pytest.raises(StartFailed, match="not a process"):
            async with Supervisor([spec]):
                pass

    run(main)


class TestAutoShutdown:
    @pytest.mark.parametrize(("mode", "ends_after"), [("any_significant", 1), ("all_significant", 2)])
    def test_significant_children_end_their_supervisor(self, mode, ends_after):
        async def main():
            specs = [*workers("ab", restart="transient", significant=True), *workers("c")]
            async with Supervisor(specs, auto_shutdown=mode) as tree:
                for number, letter in enumerate("ab", 1):
                    await tree.child(letter).stop(NORMAL)
                    if number == ends_after:
                        assert await tree.join() == SHUTDOWN
                        return
                    await tree.settled()
                    assert tree.is_alive()

        run(main)

    def test_significance_needs_a_supervisor_that_heeds_it(self):
        with pytest.raises(InvalidChildSpec, match="auto_shutdown"):
            Supervisor(workers("a", restart="transient", significant=True))


class TestDynamicSupervisor:
    def test_children_come_and_go_each_on_its_own(self, log):
        async def main():
            supervisor = await DynamicSupervisor.start(max_children=2)
            a = await supervisor.start_child(workers("a")[0])
            b = await supervisor.start_child(workers("b")[0])
            with pytest.raises(Exception, match="max_children"):
                await supervisor.start_child(workers("c")[0])
            clear()
            a.exit(KILL)
            await supervisor.settled()
            assert log == ["+a"]
            await supervisor.terminate_child(b)
            assert (await supervisor.count_children()).active == 1
            await supervisor.stop()
            assert log == ["+a", "-b", "-a"]

        run(main)

    def test_all_children_are_stopped_at_the_same_time(self):
        class Slow(GenServer):
            trap_exit = True

            async def terminate(self, reason):
                await asyncio.sleep(3)

        async def main():
            supervisor = await DynamicSupervisor.start()
            for _ in range(10):
                await supervisor.start_child(Slow.child_spec())
            loop = asyncio.get_running_loop()
            began = loop.time()
            await supervisor.stop()
            assert loop.time() - began == pytest.approx(3.0)

        run(main)

    def test_a_crash_storm_ends_it(self):
        async def main():
            supervisor = await DynamicSupervisor.start(max_restarts=1)
            a, b = [await supervisor.start_child(workers(letter)[0]) for letter in "ab"]
            a.exit("crash")
            b.exit("crash")
            assert await supervisor.join() == SHUTDOWN

        run(main)


def test_a_name_is_free_again_for_the_restarted_child():
    async def main():
        async with Supervisor([Worker.child_spec("a", name="worker", shutdown=INFINITY)]) as tree:
            for _ in range(3):
                before = whereis("worker")
                before.exit(KILL)
                await tree.settled()
                assert whereis("worker") not in {None, before}

    run(main)


class TestABlockLivesNoLongerThanItsTree:
    class Fragile(GenServer):
        def handle_cast(self, message):
            raise ValueError(message)

    def tree(self):
        return Supervisor([self.Fragile.child_spec(id="fragile")], strategy=ONE_FOR_ONE, max_restarts=0)

    def test_a_daemon_that_waits_hears_that_its_tree_gave_up(self):
        async def main():
            async with self.tree() as tree:
                tree.child("fragile").cast("boom")
                await asyncio.Event().wait()

        with pytest.raises(MaxRestartsReached, match="fragile"):
            run(main)

    def test_another_error_of_the_block_is_raised_and_says_it_in_a_note(self):
        async def main():
            async with self.tree() as tree:
                fragile = tree.child("fragile")
                fragile.cast("boom")
                try:
                    await asyncio.Event().wait()
                finally:
                    raise KeyError("mine")

        with pytest.raises(KeyError) as raised:
            run(main)
        assert "gave up after" in raised.value.__notes__[0]

    def test_a_cancellation_from_outside_stays_one(self):
        async def main():
            async def body():
                async with self.tree():
                    await asyncio.Event().wait()

            task = asyncio.ensure_future(body())
            await asyncio.sleep(1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

        run(main)


def test_every_end_of_a_child_is_an_event_with_the_decision():
    class Odd(GenServer):
        def handle_cast(self, message):
            self.exit(message)

    async def main():
        specs = [Odd.child_spec(id="kept"), Odd.child_spec(id="left", restart="transient")]
        with pytest.raises(MaxRestartsReached):
            async with Supervisor(specs, strategy=ONE_FOR_ONE, max_restarts=1) as tree:
                pid = tree.child("kept").pid
                tree.child("kept").cast("boom")
                tree.child("left").cast("normal")
                await asyncio.sleep(1)
                tree.child("kept").cast("boom")
                await asyncio.sleep(1)
        return pid

    seen = []
    with bus.attached("test", lambda event, fields: seen.append((event, fields)), "otpy.supervisor."):
        pid = run(main)
    assert [(event, fields["child"], fields["decision"]) for event, fields in seen] == [
        ("otpy.supervisor.restart", "kept", "restart (one_for_one)"),
        ("otpy.supervisor.left", "left", "left (transient)"),
        ("otpy.supervisor.gave_up", "kept", "give up"),
    ]
    assert seen[0][1]["pid"] == pid


@pytest.mark.parametrize("nested", [False, True])
def test_a_start_that_is_given_up_stops_in_order_what_it_has_started(nested):
    log = []

    class Started(GenServer):
        trap_exit = True

        def init(self, name):
            self.name = name

        async def terminate(self, reason):
            await asyncio.sleep(1)
            log.append((self.name, reason))

    class Never(GenServer):
        async def init(self):
            await asyncio.Event().wait()

    async def main():
        specs = [Started.child_spec("a", id="a"), Started.child_spec("b", id="b"), Never.child_spec()]
        if nested:
            specs = [Supervisor.child_spec(specs)]

        async def enter():
            async with Supervisor(specs, strategy=ONE_FOR_ONE):
                raise AssertionError

        entering = asyncio.ensure_future(enter())
        await asyncio.sleep(5)
        entering.cancel()
        with pytest.raises(asyncio.CancelledError):
            await entering
        assert log == [("b", "shutdown"), ("a", "shutdown")]
        assert asyncio.get_running_loop().time() == pytest.approx(7)

    run(main)


def test_a_start_function_that_ends_in_a_cancellation_is_a_failed_start():
    async def start():
        future = asyncio.get_running_loop().create_future()
        future.cancel()
        await future

    spec = ChildSpec(id="cancelled", start=start)

    async def main():
        async with Supervisor([Quiet.child_spec(id="other")], strategy=ONE_FOR_ONE) as tree:
            other = tree.child("other")
            with pytest.raises(StartFailed, match="CancelledError"):
                await tree.start_child(spec)
            assert other.is_alive()

    run(main)


class Quiet(GenServer):
    pass


@pytest.mark.parametrize("waits", [True, False])
def test_a_block_whose_supervisor_is_killed_says_so(waits):
    async def main():
        async with Supervisor([Quiet.child_spec()], strategy=ONE_FOR_ONE) as tree:
            tree.exit("kill")
            if waits:
                await asyncio.Event().wait()

    with pytest.raises(ActorDown, match="killed"):
        run(main)


def test_children_from_a_generator_are_there_again_after_a_restart():
    async def main():
        specs = (Quiet.child_spec(id=number) for number in range(3))
        async with Supervisor([Supervisor.child_spec(specs, id="below")], strategy=ONE_FOR_ONE) as tree:
            tree.child("below").exit("kill")
            await tree.settled()
            assert (await tree.child("below", SupervisorRef).count_children()).active == 3

    run(main)


@pytest.mark.parametrize("children", [None, 5, Quiet.child_spec()])
def test_children_that_are_no_list_are_refused(children):
    with pytest.raises(InvalidChildSpec, match="a list of ChildSpecs"):
        Supervisor(children)

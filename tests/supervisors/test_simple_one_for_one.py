"""A simple_one_for_one supervisor keeps the contract of supervisor(3): one template, any number of children."""

import asyncio

import pytest

from otpy.actors import KILL, SHUTDOWN, GenServer, Ignore
from otpy.errors import InvalidChildSpec, MaxRestartsReached, NotRegistered, StartFailed, SupervisionError
from otpy.supervisors import DynamicSupervisor, Supervisor
from otpy.supervisors.strategy import SIMPLE_ONE_FOR_ONE
from otpy.testing import run_in_virtual_time


class Session(GenServer):
    """Remembers what it was started with; fails on demand."""

    trap_exit = True

    def init(self, log, host, user, *, outcomes=()):
        self.log, self.started_with = log, (host, user)
        attempt = log.count(f"+{user}")
        log.append(f"+{user}")
        match outcomes[attempt] if attempt < len(outcomes) else "ok":
            case "ignore":
                return Ignore()
            case "fail":
                raise OSError(f"{user} cannot start")
        return None

    def handle_call(self, request, caller):
        return self.started_with

    def handle_info(self, message):
        self.exit(message.reason)

    def terminate(self, reason):
        self.log.append(f"-{self.started_with[1]}")


def sessions(log, *, flags=None, **spec):
    template = Session.child_spec(log, "here", id="session", **spec)
    return Supervisor([template], strategy=SIMPLE_ONE_FOR_ONE, **flags or {})


def run(main):
    log = []
    run_in_virtual_time(main(log))
    return log


def test_the_arguments_of_start_child_are_appended_to_the_templates():
    async def main(log):
        async with sessions(log) as tree:
            ann = await tree.start_child("ann")
            bob = await tree.start_child(user="bob")
            assert await ann.call("?") == ("here", "ann")
            assert await bob.call("?") == ("here", "bob")

    run(main)


def test_it_starts_without_children_and_stops_all_of_them():
    async def main(log):
        async with sessions(log) as tree:
            assert await tree.which_children() == []
            assert log == []
            for user in "abc":
                await tree.start_child(user)

    assert sorted(run(main)) == ["+a", "+b", "+c", "-a", "-b", "-c"]


def test_a_child_that_dies_is_restarted_with_its_own_arguments():
    async def main(log):
        async with sessions(log) as tree:
            for user in ("ann", "bob"):
                ref = await tree.start_child(user)
            ref.exit(KILL)
            await tree.settled()
            refs = [info.ref for info in await tree.which_children()]
            assert ref not in refs
            assert [await ref.call("?") for ref in refs] == [("here", "ann"), ("here", "bob")]

    run(main)


def test_children_have_no_ids_and_there_is_one_spec():
    async def main(log):
        async with sessions(log) as tree:
            for user in "ab":
                await tree.start_child(user)
            assert [(info.id, info.state) for info in await tree.which_children()] == [(None, "up"), (None, "up")]
            counts = await tree.count_children()
            assert (counts.specs, counts.active, counts.supervisors, counts.workers) == (1, 2, 0, 2)
            with pytest.raises(SupervisionError, match="no ids"):
                tree.child("session")

    run(main)


def test_terminate_child_takes_a_child_or_a_dead_process_but_no_stranger_and_no_id():
    async def main(log):
        async with sessions(log) as tree:
            ann, bob = await tree.start_child("ann"), await tree.start_child("bob")
            stranger = await Session.start(log, "elsewhere", "eve")
            await tree.terminate_child(ann)
            assert not ann.is_alive()
            await tree.terminate_child(ann)
            with pytest.raises(NotRegistered):
                await tree.terminate_child(stranger)
            with pytest.raises(SupervisionError, match="no ids"):
                await tree.terminate_child("session")
            assert [info.ref for info in await tree.which_children()] == [bob]
            await stranger.stop()

    run(main)


@pytest.mark.parametrize("operation", ["restart_child", "delete_child"])
@pytest.mark.parametrize("by", ["id", "ref", "unknown id"])
def test_restart_child_and_delete_child_are_refused(operation, by):
    async def main(log):
        async with sessions(log) as tree:
            ann = await tree.start_child("ann")
            with pytest.raises(SupervisionError, match="terminate_child forgets a child"):
                await getattr(tree, operation)({"id": "session", "ref": ann}.get(by, "nobody"))
            assert ann.is_alive()

    run(main)


def test_get_childspec_shows_the_template_by_its_id_and_by_any_child():
    async def main(log):
        async with sessions(log) as tree:
            ann = await tree.start_child("ann")
            stranger = await Session.start(log, "elsewhere", "eve")
            assert (await tree.get_childspec("session")) is (await tree.get_childspec(ann))
            for unknown in ("nobody", stranger):
                with pytest.raises(NotRegistered):
                    await tree.get_childspec(unknown)
            await stranger.stop()

    run(main)


def test_a_start_that_fails_or_ignores_leaves_no_child():
    async def main(log):
        async with sessions(log) as tree:
            with pytest.raises(StartFailed, match="session did not start") as caught:
                await tree.start_child("ann", outcomes=["fail"])
            assert isinstance(caught.value.reason, OSError)
            assert await tree.start_child("bob", outcomes=["ignore"]) is None
            with pytest.raises(StartFailed, match="unexpected keyword argument"):
                await tree.start_child("ann", age=7)
            assert await tree.which_children() == []

    run(main)


def test_a_restart_that_ignores_removes_the_child():
    async def main(log):
        async with sessions(log) as tree:
            ann = await tree.start_child("ann", outcomes=["ok", "ignore"])
            ann.exit(KILL)
            await tree.settled()
            assert await tree.which_children() == []

    assert run(main) == ["+ann", "+ann"]


def test_a_failed_restart_is_tried_again():
    async def main(log):
        async with sessions(log) as tree:
            ann = await tree.start_child("ann", outcomes=["ok", "fail", "fail", "ok"])
            ann.exit(KILL)
            while (await tree.count_children()).active == 0:
                pass

    assert run(main) == ["+ann"] * 4 + ["-ann"]


def test_each_failed_restart_counts():
    async def main(log):
        with pytest.raises(MaxRestartsReached, match="session"):
            async with sessions(log, flags={"max_restarts": 2}) as tree:
                bob = await tree.start_child("bob", outcomes=["ok", "fail", "fail", "ok"])
                await tree.start_child("eve")
                bob.exit(KILL)
                assert await tree.join() == SHUTDOWN

    assert run(main) == ["+bob", "+eve", "+bob", "+bob", "-eve"]


@pytest.mark.parametrize("kind", ["simple_one_for_one", "dynamic"])
def test_terminating_a_restarting_child_by_its_old_process_ends_the_retries(kind):
    class Slow(Session):
        async def init(self, *args, **kwargs):
            await asyncio.sleep(1)
            return super().init(*args, **kwargs)

    async def main(log):
        limits, outcomes = {"max_restarts": 99, "max_seconds": 9999}, ["ok", *["fail"] * 99]
        if kind == "dynamic":
            tree = await DynamicSupervisor.start(**limits)
            ann = await tree.start_child(Slow.child_spec(log, "here", "ann", outcomes=outcomes))
        else:
            tree = await Supervisor.start([Slow.child_spec(log, "here")], strategy=kind, **limits)
            ann = await tree.start_child("ann", outcomes=outcomes)
        ann.exit(KILL)
        await asyncio.sleep(0.5)
        await tree.terminate_child(ann)
        assert await tree.which_children() == []
        await asyncio.sleep(10)
        await tree.stop()

    assert run(main) == ["+ann", "+ann"]


def test_at_the_end_all_children_are_told_at_once_and_the_slow_ones_killed():
    class Hanging(Session):
        async def terminate(self, reason):
            super().terminate(reason)
            await asyncio.get_running_loop().create_future()

    async def main(log):
        clock = asyncio.get_running_loop().time
        async with Supervisor([Hanging.child_spec(log, "here", shutdown=2)], strategy=SIMPLE_ONE_FOR_ONE) as tree:
            refs = [await tree.start_child(user) for user in "abc"]
            before = clock()
        assert clock() - before == pytest.approx(2)
        assert [ref.exit_reason for ref in refs] == ["killed"] * 3

    run(main)


def test_temporary_children_do_not_keep_their_arguments_in_memory():
    async def main(log):
        for restart, kept in (("temporary", False), ("permanent", True)):
            async with sessions(log, restart=restart) as tree:
                await tree.start_child("ann")
                (child,) = tree.process.actor.children
                assert ("ann" in getattr(child.start, "args", ())) is kept

    run(main)


@pytest.mark.parametrize("templates", [0, 2])
def test_exactly_one_template_is_asked_for(templates):
    specs = [Session.child_spec(id=f"t{number}") for number in range(templates)]
    with pytest.raises(InvalidChildSpec, match="exactly one child spec"):
        Supervisor(specs, strategy="simple_one_for_one")


@pytest.mark.parametrize(("auto_shutdown", "enough"), [("any_significant", 1), ("all_significant", 3)])
def test_significant_children_that_end_for_good_end_the_supervisor(auto_shutdown, enough):
    async def main(log):
        flags = {"auto_shutdown": auto_shutdown}
        async with sessions(log, flags=flags, restart="temporary", significant=True) as tree:
            refs = [await tree.start_child(user) for user in "abc"]
            for number, ref in enumerate(refs, 1):
                await ref.stop()
                if number == enough:
                    break
                await tree.settled()
            assert await tree.join() == SHUTDOWN

    assert len(run(main)) == 6


def test_what_is_no_child_spec_is_refused_and_harms_no_supervisor():
    async def main(log):
        async with Supervisor([Session.child_spec(log, "here", "ann", id="ann")]) as tree:
            for wrong in (("ann",), (), (Session.child_spec(log, "here", "bob"), 1)):
                with pytest.raises(InvalidChildSpec, match="a ChildSpec"):
                    await tree.start_child(*wrong)
            assert (await tree.count_children()).active == 1

    run(main)

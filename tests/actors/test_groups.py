"""Process groups keep the contract of Erlang's pg."""

import asyncio
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otpy.actors import GenServer, Mailbox, Node, Task, self_ref, sys
from otpy.actors.groups import Groups, Joined, Left
from otpy.errors import ActorDown, CallTimeout
from otpy.supervisors import REST_FOR_ONE, Supervisor
from otpy.testing import run_in_virtual_time


class Member(GenServer):
    """Does what it is asked to do, and remembers what it heard."""

    def init(self, setup=None):
        self.heard = []
        if setup is not None:
            setup()

    def handle_call(self, request, caller):
        return request() if callable(request) else self.heard

    def handle_info(self, message):
        self.heard.append(message)


class Threaded(Member):
    scheduling = "thread"


class Narrow(Member):
    mailbox = Mailbox(1)


def run(main):
    return run_in_virtual_time(main())


async def some(count):
    return [await Groups.start(), *[await Member.start() for _ in range(count)]]


def test_a_group_is_there_as_long_as_it_has_members():
    async def main():
        groups, first, second = await some(2)
        assert groups.which_groups() == groups.members("news") == []
        await groups.join_group("news", first)
        await groups.join_group("news", second)
        await groups.join_group(("any", "thing"), first)
        assert groups.members("news") == [first, second]
        assert groups.which_groups() == ["news", ("any", "thing")]
        assert groups.leave_group("news", first)
        assert groups.leave_group("news", second)
        assert not groups.leave_group("news", second)
        assert groups.which_groups() == [("any", "thing")]

    run(main)


def test_who_joins_several_times_has_to_leave_as_often():
    async def main():
        groups, first, second = await some(2)
        for process in (first, second, first):
            await groups.join_group("news", process)
        assert groups.members("news") == [first, second, first]
        assert groups.leave_group("news", first)
        assert groups.members("news") == [first, second]
        assert groups.leave_group("news", first)
        assert groups.members("news") == [second]

    run(main)


def test_a_member_leaves_all_its_groups_at_the_moment_it_dies():
    async def main():
        groups, first, second = await some(2)
        for group in ("a", "a", "b"):
            await groups.join_group(group, first)
        await groups.join_group("a", second)
        first.exit("kill")
        assert groups.members("a") == [second]
        assert groups.which_groups() == ["a"]
        with pytest.raises(ActorDown):
            await groups.join_group("a", first)

    run(main)


def test_processes_join_by_themselves():
    async def main():
        groups = await Groups.start()
        member = await Member.start(lambda: groups.join_group("servers"))

        async def work():
            await groups.join_group("tasks")
            return groups.members("tasks") == [self_ref()]

        assert await Task.async_(work)
        assert groups.which_groups() == ["servers"]
        assert groups.members("servers") == [member]
        assert await member.call(lambda: groups.leave_group("servers"))
        with pytest.raises(RuntimeError, match="say which one"):
            groups.join_group("servers")

    run(main)


def test_a_subscriber_gets_the_members_and_then_every_change():
    async def main():
        groups, watcher, first, second = await some(3)
        await groups.join_group("news", first)
        monitor, members = groups.monitor("news", watcher)
        assert members == [first]
        await groups.join_group("news", second)
        await groups.join_group("news", second)
        await groups.join_group("other", second)
        groups.leave_group("news", first)
        second.exit("kill")
        assert await watcher.call("heard") == [
            Joined(monitor, "news", second),
            Joined(monitor, "news", second),
            Left(monitor, "news", first),
            Left(monitor, "news", second),
            Left(monitor, "news", second),
        ]

    run(main)


def test_a_subscription_ends_when_it_is_taken_back_or_its_subscriber_dies():
    async def main():
        groups, watcher, other, member = await some(3)
        monitor, _ = groups.monitor("news", watcher)
        groups.monitor("news", other)
        assert groups.demonitor(monitor)
        assert not groups.demonitor(monitor)
        other.exit("kill")
        assert groups.process.actor.table.monitors == {}
        assert watcher.process.on_exit == {n: c for n, c in watcher.process.on_exit.items() if n != monitor.number}
        await groups.join_group("news", member)
        assert await watcher.call("heard") == []
        with pytest.raises(ActorDown):
            groups.monitor("news", other)

    run(main)


def test_a_broadcast_reaches_every_member_once():
    async def main():
        groups, first, second = await some(2)
        narrow = await Narrow.start()
        for process in (first, second, first, narrow):
            await groups.join_group("news", process)
        assert groups.broadcast("news", "rain") == 3
        assert groups.broadcast("news", "sun") == 2  # one mailbox is full
        assert groups.broadcast("nobody", "rain") == 0
        assert await first.call("heard") == await second.call("heard") == ["rain", "sun"]

    run(main)


def test_all_members_are_called_at_once_and_each_answers_or_fails():
    class Slow(Member):
        async def handle_call(self, request, caller):
            await asyncio.sleep(request())

    class Failing(Member):
        def handle_call(self, request, caller):
            raise KeyError("lost")

    async def main():
        groups, first, second = await some(2)
        slow, failing = await Slow.start(), await Failing.start()
        for process in (first, second, first, slow, failing):
            await groups.join_group("news", process)
        before = asyncio.get_running_loop().time()
        answers = await groups.call_all("news", lambda: 60, timeout=2.0)
        assert asyncio.get_running_loop().time() - before == pytest.approx(2.0)
        assert answers.replies == {first: 60, second: 60}
        assert {ref: type(error) for ref, error in answers.failed.items()} == {slow: CallTimeout, failing: ActorDown}

    run(main)


def test_members_outlive_the_groups_which_a_supervisor_starts_again_without_them():
    async def main():
        groups, member, watcher = await some(2)
        groups.join_group("news", member)
        groups.monitor("news", watcher)
        groups.exit("kill")
        assert member.is_alive()
        assert watcher.is_alive()
        assert member.process.names == []  # nothing of the dead table is kept
        for use in (groups.which_groups, lambda: groups.join_group("news", member)):
            with pytest.raises(ActorDown):
                use()

        again = []
        join = Member.child_spec(lambda: again[-1].join_group("news"), id="member")
        start = Groups.child_spec(id="groups").start

        async def starting():
            again.append(await start())
            return again[-1]

        children = [Groups.child_spec(id="groups").but(start=starting), join]
        async with Supervisor(children, strategy=REST_FOR_ONE) as tree:
            tree.child("groups").exit("kill")
            await tree.settled()
            assert len(again) == 2
            assert again[-1].members("news") == [tree.child("member")]

    run(main)


def test_a_report_shows_the_members():
    async def main():
        groups, member = await some(1)
        await groups.join_group("news", member)
        assert "'news'" in str(await sys.get_status(groups))

    run(main)


def test_members_and_subscribers_live_on_other_loops_and_threads():
    async def main():
        groups, watcher = await some(1)
        monitor, _ = groups.monitor("news", watcher)
        threaded = await Threaded.start(lambda: groups.join_group("news"))
        with Node() as node:
            there = node.run(Member.start())
            await groups.join_group("news", there)
            assert groups.members("news") == [threaded, there]
            assert await there.call(lambda: groups.monitor("news")[1]) == [threaded, there]
            with pytest.raises(RuntimeError, match="another event loop"):
                groups.monitor("news", there)
            await threaded.stop()
            assert [type(message) for message in await there.call("heard")] == [Left]
            there.exit("kill")
            await there.join(5)
        heard = await watcher.call("heard")
        assert heard == [
            Joined(monitor, "news", threaded),
            Joined(monitor, "news", there),
            Left(monitor, "news", threaded),
            Left(monitor, "news", there),
        ]
        assert groups.which_groups() == []

    asyncio.run(main())


STEPS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["join", "leave"]), st.sampled_from("ab"), st.integers(0, 2)),
        st.tuples(st.just("kill"), st.just("a"), st.integers(0, 2)),
    ),
    max_size=40,
)


@settings(max_examples=150, deadline=None)
@given(before=STEPS, after=STEPS)
def test_the_members_at_the_time_of_monitoring_and_the_changes_since_make_the_members_now(before, after):
    async def main():
        groups, watcher, *members = await some(4)
        model = {"a": Counter(), "b": Counter()}

        async def go(steps):
            for step, group, who in steps:
                process = members[who]
                if step == "join":
                    await groups.join_group(group, process)
                    model[group][process] += 1
                elif step == "leave":
                    assert groups.leave_group(group, process) == (model[group][process] > 0)
                    model[group] -= Counter([process])
                else:
                    process.exit("kill")
                    members[who] = await Member.start()
                    for counts in model.values():
                        del counts[process]
                for name, counts in model.items():
                    assert Counter(groups.members(name)) == +counts

        await go(before)
        _, seen = groups.monitor("a", watcher)
        await go(after)
        known = Counter(seen)
        for message in await watcher.call("heard"):
            known[message.process] += 1 if isinstance(message, Joined) else -1
            assert known[message.process] >= 0
        assert +known == +model["a"]

    run(main)

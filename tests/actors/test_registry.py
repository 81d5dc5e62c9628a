"""A registry: keys, values, and names, of living processes only."""

import asyncio
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otpy.actors import (
    Down,
    ExitMessage,
    GenServer,
    Mailbox,
    Names,
    Node,
    Registry,
    Task,
    current_names,
    monitor,
    names_context,
    self_ref,
    sys,
    whereis,
)
from otpy.errors import ActorDown, AlreadyRegistered, NotRegistered, StartFailed
from otpy.supervisors import ONE_FOR_ONE, REST_FOR_ONE, Supervisor
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


class Trapping(Member):
    trap_exit = True


class Threaded(Member):
    scheduling = "thread"


class Narrow(Member):
    mailbox = Mailbox(1)


def run(main):
    async def with_names():
        token = names_context.set(Names())
        try:
            return await main()
        finally:
            names_context.reset(token)

    return run_in_virtual_time(with_names())


# -- keys and values -----------------------------------------------------------------------------------------------


def test_a_unique_key_has_one_process():
    async def main():
        registry, first, second = await Registry.start(), await Member.start(), await Member.start()
        await registry.register("key", 1, first)
        for other in (first, second):
            with pytest.raises(AlreadyRegistered, match="'key'"):
                await registry.register("key", 2, other)
        assert [(e.key, e.process, e.value) for e in registry.lookup("key")] == [("key", first, 1)]
        assert registry.whereis("key") == first
        assert registry.whereis("other") is None

    run(main)


def test_a_duplicate_key_has_any_number_and_a_process_any_number_of_times():
    async def main():
        registry, first, second = await Registry.start(keys="duplicate"), await Member.start(), await Member.start()
        for value, process in enumerate((first, second, first)):
            await registry.register("key", value, process)
        assert [(e.process, e.value) for e in registry.lookup("key")] == [(first, 0), (second, 1), (first, 2)]
        assert registry.values("key", first) == [0, 2]
        assert registry.keys_of(first) == ["key", "key"]
        assert (registry.count(), registry.count("key"), registry.count("other")) == (3, 3, 0)
        assert registry.unregister("key", first)
        assert not registry.unregister("key", first)
        assert registry.values("key", first) == []
        assert registry.keys() == ["key"]
        with pytest.raises(ValueError, match="duplicate keys"):
            registry.whereis("key")

    run(main)


def test_other_kinds_of_keys_are_refused():
    async def main():
        with pytest.raises(StartFailed, match="'unique', 'duplicate'"):
            await Registry.start(keys="many")

    run(main)


def test_a_process_registers_itself_in_a_plain_callback_without_waiting():
    async def main():
        registry = await Registry.start()
        member = await Member.start(lambda: registry.register("me"))
        assert registry.whereis("me") == member
        assert await member.call(lambda: registry.unregister("me"))
        assert registry.whereis("me") is None
        with pytest.raises(RuntimeError, match="say which one"):
            registry.register("me")

    run(main)


def test_a_value_is_updated_in_place():
    async def main():
        registry, member, other = await Registry.start(), await Member.start(), await Member.start()
        await registry.register("count", 1, member)
        assert registry.update_value("count", lambda value: value + 1, member) == (2, 1)
        assert registry.values("count", member) == [2]
        with pytest.raises(NotRegistered):
            registry.update_value("count", lambda value: value + 1, other)
        with pytest.raises(ZeroDivisionError):
            registry.update_value("count", lambda value: value // 0, member)
        assert registry.values("count", member) == [2]

    run(main)


def test_entries_are_selected_by_key_value_and_predicate():
    async def main():
        registry, members = await Registry.start(keys="duplicate"), [await Member.start() for _ in range(4)]
        for number, member in enumerate(members):
            await registry.register("even" if number % 2 == 0 else "odd", number, member)

        def values(entries):
            return sorted(entry.value for entry in entries)

        assert values(registry.select()) == [0, 1, 2, 3]
        assert values(registry.select(key="odd")) == [1, 3]
        assert values(registry.select(value=2)) == [2]
        assert values(registry.select(where=lambda entry: entry.process in members[1:3])) == [1, 2]
        assert values(registry.match("even", where=lambda entry: entry.value > 0)) == [2]
        assert values(registry.match("even", 3)) == []
        assert registry.select(key=None) == []

    run(main)


def test_dispatch_reaches_every_entry_and_counts_no_mailbox_that_was_full():
    async def main():
        registry = await Registry.start(keys="duplicate")
        members = [await Member.start(), await Narrow.start(), await Member.start()]
        for member in members:
            await registry.register("topic", None, member)
        assert registry.dispatch("topic", "one") == 3
        assert registry.dispatch("topic", "two") == 2
        assert registry.dispatch("nothing", "three") == 0
        assert [await member.call("heard") for member in (members[0], members[2])] == [["one", "two"]] * 2

    run(main)


def test_a_report_of_a_registry_shows_its_entries():
    async def main():
        registry, member = await Registry.start(), await Member.start()
        await registry.register("key", 1, member)
        assert "'key'" in str(await sys.get_status(registry))

    run(main)


# -- death ---------------------------------------------------------------------------------------------------------


def test_entries_are_gone_when_a_monitor_hears_of_the_death():
    class Watcher(GenServer):
        def init(self, registry, target):
            self.registry, self.seen = registry, None
            monitor(target)

        def handle_info(self, message):
            assert isinstance(message, Down)
            self.seen = (self.registry.keys(), self.registry.count(), self.registry.keys_of(message.process))

        def handle_call(self, request, caller):
            return self.seen

    async def main():
        registry, member = await Registry.start(), await Member.start()
        for key in "abc":
            await registry.register(key, None, member)
        watcher = await Watcher.start(registry, member)
        member.exit("kill")
        assert registry.keys() == []  # at once, on the same loop
        assert await watcher.call("seen") == ([], 0, [])

    run(main)


def test_the_dead_cannot_be_registered():
    async def main():
        registry, member = await Registry.start(), await Member.start()
        await member.stop()
        with pytest.raises(ActorDown):
            await registry.register("key", None, member)
        assert registry.keys() == []

    run(main)


def test_a_task_is_registered_for_as_long_as_it_runs():
    async def main():
        registry = await Registry.start()

        async def work():
            await registry.register("job", "running")
            assert registry.whereis("job") == self_ref()
            return "done"

        assert await Task.async_(work) == "done"
        assert registry.lookup("job") == []

    run(main)


def test_registrants_die_with_the_registry_unless_they_trap_exits():
    async def main():
        registry, member, trapping = await Registry.start(), await Member.start(), await Trapping.start()
        await registry.register("member", None, member)
        await registry.register("trapping", None, trapping)
        registry.exit("kill")
        assert member.exit_reason == "killed"
        assert await trapping.call("heard") == [ExitMessage(registry, "killed")]
        for use in (registry.keys, lambda: registry.register("key", None, trapping)):
            with pytest.raises(ActorDown):
                use()
        again = await Registry.start()
        await again.register("trapping", None, trapping)
        await trapping.stop()
        assert again.keys() == []

    run(main)


def test_nobody_falls_with_a_registry_that_is_stopped_normally():
    async def main():
        registry, member = await Registry.start(), await Member.start()
        await registry.register("member", None, member)
        await registry.stop()
        assert member.is_alive()

    run(main)


@pytest.mark.parametrize("strategy", [ONE_FOR_ONE, REST_FOR_ONE])
def test_after_a_restart_of_the_registry_its_registrants_are_registered_again(strategy):
    children = [
        Registry.child_spec(name="rooms"),
        *(Member.child_spec(name=Registry.via("rooms", room, len(room)), id=room) for room in ("bar", "lobby")),
    ]

    async def main():
        async with Supervisor(children, strategy=strategy) as tree:
            before = whereis("rooms")
            assert sorted(before.keys()) == ["bar", "lobby"]
            before.exit("kill")
            await tree.settled()
            after = whereis("rooms")
            assert after != before
            assert sorted((e.key, e.value) for e in after.select()) == [("bar", 3), ("lobby", 5)]
            assert whereis(Registry.via("rooms", "bar")) == tree.child("bar")

    run(main)


# -- names ---------------------------------------------------------------------------------------------------------


def test_a_key_is_a_name_for_start_and_for_whereis():
    async def main():
        registry = await Registry.start(name="rooms")
        name = registry.via("lobby", {"seats": 4})
        assert whereis(name) is None
        lobby = await Member.start(name=name)
        assert whereis(name) == whereis(Registry.via("rooms", "lobby")) == current_names().get(name) == lobby
        assert registry.lookup("lobby")[0].value == {"seats": 4}
        assert lobby.name == name == Registry.via("rooms", "lobby")
        with pytest.raises(AlreadyRegistered):
            await Member.start(name=name)
        lobby.exit("kill")
        assert whereis(name) is None
        with pytest.raises(NotRegistered):
            current_names().get(name)
        assert await Member.start(name=name) == whereis(name)
        assert current_names().unregister(name)
        assert not current_names().unregister(name)

    run(main)


def test_a_registry_without_a_name_gives_names_too():
    async def main():
        registry = await Registry.start()
        member = await Member.start(name=registry.via(1))
        assert whereis(registry.via(1)) == member
        registry.exit("kill")
        assert whereis(registry.via(1)) is None

    run(main)


def test_a_name_in_a_registry_is_waited_for():
    async def main():
        name = Registry.via("rooms", "lobby")
        waiting = asyncio.ensure_future(current_names().wait_for(name, 10))
        await asyncio.sleep(1)
        await Registry.start(name="rooms")
        await asyncio.sleep(1)
        lobby = await Member.start(name=name)
        assert await waiting == lobby
        assert await current_names().wait_for(name) == lobby

    run(main)


def test_a_process_with_a_plain_name_registers_itself_as_well():
    async def main():
        registry = await Registry.start()
        member = await Member.start(lambda: registry.register("key"), name="member")
        assert registry.whereis("key") == whereis("member") == member
        await member.stop()
        assert whereis("member") is None
        assert registry.keys() == []

    run(main)


def test_a_name_that_is_taken_costs_no_thread():
    async def main():
        registry = await Registry.start()
        await Threaded.start(name=registry.via("key"))
        before = threading.active_count()
        with pytest.raises(AlreadyRegistered):
            await Threaded.start(name=registry.via("key"))
        assert threading.active_count() == before
        await registry.whereis("key").stop()

    asyncio.run(main())


def test_what_is_no_unique_registry_gives_no_names():
    async def main():
        with pytest.raises(NotRegistered, match="rooms"):
            await Member.start(name=Registry.via("rooms", 1))
        await Member.start(name="member")
        with pytest.raises(TypeError, match="no registry"):
            await Member.start(name=Registry.via("member", 1))
        many = await Registry.start(keys="duplicate")
        with pytest.raises(ValueError, match="keys='unique'"):
            await Member.start(name=many.via(1))
        with pytest.raises(TypeError, match="unhashable"):
            many.via([])

    run(main)


# -- other loops and threads ---------------------------------------------------------------------------------------


def test_registrants_live_on_other_loops():
    async def main():
        registry = await Registry.start()
        with Node() as node:
            there = node.run(Member.start())
            await there.call(lambda: registry.register("itself") and None)
            registering = registry.register("from here", 1, there)
            await registering
            with pytest.raises(AlreadyRegistered):
                await registry.register("from here", 2, there)
            assert registry.whereis("itself") == registry.whereis("from here") == there
            assert sorted(registry.keys_of(there)) == ["from here", "itself"]
            registry.exit("kill")
            assert await there.join(5) == "killed"

    asyncio.run(main())


def test_the_death_of_a_process_on_another_loop_frees_its_keys_before_it_is_known():
    async def main():
        registry = await Registry.start()
        with Node() as node:
            for _ in range(50):
                there = node.run(Member.start(name=registry.via("key")))
                there.exit("kill")
                await there.join(5)
                assert registry.keys() == []

    asyncio.run(main())


def test_a_server_in_a_thread_registers_itself():
    async def main():
        registry = await Registry.start()
        member = await Threaded.start(lambda: registry.register("thread", 1))
        assert registry.whereis("thread") == member
        updated = await member.call(lambda: registry.update_value("thread", lambda value: value + 1))
        assert updated == (2, 1)
        await member.stop()
        assert registry.keys() == []

    asyncio.run(main())


def test_a_process_whose_loop_is_closed_cannot_be_registered():
    async def main():
        registry = await Registry.start()
        with Node() as node:
            there = node.run(Member.start())
        with pytest.raises(ActorDown):
            registry.register("key", None, there)

    asyncio.run(main())


def test_only_one_of_many_threads_gets_a_unique_key():
    with Node() as home:
        registry = home.run(Registry.start())
        nodes = [Node().__enter__() for _ in range(3)]
        members = [node.run(Member.start()) for node in nodes for _ in range(10)]
        won = []
        barrier = threading.Barrier(len(members))

        def race(member):
            barrier.wait(10)
            try:
                registry.register("key", None, member)
            except AlreadyRegistered:
                return
            won.append(member)

        threads = [threading.Thread(target=race, args=(member,)) for member in members]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
        assert won == [registry.whereis("key")]
        for node in nodes:
            node.__exit__(None, None, None)


# -- against a model -----------------------------------------------------------------------------------------------

KEYS = st.sampled_from("abc")
WHO = st.integers(0, 3)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("register"), KEYS, WHO, st.integers(0, 9)),
        st.tuples(st.just("unregister"), KEYS, WHO),
        st.tuples(st.just("update"), KEYS, WHO),
        st.tuples(st.just("kill"), WHO),
        st.tuples(st.just("turn")),
    ),
    max_size=40,
)


@settings(max_examples=150, deadline=None)
@given(unique=st.booleans(), steps=STEPS)
def test_a_registry_is_what_a_list_of_living_entries_is(unique, steps):  # noqa: C901 - one branch a step
    async def main():
        registry = await Registry.start(keys="unique" if unique else "duplicate")
        members = [await Member.start() for _ in range(4)]
        model = []

        for step, *args in steps:
            if step == "register":
                key, who, value = args
                if unique and any(entry[0] == key for entry in model):
                    with pytest.raises(AlreadyRegistered):
                        await registry.register(key, value, members[who])
                else:
                    await registry.register(key, value, members[who])
                    model.append((key, who, value))
            elif step == "unregister":
                key, who = args
                assert registry.unregister(key, members[who]) == any(entry[:2] == (key, who) for entry in model)
                model = [entry for entry in model if entry[:2] != (key, who)]
            elif step == "update":
                key, who = args
                found = next((index for index, entry in enumerate(model) if entry[:2] == (key, who)), None)
                if found is None:
                    with pytest.raises(NotRegistered):
                        registry.update_value(key, lambda value: value + 1, members[who])
                else:
                    old = model[found][2]
                    assert registry.update_value(key, lambda value: value + 1, members[who]) == (old + 1, old)
                    model[found] = (key, who, old + 1)
            elif step == "kill":
                (who,) = args
                members[who].exit("kill")
                model = [entry for entry in model if entry[1] != who]
                members[who] = await Member.start()
            else:
                await asyncio.sleep(0)
            for key in "abc":
                entries = [(e.key, members.index(e.process), e.value) for e in registry.lookup(key)]
                assert entries == [entry for entry in model if entry[0] == key]
                assert registry.count(key) == len(entries)
            assert sorted(registry.keys()) == sorted({entry[0] for entry in model})
            assert registry.count() == len(model) == len(registry.select())
            for who, member in enumerate(members):
                assert sorted(registry.keys_of(member)) == sorted(entry[0] for entry in model if entry[1] == who)

    run_in_virtual_time(main())

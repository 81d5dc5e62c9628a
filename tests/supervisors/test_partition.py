"""A partition supervisor: every key has one process, and keeps it."""

import os
import subprocess
import sys
from collections import Counter as Counts
from enum import StrEnum

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otpy.actors import GenServer, whereis
from otpy.errors import InvalidChildSpec, MaxRestartsReached, NotRegistered, SupervisionError
from otpy.supervisors import ONE_FOR_ALL, DynamicSupervisor, Supervisor
from otpy.supervisors.partition import PartitionSupervisor, partition_of
from otpy.testing import run_in_virtual_time


class Shard(GenServer):
    """Says which partition it is."""

    def init(self, partition=None):
        self.partition = partition

    def handle_call(self, request, caller):
        return self.partition


def run(main):
    return run_in_virtual_time(main())


def test_every_partition_is_started_with_its_number():
    async def main():
        async with PartitionSupervisor(Shard.child_spec, partitions=3) as shards:
            assert shards.partitions == 3
            assert [info.id for info in await shards.which_children()] == [0, 1, 2]
            assert [await shards.child(number).call("?") for number in range(3)] == [0, 1, 2]

    run(main)


def test_there_is_one_partition_a_processor_unless_told_otherwise():
    async def main():
        async with PartitionSupervisor(Shard.child_spec()) as shards:
            assert shards.partitions == os.cpu_count()
            assert (await shards.count_children()).active == os.cpu_count()

    run(main)


def test_a_key_leads_to_its_partition():
    async def main():
        async with PartitionSupervisor(Shard.child_spec, partitions=5) as shards:
            for key in ("a", 7, -7, b"a", None, ("a", 7)):
                assert await shards.partition_for(key).call("?") == partition_of(key, 5)
            with pytest.raises(TypeError, match="float"):
                shards.partition_for(1.5)

    run(main)


def test_a_partition_that_dies_is_restarted_in_its_place_and_no_other_key_moves():
    async def main():
        async with PartitionSupervisor(Shard.child_spec, partitions=3) as shards:
            before = [shards.partition_for(number) for number in range(3)]
            before[1].exit("kill")
            await shards.settled()
            after = [shards.partition_for(number) for number in range(3)]
            assert [old == new for old, new in zip(before, after, strict=True)] == [True, False, True]
            assert await after[1].call("?") == 1

    run(main)


def test_the_strategy_and_the_intensity_are_those_of_a_supervisor():
    async def main():
        with pytest.raises(MaxRestartsReached):
            async with PartitionSupervisor(
                Shard.child_spec, partitions=3, strategy=ONE_FOR_ALL, max_restarts=1
            ) as shards:
                before = [shards.child(number) for number in range(3)]
                before[0].exit("kill")
                await shards.settled()
                assert not any(shard.is_alive() for shard in before)
                shards.child(2).exit("kill")
                await shards.join()

    run(main)


def test_a_partition_without_a_process_is_named():
    async def main():
        async with PartitionSupervisor(Shard.child_spec, partitions=2) as shards:
            await shards.terminate_child(1)
            with pytest.raises(NotRegistered, match="1"):
                shards.partition_for(3)
            await shards.restart_child(1)
            assert await shards.partition_for(3).call("?") == 1

    run(main)


def test_partitions_are_neither_added_nor_deleted():
    async def main():
        async with PartitionSupervisor(Shard.child_spec, partitions=2) as shards:
            with pytest.raises(SupervisionError, match="2 partitions"):
                await shards.start_child(Shard.child_spec(2))
            await shards.terminate_child(1)
            with pytest.raises(SupervisionError, match="cannot be deleted"):
                await shards.delete_child(1)

    run(main)


def test_it_splits_a_dynamic_supervisor_and_stands_in_a_tree():
    async def main():
        spec = PartitionSupervisor.child_spec(DynamicSupervisor.child_spec(), partitions=2, name="sessions")
        async with Supervisor([spec]) as tree:
            sessions = whereis("sessions")
            assert sessions == tree.child("sessions")
            for user in range(4):
                await sessions.partition_for(user).start_child(Shard.child_spec(user, id=user))
            assert [(await sessions.child(number).count_children()).active for number in range(2)] == [2, 2]
            assert tree.render().count("DynamicSupervisor") == 0  # a partition is known by its number
            assert tree.tree().children[0].children[1].id == 1

    run(main)


@pytest.mark.parametrize(
    ("child", "options", "message"),
    [
        (Shard.child_spec, {"partitions": 0}, "partitions"),
        (Shard.child_spec, {"partitions": 2.0}, "partitions"),
        (Shard.child_spec, {"partitions": True}, "partitions"),
        (Shard.child_spec, {"strategy": "simple_one_for_one"}, "strategy"),
        (Shard.child_spec, {"strategy": "all_for_one"}, "strategy"),
        (Shard, {}, "child"),
        ("Shard", {}, "child"),
        (lambda number: None, {}, "child"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_starts(child, options, message):
    with pytest.raises(InvalidChildSpec, match=message):
        PartitionSupervisor(child, **options)


# -- routing -------------------------------------------------------------------------------------------------------

PLAIN = st.one_of(st.text(), st.integers(), st.binary(), st.none(), st.booleans())
KEYS = st.recursive(PLAIN, lambda inner: st.lists(inner, max_size=4).map(tuple), max_leaves=8)


@given(key=KEYS, partitions=st.integers(1, 100))
def test_every_key_has_a_partition(key, partitions):
    assert 0 <= partition_of(key, partitions) < partitions


@given(first=KEYS, second=KEYS)
def test_equal_keys_have_the_same_partition(first, second):
    if first == second:
        assert partition_of(first, 1 << 32) == partition_of(second, 1 << 32)


def test_keys_that_python_takes_for_equal_are():
    class Colour(StrEnum):
        RED = "red"

    assert partition_of(Colour.RED, 97) == partition_of("red", 97)
    assert partition_of(key=True, partitions=97) == partition_of(1, 97)
    assert partition_of((True, "a"), 97) == partition_of((1, "a"), 97)


def test_keys_that_look_alike_are_told_apart():
    keys = ["1", b"1", ("1",), (1,), (("1",),), ("1", ""), ("", "1"), ("s1",), None, ("n",), "", b"", ()]
    assert len({partition_of(key, 1 << 32) for key in keys}) == len(keys)


def test_a_partition_does_not_depend_on_the_process_that_asks():
    keys = ["alice", b"alice", ("user", 7), (None, ("é", -1)), "\ud800", -13]
    code = f"from otpy.supervisors.partition import partition_of; print([partition_of(k, 1009) for k in {keys!r}])"
    elsewhere = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
            text=True,
            timeout=60,
        ).stdout.strip()
        for seed in ("1", "2")
    }
    assert elsewhere == {str([partition_of(key, 1009) for key in keys])}
    assert [partition_of(key, 1009) for key in keys] == [975, 366, 889, 152, 714, 13]  # as ever


def test_keys_are_spread_evenly():
    for keys in ([f"user-{number}" for number in range(8000)], [("user", n) for n in range(8000)], range(8000)):
        counts = Counts(partition_of(key, 8) for key in keys)
        assert all(900 <= counts[number] <= 1100 for number in range(8))

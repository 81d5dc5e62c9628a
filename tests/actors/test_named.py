"""A name leads to whoever has it when the message is sent."""

import asyncio

import pytest

from otpy.actors import GenServer, Names, Registry, named, names_context, registered
from otpy.errors import ActorDown
from otpy.supervisors import Supervisor
from otpy.testing import run_in_virtual_time


class Board(GenServer):
    def init(self):
        self.said = []

    def handle_call(self, request, caller):
        return self.said

    def handle_cast(self, message):
        self.said.append(message)

    def handle_info(self, message):
        self.said.append((message,))


def run(main):
    return run_in_virtual_time(main())


def test_it_reaches_the_successor_after_a_restart():
    async def main():
        board = named("board")
        async with Supervisor([Board.child_spec(name="board")]) as tree:
            board.cast("old")
            tree.child("board").exit("kill")
            await tree.settled()
            board.cast("new")
            board.send("info")
            assert await board.call("said") == ["new", ("info",)]
            assert board.whereis() == tree.child("board")
            assert registered()["board"] == tree.child("board")

    run(main)


def test_nobody_there_drops_a_cast_and_fails_a_call():
    async def main():
        nobody = named("nobody")
        nobody.cast("dropped")
        nobody.send("dropped")
        with pytest.raises(ActorDown, match="'nobody' is down: 'noproc'"):
            await nobody.call("anything")
        with pytest.raises(ActorDown, match="noproc"):
            await asyncio.to_thread(nobody.call_sync, "anything")

    run(main)


def test_a_thread_may_call_by_name():
    async def main():
        await Board.start(name="board")
        assert await asyncio.to_thread(named("board").call_sync, "said") == []

    asyncio.run(main())


def test_a_key_of_a_registry_is_a_name_too():
    async def main():
        rooms = await Registry.start(name="rooms")
        kitchen = named(Registry.via("rooms", "kitchen"))
        await Board.start(name=Registry.via("rooms", "kitchen"))
        kitchen.cast("hello")
        assert await kitchen.call("said") == ["hello"]
        await rooms.stop()
        with pytest.raises(ActorDown):
            await kitchen.call("said")

    run(main)


def test_the_table_is_the_one_of_where_it_was_made():
    async def main():
        here = named("board")
        token = names_context.set(Names())
        await Board.start(name="board")
        there = named("board")
        names_context.reset(token)
        assert await there.call("said") == []
        assert here.whereis() is None

    run(main)


def test_what_cannot_be_a_name_is_refused():
    with pytest.raises(TypeError, match="unhashable"):
        named([])

"""A mailbox with a bound says no, drops, or lets senders wait; what supervision needs always gets in."""

import asyncio
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otpy.actors import GenServer, Mailbox, Node, send_after, sys
from otpy.errors import ActorDown, CallTimeout, MailboxFull
from otpy.supervisors import ONE_FOR_ONE, Supervisor
from otpy.telemetry import bus
from otpy.testing import run_in_virtual_time


class Slow(GenServer):
    """Takes a second for every message."""

    def init(self):
        self.seen = []

    async def handle_cast(self, message):
        await asyncio.sleep(1.0)
        self.seen.append(message)

    async def handle_call(self, request, caller):
        await asyncio.sleep(1.0)
        self.seen.append(request)
        return request

    async def handle_info(self, message):
        self.seen.append(message)


class Refusing(Slow):
    mailbox = Mailbox(2)


class Dropping(Slow):
    mailbox = Mailbox(2, "drop_oldest")


class Waiting(Slow):
    mailbox = Mailbox(2, "wait")


class Quick(Waiting):
    """Takes a hundredth of that: for tests on a real clock."""

    async def handle_cast(self, message):
        await asyncio.sleep(0.01)
        self.seen.append(message)

    async def handle_call(self, request, caller):
        self.seen.append(request)


def run(main):
    return run_in_virtual_time(main())


async def busy(kind):
    """Start one that is inside its first message, with an empty mailbox."""
    server = await kind.start(name=None)
    server.cast("first")
    await asyncio.sleep(0.5)
    return server


class TestRefusing:
    def test_casts_beyond_the_bound_raise_and_calls_fail(self):
        async def main():
            server = await busy(Refusing)
            server.cast(1)
            call = server.call(2)
            with pytest.raises(MailboxFull, match=r"full \(2 messages\)"):
                server.cast(3)
            with pytest.raises(MailboxFull):
                server.send(3)
            with pytest.raises(MailboxFull):
                await server.call(3)
            assert await call == 2
            server.cast(4)  # there is room again
            await asyncio.sleep(2.0)
            assert (await sys.get_state(server))["seen"] == ["first", 1, 2, 4]

        run(main)

    def test_a_refusal_is_an_event(self):
        async def main():
            server = await busy(Refusing)
            for _ in range(3):
                try:
                    server.cast("x")
                except MailboxFull as full:
                    assert full.capacity == 2

        seen = []
        with bus.attached("test", lambda _, fields: seen.append(fields["capacity"]), "otpy.mailbox.full"):
            run(main)
        assert seen == [2]

    def test_a_message_of_a_timer_that_is_refused_harms_nobody(self):
        async def main():
            server = await busy(Refusing)
            server.cast(1)
            server.cast(2)
            timer = send_after(server, 0.1, "late")
            await asyncio.sleep(0.2)
            assert timer.fired
            await asyncio.sleep(5.0)
            assert (await sys.get_state(server))["seen"] == ["first", 1, 2]

        run(main)

    def test_what_supervision_needs_gets_into_a_full_mailbox(self):
        class Trapping(Refusing):
            trap_exit = True

        async def main():
            async with Supervisor([Trapping.child_spec(id="a")], strategy=ONE_FOR_ONE) as tree:
                server = tree.child("a")
                server.cast("first")
                await asyncio.sleep(0.5)
                server.cast(1)
                server.cast(2)
                assert (await sys.get_status(server)).queued == 2
                await tree.terminate_child("a")
                assert server.exit_reason == "shutdown"

        run(main)

    def test_threads_hear_the_refusal_where_they_send(self):
        class Held(GenServer):
            mailbox = Mailbox(5)

            async def init(self):
                self.gate = asyncio.Event()

            async def handle_cast(self, message):
                await self.gate.wait()

        node = Node().start()
        try:
            server = node.run(Held.start())
            server.cast("first")
            node.run(asyncio.sleep(0.01))
            taken, refused = [], []

            def flood():
                for n in range(50):
                    try:
                        server.cast(n)
                    except MailboxFull:
                        refused.append(n)
                    else:
                        taken.append(n)

            threads = [threading.Thread(target=flood) for _ in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert len(taken) == 5
            assert len(refused) == 195
            server.exit("kill")
            node.run(server.join(5))
        finally:
            node.stop()


class TestDroppingTheOldest:
    def test_the_newest_messages_are_kept(self):
        async def main():
            server = await busy(Dropping)
            for n in range(5):
                server.cast(n)
            await asyncio.sleep(5.0)
            assert (await sys.get_state(server))["seen"] == ["first", 3, 4]

        run(main)

    def test_a_call_that_is_dropped_fails(self):
        async def main():
            server = await busy(Dropping)
            dropped = server.call("x")
            server.cast(1)
            server.cast(2)
            with pytest.raises(MailboxFull):
                await dropped

        run(main)

    @given(st.lists(st.integers(0, 3), max_size=30))
    @settings(max_examples=50, deadline=None)
    def test_it_is_a_queue_of_the_last_ones(self, pauses):
        """Against a model: a deque with a maximal length, emptied one message a second."""

        async def main():
            server = await busy(Dropping)
            sent = []
            for number, pause in enumerate(pauses):
                server.cast(number)
                sent.append(number)
                assert (await sys.get_status(server)).queued <= 2 if not pause else True
                await asyncio.sleep(pause * 0.4)
            await asyncio.sleep(10.0)
            seen = (await sys.get_state(server))["seen"][1:]
            assert seen == sorted(seen)
            assert seen[-2:] == sent[-2:]

        run(main)


class TestWaiting:
    def test_producers_go_at_the_pace_of_the_server(self):
        async def main():
            server = await busy(Waiting)
            loop = asyncio.get_running_loop()
            began = loop.time()
            for n in range(6):
                await server.offer(n)
            assert loop.time() - began == pytest.approx(3.5)
            await asyncio.sleep(5.0)
            assert (await sys.get_state(server))["seen"] == ["first", 0, 1, 2, 3, 4, 5]

        run(main)

    def test_calls_wait_too_and_in_turn(self):
        async def main():
            server = await busy(Waiting)
            answers = await asyncio.gather(*(server.call(n, None) for n in range(6)))
            assert answers == list(range(6))
            assert (await sys.get_state(server))["seen"] == ["first", *range(6)]

        run(main)

    def test_a_cast_which_cannot_wait_is_refused(self):
        async def main():
            server = await busy(Waiting)
            server.cast(1)
            server.cast(2)
            with pytest.raises(MailboxFull):
                server.cast(3)

        run(main)

    def test_a_sender_that_gives_up_leaves_no_message(self):
        async def main():
            server = await busy(Waiting)
            server.cast(1)
            server.cast(2)
            with pytest.raises(CallTimeout):
                await server.offer("late", 0.1)
            await asyncio.sleep(5.0)
            assert (await sys.get_state(server))["seen"] == ["first", 1, 2]

        run(main)

    def test_a_call_whose_time_is_up_while_it_waits_is_never_handled(self):
        async def main():
            server = await busy(Waiting)
            server.cast(1)
            server.cast(2)
            with pytest.raises(CallTimeout):
                await server.call("late", 0.1)
            await asyncio.sleep(5.0)
            assert (await sys.get_state(server))["seen"] == ["first", 1, 2]

        run(main)

    def test_senders_hear_of_the_death(self):
        async def main():
            server = await busy(Waiting)
            server.cast(1)
            server.cast(2)
            offering = asyncio.ensure_future(server.offer(3))
            calling = server.call(4)
            await asyncio.sleep(0.1)
            server.exit("kill")
            for waiting in (offering, calling):
                with pytest.raises(ActorDown, match="killed"):
                    await waiting
            with pytest.raises(ActorDown, match="noproc"):
                await server.offer(5)

        run(main)

    def test_producers_on_other_loops_wait_as_well(self):
        node = Node().start()
        try:
            server = node.run(Quick.start())

            async def produce():
                for n in range(5):
                    await server.offer(n, 10)

            asyncio.run(produce())
            server.call_sync("last", 10)
            assert node.run(sys.get_state(server))["seen"] == [0, 1, 2, 3, 4, "last"]
            server.exit("kill")
            node.run(server.join(5))
        finally:
            node.stop()


def test_an_unbounded_mailbox_takes_every_offer_at_once():
    async def main():
        server = await busy(Slow)
        for n in range(100):
            await server.offer(n, 0.001)
        assert (await sys.get_status(server)).queued == 100

    run(main)


@pytest.mark.parametrize("wrong", [{"capacity": 0}, {"capacity": True}, {"capacity": 1.5},
                                   {"capacity": 1, "overflow": "explode"}])  # fmt: skip
def test_a_bound_that_cannot_work_is_refused_with_what_is_allowed(wrong):
    with pytest.raises(ValueError, match="allowed"):
        Mailbox(**wrong)


def test_a_bound_that_is_none_is_refused_at_the_start():
    class Odd(Slow):
        mailbox = 100

    async def main():
        with pytest.raises(TypeError, match=r"Odd.mailbox is 100"):
            await Odd.start()

    run(main)


def test_a_waiting_sender_is_let_in_as_soon_as_a_coroutine_has_taken_a_message_up():
    class Slow(GenServer):
        mailbox = Mailbox(1, overflow="wait")

        async def handle_cast(self, message):
            await asyncio.sleep(60)

    async def main():
        slow = await Slow.start()
        slow.cast("first")
        offered = asyncio.ensure_future(slow.offer("second"))
        await asyncio.sleep(1)
        assert offered.done()
        slow.exit("kill")

    run_in_virtual_time(main())

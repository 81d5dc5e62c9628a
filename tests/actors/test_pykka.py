"""pykka's protocol on our processes, from threads and from the loop: what a user of pykka may count on."""

import asyncio
import threading

import pykka
import pytest

from otpy.actors import Call, GenServer, Node, NoReply, Stop, Task, sys
from otpy.actors.pykka_protocol import PykkaFuture
from otpy.errors import ActorDown
from otpy.supervisors import Supervisor


@pykka.traversable
class Volume:
    def __init__(self):
        self.level = 5
        self._secret = "s"

    def raise_by(self, steps):
        self.level += steps
        return self.level


class Plain:
    value = 1


class Player(GenServer):
    """A pykka actor that only changed its base class."""

    tracks = ("one", "two")
    scheduling = "loop"

    def init(self, log=None):
        self.volume = Volume()
        self.plain = Plain()
        self.position = 0
        self.log = [] if log is None else log
        self._hidden = "hidden"

    def play(self, track=0, *, speed=1):
        self.position = track * speed
        return self.tracks[track]

    async def play_later(self, track):
        await asyncio.sleep(0)
        return self.tracks[track]

    def fail(self):
        raise KeyError("lost")

    def thread(self):
        return threading.get_ident()

    def in_the_future(self):
        me = self.actor_ref.proxy()
        self.log.append("first")
        me.log_it.defer("third")
        self.log.append("second")

    def log_it(self, word):
        self.log.append(word)

    def on_receive(self, message):
        if isinstance(message, BaseException):
            raise message
        self.log.append(message)
        return message

    def terminate(self, reason):
        self.log.append("terminate")


class ThreadedPlayer(Player):
    scheduling = "thread"
    play_later = None


class Add(Call[int]):
    def __init__(self, number):
        self.number = number


class Adder(GenServer):
    """A server of ours, with callbacks of its own and none of pykka's."""

    def init(self):
        self.total, self.heard = 0, []

    def handle_call(self, request, caller):
        if request == "later":
            self.process.loop.call_soon(caller.reply, "answered later")
            return NoReply()
        if request == "error":
            caller.fail(LookupError("none"))
            return NoReply()
        if request == "stop":
            return Stop("enough", "bye")
        self.total += request.number
        return self.total

    async def handle_cast(self, message):
        await asyncio.sleep(0)
        self.heard.append(message)


class Hanging(GenServer):
    def handle_call(self, request, caller):
        self.caller = caller
        return NoReply()


@pytest.fixture
def node():
    with Node() as node:
        yield node


@pytest.fixture(autouse=True)
def nobody_is_left_in_the_registry():
    assert pykka.ActorRegistry.get_all() == []
    yield
    assert pykka.ActorRegistry.get_all() == []


@pytest.fixture(params=[Player, ThreadedPlayer])
def player(node, request):
    ref = node.run(request.param.start())
    yield ref
    ref.stop()


@pytest.fixture
def adder(node):
    ref = node.run(Adder.start())
    yield ref
    ref.stop()


# -- references -------------------------------------------------------------------------------------------------------


def test_a_reference_is_pykkas(player):
    assert isinstance(player, pykka.ActorRef)
    assert issubclass(player.actor_class, pykka.Actor)
    assert player.actor_urn == player.proxy().actor_urn.get()
    assert player.actor_urn in {ref.actor_urn for ref in pykka.ActorRegistry.get_all()}
    assert player.is_alive()
    assert not player.actor_stopped.is_set()
    assert player.proxy().actor_ref == player


def test_ask_waits_for_the_answer_and_tell_for_nothing(player):
    assert player.tell("told") is None
    assert player.ask("asked") == "asked"
    assert player.ask("asked", timeout=5) == "asked"
    assert player.ask("asked", block=False).get(timeout=5) == "asked"
    assert player.proxy().log.get() == ["told", "asked", "asked", "asked"]


def test_an_exception_reaches_who_asked_and_ends_the_process(player):
    error = ValueError("lost")
    with pytest.raises(ValueError, match="lost") as caught:
        player.ask(error)
    assert caught.value is error
    assert player.actor_stopped.wait(5)
    assert player.exit_reason is error


def test_an_exception_nobody_asked_for_ends_the_process(player):
    player.tell(ValueError("lost"))
    assert player.actor_stopped.wait(5)
    assert isinstance(player.exit_reason, ValueError)


def test_what_waits_behind_a_crash_is_refused_as_by_pykka(node):
    gate = threading.Event()

    class Gated(Player):
        scheduling = "thread"
        play_later = None

        def block(self):
            assert gate.wait(10)

    ref = node.run(Gated.start())
    ref.proxy().block.defer()
    fails, behind = ref.ask(ValueError("lost"), block=False), ref.ask("behind", block=False)
    gate.set()
    with pytest.raises(ValueError, match="lost"):
        fails.get(timeout=5)
    with pytest.raises(pykka.ActorDeadError, match="before handling"):
        behind.get(timeout=5)


def test_stop_ends_it_behind_what_it_was_told_and_says_whether_it_lived(player):
    log = player.proxy().log.get()
    for number in range(10):
        player.tell(number)
    assert player.stop(timeout=5) is True
    assert log == [*range(10), "terminate"]
    assert player.stop() is False
    assert player.actor_stopped.is_set()
    assert player.actor_stopped.wait(0)


def test_the_dead_are_told_nothing(player):
    player.stop()
    with pytest.raises(pykka.ActorDeadError):
        player.tell("anything")
    with pytest.raises(pykka.ActorDeadError):
        player.ask("anything")
    future = player.ask("anything", block=False)
    with pytest.raises(pykka.ActorDeadError):
        future.get()
    with pytest.raises(pykka.ActorDeadError):
        player.proxy()


def test_one_whose_loop_is_gone_is_as_good_as_dead():
    loop = asyncio.new_event_loop()
    ref = loop.run_until_complete(Adder.start())
    loop.close()
    assert ref.actor_stopped.is_set()
    assert ref.actor_stopped.wait(0)
    with pytest.raises(pykka.ActorDeadError):
        ref.ask(Add(1), timeout=5)
    assert ref not in pykka.ActorRegistry.get_all()


def test_an_answer_that_takes_too_long_is_pykkas_timeout(node):
    ref = node.run(Hanging.start())
    with pytest.raises(pykka.Timeout):
        ref.ask("anything", timeout=0.01)
    assert ref.is_alive()
    ref.stop()


def test_a_flag_can_be_waited_for_with_a_timeout(player):
    assert player.actor_stopped.wait(0.01) is False
    player.stop(block=False)
    assert player.actor_stopped.wait(5) is True


def test_an_actor_stops_itself(node):
    class StopsItself(Player):
        def on_receive(self, message):
            self.stop()
            return "on my way"

    ref = node.run(StopsItself.start())
    assert ref.ask("go") == "on my way"
    assert ref.actor_stopped.wait(5)
    assert ref.exit_reason == "normal"


def test_a_message_nobody_handles_is_answered_with_none_as_in_pykka(node):
    ref = node.run(GenServer.start())
    assert ref.ask("anything") is None
    ref.stop()


# -- servers of ours --------------------------------------------------------------------------------------------------


def test_ask_and_tell_reach_a_servers_own_callbacks(adder):
    assert adder.ask(Add(2)) == 2
    adder.tell("told")
    assert adder.ask(Add(3)) == 5
    assert adder.proxy().heard.get() == ["told"]
    assert adder.ask("later") == "answered later"
    with pytest.raises(LookupError):
        adder.ask("error")
    assert adder.is_alive()
    assert adder.ask("stop") == "bye"
    assert adder.actor_stopped.wait(5)
    assert adder.exit_reason == "enough"


def test_a_proxy_works_beside_a_servers_own_callbacks_and_shows_in_nothing(node, adder):
    proxy = adder.proxy()
    proxy.total = 40
    assert adder.call_sync(Add(2)) == 42
    assert proxy.total.get() == 42
    actor = adder.process.actor
    assert isinstance(actor, Adder)
    assert type(actor).__name__ == "Adder"
    assert node.run(sys.get_state(adder)) == {"total": 42, "heard": []}


def test_a_server_may_use_a_proxy_to_itself_the_first_time_in_a_turn(node):
    class Recounts(Adder):
        def handle_call(self, request, caller):
            me = self.actor_ref.proxy()
            for _ in range(3):
                me.count.defer()
            return request

        def count(self):
            self.total += 1

    ref = node.run(Recounts.start())
    assert ref.call_sync("go") == "go"
    assert ref.proxy().total.get(timeout=5) == 3
    ref.stop()


def test_a_server_that_ends_without_an_answer_leaves_no_pykka_caller_waiting(node):
    ref = node.run(Hanging.start())
    future = ref.ask("anything", block=False)
    ref.exit("kill")
    with pytest.raises(pykka.ActorDeadError) as caught:
        future.get(timeout=5)
    assert isinstance(caught.value.__cause__, ActorDown)
    assert caught.value.__cause__.reason == "killed"


# -- proxies ----------------------------------------------------------------------------------------------------------


def test_a_proxy_calls_methods_gets_and_sets_attributes(player):
    proxy = player.proxy()
    assert proxy.play(1).get() == "two"
    assert proxy.play(1, speed=3).get() == "two"
    assert proxy.position.get() == 3
    proxy.position = 9
    assert proxy.position.get() == 9
    assert proxy.tracks.get() == ("one", "two")
    assert proxy.play.defer(0) is None
    assert proxy.position.get() == 0


def test_a_coroutine_method_is_awaited_in_the_process(node):
    player = node.run(Player.start())
    assert player.proxy().play_later(1).get(timeout=5) == "two"
    player.proxy().play_later.defer(1)
    assert player.ask("alive") == "alive"
    player.stop()


def test_a_traversable_attribute_is_reached_through_the_proxy(player):
    proxy = player.proxy()
    assert proxy.volume.level.get() == 5
    assert proxy.volume.raise_by(2).get() == 7
    proxy.volume.level = 1
    assert proxy.volume.level.get() == 1
    assert proxy.volume == player.proxy().volume
    with pytest.raises(AttributeError):
        _ = proxy.volume._secret
    assert proxy.plain.get().value == 1  # not traversable: the object itself comes


def test_a_proxy_knows_what_there_is(player):
    proxy = player.proxy()
    assert {"play", "position", "volume", "tracks"} <= set(dir(proxy))
    assert "_hidden" not in dir(proxy)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = proxy.nothing
    with pytest.raises(AttributeError):
        _ = proxy._hidden
    assert proxy == player.proxy()
    assert hash(proxy) == hash(player.proxy())
    assert str(player) in repr(proxy)


def test_an_attribute_that_comes_later_is_seen(player):
    proxy = player.proxy()
    proxy.log_it("anything").get()
    player.process.actor.late = "late"
    assert proxy.late.get() == "late"


def test_an_exception_in_a_method_reaches_who_called(player):
    with pytest.raises(KeyError):
        player.proxy().fail().get(timeout=5)
    assert player.actor_stopped.wait(5)


def test_an_exception_in_a_deferred_method_ends_the_process(player):
    player.proxy().fail.defer()
    assert player.actor_stopped.wait(5)
    assert isinstance(player.exit_reason, KeyError)


def test_a_dead_actor_fails_a_proxys_futures(player):
    proxy = player.proxy()
    player.stop()
    with pytest.raises(pykka.ActorDeadError):
        proxy.play().get(timeout=5)
    with pytest.raises(pykka.ActorDeadError):
        proxy.position = 1


def test_a_proxy_to_oneself_is_for_later(node):
    log = []
    player = node.run(Player.start(log))
    player.proxy().in_the_future().get(timeout=5)
    player.ask("fourth")
    assert log == ["first", "second", "third", "fourth"]
    player.stop()


def test_methods_run_where_the_process_runs(node):
    loops = [node.run(Player.start()).proxy().thread() for _ in range(2)]
    threads = [node.run(ThreadedPlayer.start()).proxy().thread() for _ in range(2)]
    assert len({future.get() for future in loops}) == 1
    assert len({future.get() for future in (*loops, *threads)}) == 3
    pykka.ActorRegistry.stop_all()


def test_an_actor_in_a_thread_may_ask_others_and_wait(node):
    class Asks(Player):
        scheduling = "thread"
        play_later = None

        def on_receive(self, message):
            return message.proxy().play(1).get(timeout=5), message.ask("hello", timeout=5)

    first, second = node.run(Player.start()), node.run(Asks.start())
    assert second.ask(first, timeout=5) == ("two", "hello")
    pykka.ActorRegistry.stop_all()


# -- the registry -----------------------------------------------------------------------------------------------------


def test_the_registry_finds_them(node):
    first, second, other = (node.run(kind.start()) for kind in (Player, ThreadedPlayer, Adder))
    registry = pykka.ActorRegistry
    assert registry.get_all() == [first, second, other]
    assert registry.get_by_class(Player) == [first, second]
    assert registry.get_by_class(GenServer) == [first, second, other]
    assert registry.get_by_class_name("Player") == [first]
    assert registry.get_by_class_name("GenServer") == []
    assert registry.get_by_urn(other.actor_urn) == other
    assert registry.get_by_urn("urn:otpy:0") is None
    first.stop()
    assert registry.get_by_class(Player) == [second]
    assert registry.get_by_urn(first.actor_urn) is None
    registry.stop_all()


def test_a_broadcast_reaches_whom_it_is_for(node):
    players = [node.run(Player.start()) for _ in range(3)]
    adder = node.run(Adder.start())
    pykka.ActorRegistry.broadcast("all")
    pykka.ActorRegistry.broadcast("players", Player)
    pykka.ActorRegistry.broadcast("adders", "Adder")
    assert [ref.proxy().log.get() for ref in players] == [["all", "players"]] * 3
    assert adder.proxy().heard.get() == ["all", "adders"]
    pykka.ActorRegistry.stop_all()


@pytest.mark.parametrize("block", [True, False])
def test_stop_all_from_another_thread_stops_the_last_started_first(node, block):
    order = []

    class Ordered(Player):
        def terminate(self, reason):
            order.append(self.process.pid)

    refs = [node.run(Ordered.start()) for _ in range(5)]
    stopped = pykka.ActorRegistry.stop_all(block=block, timeout=5)
    if not block:
        stopped = pykka.get_all(stopped, timeout=5)
    assert stopped == [True] * 5
    assert order == [ref.pid for ref in reversed(refs)]


def test_stop_all_mixes_ours_with_pykkas_own(node):
    class Theirs(pykka.ThreadingActor):
        pass

    ours, theirs = node.run(Player.start()), Theirs.start()
    assert pykka.ActorRegistry.get_all() == [ours, theirs]
    assert pykka.ActorRegistry.stop_all() == [True, True]


def test_stop_all_on_the_loop_is_for_those_who_await():
    async def main():
        refs = [await Player.start() for _ in range(3)]
        assert [await future for future in pykka.ActorRegistry.stop_all(block=False)] == [True] * 3
        assert not any(ref.is_alive() for ref in refs)

    asyncio.run(main())


def test_stop_all_brings_a_tree_down_for_good(node):
    tree = node.run(Supervisor.start([Player.child_spec(), Adder.child_spec()], max_restarts=10))
    assert all(pykka.ActorRegistry.stop_all(timeout=5))
    assert not tree.is_alive()


def test_a_system_exit_ends_nobody_else(node):
    first, second = node.run(Player.start()), node.run(Player.start())
    with pytest.raises(SystemExit):
        first.ask(SystemExit("enough"), timeout=5)
    assert second.ask("here") == "here"
    second.stop()


# -- on the loop ------------------------------------------------------------------------------------------------------


def on_loop(main):
    return asyncio.run(asyncio.wait_for(main(), 30))


def test_futures_are_awaited_on_the_loop():
    async def main():
        player = await Player.start()
        proxy = player.proxy()
        assert await player.ask("asked", block=False) == "asked"
        assert await proxy.play(1) == "two"
        assert await proxy.play_later(0) == "one"
        assert await proxy.volume.raise_by(1) == 6
        assert await asyncio.gather(proxy.position, proxy.tracks) == [1, ("one", "two")]
        with pytest.raises(KeyError):
            await proxy.fail()
        with pytest.raises(pykka.ActorDeadError):
            await player.ask("dead", block=False)

    on_loop(main)


def test_waiting_on_the_loop_is_refused_instead_of_blocking_it():
    async def main():
        player = await Player.start()
        with pytest.raises(RuntimeError, match="await the future instead"):
            player.ask("anything")
        with pytest.raises(RuntimeError, match="await the future instead"):
            player.proxy().play().get()
        with pytest.raises(RuntimeError, match="await ref"):
            player.actor_stopped.wait()
        future = player.proxy().play()
        assert await future == future.get() == "one"
        await player.stop()

    on_loop(main)


def test_a_loop_goes_on_while_futures_are_awaited():
    async def main():
        ref = await Hanging.start()
        waiting = asyncio.ensure_future(asyncio.wait_for(ref.ask("anything", block=False).map(len), 30))
        for _ in range(5):
            await asyncio.sleep(0)
        ref.process.actor.caller.reply("four")
        assert await waiting == 4
        await ref.stop()

    on_loop(main)


def test_who_gives_up_waiting_takes_the_value_from_nobody_else():
    async def main():
        ref = await Hanging.start()
        future = ref.ask("anything", block=False)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(future, 0.001)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(future.map(str.upper), 0.001)
        ref.process.actor.caller.reply("late")
        assert await future == "late"
        assert await future.map(str.upper) == "LATE"
        await ref.stop()

    on_loop(main)


def test_tasks_may_use_proxies_too():
    async def main():
        player = await Player.start()

        async def play(track):
            return await player.proxy().play(track)

        assert [await Task.async_(play, track) for track in (0, 1)] == ["one", "two"]
        await player.stop()

    on_loop(main)


# -- several at once ---------------------------------------------------------------------------------------------------


def test_get_all_collects(player):
    futures = [player.proxy().play(track) for track in (0, 1, 0)]
    assert pykka.get_all(futures, timeout=5) == ["one", "two", "one"]
    with pytest.raises(pykka.Timeout):
        pykka.get_all([*futures, PykkaFuture()], timeout=0.01)

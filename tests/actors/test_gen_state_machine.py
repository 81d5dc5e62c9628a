"""State machines: events, their order, timeouts and state changes are those of gen_statem(3)."""

import asyncio
import enum
import gc
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otpy.actors import (
    BadReturnValue,
    Down,
    ExitMessage,
    GenServer,
    Ignore,
    Mailbox,
    NoReply,
    Reply,
    Stop,
    monitor,
    sys,
    whereis,
)
from otpy.actors.gen_state_machine import GenStateMachine, in_state
from otpy.actors.transitions import (
    CallEvent,
    CastEvent,
    EnterEvent,
    EventTimeout,
    InfoEvent,
    InternalEvent,
    KeepState,
    NamedTimeout,
    NextState,
    Postpone,
    RepeatState,
    StateTimeout,
)
from otpy.errors import ActorDown, CallTimeout, MailboxFull, StartFailed
from otpy.supervisors import ONE_FOR_ONE, Supervisor
from otpy.testing import run_in_virtual_time


class Scripted(GenStateMachine):
    """Notes every event and answers what the test says, by the event's content."""

    first = "a"

    def init(self, script=None, first=None):
        self.script, self.log = script or {}, []
        return self.first if first is None else first

    def handle_event(self, event, state):
        match event:
            case CallEvent("log"):
                return Reply([entry for entry in self.log if entry[1] != "sync"])
            case CallEvent(request, caller):
                content = request
                self.caller = caller
            case CastEvent(message) | InfoEvent(message):
                content = message
            case EnterEvent(old):
                content = old
            case _:
                content = event.content
        kind = type(event).__name__.removesuffix("Event")
        self.log.append((kind, content, state))
        answer = self.script.get((kind, content, state), self.script.get((kind, content), self.script.get(content)))
        return answer(self) if callable(answer) else answer


class Entering(Scripted):
    state_enter = True


def run(main):
    return run_in_virtual_time(main())


def played(script, *casts, kind=Scripted, first=None, seconds=0.0):
    """What a scripted machine notes when it is cast these, and given some time."""

    async def main():
        machine = await kind.start(script, first)
        for message in casts:
            machine.cast(message)
        await machine.call("log")
        await asyncio.sleep(seconds)
        return await machine.call("log")

    return run(main)


# -- events and states ----------------------------------------------------------------------------------------------


def test_calls_casts_and_messages_are_events_of_their_kind():
    async def main():
        machine = await Scripted.start({"ask": Reply(42)})
        assert await machine.call("ask") == 42
        machine.cast("told")
        machine.send("heard")
        return await machine.call("log")

    assert run(main) == [("Call", "ask", "a"), ("Cast", "told", "a"), ("Info", "heard", "a")]


class Light(enum.Enum):
    RED = 1
    GREEN = 2


@dataclass(frozen=True)
class Waiting:
    cars: int


@pytest.mark.parametrize("states", [("a", "b"), tuple(Light), (Waiting(1), Waiting(2)), (1, (2, 3)), (None, "x")])
def test_any_hashable_value_is_a_state(states):
    async def main():
        one, other = states
        machine = await Scripted.start({"go": NextState(other), "back": NextState(one)}, NextState(one))
        for message in ("go", "back", "look"):
            machine.cast(message)
        return [state for _, _, state in await machine.call("log")]

    assert run(main) == [states[0], states[1], states[0]]


def test_a_state_has_a_function_or_shares_the_common_one():
    class Crossing(GenStateMachine):
        def init(self):
            return Light.RED

        @in_state(Light.RED)
        def red(self, event):
            return NextState(Light.GREEN, Reply("red"))

        @in_state(Light.GREEN)
        async def green(self, event):
            await asyncio.sleep(1)
            return NextState(Waiting(3), Reply("green"))

        @in_state(Waiting)
        def waiting(self, event):
            return NextState("broken", Reply(("waiting", self.state.cars)))

        def handle_event(self, event, state):
            return Reply(("common", state))

    class Quick(Crossing):
        def green(self, event):
            return NextState("off", Reply("quick green"))

        @in_state("off")
        def off(self, event):
            return Reply("off")

    async def main():
        crossing, quick = await Crossing.start(), await Quick.start()
        assert [await crossing.call(n) for n in range(4)] == ["red", "green", ("waiting", 3), ("common", "broken")]
        assert [await quick.call(n) for n in range(3)] == ["red", "quick green", "off"]

    run(main)


def test_a_state_with_two_functions_is_refused():
    with pytest.raises(TypeError, match=r"both one and two are the function of state 'a'"):

        class Twice(GenStateMachine):
            @in_state("a")
            def one(self, event): ...

            @in_state("b", "a")
            def two(self, event): ...

    with pytest.raises(TypeError, match="without a state"):
        in_state()


def test_a_state_that_nothing_could_be_handled_in_is_refused_at_once():
    class Half(GenStateMachine):
        def init(self, state):
            return state

        @in_state("there")
        def there(self, event):
            return NextState("thre", Reply(1))

    async def main():
        with pytest.raises(StartFailed, match=r"init returned .*'here'.* only for \['there'\]"):
            await Half.start("here")
        half = await Half.start("there")
        with pytest.raises(ActorDown, match=r"returned .*'thre'.* only for \['there'\]"):
            await half.call("x")

    run(main)


# -- order ----------------------------------------------------------------------------------------------------------


def test_inserted_events_come_first_and_in_their_order():
    script = {"go": KeepState(InternalEvent("i1"), CastEvent("i2")), "i1": InternalEvent("deeper")}
    assert [content for _, content, _ in played(script, "go", "later")] == ["go", "i1", "deeper", "i2", "later"]


def test_postponed_events_are_retried_in_their_order_after_a_change_of_state_only():
    script = {
        ("Cast", 1, "a"): Postpone(),
        ("Cast", 2, "a"): KeepState(Postpone()),
        "same": NextState("a"),
        "keep": KeepState(),
        "repeat": RepeatState(),
        "go": NextState("b", InternalEvent("inserted")),
    }
    noted = played(script, 1, "same", 2, "keep", "repeat", "go", "newer")
    assert noted == [
        ("Cast", 1, "a"),
        ("Cast", "same", "a"),
        ("Cast", 2, "a"),
        ("Cast", "keep", "a"),
        ("Cast", "repeat", "a"),
        ("Cast", "go", "a"),
        ("Internal", "inserted", "b"),
        ("Cast", 1, "b"),
        ("Cast", 2, "b"),
        ("Cast", "newer", "b"),
    ]


def test_an_event_may_be_postponed_while_it_changes_the_state_itself():
    script = {("Cast", "x", "a"): NextState("b", Postpone())}
    assert played(script, "x") == [("Cast", "x", "a"), ("Cast", "x", "b")]


def test_a_postponed_call_is_answered_after_the_change():
    async def main():
        machine = await Scripted.start({("Call", "q", "a"): Postpone(), ("Call", "q", "b"): Reply("b says so"),
                                        "go": NextState("b")})  # fmt: skip
        question = machine.call("q")
        await asyncio.sleep(1)
        assert not question.done()
        machine.cast("go")
        assert await question == "b says so"

    run(main)


def test_a_machine_that_talks_to_itself_for_ever_can_be_killed():
    async def main():
        machine = await Scripted.start({"on": InternalEvent("on"), "start": InternalEvent("on")})
        machine.cast("start")
        for _ in range(3):
            await asyncio.sleep(0)
        machine.exit("kill")
        assert await machine.join(1) == "killed"

    run(main)


@pytest.mark.parametrize("turns", range(6))
def test_a_machine_killed_at_any_turn_leaves_no_coroutine_behind(turns, recwarn):
    class Slow(GenStateMachine):
        async def init(self):
            return "a"

        async def handle_event(self, event, state):
            await asyncio.sleep(0)
            return NextState("b")

    async def main():
        machine = await Slow.start()
        machine.cast(1)
        for _ in range(turns):
            await asyncio.sleep(0)
        machine.exit("kill")
        assert await machine.join(1) == "killed"

    run(main)
    gc.collect()
    assert not recwarn.list


INSERTED = st.lists(st.integers(0, 4), max_size=2)
RULE = st.tuples(st.sampled_from(["keep", "a", "b", "c"]), st.booleans(), INSERTED, INSERTED)


def model(rules, casts, limit):
    """The documented order as plain lists: (content, depth) pairs; beyond `limit` events nothing is asked for."""
    state, queue, postponed, mailbox, log = "a", [], [], list(casts), []
    while queue or mailbox:
        kind, content = queue.pop(0) if queue else ("Cast", mailbox.pop(0))
        log.append((kind, content, state))
        target, postpone, casts_inserted, inserted = rules.get((state, content), ("keep", False, [], []))
        if len(log) > limit:
            target, postpone, casts_inserted, inserted = "keep", False, [], []
        if postpone:
            postponed.append((kind, content))
        if target not in {"keep", state}:
            state = target
            queue[:0] = postponed
            postponed = []
        queue[:0] = [("Cast", c) for c in casts_inserted] + [("Internal", c) for c in inserted]
    return log


@settings(max_examples=150, deadline=None)
@given(
    rules=st.dictionaries(st.tuples(st.sampled_from("abc"), st.integers(0, 4)), RULE, max_size=15),
    casts=st.lists(st.integers(0, 4), max_size=12),
    asynchronous=st.booleans(),
)
def test_the_order_is_that_of_the_model(rules, casts, asynchronous):
    limit = 60

    class Machine(GenStateMachine):
        def init(self):
            self.log = []
            return "a"

        def answer(self, event, state):
            match event:
                case CallEvent("log"):
                    return Reply(self.log)
                case CastEvent(content) | InternalEvent(content):
                    self.log.append((type(event).__name__.removesuffix("Event"), content, state))
            rule = rules.get((state, content))
            if rule is None or len(self.log) > limit:
                return None
            target, postpone, casts_inserted, inserted = rule
            actions = [*map(CastEvent, casts_inserted), *map(InternalEvent, inserted), *[Postpone()] * postpone]
            return KeepState(*actions) if target == "keep" else NextState(target, *actions)

        if asynchronous:

            async def handle_event(self, event, state):
                await asyncio.sleep(0)
                return self.answer(event, state)
        else:
            handle_event = answer

    async def main():
        machine = await Machine.start()
        for content in casts:
            machine.cast(content)
        return await machine.call("log")

    assert run(main) == model(rules, casts, limit)


# -- timeouts -------------------------------------------------------------------------------------------------------


def test_a_state_timeout_comes_once_the_machine_has_been_in_its_state_for_so_long():
    noted = played({"go": NextState("b", StateTimeout(5, "slow"))}, "go", "other", seconds=5.1)
    assert noted[1:] == [("Cast", "other", "b"), ("StateTimeout", "slow", "b")]


def test_a_change_of_state_cancels_the_state_timeout_and_nothing_else_does():
    script = {"arm": StateTimeout(5, "slow"), "same": NextState("a"), "go": NextState("b")}
    assert played(script, "arm", "same", seconds=6)[-1] == ("StateTimeout", "slow", "a")
    assert played(script, "arm", "go", seconds=6)[-1] == ("Cast", "go", "a")


def test_a_named_timeout_survives_a_change_of_state():
    script = {"arm": NamedTimeout("t", 5, "slow"), "go": NextState("b")}
    assert played(script, "arm", "go", seconds=6)[-1] == ("NamedTimeout", "slow", "b")


def test_named_timeouts_run_beside_each_other_and_setting_one_again_replaces_it():
    script = {
        "arm": KeepState(NamedTimeout("x", 1, "x1"), NamedTimeout("y", 2, "y1")),
        "again": NamedTimeout("x", 3, "x2"),
        "cancel": NamedTimeout("y", None),
    }
    assert [n[1] for n in played(script, "arm", seconds=4)][1:] == ["x1", "y1"]
    assert [n[1] for n in played(script, "arm", "again", seconds=4)][2:] == ["y1", "x2"]
    assert [n[1] for n in played(script, "arm", "again", "cancel", seconds=4)][3:] == ["x2"]


def test_the_last_timeout_of_a_kind_among_the_actions_counts():
    script = {"arm": KeepState(StateTimeout(1, "first"), StateTimeout(2, "second"))}
    assert [n[1] for n in played(script, "arm", seconds=4)][1:] == ["second"]


def test_a_timeout_that_is_cancelled_while_it_lies_in_the_mailbox_does_not_come():
    shared = StateTimeout(1, "up")

    class Busy(Scripted):
        async def handle_event(self, event, state):
            if event == CastEvent("busy"):
                await asyncio.sleep(2)  # the timeout expires meanwhile
                return KeepState(shared)  # the very same object: a new timer all the same
            return super().handle_event(event, state)

    async def main():
        machine = await Busy.start({"arm": shared})
        machine.cast("arm")
        machine.cast("busy")
        await asyncio.sleep(2.5)
        assert [n[1] for n in await machine.call("log")] == ["arm"]
        await asyncio.sleep(1)
        assert [n[1] for n in await machine.call("log")] == ["arm", "up"]

    run(main)


def test_any_event_cancels_the_event_timeout():
    async def main():
        machine = await Scripted.start({"arm": EventTimeout(2, "idle")})
        machine.cast("arm")
        await asyncio.sleep(1)
        machine.send("noise")
        await asyncio.sleep(5)
        machine.cast("arm")
        await asyncio.sleep(3)
        return [n[:2] for n in await machine.call("log")]

    assert run(main) == [("Cast", "arm"), ("Info", "noise"), ("Cast", "arm"), ("EventTimeout", "idle")]


def test_an_inserted_event_and_a_retried_one_cancel_the_event_timeout_too():
    script = {
        "inserted": KeepState(EventTimeout(1, "idle"), InternalEvent("i")),
        ("Cast", "p", "a"): Postpone(),
        "go": NextState("b", EventTimeout(1, "idle")),
    }
    assert "idle" not in [n[1] for n in played(script, "inserted", seconds=3)]
    assert "idle" not in [n[1] for n in played(script, "p", "go", seconds=3)]


def test_a_timeout_of_no_seconds_comes_after_what_is_queued_and_before_the_mailbox():
    script = {"go": KeepState(StateTimeout(0, "now"), NamedTimeout("t", 0, "too"), InternalEvent("i")), "i": Postpone()}
    assert [n[1] for n in played(script, "go", "mailbox")] == ["go", "i", "now", "too", "mailbox"]
    script = {("Cast", "p", "a"): Postpone(), "go": NextState("b", StateTimeout(0, "now"))}
    assert [n[1] for n in played(script, "p", "go", "mailbox")] == ["p", "go", "p", "now", "mailbox"]


def test_an_event_timeout_of_no_seconds_comes_only_if_nothing_else_is_queued():
    assert [n[1] for n in played({"go": EventTimeout(0, "idle")}, "go", "mailbox")] == ["go", "idle", "mailbox"]
    script = {"go": KeepState(EventTimeout(0, "idle"), InternalEvent("i"))}
    assert [n[1] for n in played(script, "go", "mailbox")] == ["go", "i", "mailbox"]
    script = {"go": KeepState(StateTimeout(0, "now"), EventTimeout(0, "idle"))}
    assert [n[1] for n in played(script, "go", "mailbox")] == ["go", "now", "mailbox"]
    script = {"go": KeepState(EventTimeout(0, "idle"), StateTimeout(0, "now"))}
    assert [n[1] for n in played(script, "go", "mailbox")] == ["go", "idle", "now", "mailbox"]


def test_a_state_timeout_of_no_seconds_is_cancelled_by_a_change_of_state_too():
    script = {"go": KeepState(StateTimeout(0, "now"), InternalEvent("i")), "i": NextState("b")}
    assert [n[1] for n in played(script, "go")] == ["go", "i"]


def test_a_postponed_timeout_is_retried_as_the_event_it_is():
    script = {"arm": StateTimeout(1, "up"), ("StateTimeout", "up", "a"): Postpone(), "go": NextState("b")}

    async def main():
        machine = await Scripted.start(script)
        machine.cast("arm")
        await asyncio.sleep(2)
        machine.cast("go")
        return await machine.call("log")

    assert run(main)[-1] == ("StateTimeout", "up", "b")


@pytest.mark.parametrize("seconds", [-1, float("nan"), float("inf"), "1", True])
def test_what_is_no_time_is_refused_where_it_is_written(seconds):
    with pytest.raises(ValueError, match=r"StateTimeout: seconds=.*; allowed: a number >= 0"):
        StateTimeout(seconds)


def test_no_timer_outlives_its_machine():
    async def main():
        machine = await Scripted.start({"arm": KeepState(StateTimeout(3600), NamedTimeout("t", 3600))})
        machine.cast("arm")
        await machine.call("log")
        machine.exit("kill")
        await machine.join()
        loop = asyncio.get_running_loop()
        assert [timer for timer in loop._scheduled if not timer.cancelled() and timer.when() > 1000] == []

    run(main)


# -- state enter calls ----------------------------------------------------------------------------------------------


def test_a_state_that_is_entered_hears_of_it_before_any_other_event():
    script = {"go": NextState("b", InternalEvent("i")), ("Cast", "p", "a"): Postpone(), "same": NextState("a")}
    assert played(script, "p", "same", "go", kind=Entering) == [
        ("Enter", "a", "a"),
        ("Cast", "p", "a"),
        ("Cast", "same", "a"),
        ("Cast", "go", "a"),
        ("Enter", "a", "b"),
        ("Internal", "i", "b"),
        ("Cast", "p", "b"),
    ]


def test_repeating_a_state_enters_it_again_and_retries_nothing():
    script = {"p": Postpone(), "again": RepeatState(), "arm": StateTimeout(1, "up")}
    assert played(script, "arm", "p", "again", kind=Entering, seconds=2) == [
        ("Enter", "a", "a"),
        ("Cast", "arm", "a"),
        ("Cast", "p", "a"),
        ("Cast", "again", "a"),
        ("Enter", "a", "a"),
        ("StateTimeout", "up", "a"),
    ]


def test_entering_may_set_timeouts_and_overrides_those_of_the_event():
    script = {"go": NextState("b", StateTimeout(9, "late")), ("Enter", "a", "b"): StateTimeout(1, "soon")}
    assert played(script, "go", kind=Entering, seconds=20)[-2:] == [("Enter", "a", "b"), ("StateTimeout", "soon", "b")]


def test_entering_may_repeat_itself():
    def twice(machine):
        return RepeatState() if [n[0] for n in machine.log].count("Enter") < 3 else None

    assert played({("Enter", "a", "b"): twice, "go": NextState("b")}, "go", kind=Entering)[2:] == [
        ("Enter", "a", "b"),
        ("Enter", "a", "b"),
    ]


@pytest.mark.parametrize(
    "answer", [Postpone(), NextState("c"), InternalEvent("x"), Reply(1), Stop("normal", "reply"), 7, EnterEvent("a")]
)
def test_entering_may_not_change_the_state_postpone_or_insert_events(answer):
    async def main():
        machine = await Entering.start({"go": NextState("b"), ("Enter", "a", "b"): answer})
        machine.cast("go")
        assert isinstance(await machine.join(), BadReturnValue)

    run(main)


def test_entering_may_stop():
    async def main():
        machine = await Entering.start({("Enter", "a", "a"): Stop("enough")})
        assert await machine.join() == "enough"

    run(main)


# -- starting -------------------------------------------------------------------------------------------------------


def test_actions_of_init_are_done_before_the_mailbox_is_looked_at():
    async def main():
        machine = await Scripted.start({}, NextState("b", InternalEvent("first"), StateTimeout(1, "up")))
        machine.cast("second")
        await asyncio.sleep(2)
        assert [n[1:] for n in await machine.call("log")] == [("first", "b"), ("second", "b"), ("up", "b")]

    run(main)


@pytest.mark.parametrize(
    "answer", [KeepState(), NextState("a", Postpone()), NextState("a", Reply(1)), NextState([]), NextState("a", 1), []]
)
def test_an_init_that_names_no_state_fails_the_start(answer):
    class Odd(GenStateMachine):
        def init(self):
            return answer

    async def main():
        with pytest.raises(StartFailed) as failed:
            await Odd.start()
        assert isinstance(failed.value.reason, BadReturnValue)
        assert "init returned" in str(failed.value.reason)

    run(main)


def test_init_may_be_async_ignore_stop_or_raise():
    class Odd(GenStateMachine):
        async def init(self, answer):
            await asyncio.sleep(1)
            if isinstance(answer, Exception):
                raise answer
            return answer

        def handle_event(self, event, state):
            return Reply(state)

    class Without(GenStateMachine):
        pass

    async def main():
        assert await (await Odd.start("there")).call("state") == "there"
        for answer, reason in ((Ignore(), "ignore"), (Stop("no"), "no")):
            with pytest.raises(StartFailed) as failed:
                await Odd.start(answer)
            assert failed.value.reason == reason
        with pytest.raises(StartFailed) as failed:
            await Odd.start(KeyError("k"))
        assert isinstance(failed.value.__cause__, KeyError)
        with pytest.raises(StartFailed, match="has no init"):
            await Without.start()

    run(main)


# -- replies and the end --------------------------------------------------------------------------------------------


def test_a_call_may_be_answered_later_from_another_event():
    async def main():
        machine = await Scripted.start({"q": KeepState(), "answer": lambda me: me.caller.reply("late")})
        question = machine.call("q")
        await asyncio.sleep(1)
        machine.cast("answer")
        assert await question == "late"

    run(main)


def test_stopping_answers_if_it_is_told_to_and_terminates_with_the_state():
    ended = []

    class Ending(Scripted):
        async def terminate(self, reason, state):
            await asyncio.sleep(1)
            ended.append((reason, state))

    async def main():
        script = {"go": NextState("b"), "bye": Stop("done", "good bye"), "off": Stop("off"), "later": Postpone()}
        machine = await Ending.start(script)
        postponed = machine.call("later")
        machine.cast("go")
        assert await machine.call("bye") == "good bye"
        assert await machine.join() == "done"
        with pytest.raises(ActorDown, match="done"):
            await postponed
        machine = await Ending.start(script)
        with pytest.raises(ActorDown, match="off"):
            await machine.call("off")
        machine = await Ending.start(script)
        await machine.stop()

    run(main)
    assert ended == [("done", "b"), ("off", "a"), ("normal", "a")]


def test_a_crash_ends_the_machine_and_whoever_waits_hears_of_it():
    ended = []

    class Falling(Scripted):
        def terminate(self, reason, state):
            ended.append((type(reason), state))

    async def main():
        def fall(_):
            raise KeyError("oops")

        machine = await Falling.start({"fall": fall, ("Call", "wait"): KeepState(), ("Call", "put off"): Postpone()})
        machine.cast("this is first, so all the rest is in the mailbox")
        waiting = [machine.call("wait"), machine.call("put off"), machine.call("fall"), machine.call("behind")]
        answers = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(answer) for answer in answers] == [ActorDown] * 4
        assert all(isinstance(answer.reason, KeyError) for answer in answers)

    run(main)
    assert ended == [(KeyError, "a")]


@pytest.mark.parametrize(
    "answer",
    [
        "b",
        ("next_state", "b"),
        NoReply(),
        KeepState("x"),
        KeepState(EnterEvent("a")),
        KeepState(Reply(1)),
        Stop("normal", reply=1),
        NextState([]),
    ],
)
def test_what_is_no_answer_ends_the_machine(answer):
    async def main():
        machine = await Scripted.start({"go": answer})
        machine.cast("go")
        reason = await machine.join()
        assert isinstance(reason, BadReturnValue)
        assert "handle_event returned" in str(reason)

    run(main)


@pytest.mark.parametrize("reply", [Reply(1, timeout=2.0), Reply(1, then="x")])
def test_an_option_of_reply_that_state_machines_do_not_have_is_refused(reply):
    async def main():
        machine = await Scripted.start({"ask": reply})
        with pytest.raises(ActorDown, match="has neither timeout nor then"):
            await machine.call("ask")

    run(main)


# -- it is a GenServer ----------------------------------------------------------------------------------------------


def test_it_has_a_name_a_monitor_and_a_supervisor_like_any_server():
    class Watcher(GenServer):
        def init(self, target):
            monitor(target)

        def handle_info(self, message):
            self.caller.reply(message)

        def handle_call(self, request, caller):
            self.caller = caller
            return NoReply()

    async def main():
        spec = Scripted.child_spec({"die": Stop("tired"), "state": lambda me: Reply(me.state)}, name="machine")
        async with Supervisor([spec], strategy=ONE_FOR_ONE) as tree:
            machine = tree.child("machine")
            watcher = await Watcher.start(machine)
            assert whereis("machine") == machine
            waiting = watcher.call("seen")
            machine.cast("die")
            seen = await waiting
            assert isinstance(seen, Down)
            assert seen.reason == "tired"
            await tree.settled()
            assert tree.child("machine") != machine
            assert await tree.child("machine").call("state") == "a"

    run(main)


def test_it_may_trap_exits():
    class Trapping(Scripted):
        trap_exit = True

    async def main():
        machine = await Trapping.start()
        machine.exit("boo")
        ((kind, message, _),) = await machine.call("log")
        assert kind == "Info"
        assert message == ExitMessage(None, "boo")

    run(main)


def test_the_sys_toolbox_shows_and_replaces_state_and_data():
    class Plain(GenStateMachine):
        def init(self):
            self.count = 1
            return "a"

        def handle_event(self, event, state):
            return Reply((state, self.count))

    async def main():
        machine = await Plain.start()
        assert await sys.get_state(machine) == ("a", {"count": 1})
        assert await sys.replace_state(machine, lambda _: ("b", {"count": 2})) == ("b", {"count": 2})
        assert await machine.call("look") == ("b", 2)
        await sys.suspend(machine)
        waiting = machine.call("look", timeout=1)
        with pytest.raises(CallTimeout):
            await waiting
        await sys.resume(machine)
        assert (await sys.get_status(machine)).state == ("b", {"count": 2})
        await machine.stop()

    run(main)


def test_its_mailbox_may_have_a_bound_which_its_timeouts_do_not_feel():
    class Narrow(Scripted):
        mailbox = Mailbox(capacity=1)

        async def handle_event(self, event, state):
            if event == CastEvent("busy"):
                await asyncio.sleep(2)
            return super().handle_event(event, state)

    async def main():
        machine = await Narrow.start({"arm": NamedTimeout("t", 1, "up")})
        machine.cast("arm")
        await asyncio.sleep(0.5)
        machine.cast("busy")
        await asyncio.sleep(0.1)
        machine.cast("waits")
        with pytest.raises(MailboxFull):
            machine.cast("too much")
        await asyncio.sleep(3)
        assert [n[1] for n in await machine.call("log")] == ["arm", "busy", "waits", "up"]

    run(main)


def test_its_callbacks_may_run_in_a_thread():
    import threading

    class Blocking(GenStateMachine):
        scheduling = "thread"
        state_enter = True

        def init(self):
            self.threads = {threading.current_thread().name}
            return "a"

        def handle_event(self, event, state):
            self.threads.add(threading.current_thread().name)
            match event:
                case CallEvent("wait", caller):
                    self.caller = caller
                    return NextState("b", StateTimeout(0.01))
                case StateTimeout():
                    return self.caller.reply((state, self.threads))

    async def main():
        machine = await Blocking.start()
        state, threads = await machine.call("wait")
        await machine.stop()
        assert state == "b"
        assert len(threads) == 1
        assert threads != {threading.current_thread().name}

    asyncio.run(main())
    with pytest.raises(TypeError, match=r"Mixed.here is async, but scheduling='thread'"):

        class Mixed(GenStateMachine):
            scheduling = "thread"

            @in_state("here")
            async def here(self, event): ...


def test_pykkas_words_still_work():
    class Old(GenStateMachine):
        def init(self):
            return "a"

        def on_receive(self, message):
            return message * 2

    async def main():
        old = await Old.start()
        assert await old.ask(21, block=False) == 42
        await old.stop()

    run(main)

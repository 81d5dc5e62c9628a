"""A sandbox keeps its variables, calls functions of the host, and is supervised: nothing outlives it, nothing hangs."""

from __future__ import annotations

import asyncio
import contextvars
import shutil
import time

import pytest

from otpy.actors import Node, named
from otpy.errors import ActorDown, ProgramError
from otpy.sandboxes import (
    Bubblewrap,
    Leave,
    Limits,
    Monty,
    Pyodide,
    Sandbox,
    SandboxNotAvailable,
    desk_of,
    engine,
    pool,
)
from otpy.sandboxes.engine import Asked, Outcome, SandboxLost, plain
from otpy.sandboxes.inside import heavy
from otpy.sandboxes.lines import LineInterpreter
from otpy.supervisors import DynamicSupervisor, Supervisor
from otpy.testing import run_in_virtual_time

# -- what every engine does -------------------------------------------------------------------------------------------


async def double(value):
    return {"twice": value * 2}


async def refuse(*_):
    raise ValueError("not this one")


async def hang():
    await asyncio.Event().wait()


async def leave():
    raise Leave


FUNCTIONS = {"double": double, "refuse": refuse, "hang": hang, "leave": leave}


def test_an_engine_runs_code_as_a_session(place):
    """In one test, since one of the engines takes seconds to start."""
    outcomes = place.run(
        "x = 20\nprint('set', x)",
        "x + given['a'][1]",
        "(1, {2})",
        "y = double(x)\ny['twice'] + 1",
        "try:\n    refuse(1)\nexcept RuntimeError as error:\n    print(error)",
        "hang()",
        "missing",
        "def broken(:",
        "x",
        "print('before')\nleave()\nprint('after')",
        "given",
        "x",
        inputs={"given": {"a": [1, 2]}},
        functions=FUNCTIONS,
        call_seconds=0.05,
    )
    set_, sum_, pair, twice, refused, hung, missing, broken, x, left, again, gone = outcomes
    assert set_ == Outcome(stdout="set 20\n")
    assert (sum_.value, pair.value, twice.value, x.value) == (22, [1, [2]], 41, 20)
    assert refused.stdout == "ValueError: not this one\n"
    assert "hang did not answer within 0.05 s" in hung.error
    assert "NameError: name 'missing' is not defined" in missing.error
    assert "SyntaxError" in broken.error
    assert (left.stdout, left.lost) == ("before\n", True)
    assert again.value == {"a": [1, 2]}
    assert "NameError" in gone.error


def test_what_is_printed_is_cut_off_and_said_to_be(place):
    (outcome,) = place.run("for n in range(3_000): print('0123456789')\n1")
    assert len(outcome.stdout) < 10_100
    assert outcome.stdout.endswith("… (cut off after 10000 characters)")
    assert outcome.value == 1


def test_a_long_input_gets_in(place):
    (outcome,) = place.run("len(text), text[-1]", inputs={"text": "ä" * 3_000_000 + "z"})
    assert outcome.value == [3_000_001, "z"]


def test_who_is_cancelled_while_code_runs_leaves_nothing_running(place):
    async def cancelled():
        async with place.sandbox() as sandbox:
            await sandbox.run("1")
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await sandbox.run("while True: pass")
            assert sandbox._session is None
        supervisor = place.names.get(("sandboxes", place.engine, "sessions"))
        while (await supervisor.count_children()).active:
            await asyncio.sleep(0.01)

    began = time.monotonic()
    place.node.run(cancelled())
    assert time.monotonic() - began < 10


# -- leasing ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def node():
    node = Node("test").start()
    yield node
    node.stop()


class Toy:
    """An engine without a sandbox in it: its code is what it answers."""

    def __init__(self, sessions=2, warm=0, fails=None):
        self.name, self.limits, self.sessions, self.warm = "toy", Limits(seconds=1), sessions, warm
        self.fails, self.opened, self.closed = fails, 0, 0

    def check(self):
        if self.fails == "check":
            raise SandboxNotAvailable("no toys here; next: buy one")

    async def open(self):
        if self.fails == "open":
            raise SandboxNotAvailable("it broke; next: mend it")
        self.opened += 1
        return ToyInterpreter(self)


class ToyInterpreter:
    def __init__(self, engine):
        self.engine, self.open = engine, True

    async def run(self, code, inputs, functions):
        if code == "hang":
            await asyncio.Event().wait()
        if code == "crash":
            raise SandboxLost("it crashed")
        if code == "bug":
            raise KeyError("a bug of the engine's")
        return Asked("f", (), {}) if code == "f" else Outcome(code)

    async def answer(self, answer):
        return Outcome(answer.value, error=answer.error)

    def hear(self, message):
        pass

    def close(self):
        self.engine.closed += self.open
        self.open = False


def with_toy(node, toy, test):
    async def there():
        async with Supervisor([pool(toy)]):
            return await asyncio.wait_for(test(named(("sandboxes", toy)).whereis()), 10)

    return node.run(there())


def test_no_more_sessions_than_allowed_are_there_at_the_same_time_and_who_waits_is_served_in_order(node):
    toy = Toy(sessions=2)
    served = []

    async def one(desk, number):
        async with Sandbox(desk) as sandbox:
            await sandbox.run("x")
            served.append(number)
            assert toy.opened - toy.closed <= 2
            await asyncio.sleep(0)

    async def test(desk):
        async with asyncio.TaskGroup() as group:
            for number in range(20):
                group.create_task(one(desk, number))

    with_toy(node, toy, test)
    assert served == list(range(20))
    assert toy.opened == toy.closed == 20


def test_sessions_that_are_kept_warm_are_there_before_anybody_asks(node):
    toy = Toy(warm=2)

    async def test(desk):
        while toy.opened < 2:
            await asyncio.sleep(0)
        async with Sandbox(desk) as sandbox:
            assert (await sandbox.run("x")).value == "x"
        while toy.opened < 3:
            await asyncio.sleep(0)

    with_toy(node, toy, test)
    assert toy.opened == toy.closed


def test_a_function_of_the_host_runs_in_the_context_of_who_runs_the_code(node):
    variable = contextvars.ContextVar("variable", default="none")

    async def f():
        return variable.get()

    async def test(desk):
        variable.set("mine")
        async with Sandbox(desk, functions={"f": f}) as sandbox:
            return (await sandbox.run("f")).value

    assert with_toy(node, Toy(), test) == "mine"


def test_a_function_may_run_code_itself_though_all_sessions_are_taken(node):
    async def test(desk):
        async def f():
            async with Sandbox(desk) as inner:
                return (await inner.run("inner")).value

        async with Sandbox(desk, functions={"f": f}) as sandbox:
            return (await sandbox.run("f")).value

    assert with_toy(node, Toy(sessions=1), test) == "inner"


@pytest.mark.parametrize(("code", "error"), [("hang", "it ran longer than 1 s"), ("crash", "it crashed")])
def test_who_hangs_or_crashes_costs_one_session_and_the_next_run_has_a_new_one(code, error, node):
    toy = Toy()

    async def test(desk):
        async with Sandbox(desk) as other, Sandbox(desk) as sandbox:
            await other.run("x")
            lost = await sandbox.run(code)
            assert lost.lost
            assert error in lost.error
            assert (await sandbox.run("again")).value == "again"
            assert (await other.run("y")).value == "y"

    with_toy(node, toy, test)
    assert (toy.opened, toy.closed) == (3, 3)


def test_an_error_of_the_engine_s_own_is_the_caller_s(node):
    async def test(desk):
        async with Sandbox(desk) as sandbox:
            with pytest.raises(KeyError, match="a bug"):
                await sandbox.run("bug")
            assert (await sandbox.run("x")).value == "x"

    with_toy(node, Toy(), test)


def test_an_engine_that_does_not_start_says_why(node):
    async def test(desk):
        async with Sandbox(desk) as sandbox:
            with pytest.raises(SandboxNotAvailable, match="next: mend it"):
                await sandbox.run("x")

    with_toy(node, Toy(fails="open"), test)

    async def none():
        parent = await DynamicSupervisor.start()
        with pytest.raises(SandboxNotAvailable, match="next: buy one"):
            await desk_of(Toy(fails="check"), named("x")._names, parent)
        await parent.stop()

    node.run(none())


def test_a_pool_is_started_once_by_whoever_needs_it_first(node):
    toy = Toy()

    async def there():
        parent = await DynamicSupervisor.start()
        desks = await asyncio.gather(*(desk_of(toy, named("x")._names, parent) for _ in range(10)))
        assert len(set(desks)) == 1
        assert (await parent.count_children()).active == 1
        await parent.stop()

    node.run(there())


def test_a_desk_that_is_killed_is_back_and_its_sessions_have_ended(node):
    toy = Toy()

    async def test(desk):
        async with Sandbox(desk) as sandbox:
            await sandbox.run("x")
            desk.exit()
            while not toy.closed:
                await asyncio.sleep(0)
            outcome = await sandbox.run("x")
            assert outcome.lost
            again = named(("sandboxes", toy))
            while again.whereis() is None:
                await asyncio.sleep(0)
            async with Sandbox(again.whereis()) as other:
                assert (await other.run("x")).value == "x"
            with pytest.raises(ActorDown):
                await sandbox.run("x")

    with_toy(node, toy, test)
    assert toy.opened == toy.closed


def test_who_is_cancelled_while_waiting_takes_no_session(node):
    toy = Toy(sessions=1)

    async def test(desk):
        async with Sandbox(desk) as first:
            await first.run("x")
            second = Sandbox(desk)
            waiting = asyncio.ensure_future(second.run("y"))
            await asyncio.sleep(0)
            waiting.cancel()
        async with Sandbox(desk) as third:
            assert (await third.run("z")).value == "z"

    with_toy(node, toy, test)
    assert toy.opened == toy.closed == 2


# -- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limits", [{"seconds": 0}, {"memory": -1}, {"output": "many"}, {"seconds": float("inf")}])
def test_limits_are_numbers_above_zero(limits):
    with pytest.raises(ProgramError, match="allowed: a number above 0"):
        Limits(**limits)


def test_what_is_not_installed_says_so_with_the_next_step(monkeypatch, tmp_path):
    import importlib.util

    monkeypatch.setattr(shutil, "which", lambda _: None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(SandboxNotAvailable, match="pip install 'otpy-framework"):
        Monty().check()
    with pytest.raises(SandboxNotAvailable, match="apt-get install bubblewrap"):
        Bubblewrap().check()
    with pytest.raises(SandboxNotAvailable, match="needs Deno; next: pip install"):
        Pyodide().check()
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    with pytest.raises(SandboxNotAvailable, match="npm install pyodide"):
        Pyodide(path=str(tmp_path)).check()


def test_an_engine_is_a_name_or_a_value():
    assert engine("bubblewrap") == Bubblewrap()
    mine = Monty(limits=Limits(seconds=2))
    assert engine(mine) is mine
    for wrong in ("local", "subprocess", 3, None):
        with pytest.raises(ProgramError, match="allowed: 'monty', 'pyodide', 'bubblewrap'"):
            engine(wrong)
    with pytest.raises(ProgramError, match="tuples for lists"):
        engine(Bubblewrap(readable=["/srv"]))  # type: ignore[arg-type]


# -- a protocol that is not believed ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        "nonsense", "[]", "3", "{}", "null", '{"stdout": 3}', '{"stdout": "", "value": 1}',
        '{"stdout": "", "ask": 3, "args": [], "kwargs": {}}', '{"stdout": "", "ask": "f", "args": {}, "kwargs": {}}',
        '{"stdout": "", "value": 1, "error": 3}', "[" * 100_000, '{"stdout": ["x"], "value": 1, "error": null}',
        '{"stdout": ["x"], "ask": "f", "args": [], "kwargs": {}}',
        '{"stdout": {}, "ask": "f", "args": [], "kwargs": {}}',
        '{"stdout": "", "error": null, "value": [' + "{}," * 300_000 + "{}]}",
        '{"stdout": "", "error": null, "value": "' + "x" * 20_000_000 + '"}',
    ],
)  # fmt: skip
def test_a_line_that_was_not_agreed_upon_ends_the_session(line):
    with pytest.raises(SandboxLost, match="broke its protocol"):
        LineInterpreter(None, Limits())._understood(line)  # type: ignore[arg-type]


def test_half_a_character_does_not_get_out():
    line = '{"stdout": "\\ud800", "error": "\\udfff", "value": {"\\ud801": ["\\ud802", "\\ud83d\\ude00"]}}'
    outcome = LineInterpreter(None, Limits())._understood(line)  # type: ignore[arg-type]
    assert outcome == Outcome({"\\ud801": ["\\ud802", "😀"]}, "\\ud800", "\\udfff")


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("[1, 2]", ""),
        ('["a,b,c,d"]', ""),
        ('["a\\",[{,,,,", 1]', ""),
        ("[1,2,3,4,5]", "more than 4 parts"),
        ("[[[[[", "more than 4 parts"),
        ('["a", [], [], [], []', "more than 4 parts"),
        ('"' + '\\"' * 14 + ",,,,,,,", ""),
        ("x" * 41, "41 bytes of JSON; at most 40"),
    ],
)
def test_json_is_weighed_before_it_is_read_and_its_texts_are_one_part_each(line, why):
    assert (why in heavy(line, 40, 4)) if why else heavy(line, 40, 4) == ""


def test_what_is_too_much_stays_in_the_sandbox_and_the_session_goes_on(place):
    big, many, call, after = place.run(
        "'x' * 9_000_000",
        "[0] * 300_000",
        "try:\n    double('x' * 9_000_000)\nexcept Exception as error:\n    print(str(error)[:9])",
        "1 + 1",
        functions=FUNCTIONS,
    )
    if place.engine.name != "monty":  # whose values come by another way
        assert big.value == "<str, too much to leave the sandbox: 9000002 bytes of JSON; at most 8388608>"
        assert many.value == "<list, too much to leave the sandbox: it has more than 200000 parts>"
        assert call.stdout == "double wa\n"
    assert after.value == 2


def test_a_line_without_end_ends_the_session(placing):
    with placing(Bubblewrap(limits=Limits(seconds=5, memory=128 * 2**20))) as place:
        lost, after = place.run("import os\nwhile True: os.write(4, b'{},' * 10_000)", "1 + 1")
    assert "a line of more than 9" in lost.error
    assert lost.lost
    assert after.value == 2


def test_a_run_that_asks_again_and_again_has_one_limit_of_time(node):
    class Slow(ToyInterpreter):
        async def run(self, code, inputs, functions):
            return await self.answer(None)

        async def answer(self, answer):
            engine.turns += 1
            await asyncio.sleep(0.4)
            return Asked("double", (1,), {})

    class Engine(Toy):
        turns = 0

        async def open(self):
            return Slow(self)

    engine = Engine()

    async def main():
        async with Supervisor([pool(engine)]):
            sandbox = Sandbox(named(("sandboxes", engine)).whereis(), functions={"double": double})
            return await sandbox.run("x")

    outcome = run_in_virtual_time(main())
    assert (outcome.error, outcome.lost) == ("TimeoutError: it ran longer than 1 s", True)
    assert engine.turns == 4  # a second, and half a second's grace


@pytest.mark.parametrize("options", [{"inputs": {"text": "caf\udce9"}}, {"inputs": {"a": [{"\ud800": 1}]}}])
def test_half_a_character_in_an_input_is_an_outcome(quick, options):
    outcome, again = quick.run("1", "2", **options)
    assert outcome.error.startswith("UnicodeEncodeError: an input is no text that can be encoded")
    assert again.error == outcome.error


def test_half_a_character_in_code_is_an_outcome_and_the_session_goes_on(quick):
    first, odd, after = quick.run("x = 1", "'\udce9'", "x")
    assert first.error is None
    assert odd.error.startswith("UnicodeEncodeError: the code is no text that can be encoded")
    assert (after.value, odd.lost) == (1, False)


def test_half_a_character_that_a_function_returns_is_told_by_its_escape(quick):
    async def odd():
        return "\ud800"

    (outcome,) = quick.run("odd()", functions={"odd": odd})
    assert outcome.value == "\\ud800"


def test_a_worker_that_asked_for_too_much_memory_is_lost_and_the_next_run_has_another(placing):
    with placing(Monty(limits=Limits(seconds=2, memory=64 * 2**20))) as place:
        lost, after = place.run("','.join(['x' * 10**6] * 10**4)", "q", inputs={"q": "in"})
    assert "MemoryError" in lost.error
    assert lost.lost
    assert after.value == "in"


def test_plain_data_is_what_json_has_and_no_deeper_than_that():
    deep = value = []
    for _ in range(1_000):
        value.append([])
        value = value[0]
    assert str(plain(deep)).count("[") > 50
    assert plain({1: b"x", "a": None}) == {"1": "b'x'", "a": None}


# -- files that are granted -------------------------------------------------------------------------------------------


def test_what_is_granted_can_be_read_and_nothing_is_written(tmp_path, placing):
    tmp_path.chmod(0o755)
    for part in list(tmp_path.parents)[:3]:
        part.chmod(0o755)
    (tmp_path / "granted").mkdir()
    (tmp_path / "granted" / "module_of_mine.py").write_text("answer = 42")
    directory = str(tmp_path / "granted")
    with placing(Bubblewrap(readable=(directory,), packages=(directory,))) as place:
        read, imported, written = place.run(
            f"open('{directory}/module_of_mine.py').read()",
            "import module_of_mine\nmodule_of_mine.answer",
            f"open('{directory}/x', 'w')",
        )
    assert (read.value, imported.value) == ("answer = 42", 42)
    assert "Read-only file system" in written.error

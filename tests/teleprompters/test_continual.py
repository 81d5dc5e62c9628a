"""`Continual` makes a program better whenever feedback has come, and loses nothing to a kill."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
from contextlib import asynccontextmanager

import pytest

import otpy
from otpy.actors import KILL
from otpy.cli.runs import show_run
from otpy.cli.screen import Screen
from otpy.errors import StartFailed, TeleprompterError
from otpy.programs import load_file
from otpy.telemetry import bus
from otpy.teleprompters import LabeledFewShot, Teleprompter
from otpy.teleprompters.continual import Continual, Current, Feedback, Look
from otpy.teleprompters.continual_state import ContinualState
from otpy.teleprompters.feedback import FeedbackFile, RowMaker
from otpy.teleprompters.run_view import RunView
from otpy.testing import LoopbackLM

FRUIT = ["apple", "pear", "plum", "fig", "lime", "date", "kiwi", "mango", "peach", "grape"]
TOOLS = ["saw", "axe", "file", "rake", "plane", "drill", "vice", "hammer", "chisel", "spade"]
ROWS = [{"word": word, "kind": kind} for pair in zip(FRUIT, TOOLS, strict=True) for word, kind in
        zip(pair, ("fruit", "tool"), strict=True)]  # fmt: skip
VAL = [otpy.Example(row) for row in ROWS[:12]]
STUDENT = otpy.Predict("word -> kind: Literal['fruit', 'tool']")


class Told(Teleprompter):
    """Tells the model as many tools as it has seen; the more it is told, the better it is."""

    uses_valset = True

    def __init__(self):
        self.metric = otpy.exact_match("kind")

    async def search(self, lab, student, trainset, valset, teacher):
        tools = sorted({row.word for row in trainset if row.kind == "tool"})
        better = student.with_instructions(f"Tools: {' '.join(tools)}.")
        await lab.candidate("told", await lab.evaluate(better, list(enumerate(valset))))
        return better


def answer(body):
    asked = body["messages"][-1]["content"].removeprefix("word: ").split("\n")[0]
    told = body["messages"][0]["content"].split("Tools: ")[-1].split(".")[0].split()
    return {"kind": "tool" if asked in told else "fruit"}


@asynccontextmanager
async def continual(server, directory, teleprompter=None, **options):
    options = {"rows": 4, "every": 3600, "valset": VAL, **options}
    async with otpy.start(lm="openai/x", base_url=server.url, api_key="none", cache=False) as app:
        spec = Continual.child_spec(teleprompter or Told(), STUDENT, directory, name="continual", **options)
        yield await app.teleprompters.start_child(spec), app


def ran(scenario, script=answer):
    """Run a scenario with a server, and return what it returns with the events it made."""
    events = []

    async def main():
        with LoopbackLM(script) as server:
            return await scenario(server)

    def heard(event, fields):
        if event.startswith("otpy.continual."):
            events.append((event.removeprefix("otpy.continual."), fields))

    with bus.attached("test", heard):
        return asyncio.run(main()), events


def rows(*numbers):
    return Feedback(tuple(ROWS[number] for number in numbers))


class TestWhatIsLeftOut:
    def test_is_counted_and_the_last_of_it_shown_with_line_and_reason(self, tmp_path):
        source = tmp_path / "feedback.jsonl"
        bad = [json.dumps({"word": f"w{number}", "kind": "animal"}) for number in range(6)]

        async def scenario(server):
            async with continual(server, tmp_path / "c", source=source) as (process, app):
                process.cast(Feedback(({"kind": "tool"}, ROWS[1])))
                found = [await process.call(Look())]
                with source.open("a") as file:
                    file.write("".join(f"{line}\n" for line in [*bad, *map(json.dumps, ROWS[2:8])]))
                found.append(await process.call(Look()))
                tree = str(app.tree()) if callable(getattr(app, "tree", None)) else process.process.actor.status()
                source.write_text(json.dumps(ROWS[9]) + "\n{\n")  # another file: what was of the former counts no more
                found.append(await process.call(Look()))
                return found, tree

        (found, tree), events = ran(scenario)
        assert [one.refused for one in found] == [1, 7, 2]
        assert [one.line for one in found[0].left_out] == [0]
        assert [one.line for one in found[1].left_out] == [3, 4, 5, 6, 7]
        assert [one.line for one in found[2].left_out] == [2]
        assert "column 'kind' has the unknown label 'animal'" in repr(found[1])
        assert "7 left out (the last: line 7: column 'kind' has the unknown label 'animal'" in tree
        assert next(fields["refused"] for event, fields in events if event == "begun") == 7
        view = RunView(next((tmp_path / "c").glob("*.run")))
        assert view.about["continual"]["refused"] == 7
        assert view.about["continual"]["left_out"][-1].startswith(
            "line 7: column 'kind' has the unknown label 'animal'"
        )
        shown = io.StringIO()
        with contextlib.redirect_stdout(shown):
            show_run(Screen(), str(view.path))
        assert "rows of feedback left out: 7; the last: line 3: column 'kind'" in shown.getvalue()


class TestGenerations:
    def test_a_better_program_is_taken_and_one_that_is_not_shown_to_be_better_is_not(self, tmp_path):
        async def scenario(server):
            async with continual(server, tmp_path / "c", out=tmp_path / "out.json") as (process, _):
                found = [await process.call(Current())]
                process.cast(rows(1, 3, 5))
                found.append(await process.call(Look()))
                process.cast(rows(7, 9, 11))
                found.append(await process.call(Look()))
                out = load_file(tmp_path / "out.json")
                process.cast(rows(0, 2, 4, 6))
                found.append(await process.call(Look()))
                return found, out

        (found, out), events = ran(scenario)
        assert [(one.number, one.rows, one.waiting) for one in found] == [(0, 0, 0), (0, 0, 3), (1, 6, 0), (1, 10, 0)]
        assert out.content_hash() == found[2].program.content_hash() != STUDENT.content_hash()
        assert [event for event, _ in events] == ["begun", "taken", "begun", "kept"]
        assert events[1][1]["outcome"].better

    def test_the_program_it_began_with_is_there_from_the_start(self, tmp_path):
        async def scenario(server):
            async with continual(server, tmp_path / "c", out=tmp_path / "out.json"):
                return load_file(tmp_path / "out.json").content_hash()

        assert ran(scenario)[0] == STUDENT.content_hash()

    def test_always_takes_what_an_optimizer_makes_that_measures_nothing(self, tmp_path):
        async def scenario(server):
            options = {"always": True, "valset": None, "trainset": VAL[:2]}
            async with continual(server, tmp_path, LabeledFewShot(16), **options) as (process, _):
                first = await process.call(Look())
                process.cast(rows(4, 5, 6, 7))
                return first, await process.call(Look()), len(server.requests)

        (first, second, asked), _ = ran(scenario)
        assert (first.number, len(first.program.demos)) == (1, 2)
        assert (second.number, len(second.program.demos), asked) == (2, 6, 0)

    def test_without_a_valset_a_row_is_for_learning_or_for_choosing_for_good(self, tmp_path):
        async def scenario(server):
            async with continual(server, tmp_path, valset=None) as (process, _):
                process.cast(rows(*range(20)))
                return await process.call(Look())

        found, events = ran(scenario)
        assert found.rows == 20
        assert 0 < events[0][1]["learned"] < 20

    def test_what_comes_while_it_works_is_considered_next(self, tmp_path):
        async def scenario(server):
            async with continual(server, tmp_path) as (process, _):
                process.cast(rows(1, 3, 5, 7))
                looking = asyncio.ensure_future(process.call(Look()))
                while not server.requests:
                    await asyncio.sleep(0.001)
                process.cast(rows(9, 11, 0, 2))
                await looking
                return await process.call(Look())

        assert ran(scenario)[0].rows == 8

    def test_a_failure_keeps_the_current_program_and_waits_for_more(self, tmp_path):
        class Fails(Told):
            async def search(self, lab, student, trainset, valset, teacher):
                raise TeleprompterError("planted")

        async def scenario(server):
            async with continual(server, tmp_path, Fails()) as (process, _):
                process.cast(rows(1, 3, 5, 7))
                first = await process.call(Look())
                return first, await process.call(Look()), process.is_alive()

        (first, second, alive), events = ran(scenario)
        assert (first.number, first.problem, alive) == (0, "TeleprompterError: planted", True)
        assert (second.rows, second.under_way) == (4, False)
        assert [event for event, _ in events] == ["begun", "failed"]

    def test_where_the_disk_is_full_it_tries_again_and_asks_nothing_twice(self, tmp_path, monkeypatch):
        from otpy.teleprompters import continual_state

        full = [True]
        write = continual_state.ContinualState.write

        def maybe(state):
            if full[0] and state.under_way is None:
                raise TeleprompterError("no space left")
            write(state)

        monkeypatch.setattr(continual_state.ContinualState, "write", maybe)

        async def scenario(server):
            async with continual(server, tmp_path) as (process, _):
                process.cast(rows(1, 3, 5, 7, 9, 11))
                first = await process.call(Look())
                second = await process.call(Look())
                asked = len(server.requests)
                full[0] = False
                return first, second, await process.call(Look()), asked, len(server.requests)

        (first, second, third, asked, later), events = ran(scenario)
        assert (first.number, first.problem, second.problem) == (0, "no space left", "no space left")
        assert (third.number, third.problem, asked) == (1, None, later)
        assert [event for event, _ in events].count("failed") == 1

    def test_where_the_key_is_refused_the_rows_are_not_given_up(self, tmp_path):
        from otpy.testing import Scripted

        refuse = [True]

        def script(body):
            return Scripted(status=401) if refuse[0] else answer(body)

        async def scenario(server):
            async with continual(server, tmp_path) as (process, _):
                process.cast(rows(1, 3, 5, 7, 9, 11))
                first = await process.call(Look())
                refuse[0] = False
                return first, await process.call(Look())

        (first, second), _ = ran(scenario, script)
        assert (first.rows, "LMAuthError" in first.problem) == (0, True)
        assert (second.number, second.rows, second.problem) == (1, 6, None)


class TestKilled:
    def test_it_goes_on_where_it_was_and_asks_nothing_twice(self, tmp_path):
        async def scenario(server):
            async with continual(server, tmp_path) as (process, app):
                process.cast(rows(1, 3, 5, 7, 9, 11))
                asking = asyncio.ensure_future(process.call(Look(), 30))
                while len(server.requests) < 14:
                    await asyncio.sleep(0.001)
                process.exit(KILL)
                with pytest.raises(Exception, match="killed"):
                    await asking
                again = await app.names.wait_for("continual", 5)
                found = await again.call(Look(), 30)
                return found, [json.dumps(body, sort_keys=True) for body in server.requests]

        (found, bodies), _ = ran(scenario)
        assert (found.number, found.rows) == (1, 6)
        in_flight = len(bodies) - len(set(bodies))
        assert in_flight <= 8
        assert len(set(bodies)) == 24

    def test_the_same_directory_again_asks_nothing(self, tmp_path):
        async def scenario(server):
            found = []
            for _ in range(2):
                async with continual(server, tmp_path) as (process, _):
                    if not found:
                        process.cast(rows(1, 3, 5, 7))
                    found.append((await process.call(Look()), len(server.requests)))
            return found

        ((first, asked), (second, later)), _ = ran(scenario)
        assert (asked, first.program.content_hash()) == (later, second.program.content_hash())
        assert second.number == first.number

    def test_two_at_once_are_refused(self, tmp_path):
        async def scenario(server):
            async with continual(server, tmp_path) as (_, app):
                spec = Continual.child_spec(Told(), STUDENT, tmp_path, valset=VAL)
                with pytest.raises(StartFailed, match="in use"):
                    await app.teleprompters.start_child(spec)

        ran(scenario)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rows": 0}, "rows=0"),
        ({"every": 0}, "every=0"),
        ({"teleprompter": LabeledFewShot(2)}, "always=True"),
        ({"out": "other.json"}, "another program"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path, options, message, monkeypatch):
    monkeypatch.chdir(tmp_path)
    STUDENT.with_instructions("Other.").save("other.json")

    async def scenario(server):
        with pytest.raises(StartFailed, match=message):
            async with continual(server, tmp_path / "c", **options):
                pass

    ran(scenario)
    assert load_file("other.json").signature.instructions == "Other."


def test_a_directory_of_something_else_is_refused_and_left(tmp_path):
    async def scenario(server):
        async with continual(server, tmp_path) as (process, _):
            process.cast(rows(1, 3, 5, 7))
            await process.call(Look())
        before = (tmp_path / "state.json").read_text()
        with pytest.raises(StartFailed, match="data:"):
            async with continual(server, tmp_path, trainset=VAL[:1]):
                pass
        return before == (tmp_path / "state.json").read_text()

    assert ran(scenario)[0]


class TestFeedbackFile:
    @pytest.fixture
    def file(self, tmp_path):
        return FeedbackFile(tmp_path / "f.jsonl", RowMaker(STUDENT, ["kind"]))

    def test_half_a_line_is_waited_for(self, file):
        line = json.dumps(ROWS[0]).encode()
        for end in range(len(line) + 1):
            file.path.write_bytes(line[:end])
            assert file.read() == []
            assert len(file.rows) == (end == len(line))
        with file.path.open("ab") as more:
            more.write(b"\n" + line + b"\n")
        assert file.read() == []
        assert len(file.rows) == 2

    def test_a_row_that_is_none_is_told_once(self, file):
        bad = ["{", "[1]", '{"word": "a"}', '{"word": "a", "kind": "x"}', '"\\ud800"', '{"kind": "tool"}', "{" * 5000]
        file.path.write_text("".join(f"{line}\n" for line in [*bad, json.dumps(ROWS[0])]))
        assert [one.line for one in file.read()] == list(range(1, len(bad) + 1))
        assert file.read() == []
        assert len(file.rows) == 1

    def test_bytes_that_are_no_text_are_told_too(self, file):
        file.path.write_bytes(b"\xff\xfe\n\n" + json.dumps(ROWS[0]).encode() + b"\n")
        assert [one.line for one in file.read()] == [1]
        assert len(file.rows) == 1

    def test_a_row_with_half_a_character_is_none(self, file):
        bad = ['{"word": "\\ud800", "kind": "tool"}', '{"word": "a", "kind": "tool", "x": ["y\\udc00"]}']
        file.path.write_text("".join(f"{line}\n" for line in [*bad, json.dumps(ROWS[0] | {"word": "\U0001f34e"})]))
        assert [(one.line, "half of a character" in one.why) for one in file.read()] == [(1, True), (2, True)]
        assert [row.word for row in file.rows] == ["\U0001f34e"]
        assert len(file.append([{"word": "\ud800", "kind": "tool"}])) == 1

    @pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes with a name here")
    def test_a_pipe_is_not_waited_for(self, file):
        os.mkfifo(file.path)
        with pytest.raises(OSError, match="no regular file"):
            file.read()

    def test_a_file_that_was_replaced_or_cut_is_read_anew(self, file, tmp_path):
        file.append(ROWS[:3])
        file.read()
        (tmp_path / "new").write_text(json.dumps(ROWS[5]) + "\n" + json.dumps(ROWS[6]) + "\n")
        (tmp_path / "new").replace(file.path)
        file.read()
        assert [row.word for row in file.rows] == [ROWS[5]["word"], ROWS[6]["word"]]
        file.path.write_text(json.dumps(ROWS[7]) + "\n")
        file.read()
        assert [row.word for row in file.rows] == [ROWS[7]["word"]]
        file.path.write_text("".join(json.dumps(row) + "\n" for row in ROWS[2:6]))  # longer, in the same place
        file.read()
        assert [row.word for row in file.rows] == [row["word"] for row in ROWS[2:6]]
        file.path.unlink()
        assert (file.read(), file.rows) == ([], [])

    def test_what_is_appended_after_half_a_line_is_not_lost(self, file):
        file.path.write_text('{"word": "ap')
        refused = file.append([ROWS[1], {"word": "x"}, {"word": object()}, 7])
        assert [one.line for one in refused] == [0, 0, 0]
        assert [one.line for one in file.read()] == [1]
        assert [row.word for row in file.rows] == [ROWS[1]["word"]]


class TestWhatIsOnDisk:
    @pytest.fixture
    def kept(self, tmp_path):
        state = ContinualState(tmp_path, {"optimizer": "X"})
        state.rows, state.data, state.under_way = 12, "abc", 20
        state.write()
        return tmp_path / "state.json"

    @pytest.mark.parametrize(
        ("name", "value"),
        [("rows", 13), ("generation", 1), ("data", "abd"), ("under_way", None), ("of", {"optimizer": "Y"})],
    )
    def test_a_number_that_was_edited_is_noticed_and_the_file_left(self, kept, name, value):
        edited = json.dumps({**json.loads(kept.read_text()), name: value})
        kept.write_text(edited)
        with pytest.raises(TeleprompterError, match=r"state.json is damaged: it does not match its checksum"):
            ContinualState(kept.parent, {"optimizer": "X"})
        assert kept.read_text() == edited

    def test_without_its_checksum_it_is_damaged_but_that_of_the_version_before_is_read(self, kept):
        content = json.loads(kept.read_text())
        del content["checksum"]
        kept.write_text(json.dumps(content))
        with pytest.raises(TeleprompterError, match="damaged: 'checksum'"):
            ContinualState(kept.parent, {"optimizer": "X"})
        kept.write_text(json.dumps({**content, "schema": 1}))
        state = ContinualState(kept.parent, {"optimizer": "X"})
        assert (state.rows, state.data, state.under_way) == (12, "abc", 20)
        state.write()
        assert json.loads(kept.read_text())["schema"] == 2
        assert ContinualState(kept.parent, {"optimizer": "X"}).rows == 12

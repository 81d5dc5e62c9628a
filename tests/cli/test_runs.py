"""`otpy runs` reads the journals of optimizations, whatever state they are in, and changes none."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import re
import shutil
import sqlite3
import struct
import subprocess
import sys
from pathlib import Path

import pytest

import otpy
from otpy.errors import TeleprompterError
from otpy.programs import load_file
from otpy.teleprompters import Judgements, Teleprompter
from otpy.teleprompters.questions import about_score, choices_of
from otpy.teleprompters.run_journal import RunJournal
from otpy.teleprompters.run_view import RunView
from otpy.testing import LoopbackLM

WORDS = {"fruit": "apple pear plum fig lime date", "tool": "saw axe file rake plane drill"}
ROWS = [otpy.Example(word=word, kind=kind) for kind, words in WORDS.items() for word in words.split()]
STUDENT = otpy.Predict("word -> kind: Literal['fruit', 'tool']")
QUESTION = about_score(
    "Good?", choices=choices_of(None, None), inputs={"word": "saw"}, outputs={"kind": "tool"}, label=None
)
HEADER = {"optimizer": "X", "params": {"seed": 3}, "student": "s", "teacher": None, "data": "d"}


class Short(Teleprompter):
    """Tries one other instruction."""

    uses_valset = True

    def __init__(self):
        self.metric = otpy.exact_match("kind")

    async def search(self, lab, student, trainset, valset, teacher):
        better = student.with_instructions("Tools are tools.")
        lab.notes.append("a note")
        await lab.candidate("told", await lab.evaluate(better, list(enumerate(valset))), round=1)
        return better


def answer(body):
    asked = body["messages"][-1]["content"].removeprefix("word: ").split("\n")[0]
    told = "Tools are tools" in json.dumps(body)
    return {"kind": "tool" if told and asked in WORDS["tool"].split() else "fruit"}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A finished run of Python code."""
    path = tmp_path_factory.mktemp("runs") / "short-1a.run"
    with LoopbackLM(answer) as server, otpy.start(lm="openai/x", base_url=server.url, api_key="none", cache=False):
        Short().compile(STUDENT, trainset=ROWS[:2], valset=ROWS, journal=path)
    return path


@pytest.fixture
def run(made, here, tmp_path):
    """The same, among the runs of the test's directory."""
    (tmp_path / ".otpy" / "runs").mkdir(parents=True)
    return Path(shutil.copy(made, tmp_path / ".otpy" / "runs"))


def content(path):
    return hashlib.blake2b(path.read_bytes()).hexdigest(), sorted(one.name for one in path.parent.iterdir())


def on_a_terminal(width, tmp_path, environment, *arguments):
    """What a command writes to a terminal that is so wide, in lines."""
    pty, termios, fcntl = (pytest.importorskip(name) for name in ("pty", "termios", "fcntl"))
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 40, width, 0, 0))
    variables = {name: value for name, value in environment.items() if name != "COLUMNS"} | {"TERM": "xterm"}
    command = [sys.executable, "-m", "otpy", *map(str, arguments)]
    process = subprocess.Popen(command, stdin=its, stdout=its, stderr=its, cwd=tmp_path, env=variables)
    os.close(its)
    wrote = b""
    with contextlib.suppress(OSError):  # how the end of a terminal is told
        while found := os.read(ours, 65536):
            wrote += found
    os.close(ours)
    assert process.wait(60) == 0, wrote.decode()
    return re.sub(r"\x1b\[\d+m", "", wrote.decode()).replace("\r\n", "\n").splitlines()


def changed(path, sql, *values):
    with contextlib.closing(sqlite3.connect(path)) as base:
        base.execute(sql, values)
        base.commit()
        base.execute("PRAGMA wal_checkpoint(TRUNCATE)")


WHY = "failed: ModelNotAvailable: the model x of openai did not answer"


@pytest.mark.parametrize("width", [80, 60])
class TestOnATerminal:
    def test_in_a_list_no_name_number_or_time_is_cut_or_wrapped(self, run, width, tmp_path, environment):
        long = run.with_name("random-search-0c61f2a80b11.run")
        shutil.copy(run, long)
        header = json.dumps(HEADER | {"optimizer": "BootstrapFewShotWithRandomSearch"})
        changed(long, "UPDATE about SET value = ? WHERE name = 'header'", header)
        changed(long, "UPDATE about SET value = ? WHERE name = 'status'", json.dumps(WHY))
        title, *lines = on_a_terminal(width, tmp_path, environment, "runs", "list")
        assert title.split()[:3] == ["run", "status", "best" if width == 60 else "tried"]
        assert [line for line in lines if len(line) > width or "…" in line] == []
        assert len(lines) == 2
        found = {line.split()[0]: line for line in lines}
        assert found["random-search-0c61f2a80b11"].split()[1] == "failed"
        for line in found.values():
            assert re.search(r"  100\.0 %(  24 .*  \d{4}-\d\d-\d\d \d\d:\d\d)?$", line), line
            assert ("24" in line) == ("requests" in title)

    def test_a_candidate_is_one_line_and_its_parameters_another(self, run, width, tmp_path, environment):
        params = {"score": 0.9714285714285714, "texts": {"predict": "Sort it. " * 20}, "parents": [1]}
        changed(run, "UPDATE trials SET data = json_set(data, '$.params', json(?))", json.dumps(params))
        changed(run, "UPDATE about SET value = ? WHERE name = 'status'", json.dumps(WHY))
        lines = on_a_terminal(width, tmp_path, environment, "runs", "show", "short")
        assert [line for line in lines if len(line) > width] == []
        assert lines[0].endswith("short-1a.run: failed")
        assert lines[1].startswith("error       ModelNotAvailable: the model x of openai did")
        at = next(number for number, line in enumerate(lines) if re.match("student .*%", line))
        assert re.match(r"student +50\.0 %   ?25\.4 to 74\.6 ", lines[at])
        assert lines[at + 1].startswith("  score=0.9714, texts={predict: 'Sort it. ")
        assert re.match(r"told +100\.0 %  75\.8 to 100\.0  .*\+50\.0, p = 0\.031", lines[at + 2])


class TestInAPipe:
    def test_a_candidate_is_one_line_with_its_parameters_in_few_words(self, here, run):
        params = {"score": 0.9714285714285714, "texts": {"predict": "Sort it. " * 20}}
        changed(run, "UPDATE trials SET data = json_set(data, '$.params', json(?))", json.dumps(params))
        ran = here("runs", "show", "short")
        (line,) = (line for line in ran.out.splitlines() if line.startswith("told "))
        assert line.endswith("  score=0.9714, texts={predict: 'Sort it. Sort it. Sort it. Sort it. Sor…'}")

    def test_a_failed_run_has_a_word_as_its_status_and_its_error_beside_it(self, here, run):
        changed(run, "UPDATE about SET value = ? WHERE name = 'status'", json.dumps(WHY))
        (found,) = here("runs", "list", "--json").json["runs"]
        assert (found["status"], found["error"]) == ("failed", WHY.removeprefix("failed: "))
        assert WHY.removeprefix("failed: ") not in here("runs", "list").out
        assert "error       ModelNotAvailable: the model x" in here("runs", "show", "short").out


class TestList:
    def test_a_finished_run_has_its_candidates_its_best_and_what_it_took(self, here, run):
        ran = here("runs", "list")
        assert (ran.status, ran.err) == (0, "")
        for words in ("short-1a", "done", "Short", "100.0 %", "24"):
            assert words in ran.out
        (found,) = here("runs", "list", "--json").json["runs"]
        assert (found["status"], found["candidates"], found["best"]["name"]) == ("done", 2, "told")
        assert found["spent"]["requests"] == 24

    def test_nothing_to_be_listed_is_said(self, here):
        assert "no runs in .otpy/runs" in here("runs", "list").out
        assert here("runs", "list", "--json").json["runs"] == []
        assert here("runs", "list", "none").status == 2

    def test_one_that_cannot_be_read_stands_among_the_others(self, here, run):
        run.with_name("broken.run").write_text("nonsense")
        sqlite3.connect(run.with_name("other.run")).execute("CREATE TABLE x (y)")
        ran = here("runs", "list", "--json")
        assert ran.status == 0
        errors = {Path(one["run"]).name: one.get("error") for one in ran.json["runs"]}
        assert errors["short-1a.run"] is None
        assert "damaged" in errors["broken.run"]
        assert "no journal of a run" in errors["other.run"]
        assert "damaged" in here("runs", "list").out

    def test_a_run_is_running_paused_interrupted_or_waits_for_people(self, tmp_path):
        path = tmp_path / "x.run"

        async def main():
            with RunJournal(path, HEADER) as journal:
                seen = [RunView(path).status]
                await journal.note("status", "paused")
                seen.append(RunView(path).status)
                with Judgements(path) as questions:
                    questions.ask([QUESTION])
                return [*seen, RunView(path).status]

        assert asyncio.run(main()) == ["running", "paused", "waiting for judgements"]
        assert RunView(path).status == "waiting for judgements"
        with RunJournal(path, HEADER):
            pass
        sqlite3.connect(path).execute("DELETE FROM judgements").connection.commit()
        assert RunView(path).status == "interrupted"

    def test_a_run_that_is_paused_says_so_in_its_journal(self, tmp_path):
        path = tmp_path / "x.run"

        async def main():
            with LoopbackLM(answer) as server:
                async with otpy.start(lm="openai/x", base_url=server.url, api_key="none", cache=False):
                    going = Short().start(STUDENT, trainset=ROWS[:2], valset=ROWS, journal=path)
                    going.pause()
                    await asyncio.sleep(0)
                    await going.journal.note("seen", value=True)
                    paused = RunView(path).status
                    going.resume()
                    await going.result()
                    return paused, RunView(path).status

        assert asyncio.run(main()) == ("paused", "done")


class TestReading:
    def test_it_changes_nothing_and_keeps_nobody_from_writing(self, here, run):
        before = content(run)
        for command in (["list"], ["show", "short"], ["diff", "short", "student", "told"]):
            assert here("runs", *command).status == 0
        assert content(run) == before

    def test_a_journal_is_read_while_it_is_written(self, tmp_path):
        path = tmp_path / "x.run"

        async def main():
            with RunJournal(path, HEADER) as journal:
                for number in range(5):
                    await journal.tell(f"c{number}", {"program": "p", "score": 0.5, "scores": [0.0, 1.0]})
                    assert len(RunView(path).candidates) == number + 1
                assert path.with_name("x.run-wal").exists()

        asyncio.run(main())

    def test_a_killed_runs_log_is_read_too(self, tmp_path):
        path = tmp_path / "x.run"
        copy = tmp_path / "copy"
        copy.mkdir()

        async def main():
            with RunJournal(path, HEADER) as journal:
                await journal.tell("c", {"program": "p", "score": 1.0, "scores": [1.0]})
                for name in ("x.run", "x.run-wal", "x.run-lock"):
                    shutil.copy(tmp_path / name, copy)

        asyncio.run(main())
        found = RunView(copy / "x.run")
        assert (found.status, [one.name for one in found.candidates]) == ("interrupted", ["c"])

    def test_somebody_who_looks_keeps_no_run_from_beginning(self, tmp_path):
        import fcntl
        import threading

        path = tmp_path / "x.run"
        RunJournal(path, HEADER).close()
        with Path(f"{path}-lock").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH)
            timer = threading.Timer(0.005, fcntl.flock, (lock, fcntl.LOCK_UN))
            timer.start()
            RunJournal(path, HEADER).close()
            timer.join()
            fcntl.flock(lock, fcntl.LOCK_SH)
            with pytest.raises(TeleprompterError, match="in use"):
                RunJournal(path, HEADER)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ("UPDATE about SET value = '7' WHERE name = 'schema'", "version 7"),
            ("UPDATE about SET value = '{' WHERE name = 'header'", "damaged"),
            ("UPDATE trials SET data = '[1]'", "damaged"),
            ("DROP TABLE trials", "no journal of a run"),
            ("UPDATE about SET value = '[1]' WHERE name LIKE 'spent/%'", "damaged"),
        ],
    )
    def test_a_damaged_one_is_one_clear_error(self, here, run, change, message):
        base = sqlite3.connect(run)
        base.execute(change)
        base.commit()
        base.close()
        ran = here("runs", "show", "short")
        assert (ran.status, len(ran.err.splitlines())) == (2, 1)
        assert message in ran.err
        assert "fault in otpy" not in ran.err

    @pytest.mark.parametrize(
        "change",
        [
            *(f"UPDATE about SET value = '{value}' WHERE name = 'began'" for value in ('"x"', "1e300", "true", "null")),
            *(f"UPDATE about SET value = '{value}' WHERE name = 'status'" for value in ("[1]", "3")),
            *(f"UPDATE about SET value = '{value}' WHERE name = 'header'" for value in ("3", '{"params": 3}')),
            *(f"INSERT OR REPLACE INTO about VALUES ('notes', '{value}')" for value in ("3", "[1]", '"abc"')),
            "INSERT OR REPLACE INTO about VALUES ('continual', '{\"refused\": 1, \"left_out\": 3}')",
            "INSERT OR REPLACE INTO about VALUES ('command', '3')",
            'INSERT OR REPLACE INTO about VALUES (\'command\', \'{"order": 3, "directory": "x"}\')',
            "INSERT OR REPLACE INTO about VALUES ('command', '{\"order\": {}, \"directory\": 1}')",
            "INSERT OR REPLACE INTO about VALUES ('deep', replace(hex(zeroblob(60000)), '0', '['))",
            "INSERT OR REPLACE INTO about VALUES ('spent/9', '[1, 2, \"NaN\", 0, 0]')",
            "INSERT OR REPLACE INTO about VALUES ('spent/9', '[1.5, 2, \"0\", 0, 0]')",
            *(
                f"UPDATE trials SET data = json_set(data, '$.{name}', json('{value}'))"
                for name, value in (
                    ("at", "[1]"),
                    ("at", "[0,0]"),
                    ("at", "3"),
                    ("scores", "[9e999]"),
                    ("scores", '"123"'),
                    ("params", "3"),
                    ("failed", '"x"'),
                    ("program", "3"),
                )
            ),
            "UPDATE trials SET data = json_remove(json_set(data, '$.score', 'x'), '$.scores')",
            *(f"UPDATE {table} SET at = {value}" for table in ("trials", "answers") for value in ("1e300", "'x'")),
        ],
    )
    def test_whatever_is_damaged_the_others_are_listed_and_the_reason_is_told(self, here, run, change):
        shutil.copy(run, run.with_name("whole.run"))
        base = sqlite3.connect(run)
        base.execute(change)
        base.commit()
        base.close()
        ran = here("runs", "list", "--json")
        assert ran.status == 0
        (error,) = [one["error"] for one in ran.json["runs"] if "error" in one]
        assert "short-1a.run is no journal of a run, or damaged: " in error
        for command in (["show"], ["diff", "student", "told"], ["export", "--out", "p.json"], ["resume"]):
            ran = here("runs", command[0], "short", *command[1:])
            assert (ran.status, "damaged" in ran.err, "fault in otpy" in ran.err) == (2, True, False)

    def test_a_cut_file_is_one_clear_error(self, here, run):
        run.write_bytes(run.read_bytes()[:5000])
        ran = here("runs", "show", "short")
        assert ran.status == 2
        assert "short-1a.run" in ran.err
        assert "fault in otpy" not in ran.err


class TestShow:
    def test_it_shows_candidates_with_intervals_and_the_test_against_the_student(self, here, run):
        ran = here("runs", "show", "short", "--instructions")
        assert (ran.status, ran.err) == (0, "")
        for words in ("short-1a.run: done", "+50.0, p = 0.031", "told", "student", "ended in: told, 100.0 %",
                      "24 requests", "note: a note", "round=1", "Tools are tools."):  # fmt: skip
            assert words in ran.out
        found = here("runs", "show", "short", "--json").json
        student, told = found["all"]
        assert (student["score"], told["score"], told["better"]) == (0.5, 1.0, True)
        assert student["interval"][0] < 0.5 < student["interval"][1]
        assert found["command_line"] is None

    def test_a_name_that_is_none_or_several_is_refused(self, here, run):
        shutil.copy(run, run.with_name("short-2b.run"))
        assert "'short' may be short-1a, short-2b" in here("runs", "show", "short").err
        assert "there: short-1a, short-2b" in here("runs", "show", "mipro").err
        assert here("runs", "show", "short-1").status == 0
        assert here("runs", "show", run).status == 0


class TestDiffAndExport:
    def test_two_candidates_differ_in_their_instructions(self, here, run):
        ran = here("runs", "diff", "short", "student", "best", "--json")
        (change,) = ran.json["changes"]
        assert (change["what"], change["after"]) == ("instructions", "Tools are tools.")
        assert "instructions changed" in here("runs", "diff", "short", "student", "told").out

    def test_two_runs_differ_in_what_they_ended_in(self, here, run):
        shutil.copy(run, run.with_name("other.run"))
        assert "no difference" in here("runs", "diff", "short", "other").out

    def test_any_candidates_program_is_a_file_that_loads(self, here, run, tmp_path):
        for name, words in (("student", STUDENT.signature.instructions), (None, "Tools are tools.")):
            which = [] if name is None else ["--candidate", name]
            assert here("runs", "export", "short", *which, "--out", "p.json").status == 0
            assert load_file("p.json").signature.instructions == words
        assert json.loads((tmp_path / "p.json").read_text())["lineage"]["optimizer"] == "Short"
        assert load_file("p.json").content_hash() == RunView(run).result.program

    def test_a_candidate_that_is_none_is_refused_with_those_there_are(self, here, run):
        ran = here("runs", "export", "short", "--candidate", "x", "--out", "p.json")
        assert (ran.status, "student, told, result, best" in ran.err) == (2, True)
        assert not Path("p.json").exists()

    def test_a_changed_program_is_not_given_out(self, here, run):
        base = sqlite3.connect(run)
        base.execute("UPDATE programs SET state = replace(state, 'Tools', 'Fools')")
        base.commit()
        base.close()
        ran = here("runs", "export", "short", "--out", "p.json")
        assert (ran.status, "was changed" in ran.err) == (2, True)

    @pytest.mark.parametrize("form", ["jsonl", "csv"])
    def test_every_score_is_exported(self, here, run, tmp_path, form):
        assert here("runs", "export", "short", "--format", form, "--out", "scores").status == 0
        lines = (tmp_path / "scores").read_text().splitlines()
        assert len(lines) == 2 * 12 + (form == "csv")
        last = json.loads(lines[-1]) if form == "jsonl" else lines[-1].split(",")
        assert (last["candidate"] if form == "jsonl" else last[0]) == "told"
        assert {path.name for path in tmp_path.iterdir()} == {".otpy", "scores"}

    def test_one_candidates_scores_alone_are_not_asked_for(self, here, run):
        ran = here("runs", "export", "short", "--format", "csv", "--candidate", "told", "--out", "x")
        assert (ran.status, "--candidate" in ran.err) == (2, True)


class TestResume:
    def test_a_run_of_python_code_is_refused_with_what_to_call(self, here, run):
        ran = here("runs", "resume", "short")
        assert ran.status == 2
        assert "Short(…).compile(…, journal=" in ran.err

    def test_a_run_that_belongs_to_watching_is_refused_with_the_option_that_goes_on(self, here, run):
        watched = json.dumps({"source": "s", "watch": "new rows.jsonl", "line": 3, "generation": 1})
        changed(run, "INSERT INTO about (name, value) VALUES ('continual', ?)", watched)
        ran = here("runs", "resume", "short")
        assert ran.status == 2
        assert "the same `otpy optimize … --watch 'new rows.jsonl'` goes on" in ran.err
        assert "{" not in ran.err

    def test_a_command_is_gone_on_with_from_anywhere(self, here, sorting, server, tmp_path, monkeypatch):
        options = ["--data", "train.jsonl", "--set", "max_rounds=2", "--max-demos", "4"]
        capped = here("optimize", *sorting, *options, "--max-requests", "5", "--json").json
        assert (capped["stopped"], len(server.asked)) == ("budget", 5)
        journal = tmp_path / capped["journal"]
        shown = here("runs", "show", journal)
        for words in ("stopped by its budget", "--optimizer bootstrap", "--set max_rounds=2", "--max-requests 5"):
            assert words in shown.out
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir(tmp_path / "elsewhere")
        ran = here("runs", "resume", journal, "--json")
        assert (ran.status, ran.err) == (0, "")
        assert (ran.json["stopped"], len(server.asked)) == ("budget", 5)
        assert Path.cwd() == tmp_path

    def test_where_its_directory_is_gone_that_is_said(self, here, sorting, tmp_path):
        journal = tmp_path / here("optimize", *sorting, "--data", "train.jsonl", "--json").json["journal"]
        base = sqlite3.connect(journal)
        base.execute("UPDATE about SET value = replace(value, ?, '/nowhere') WHERE name = 'command'", (str(tmp_path),))
        base.commit()
        base.close()
        ran = here("runs", "resume", journal)
        assert (ran.status, "/nowhere, in which" in ran.err) == (2, True)

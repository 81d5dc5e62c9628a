"""`otpy optimize --watch` goes on as feedback comes, until Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from otpy.programs import load_file

ROWS = [
    {"word": word, "kind": kind}
    for pair in zip(["apple", "pear", "plum", "fig", "lime", "date"], ["saw", "axe", "file", "rake", "plane", "drill"],
                    strict=True)
    for word, kind in zip(pair, ("fruit", "tool"), strict=True)
]  # fmt: skip
SEARCH = ["--optimizer", "random-search", "--set", "num_candidate_programs=2", "--val", "val.jsonl"]


def lines(rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.fixture
def watched(sorting, environment, tmp_path, server, write):
    """Begin to watch, in a process of its own; there are enough tools to choose by for their gain to be significant."""
    more = [{"word": word, "kind": "tool"} for word in ("spade", "hoe", "awl", "chisel", "pliers", "clamp")]
    write("val.jsonl", lines([*ROWS[1::2], *ROWS[:3:2], *more]))
    begun = []

    def begin(*more):
        often = ["--watch-rows", "4", "--watch-every", "0.05"]
        command = [sys.executable, "-m", "otpy", "optimize", *sorting, *often, *map(str, more)]
        variables = environment | {"OTPY_CACHE__ENABLED": "false"}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        begun.append(subprocess.Popen(command, cwd=tmp_path, env=variables, **pipes))
        return begun[-1]

    yield begin
    for process in begun:
        process.kill()
        process.communicate()


def until(process, word):
    """Read what it says up to a line with this word."""
    said = ""
    for line in process.stderr:
        said += line
        if word in line:
            return said
    raise AssertionError(said)


def wait_for(what):
    for _ in range(600):
        if what():
            return
        time.sleep(0.05)
    raise AssertionError


def test_feedback_makes_better_programs_until_ctrl_c_and_the_same_command_goes_on(watched, tmp_path, server, here):
    feedback = tmp_path / "feedback.jsonl"
    search = [*SEARCH, "--data", "feedback.jsonl", "--watch", "feedback.jsonl", "--out", "current.json"]
    feedback.write_text(lines(ROWS[:3]) + '{"word": "bee", "kind": "animal"}\n')
    process = watched(*search)
    until(process, "left out: feedback.jsonl, line 4")
    assert server.asked == []
    assert load_file(tmp_path / "current.json").demos == ()
    with feedback.open("a") as more:
        more.write(lines(ROWS[3:11]) + json.dumps(ROWS[11])[:-3])
    until(process, "with 11 rows of feedback; rows left out: 1")
    wait_for(lambda: load_file(tmp_path / "current.json").demos)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert "the same command goes on; rows left out: 1, the last is line 4" in err
    assert "saved current.json" in out
    asked = len(server.asked)
    (directory,) = (tmp_path / ".otpy" / "runs").iterdir()
    assert directory.name.startswith("watch-random-search-")
    (found,) = here("runs", "list", "--json").json["runs"]
    assert (found["status"], "watch" in here("runs", "resume", found["run"]).err) == ("done", True)
    with feedback.open("a") as more:
        more.write("\nnot a row\n")
    again = watched(*search)
    until(again, "line 14")  # it has looked at all
    again.send_signal(signal.SIGINT)
    out, _ = again.communicate(timeout=30)
    assert (again.returncode, out) == (130, "")
    assert len(server.asked) == asked


def test_a_watch_that_is_killed_goes_on_and_asks_nothing_twice(watched, tmp_path, server):
    import threading

    (tmp_path / "feedback.jsonl").write_text(lines(ROWS))
    server.held = threading.Event()
    search = [*SEARCH, "--data", "train.jsonl", "--watch", "feedback.jsonl", "--out", "current.json"]
    process = watched(*search, "--max-concurrency", "1")
    assert server.arrived.acquire(timeout=30)
    server.held.set()
    for _ in range(10):
        assert server.arrived.acquire(timeout=30)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    again = watched(*search, "--max-concurrency", "1", "--json")
    wait_for(lambda: load_file(tmp_path / "current.json").demos)
    again.send_signal(signal.SIGINT)
    (generation,) = json.loads(again.communicate(timeout=30)[0])["generations"]
    assert (generation["taken"], generation["better"], generation["stopped"]) == (True, True, "done")
    bodies = [json.dumps(body, sort_keys=True) for body in server.asked]
    assert len(bodies) - len(set(bodies)) <= 1


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--watch", "rows.csv", *SEARCH], ["--watch", "rows.csv", ".jsonl"]),
        (["--watch", "none/f.jsonl", *SEARCH], ["--watch", "none"]),
        (["--watch", "f.jsonl", "--optimizer", "bootstrap"], ["--watch", "bootstrap", "--watch-always"]),
        (["--watch", "f.jsonl", *SEARCH, "--journal", "j"], ["--journal", "--watch"]),
        (["--watch", "f.jsonl", *SEARCH, "--watch-rows", "0"], ["--watch-rows", "0"]),
        (["--watch", "f.jsonl", *SEARCH, "--out", "other.json"], ["other.json", "another program"]),
    ],
    ids=lambda value: " ".join(value)[-40:],
)
def test_what_cannot_be_is_one_line_that_names_it(here, sorting, write, server, *, options, named):
    from otpy.programs import Predict

    Predict("word -> kind: Literal['fruit', 'tool']").with_instructions("Other.").save("other.json")
    ran = here("optimize", *sorting, "--data", "train.jsonl", *options)
    lines = [line for line in ran.err.splitlines() if not line.startswith("watching ")]
    assert (ran.status, len(lines)) == (2, 1), ran.err
    assert [word for word in named if word not in lines[0]] == [], ran.err
    assert server.asked == []

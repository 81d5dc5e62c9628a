"""`otpy cache`: what is remembered is counted and forgotten, by namespace, and never by mistake."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from otpy.clients.cache_store import CacheStore, namespaced
from otpy.lm import LMResponse


@pytest.fixture
def answers(tmp_path):
    """The file that commands of this test's directory use, with some answers in it."""
    path = tmp_path / "cache" / "answers.sqlite"
    keep(path, {"default": 2, "paper": 3})
    return path


def keep(path, counts):
    store = CacheStore(path)
    for namespace, count in counts.items():
        store.disk_put_many({namespaced(f"k{n}", namespace): LMResponse("x" * 500) for n in range(count)})
    store.close()


def kept(path):
    store = CacheStore(path)
    try:
        return store.stats()["namespaces"]
    finally:
        store.close()


def test_stats_tell_what_each_namespace_has_and_how_big_the_file_is(otpy, answers):
    ran = otpy("cache", "stats")
    assert (ran.status, ran.err) == (0, "")
    assert f"{answers}: 5 answers, " in ran.out
    assert "at most 1.1 GB" in ran.out
    assert [line.split() for line in ran.out.splitlines()[-2:]] == [["default", "2"], ["paper", "3"]]


def test_stats_as_json_are_one_object(otpy, answers):
    told = otpy("cache", "stats", "--json", OTPY_CACHE__TTL="60", OTPY_CACHE__NAMESPACE="paper").json
    assert told["namespaces"] == {"default": 2, "paper": 3}
    assert (told["on_disk"], told["path"], told["warning"]) == (5, str(answers), None)
    assert (told["ttl"], told["namespace"]) == (60, "paper")
    assert told["bytes"] > 0


def test_stats_make_no_file(otpy, tmp_path):
    ran = otpy("cache", "stats")
    assert (ran.status, ran.err) == (0, "")
    assert "0 answers, 0 bytes" in ran.out
    assert not (tmp_path / "cache").exists()


def test_the_settings_say_which_file(otpy, write, tmp_path):
    keep(tmp_path / "mine.sqlite", {"default": 1})
    write("otpy.toml", '[cache]\npath = "mine.sqlite"\n')
    assert otpy("cache", "stats", "--json").json["on_disk"] == 1
    assert otpy("cache", "stats", "--json", OTPY_CACHE__PATH="other.sqlite").json["on_disk"] == 0


def test_clear_forgets_one_namespace_or_all(otpy, answers):
    ran = otpy("cache", "clear", "--namespace", "paper", "--yes")
    assert (ran.status, ran.err) == (0, "")
    assert f"forgot 3 answers in {answers}" in ran.out
    assert kept(answers) == {"default": 2}
    assert otpy("cache", "clear", "--yes", "--json").json["cleared"] == 2
    assert kept(answers) == {}
    assert otpy("cache", "clear").status == 0  # there is nothing left to ask about


def test_clear_forgets_nothing_where_nobody_can_be_asked(otpy, answers):
    ran = otpy("cache", "clear")
    assert ran.status == 2
    assert "--yes" in ran.err
    assert f"forget 5 answers in {answers}" in ran.err
    assert len(ran.err.splitlines()) == 1
    assert kept(answers) == {"default": 2, "paper": 3}


def test_a_namespace_that_is_not_there_is_named_beside_those_that_are(otpy, answers):
    ran = otpy("cache", "clear", "--namespace", "papr", "--yes")
    assert ran.status == 2
    assert "'papr'" in ran.err
    assert "default, paper" in ran.err
    assert kept(answers) == {"default": 2, "paper": 3}


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such terminals")
@pytest.mark.parametrize(("typed", "status"), [(b"y\n", 0), (b"n\n", 1)])
def test_on_a_terminal_it_asks(answers, environment, tmp_path, typed, status):
    ours, its = os.openpty()
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", "otpy", "cache", "clear"],
            cwd=tmp_path,
            env=environment,
            stdin=its,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        os.write(ours, typed)
        _, err = process.communicate(timeout=60)
    finally:
        os.close(ours)
        os.close(its)
    assert process.returncode == status, err
    assert b"Forget 5 answers in" in err
    assert kept(answers) == ({} if status == 0 else {"default": 2, "paper": 3})


def test_a_damaged_file_is_set_aside_and_that_is_said(otpy, answers):
    Path(answers).write_bytes(b"SQLite format 3\0" + b"this is no database" * 500)
    ran = otpy("cache", "stats")
    assert (ran.status, ran.err) == (0, "")
    assert "0 answers" in ran.out
    assert "it is kept as answers.sqlite.corrupt-1" in ran.out


def test_a_file_of_another_kind_is_not_touched_by_looking_at_it(otpy, answers):
    Path(answers).write_bytes(b"my notes")
    for command in (["stats"], ["clear", "--yes"]):
        ran = otpy("cache", *command)
        assert (ran.status, ran.out) == (1, "")
        assert "is no cache file" in ran.err
    assert Path(answers).read_bytes() == b"my notes"


def test_a_file_that_cannot_be_used_is_one_line(otpy, tmp_path):
    (tmp_path / "cache" / "answers.sqlite").mkdir(parents=True)
    for command in (["stats"], ["clear", "--yes"]):
        ran = otpy("cache", *command)
        assert ran.status == 1
        assert "answers.sqlite cannot be used" in ran.err
        assert len(ran.err.splitlines()) == 1


def test_without_a_file_there_is_nothing_to_count(otpy):
    ran = otpy("cache", "stats", OTPY_CACHE__DISK="false")
    assert ran.status == 2
    assert "cache.disk=False" in ran.err


def test_the_help_shows_examples(otpy):
    assert "otpy cache stats --json" in otpy("cache", "stats", "--help").out
    assert "otpy cache clear --namespace paper" in otpy("cache", "clear", "--help").out
    assert "stats" in otpy("cache").out

"""Answers in memory and in a file: what comes back, who may share the file, and what a bad disk costs."""

import os
import sqlite3
import subprocess
import sys
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otpy.clients.cache_store import CacheStore
from otpy.lm import LMResponse, Usage

ANSWER = LMResponse("hello", "m", "length", Usage(10, 4, 6, 3, 1))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "below" / "answers.sqlite"


@pytest.fixture
def store(path):
    store = CacheStore(path)
    yield store
    store.close()


def kept(path, **answers):
    store = CacheStore(path)
    store.disk_put_many(answers)
    assert store.warning is None
    store.close()


def found(path, *keys):
    store = CacheStore(path)
    try:
        return store.disk_get_many(keys)
    finally:
        store.close()


# -- memory -----------------------------------------------------------------------------------------------------------


def test_an_answer_comes_back_marked_as_cached_with_what_it_once_cost():
    store = CacheStore(None)
    store.memory_put("key", ANSWER)
    answer = store.memory_get("key")
    assert (answer.text, answer.model, answer.finish_reason, answer.usage) == ("hello", "m", "length", ANSWER.usage)
    assert answer.cached
    assert not ANSWER.cached
    assert store.memory_get("other") is None


def test_the_least_recently_used_answer_goes_first():
    store = CacheStore(None, max_memory_entries=2)
    for key in ("a", "b"):
        store.memory_put(key, ANSWER)
    store.memory_get("a")
    store.memory_put("c", ANSWER)
    assert [key for key in "abc" if store.memory_get(key)] == ["a", "c"]
    assert len(store) == 2


def test_without_a_file_nothing_is_written_and_nothing_warned_of():
    store = CacheStore(None)
    store.disk_put_many({"key": ANSWER})
    assert store.disk_get_many(["key"]) == {}
    assert not store.has_disk
    assert store.stats()["warning"] is None


def test_the_memory_may_be_read_while_another_thread_fills_it(path):
    """A reader between the look-up and the touch must not meet an answer that has just been pushed out."""
    kept(path, **{f"k{n}": ANSWER for n in range(400)})
    store, ends = CacheStore(path, max_memory_entries=200), time.monotonic() + 0.5
    faults = []

    def fill():
        while time.monotonic() < ends:
            store.disk_get_many(f"k{n}" for n in range(400))

    def read():
        try:
            while time.monotonic() < ends:
                for n in range(400):
                    store.memory_get(f"k{n}")
        except KeyError as fault:
            faults.append(fault)

    threads = [threading.Thread(target=target) for target in (fill, read, read)]
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
        store.close()
    assert faults == []
    assert len(store) <= 200


# -- disk -------------------------------------------------------------------------------------------------------------


def test_the_file_outlives_the_process_and_what_is_read_is_in_memory(path, store):
    kept(path, key=ANSWER)
    assert store.memory_get("key") is None
    answers = store.disk_get_many(["key", "other"])
    assert answers.keys() == {"key"}
    assert answers["key"] == LMResponse("hello", "m", "length", ANSWER.usage, cached=True)
    assert store.memory_get("key") == answers["key"]
    assert (store.hits, store.misses) == (2, 2 - 1)


def test_thousands_of_keys_are_looked_up_at_once(path):
    kept(path, **{f"k{n}": ANSWER for n in range(3_000)})
    assert len(found(path, *(f"k{n}" for n in range(5_000)))) == 3_000


def test_an_answer_is_replaced_by_a_newer_one(path):
    kept(path, key=ANSWER)
    kept(path, key=LMResponse("newer"))
    assert found(path, "key")["key"].text == "newer"


@given(text=st.text(), model=st.text(), counts=st.lists(st.integers(0, 2**60), min_size=5, max_size=5))
def test_whatever_a_model_says_is_kept_as_it_was(tmp_path_factory, text, model, counts):
    path = tmp_path_factory.mktemp("cache") / "answers.sqlite"
    kept(path, key=LMResponse(text + "\ud800", model, "stop", Usage(*counts)))
    assert found(path, "key")["key"] == LMResponse(text + "\ud800", model, "stop", Usage(*counts), cached=True)


def test_clearing_forgets_memory_and_disk_and_says_how_much(path, store):
    store.disk_put_many({"a": ANSWER, "b": ANSWER})
    store.memory_put("a", ANSWER)
    assert store.clear() == 2
    assert store.memory_get("a") is None
    assert found(path, "a", "b") == {}


def test_the_counts_and_the_size_are_told(path, store):
    store.disk_put_many({"a": ANSWER})
    told = store.stats()
    assert told["path"] == str(path)
    assert (told["on_disk"], told["in_memory"], told["warning"]) == (1, 0, None)
    assert told["bytes"] > 0


WRITER = """
import sys
from pathlib import Path
from otpy.clients.cache_store import CacheStore
from otpy.lm import LMResponse
sys.stdin.readline()
store = CacheStore(Path(sys.argv[1]))
for n in range(100):
    store.disk_put_many({f"{sys.argv[2]}-{n}": LMResponse(str(n))})
    store.disk_get_many([f"{other}-{n}" for other in range(4)])
print(store.warning)
store.close()
"""


def test_several_processes_write_one_file_and_nothing_is_lost(path):
    path.parent.mkdir()
    environ = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path), str(number)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environ,
        )
        for number in range(4)
    ]
    for writer in writers:
        writer.stdin.write("go\n")
        writer.stdin.flush()
    assert [writer.communicate(timeout=60)[0].strip() for writer in writers] == ["None"] * 4
    assert len(found(path, *(f"{number}-{n}" for number in range(4) for n in range(100)))) == 400


# -- a bad disk costs the disk, never an answer -----------------------------------------------------------------------


@pytest.mark.parametrize("junk", [b"this is no database" * 100, b"SQLite format 3\0" + b"\xff" * 5_000])
def test_a_file_that_is_no_database_is_set_aside_and_a_fresh_one_made(path, store, junk):
    path.parent.mkdir()
    path.write_bytes(junk)
    store.disk_put_many({"key": ANSWER})
    assert path.with_name("answers.sqlite.corrupt-1").read_bytes() == junk
    assert "was damaged" in store.warning
    assert "answers.sqlite.corrupt-1" in store.warning
    assert found(path, "key")["key"].text == "hello"


def test_a_second_damaged_file_does_not_replace_the_first_one_set_aside(path):
    path.parent.mkdir()
    for number in (1, 2):
        path.write_bytes(b"junk number %d" % number * 100)
        store = CacheStore(path)
        assert store.disk_get_many(["key"]) == {}
        store.close()
    assert b"number 1" in path.with_name("answers.sqlite.corrupt-1").read_bytes()
    assert b"number 2" in path.with_name("answers.sqlite.corrupt-2").read_bytes()


def test_damage_in_the_middle_of_the_work_is_survived_too(path, store):
    store.disk_put_many({f"k{n}": LMResponse("x" * 1_000) for n in range(200)})
    store.close()
    damaged = bytearray(path.read_bytes())
    damaged[4096:] = b"\xff" * (len(damaged) - 4096)
    path.write_bytes(damaged)
    store.disk_get_many(f"k{n}" for n in range(200))
    store.disk_put_many({"after": ANSWER})
    assert "was damaged" in store.warning
    assert found(path, "after")["after"].text == "hello"


def test_of_two_processes_that_find_the_damage_the_second_takes_the_firsts_new_file(path):
    kept(path, **{f"k{n}": LMResponse("x" * 1_000) for n in range(200)})
    first, second = CacheStore(path), CacheStore(path)
    second.disk_get_many(["k0"])  # has the damaged file open
    with path.open("r+b") as file:
        file.write(b"junk" * 2_000)
    first.disk_put_many({"new": ANSWER})
    second.disk_put_many({"newer": ANSWER})
    first.close()
    second.close()
    assert [file.name for file in path.parent.glob("*corrupt*")] == ["answers.sqlite.corrupt-1"]
    assert found(path, "new", "newer").keys() == {"new", "newer"}


def test_another_otpys_file_is_left_as_it_is(path, store):
    path.parent.mkdir()
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE answers (something TEXT)")
        connection.execute("PRAGMA user_version=99")
    connection.close()
    before = path.read_bytes()
    store.disk_put_many({"key": ANSWER})
    assert "schema version 99" in store.warning
    assert not store.has_disk
    assert path.read_bytes() == before
    assert list(path.parent.glob("*corrupt*")) == []


@pytest.mark.parametrize(
    "row",
    [
        "not json",
        "[]",
        "{}",
        '{"text": 1, "model": "", "finish_reason": "", "usage": [0, 0, 0, 0, 0]}',
        '{"text": "", "model": "", "finish_reason": "", "usage": ["0"]}',
        '{"text": "", "model": "", "finish_reason": "", "usage": [0, 0, 0, 0, 0, 0, 0]}',
        "[" * 100_000,
    ],
)
def test_a_row_that_is_no_answer_is_a_miss(path, row):
    kept(path, good=ANSWER)
    with sqlite3.connect(path) as connection:
        connection.execute("INSERT INTO answers (key, namespace, written, answer) VALUES ('bad', 'x', 0, ?)", (row,))
    connection.close()
    assert found(path, "bad", "good").keys() == {"good"}


def test_a_place_that_cannot_be_written_costs_the_disk_and_is_said_once(tmp_path):
    (tmp_path / "file").write_text("in the way")
    store = CacheStore(tmp_path / "file" / "answers.sqlite")
    store.memory_put("key", ANSWER)
    store.disk_put_many({"key": ANSWER})
    warning = store.warning
    assert "remembered in memory only" in warning
    assert str(tmp_path / "file") in warning
    assert store.disk_get_many(["key"]) == {}
    assert store.warning is warning
    assert store.memory_get("key").text == "hello"
    assert store.stats()["bytes"] is None


def test_a_full_disk_costs_the_disk_and_no_answer(path, store):
    store.disk_put_many({"early": ANSWER})
    connection = store._file._connection
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    connection.execute(f"PRAGMA max_page_count={pages}").fetchall()
    big = {f"k{n}": LMResponse("x" * 10_000) for n in range(10)}
    for key, answer in big.items():
        store.memory_put(key, answer)
    store.disk_put_many(big)
    assert "full" in store.warning
    assert not store.has_disk
    assert all(store.memory_get(key) for key in big)
    assert store.stats()["on_disk"] is None
    assert found(path, "early").keys() == {"early"}


def test_a_disk_that_fails_while_it_is_counted_is_told(path, store):
    path.mkdir(parents=True)
    told = store.stats()
    assert "cannot be used" in told["warning"]
    assert told["path"] is None

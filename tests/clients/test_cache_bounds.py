"""What a cache may hold: for how long, how much, whose; what becomes of an older file, and of a disk that is full."""

import os
import sqlite3
import subprocess
import sys
import threading
from dataclasses import replace

import pytest

from otpy.clients.cache_store import CacheStore, namespaced
from otpy.lm import Choice, FrozenJSON, LMResponse, Reasoning, Text, TokenLogprob, ToolUse, Usage
from otpy.telemetry import bus

ANSWER = LMResponse("hello", "m", "length", Usage(10, 4, 6, 3, 1))
RICH = LMResponse(
    "Par",
    "m",
    "tool_use",
    Usage(1, 2, 1, 1, 1, 0),
    parts=(Reasoning("hm", "sig", "r1"), Text("Par"), ToolUse("1", "f", FrozenJSON.of({"a": 1}))),
    logprobs=(TokenLogprob("Par", -0.5, (("Lon", -1.5),)),),
    others=(Choice("Lon", "stop", (Text("Lon"),)),),
    id="req_1",
)


class Clock:
    now = 1_000_000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "answers.sqlite"


@pytest.fixture
def opened(path):
    """Opens stores on the file, and closes them."""
    stores = []

    def store(where=path, **bounds):
        stores.append(CacheStore(where, **bounds))
        return stores[-1]

    yield store
    for one in stores:
        one.close()


def big(text="x", size=1_000):
    return LMResponse(text * size)


def test_nothing_of_an_answer_is_lost_in_memory_or_on_disk(opened):
    store = opened()
    store.memory_put("key", RICH)
    assert store.memory_get("key") == replace(RICH, cached=True)
    store.disk_put_many({"key": RICH})
    assert opened().disk_get_many(["key"])["key"] == replace(RICH, cached=True)


# -- how long ---------------------------------------------------------------------------------------------------------


def test_an_expired_answer_is_a_miss_in_memory_and_on_disk(opened, clock):
    store = opened(ttl=60.0, clock=clock)
    store.memory_put("key", ANSWER)
    store.disk_put_many({"key": ANSWER})
    clock.now += 59.9
    assert store.memory_get("key") is not None
    assert opened(ttl=60.0, clock=clock).disk_get_many(["key"])
    clock.now += 0.1
    assert store.memory_get("key") is None
    assert store.disk_get_many(["key"]) == {}
    assert len(store) == 0


def test_an_answer_read_from_disk_is_as_old_in_memory_as_it_was_there(opened, clock):
    opened(clock=clock).disk_put_many({"key": ANSWER})
    store = opened(ttl=60.0, clock=clock)
    clock.now += 40
    assert store.disk_get_many(["key"])
    clock.now += 30
    assert store.memory_get("key") is None


def test_expired_answers_are_swept_from_the_file_but_not_anothers(opened, clock):
    mine, other = {namespaced(f"k{n}", "mine"): ANSWER for n in range(5)}, {namespaced("k", "other"): ANSWER}
    store = opened(ttl=60.0, namespace="mine", clock=clock)
    store.disk_put_many(mine | other)
    clock.now += 61
    store.disk_put_many({namespaced("new", "mine"): ANSWER})
    assert store.stats()["namespaces"] == {"mine": 1, "other": 1}


def test_without_a_ttl_nothing_grows_old(opened, clock):
    store = opened(clock=clock)
    store.memory_put("key", ANSWER)
    store.disk_put_many({"key": ANSWER})
    clock.now += 1e9
    assert store.memory_get("key") is not None
    assert opened(clock=clock).disk_get_many(["key"])


def test_a_clock_that_was_set_back_expires_nothing(opened, clock):
    store = opened(ttl=60.0, clock=clock)
    store.disk_put_many({"key": ANSWER})
    clock.now -= 1e6
    assert store.disk_get_many(["key"])
    store.disk_put_many({"other": ANSWER})
    assert store.stats()["on_disk"] == 2


# -- whose ------------------------------------------------------------------------------------------------------------


def test_namespaces_are_counted_and_cleared_apart(opened):
    store = opened()
    for namespace in ("default", "paper"):
        answers = {namespaced(f"k{n}", namespace): ANSWER for n in range(3)}
        store.disk_put_many(answers)
        for key, answer in answers.items():
            store.memory_put(key, answer)
    assert store.stats()["namespaces"] == {"default": 3, "paper": 3}
    assert store.clear("paper") == 3
    assert store.clear("paper") == 0
    assert store.memory_get(namespaced("k0", "paper")) is None
    assert store.memory_get("k0") is not None
    assert store.stats()["namespaces"] == {"default": 3}
    assert store.clear() == 3


# -- how much ---------------------------------------------------------------------------------------------------------

LIMIT = 1_000_000


def test_the_file_stays_within_its_bound_and_the_least_recently_used_go_first(opened, path, clock):
    store = opened(max_bytes=LIMIT, clock=clock)
    for batch in range(90):
        clock.now += 1
        store.disk_put_many({f"{batch}-{n}": big() for n in range(20)})
        assert store.disk_get_many(["0-0"]), "it is used all the time"
        assert path.stat().st_size <= LIMIT
    assert store.evicted > 0
    assert store.warning is None
    kept = {n for n in range(90) if store.disk_get_many([f"{n}-5"])}
    assert kept == set(range(min(kept), 90))  # the newest, and all of them
    told = store.stats()
    assert told["on_disk"] * 1_000 > LIMIT * 0.5
    assert told["max_bytes"] == LIMIT


def test_what_is_used_from_memory_alone_counts_as_used(opened, clock):
    store = opened(max_bytes=LIMIT, clock=clock)
    store.disk_put_many({"used": big()})
    store.memory_put("used", big())
    for batch in range(90):
        clock.now += 1
        assert store.memory_get("used")
        store.disk_put_many({f"{batch}-{n}": big() for n in range(20)})
    assert opened(clock=clock).disk_get_many(["used"])


def test_what_was_used_last_is_known_to_the_next_process(opened, clock):
    first = opened(max_bytes=LIMIT, clock=clock)
    first.disk_put_many({f"k{n}": big() for n in range(300)})
    first.close()
    clock.now += 10
    reader = opened(max_bytes=LIMIT, clock=clock)
    reader.disk_get_many(f"k{n}" for n in range(50))
    reader.close()
    clock.now += 10
    writer = opened(max_bytes=LIMIT, clock=clock)
    writer.disk_put_many({f"new{n}": big() for n in range(450)})
    assert writer.evicted > 0
    assert len(writer.disk_get_many(f"k{n}" for n in range(50))) == 50


def test_a_bound_that_was_lowered_shrinks_the_file(opened, path):
    store = opened()
    store.disk_put_many({f"k{n}": big() for n in range(3_000)})
    assert path.stat().st_size > 2 * LIMIT or store._file.size() > 2 * LIMIT
    store.retune(max_memory_entries=10, max_bytes=LIMIT, ttl=None, namespace="default")
    store.disk_put_many({"one": ANSWER})
    store.close()
    assert path.stat().st_size <= LIMIT


def test_an_answer_that_would_push_out_all_others_is_not_written(opened):
    store = opened(max_bytes=LIMIT)
    store.disk_put_many({"small": ANSWER})
    store.disk_put_many({"huge": big(size=LIMIT)})
    assert store.disk_get_many(["small", "huge"]).keys() == {"small"}


def test_an_answer_given_anew_takes_no_more_room(opened):
    store = opened()
    for _ in range(50):
        store.disk_put_many({"key": ANSWER})
    with sqlite3.connect(store.path) as connection:
        counts = [connection.execute(f"SELECT count(*) FROM {table}").fetchone() for table in ("answers", "uses")]
    connection.close()
    assert counts == [(1,), (1,)]


def test_to_write_below_the_bound_reads_no_table(opened):
    """Cheap: what a write needs to know of the file's size is in its header."""
    store = opened(max_bytes=10**9)
    store.disk_put_many({f"k{n}": ANSWER for n in range(100)})
    seen = []
    store._file._connection.set_trace_callback(seen.append)
    store.disk_put_many({"key": ANSWER})
    store._file._connection.set_trace_callback(None)
    assert not [statement for statement in seen if "ORDER BY" in statement or "count(" in statement]
    assert "PRAGMA page_count" in seen


def test_clearing_gives_the_disk_back(opened, path):
    store = opened()
    store.disk_put_many({f"k{n}": big() for n in range(1_000)})
    store.clear()
    assert store._file.size() < 100_000
    assert path.stat().st_size < 100_000


# -- an older file ----------------------------------------------------------------------------------------------------


def version_1(path, answers):
    """A file as the first versions of otpy wrote it."""
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("CREATE TABLE answers (key TEXT PRIMARY KEY, answer TEXT NOT NULL)")
    connection.execute("PRAGMA user_version=1")
    connection.executemany("INSERT INTO answers VALUES (?, ?)", answers.items())
    connection.commit()
    connection.close()


OLD = '{"text": "old", "model": "m", "finish_reason": "stop", "usage": [1, 2, 0, 0, 1]}'


def test_an_older_file_is_brought_up_to_date_and_that_is_told(opened, path, clock):
    version_1(path, {f"k{n}": OLD for n in range(200)})
    seen = []
    with bus.attached("test", lambda event, fields: seen.append((event, fields)), "otpy.cache."):
        store = opened(max_bytes=LIMIT, ttl=60.0, clock=clock)
        assert store.disk_get_many(["k7"])["k7"].text == "old"
    assert seen == [("otpy.cache.migrated", {"path": str(path), "answers": 200, "schema": 2})]
    assert store.stats()["namespaces"] == {"default": 200}
    clock.now += 61  # counted from the day it was brought up to date: it says nothing of its age
    assert store.disk_get_many(["k8"]) == {}
    assert store.warning is None


def test_several_that_find_an_older_file_bring_it_up_to_date_once(path):
    version_1(path, {f"k{n}": OLD for n in range(2_000)})
    stores, found = [CacheStore(path) for _ in range(4)], []
    threads = [
        threading.Thread(target=lambda store=store: found.append(store.disk_get_many(["k1", "k1999"])))
        for store in stores
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    for store in stores:
        store.close()
    assert [(len(one), store.warning) for one, store in zip(found, stores, strict=True)] == [(2, None)] * 4


def test_a_file_that_its_maker_left_half_made_is_finished(opened, path):
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE answers (key TEXT PRIMARY KEY, answer TEXT NOT NULL)")
    connection.close()
    store = opened()
    store.disk_put_many({"key": ANSWER})
    assert store.warning is None
    assert opened().disk_get_many(["key"])


def test_somebody_elses_database_is_left_as_it_is(opened, path):
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE answers (question TEXT, points INTEGER)")
    connection.execute("INSERT INTO answers VALUES ('2 + 2', 4)")
    connection.commit()
    connection.close()
    store = opened()
    store.disk_put_many({"key": ANSWER})
    assert "cannot be used" in store.warning
    connection = sqlite3.connect(path)
    assert connection.execute("SELECT * FROM answers").fetchall() == [("2 + 2", 4)]
    connection.close()


# -- a disk that is full ----------------------------------------------------------------------------------------------

FULL = """
import json, resource, sys
from pathlib import Path
from otpy.clients.cache_store import CacheStore
from otpy.lm import LMResponse
resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000))  # no file may grow beyond it
store = CacheStore(Path(sys.argv[1]))
for n in range(100):
    answers = {f"{n}-{m}": LMResponse("x" * 2_000) for m in range(20)}
    for key, answer in answers.items():
        store.memory_put(key, answer)
    store.disk_put_many(answers)
found = sum(store.memory_get(f"{n}-{m}") is not None for n in range(100) for m in range(20))
print(json.dumps([store.has_disk, store.warning, found]))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such limits")
def test_a_disk_that_is_full_costs_the_disk_and_no_answer(opened, path):
    ran = subprocess.run(
        [sys.executable, "-c", FULL, str(path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    import json

    has_disk, warning, found = json.loads(ran.stdout)
    assert (has_disk, found) == (False, 2_000)
    assert "answers are remembered in memory only" in warning
    store = opened()
    assert store.disk_get_many(["0-0"]), "what was written before is whole"
    assert store.warning is None

"""The journal of a run: what is in it is on disk, and a file that is not its journal is left as it is."""

import asyncio
import json
import sqlite3
from decimal import Decimal

import pytest

from otpy.clients.taping import Tape
from otpy.errors import LMConnectionError, LMContextWindowExceeded, LMRefusal, TeleprompterError
from otpy.lm import LMResponse, Usage
from otpy.teleprompters.run_journal import RunJournal, Spent

HEADER = {"optimizer": "X", "student": "abc", "data": "def", "params": {"k": 3}}
ANSWER = LMResponse("four", "m", usage=Usage(7, 2))


def journal(path, header=HEADER):
    return RunJournal(path, header)


async def kept(shelf, *keys):
    for key in keys:
        await shelf.keep(key, ANSWER)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "runs" / "one.journal"


class TestWhatIsKept:
    def test_an_answer_is_the_same_when_it_is_read_again_what_it_took_included(self, path):
        with journal(path) as shelf:
            asyncio.run(kept(shelf, "a"))
        with journal(path) as shelf:
            assert shelf.found("a") == ANSWER
            assert shelf.found("b") is None

    def test_an_answer_out_of_the_cache_stays_one(self, path):
        answer = LMResponse("four", "m", usage=Usage(7, 2), cached=True)
        with journal(path) as shelf:
            asyncio.run(shelf.keep("a", answer))
            assert shelf.found("a") == answer

    @pytest.mark.parametrize("kind", [LMRefusal, LMContextWindowExceeded])
    def test_a_refusal_is_an_answer(self, path, kind):
        error = kind("no", client="c", model="m", status=400, body="told")
        with journal(path) as shelf:
            asyncio.run(shelf.keep("a", error))
        with journal(path) as shelf:
            found = shelf.found("a")
        assert type(found) is kind
        assert (str(found), found.client, found.status, found.body) == ("no", "c", 400, "told")

    def test_trials_stay_in_the_order_in_which_they_were_first_made(self, path):
        async def tell(shelf):
            for name in ("student", "b", "student"):
                await shelf.tell(name, {"score": len(name)}, (name, {"state": 1}))

        with journal(path) as shelf:
            asyncio.run(tell(shelf))
            assert [(trial["name"], trial["score"]) for trial in shelf.trials()] == [("student", 7), ("b", 1)]
            assert shelf.program("b") == {"state": 1}

    def test_what_all_parts_have_taken_is_a_sum(self, path):
        for part in (Spent(3, 30, Decimal("0.1")), Spent(2, 20, Decimal("0.2"))):
            with journal(path) as shelf:
                shelf.spending = lambda part=part: part
                asyncio.run(kept(shelf, "a", "b"))
        with journal(path) as shelf:
            assert shelf.spent() == Spent(5, 50, Decimal("0.3"))

    def test_what_was_in_flight_at_a_kill_counts_as_others_in_the_mean(self, path):
        async def killed(shelf):
            shelf.spending = lambda: Spent(4, 100, Decimal("0.4"))
            for _ in range(3):
                await shelf.begin()
            shelf.end()
            await shelf.keep("a", ANSWER)

        with journal(path) as shelf:
            asyncio.run(killed(shelf))
        with journal(path) as shelf:
            assert shelf.spent() == Spent(6, 150, Decimal("0.60"))

    def test_what_is_over_is_in_flight_no_more_and_neither_is_what_was_not_begun(self, path):
        async def main(shelf):
            await shelf.begin()
            shelf.end()
            waiting = asyncio.create_task(shelf.begin())
            await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            await shelf.note("status", "done")

        with journal(path) as shelf:
            asyncio.run(main(shelf))
        with journal(path) as shelf:
            assert shelf.spent() == Spent()

    @pytest.mark.parametrize("suffix", ["", "-wal"])
    @pytest.mark.parametrize("replaced", [False, True])
    def test_nothing_is_kept_in_a_file_that_is_no_longer_there(self, path, suffix, replaced):
        file = path.with_name(path.name + suffix)
        with journal(path) as shelf:
            asyncio.run(kept(shelf, "a"))
            copy = file.read_bytes()
            file.unlink()
            if replaced:
                path.with_name("other").touch()  # so that it does not get the same number
                file.write_bytes(copy)
            with pytest.raises(TeleprompterError, match=f"journal: {file.name} was removed or replaced during its run"):
                asyncio.run(kept(shelf, "b"))
            with pytest.raises(TeleprompterError, match="was removed or replaced"):
                shelf.found("a")
            assert "put a copy of the journal there" in str(shelf.problem)

    def test_a_journal_behind_a_link_is_looked_at_where_it_is(self, path):
        path.parent.mkdir()
        link = path.with_name("link")
        link.symlink_to(path)
        with journal(link) as shelf:
            asyncio.run(kept(shelf, "a"))
            path.unlink()
            with pytest.raises(TeleprompterError, match="link was removed"):
                asyncio.run(kept(shelf, "b"))

    def test_a_byte_of_an_answer_that_has_changed_is_noticed(self, path):
        with journal(path) as shelf:
            asyncio.run(kept(shelf, "a"))
        with sqlite3.connect(path) as base:
            base.execute("UPDATE answers SET answer = replace(answer, 'four', 'five')")
        base.close()
        with journal(path) as shelf, pytest.raises(TeleprompterError, match="does not match its checksum"):
            shelf.found("a")

    def test_by_a_link_it_is_the_same_one(self, path, tmp_path):
        link = tmp_path / "link.journal"
        with journal(path):
            link.symlink_to(path)
            with pytest.raises(TeleprompterError, match="in use"):
                journal(link)

    def test_what_waits_to_be_written_when_it_is_closed_is_written(self, path):
        async def main(shelf):
            tasks = [asyncio.ensure_future(shelf.keep(str(n), ANSWER)) for n in range(5)]
            await asyncio.sleep(0)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            shelf.close()

        asyncio.run(main(journal(path)))
        with journal(path) as shelf:
            assert all(shelf.found(str(n)) == ANSWER for n in range(5))


class TestAFileThatIsNotItsJournal:
    def refused(self, path, match, header=HEADER):
        before = path.read_bytes()
        with pytest.raises(TeleprompterError, match=match):
            journal(path, header)
        assert path.read_bytes() == before

    @pytest.mark.parametrize("name", ["optimizer", "student", "data", "params"])
    def test_that_of_another_run_is_refused_with_what_differs(self, path, name):
        journal(path).close()
        self.refused(path, f"something else .{name}: .* there, 'other' now", {**HEADER, name: "other"})

    def test_that_of_another_version_is_refused(self, path):
        journal(path).close()
        with sqlite3.connect(path) as base:
            base.execute("UPDATE about SET value = '99' WHERE name = 'schema'")
        base.close()
        self.refused(path, "a journal of version 99; choose another path, or remove")

    def test_another_database_is_left_as_it_is(self, tmp_path):
        path = tmp_path / "mine.db"
        with sqlite3.connect(path) as base:
            base.execute("CREATE TABLE poems (text)")
        base.close()
        self.refused(path, "is no journal of a run, and is left as it is")

    def test_a_text_file_is_left_as_it_is(self, tmp_path):
        path = tmp_path / "notes.txt"
        path.write_text("x" * 5000)
        self.refused(path, "file is not a database; choose another path")

    def test_a_directory_is_refused(self, tmp_path):
        there = tmp_path / "there"
        there.mkdir()
        with pytest.raises(TeleprompterError, match="Is a directory; choose another path"):
            journal(there)
        assert list(tmp_path.iterdir()) == [there]

    def test_a_header_that_cannot_be_read_is_damage(self, path):
        journal(path).close()
        with sqlite3.connect(path) as base:
            base.execute("UPDATE about SET value = 'nonsense' WHERE name = 'header'")
        base.close()
        self.refused(path, "is damaged")

    def test_one_in_use_is_refused_and_free_when_it_is_closed(self, path):
        with journal(path), pytest.raises(TeleprompterError, match="is in use: another run writes this journal"):
            journal(path)
        journal(path).close()

    def test_an_empty_file_becomes_one(self, path):
        path.parent.mkdir()
        path.touch()
        with journal(path) as shelf:
            assert shelf.about("header") == HEADER


class TestWhatCannotBeKept:
    def test_a_full_disk_is_told_to_whoever_asked_and_to_all_who_ask_later(self, path):
        async def main(shelf):
            await shelf.keep("a", ANSWER)
            shelf._base.execute("PRAGMA max_page_count = 12")
            for number in range(50):
                await shelf.keep(str(number), LMResponse("x" * 2000))

        with journal(path) as shelf:
            with pytest.raises(TeleprompterError, match=r"cannot be written: .*full; what is in it counts"):
                asyncio.run(main(shelf))
            with pytest.raises(TeleprompterError, match="cannot be written"):
                shelf.found("a")
        with journal(path) as shelf:
            assert shelf.found("a") == ANSWER

    @pytest.mark.parametrize("data", ["nonsense", "{}", "[]", json.dumps({"error": "KeyError", "message": ""})])
    def test_a_damaged_answer_is_an_error_and_never_another_answer(self, path, data):
        with journal(path) as shelf:
            asyncio.run(kept(shelf, "a"))
        with sqlite3.connect(path) as base:
            base.execute("UPDATE answers SET answer = ?", (data,))
        base.close()
        with journal(path) as shelf, pytest.raises(TeleprompterError, match="is damaged"):
            shelf.found("a")

    def test_writing_after_the_end_is_an_error_and_hangs_nobody(self, path):
        shelf = journal(path)
        shelf.close()
        shelf.close()
        with pytest.raises(TeleprompterError, match="is closed"):
            asyncio.run(asyncio.wait_for(shelf.keep("a", ANSWER), 5))


class TestTheTape:
    def run(self, main):
        with journal(None) as shelf:
            return asyncio.run(main(Tape(shelf)))

    def test_equal_questions_at_once_are_one(self):
        asked = []

        async def ask():
            asked.append(1)
            await asyncio.sleep(0)
            return ANSWER

        async def main(tape):
            return await asyncio.gather(*(tape.answer("a", ask) for _ in range(9)))

        assert self.run(main) == [ANSWER] * 9
        assert len(asked) == 1

    def test_whoever_waits_asks_itself_if_the_one_who_asked_is_cancelled_or_fails(self):
        async def main(tape):
            first = asyncio.ensure_future(tape.answer("a", lambda: asyncio.sleep(60, ANSWER)))
            await asyncio.sleep(0)
            second = asyncio.ensure_future(tape.answer("a", fails))
            third = asyncio.ensure_future(tape.answer("a", lambda: asyncio.sleep(0, ANSWER)))
            await asyncio.sleep(0)
            first.cancel()
            return await asyncio.gather(first, second, third, return_exceptions=True)

        async def fails():
            raise LMConnectionError("down")

        first, second, third = self.run(main)
        assert isinstance(first, asyncio.CancelledError)
        assert isinstance(second, LMConnectionError)
        assert third == ANSWER

    def test_whoever_waits_can_be_cancelled_alone(self):
        async def main(tape):
            first = asyncio.ensure_future(tape.answer("a", lambda: asyncio.sleep(0.01, ANSWER)))
            await asyncio.sleep(0)
            second = asyncio.ensure_future(tape.answer("a", lambda: asyncio.sleep(0, ANSWER)))
            await asyncio.sleep(0)
            second.cancel()
            return await asyncio.gather(first, second, return_exceptions=True)

        first, second = self.run(main)
        assert first == ANSWER
        assert isinstance(second, asyncio.CancelledError)

    def test_a_refusal_is_kept_and_an_outage_is_not(self):
        errors = [LMConnectionError("down"), LMRefusal("never")]

        async def ask():
            raise errors.pop(0)

        async def main(tape):
            return [await asyncio.gather(tape.answer("a", ask), return_exceptions=True) for _ in range(4)]

        assert [type(error) for (error,) in self.run(main)] == [LMConnectionError, LMRefusal, LMRefusal, LMRefusal]
        assert not errors

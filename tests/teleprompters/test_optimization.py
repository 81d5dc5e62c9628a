"""A run of an optimizer: what can be done to it, what comes of it, and what is refused before anything is touched."""

import asyncio
import functools
import json
import signal
import sqlite3
import threading
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import pytest

import otpy
from otpy.actors import KILL
from otpy.errors import BudgetExceeded, EvaluationError, LMAuthError, LMConnectionError, TeleprompterError
from otpy.programs.lineage import lineage_of
from otpy.teleprompters import Teleprompter
from otpy.teleprompters.outcome import front, outcome_of
from otpy.teleprompters.run_journal import RunJournal
from otpy.teleprompters.run_view import RunView
from otpy.testing import FakeProvider, Fault, LoopbackLM, Say, Scripted, run_in_virtual_time

ROWS = [otpy.Example(number=n, parity="odd" if n % 2 else "even") for n in range(16)]
METRIC = otpy.exact_match("parity")
STUDENT = otpy.Predict("number: int -> parity: Literal['even', 'odd']")
WISE = {"be right": 16, "be better": 12, "be bad": 2}
"""How many of the numbers, from 0, an instruction makes the model know."""


class Best(Teleprompter[otpy.Predict]):
    """The smallest search there is: measures instructions, and takes the best."""

    uses_valset = True

    def __init__(self, metric=METRIC, *, instructions=("be bad", "be better", "be right"), seed=0, max_concurrency=4):
        self.metric, self.instructions, self.seed, self.max_concurrency = metric, instructions, seed, max_concurrency

    async def search(self, lab, student, trainset, valset, teacher):
        for text in self.instructions:
            program = student.with_instructions(text)
            await lab.candidate(text, await lab.evaluate(program, list(enumerate(valset))), text=text)
        return lab.best.program


def asked(body):
    return int(body["messages"][-1]["content"].split()[-1])


def model(body):
    """Knows as many numbers as its instructions let it."""
    system = body["messages"][0]["content"]
    known = next((count for text, count in WISE.items() if text in system), 6)
    number = asked(body)
    odd = (number % 2 == 1) == (number < known)
    return {"parity": "odd" if odd else "even"}


@asynccontextmanager
async def application(url, **client):
    one = {"model": "openai/x", "base_url": url, "api_key": "none", "retry": {"max_attempts": 1}, **client}
    async with otpy.start(settings={"clients": {"default": one}, "cache": {"enabled": False}}) as app:
        yield app


def optimized(work, script=model, **client):
    """Do something in an application with a scripted model; returns what came of it, and the server."""

    async def main():
        with LoopbackLM(script) as server:
            async with application(server.url, **client) as app:
                result = await work(app, server)
                assert await app.teleprompters.which_children() == []
                assert not app.tasks.process.actor.tasks
                return result, server

    return asyncio.run(main())


def outcome(teleprompter=None, script=model, **options):
    async def work(app, server):
        return await (teleprompter or Best()).start(STUDENT, trainset=ROWS, valset=ROWS, **options).result()

    return optimized(work, script)


def bodies(server):
    return [json.dumps(body, sort_keys=True) for body in server.requests]


class TestWhatComesOfIt:
    def test_the_best_program_its_score_and_interval_and_how_it_compares_with_the_student(self):
        found, server = outcome()
        assert found.program.signature.instructions == "be right"
        assert (found.score, found.student.score, found.stopped) == (1.0, 6 / 16, "done")
        low, high = found.interval
        assert low <= 1.0 <= high
        assert found.comparison.difference == pytest.approx(10 / 16)
        assert found.better
        assert [(one.name, one.score) for one in found.candidates] == [
            ("student", 6 / 16),
            ("be bad", 2 / 16),
            ("be better", 12 / 16),
            ("be right", 1.0),
        ]
        assert found.requests == len(server.requests) == 64
        assert "100.0 %" in str(found)
        assert "better" in str(found)

    def test_a_small_gain_is_not_called_better(self):
        def nearly(body):
            system = body["messages"][0]["content"]
            number = asked(body)
            return {"parity": "odd" if (number % 2 == 1) == (number > 0 or "be right" in system) else "even"}

        found, _ = outcome(Best(instructions=("be right",)), nearly)
        assert found.comparison.difference > 0
        assert not found.better
        assert "not shown to be better" in str(found)

    def test_the_program_knows_where_it_comes_from_and_what_came_of_it(self):
        found, _ = outcome(Best(seed=7))
        lineage = lineage_of(found.program)
        assert (lineage.optimizer, lineage.parent, lineage.seed) == ("Best", STUDENT.content_hash(), 7)
        assert outcome_of(found.program) is found
        assert outcome_of(found.program.with_instructions("other")) is None
        assert outcome_of(STUDENT) is None
        assert lineage_of(STUDENT) is None

    def test_a_student_that_is_untouched_was_made_by_nobody_here(self, tmp_path):
        found, _ = outcome(Best(instructions=("be bad",)), journal=tmp_path / "run")
        assert found.program == STUDENT
        assert lineage_of(found.program) is None
        assert outcome_of(STUDENT) is None
        view = RunView(tmp_path / "run")
        assert view.program(view.named("student"))["lineage"] is None
        assert view.program(view.result)["lineage"] is None

    def test_a_program_was_made_when_it_was_found_and_not_when_that_is_looked_up(self, tmp_path):
        outcome(Best(), journal=tmp_path / "run")
        base = sqlite3.connect(tmp_path / "run")
        with base:
            base.execute("UPDATE trials SET at = at - 86400")
        base.close()
        again, server = outcome(Best(), journal=tmp_path / "run")
        assert server.requests == []
        made = datetime.fromisoformat(lineage_of(again.program).time)
        assert 86_000 < (datetime.now(UTC) - made).total_seconds() < 87_000
        view = RunView(tmp_path / "run")
        assert view.program(view.result)["lineage"] == lineage_of(again.program).dump_state()

    def test_the_student_is_returned_if_nothing_is_better(self):
        found, _ = outcome(Best(instructions=("be bad",)))
        assert found.program == STUDENT
        assert found.best.name == "student"
        assert not found.better

    def test_the_front_has_whatever_is_best_in_one_way(self):
        found, _ = outcome()
        best = max(found.candidates, key=lambda one: one.score)
        assert best in front(found.candidates)
        assert all(one in found.candidates for one in front(found.candidates))

    def test_rows_that_are_in_both_sets_are_told(self):
        found, _ = outcome()
        assert any("in the valset too" in note for note in found.notes)

    def test_one_trainset_is_parted_and_its_copies_in_both_parts_are_told(self):
        async def work(app, server):
            plain = await Best().start(STUDENT, trainset=ROWS).result()
            return plain, await Best().start(STUDENT, trainset=ROWS * 2).result()

        (plain, doubled), _ = optimized(work)
        assert len(plain.best.scores.rows) == 8
        assert plain.notes == ()
        assert any("in the valset too" in note for note in doubled.notes)

    def test_the_result_does_not_depend_on_how_many_are_under_way(self):
        assert len({outcome(Best(max_concurrency=width))[0].program.content_hash() for width in (1, 3, 16)}) == 1


class TestWhatCannotBeMeasured:
    """A metric that fails everywhere, and caps that nothing fits under."""

    def test_a_metric_that_fails_on_every_row_ends_it_at_once(self):
        def boom(example, prediction, trace=None):
            raise KeyError("boom")

        async def work(app, server):
            with pytest.raises(
                TeleprompterError, match=r"none of the 16 rows .* could be measured; the first: KeyError"
            ):
                await Best(boom).start(STUDENT, trainset=ROWS, valset=ROWS).result()

        _, server = optimized(work)
        assert len(server.requests) == 16

    def test_a_metric_may_return_what_dspys_for_gepa_return(self):
        def told(example, prediction, trace=None):
            right = example.parity == prediction.parity
            return {"score": right, "feedback": "wrong"} if example.number % 2 else otpy.Prediction(score=right)

        assert outcome(Best(told))[0].score == 1.0

    def test_what_ended_it_is_in_the_notes(self):
        found, _ = outcome(max_tokens=5000)
        assert found.stopped == "budget"
        assert any("ended by a cap: " in note and "reserved" in note for note in found.notes)

    def test_money_without_prices_is_an_error_that_says_what_to_set(self):
        async def work(app, server):
            with pytest.raises(BudgetExceeded, match=r"price of this request is not known.*input_price"):
                await Best().start(STUDENT, trainset=ROWS, valset=ROWS, max_money=1.0).result()

        _, server = optimized(work)
        assert server.requests == []


class TestWhatCanBeDoneToIt:
    def test_it_can_be_stopped_with_the_best_so_far(self):
        async def work(app, server):
            running = Best().start(STUDENT, trainset=ROWS, valset=ROWS)
            while len(running.lab.candidates) < 3:
                await asyncio.sleep(0.005)
            running.stop()
            found = await running.result()
            running.stop()
            return found, running.status()

        (found, status), _ = optimized(work)
        assert found.stopped == "stopped"
        assert found.score == max(one.score for one in found.candidates)
        assert found.program == found.best.program
        assert (status.state, status.best) == ("stopped", found.score)

    def test_one_cancelled_says_that_the_same_call_goes_on_from_the_journal(self, tmp_path):
        async def work(app, server, **kept):
            running = Best().start(STUDENT, trainset=ROWS, valset=ROWS, **kept)
            running.cancel()
            with pytest.raises(asyncio.CancelledError) as caught:
                await running.result()
            return getattr(caught.value, "__notes__", [])

        (note,), _ = optimized(functools.partial(work, journal=tmp_path / "best.run"))
        assert note.endswith("best.run: the same call, with the same journal, goes on from there")
        assert optimized(work)[0] == []

    def test_ctrl_c_says_that_the_same_call_goes_on_from_the_journal(self, tmp_path):
        def interrupting(body):
            signal.raise_signal(signal.SIGINT)
            return model(body)

        with (
            LoopbackLM(interrupting) as server,
            otpy.start(lm="openai/x", base_url=server.url, api_key="none", cache=False),
            pytest.raises(KeyboardInterrupt) as caught,
        ):
            Best().compile(STUDENT, trainset=ROWS, valset=ROWS, journal=tmp_path / "best.run")
        (note,) = caught.value.__notes__
        assert note.startswith("what was answered is kept in ")
        assert "best.run: the same call" in note

    def test_one_stopped_at_once_returns_the_student_and_asks_nothing(self):
        async def work(app, server):
            running = Best().start(STUDENT, trainset=ROWS, valset=ROWS)
            running.stop()
            return await running.result()

        found, server = optimized(work)
        assert (found.program, found.stopped, found.best) == (STUDENT, "stopped", None)
        assert server.requests == []

    @pytest.mark.parametrize("teleprompter", [Best(), otpy.BootstrapFewShot(METRIC)], ids=["Best", "BootstrapFewShot"])
    def test_paused_it_asks_nothing_and_resumed_it_ends_as_if_nothing_had_been(self, teleprompter):
        sets = {"trainset": ROWS, **({"valset": ROWS} if teleprompter.uses_valset else {})}

        async def work(app, server):
            undisturbed = await teleprompter.start(STUDENT, **sets).result()
            before = len(server.requests)
            running = teleprompter.start(STUDENT, **sets)
            running.pause()
            await asyncio.sleep(0.2)
            paused, status = len(server.requests) - before, running.status()
            running.resume()
            return undisturbed, paused, status, await running.result()

        (undisturbed, paused, status, found), _ = optimized(work)
        assert (paused, status.state, status.requests) == (0, "paused", 0)
        assert found.program.content_hash() == undisturbed.program.content_hash()

    @pytest.mark.parametrize("at_once", [True, False])
    def test_cancelled_it_gives_its_journal_up(self, tmp_path, at_once):
        path = tmp_path / "journal"

        async def work(app, server):
            running = Best().start(STUDENT, trainset=ROWS, valset=ROWS, journal=path)
            if not at_once:
                await asyncio.to_thread(server.wait_for, 3)
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running.result()
            assert running.status().state == "cancelled"
            return await Best().start(STUDENT, trainset=ROWS, valset=ROWS, journal=path).result()

        found, _ = optimized(work)
        assert found.score == 1.0

    def test_the_numbers_of_its_status_are_those_of_the_server(self):
        async def work(app, server):
            running = Best().start(STUDENT, trainset=ROWS, valset=ROWS)
            seen = []
            while not running._task.done():
                seen.append(running.status())
                await asyncio.sleep(0.01)
            return seen, running.status(), await running.result()

        (seen, last, found), server = optimized(work)
        assert [one.requests for one in seen] == sorted(one.requests for one in seen)
        assert (last.state, last.candidates, last.best, last.requests) == ("done", 4, 1.0, len(server.requests))
        assert last.tokens == found.tokens > 0

    @pytest.mark.parametrize("whom", ["the run", "its supervisor"])
    @pytest.mark.parametrize("teleprompter", [Best(), otpy.BootstrapFewShot(METRIC)], ids=["Best", "BootstrapFewShot"])
    def test_its_process_may_be_killed_and_nothing_is_asked_again(self, whom, teleprompter):
        sets = {"trainset": ROWS, **({"valset": ROWS} if teleprompter.uses_valset else {})}

        held_from = []

        def script(body):  # it cannot have ended before it is killed
            server = held_from[0] if held_from else None
            return Scripted(model(body), hold=server is not None and len(server.requests) > held_from[1] + 3)

        async def work(app, server):
            undisturbed = await teleprompter.start(STUDENT, **sets).result()
            before = len(server.requests)
            held_from[:] = server, before
            running = teleprompter.start(STUDENT, **sets)
            await asyncio.to_thread(server.wait_for, before + 4)
            (child,) = await app.teleprompters.which_children()
            (child.ref if whom == "the run" else app.names.get("teleprompters")).exit(KILL)
            server.release()
            return undisturbed, await running.result(), before

        (undisturbed, found, before), server = optimized(work, script)
        assert found.program.content_hash() == undisturbed.program.content_hash()
        assert [one.name for one in found.candidates] == [one.name for one in undisturbed.candidates]
        twice = len(server.requests) - before - len(set(bodies(server)[before:]))
        assert twice <= 8, "more than was in flight"


class Unplugged(otpy.Program):
    """Answers in a second without any model, but not from the 10th to the 40th."""

    predict: otpy.Predict = STUDENT
    down: bool = True

    async def forward(self, number):
        await asyncio.sleep(1)
        if self.down and 10 < asyncio.get_running_loop().time() < 40:
            raise LMConnectionError("nobody there")
        known = WISE.get(self.predict.signature.instructions, 6)
        return otpy.Prediction(parity="odd" if (number % 2 == 1) == (number < known) else "even")


def quick(example, prediction, trace=None):
    return example.parity == prediction.parity


quick.quick = True  # no worker thread in virtual time


class TestAnOutage:
    """The server is down in the middle of a run."""

    def test_of_thirty_seconds_of_virtual_time_ends_in_the_very_same_scores(self):
        async def main(down):
            async with otpy.start(settings={"cache": {"enabled": False}}):
                student = Unplugged(down=down)
                found = await Best(quick).start(student, trainset=ROWS, valset=ROWS).result()
                return found, asyncio.get_running_loop().time()

        disturbed, late = run_in_virtual_time(main(down=True))
        undisturbed, early = run_in_virtual_time(main(down=False))
        assert late - early >= 20
        assert [one.scores.values for one in disturbed.candidates] == [
            one.scores.values for one in undisturbed.candidates
        ]
        assert disturbed.program.predict == undisturbed.program.predict

    @pytest.mark.parametrize("teleprompter", [Best(), otpy.BootstrapFewShot(METRIC)], ids=["Best", "BootstrapFewShot"])
    def test_of_half_a_minute_ends_in_the_very_same_program(self, teleprompter, monkeypatch):
        from otpy.teleprompters import patience

        monkeypatch.setattr(
            patience, "FIRST_WAIT", 0.01
        )  # half a minute at a hundredth: sockets do not fit virtual time
        monkeypatch.setattr(patience, "LONGEST_WAIT", 0.05)
        sets = {"trainset": ROWS, **({"valset": ROWS} if teleprompter.uses_valset else {})}
        undisturbed, count = None, [0]

        def script(request):
            count[0] += 1
            return Fault("drop") if 5 < count[0] <= 80 else Say(json.dumps(model(request.body)))

        async def main(script):
            with FakeProvider(script) as fake:
                patient = {"breaker": {"fail_max": 1000}}
                async with application(fake.url("openai_chat"), **patient):
                    return await teleprompter.start(STUDENT, **sets).result()

        undisturbed = asyncio.run(main(lambda request: Say(json.dumps(model(request.body)))))
        found = asyncio.run(main(script))
        assert count[0] > 80
        assert found.program.content_hash() == undisturbed.program.content_hash()
        assert [one.score for one in found.candidates] == [one.score for one in undisturbed.candidates]


class TestABudget:
    def test_of_half_the_cost_is_never_passed_and_the_best_so_far_is_returned(self):
        whole, _ = outcome()
        found, server = outcome(max_requests=whole.requests // 2)
        assert len(server.requests) == found.requests == whole.requests // 2
        assert found.stopped == "budget"
        assert "stopped by its budget" in str(found)
        assert found.best.score == max(one.score for one in found.candidates)

    def test_of_tokens_is_never_passed(self):
        whole, _ = outcome()
        found, _ = outcome(max_tokens=whole.tokens // 2)
        assert found.stopped == "budget"
        assert found.tokens <= whole.tokens // 2

    def test_of_nothing_returns_the_student_and_is_warned_of(self, caplog):
        found, server = outcome(max_requests=0)
        assert "could send nothing, and returns the student: the cap of 0 requests" in caplog.text
        assert found.notes[-1].endswith("raise the cap")
        assert (found.program, found.stopped, found.best) == (STUDENT, "budget", None)
        assert server.requests == []

    def test_of_a_run_that_is_gone_on_with_is_told_as_it_was_given(self, tmp_path, caplog):
        first, _ = outcome(max_requests=20, journal=tmp_path / "run")
        assert not any("used before" in note for note in first.notes)
        second, _ = outcome(max_requests=30, journal=tmp_path / "run")
        assert any("max_requests=30, of which 20 was used before: the cap of 10" in note for note in second.notes)
        assert not caplog.records

    def test_bootstrapping_returns_the_demos_found_so_far(self):
        teleprompter = otpy.BootstrapFewShot(METRIC, max_bootstrapped_demos=4, max_labeled_demos=0, max_concurrency=1)

        async def work(app, server):
            return await teleprompter.start(STUDENT, trainset=ROWS, max_requests=4).result()

        found, _ = optimized(
            work, lambda body: {"parity": "odd" if asked(body) % 2 else "even"} if asked(body) else model(body)
        )
        assert found.stopped == "budget" or len(found.program.demos) == 4
        assert len(found.program.demos) >= 3

    def test_what_was_spent_before_a_kill_counts_and_a_higher_cap_goes_on(self, tmp_path):
        path = tmp_path / "journal"

        async def work(app, server):
            sets = {"trainset": ROWS, "valset": ROWS, "journal": path}
            first = await Best().start(STUDENT, **sets, max_requests=20).result()
            again = await Best().start(STUDENT, **sets, max_requests=20).result()
            count = len(server.requests)
            return first, again, count, await Best().start(STUDENT, **sets, max_requests=64).result()

        (first, again, count, last), server = optimized(work)
        assert (first.requests, again.requests, count) == (20, 20, 20)
        assert again.program.content_hash() == first.program.content_hash()
        assert (last.stopped, last.requests, last.score) == ("done", 64, 1.0)
        assert len(bodies(server)) == len(set(bodies(server)))

    @pytest.mark.parametrize(
        "limits", [{"max_requests": 1.5}, {"max_money": float("nan")}, {"max_tokens": -1}, {"max_requests": True}]
    )
    def test_that_is_none_is_refused(self, limits, tmp_path):
        with pytest.raises(TeleprompterError, match=next(iter(limits))):
            outcome(**limits, journal=tmp_path / "journal")
        assert list(tmp_path.iterdir()) == []


class TestAJournal:
    def test_the_same_call_again_asks_nothing_and_ends_in_the_same_outcome(self, tmp_path):
        first, _ = outcome(journal=tmp_path / "journal")
        again, server = outcome(journal=tmp_path / "journal")
        assert server.requests == []
        assert again.program.content_hash() == first.program.content_hash()
        assert [(one.name, one.scores.values) for one in again.candidates] == [
            (one.name, one.scores.values) for one in first.candidates
        ]
        assert [[row.usage for row in one.scores.rows] for one in again.candidates] == [
            [row.usage for row in one.scores.rows] for one in first.candidates
        ]
        assert (again.requests, again.tokens) == (first.requests, first.tokens)

    def test_an_exception_in_the_middle_is_gone_on_from(self, tmp_path):
        def metric(example, prediction, trace=None):
            if example.number == 9 and broken.is_set():
                raise LookupError("a bug")
            return example.parity == prediction.parity

        class Careful(Best):
            max_errors = 0

        broken = threading.Event()  # what a metric holds as data would make another one of it
        broken.set()
        with pytest.raises(TeleprompterError, match="max_errors=0"):
            outcome(Careful(metric), journal=tmp_path / "journal")
        with RunJournal(tmp_path / "journal", _header(tmp_path / "journal")) as journal:
            assert journal.spent().requests > 0
        broken.clear()
        found, server = outcome(Careful(metric), journal=tmp_path / "journal")
        assert found.score == 1.0
        assert found.requests - len(server.requests) >= 5

    def test_that_is_removed_during_its_run_ends_it_with_one_error_at_the_next_answer(self, tmp_path):
        async def work(app, server):
            run = Best(max_concurrency=1).start(STUDENT, trainset=ROWS, valset=ROWS, journal=tmp_path / "journal")
            while len(run.lab.candidates) < 2:
                await asyncio.sleep(0.005)
            (tmp_path / "journal").unlink()
            asked = len(server.requests)
            with pytest.raises(TeleprompterError, match="journal was removed or replaced during its run") as caught:
                await run.result()
            return asked, str(caught.value), run.status().state

        (asked, _, state), server = optimized(work)
        assert len(server.requests) - asked <= 2
        assert state == "failed"
        found, server = outcome(journal=tmp_path / "journal")  # what the error says: it begins anew
        assert found.stopped == "done"
        assert len(server.requests) == found.requests

    @pytest.mark.parametrize("after", range(0, 60, 4))
    @pytest.mark.parametrize("how", ["stop", "cancel"])
    def test_that_is_ended_with_requests_in_flight_counts_them_as_the_ledger_does(self, tmp_path, how, after):
        async def work(app, server):
            run = Best(max_concurrency=8).start(STUDENT, trainset=ROWS, valset=ROWS, journal=tmp_path / "journal")
            while len(server.requests) < after:
                await asyncio.sleep(0)
            getattr(run, how)()
            try:
                requests = (await run.result()).requests
            except asyncio.CancelledError:
                requests = run.status().requests
            at_once = app.book.total(run=run.run).requests
            kept = RunView(tmp_path / "journal").spent.requests
            await asyncio.sleep(0.05)
            return requests, kept, at_once, app.book.total(run=run.run).requests, app.book.budget.in_flight

        (*counts, in_flight), server = optimized(work)
        assert len(set(counts)) == 1, counts
        assert counts[0] >= len(server.requests)
        assert in_flight == {}

    def test_others_hands_decide_how_it_goes_on_but_not_what_comes_of_it(self, tmp_path):
        first, _ = outcome(Best(max_concurrency=1), journal=tmp_path / "journal", max_requests=20)
        found, server = outcome(Best(max_concurrency=8), journal=tmp_path / "journal")
        assert (first.stopped, found.stopped) == ("budget", "done")
        assert len(server.requests) == 44

    @pytest.mark.parametrize(
        ("change", "what"),
        [
            ({"student": STUDENT.with_instructions("other")}, "student"),
            ({"trainset": ROWS[1:]}, "data"),
            ({"valset": ROWS[1:]}, "data"),
            ({"teleprompter": Best(seed=1)}, "seed: 0 there, 1 now"),
        ],
    )
    def test_of_another_run_is_refused_and_left_as_it_is(self, tmp_path, change, what):
        path = tmp_path / "journal"
        outcome(journal=path, max_requests=10)
        before = path.read_bytes()

        async def work(app, server):
            arguments = {"student": STUDENT, "trainset": ROWS, "valset": ROWS, "teleprompter": Best(), **change}
            with pytest.raises(TeleprompterError, match=f"something else .{what}"):
                arguments.pop("teleprompter").start(arguments.pop("student"), **arguments, journal=path)

        _, server = optimized(work)
        assert server.requests == []
        assert path.read_bytes() == before

    def test_is_one_run_s_at_a_time(self, tmp_path):
        async def work(app, server):
            running = Best().start(STUDENT, trainset=ROWS, valset=ROWS, journal=tmp_path / "journal")
            with pytest.raises(TeleprompterError, match="in use"):
                Best().start(STUDENT, trainset=ROWS, valset=ROWS, journal=tmp_path / "journal")
            return await running.result()

        found, _ = optimized(work)
        assert found.score == 1.0

    @pytest.mark.parametrize("teleprompter", [Best(), otpy.BootstrapFewShot(METRIC)], ids=["Best", "BootstrapFewShot"])
    def test_that_cannot_be_written_ends_the_run_and_is_no_score(self, tmp_path, teleprompter):
        sets = {"trainset": ROWS, **({"valset": ROWS} if teleprompter.uses_valset else {})}

        async def work(app, server):
            running = teleprompter.start(STUDENT, **sets, journal=tmp_path / "journal")
            commits, commit = [], running.journal._commit

            def full(batch):
                commits.append(batch)
                if len(commits) > 2:
                    raise sqlite3.OperationalError("database or disk is full")
                commit(batch)

            running.journal._commit = full
            with pytest.raises(TeleprompterError, match=r"cannot be written: .*full"):
                await running.result()
            return running

        running, _ = optimized(work)
        assert all(row.error is None for one in running.lab.candidates for row in one.scores.rows)

    def test_tells_its_trials_in_the_order_in_which_they_were_first_made(self, tmp_path):
        path = tmp_path / "journal"
        seen = []
        for limit in (40, None):
            outcome(journal=path, max_requests=limit)
            with RunJournal(path, _header(path)) as journal:
                seen.append([one["name"] for one in journal.trials() if one["name"] != "result"])
        assert seen == [["student", "be bad"], ["student", "be bad", "be better", "be right"]]

    @pytest.mark.parametrize(("limit", "status"), [(40, "budget"), (None, "done")])
    def test_says_whether_it_is_over(self, tmp_path, limit, status):
        outcome(journal=tmp_path / "journal", max_requests=limit)
        assert _about(tmp_path / "journal", "status") == status


def _about(path, name):
    with sqlite3.connect(path) as base:
        (value,) = base.execute("SELECT value FROM about WHERE name = ?", (name,)).fetchone()
    base.close()
    return json.loads(value)


def _header(path):
    return _about(path, "header")


class TestWhatIsRefused:
    @pytest.mark.parametrize(
        ("arguments", "match"),
        [
            ({"trainset": []}, "the trainset is empty"),
            ({"valset": []}, "the valset is empty"),
            ({"trainset": [3]}, "row 1 of the trainset is 3"),
            ({"teacher": STUDENT}, "Best does not use a teacher"),
            ({"student": "question -> answer"}, "student='question -> answer': a program"),
        ],
    )
    def test_before_anything_is_touched(self, arguments, match, tmp_path):
        async def work(app, server):
            given = {"student": STUDENT, "trainset": ROWS, "valset": ROWS, **arguments}
            with pytest.raises(TeleprompterError, match=match):
                Best().start(given.pop("student"), **given, journal=tmp_path / "journal")

        optimized(work)
        assert list(tmp_path.iterdir()) == []

    def test_a_metric_of_the_wrong_arity(self):
        with pytest.raises(EvaluationError, match="cannot be called with"):
            otpy.BootstrapFewShot(lambda example: 1)

    def test_a_teacher_of_another_structure(self):
        async def work(app, server):
            with pytest.raises(TeleprompterError, match="student and teacher differ"):
                await (
                    otpy.BootstrapFewShot(METRIC).start(STUDENT, trainset=ROWS, teacher=otpy.Predict("a -> b")).result()
                )

        _, server = optimized(work)
        assert server.requests == []

    def test_no_example_that_passes(self, tmp_path):
        async def work(app, server):
            teleprompter = otpy.BootstrapFewShot(lambda example, prediction, trace=None: 0.5, metric_threshold=0.9)
            with pytest.raises(TeleprompterError, match=r"of at least 0.9; the best score was 0.5"):
                await teleprompter.start(STUDENT, trainset=ROWS, journal=tmp_path / "journal").result()

        optimized(work)

    def test_a_failure_is_in_the_journal_and_raised(self, tmp_path):
        path = tmp_path / "journal"

        async def work(app, server):
            with pytest.raises(LMAuthError):
                await Best().start(STUDENT, trainset=ROWS, valset=ROWS, journal=path).result()

        optimized(work, lambda _: Scripted("no", status=401))
        assert _about(path, "status").startswith("failed: LMAuthError")

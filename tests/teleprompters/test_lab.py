"""What a search may do to the world: each row once, as many at once as it was told, and no outage is a score."""

import asyncio
from collections import Counter

import pytest

import otpy
from otpy.errors import (
    ActorDown,
    BudgetExceeded,
    LMAuthError,
    LMConnectionError,
    LMContextWindowExceeded,
    LMQuotaExceeded,
    LMStatusError,
    TeleprompterError,
)
from otpy.evaluate import Score
from otpy.signatures import Prediction
from otpy.teleprompters.lab import Lab
from otpy.teleprompters.run_journal import RunJournal
from otpy.teleprompters.tried import best_of
from otpy.testing import run_in_virtual_time

ROWS = [otpy.Example(number=n, answer=str(n % 2)).with_inputs("number") for n in range(12)]
NUMBERED = list(enumerate(ROWS))


class Parity(otpy.Program):
    """Answers without a model, and does what it was told to besides."""

    def __init__(self, does=lambda number: None):
        self.does = does
        self.predict = otpy.Predict("number -> answer")

    async def forward(self, number):
        done = self.does(number)
        if asyncio.iscoroutine(done):
            await done
        return Prediction(answer=str(number % 2))


def exact(example, prediction, trace=None):
    return example.answer == prediction.answer


exact.quick = True  # no worker thread: time is virtual here


def with_lab(work, metric=exact, **options):
    """Do something with a lab in an application without any model, in virtual time."""

    async def main():
        async with otpy.start(settings={"cache": {"enabled": False}}):
            with RunJournal(None, {}) as journal:
                return await work(Lab(metric, journal, **options))

    return run_in_virtual_time(main())


class TestMeasuring:
    def test_rows_come_in_the_order_asked_and_none_is_run_twice(self):
        ran = []

        async def work(lab):
            program = Parity(ran.append)
            some = await lab.evaluate(program, NUMBERED[3:6])
            every = await lab.evaluate(program, NUMBERED[::-1])
            return some, every, lab

        some, every, _ = with_lab(work)
        assert [row.at for row in some.rows] == [3, 4, 5]
        assert [row.at for row in every.rows] == [*range(11, -1, -1)]
        assert sorted(ran) == list(range(12))
        assert every.mean == 1

    def test_rows_of_different_sets_at_the_same_position_are_different(self):
        other = otpy.Example(number=100, answer="1").with_inputs("number")

        async def work(lab):
            program = Parity()
            return (await lab.try_one(program, 0, ROWS[0])).score, (await lab.try_one(program, 0, other)).score

        assert with_lab(work) == (1, 0)

    @pytest.mark.parametrize("width", [1, 3])
    def test_no_more_are_under_way_than_it_was_told_however_many_programs_are_measured(self, width):
        now, most = [0], [0]

        async def slow():
            now[0] += 1
            most[0] = max(most[0], now[0])
            await asyncio.sleep(1)
            now[0] -= 1

        async def work(lab):
            programs = [Parity(lambda number: slow()).with_instructions(text) for text in "abc"]
            await asyncio.gather(*(lab.evaluate(program, NUMBERED) for program in programs))

        with_lab(work, max_concurrency=width)
        assert most == [width]

    def test_what_a_program_or_a_metric_raises_is_a_failed_row_with_its_words(self):
        def fails(number):
            if number == 1:
                raise KeyError("a bug")

        def metric(example, prediction, trace=None):
            return Score(1 / (example.number - 2), feedback="fine", subscores={"short": 1.0})

        metric.quick = True

        async def work(lab):
            return await lab.evaluate(Parity(fails), NUMBERED[:4])

        scores = with_lab(work, metric, failure_score=-1.0)
        assert [row.score for row in scores.rows] == [-0.5, -1, -1, 1]
        assert [row.feedback for row in scores.rows] == [
            "fine",
            "KeyError: 'a bug'",
            "ZeroDivisionError: division by zero",
            "fine",
        ]
        assert scores.failed == 2
        assert scores.rows[0].subscores == {"short": 1.0}
        assert scores.rows[2].prediction.answer == "0", "the metric failed, not the program"

    def test_an_error_counts_once_however_often_its_row_is_asked_for(self):
        def fails(number):
            if number < 2:
                raise KeyError("a bug")

        async def work(lab):
            for _ in range(5):
                await lab.evaluate(Parity(fails), NUMBERED)
            return lab.errors

        assert with_lab(work, max_errors=2) == 2

    def test_more_errors_than_tolerated_end_the_run_with_the_last(self):
        def fails(number):
            raise KeyError("a bug")

        async def work(lab):
            await lab.evaluate(Parity(fails), NUMBERED)

        with pytest.raises(TeleprompterError, match="more errors than max_errors=3; the last: KeyError: 'a bug'"):
            with_lab(work, max_errors=3)


class TestAnOutage:
    @pytest.mark.parametrize(
        "error", [LMConnectionError("gone"), LMStatusError("busy", status=503), ActorDown("x", "killed")]
    )
    def test_it_is_waited_for_and_no_score(self, error):
        async def work(lab):
            loop = asyncio.get_running_loop()

            def down(number):
                if loop.time() < 1000:
                    raise error

            await lab.evaluate(Parity(lambda number: None), NUMBERED[:1])
            return await lab.evaluate(Parity(down), NUMBERED)

        scores = with_lab(work)
        assert scores.mean == 1
        assert scores.failed == 0

    def test_where_nobody_has_ever_been_it_is_none_and_is_raised_at_once(self):
        def down(number):
            raise LMConnectionError("nobody there")

        async def work(lab):
            await lab.evaluate(Parity(down), NUMBERED)

        with pytest.raises(LMConnectionError, match="nobody there"):
            with_lab(work)

    @pytest.mark.parametrize(
        "error",
        [
            LMAuthError("no"),
            BudgetExceeded("empty"),
            LMQuotaExceeded("pay", status=402),
            LMStatusError("?", status=404),
        ],
        ids=lambda error: type(error).__name__,
    )
    def test_what_no_row_would_be_answered_for_ends_the_search(self, error):
        def fails(number):
            raise error

        async def work(lab):
            await lab.evaluate(Parity(fails), NUMBERED)

        with pytest.raises(type(error)):
            with_lab(work)

    def test_a_row_too_long_for_the_model_fails_alone(self):
        def fails(number):
            if number == 3:
                raise LMContextWindowExceeded("too long")

        async def work(lab):
            return await lab.evaluate(Parity(fails), NUMBERED)

        assert [row.at for row in with_lab(work).rows if row.error] == [3]

    def test_where_most_requests_fail_it_is_still_an_outage_however_often_a_row_does(self):
        tried = Counter()

        def busy(number):
            tried[number] += 1
            if tried[number] <= 10 + number:
                raise LMStatusError("busy", status=503)

        async def work(lab):
            return await lab.evaluate(Parity(busy), NUMBERED)

        assert [row.error for row in with_lab(work, max_concurrency=4).rows] == [None] * 12

    def test_a_row_that_fails_while_others_are_answered_is_its_own_fault_and_holds_nobody_up(self):
        async def answered():
            await asyncio.sleep(5)

        def fails(number):
            if number == 3:
                raise LMStatusError("the server stumbles over this one", status=500)
            return answered()

        async def work(lab):
            return await lab.evaluate(Parity(fails), NUMBERED)

        (failed,) = (row for row in with_lab(work, max_concurrency=2).rows if row.error)
        assert (failed.at, failed.score) == (3, 0)

    def test_a_journal_that_cannot_be_written_is_no_score(self):
        async def work(lab):
            def full(number):
                lab.journal.problem = TeleprompterError("the disk is full")
                raise lab.journal.problem

            await lab.evaluate(Parity(full), NUMBERED)

        with pytest.raises(TeleprompterError, match="the disk is full"):
            with_lab(work)

    def test_a_paused_lab_begins_nothing(self):
        ran = []

        async def work(lab):
            lab.pause()
            measuring = asyncio.ensure_future(lab.evaluate(Parity(ran.append), NUMBERED))
            await asyncio.sleep(100)
            before = len(ran)
            lab.resume()
            await measuring
            return before

        assert with_lab(work) == 0
        assert len(ran) == 12


class TestWhatEndsATaskFromInside:
    """Others' code cannot end what runs it."""

    def test_a_cancellation_or_an_exit_in_a_metric_is_its_rows_error(self):
        async def cancelled(example, prediction, trace=None):
            if example.number == 3:
                inner = asyncio.ensure_future(asyncio.sleep(9))
                inner.cancel()
                await inner
            if example.number == 4:
                raise SystemExit(2)
            return True

        async def work(lab):
            return await lab.evaluate(Parity(), NUMBERED)

        scores = with_lab(work, cancelled)
        assert [row.at for row in scores.rows if row.error is not None] == [3, 4]
        assert "cancelled from inside" in scores.rows[3].feedback
        assert "sys.exit(2)" in scores.rows[4].feedback

    def test_a_row_whose_task_is_ended_again_and_again_ends_the_search(self):
        async def ending(example, prediction, trace=None):
            if example.number == 5:
                asyncio.current_task().cancel()
            await asyncio.sleep(0)
            return True

        async def work(lab):
            with pytest.raises(TeleprompterError, match="row 5: its task was ended 5 times"):
                await lab.evaluate(Parity(), NUMBERED)

        with_lab(work, ending)


class TestCandidates:
    def test_the_best_is_the_first_of_equals_among_those_on_most_rows_and_keeps_its_place(self):
        async def work(lab):
            programs = {text: Parity().with_instructions(text) for text in "abc"}
            few = await lab.candidate("few", await lab.evaluate(programs["a"], NUMBERED[:2]))
            first = await lab.candidate("first", await lab.evaluate(programs["b"], NUMBERED), k=3)
            await lab.candidate("second", await lab.evaluate(programs["c"], NUMBERED))
            again = await lab.candidate("first", first.scores, k=3)
            assert few.score == first.score
            assert lab.best is again
            return [one.name for one in lab.candidates], lab.journal.trials()

        names, trials = with_lab(work)
        assert names == ["few", "first", "second"]
        assert [(one["name"], one["rows"], one["params"]) for one in trials] == [
            ("few", 2, {}),
            ("first", 12, {"k": 3}),
            ("second", 12, {}),
        ]
        assert best_of([]) is None

    def test_chance_is_a_function_of_the_seed_and_of_what_it_is_for(self):
        with RunJournal(None, {}) as journal:
            one, same, other = (Lab(None, journal, seed=seed) for seed in (0, 0, 1))
            assert one.rng("batch", 1).random() == same.rng("batch", 1).random()
            several = {
                lab.rng(*names).random() for lab in (one, other) for names in (("batch", 1), ("batch", 2), ("x",))
            }
        assert len(several) == 6

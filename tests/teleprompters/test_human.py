"""A person in the loop: a metric that is one, and one who looks at instructions before they are tried."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import sqlite3
import threading
from collections import Counter
from contextlib import asynccontextmanager

import pytest

import otpy
from otpy.actors import KILL
from otpy.errors import EvaluationError, TeleprompterError
from otpy.signatures import Example, Prediction
from otpy.telemetry import bus
from otpy.teleprompters import desk
from otpy.teleprompters.human import HumanMetric
from otpy.teleprompters.judgements import CLAIM, HOLD, Judgements
from otpy.teleprompters.lab import Lab
from otpy.teleprompters.questions import Verdict, about_instruction, about_score, choices_of
from otpy.testing import LoopbackLM
from tests.teleprompters.planted import RIGHT, STUDENT, TRAIN, VAL, needs


@pytest.fixture(autouse=True)
def looks_often(monkeypatch):
    monkeypatch.setattr(desk, "LONGEST_LOOK", 0.02)
    monkeypatch.setattr(desk, "FIRST_LOOK", 0.005)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run.db"


@asynccontextmanager
async def application(script):
    with LoopbackLM(script) as server:
        client = {"model": "openai/x", "base_url": server.url, "api_key": "none", "retry": {"max_attempts": 1}}
        settings = {"clients": {"default": client}, "cache": {"enabled": False}}
        async with otpy.start(settings=settings) as app:
            yield server, app


def fair(question):
    """What a person says who knows the right kind of a word."""
    shown = question.shown
    if question.kind == "instruction":
        return {"decision": "approve"}
    good = RIGHT[shown["inputs"]["word"]] == shown["outputs"]["kind"]
    return {"choice": "yes" if good else "no", "feedback": "" if good else "wrong kind"}


async def judging(path, says=fair, who=("anna",), seen=None):
    """Judge whatever comes, until it is cancelled."""
    while True:
        if os.path.exists(path) and os.stat(path).st_size:  # noqa: ASYNC240, PTH110, PTH116 - a moment
            with contextlib.suppress(TeleprompterError), Judgements(path) as questions:
                for judge in who:
                    while (question := questions.claim(judge)) is not None:
                        if seen is not None:
                            seen.append((judge, question))
                        questions.answer(question.key, judge, says(question))
        await asyncio.sleep(0.005)


@asynccontextmanager
async def judged(path, says=fair, **how):
    task = asyncio.ensure_future(judging(path, says, **how))
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def until(condition):
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


def question(word="saw", **more):
    more = {"choices": choices_of(None, None), "outputs": {"kind": "tool"}, "label": None, **more}
    return about_score("Good?", inputs={"word": word}, **more)


class TestTheFile:
    """Questions and answers in SQLite, for any number of processes."""

    @pytest.fixture
    def now(self):
        return [1000.0]

    @pytest.fixture
    def file(self, path, now):
        with Judgements(path, create=True, clock=lambda: now[0]) as questions:
            questions.ask([question("saw"), question("axe")])
            yield questions

    def test_two_judges_are_never_shown_the_same_question(self, file):
        one, other = file.claim("anna"), file.claim("bob")
        assert {one.shown["inputs"]["word"], other.shown["inputs"]["word"]} == {"saw", "axe"}
        assert file.claim("eve") is None
        assert file.claim("anna") == one  # to look again is no new claim

    def test_what_somebody_has_left_lying_is_free_after_a_while(self, file, now):
        one = file.claim("anna")
        now[0] += CLAIM - 1
        assert file.claim("bob") != one
        now[0] += 2
        assert file.claim("eve") == one

    def test_a_claim_out_of_the_future_holds_nobody_up(self, file, now):
        now[0] += 10 * CLAIM
        one = file.claim("anna")
        now[0] -= 10 * CLAIM  # the clock was set right
        assert file.claim("bob") == one

    def test_what_is_skipped_comes_last(self, file):
        one = file.claim("anna")
        other = file.claim("anna", [one.key])
        assert file.claim("anna", [one.key, other.key]) == one
        assert file.claim("anna", [other.key, one.key]) == other

    def test_the_first_of_two_answers_counts_and_the_second_is_told(self, file, now):
        one = file.claim("anna")
        now[0] += CLAIM + 1
        assert file.claim("bob") == one
        file.answer(one.key, "bob", {"choice": "yes"})
        with pytest.raises(TeleprompterError, match="bob answered this meanwhile"):
            file.answer(one.key, "anna", {"choice": "no"})
        assert file.take([one.key]) == {one.key: (Verdict("bob", 1.0, "yes"),)}

    def test_an_answer_may_be_taken_back_for_some_seconds_in_which_nobody_acts_on_it(self, file, now):
        one = file.claim("anna")
        file.answer(one.key, "anna", {"choice": "no"}, hold=True)
        assert file.take([one.key]) == {}
        assert file.undo("anna") == one
        file.answer(one.key, "anna", {"choice": "yes"}, hold=True)
        now[0] += HOLD + 0.1
        assert file.take([one.key])[one.key][0].choice == "yes"
        with pytest.raises(TeleprompterError, match="gone on with your last answer"):
            file.undo("anna")

    def test_who_leaves_stands_by_the_answers(self, file):
        one = file.claim("anna")
        file.answer(one.key, "anna", {"choice": "no"}, hold=True)
        file.claim("anna")
        file.leave("anna")
        assert file.take([one.key])
        assert file.claim("bob") is not None

    def test_nothing_to_take_back_is_told(self, file):
        with pytest.raises(TeleprompterError, match="nothing that could be taken back"):
            file.undo("anna")

    def test_two_people_are_asked_where_two_are_needed(self, path):
        with Judgements(path, create=True) as file:
            file.ask([question(needed=2)])
            one = file.claim("anna")
            assert file.claim("bob") == one
            assert file.claim("eve") is None
            file.answer(one.key, "anna", {"choice": "yes"})
            assert file.claim("anna") is None
            assert file.take([one.key]) == {}
            with pytest.raises(TeleprompterError, match="anna has answered this"):
                file.answer(one.key, "anna", {"choice": "yes"})
            file.answer(one.key, "bob", {"choice": "no"})
            assert [verdict.choice for verdict in file.take([one.key])[one.key]] == ["yes", "no"]
            assert file.standing() == (0, 1, 1, 0)

    def test_who_later_needs_more_answers_keeps_those_there_are(self, path):
        with Judgements(path, create=True) as file:
            file.ask([question()])
            key = file.claim("anna").key
            file.answer(key, "anna", {"choice": "yes"})
            file.ask([question(needed=2)])
            assert file.take([key]) == {}
            file.answer(file.claim("bob").key, "bob", {"choice": "yes"})
            assert len(file.take([key])[key]) == 2

    @pytest.mark.parametrize(
        ("answer", "message"),
        [
            ({}, "no choice; allowed: one of no (0), yes (1)"),
            ({"choice": "perhaps"}, "'perhaps'"),
            ({"value": 0.5}, "0.5"),
            ({"value": "1"}, "'1'"),
            ({"choice": "yes", "value": 1}, "allowed"),
            ({"choice": "yes", "feedback": 3}, "feedback=3"),
            ({"choice": "yes", "score": 3}, "'score' is no part of an answer"),
        ],
    )
    def test_what_is_no_answer_is_refused(self, file, answer, message):
        with pytest.raises(TeleprompterError) as raised:
            file.answer(file.claim("anna").key, "anna", answer)
        assert message in str(raised.value)
        assert file.standing().pending == 2

    @pytest.mark.parametrize(
        ("answer", "message"),
        [({"decision": "perhaps"}, "approve, veto"), ({"decision": "pin", "text": " "}, "not empty"), ({}, "None")],
    )
    def test_what_is_no_decision_is_refused(self, path, answer, message):
        with Judgements(path, create=True) as file:
            file.ask([about_instruction("self", "New.", "Old.")])
            with pytest.raises(TeleprompterError, match=message):
                file.answer(file.claim("anna").key, "anna", answer)

    def test_all_answers_of_a_batch_are_kept_or_none(self, file):
        one, other = file.pending()
        with pytest.raises(TeleprompterError, match="no such question"):
            file.answer_all([(one.key, "anna", {"choice": "yes"}), ("x", "anna", {"choice": "yes"})])
        assert file.standing().pending == 2
        both = [(one.key, "anna", {"choice": "yes"}), (other.key, "anna", {"choice": "no"})]
        assert file.answer_all(both) == (2, 0)
        assert file.answer_all(both) == (0, 2)
        with pytest.raises(TeleprompterError, match="has answered this"):
            file.answer_all([(one.key, "anna", {"choice": "no"})])

    @pytest.mark.parametrize("content", [b"", b"hello, this is no database at all", None])
    def test_another_file_is_refused_and_left_as_it_is(self, tmp_path, content):
        other = tmp_path / "other"
        if content is None:
            with contextlib.closing(sqlite3.connect(other)) as base:
                base.execute("CREATE TABLE mine (x)")
            content = other.read_bytes()
        else:
            other.write_bytes(content)
        with pytest.raises(TeleprompterError, match="other"):
            Judgements(other)
        assert other.read_bytes() == content

    def test_one_that_is_not_there_is_not_made(self, path):
        with pytest.raises(TeleprompterError, match="there is no such file"):
            Judgements(path)
        assert not path.exists()

    def test_a_full_disk_is_told_and_nothing_is_half_written(self, file):
        pages = file._base.execute("PRAGMA page_count").fetchone()[0]
        file._base.execute(f"PRAGMA max_page_count={pages}")
        with pytest.raises(TeleprompterError, match="full"):
            file.ask([question("x" * 100_000)])
        assert file.standing().pending == 2
        file._base.execute("PRAGMA max_page_count=100000")
        file.ask([question("plane")])
        assert file.standing().pending == 3

    def test_a_damaged_question_is_told(self, file):
        file._base.execute("UPDATE judgements SET question = '[]'")
        with pytest.raises(TeleprompterError, match="is damaged"):
            file.claim("anna")

    def test_any_number_may_make_the_file_and_judge_at_once_and_each_question_is_answered_once(self, path):
        words = [f"word {number}" for number in range(40)]
        answered, errors = [], []

        def work(name):
            try:
                with Judgements(path, create=True) as file:
                    file.ask([question(word) for word in words])
                    while (one := file.claim(name)) is not None:
                        file.answer(one.key, name, {"choice": "yes"})
                        answered.append(one.key)
            except TeleprompterError as error:
                errors.append(error)

        threads = [threading.Thread(target=work, args=(f"judge {number}",)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not errors
        assert Counter(answered) == Counter(question(word).key for word in words)


class TestTheMetric:
    """What it is told, and what it makes of the answers."""

    @pytest.mark.parametrize(
        ("how", "named"),
        [
            ({"question": " "}, "question"),
            ({"scale": (1, 1)}, "scale"),
            ({"scale": (0, 10)}, "scale"),
            ({"scale": 5}, "scale"),
            ({"scale": (0, True)}, "scale"),
            ({"choices": {"one": 1}}, "choices"),
            ({"choices": {"good": 1, "bad": "no"}}, "choices"),
            ({"choices": {"good": 1, "bad": float("nan")}}, "choices"),
            ({"choices": {"good": 1, "bad": 0}, "scale": (0, 1)}, "one of the two"),
            ({"fields": "kind"}, "fields"),
            ({"fields": []}, "fields"),
            ({"judges": 0}, "judges"),
            ({"judges": True}, "judges"),
            ({"guidance": 3}, "guidance"),
            ({"queue": 3}, "queue"),
        ],
    )
    def test_an_argument_that_cannot_be_used_is_named(self, how, named):
        with pytest.raises(TeleprompterError, match=named):
            HumanMetric(**how)

    def test_the_same_values_shown_are_the_same_question_whoever_answered_so(self):
        row = Example(word="saw", kind="tool").with_inputs("word")
        metric = HumanMetric(fields=["word", "kind"])
        one = metric.asked(row, Prediction(kind="fruit", reasoning="It is sweet."))
        other = metric.asked(row, Prediction(kind="fruit", reasoning="Why not?"))
        assert one == other
        assert one.key != HumanMetric().asked(row, Prediction(kind="fruit", reasoning="Why not?")).key
        assert one.label == {"kind": "tool"}

    def test_a_field_that_is_not_there_is_named(self):
        row = Example(word="saw").with_inputs("word")
        with pytest.raises(TeleprompterError, match="no 'colour' among word, kind"):
            HumanMetric(fields=["colour"]).asked(row, Prediction(kind="tool"))

    def test_without_a_file_it_says_what_to_do(self):
        row = Example(word="saw").with_inputs("word")
        with pytest.raises(TeleprompterError, match="queue=path"):
            asyncio.run(HumanMetric()(row, Prediction(kind="tool")))

    def test_metrics_that_ask_another_thing_have_another_name(self):
        metrics = [HumanMetric(), HumanMetric("Is it short?"), HumanMetric(scale=(1, 5)), HumanMetric(judges=2)]
        assert len({otpy.evaluate.metric_name(metric) for metric in metrics}) == 4

    def test_it_waits_outside_of_any_run_too_and_equal_questions_are_one(self, path):
        async def main():
            row, metric = Example(word="saw").with_inputs("word"), HumanMetric(queue=path)
            asked = [asyncio.ensure_future(metric(row, Prediction(kind="tool"))) for _ in range(3)]
            seen = []
            async with judged(path, seen=seen):
                assert await asyncio.gather(*asked) == [1.0, 1.0, 1.0]
                assert await metric(row, Prediction(kind="tool")) == 1.0
            assert len(seen) == 1

        asyncio.run(main())

    def test_who_no_longer_waits_leaves_the_question_and_nothing_else(self, path):
        async def main():
            row, metric = Example(word="saw").with_inputs("word"), HumanMetric(queue=path)
            before = asyncio.all_tasks()
            asked = asyncio.ensure_future(metric(row, Prediction(kind="tool")))
            await until(lambda: path.exists() and _pending(path) == 1)
            asked.cancel()
            await until(lambda: asyncio.all_tasks() == before)
            assert _pending(path) == 1

        asyncio.run(main())

    def test_a_file_that_is_taken_away_is_told_to_all_who_wait(self, path):
        async def main():
            metric = HumanMetric(queue=path)
            rows = [Example(word=word).with_inputs("word") for word in ("saw", "axe")]
            asked = [asyncio.ensure_future(metric(row, Prediction(kind="tool"))) for row in rows]
            await until(lambda: path.exists() and _pending(path) == 2)
            path.rename(path.with_suffix(".gone"))
            for each in asked:
                with pytest.raises(TeleprompterError, match="taken away"):
                    await each

        asyncio.run(main())


def _pending(path):
    try:
        with Judgements(path) as questions:
            return questions.standing().pending
    except TeleprompterError:
        return 0  # it is just being made


class TestAnEvaluation:
    """Rows that wait for a person hold nothing."""

    def test_all_rows_are_asked_for_at_once_and_no_deadline_runs(self, path):
        async def main():
            async with application(needs()):
                metric = HumanMetric(queue=path)
                evaluate = otpy.Evaluate(VAL, metric=metric, max_concurrency=1, timeout=0.2)
                under_way = asyncio.ensure_future(evaluate.acall(STUDENT))
                await until(lambda: path.exists() and _pending(path) == len(VAL))
                await asyncio.sleep(0.4)  # longer than a row may take
                async with judged(path):
                    result = await under_way
                assert (result.failed, result.score) == ([], 100.0) or result.score == 1.0
                assert len(result.rows) == len(VAL)

        asyncio.run(main())

    def test_it_goes_on_where_it_was_and_asks_nothing_twice(self, path):
        async def main():
            async with application(needs()):
                evaluate = otpy.Evaluate(VAL, metric=HumanMetric(queue=path))
                first = asyncio.ensure_future(evaluate.acall(STUDENT))
                await until(lambda: path.exists() and _pending(path) == len(VAL))
                first.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await first
                seen = []
                async with judged(path, seen=seen):
                    await until(lambda: not _pending(path))
                    await evaluate.acall(STUDENT)
                assert len(seen) == len(VAL)

        asyncio.run(main())

    @pytest.mark.parametrize("isolation", ["thread", "process"])
    def test_a_person_cannot_be_asked_from_somewhere_else(self, path, isolation):
        with pytest.raises(EvaluationError, match="allowed: 'task'"):
            otpy.Evaluate(VAL, metric=HumanMetric(queue=path), isolation=isolation)


SEARCH = {"num_candidate_programs": 2, "max_bootstrapped_demos": 2, "max_labeled_demos": 2, "max_concurrency": 2}


def searching(metric=None, **how):
    return otpy.BootstrapFewShotWithRandomSearch(metric or HumanMetric(), **{**SEARCH, **how})


class TestAnOptimization:
    """Judgements are in the journal of the run."""

    def test_it_ends_in_the_program_that_a_metric_of_the_same_opinion_ends_in(self, path):
        async def main(metric, **more):
            async with application(needs("apple")), judged(path):
                return await searching(metric).acompile(STUDENT, trainset=TRAIN, valset=VAL, **more)

        person = asyncio.run(main(HumanMetric(), journal=path))
        function = asyncio.run(main(otpy.exact_match("kind")))
        assert person.content_hash() == function.content_hash()

    def test_it_says_that_it_waits_and_for_how_many(self, path):
        events = []

        async def main():
            async with application(needs("apple")):
                run = searching().start(STUDENT, trainset=TRAIN, valset=VAL, journal=path)
                await until(lambda: run.status().pending == len(VAL))  # all of them, whatever max_concurrency is
                assert run.status().state == "waiting"
                await until(lambda: run.journal.about("pending") == len(VAL))
                assert run.journal.about("status") == "waiting"
                assert run.lab._slots._value == 2  # no slot is held
                async with judged(path):
                    await run.result()
                assert (run.status().state, run.status().pending) == ("done", 0)

        with bus.attached("test", lambda event, fields: events.append((event, fields.get("pending")))):
            asyncio.run(main())
        assert ("otpy.judgements.pending", len(VAL)) in events
        with contextlib.closing(sqlite3.connect(path)) as base:
            about = dict(base.execute("SELECT name, value FROM about"))
        assert (about["status"], about["pending"]) == ('"done"', "0")

    def test_cut_after_any_number_of_judgements_it_asks_none_of_them_again(self, tmp_path):
        def whole(path, cuts):
            seen, bodies = [], Counter()

            def script(body):
                bodies[json.dumps(body, sort_keys=True)] += 1
                return needs("apple")(body)

            async def part(limit):
                async with application(script):
                    run = searching().start(STUDENT, trainset=TRAIN, valset=VAL, journal=path)
                    before = len(seen)
                    async with judged(path, seen=seen, says=fair):
                        if limit is not None:
                            await until(lambda: len(seen) - before >= limit or run._task.done())
                            run.cancel()
                        try:
                            return (await run.result()).program.content_hash()
                        except asyncio.CancelledError:
                            return None

            found = [asyncio.run(part(limit)) for limit in cuts]
            return found[-1], Counter(question.key for _, question in seen), bodies

        program, asked, _ = whole(tmp_path / "one.db", [None])
        again, twice, bodies = whole(tmp_path / "two.db", [1, 3, 1, None])
        assert program == again is not None
        assert asked == twice
        assert set(twice.values()) == {1}
        assert max(bodies.values()) <= 2  # only what was in flight as it was cut is sent again

    def test_its_process_may_be_killed_while_it_waits(self, path):
        async def main(kills):
            async with application(needs("apple")) as (_, app):
                run = searching().start(STUDENT, trainset=TRAIN, valset=VAL, journal=path.with_suffix(f".{kills}"))
                for _ in range(kills):
                    await until(lambda: run.status().pending == len(VAL))
                    (child,) = await app.teleprompters.which_children()
                    child.ref.exit(KILL)
                    await child.ref.join()
                async with judged(run.journal.path):
                    return (await run.result()).program.content_hash()

        assert asyncio.run(main(2)) == asyncio.run(main(0))

    def test_the_words_of_a_person_are_what_an_optimizer_reflects_on(self, path):
        proposing.count = 0

        async def main():
            optimizer = otpy.GEPA(HumanMetric(), max_metric_calls=40, reflection_minibatch_size=2)
            async with application(proposing) as (server, _), judged(path):
                await optimizer.acompile(STUDENT, trainset=TRAIN, valset=VAL, journal=path)
                return [json.dumps(body) for body in server.requests]

        told = [body for body in asyncio.run(main()) if "wrong kind" in body]
        assert told

    def test_without_a_journal_it_does_not_begin(self):
        async def main():
            async with application(needs()) as (server, _):
                with pytest.raises(TeleprompterError, match="give journal=path"):
                    searching().start(STUDENT, trainset=TRAIN, valset=VAL)
                assert not server.requests

        asyncio.run(main())

    def test_it_can_be_stopped_while_it_waits(self, path):
        async def main():
            async with application(needs()):
                run = searching().start(STUDENT, trainset=TRAIN, valset=VAL, journal=path)
                await until(lambda: run.status().pending == len(VAL))
                run.stop()
                outcome = await run.result()
                assert outcome.stopped == "stopped"
                assert outcome.program.content_hash() == STUDENT.content_hash()

        asyncio.run(main())

    def test_a_file_that_cannot_be_asked_ends_the_run_and_is_no_score(self, path, tmp_path):
        (tmp_path / "queue.db").write_text("no database, but long enough to be looked at")

        async def main():
            async with application(needs()):
                metric = HumanMetric(queue=tmp_path / "queue.db")
                run = searching(metric).start(STUDENT, trainset=TRAIN, valset=VAL, journal=path)
                with pytest.raises(TeleprompterError, match=r"queue\.db"):
                    await run.result()

        asyncio.run(main())

    def test_several_judges_count_by_their_mean_and_the_outcome_tells_how_often_they_agree(self, path):
        async def main():
            async with application(needs("apple")):
                run = searching(HumanMetric(judges=2)).start(STUDENT, trainset=TRAIN, valset=VAL, journal=path)
                async with judged(path, who=("anna", "bob")):
                    outcome = await run.result()
                assert any(note.startswith("the judges agree on ") for note in outcome.notes)

        asyncio.run(main())

    def test_a_metric_of_mine_that_awaits_a_person_says_so_and_holds_nothing_either(self, path):
        human = HumanMetric("Is it polite?")

        async def both(example, prediction, trace=None):
            return 0.5 * float(await human(example, prediction)) + 0.5 * (example.kind == prediction.kind)

        both.asks_people = True

        async def main():
            async with application(needs("apple")):
                run = searching(both).start(STUDENT, trainset=TRAIN, valset=VAL, journal=path)
                await until(lambda: run.status().pending == len(VAL))
                run.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await run.result()

        asyncio.run(main())


PROPOSALS = ["Sort it well.", "Sort it badly.", "Say fruit."]


def proposing(body):
    """A model whose instructions are known, and of which one makes it right about all words."""
    text = json.dumps(body["messages"])
    if not body["messages"][-1]["content"].startswith("word: "):
        number = proposing.count
        proposing.count += 1
        text = PROPOSALS[number % len(PROPOSALS)]
        return {"instruction": text, "new_instruction": text, "rules": [text], "advice": {"self": text}}
    asked = body["messages"][-1]["content"].removeprefix("word: ").split("\n")[0]
    right = RIGHT.get(asked, "fruit")
    knows = (body.get("temperature") or 0) > 0.5 or any(wanted in text for wanted in ("Sort it well.", "Sort it WELL."))
    return {"kind": right if knows else ("tool" if right == "fruit" else "fruit")}


class TestReview:
    """A person looks at instructions before they are tried."""

    @pytest.fixture(autouse=True)
    def anew(self):
        proposing.count = 0

    def reviewed(self, path, says, optimizer=None, times=1):
        optimizer = optimizer or otpy.COPRO(otpy.exact_match("kind"), breadth=4, depth=2)
        seen = []

        async def main():
            async with application(proposing), judged(path, says, seen=seen):
                run = optimizer.start(STUDENT, trainset=TRAIN, valset=VAL, journal=path, review=True)
                return await run.result()

        outcomes = [asyncio.run(main()) for _ in range(times)]
        return outcomes, [question for _, question in seen]

    def test_what_is_approved_is_tried(self, path):
        (outcome, again), seen = self.reviewed(path, fair, times=2)
        assert outcome.program.signature.instructions == "Sort it well."
        assert {one.shown["proposal"]["instruction"] for one in seen} == set(PROPOSALS)
        assert len(seen) == 3  # each once, the second run included
        assert again.program.content_hash() == outcome.program.content_hash()

    def test_what_is_vetoed_is_never_tried(self, path):
        def says(question):
            return {"decision": "veto" if "well" in question.shown["proposal"]["instruction"] else "approve"}

        (outcome,), _ = self.reviewed(path, says)
        texts = {candidate.program.signature.instructions for candidate in outcome.candidates}
        assert "Sort it well." not in texts

    def test_an_edited_text_takes_the_place_of_the_proposal(self, path):
        def says(question):
            text = question.shown["proposal"]["instruction"]
            return {"decision": "approve", "text": text.replace("well", "WELL")}

        (outcome,), _ = self.reviewed(path, says)
        assert outcome.program.signature.instructions == "Sort it WELL."

    @pytest.mark.parametrize(
        "optimizer",
        [
            otpy.COPRO(otpy.exact_match("kind"), breadth=4, depth=3),
            otpy.GEPA(otpy.exact_match("kind"), max_metric_calls=80, reflection_minibatch_size=2),
            otpy.SIMBA(otpy.exact_match("kind"), bsize=4, num_candidates=3, max_steps=3, max_demos=0),
            otpy.InferRules(otpy.exact_match("kind"), num_candidates=3, max_bootstrapped_demos=0),
        ],
        ids=lambda optimizer: type(optimizer).__name__,
    )
    def test_what_is_pinned_stays_and_nothing_more_is_proposed_for_it(self, path, optimizer):
        def says(question):
            return {"decision": "pin", "text": "Say fruit, always."}

        (outcome, again), seen = self.reviewed(path, says, optimizer, times=2)
        assert outcome.program.signature.instructions == "Say fruit, always."
        assert outcome.best is not None
        assert outcome.best.program.signature.instructions == "Say fruit, always."
        assert again.program.content_hash() == outcome.program.content_hash()
        assert len({one.key for one in seen}) == len(seen)

    @pytest.mark.parametrize(
        "optimizer",
        [
            otpy.COPRO(otpy.exact_match("kind"), breadth=4, depth=3, max_concurrency=1),
            otpy.GEPA(otpy.exact_match("kind"), max_metric_calls=120, reflection_minibatch_size=2, proposals=2),
        ],
        ids=lambda optimizer: type(optimizer).__name__,
    )
    def test_when_and_in_which_order_people_answer_makes_no_difference(self, path, optimizer):  # noqa: C901 - two ways
        def says(question):
            text = question.shown["proposal"]["instruction"]
            return {"decision": "pin" if "3" in text or "4" in text else "approve"}

        def model(body):
            if body["messages"][-1]["content"].startswith("word: "):
                return proposing(body)
            digest = hashlib.blake2b(json.dumps(body, sort_keys=True).encode()).hexdigest()
            text = f"Sort it {digest[:6]}."
            return {"instruction": text, "new_instruction": text}

        async def late(journal, cut):
            """Answer the newest first, and end the run after as many answers."""
            async with application(model):
                run = optimizer.start(STUDENT, trainset=TRAIN, valset=VAL, journal=journal, review=True)
                answered = 0
                while not run._task.done():
                    await asyncio.sleep(0.005)
                    with Judgements(journal) as questions:
                        for question in reversed(questions.pending()):
                            if answered < cut:
                                asked.append(question.key)
                                questions.answer(question.key, "bob", says(question))
                                answered += 1
                    if answered >= cut:
                        run.cancel()
                        await asyncio.wait({run._task})
                return None if run._task.cancelled() else run._task.result()

        async def early():
            async with application(model), judged(path, says):
                run = optimizer.start(STUDENT, trainset=TRAIN, valset=VAL, journal=path, review=True)
                return await run.result()

        asked = []
        outcome = asyncio.run(early())
        other, found = path.with_suffix(".late"), None
        for cut in (1, 2, 1, 1, 1000):
            found = found or asyncio.run(late(other, cut))
        assert found.program.content_hash() == outcome.program.content_hash()
        assert [one.name for one in found.candidates] == [one.name for one in outcome.candidates]
        assert len(set(asked)) == len(asked)

    def test_what_is_pinned_stays_with_mipro(self, path):
        pytest.importorskip("optuna")
        optimizer = otpy.MIPROv2(
            otpy.exact_match("kind"), auto=None, num_candidates=3, num_trials=3, max_bootstrapped_demos=0
        )
        (outcome,), _ = self.reviewed(path, lambda _: {"decision": "pin", "text": "Say fruit, always."}, optimizer)
        assert outcome.program.signature.instructions == "Say fruit, always."
        assert outcome.student.program.content_hash() == STUDENT.content_hash()

    def test_if_all_is_vetoed_the_student_stays(self, path):
        optimizers = [
            otpy.COPRO(otpy.exact_match("kind"), breadth=3, depth=1),
            otpy.GEPA(otpy.exact_match("kind"), max_metric_calls=60, reflection_minibatch_size=2),
            otpy.InferRules(otpy.exact_match("kind"), num_candidates=2, max_bootstrapped_demos=0, max_labeled_demos=2),
        ]
        for number, optimizer in enumerate(optimizers):
            journal = path.with_suffix(f".{number}")
            (outcome,), _ = self.reviewed(journal, lambda _: {"decision": "veto"}, optimizer)
            assert outcome.program.signature.instructions == STUDENT.signature.instructions

    def test_without_review_nobody_is_asked(self, path):
        async def main():
            async with application(proposing):
                optimizer = otpy.COPRO(otpy.exact_match("kind"), breadth=4, depth=1)
                await optimizer.acompile(STUDENT, trainset=TRAIN, valset=VAL, journal=path)

        asyncio.run(main())
        with Judgements(path) as questions:
            assert questions.standing() == (0, 0, 0, 0)

    @pytest.mark.parametrize(
        ("optimizer", "how", "message"),
        [
            (otpy.COPRO(otpy.exact_match("kind")), {"review": True}, "journal=path"),
            (otpy.COPRO(otpy.exact_match("kind")), {"review": 1, "journal": "x"}, "review=1; allowed: True or False"),
            (otpy.LabeledFewShot(2), {"review": True, "journal": "x"}, "proposes no instructions"),
        ],
    )
    def test_where_it_cannot_be_it_is_refused(self, tmp_path, optimizer, how, message):
        if "journal" in how:
            how = how | {"journal": tmp_path / how["journal"]}

        async def main():
            async with application(proposing):
                with pytest.raises(TeleprompterError, match=message):
                    optimizer.start(STUDENT, trainset=TRAIN, **how)

        asyncio.run(main())
        assert not list(tmp_path.iterdir())

    def test_pins_count_by_round_and_not_by_when_they_were_answered(self):
        async def pinned(question):
            return (Verdict("anna", None, "pin", question.shown["proposal"]["instruction"]),)

        async def main():
            lab = Lab(None, None)
            review = lab.review.__class__(pinned)
            assert await review.of({"p": "b"}, {"p": ""}, 1, 1) == {"p": "b"}
            assert await review.of({"p": "a"}, {"p": ""}, 1, 0) == {"p": "a"}  # later answered, of the same round
            assert review.pins(1) == {}
            assert review.pins(2) == {"p": "a"}
            assert await review.of({"p": "c"}, {"p": ""}, 2) == {"p": "a"}
            review.next_part()
            assert review.pins(0) == {"p": "a"}

        asyncio.run(main())


def test_the_file_is_closed_only_when_nobody_looks_into_it_any_more(tmp_path, monkeypatch):
    looking, go, order = threading.Event(), threading.Event(), []
    closing = Judgements.close

    def looked(questions, new, keys):
        looking.set()
        go.wait(5)
        order.append("looked")
        return {}

    def closed(questions):
        order.append("closed")
        closing(questions)

    monkeypatch.setattr("otpy.teleprompters.desk._looked", looked)
    monkeypatch.setattr(Judgements, "close", closed)

    async def main():
        counter = desk.Desk(tmp_path / "queue.db", create=True)
        question = about_score("Good?", choices=choices_of(None, None), inputs={}, outputs={}, label=None)
        asking = asyncio.create_task(counter.ask(question))
        await asyncio.to_thread(looking.wait, 5)
        counter._task.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        assert order == []
        go.set()

    asyncio.run(main())
    for thread in [one for one in threading.enumerate() if one.name.startswith("otpy-desk")]:
        thread.join(5)
    assert order == ["looked", "closed"]

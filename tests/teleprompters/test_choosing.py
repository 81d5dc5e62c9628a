"""Which program is returned: the best, what takes least of the good ones, or the student unless another is better."""

import asyncio
import json
from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

import otpy
from otpy.clients.taping import Tape, Took, metered
from otpy.errors import LMRefusal, TeleprompterError
from otpy.lm import LMResponse, Usage
from otpy.teleprompters import Teleprompter
from otpy.teleprompters.choosing import Objective, Rule, chosen, distinct, front, p_values, taking_least
from otpy.teleprompters.outcome_file import load_outcome
from otpy.teleprompters.run_journal import RunJournal
from otpy.teleprompters.tried import Candidate, Scores, Tried
from otpy.testing import LoopbackLM, Scripted
from otpy.testing.virtual_time import run_in_virtual_time
from tests.teleprompters.planted import METRIC, RIGHT, STUDENT, TRAIN, compiled, word, wrong

ROW = otpy.Example(word="pear", kind="fruit")
VAL = [otpy.Example(word=name, kind=kind) for name, kind in list(RIGHT.items()) * 1]


def candidate(name, scores, tokens=10, seconds=1.0, money=None):
    program = STUDENT if name == "student" else STUDENT.with_instructions(name)
    rows = [
        Tried(at, ROW, score, usage=Usage(tokens), seconds=seconds, money=None if money is None else Decimal(money))
        for at, score in enumerate(scores)
    ]
    return Candidate(name, program, Scores(program, tuple(rows)), {})


NAMED = [
    candidate("student", [0] * 20, tokens=100, seconds=2),
    candidate("good", [1] * 19 + [0], tokens=100, seconds=2),
    candidate("best", [1] * 20, tokens=900, seconds=2),
    candidate("quick", [1] * 19 + [0], tokens=200, seconds=1),
    candidate("beaten", [1] * 10 + [0] * 10, tokens=900, seconds=3),
]


class TestTheFront:
    def test_has_whatever_no_other_beats_in_score_cost_and_latency(self):
        assert [one.name for one in front(NAMED)] == ["good", "best", "quick"]

    @given(st.lists(st.tuples(*[st.integers(0, 3)] * 3), min_size=1, max_size=8))
    def test_beats_everything_that_is_not_on_it(self, values):
        several = [candidate(str(n), [s], tokens=t, seconds=w) for n, (s, t, w) in enumerate(values)]
        there = [values[int(one.name)] for one in front(several)]

        def beats(one, other):
            return one != other and one[0] >= other[0] and one[1] <= other[1] and one[2] <= other[2]

        assert there
        for value in values:
            assert (value in there) != any(beats(one, value) for one in values)
        assert taking_least(several, Objective("latency", 3)) in front(several)

    def test_counts_dollars_only_if_all_prices_are_known(self):
        cheap, dear = candidate("a", [1], tokens=900, money="0.01"), candidate("b", [1], tokens=10, money="0.02")
        assert taking_least([cheap, dear], Objective("cost")) is cheap
        assert taking_least([cheap, candidate("c", [1], tokens=20)], Objective("cost")).name == "c"


class TestAnObjective:
    def test_of_cost_is_the_same_program_however_long_the_model_took(self):
        ones = [candidate("a", [1], seconds=2), candidate("b", [1], seconds=1)]
        assert taking_least(ones, Objective("cost")).name == "a"
        assert taking_least(ones, Objective("latency")).name == "b"

    def test_takes_the_cheapest_of_those_near_the_best(self):
        assert taking_least(NAMED, Objective("cost", within=0.05)).name == "good"
        assert taking_least(NAMED, Objective("latency", within=0.05)).name == "quick"
        assert taking_least(NAMED, Objective("cost", within=0.04)).name == "best"
        assert taking_least(NAMED, Objective("cost", within=1)).name == "good"  # of equals the better

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (("money",), r"least='money'; allowed: 'cost', 'latency'"),
            (("cost", -0.1), r"within=-0\.1; allowed: a number >= 0"),
            (("cost", True), r"within=True; allowed"),
            (("cost", float("nan")), r"within=nan; allowed"),
        ],
    )
    def test_that_says_nothing_sensible_is_refused(self, arguments, words):
        with pytest.raises(TeleprompterError, match=words):
            Objective(*arguments)


class TestAcceptance:
    SURE = Rule("significant")

    def test_returns_the_student_unless_another_is_better_at_the_level(self):
        student, better = candidate("student", [0, 1] * 10), candidate("a", [0, 1] * 9 + [1, 1])
        assert chosen(self.SURE, [student, better], student, better.program) is student
        assert chosen(self.SURE, NAMED, NAMED[0], NAMED[2].program) is None
        assert chosen(self.SURE, NAMED, NAMED[0], NAMED[0].program).name == "best"

    def test_is_harder_for_the_best_of_many(self):
        student, better = candidate("student", [0] * 20), candidate("a", [1] * 6 + [0] * 14)
        assert chosen(self.SURE, [student, better], student, better.program) is None
        others = [candidate(str(n), [0] * 20) for n in range(2)]
        assert chosen(self.SURE, [student, better, *others], student, better.program) is student
        assert p_values([student, better, *others], student)["a"] == pytest.approx(3 * 2 / 2**6)

    def test_that_is_worse_for_sure_is_no_reason(self):
        student, worse = candidate("student", [1] * 20), candidate("a", [0] * 20)
        assert chosen(self.SURE, [student, worse], student, worse.program) is student

    def test_and_an_objective_choose_the_cheapest_of_what_is_better_for_sure(self):
        assert chosen(Rule("significant", 0.05, Objective("cost", 0.05)), NAMED, NAMED[0], None).name == "good"

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            ({"accept": "sure"}, r"accept='sure'; allowed: 'best', 'significant'"),
            ({"level": 0}, r"level=0; allowed: a number between 0 and 1"),
            ({"level": True}, r"level=True"),
            ({"objective": "cost"}, r"objective='cost'; allowed: an Objective"),
        ],
    )
    def test_that_says_nothing_sensible_is_refused(self, arguments, words):
        with pytest.raises(TeleprompterError, match=words):
            Rule(**arguments)

    def test_programs_that_were_measured_twice_or_in_part_count_once_or_not(self):
        again = Candidate("again", NAMED[1].program, NAMED[1].scores, {})
        part = candidate("part", [1])
        assert distinct([*NAMED, again, part], NAMED[0]) == NAMED


class Two(Teleprompter[otpy.Predict]):
    """Tries a long and a short instruction, and one that is wrong."""

    uses_valset = True
    metric = staticmethod(METRIC)

    async def search(self, lab, student, trainset, valset, teacher):
        rows = list(enumerate(valset))
        for text in ("Long. " * 50, "Short.", "Wrong."):
            await lab.candidate(text[:5], await lab.evaluate(student.with_instructions(text), rows))
        return lab.best.program


def script(body):
    asked, system = word(body), body["messages"][0]["content"]
    right = "Long." in system or ("Short." in system and asked != "pear")
    return {"kind": RIGHT[asked] if right else wrong(RIGHT[asked])}


class TestARun:
    def test_returns_the_cheapest_near_the_best_and_says_so(self):
        program, _ = compiled(Two(), script, valset=VAL, objective=Objective("cost", within=0.05))
        outcome = otpy.outcome_of(program)
        assert program.signature.instructions == "Short."
        assert outcome.score == 0.95
        assert "of those within 5 points of the best, this takes the least cost" in str(outcome)
        assert outcome.leader.name == "Long."
        assert outcome.cheapest(0.05).name == "Short"
        assert outcome.cheapest(0.01).name == "Long."
        assert {one.name for one in outcome.front} >= {"Long.", "Short"}

    def test_takes_the_first_of_equals_or_the_cheapest_of_them_if_that_is_asked_for(self, tmp_path):
        found = {}
        for width in (1, 8):
            search = Two()
            search.max_concurrency = width
            given = {"valset": VAL, "journal": tmp_path / str(width)}
            for within in (None, 0):
                objective = None if within is None else Objective("cost", within=within)
                program, server = compiled(search, lambda body: {"kind": "tool"}, **given, objective=objective)
                outcome = otpy.outcome_of(program)
                assert len({one.score for one in outcome.measured}) == 1
                found[width, within] = outcome.best.name
        assert found == {(1, None): "student", (8, None): "student", (1, 0): "Short", (8, 0): "Short"}
        assert server.requests == []

    def test_that_shows_nothing_better_returns_the_student(self):
        program, _ = compiled(Two(), script, valset=VAL[:3], accept="significant")
        outcome = otpy.outcome_of(program)
        assert program == STUDENT
        assert outcome.best.name == "student"
        assert "none is better at the 5 % level, corrected for 3 candidates ('Long.' scores 100.0 %" in str(outcome)
        better, _ = compiled(Two(), script, valset=VAL, accept="significant")
        assert better.signature.instructions.startswith("Long.")
        assert "; better at the 5 % level, corrected for 3 candidates" in str(otpy.outcome_of(better))

    def test_whose_journal_is_there_chooses_again_by_another_rule_and_asks_nothing(self, tmp_path):
        first, _ = compiled(Two(), script, valset=VAL, journal=tmp_path / "run")
        again, server = compiled(
            Two(), script, valset=VAL, journal=tmp_path / "run", objective=Objective("cost", within=0.05)
        )
        assert server.requests == []
        assert first.signature.instructions.startswith("Long.")
        assert again.signature.instructions == "Short."
        seconds = [[one.scores.seconds for one in otpy.outcome_of(each).candidates] for each in (first, again)]
        assert seconds[0] == seconds[1]
        assert min(seconds[0]) > 0

    @pytest.mark.parametrize("rule", [{"accept": "significant"}, {"objective": Objective("cost")}])
    def test_that_measures_nothing_has_nothing_to_choose_by(self, rule):
        with pytest.raises(TeleprompterError, match=rf"measures no candidates.*; leave out {next(iter(rule))}"):
            compiled(otpy.LabeledFewShot(2), script, **rule)
        with pytest.raises(TeleprompterError, match="has measured no candidates"):
            otpy.outcome_of(compiled(otpy.LabeledFewShot(2), script)[0]).cheapest()

    def test_knows_what_a_row_costs_where_there_are_prices(self, tmp_path):
        async def main():
            with LoopbackLM(script) as server:
                client = {"model": "openai/x", "base_url": server.url, "api_key": "none"}
                client |= {"input_price": 1, "output_price": 2}
                async with otpy.start(settings={"clients": {"default": client}, "cache": {"enabled": False}}):
                    return await Two().start(STUDENT, trainset=TRAIN, valset=VAL).result()

        outcome = asyncio.run(main())
        assert outcome.money > 0
        known = {one.name: one.scores.money for one in outcome.measured}
        assert known["Long."] > known["Short"] > 0
        assert float(outcome.money) == pytest.approx(sum(known.values()) * len(VAL))
        assert "dollars" in outcome.table()
        assert str(outcome).endswith(f" tokens, ${outcome.money:.4f}")
        outcome.save(tmp_path / "found.json")
        back = load_outcome(tmp_path / "found.json")
        assert (back.table(), str(back)) == (outcome.table(), str(outcome))


class TestWhatAnAnswerTook:
    def test_is_told_again_when_it_comes_from_the_tape(self):
        async def asked():
            await asyncio.sleep(3)
            return LMResponse("yes")

        async def main():
            with RunJournal(None, {}) as journal:
                meters = [[], []]
                for meter in meters:
                    tape = Tape(journal, None, lambda client, _: Decimal(len(client)), asyncio.get_running_loop().time)
                    with metered(meter):
                        await tape.answer("a", asked, "ab")
                return meters

        assert run_in_virtual_time(main()) == [[Took(3.0, Decimal(2))]] * 2

    def test_counts_for_refusals_and_for_those_who_waited_for_the_same(self):
        async def refused():
            await asyncio.sleep(2)
            raise LMRefusal("no")

        async def main():
            with RunJournal(None, {}) as journal:
                tape, meter = Tape(journal, clock=asyncio.get_running_loop().time), []
                with metered(meter):
                    await asyncio.gather(*(tape.answer("a", refused) for _ in range(2)), return_exceptions=True)
                return meter

        assert run_in_virtual_time(main()) == [Took(2.0)] * 2


class TestAFile:
    @pytest.fixture
    def found(self):
        return otpy.outcome_of(compiled(Two(), script, valset=VAL, objective=Objective("cost", 0.05))[0])

    def test_has_the_program_where_it_comes_from_and_how_all_candidates_did(self, found, tmp_path):
        found.save(tmp_path / "found.json")
        back = load_outcome(tmp_path / "found.json")
        assert str(back) == str(found)
        assert back.program(STUDENT) == found.program
        assert back.program_hash == found.program.content_hash()
        assert back.lineage.parent == STUDENT.content_hash()
        assert (back.lineage.data, back.lineage.seed) == (found.data, found.seed)
        assert (back.requests, back.tokens, back.money) == (found.requests, found.tokens, found.money)
        assert back.rule == found.rule
        for read, one in zip(back.candidates, found.candidates, strict=True):
            assert list(read.scores) == one.scores.values
            assert back.program(STUDENT, read.name) == one.program

    def test_is_shown_as_the_outcome_was(self, found, tmp_path, capsys):
        found.save(tmp_path / "found.json")
        found.print()
        shown = capsys.readouterr().out
        assert "tokens, seconds: of a row" in shown
        assert "dollars" not in shown
        load_outcome(tmp_path / "found.json").print()
        assert capsys.readouterr().out == shown

    @pytest.mark.parametrize("change", ["edited", "newer", "other", "cut", "gone"])
    def test_that_is_not_as_it_was_written_is_refused(self, found, tmp_path, change):
        path = tmp_path / "found.json"
        found.save(path)
        data = json.loads(path.read_text())
        if change == "edited":
            data["candidates"][0]["score"] = 1
        if change == "newer":
            data["format"] = 9
        if change == "other":
            data["kind"] = "program"
        path.write_text(json.dumps(data)[: 100 if change == "cut" else None])
        if change == "gone":
            path.unlink()
        words = {"edited": "does not match its hash", "newer": "format 9", "other": "not a saved outcome"}
        with pytest.raises(TeleprompterError, match=words.get(change, "found.json")):
            load_outcome(path)

    def test_is_for_programs_of_the_same_structure(self, found, tmp_path):
        found.save(tmp_path / "found.json")
        back = load_outcome(tmp_path / "found.json")
        with pytest.raises(TeleprompterError, match=r"found\.json"):
            back.program(otpy.Predict("question -> answer"))
        with pytest.raises(TeleprompterError, match=r"no candidate 'x'; there are student, Long\., Short, Wrong"):
            back.program(STUDENT, "x")

    def test_that_cannot_be_written_leaves_the_old_one(self, found, tmp_path):
        with pytest.raises(TeleprompterError, match="cannot be written"):
            found.save(tmp_path / "no" / "such" / "found.json")


def renamed(outcome, name):
    """The same outcome, with another name for its best candidate."""
    best = replace(outcome.best, name=name)
    return replace(outcome, best=best, candidates=tuple(best if c is outcome.best else c for c in outcome.candidates))


class TestShown:
    def test_a_table_has_all_candidates_the_best_first(self, capsys):
        outcome = otpy.outcome_of(compiled(Two(), script, valset=VAL)[0])
        lines = outcome.table(width=100).splitlines()
        assert [line.split("%")[0].split()[-2] for line in lines[1:5]] == ["Long.", "Short", "student", "Wrong"]
        assert lines[1].startswith("→*")
        assert "Lo…" not in outcome.table(width=80)
        assert "extraor…" in renamed(outcome, "extraordinarily long").table(width=20)
        outcome.print(1)
        printed = capsys.readouterr().out
        assert printed.startswith(str(outcome))
        assert "and 3 more" in printed

    def test_a_page_shows_names_as_text(self):
        class Odd(Two):
            async def search(self, lab, student, trainset, valset, teacher):
                program = student.with_instructions("Short.")
                await lab.candidate("<script>", await lab.evaluate(program, list(enumerate(valset))))
                return program

        outcome = otpy.outcome_of(compiled(Odd(), script, valset=VAL)[0])
        assert "&lt;script&gt;" in outcome._repr_html_()
        assert "<script>" not in outcome._repr_html_()

    def test_an_outcome_without_candidates_says_that(self):
        outcome = otpy.outcome_of(compiled(otpy.LabeledFewShot(2), script)[0])
        assert outcome.table() == "nothing was measured on all rows\n"
        assert "nothing was measured" in outcome._repr_html_()


def test_a_row_whose_model_failed_has_taken_its_time():
    def failing(body):
        return Scripted("no", status=400) if word(body) == "pear" else script(body)

    outcome = otpy.outcome_of(compiled(Two(), failing, valset=VAL)[0])
    assert outcome.student.scores.failed == 1
    assert outcome.student.scores.seconds > 0

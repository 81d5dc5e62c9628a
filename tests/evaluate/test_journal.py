"""The journal: what was reported is on disk, and a row read back is the row that was reported."""

import asyncio
import contextlib
import copy
import dataclasses
import datetime as dt
import enum
import hashlib
import json
import os
import pickle
import resource
import subprocess
import sys
import tempfile
from contextlib import aclosing
from decimal import Decimal
from pathlib import Path
from typing import Any

import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

import otpy
from otpy.clients.running import running
from otpy.errors import (
    AdapterParseError,
    BudgetExceeded,
    CircuitOpen,
    EvaluationError,
    LMAuthError,
    LMContextWindowExceeded,
    LMStatusError,
    LMTimeout,
)
from otpy.evaluate import Failed, Score, Scored
from otpy.evaluate import journal_file as files
from otpy.evaluate.journal import Journal, JournalError, asked
from otpy.evaluate.journal_failures import RecordedFailure
from otpy.evaluate.journal_keys import Offsets, key_of
from otpy.evaluate.journal_lines import head_of, kept, row_line, row_of, signatures_of
from otpy.evaluate.recorded import Recorded
from otpy.lm import Usage
from otpy.programs import ChainOfThought, Predict, Program
from otpy.signatures import Example, InputField, OutputField, Prediction, Signature
from otpy.telemetry import bus

PROGRAM = Predict("question -> answer")


def opened(path, program=PROGRAM, metric_name="exact_match", **options):
    return Journal(path, program=program, metric_name=metric_name, **options)


def example(number):
    return Example(question=f"number {number}?", answer=str(number)).with_inputs("question")


def scored(index, row, answer="?", repeat=0):
    return Scored(index, row, Prediction(answer=answer), 1.0, 0.25, Usage(10, 2, requests=1), repeat=repeat)


def written(path, rows, **options):
    """Journal rows in one run; returns those that it was told of."""

    async def main():
        async with opened(path, **options) as journal:
            for row in rows:
                assert journal.take(row.index, row.example, row.repeat) is None
            await asyncio.gather(*map(journal.put, rows))

    asyncio.run(main())


@contextlib.contextmanager
def again(path, **options):
    journal = opened(path, **options)
    try:
        yield journal
    finally:
        journal.close()


# -- rows ----------------------------------------------------------------------------------------------------------

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
numbers = st.floats(allow_nan=False, allow_infinity=False)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | numbers | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
usages = st.builds(Usage, *[st.integers(0, 9)] * 6)
scores = numbers | st.builds(Score, numbers, texts, st.dictionaries(texts, numbers, max_size=2))
rows = st.builds(
    Scored,
    st.integers(0, 9),
    st.just(example(1)),
    st.builds(
        lambda fields, usage, said: Prediction(fields, usage=usage, attempts=tuple(said)),
        st.dictionaries(texts, values, max_size=3),
        usages,
        st.lists(texts, max_size=2),
    ),
    scores,
    numbers,
    usages,
    st.none() | st.decimals(allow_nan=False, allow_infinity=False),
    st.integers(0, 9),
    st.integers(0, 3),
)


@given(rows)
def test_a_row_read_back_is_the_row_that_was_written(row):
    line = row_line(row, key_of(row.example), 0, {})
    found = row_of(line, row.index, row.example, {})
    assert found == row
    assert (type(found.score), found.feedback) == (type(row.score), row.feedback)
    assert getattr(found.score, "subscores", None) == getattr(row.score, "subscores", None)
    assert (found.prediction.usage, found.prediction.attempts) == (row.prediction.usage, row.prediction.attempts)
    assert line.count(b"\n") == 1


class Colour(enum.Enum):
    RED = "red"


class Place(pydantic.BaseModel):
    town: str
    founded: dt.date


class Survey(Signature):
    """Look."""

    question: str = InputField()
    colour: Colour = OutputField()
    places: list[Place] = OutputField()
    kinds: frozenset[int] = OutputField()


class Surveyor(Program):
    survey: Predict = Predict(Survey)

    async def forward(self, question):
        return await self.survey.acall(question=question)


@pytest.mark.parametrize("program", [Predict(Survey), Surveyor(), ChainOfThought(Survey)])
def test_outputs_of_any_type_are_read_back_by_the_signature(program):
    outputs = {"colour": Colour.RED, "places": [Place(town="Rome", founded="0753-04-21")], "kinds": frozenset({1, 2})}
    if isinstance(program, ChainOfThought):
        outputs = {"reasoning": "hm", **outputs}
    row = Scored(3, example(1), Prediction(outputs), 1.0, 0.5)
    line = row_line(row, key_of(row.example), 0, signatures_of(program))
    assert row_of(line, 3, row.example, signatures_of(program)) == row


class Loud(str):
    __slots__ = ()


def nested(levels):
    inner = []
    for _ in range(levels):
        inner = [inner]
    return inner


CYCLE = []
CYCLE.append({"again": CYCLE})
NO_JSON = {
    "tuple": (1, 2),
    "set": {1},
    "keys": {1: 2},
    "large": 10**5000,
    "deep": nested(3000),
    "cycle": CYCLE,
    "object": [object()],
}


@pytest.mark.parametrize("kind", NO_JSON)
def test_a_row_whose_prediction_is_no_json_has_failed_and_the_journal_goes_on(tmp_path, kind):
    row = Scored(7, example(1), Prediction(answer=NO_JSON[kind]), 1.0, 0.5, Usage(1, 2), Decimal(1), 3, 0)

    async def main():
        async with opened(tmp_path / "j") as journal:
            assert journal.take(7, example(1)) is None
            became = await journal.put(row)
            assert await journal.put(scored(8, example(2))) == scored(8, example(2))
        return became

    became = asyncio.run(main())
    assert isinstance(became, Failed)
    assert isinstance(became.reason, EvaluationError)
    assert "row 7: its prediction cannot be kept in a journal: 'answer' is " in became.explanation
    assert "neither JSON data nor an output of" in became.explanation
    assert (became.where, became.usage, became.money, became.attempts) == ("program", row.usage, row.money, 3)
    with again(tmp_path / "j") as journal:
        assert (journal.count, journal.damaged) == (2, [])
        assert journal.take(7, example(1)).explanation == became.explanation


def test_an_output_whose_name_is_no_text_costs_its_row_too():
    _, line = kept(Scored(0, example(1), Prediction({1: 2}), 1.0, 0.5), key_of(example(1)), 0, {})
    assert "the name of an output is no text" in row_of(line, 0, example(1), {}).explanation


ODD = [LMTimeout(10**5000), ValueError(10**5000), LMStatusError("no", status=10**5000, body=CYCLE)]


@pytest.mark.parametrize("reason", ODD, ids=range(len(ODD)))
def test_a_failure_with_anything_in_it_is_kept(reason):
    assert read_back(failed(reason)).kind == type(reason).__name__


# -- failures ------------------------------------------------------------------------------------------------------

OURS = [
    LMTimeout("late", client="default", model="m", retry_after=1.5),
    LMStatusError("no", status=404, body="not found"),
    AdapterParseError("Triage", "dunno", ("intent",), "not one of these"),
    BudgetExceeded("enough", cap="day", limit=Decimal("1.5"), spent=Decimal("1.4"), asked=None),
    CircuitOpen("default", 2.5, ValueError("the last")),
]


def failed(reason, where="program"):
    return Failed(4, example(1), reason, where, 0.5, Usage(1, 2, requests=1), money=Decimal("0.01"), attempts=3)


def read_back(row):
    return row_of(row_line(row, key_of(row.example), 0, {}), row.index, row.example, {})


@pytest.mark.parametrize("reason", OURS, ids=lambda reason: type(reason).__name__)
def test_our_own_errors_come_back_as_what_they_were(reason):
    found = read_back(failed(reason))
    assert type(found.reason) is type(reason)
    assert (found.explanation, found.kind) == (failed(reason).explanation, failed(reason).kind)
    same = {name: value for name, value in vars(reason).items() if name != "last"}
    assert {name: vars(found.reason)[name] for name in same} == same
    assert found.reason.retryable == reason.retryable
    assert (found.money, found.attempts, found.usage) == (Decimal("0.01"), 3, Usage(1, 2, requests=1))


@pytest.mark.parametrize("reason", [ZeroDivisionError("division by zero"), KeyError("name"), ValueError()])
def test_errors_of_others_come_back_as_something_that_prints_alike(reason):
    found = read_back(failed(reason))
    assert isinstance(found.reason, RecordedFailure)
    assert (found.explanation, found.kind) == (failed(reason).explanation, failed(reason).kind)
    assert found == read_back(failed(reason))
    assert pickle.loads(pickle.dumps(found.reason)) == found.reason


def test_an_exit_reason_comes_back_as_its_word():
    assert read_back(failed("timeout", "task")) == failed("timeout", "task")
    assert read_back(failed({"odd": 1}, "task")).kind == failed({"odd": 1}, "task").kind


def test_an_exception_whose_text_raises_costs_no_run():
    class Detached(Exception):
        def __str__(self):
            raise RuntimeError("not now")

    assert read_back(failed(Detached())).explanation == "Detached: (its text raises RuntimeError)"


PASSING = ["timeout", "killed", LMTimeout("late"), LMAuthError("no key"), BudgetExceeded("enough"), TimeoutError()]
FINAL = [ValueError("mine"), OURS[2], LMContextWindowExceeded("long"), EvaluationError("nan")]


@pytest.mark.parametrize(
    ("retry_failed", "reasons", "asked_again"),
    [
        (None, PASSING, True),
        (None, FINAL, False),
        (True, [*PASSING, *FINAL], True),
        (False, [*PASSING, *FINAL], False),
    ],
)
def test_failed_rows_are_asked_again_if_it_may_help_or_as_one_wishes(tmp_path, retry_failed, reasons, asked_again):
    fates = [Failed(n, example(n), reason, "program", 0.5) for n, reason in enumerate(reasons)]
    written(tmp_path / "j", fates)
    with again(tmp_path / "j", retry_failed=retry_failed) as journal:
        found = [journal.take(n, example(n)) for n in range(len(reasons))]
    assert [row is None for row in found] == [asked_again] * len(reasons)
    if not asked_again:
        assert [row.explanation for row in found] == [row.explanation for row in fates]


def test_what_a_row_that_was_asked_again_came_to_replaces_its_failure(tmp_path):
    written(tmp_path / "j", [Failed(0, example(0), "timeout", "task", 0.5)])
    written(tmp_path / "j", [scored(0, example(0), "at last")])
    for retry in (None, False):
        with again(tmp_path / "j", retry_failed=retry) as journal:
            assert journal.take(0, example(0)) == scored(0, example(0), "at last")


# -- which row is which --------------------------------------------------------------------------------------------


def test_equal_examples_are_rows_of_their_own_whichever_ended_first(tmp_path):
    async def main():
        async with opened(tmp_path / "j") as journal:
            assert [journal.take(index, example(1)) for index in range(3)] == [None] * 3
            await journal.put(scored(2, example(1), "third"))
            await journal.put(scored(0, example(1), "first"))

    asyncio.run(main())
    with again(tmp_path / "j") as journal:
        found = [journal.take(index, example(1)) for index in range(4)]
        assert found == [scored(0, example(1), "first"), None, scored(2, example(1), "third"), None]


def test_rows_may_be_added_moved_and_left_out(tmp_path):
    written(tmp_path / "j", [scored(n, example(n), f"answer {n}") for n in range(4)])
    with again(tmp_path / "j") as journal:
        devset = [example(3), example(9), example(1), example(0)]
        found = [journal.take(index, row) for index, row in enumerate(devset)]
    assert [row and (row.index, row.prediction.answer) for row in found] == [
        (0, "answer 3"),
        None,
        (2, "answer 1"),
        (3, "answer 0"),
    ]


def test_repeats_are_rows_of_their_own(tmp_path):
    written(tmp_path / "j", [scored(0, example(0), f"run {repeat}", repeat) for repeat in range(2)])
    with again(tmp_path / "j") as journal:
        assert [journal.known(example(0), repeat) for repeat in range(3)] == [True, True, False]
        assert journal.take(0, example(0), 1) == scored(0, example(0), "run 1", 1)
        assert [journal.known(example(0), repeat) for repeat in range(3)] == [True, False, False]
        assert [row.prediction.answer for row in journal.rows([example(0)], repeats=3)] == ["run 0", "run 1"]


def test_ten_thousand_equal_examples_are_told_apart_in_no_time(tmp_path):
    written(tmp_path / "j", [scored(n, example(0), str(n)) for n in range(10_000)])
    with again(tmp_path / "j") as journal:
        assert [journal.take(n, example(0)).prediction.answer for n in range(10_000)] == [str(n) for n in range(10_000)]
        assert journal.take(10_000, example(0)) is None


KEYS = """
import datetime as dt, decimal, enum, pathlib
from otpy.evaluate.journal_keys import key_of
from otpy.lm import Media
from otpy.signatures import Example
Colour = enum.Enum("Colour", "RED BLUE")
print(key_of(Example(
    a={"y": 1, "x": [None, True, 0.1, "\\ud800"]}, b={(1, 2): {3}, None: {"b", "a", "c"}}, c=Colour.RED, d=b"bytes",
    e=dt.datetime(2020, 1, 1), f=decimal.Decimal("0.10"), g=pathlib.PurePosixPath("/x"),
    h=Media("image", "image/png", b"png"), i=(1, (2,)),
)).hex())
"""


def test_a_key_is_the_same_in_every_process():
    keys = {
        subprocess.run(
            [sys.executable, "-c", KEYS], env=os.environ | {"PYTHONHASHSEED": seed}, capture_output=True, check=True
        ).stdout
        for seed in ("1", "2")
    }
    assert len(keys) == 1


@given(values, values)
def test_keys_differ_where_contents_do(one, other):
    same = json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
    assert (key_of(Example(a=one)) == key_of(Example(a=other))) == same


class Secretive:
    def __fspath__(self):
        return "x"

    def __str__(self):
        raise RuntimeError("not now")


UNTOLD = [([object()], "of type object"), (CYCLE, "holds itself"), ({1: nested(3000)}, "too many levels")]
UNTOLD += [(Secretive(), r"raises RuntimeError\('not now'\)")]


@pytest.mark.parametrize(("value", "why"), UNTOLD)
def test_an_example_whose_content_nothing_can_tell_has_failed_and_is_not_written(tmp_path, value, why):
    with pytest.raises(EvaluationError, match=f"{why}.*put in its place JSON data"):
        key_of(Example(a=value))
    with again(tmp_path / "j") as journal:
        found = journal.take(3, Example(a=value), 1)
        assert (found.index, found.repeat, found.where, found.kind) == (3, 1, "task", "EvaluationError")
        assert not journal.expects(found)
        assert list(journal.rows([Example(a=value)])) == []


@dataclasses.dataclass
class Point:
    x: Any


APART = [
    ({1: "a"}, {"1": "a"}),
    ({None: 1}, {"null": 1}),
    ({True: 1}, {"true": 1}),
    ({1: "a"}, ["map", ["1", '"a"']]),
    ((1, 2), [1, 2]),
    ([(1, 2), {3}], ["list", ["tuple", 1, 2], ["set", "3"]]),
    ({1, 2}, ["set", "1", "2"]),
    (b"x", ["bytes", hashlib.blake2b(b"x", digest_size=16).hexdigest()]),
    (dt.date(2020, 1, 1), ["date", "2020-01-01"]),
    (dt.date(2020, 1, 1), ["value", "date", "2020-01-01"]),
    (Colour.RED, ["value", "Colour", "RED"]),
    (Point(1), Point(1.0)),
    (Point((1,)), Point([1])),
    (Loud("x"), "x"),
    (10**5000, hex(10**5000)),
    (1, True),
    (1, 1.0),
]


@pytest.mark.parametrize(("one", "other"), APART, ids=range(len(APART)))
def test_kinds_that_look_alike_have_keys_of_their_own(one, other):
    assert key_of(Example(a=one)) == key_of(Example(a=copy.deepcopy(one)))
    assert key_of(Example(a=one)) != key_of(Example(a=other))
    assert key_of(Example(a={0: one})) != key_of(Example(a={0: other}))


@given(st.lists(st.tuples(st.integers(1, 2**64 - 1) | st.integers(1, 40), st.integers(0, 2**64 - 1)), max_size=200))
def test_offsets_are_a_dictionary(pairs):
    offsets, model = Offsets(), {}
    for key, value in pairs:
        offsets[key] = model[key] = value
    assert {key: offsets[key] for key in model} == model
    assert len(offsets) == len(model)
    assert offsets[41 << 57 | 1] == model.get(41 << 57 | 1, 0)


# -- the file ------------------------------------------------------------------------------------------------------


def test_wherever_the_file_was_cut_off_the_rows_before_are_there_and_it_goes_on(tmp_path):
    path = tmp_path / "j"
    fates = [scored(n, example(n)) for n in range(2)]
    written(path, fates)
    whole = path.read_bytes()
    header = whole.index(b"\n") + 1
    ends = [position + 1 for position, byte in enumerate(whole) if byte == 10]
    for cut in (*range(0, header, 40), *range(header, len(whole) + 1, 7), *ends, *[end - 1 for end in ends]):
        path.write_bytes(whole[:cut])
        with again(path) as journal:
            found = [journal.take(n, example(n)) for n in range(2)]
            left = sum(cut >= end - 1 for end in ends[1:])
            assert found == [*fates[:left], *[None] * (2 - left)]
            torn = cut > header and cut not in ends and cut + 1 not in ends
            assert journal.damaged == ([left + 2] if torn else [])
        written(path, [scored(9, example(9))])
        with again(path) as journal:
            assert journal.warning is None
            assert journal.count == left + 1


def test_damaged_lines_are_skipped_and_told(tmp_path):
    path = tmp_path / "j"
    written(path, [scored(n, example(n)) for n in range(3)])
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:2], b"\0" * 40 + b"\n", b"[]\n", *lines[3:]]))
    seen = []
    with (
        bus.attached("test", lambda event, fields: seen.append((event, fields)), "otpy.journal."),
        again(path) as found,
    ):
        assert [found.take(n, example(n)) is None for n in range(3)] == [False, True, False]
    assert seen == [("otpy.journal.damaged", {"path": str(path), "lines": (3, 4)})]
    assert "damaged lines were skipped: 3, 4" in found.warning


def test_a_line_that_is_damaged_inside_is_asked_again(tmp_path):
    path = tmp_path / "j"
    written(path, [scored(0, example(0))])
    path.write_bytes(path.read_bytes().replace(b'"seconds":0.25', b'"seconds":\0\0\0\0'))
    with again(path) as journal:
        assert journal.take(0, example(0)) is None
        assert journal.count == 0


def test_no_byte_of_a_line_can_be_another_one_unnoticed():
    line = row_line(scored(0, example(0)), key_of(example(0)), 0, {})
    for place, byte in enumerate(line[:-1]):
        for other in range(256):
            changed = line[:place] + bytes([other]) + line[place + 1 :]
            if other != byte:
                with pytest.raises(ValueError, match="damaged"):
                    head_of(changed, former=True)


@given(st.data())
def test_wherever_a_byte_of_a_journal_changes_it_is_told_and_no_row_is_another(data):
    rows = [scored(0, example(0), "yes"), failed(ValueError("no")), scored(2, example(2), "maybe")]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "j"
        written(path, rows)
        whole = path.read_bytes()
        place = data.draw(st.integers(0, len(whole) - 1))
        byte = data.draw(st.integers(0, 255).filter(lambda byte: byte != whole[place]))
        path.write_bytes(whole[:place] + bytes([byte]) + whole[place + 1 :])
        try:
            journal = opened(path)
        except JournalError:
            assert place <= whole.index(b"\n")
            return
        found = [journal.take(row.index, row.example) for row in rows]
        journal.close()
        assert journal.damaged
        for row, again in zip(rows, found, strict=True):
            assert again is None or (again.explanation if isinstance(again, Failed) else again) == (
                row.explanation if isinstance(row, Failed) else row
            )


FORMER_JOURNAL = (
    b'{"v":1,"journal":"otpy.evaluate",%b\n'
    b'{"v":1,"key":"%b","repeat":0,"time":0,"fate":"scored","index":0,"prediction":{"answer":"?"},"score":1.0,'
    b'"seconds":0.25,"usage":[10,2,0,0,1,0],"attempts":0,"money":"%b"}\n'
)


def former(path, money):
    """Write a journal of the version before, which has no checksums."""
    written(path, [])
    about = path.read_bytes().split(b",", 2)[2].rpartition(b',"crc"')[0] + b"}"
    path.write_bytes(FORMER_JOURNAL % (about, key_of(example(0)).hex().encode(), money))


def test_a_journal_of_the_version_before_is_read_and_goes_on(tmp_path):
    path = tmp_path / "j"
    former(path, b"0.5")
    written(path, [scored(1, example(1))])
    with again(path) as journal:
        assert journal.take(0, example(0)) == dataclasses.replace(scored(0, example(0)), money=Decimal("0.5"))
        assert journal.take(1, example(1)) == scored(1, example(1))
        assert journal.warning is None


@pytest.mark.parametrize("damage", [(b'"0.5"', b'"g"'), (b'"0.5"', b"[]"), (b"[10,2,0,0,1,0]", b"10")])
def test_what_is_damaged_inside_a_line_without_checksum_is_asked_again_and_told(tmp_path, damage):
    path = tmp_path / "j"
    former(path, b"0.5")
    path.write_bytes(path.read_bytes().replace(*damage))
    with again(path) as journal:
        assert journal.take(0, example(0)) is None
        assert journal.damaged == [2]
        assert "damaged lines were skipped: 2;" in journal.warning


def test_a_journal_whose_first_line_is_damaged_is_refused_with_the_next_step(tmp_path):
    path = tmp_path / "j"
    written(path, [scored(0, example(0))])
    path.write_bytes(path.read_bytes().replace(b"exact_match", b"exact_watch", 1))
    with pytest.raises(JournalError, match=r"its first line.*is damaged; choose another path, or forget what is there"):
        opened(path)


class Chooser(Program):
    answer: Predict = Predict("question -> answer")
    best_of: int = 3

    async def forward(self, question):
        return await self.answer.acall(question=question)


@pytest.mark.parametrize(
    ("first", "second", "words"),
    [
        ({}, {"metric_name": "f1"}, r"metric: 'exact_match' in the journal, 'f1' now"),
        (
            {},
            {"program": PROGRAM.with_config(temperature=0.7)},
            r"config\.temperature: nothing in the journal, 0\.7 now",
        ),
        ({}, {"program": PROGRAM.with_instructions("Be brief.")}, r"instructions: .* in the journal, 'Be brief\.' now"),
        ({}, {"program": Predict("question -> answer: int")}, r"type: 'str' in the journal, 'int' now"),
        (
            {},
            {"program": PROGRAM.with_demos([{"question": "a", "answer": "b"}])},
            r"self\.demos: 0 in the journal, 1 now",
        ),
        ({"program": Chooser()}, {"program": Chooser(best_of=5)}, r"best_of: '3' in the journal, '5' now"),
        (
            {"asked": {"default": {"model": "openai/a"}}},
            {"asked": {"default": {"model": "openai/b"}}},
            r"asked\.default\.model: 'openai/a' in the journal, 'openai/b' now",
        ),
    ],
)
def test_the_journal_of_something_else_is_refused_with_what_differs_and_the_next_step(tmp_path, first, second, words):
    path = tmp_path / "j"
    written(path, [scored(0, example(0))], **first)
    before = path.read_bytes()
    with pytest.raises(JournalError, match=words) as raised:
        opened(path, **second)
    assert f"Journal.clear({str(path)!r})" in str(raised.value)
    assert path.read_bytes() == before
    Journal.clear(path)
    with again(path, **second) as journal:
        assert journal.count == 0


def test_the_models_behind_a_program_are_what_was_asked():
    async def main():
        clients = {name: {"model": f"openai/{name}", "api_key": "none"} for name in ("default", "spare", "unused")}
        settings = {
            "clients": clients,
            "routes": {"either": {"chain": ["default", "spare"]}},
            "cache": {"enabled": False},
        }
        async with otpy.start(settings=settings):
            return await asked(PROGRAM.with_client("either"), running().names)

    plain = {"temperature": None, "max_tokens": None}
    assert asyncio.run(main()) == {
        "either": {"chain": ["default", "spare"]},
        "spare": {"model": "openai/spare", **plain},
        "default": {"model": "openai/default", **plain},
    }


@pytest.mark.parametrize("content", [b"hello\n", b"hello", b'{"v":1,"id":"x"}\n', b"[1]\n", b"\xff\xfe\n"])
def test_a_file_that_is_no_journal_is_refused_and_left_as_it_is(tmp_path, content):
    path = tmp_path / "data.jsonl"
    path.write_bytes(content)
    for use in (opened, Journal.clear):
        with pytest.raises(JournalError, match="is no journal of an evaluation"):
            use(path)
    assert path.read_bytes() == content


def test_a_journal_of_another_version_is_refused(tmp_path):
    path = tmp_path / "j"
    written(path, [])
    path.write_bytes(path.read_bytes().replace(b'{"v":2,', b'{"v":3,'))
    with pytest.raises(JournalError, match="version 3, and this otpy reads 2; choose another path, or forget"):
        opened(path)


def test_a_path_that_cannot_be_written_is_refused_before_anything_is_asked(tmp_path):
    (tmp_path / "file").write_text("")
    paths = [(tmp_path, "Is a directory"), (tmp_path / "file" / "j", "Not a directory|File exists")]
    for path, why in [*paths, ("/dev/full", "no regular file")]:
        with pytest.raises(JournalError, match=why):
            opened(path)


@pytest.mark.parametrize(("path", "why"), [(5, "journal=5; allowed: the path of a file"), ("a\0b", "character NUL")])
def test_what_is_no_path_is_refused(path, why):
    for use in (opened, Journal.clear):
        with pytest.raises(JournalError, match=why):
            use(path)


def test_missing_folders_are_made_and_clearing_what_is_not_there_is_nothing(tmp_path):
    Journal.clear(tmp_path / "a" / "b" / "j")
    with again(tmp_path / "a" / "b" / "j"):
        pass
    assert (tmp_path / "a" / "b" / "j").exists()


def test_two_runs_cannot_write_one_journal(tmp_path):
    path = tmp_path / "j"
    held = opened(path)
    for use in (opened, Journal.clear):
        with pytest.raises(
            JournalError, match="in use: another run writes this journal; wait until it ends, or choose"
        ):
            use(path)
    script = (
        "import sys\nfrom otpy.evaluate.journal import Journal, JournalError\nfrom otpy.programs import Predict\n"
        "try:\n    Journal(sys.argv[1], program=Predict('question -> answer'), metric_name='exact_match').close()\n"
        "except JournalError:\n    print('refused')"
    )
    run = [sys.executable, "-c", script, str(path)]
    assert subprocess.run(run, capture_output=True, check=True).stdout == b"refused\n"
    held.close()
    assert subprocess.run(run, capture_output=True, check=True).stdout == b""


def test_a_run_that_was_dropped_keeps_no_lock(tmp_path):
    opened(tmp_path / "j")
    with again(tmp_path / "j"):
        pass


def test_a_process_that_was_forked_meanwhile_keeps_no_lock(tmp_path):
    held = opened(tmp_path / "j")
    end, told = os.pipe()
    waiting, release = os.pipe()
    child = os.fork()
    if not child:
        try:
            held.close()  # there is nothing to close for it, nor a lock to give up
            os.write(told, b"x")
            os.read(waiting, 1)
        finally:
            os._exit(0)
    try:
        os.read(end, 1)
        with pytest.raises(JournalError, match="in use"):
            opened(tmp_path / "j")
        held.close()
        opened(tmp_path / "j").close()
    finally:
        os.write(release, b"x")
        os.waitpid(child, 0)
        for descriptor in (end, told, waiting, release):
            os.close(descriptor)


# -- writing -------------------------------------------------------------------------------------------------------


def test_rows_that_finish_together_are_written_together_and_not_on_the_loop(tmp_path, monkeypatch):
    writes, synced = [], []
    write = os.write

    def counted(file, data):
        with pytest.raises(RuntimeError):
            asyncio.get_running_loop()
        writes.append(len(data))
        return write(file, data)

    async def main():
        async with await asyncio.to_thread(opened, tmp_path / "j") as journal:
            monkeypatch.setattr(files.os, "write", counted)
            monkeypatch.setattr(files.os, "fsync", synced.append)
            await asyncio.gather(*(journal.put(scored(n, example(n))) for n in range(2500)))

    asyncio.run(main())
    assert len(writes) == len(synced) == 3
    monkeypatch.undo()
    with again(tmp_path / "j") as journal:
        assert journal.count == 2500


def test_what_is_reported_is_on_disk(tmp_path):
    path = tmp_path / "j"

    async def main():
        async with opened(path) as journal:
            for n in range(20):
                await journal.put(scored(n, example(n)))
                assert path.read_bytes().endswith(row_line(scored(n, example(n)), key_of(example(n)), 0, {}))
                assert journal.count == n + 1

    asyncio.run(main())


def test_a_row_that_is_killed_while_it_is_written_harms_no_other(tmp_path):
    async def main():
        async with opened(tmp_path / "j") as journal:
            first, second = (asyncio.ensure_future(journal.put(scored(n, example(n)))) for n in range(2))
            await asyncio.sleep(0)
            first.cancel()
            await second
            assert first.cancelled()

    asyncio.run(main())
    with again(tmp_path / "j") as journal:
        assert journal.known(example(1))


def test_when_the_disk_is_full_the_run_is_told_and_what_was_reported_is_there(tmp_path):
    path = tmp_path / "j"
    reported = []

    async def row(journal, number):
        await journal.put(scored(number, example(number)))
        reported.append(number)

    async def main():
        async with opened(path) as journal:
            await row(journal, 0)
            soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 1000, hard))
            try:
                for start in range(1, 41, 2):
                    await asyncio.gather(row(journal, start), row(journal, start + 1))
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    with pytest.raises(
        JournalError, match=r"cannot be written: File too large; what was reported is in it; once it can"
    ):
        asyncio.run(main())
    with again(path) as journal:
        there = [n for n in range(41) if journal.take(n, example(n)) is not None]
    assert len(reported) > 1
    assert set(reported) <= set(there)
    assert len(there) < 41


def test_after_a_failed_write_nothing_more_is_taken(tmp_path, monkeypatch):
    def full(file, data):
        raise OSError(28, "No space left on device")

    async def main():
        async with opened(tmp_path / "j") as journal:
            monkeypatch.setattr(files.os, "write", full)
            waiting = [journal.add(scored(n, example(n)))[1] for n in range(2)]
            with pytest.raises(JournalError, match="No space left on device"):
                await waiting[0]
            monkeypatch.undo()
            with pytest.raises(JournalError, match="No space left on device"):
                await journal.put(scored(2, example(2)))
            assert journal.count == 0

    asyncio.run(main())


def test_a_file_that_is_deleted_meanwhile_is_told(tmp_path):
    async def main():
        async with opened(tmp_path / "j") as journal:
            (tmp_path / "j").unlink()
            await journal.put(scored(0, example(0)))

    with pytest.raises(JournalError, match="it was deleted while it was in use"):
        asyncio.run(main())


def test_a_closed_journal_takes_no_row_and_closing_twice_is_nothing(tmp_path):
    async def main():
        journal = opened(tmp_path / "j")
        journal.add(scored(0, example(0)))
        await journal.aclose()
        await journal.aclose()
        with pytest.raises(JournalError, match="is closed"):
            await journal.put(scored(1, example(1)))
        return list(journal.rows([example(0), example(1)]))

    assert asyncio.run(main()) == [scored(0, example(0))]


# -- a stream of rows ----------------------------------------------------------------------------------------------


def streamed(path, source, most=None):
    async def main():
        got = []
        async with (
            opened(path) as journal,
            aclosing(source(journal)) as rows,
            aclosing(Recorded(journal, rows)()) as out,
        ):
            async for row in out:
                assert row.index in {json.loads(line).get("index") for line in path.read_bytes().splitlines()}
                got.append(row)
                if len(got) == most:
                    break
        return got

    return asyncio.run(main())


def test_a_stream_of_rows_is_passed_on_in_its_order_when_they_are_on_disk_and_those_found_are_written_once(tmp_path):
    async def source(journal):
        for n in range(30):
            found = journal.take(n, example(n))
            if n % 7 == 0:
                await asyncio.sleep(0)
            yield scored(n, example(n)) if found is None else found

    every = [scored(n, example(n)) for n in range(30)]
    assert streamed(tmp_path / "j", source, most=10) == every[:10]
    assert streamed(tmp_path / "j", source) == every
    assert streamed(tmp_path / "j", source) == every
    assert len((tmp_path / "j").read_bytes().splitlines()) == 31


def test_when_a_stream_of_rows_breaks_those_before_are_passed_on_first(tmp_path):
    got = []

    async def source(journal):
        for n in range(3):
            journal.take(n, example(n))
            yield scored(n, example(n))
        raise LookupError("the supervisor is gone")

    async def main():
        async with opened(tmp_path / "j") as journal:
            async for row in Recorded(journal, source(journal))():
                got.append(row.index)  # noqa: PERF401 - it ends with an exception

    with pytest.raises(LookupError):
        asyncio.run(main())
    assert got == [0, 1, 2]


def test_leaving_a_stream_of_rows_early_stops_its_source(tmp_path):
    stopped = []

    async def source(journal):
        try:
            journal.take(0, example(0))
            yield scored(0, example(0))
            await asyncio.Event().wait()
        finally:
            stopped.append(True)

    assert len(streamed(tmp_path / "j", source, most=1)) == 1
    assert stopped == [True]


def test_rows_are_read_in_the_order_of_the_devset_one_at_a_time(tmp_path):
    written(tmp_path / "j", [scored(n, example(n)) for n in (3, 1, 0)])
    with again(tmp_path / "j") as journal:
        rows = journal.rows(example(n) for n in range(4))
        assert iter(rows) is rows
        assert [row.index for row in rows] == [0, 1, 3]


def test_a_slow_reader_of_a_stream_holds_its_source_up(tmp_path, monkeypatch):
    monkeypatch.setattr("otpy.evaluate.recorded.AHEAD", 5)
    made = []

    async def source(journal):
        for n in range(50):
            journal.take(n, example(n))
            made.append(n)
            yield scored(n, example(n))

    async def main():
        async with opened(tmp_path / "j") as journal, aclosing(Recorded(journal, source(journal))()) as out:
            async for row in out:
                for _ in range(20):
                    await asyncio.sleep(0)
                assert len(made) <= row.index + 1 + 2 * 5
        return len(made)

    assert asyncio.run(main()) == 50

"""A saved program is JSON by name, verified by its hash, written whole or not at all, and never a pickle."""

from __future__ import annotations

import datetime as dt
import json
import os
import threading
from typing import TYPE_CHECKING, Any, Literal

import pydantic
import pytest

from otpy.adapters import ChatAdapter, JSONAdapter
from otpy.errors import ProgramError, SignatureError
from otpy.programs import ChainOfThought, Predict, Program, load, load_file, save
from otpy.signatures import InputField, OutputField, Signature

if TYPE_CHECKING:
    from pathlib import Path


class Triage(Signature):
    """Classify the query."""

    query: str = InputField(desc="what the customer wrote")
    intent: Literal["card", "pin"] = OutputField()
    stars: int = OutputField(ge=1, le=5)


class Two(Program):
    ask: Predict = Predict("question -> query, day: date")
    answer: ChainOfThought = ChainOfThought(Triage)

    async def forward(self, question: str) -> Any:
        return await self.answer.acall(query=question)


LEARNED = (
    Two()
    .with_demos(
        {
            "ask": [{"question": "é\u2028\x00?", "query": "q", "day": dt.date(2026, 1, 2)}],
            "answer.predict": [{"query": "q", "reasoning": "r", "intent": "pin", "stars": 3}],
        }
    )
    .with_instructions({"ask": "Ask."})
    .with_config(temperature=0.3, max_tokens=9, max_reasks=2, rollout=1, adapter=ChatAdapter())
    .with_client("small")
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "program.json"


def edited(path: Path, change: Any, *, rehash: bool = False) -> None:
    state = json.loads(path.read_text())
    change(state)
    if rehash:
        from otpy.programs.files import content_hash

        state["hash"] = content_hash(state)
    path.write_text(json.dumps(state))


def test_what_is_saved_is_loaded_as_an_equal_program(path):
    save(LEARNED, path)
    for loaded in (load(Two(), path), load(Two, path), Two().load(str(path))):
        assert loaded == LEARNED
        assert loaded.content_hash() == LEARNED.content_hash()
    assert Two().ask.demos == ()


@pytest.mark.parametrize(
    "program",
    [
        Predict("question -> answer"),
        Predict(Triage, demos=[{"query": "q", "intent": "pin", "stars": 3}], temperature=0.5),
        ChainOfThought("q: list[str] -> a: dict[str, int | None], b: tuple[int, ...], c: datetime"),
        ChainOfThought(Triage).with_instructions("Think."),
        Predict(Signature("a -> b", "Do.", name="Named")),
    ],
    ids=repr,
)
def test_a_program_over_plain_types_is_loaded_without_any_code(path, program):
    program.save(path)
    loaded = load_file(path)
    assert loaded == program
    assert loaded.content_hash() == program.content_hash()


def test_the_file_is_readable_and_says_what_it_is(path):
    LEARNED.save(path)
    state = json.loads(path.read_text())
    assert (state["format"], state["program"]) == (1, "Two")
    assert state["otpy"]
    assert state["hash"] == LEARNED.content_hash()
    ask = state["predictors"]["ask"]
    assert ask["signature"]["fields"][2] == {
        "name": "day", "side": "output", "type": "date", "desc": "", "constraints": {},
    }  # fmt: skip
    assert ask["demos"][0]["day"] == "2026-01-02"
    assert (ask["client"], ask["adapter"]) == ("small", "chat")
    assert ask["config"] == {"temperature": 0.3, "max_tokens": 9, "max_reasks": 2, "rollout": 1}


def test_equal_programs_make_equal_files(path, tmp_path):
    LEARNED.save(path)
    load(Two(), path).save(tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == path.read_bytes()


def test_a_file_that_was_edited_is_refused_unless_that_is_meant(path):
    LEARNED.save(path)
    edited(path, lambda state: state["predictors"]["ask"]["signature"].update(instructions="Ask kindly."))
    with pytest.raises(ProgramError, match=r"program\.json.*verify=False"):
        load(Two(), path)
    assert load(Two(), path, verify=False).ask.signature.instructions == "Ask kindly."


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda s: s["predictors"].pop("ask"), "the file has answer.predict; the program has ask, answer.predict"),
        (lambda s: s.update(program="Three"), "holds a Three, not a Two"),
        (lambda s: s["predictors"]["ask"].update(adapter="xml"), "unknown adapter 'xml'; known: json, chat"),
        (lambda s: s["predictors"]["ask"]["config"].update(heat=1), "ask: not a saved predictor"),
        (lambda s: s["predictors"]["ask"]["config"].update(max_reasks=-1), "max_reasks=-1"),
        (lambda s: s["predictors"]["ask"].pop("client"), "ask: not a saved predictor: KeyError('client')"),
        (lambda s: s["predictors"].update(ask=[]), "ask: not a saved predictor"),
        (
            lambda s: s["predictors"]["ask"]["signature"]["fields"][2].update(type="str"),
            "the fields differ: day: output str in the file, output date in the program",
        ),
        (
            lambda s: s["predictors"]["ask"]["signature"]["fields"][0].update(name="query2"),
            "question: absent in the file, input str in the program; query2: input str in the file, absent",
        ),
        (
            lambda s: s["predictors"]["answer.predict"]["signature"]["fields"][3].update(constraints={"le": 9}),
            "stars: output int (le=9) in the file, output int (ge=1, le=5) in the program",
        ),
    ],
)
def test_a_file_of_another_structure_is_refused_and_says_what_differs(path, change, said):
    LEARNED.save(path)
    edited(path, change, rehash=True)
    with pytest.raises(ProgramError) as raised:
        load(Two(), path)
    assert said in str(raised.value)


def test_fields_are_matched_by_name_not_by_position(path):
    one = Predict(
        Signature("a, b -> c").with_updated_field("a", desc="the first").with_updated_field("b", desc="the second")
    )
    one.save(path)
    loaded = load(Predict("b, a -> c"), path)
    assert {name: field.desc for name, field in loaded.signature.input_fields.items()} == {
        "a": "the first",
        "b": "the second",
    }


def test_a_demo_that_no_longer_fits_is_refused(path):
    LEARNED.save(path)
    edited(path, lambda s: s["predictors"]["answer.predict"]["demos"][0].update(intent="cash"), rehash=True)
    with pytest.raises(SignatureError, match="'card' or 'pin', not 'cash'"):
        load(Two(), path)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", "null", '{"format": 1}', '{"format": 1, "predictors": []}', "\0"]
)
def test_a_file_that_is_no_saved_program_is_refused(path, text):
    path.write_text(text)
    for attempt in (lambda: load(Two(), path), lambda: load_file(path), lambda: load_file(path, verify=False)):
        with pytest.raises(ProgramError, match=r"program\.json: not a saved program"):
            attempt()


def test_a_file_of_another_format_is_refused(path):
    LEARNED.save(path)
    edited(path, lambda state: state.update(format=2))
    with pytest.raises(ProgramError, match="format 2; this version of otpy reads format 1"):
        load(Two(), path)


def test_a_file_that_needs_code_says_which(path):
    LEARNED.save(path)
    with pytest.raises(ProgramError, match="a Two needs its class"):
        load_file(path)

    class Point(pydantic.BaseModel):
        x: int

    program = Predict(Signature("q -> where: Point", types={"Point": Point}), demos=[{"q": "a", "where": Point(x=1)}])
    program.save(path)
    with pytest.raises(ProgramError, match="'where' has the type Point, which only your code knows"):
        load_file(path)
    assert load(Predict(program.signature), path) == program


def test_what_cannot_be_read_or_written_is_named(tmp_path):
    with pytest.raises(ProgramError, match=r"nowhere\.json: cannot be read: No such file"):
        load_file(tmp_path / "nowhere.json")
    with pytest.raises(ProgramError, match="cannot be written: No such file"):
        LEARNED.save(tmp_path / "no" / "program.json")
    with pytest.raises(ProgramError, match="cannot be written"):
        LEARNED.save(tmp_path)
    with pytest.raises(ProgramError, match="load\\(MyProgram"):
        load("program.json", tmp_path / "x")  # type: ignore[type-var]
    with pytest.raises(ProgramError, match="Predict needs arguments"):
        load(Predict, tmp_path / "x")
    assert list(tmp_path.iterdir()) == []


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(path, monkeypatch):
    LEARNED.save(path)
    before = path.read_bytes()

    def full(_fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ProgramError, match="No space left"):
        Two().save(path)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_two_writers_leave_one_whole_file(path):
    programs = [LEARNED.with_config(rollout=number) for number in range(8)]
    threads = [threading.Thread(target=program.save, args=(path,)) for program in programs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert load(Two(), path) in programs
    assert list(path.parent.iterdir()) == [path]


def test_an_adapter_of_the_users_own_is_kept_if_the_program_has_it(path):
    class Shouting(JSONAdapter):
        @property
        def name(self) -> str:
            return "shouting"

    program = Predict("q -> a", adapter=Shouting())
    program.save(path)
    assert load(program, path) == program
    with pytest.raises(ProgramError, match="unknown adapter 'shouting'; known: json, chat"):
        load_file(path)

"""An answer that arrives in pieces is read as the whole is, however it is split; what was no answer is taken back."""

from __future__ import annotations

import enum
import json
from typing import Any, Literal

import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otpy.adapters import ADAPTERS, ChatAdapter, FieldDelta, FieldDone, JSONAdapter, Withdrawn, XMLAdapter
from otpy.adapters.streaming import SectionReader, TagReader
from otpy.errors import AdapterParseError
from otpy.signatures import Signature
from otpy.types import Reasoning


class Colour(enum.Enum):
    RED = "red"


class Point(pydantic.BaseModel):
    x: int
    label: str


TYPES = {"Point": Point, "Reasoning": Reasoning, "Colour": Colour, "Literal": Literal}
QA = Signature("q -> answer")
RICH = Signature("q -> title, points: list[Point], note: str | None, thought: Reasoning, colour: Colour", types=TYPES)

NASTY = st.sampled_from(
    ['"', "\\", "\n", " ", "\t", "{", "}", "[[ ## title ## ]]", "[[ ## ", "**[[", "<", "</title>", "</ti", "&", "&amp;",
     "&lt", "<![CDATA[", "]]>", "😀", "\u2028", "\ufeff", "ü", "null", "5", "a", "b", "</think>", "<think>", "```",
     "# "]
)  # fmt: skip
TEXT = st.lists(NASTY | st.characters(exclude_categories=("Cs",)), max_size=8).map("".join)


@st.composite
def outputs(draw: st.DrawFn) -> dict[str, Any]:
    points = [{"x": number, "label": draw(TEXT)} for number in range(draw(st.integers(0, 2)))]
    return {
        "title": draw(TEXT),
        "points": [Point(**point) for point in points],
        "note": draw(st.none() | TEXT),
        "thought": Reasoning(draw(TEXT)),
        "colour": Colour.RED,
    }


@st.composite
def split(draw: st.DrawFn, text: str) -> list[str]:
    cuts = sorted(draw(st.lists(st.integers(0, len(text)), max_size=20)))
    return [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]


def read(adapter: Any, signature: Any, pieces: list[str]) -> tuple[dict[str, str], dict[str, str], list[str]]:
    """What the deltas come to, what was done, and the order of the first word of each."""
    reader = adapter.reader(signature)
    texts: dict[str, str] = {}
    done: dict[str, str] = {}
    for event in [*(event for piece in pieces for event in reader.feed(piece)), *reader.close()]:
        match event:
            case FieldDelta(name, text):
                assert text
                assert name not in done
                texts[name] = texts.get(name, "") + text
            case FieldDone(name, raw):
                assert name not in done
                done[name] = raw
            case Withdrawn(names):
                assert set(names) == texts.keys() | done.keys()
                texts.clear()
                done.clear()
    return texts, done, list(done)


READERS = [name for name in ADAPTERS if hasattr(ADAPTERS[name], "reader")]


@pytest.mark.parametrize("name", READERS)
@settings(max_examples=200)
@given(outputs(), st.data())
def test_any_split_of_an_answer_gives_the_same_texts_as_the_whole(name, values, data):
    adapter = ADAPTERS[name]
    said = adapter.render(RICH, values)
    texts, done, order = read(adapter, RICH, data.draw(split(said)))
    parsed = adapter.parse(RICH, said)
    assert parsed == values
    assert texts.get("title", "") == parsed["title"]
    assert texts.get("thought", "") == parsed["thought"]
    assert order == list(RICH.output_fields)
    assert set(texts) <= {"title", "thought", "note"}
    if name not in {"chat", "xml"}:
        assert texts.get("note", "") == (parsed["note"] or "")
        assert {key: json.loads(raw) for key, raw in done.items()} == RICH.dump_outputs(parsed)


@pytest.mark.parametrize("name", READERS)
@settings(max_examples=150)
@given(TEXT, TEXT, TEXT, st.data())
def test_texts_around_an_answer_make_no_difference(name, before, thought, value, data):
    adapter = ADAPTERS[name]
    whole = adapter.render(QA, {"answer": value})
    thought = thought.replace("</think>", "")
    for said in (
        f"{before}\n{whole}",
        f"<think>{thought}</think>{before}\n{whole}",
        f"{thought}{whole}</think>\n{whole}",
    ):
        texts, done, _ = read(adapter, QA, data.draw(split(said)))
        try:
            parsed = adapter.parse(QA, said)
        except AdapterParseError:
            continue
        if done:
            assert texts.get("answer", "") == parsed["answer"]


@pytest.mark.parametrize("name", READERS)
@settings(max_examples=200)
@given(st.lists(NASTY | st.sampled_from(["[[ ## answer ## ]]\n", '{"answer": ', '"x"', "<answer>", "</answer>"])))
def test_whatever_arrives_the_reader_reads_on(name, pieces):
    read(ADAPTERS[name], QA, pieces)


def test_a_text_grows_with_every_piece():
    reader = JSONAdapter().reader(QA)
    said = [reader.feed(piece) for piece in ['{"ans', 'wer":', ' "Par', "is", " in \\", "ud83d", "\\ude", '00"', "}"]]
    assert said == [
        [], [], [FieldDelta("answer", "Par")], [FieldDelta("answer", "is")], [FieldDelta("answer", " in ")], [], [],
        [FieldDelta("answer", "😀"), FieldDone("answer", '"Paris in \\ud83d\\ude00"')], [],
    ]  # fmt: skip
    assert reader.close() == []


def test_a_header_that_is_split_is_no_text():
    reader = ChatAdapter().reader(Signature("q -> answer, why"))
    said = [
        reader.feed(piece)
        for piece in ["[[ ## ans", "wer ## ]]\nYes", ".\n\n[[ #", "# why ## ", "]]\nIt is. \n", "[[ x"]
    ]
    assert said == [
        [], [FieldDelta("answer", "Yes")], [FieldDelta("answer", ".")], [], [FieldDone("answer", "Yes."),
        FieldDelta("why", "It is.")], [FieldDelta("why", " \n[[ x")],
    ]  # fmt: skip
    assert reader.close() == [FieldDone("why", "It is. \n[[ x")]


def test_a_tag_and_an_entity_that_are_split_are_no_text():
    reader = XMLAdapter().reader(QA)
    said = [reader.feed(piece) for piece in ["<ans", "wer>R", "&am", "p;D <", "b> </ans", "wer> and so on"]]
    assert said == [
        [], [FieldDelta("answer", "R")], [], [FieldDelta("answer", "&D")], [FieldDelta("answer", " <b>")],
        [FieldDone("answer", "R&amp;D <b>")],
    ]  # fmt: skip


def test_a_draft_is_taken_back():
    reader = JSONAdapter().reader(Signature("q -> answer, sure: bool"))
    assert reader.feed('{"answer": "3"}') == [
        FieldDelta("answer", "3"),
        FieldDone("answer", '"3"'),
        Withdrawn(("answer",)),
    ]
    assert reader.feed('{"answer": "4", "sure": true}') == [
        FieldDelta("answer", "4"), FieldDone("answer", '"4"'), FieldDone("sure", "true"),
    ]  # fmt: skip


def test_what_stands_before_the_end_of_a_thought_is_taken_back():
    reader = ChatAdapter().reader(QA)
    assert reader.feed("So\n[[ ## answer ## ]]\n3?") == [FieldDelta("answer", "3?")]
    assert reader.feed("</thi") == [FieldDelta("answer", "</thi")]
    assert reader.feed("nk>[[ ## answer ## ]]\n4 ") == [Withdrawn(("answer",)), FieldDelta("answer", "4")]


def test_an_answer_that_breaks_off_is_taken_back():
    for adapter, text in ((JSONAdapter(), '{"answer": "once'), (XMLAdapter(), "<answer>once")):
        reader = adapter.reader(QA)
        assert reader.feed(text) == [FieldDelta("answer", "once")]
        assert reader.close() == [Withdrawn(("answer",))]


def test_half_a_character_is_never_shown():
    reader = JSONAdapter().reader(QA)
    events = [event for piece in '{"answer": "a\\ud83d b"}' for event in reader.feed(piece)]
    assert events == [FieldDelta("answer", "a"), Withdrawn(("answer",))]


# -- however long it is -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "begun", ["<answer>", "<answer>" + "a </answe", "<answer><item", "<answer>a", "<", "<answer><![CDATA["]
)
@pytest.mark.parametrize("more", ["<item>x y</item>", "w ", "<x ", " ", "a", "&", "]", "<answer ", "</answer "])
@pytest.mark.parametrize("kind", ["str", "list[str]"])
def test_a_reader_of_elements_looks_at_each_character_a_few_times(monkeypatch, begun, more, kind):
    looked = 0
    read = TagReader._read

    def counted(self, text):
        nonlocal looked
        looked += len(text)
        read(self, text)

    monkeypatch.setattr(TagReader, "_read", counted)
    reader = TagReader(Signature(f"question -> answer: {kind}"))
    answer = begun + more * (20_000 // len(more))
    for at in range(0, len(answer), 4):
        reader.feed(answer[at : at + 4])
    reader.close()
    assert looked < 3 * len(answer) + 256 * 256  # each piece with what is held: it was half of 5,000 times the answer


@pytest.mark.parametrize("more", [" ", "\t", "#", "[[ ##" + "a" * 90, "*", "w\n", "[[ ## answer ## ]]\n", "# ", "\n"])
def test_a_reader_of_sections_holds_a_short_shape_of_what_may_be_a_header(more):
    reader = SectionReader(Signature("question -> answer"))
    answer = "[[ ## answer ## ]]\n" + more * (20_000 // len(more))
    for character in answer:
        reader.feed(character)
        assert len(reader._shape) < 40
    assert len(reader._growing._space) <= len(answer)
    reader.close()

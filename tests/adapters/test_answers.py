"""What a model says is read as what it means, or refused in words it can act on: never guessed."""

from __future__ import annotations

import datetime as dt
import enum
import json
from typing import Any, Literal

import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otpy.adapters import ADAPTERS, ChatAdapter, JSONAdapter, repair
from otpy.errors import AdapterParseError
from otpy.signatures import Signature

TRIAGE = Signature("query -> intent: Literal['card', 'pin'], sure: bool", "Classify.")
FREE = Signature("question -> answer", "Answer.")
MANY = Signature("q -> n: int, tags: list[str], note: str | None")

CARD = {"intent": "card", "sure": True}

# What the model said, to which question; what comes of it: values, or the fields that are missing or wrong.
JSON_ANSWERS: dict[str, tuple[type[Signature], str, dict[str, Any] | tuple[str, ...]]] = {
    "as asked": (TRIAGE, '{"intent": "card", "sure": true}', CARD),
    "in another order": (TRIAGE, '{"sure": true, "intent": "card"}', CARD),
    "with space around": (TRIAGE, '\n\n {"intent": "card", "sure": true}\n', CARD),
    "in a code fence": (TRIAGE, '```json\n{"intent": "card", "sure": true}\n```', CARD),
    "in prose": (TRIAGE, 'Sure! {"intent": "card", "sure": true} Anything else?', CARD),
    "after braces in prose": (TRIAGE, 'I use {braces}: {"intent": "card", "sure": true}', CARD),
    "after an open brace": (TRIAGE, 'So { here: {"intent": "card", "sure": true}', CARD),
    "after another object": (TRIAGE, '{"thought": "hm"} {"intent": "card", "sure": true}', CARD),
    "twice": (TRIAGE, '{"intent": "card", "sure": true}{"intent": "pin", "sure": false}', CARD),
    "in a list": (TRIAGE, '[{"intent": "card", "sure": true}]', CARD),
    "with further keys": (TRIAGE, '{"intent": "card", "sure": true, "why": "x"}', CARD),
    "with an object in a key": (TRIAGE, '{"why": {"intent": "pin"}, "intent": "card", "sure": true}', CARD),
    "a word for a boolean": (TRIAGE, '{"intent": "card", "sure": "yes"}', CARD),
    "a number in quotes": (MANY, '{"n": "3", "tags": [], "note": null}', {"n": 3, "tags": [], "note": None}),
    "a whole float": (MANY, '{"n": 3.0, "tags": ["a"], "note": "x"}', {"n": 3, "tags": ["a"], "note": "x"}),
    "braces in a text": (FREE, '{"answer": "{a} and \\"}\\""}', {"answer": '{a} and "}"'}),
    "nothing": (TRIAGE, "", ("intent", "sure")),
    "prose": (FREE, "The answer is 4.", ("answer",)),
    "the bare value": (FREE, '"4"', ("answer",)),
    "cut off": (TRIAGE, '{"intent": "card", "su', ("intent", "sure")),
    "cut off in a text": (FREE, '{"answer": "once upon a', ("answer",)),
    "a list": (FREE, '["4"]', ("answer",)),
    "an empty object": (TRIAGE, "{}", ("intent", "sure")),
    "a field missing": (TRIAGE, '{"intent": "card"}', ("sure",)),
    "another name": (FREE, '{"Answer": "4"}', ("answer",)),
    "another label": (TRIAGE, '{"intent": "cash", "sure": true}', ("intent",)),
    "another case": (TRIAGE, '{"intent": "Card", "sure": true}', ("intent",)),
    "no boolean": (TRIAGE, '{"intent": "card", "sure": "perhaps"}', ("sure",)),
    "a number for a text": (FREE, '{"answer": 4}', ("answer",)),
    "null for a text": (FREE, '{"answer": null}', ("answer",)),
    "an object for a text": (FREE, '{"answer": {"text": "4"}}', ("answer",)),
    "a broken float": (MANY, '{"n": 3.5, "tags": [], "note": null}', ("n",)),
    "a text for a list": (MANY, '{"n": 3, "tags": "a, b", "note": null}', ("tags",)),
    "single quotes": (FREE, "{'answer': '4'}", ("answer",)),
    "a trailing comma": (FREE, '{"answer": "4",}', ("answer",)),
    "the schema itself": (FREE, '{"type": "object", "properties": {"answer": {"type": "string"}}}', ("answer",)),
    "half a surrogate": (FREE, '{"answer": "\\ud800"}', ("answer",)),
    "a thousand braces": (FREE, "{" * 5000, ("answer",)),
    "nesting without end": (FREE, '{"answer":' * 5000, ("answer",)),
}

CHAT_ANSWERS: dict[str, tuple[type[Signature], str, dict[str, Any] | tuple[str, ...]]] = {
    "as asked": (TRIAGE, "[[ ## intent ## ]]\ncard\n\n[[ ## sure ## ]]\ntrue\n\n[[ ## completed ## ]]", CARD),
    "without the end": (TRIAGE, "[[ ## intent ## ]]\ncard\n\n[[ ## sure ## ]]\nTrue", CARD),
    "in another order": (TRIAGE, "[[ ## sure ## ]]\nyes\n[[ ## intent ## ]]\ncard\n", CARD),
    "on the header's line": (TRIAGE, "[[ ## intent ## ]] card\n[[ ## sure ## ]] true", CARD),
    "after prose": (FREE, "Let me see.\n\n[[ ## answer ## ]]\n4\n[[ ## completed ## ]]\nBye", {"answer": "4"}),
    "in quotes": (FREE, '[[ ## answer ## ]]\n"4"', {"answer": "4"}),
    "several lines": (FREE, "[[ ## answer ## ]]\na\n\nb\n", {"answer": "a\n\nb"}),
    "an empty text": (FREE, "[[ ## answer ## ]]\n\n[[ ## completed ## ]]", {"answer": ""}),
    "twice": (FREE, "[[ ## answer ## ]]\n4\n[[ ## answer ## ]]\n5", {"answer": "4"}),
    "a section of its own": (FREE, "[[ ## thought ## ]]\nhm\n[[ ## answer ## ]]\n4", {"answer": "4"}),
    "a text that looks like a number": (FREE, "[[ ## answer ## ]]\n4", {"answer": "4"}),
    "a number for text or nothing": (
        MANY,
        '[[ ## n ## ]]\n3\n[[ ## tags ## ]]\n["a"]\n[[ ## note ## ]]\n5',
        {"n": 3, "tags": ["a"], "note": "5"},
    ),
    "nothing": (FREE, "", ("answer",)),
    "prose": (FREE, "The answer is 4.", ("answer",)),
    "JSON": (FREE, '{"answer": "4"}', ("answer",)),
    "a section missing": (TRIAGE, "[[ ## intent ## ]]\ncard", ("sure",)),
    "another label": (TRIAGE, "[[ ## intent ## ]]\ncash\n[[ ## sure ## ]]\ntrue", ("intent",)),
    "no boolean": (TRIAGE, "[[ ## intent ## ]]\ncard\n[[ ## sure ## ]]\nperhaps", ("sure",)),
    "a list in prose": (MANY, "[[ ## n ## ]]\n3\n[[ ## tags ## ]]\na, b\n[[ ## note ## ]]\nnull", ("tags",)),
    "a number in prose": (MANY, "[[ ## n ## ]]\nabout 3\n[[ ## tags ## ]]\n[]\n[[ ## note ## ]]\nx", ("n",)),
}
CORPUS = [
    *[(JSONAdapter(), what, *case) for what, case in JSON_ANSWERS.items()],
    *[(ChatAdapter(), what, *case) for what, case in CHAT_ANSWERS.items()],
]


@pytest.mark.parametrize(
    ("adapter", "what", "signature", "text", "becomes"), CORPUS, ids=[f"{case[0].name}: {case[1]}" for case in CORPUS]
)
def test_an_answer(adapter, what, signature, text, becomes):
    if isinstance(becomes, dict):
        assert adapter.parse(signature, text) == becomes
        return
    with pytest.raises(AdapterParseError) as raised:
        adapter.parse(signature, text)
    assert raised.value.missing == becomes
    assert raised.value.text == text
    assert all(name in raised.value.detail for name in becomes)


# -- what is written is read again ------------------------------------------------------------------------------------


class Colour(enum.Enum):
    RED = "red"
    BLUE = "the blue"


class Point(pydantic.BaseModel):
    x: int
    label: str
    inner: list[Point] = []


FINITE = st.floats(allow_nan=False, allow_infinity=False)
TEXT = st.text() | st.sampled_from(["null", "5", '"a"', "[[ ## x0 ## ]]", "true", " a ", "{", "[[ ## completed ## ]]"])
POINT = st.builds(Point, x=st.integers(-9, 9), label=TEXT, inner=st.just([]) | st.just([Point(x=1, label="]]")]))
VALUES: list[tuple[Any, st.SearchStrategy[Any]]] = [
    (str, TEXT),
    (int, st.integers(-(2**40), 2**40)),
    (float, FINITE),
    (bool, st.booleans()),
    (Literal["yes", "no way", "1", '"x"'], st.sampled_from(["yes", "no way", "1", '"x"'])),
    (Literal[1, 2, "two"], st.sampled_from([1, 2, "two"])),
    (Colour, st.sampled_from(Colour)),
    (list[str], st.lists(TEXT, max_size=3)),
    (dict[str, int], st.dictionaries(TEXT, st.integers(-9, 9), max_size=3)),
    (tuple[int, str], st.tuples(st.integers(-9, 9), TEXT)),
    (str | None, st.none() | TEXT),
    (int | str, st.integers(-9, 9) | TEXT),
    (list[int | None], st.lists(st.none() | st.integers(-9, 9), max_size=3)),
    (dt.date, st.dates()),
    (dt.datetime, st.datetimes(timezones=st.none() | st.just(dt.UTC))),
    (Point, POINT),
    (list[Point], st.lists(POINT, max_size=2)),
]
SIGNATURES: dict[tuple[int, ...], type[Signature]] = {}


def signature_of(kinds: tuple[int, ...]) -> type[Signature]:
    if kinds not in SIGNATURES:
        names = {f"T{kind}": VALUES[kind][0] for kind in kinds}
        outputs = ", ".join(f"x{number}: T{kind}" for number, kind in enumerate(kinds))
        SIGNATURES[kinds] = Signature(f"q -> {outputs}", types=names)
    return SIGNATURES[kinds]


@st.composite
def outputs(draw: st.DrawFn) -> tuple[type[Signature], dict[str, Any]]:
    kinds = tuple(draw(st.lists(st.integers(0, len(VALUES) - 1), min_size=1, max_size=3)))
    return signature_of(kinds), {f"x{number}": draw(VALUES[kind][1]) for number, kind in enumerate(kinds)}


@pytest.mark.parametrize("name", ADAPTERS)
@settings(max_examples=150)
@given(outputs())
def test_what_an_adapter_writes_it_reads_again(name, case):
    signature, values = case
    adapter = ADAPTERS[name]
    assert adapter.parse(signature, adapter.render(signature, values)) == values


@given(outputs())
def test_the_written_object_fulfils_the_schema_in_the_order_of_the_fields(case):
    signature, values = case
    written = json.loads(JSONAdapter().render(signature, values))
    assert list(written) == list(signature.output_fields)
    assert list(written) == JSONAdapter().schema(signature).schema.value["required"]  # type: ignore[union-attr]


@pytest.mark.parametrize("name", ADAPTERS)
@given(st.text(alphabet='{}[]"\\:,. \nabeintrsuw1#cdplo\ud800\u2028', max_size=60))
def test_whatever_a_model_says_it_is_read_or_a_parse_error(name, text):
    for said in (text, f'{{"answer": {text}}}', f"[[ ## answer ## ]]\n{text}"):
        try:
            read = ADAPTERS[name].parse(FREE, said)
        except AdapterParseError as error:
            assert error.missing == ("answer",)
        else:
            assert isinstance(read["answer"], str)


# -- asking again -----------------------------------------------------------------------------------------------------


def test_asking_again_shows_the_answer_and_what_was_wrong_with_it():
    with pytest.raises(AdapterParseError) as raised:
        JSONAdapter().parse(TRIAGE, '{"intent": "cash", "sure": true}')
    said, told = repair('{"intent": "cash", "sure": true}', raised.value)
    assert (said.role, said.content) == ("assistant", '{"intent": "cash", "sure": true}')
    assert told.role == "user"
    assert "'intent'" in told.content
    assert "'card' or 'pin'" in told.content
    assert "'cash'" in told.content


def test_an_empty_answer_is_not_sent_back_as_an_empty_turn():
    assert repair(" ", AdapterParseError("S", " ", ("a",), "nothing"))[0].content.strip()

"""What a model says is read as what it means, or refused in words it can act on: never guessed."""

from __future__ import annotations

import datetime as dt
import enum
import json
import sys
from pathlib import Path
from typing import Any, Literal

import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otpy.adapters import ADAPTERS, ChatAdapter, JSONAdapter, XMLAdapter, repair
from otpy.adapters.mending import read_loosely
from otpy.errors import AdapterParseError
from otpy.signatures import Signature

sys.path.insert(0, str(Path(__file__).parent))
from broken_replies import CHAT_ANSWERS, FREE, JSON_ANSWERS, TRIAGE, XML_ANSWERS  # beside this file

CORPUS = [
    *[(JSONAdapter(), what, *case) for what, case in JSON_ANSWERS.items()],
    *[(ChatAdapter(), what, *case) for what, case in CHAT_ANSWERS.items()],
    *[(XMLAdapter(), what, *case) for what, case in XML_ANSWERS.items()],
]


@pytest.mark.parametrize(
    ("adapter", "what", "signature", "text", "becomes"), CORPUS, ids=[f"{case[0].name}: {case[1]}" for case in CORPUS]
)
def test_an_answer(adapter, what, signature, text, becomes):
    if isinstance(becomes, dict):
        assert adapter.parse(signature, text) == becomes
        return
    missing, detail = becomes if isinstance(becomes[-1], str) and isinstance(becomes[0], tuple) else (becomes, "")
    with pytest.raises(AdapterParseError) as raised:
        adapter.parse(signature, text)
    assert raised.value.missing == missing
    assert raised.value.text == text
    assert detail in raised.value.detail
    assert detail or all(name in raised.value.detail for name in missing)


def test_the_corpus_is_large_enough():
    assert len(CORPUS) >= 120


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


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | FINITE | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=12,
)


@given(JSON, st.booleans())
def test_what_is_json_is_read_loosely_as_the_json_it_is(value, ascii_only):
    written = json.dumps(value, ensure_ascii=ascii_only)
    assert read_loosely(written) == (value, len(written))


@given(st.dictionaries(st.sampled_from(["answer", "sure"]), JSON, min_size=1), st.data())
def test_an_object_that_breaks_off_is_never_finished(value, data):
    written = json.dumps(value)
    cut = written[: data.draw(st.integers(1, len(written) - 1))]
    with pytest.raises(AdapterParseError):
        JSONAdapter().parse(Signature("q -> answer: Any"), cut)


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

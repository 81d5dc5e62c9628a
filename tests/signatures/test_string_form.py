"""The string form of a signature: what it may say, and that every mistake is shown with its column."""

from __future__ import annotations

import contextlib
import datetime as dt
from typing import Any, Literal

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from otpy.errors import SignatureError
from otpy.signatures import Signature
from otpy.signatures.string_form import TYPES, parse_string, parse_type


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("str", str),
        ("list[str]", list[str]),
        ("dict[str, list[int]]", dict[str, list[int]]),
        ("tuple[int, ...]", tuple[int, ...]),
        ("Optional[int]", int | None),
        ("int | None", int | None),
        ("Literal['yes', \"no\", 3, -1, True]", Literal["yes", "no", 3, -1, True]),
        ("Literal['a, b -> c: [d']", Literal["a, b -> c: [d"]),
        ("Literal['it\\'s']", Literal["it's"]),
        ("typing.Any", Any),
        ("datetime.date", dt.date),
        ("date", dt.date),
        (" bool ", bool),
    ],
)
def test_a_type_is_read(text, kind):
    assert parse_string(f"q -> a: {text}")[1].annotation == kind


def test_names_types_and_sides_are_read_whatever_the_spaces():
    fields = parse_string("\n question ,context:list[str]\n->\tanswer : int ")
    assert [(field.side, field.name, field.type) for field in fields] == [
        ("input", "question", "str"),
        ("input", "context", "list[str]"),
        ("output", "answer", "int"),
    ]


def test_a_type_of_the_callers_is_given_by_name():
    class Point:
        pass

    assert parse_string("q -> a: list[Point]", {"Point": Point})[1].annotation == list[Point]


# The source, the piece the caret stands under, and what the sentence says.
MISTAKES = [
    ("question", "", "no '->'"),
    ("a -> b -> c", "-> c", "a second '->'"),
    ("-> answer", "-> answer", "no input fields"),
    ("question ->", "", "no output fields"),
    ("a, -> b", " -> b", "a comma with no field"),
    ("a,, c -> b", ", c", "a comma with no field"),
    ("a -> b,", "", "a comma with no field"),
    ("a -> b, a", "a", "'a' is an input and an output"),
    ("a, a -> b", "a -> b", "'a' is input twice"),
    ("a b -> c", "a b", "'a b' cannot be the name"),
    ("a -> 1st", "1st", "'1st' cannot be the name"),
    ("a -> class", "class", "'class' cannot be the name"),
    ("a -> : int", ": int", "'' cannot be the name"),
    ("a -> b:", "", "':' but no type"),
    ("a -> b: strr", "strr", "unknown type 'strr'"),
    ("a -> b: list[strr]", "strr]", "unknown type 'strr'"),
    ("ä: list[ünknown] -> b", "ünknown", "unknown type 'ünknown'"),
    ("a -> b: list[int", "[int", "[ is not closed"),
    ("a -> b: int]", "]", "] closes nothing"),
    ("a -> b: list[int)", ")", ") closes nothing"),
    ("a -> b: Literal['x]", "'x]", "' is not closed"),
    ("a -> b: Literal[]", "", "no type"),
    ("a -> b: Literal[x]", "x]", "write 'x' in quotes"),
    ("a -> b: Literal[1.5]", "1.5", "not 1.5"),
    ("a -> b: Literal[b'x']", "b'x'", "not b'x'"),
    ("a -> b: list[()]", "list[()]", "no type"),
    ("a -> b: int[str]", "int[str]", "no type"),
    ("a -> b: Optional[int, str]", "Optional", "no type"),
    ("a -> b: None[int]", "None[int]", "no type"),
    ("a -> b: 'int'", "'int'", "is a text, not a type"),
    ("a -> b: int str", "str", "no type"),
    ("a -> b: print(1)", "print(1)", "no type"),
    ("a -> b: os.system", "os.system", "no type"),
    ("a -> b: int and str", "int and str", "no type"),
    ("a -> b: lambda: 0", "", "no type"),
    ("a -> b: int\0", "", "no type"),
]


@pytest.mark.parametrize(("source", "piece", "said"), MISTAKES, ids=[source for source, _, _ in MISTAKES])
def test_a_mistake_is_shown_with_its_column(source, piece, said):
    with pytest.raises(SignatureError) as raised:
        parse_string(source)
    error = raised.value
    assert said in str(error)
    assert error.source == source
    assert error.column is not None
    if piece:
        assert source[error.column - 1 :].startswith(piece), error


@pytest.mark.parametrize("source", ["", "  \n", None, 5, b"a -> b"])
def test_what_is_no_text_or_empty_is_refused(source):
    with pytest.raises(SignatureError, match="signature"):
        parse_string(source)


def test_an_unknown_type_is_told_which_names_there_are_and_how_to_add_one():
    with pytest.raises(SignatureError) as raised:
        Signature("q -> a: Person")
    assert "known: Any, Audio, bool, bytes" in str(raised.value)
    assert "types={'Person': Person}" in str(raised.value)


def test_the_caret_stands_under_the_piece_in_a_source_of_several_lines():
    with pytest.raises(SignatureError) as raised:
        Signature("question\n  -> answer: strr")
    lines = str(raised.value).splitlines()
    assert lines[1][lines[2].index("^") :].startswith("strr")


def test_nesting_without_end_is_refused():
    with pytest.raises(SignatureError):
        parse_string("a -> b: " + "list[" * 5000 + "int" + "]" * 5000)


SIMPLE = st.sampled_from(["str", "int", "float", "bool", "date", "datetime", "Decimal", "UUID", "Any"])
LITERAL = st.lists(
    st.text(max_size=5) | st.integers(-9, 9) | st.booleans(), min_size=1, max_size=4, unique_by=lambda v: (type(v), v)
).map(lambda values: f"Literal[{', '.join(map(repr, values))}]")
OURS = st.sampled_from(["Image", "Audio", "File", "Document", "Code", "Reasoning", "Citations", "Tool", "ToolCalls"])
WITH_BRACKETS = st.sampled_from(["python", "sql", "c++"]).map(lambda name: f"Code[{name!r}]") | LITERAL.map(
    lambda literal: f"Decision[{literal}]"
)
KINDS = st.recursive(
    SIMPLE | LITERAL | OURS | WITH_BRACKETS,
    lambda inner: st.one_of(
        inner.map(lambda kind: f"list[{kind}]"),
        inner.map(lambda kind: f"dict[str, {kind}]"),
        inner.map(lambda kind: f"tuple[{kind}, ...]"),
        inner.map(lambda kind: f"{kind} | None"),
        st.tuples(inner, inner).map(lambda pair: f"tuple[{pair[0]}, {pair[1]}]"),
    ),
    max_leaves=4,
)


@given(KINDS)
def test_the_text_of_a_type_is_read_as_the_same_type(text):
    field = parse_string(f"q -> a: {text}")[1]
    assert parse_string(f"q -> a: {field.type}")[1] == field
    assert parse_type(field.type) == field.annotation


@given(st.lists(KINDS, min_size=1, max_size=3), st.lists(KINDS, min_size=1, max_size=3))
def test_the_string_form_of_a_signature_is_read_as_the_same_signature(inputs, outputs):
    def fields(kinds, prefix):
        return ", ".join(f"{prefix}{number}: {kind}" for number, kind in enumerate(kinds))

    try:
        signature = Signature(f"{fields(inputs, 'i')} -> {fields(outputs, 'o')}")
    except SignatureError:
        assume(False)  # noqa: FBT003 - a type that no model can be asked for
    again = Signature(signature.signature)
    assert again == signature
    assert again.signature == signature.signature
    assert hash(again) == hash(signature)


@given(st.text(alphabet="ab ,:->[](){}'\"|\\\n.0é" + "".join(sorted({c for name in TYPES for c in name})), max_size=40))
def test_whatever_the_text_it_is_read_or_refused(text):
    with contextlib.suppress(SignatureError):
        assert {field.side for field in parse_string(text)} == {"input", "output"}

"""Malformed definitions, in the string form and in class bodies: each one's exact message."""

# ruff: noqa: E501 - a message stands in one line

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from typing import Literal

import pydantic
import pytest

import otpy.types
from otpy.errors import SignatureError
from otpy.signatures import InputField, OutputField, Signature
from otpy.signatures.string_form import TYPES

OURS = "Audio, Citations, Code, Decision, Document, File, History, Image, Reasoning, Tool, ToolCalls, ToolResults"
KNOWN = ", ".join(sorted(TYPES, key=str.lower))

STRINGS = [
    ("question", "no '->' between inputs and outputs (column 9)"),
    ("a -> b -> c", "a second '->'; a signature has exactly one (column 8)"),
    ("-> answer", "no input fields (column 1)"),
    ("question ->", "no output fields (column 12)"),
    ("a, -> b", "a comma with no field beside it (column 3)"),
    ("a,, c -> b", "a comma with no field beside it (column 3)"),
    ("a -> b,", "a comma with no field beside it (column 8)"),
    ("a -> b, a", "field 'a' is an input and an output (column 9)"),
    ("a, a -> b", "field 'a' is input twice (column 4)"),
    ("a b -> c", "'a b' cannot be the name of a field (column 1)"),
    ("a -> 1st", "'1st' cannot be the name of a field (column 6)"),
    ("a -> class", "'class' cannot be the name of a field (column 6)"),
    ("a -> : int", "'' cannot be the name of a field (column 6)"),
    ("a -> b:", "field 'b' has a ':' but no type (column 8)"),
    ("a -> b: strr", "unknown type 'strr'; known: {KNOWN}; others: Signature(…, types={'strr': strr}) (column 9)"),
    (
        "a -> b: list[strr]",
        "unknown type 'strr'; known: {KNOWN}; others: Signature(…, types={'strr': strr}) (column 14)",
    ),
    ("a -> b: list[int", "[ is not closed (column 13)"),
    ("a -> b: int]", "] closes nothing (column 12)"),
    ("a -> b: list[int)", ") closes nothing (column 17)"),
    ("a -> b: Literal['x]", "' is not closed (column 17)"),
    ("a -> b: Literal[]", "'Literal[]' is no type (column 17)"),
    ("a -> b: Literal[x]", "Literal takes texts, integers, booleans and None, not x; write 'x' in quotes (column 17)"),
    ("a -> b: Literal[1.5]", "Literal takes texts, integers, booleans and None, not 1.5 (column 17)"),
    ("a -> b: list[()]", "list[()] is no type: the brackets are empty (column 9)"),
    ("a -> b: int[str]", "int[str] is no type: int has no brackets (column 9)"),
    (
        "a -> b: Optional[int, str]",
        "Optional[int, str] is no type: in the brackets of Optional stand 1, not 2 (column 9)",
    ),
    ("a -> b: 'int'", "'int' is a text, not a type; for fixed values write Literal['int'] (column 9)"),
    ("a -> b: int str", "'int str' is no type (column 13)"),
    ("a -> b: print(1)", "print(1) is no type (column 9)"),
    ("a -> b: os.system", "os.system is no type (column 9)"),
    ("a -> b: int and str", "int and str is no type (column 9)"),
    ("a -> b: dspy.int", "dspy.int is no type; known: {OURS} (column 9)"),
    ("a -> b: otpy.Picture", "otpy.Picture is no type; known: {OURS} (column 9)"),
    ("a -> b: Image[int]", "Image[int] is no type: Image has no brackets (column 9)"),
    (
        "a -> b: list[Image, Image]",
        "Signature.b: list[Image, Image] is no type: in the brackets of list stand 1, not 2",
    ),
    ("a -> b: Code[python]", "Code takes a language's name, not python; write 'python' in quotes (column 14)"),
    ("a -> b: Code[1]", "Code[1]; allowed: a language's name, as in Code['python'] (column 9)"),
    ("a -> b: Code['a b']", "Code['a b']; allowed: a language's name, as in Code['python'] (column 9)"),
    (
        "a -> b: Code['python', 'sql']",
        "Code[('python', 'sql')]; allowed: a language's name, as in Code['python'] (column 9)",
    ),
    ("a -> b: Decision", "Signature.b: say between what it decides, as in Decision[Literal['yes', 'no']]"),
    (
        "a -> b: Decision[str]",
        "Decision[str]: decides between values that are listed: a Literal, an Enum, bool (column 9)",
    ),
    (
        "a -> b: Decision[int, str]",
        "Decision[(<class 'int'>, <class 'str'>)]: decides between values that are listed: a Literal, an Enum, bool (column 9)",
    ),
    ("a -> b: Decision['yes', 'no']", "'yes' is a text, not a type; for fixed values write Literal['yes'] (column 18)"),
    ("a -> b: History", "Signature.b: a History is given to a program, no output; use InputField()"),
    ("a -> b: Optional[History]", "Signature.b: a History is given to a program, no output; use InputField()"),
    ("a -> usage", "Signature.usage: this name is taken by examples and predictions; choose another"),
    ("a -> self", "Signature.self: this name is taken by examples and predictions; choose another"),
    ("a -> _b", "Signature._b: this name is taken by examples and predictions; choose another"),
    ("a -> items: list[str]", "Signature.items: this name is taken by examples and predictions; choose another"),
    ("a -> b: dict[Image]", "Signature.b: dict[Image] is no type: in the brackets of dict stand 2, not 1"),
]

BODIES = [
    ("", "signature S has no input fields; add one, as in `question: str = InputField()`"),
    ("query: str = InputField()", "signature S has no output fields; add one, as in `answer: str = OutputField()`"),
    ("answer: str = OutputField()", "signature S has no input fields; add one, as in `question: str = InputField()`"),
    (
        "q: str = InputField()\na: str",
        "S.a is neither input nor output; write `a: … = InputField()` or `= OutputField()`",
    ),
    (
        "q: str = InputField()\na: str = 'x'",
        "S.a has the default 'x'; write `a: … = InputField()` or `= OutputField()`",
    ),
    (
        "q: str = InputField()\na: str = OutputField",
        "S.a has no brackets behind its InputField or OutputField; write `a: … = InputField()` or `= OutputField()`",
    ),
    (
        "q: str = InputField()\na: str = OutputField(maximum=5)",
        "OutputField(maximum=…): unknown; allowed: desc, gt, ge, lt, le, multiple_of, min_length, max_length, pattern",
    ),
    ("q: str = InputField(5)\na: str = OutputField()", "desc=5: a description is a text"),
    ("q: str = InputField()\na: str = OutputField(ge=1)", "S.a: ge=1 does not fit the type str"),
    ("q: str = InputField()\na: int = OutputField(min_length=1)", "S.a: min_length=1 does not fit the type int"),
    ("q: str = InputField()\na: int = OutputField(pattern='x')", "S.a: pattern='x' does not fit the type int"),
    (
        "q: str = InputField()\na: str = OutputField(pattern='(')",
        "S.a: the type str can't be used: error: unclosed group",
    ),
    (
        "q: str = InputField()\na: Literal[1.5] = OutputField()",
        "S.a: Literal takes texts, integers, booleans and None, not 1.5",
    ),
    (
        "q: str = InputField()\na: Literal[()] = OutputField()",
        "S.a: Literal takes texts, integers, booleans and None, at least one",
    ),
    (
        "q: str = InputField()\nkeys: list[str] = OutputField()",
        "S.keys: this name is taken by examples and predictions; choose another",
    ),
    (
        "q: str = InputField()\n_a: str = OutputField()",
        "S._a: this name is taken by examples and predictions; choose another",
    ),
    (
        "q: str = InputField()\na: str = OutputField()\nlimit = 5",
        "S.limit is no field; write `limit: … = InputField()` or `= OutputField()`; of methods, a signature has only pydantic's @field_validator and @model_validator",
    ),
    (
        "q: str = InputField()\na: str = OutputField()\ndef forward(self): pass",
        "S.forward is no field; write `forward: … = InputField()` or `= OutputField()`; of methods, a signature has only pydantic's @field_validator and @model_validator",
    ),
    (
        "q: str = InputField()\na: str = OutputField()\n@property\ndef first(self): pass",
        "S.first is no field; write `first: … = InputField()` or `= OutputField()`; of methods, a signature has only pydantic's @field_validator and @model_validator",
    ),
    (
        "q: str = InputField()\na: Callable[[int], str] = OutputField()",
        "S.a: the type Callable[[<class 'int'>], str] can't be used: Cannot generate a JsonSchema for core_schema.CallableSchema",
    ),
    (
        "q: str = InputField()\na: type = OutputField()",
        "S.a: the type type can't be used: Cannot generate a JsonSchema for core_schema.IsInstanceSchema (<class 'type'>)",
    ),
    (
        "q: str = InputField()\na: History = OutputField()",
        "S.a: a History is given to a program, no output; use InputField()",
    ),
    (
        "q: str = InputField()\na: Decision = OutputField()",
        "S.a: say between what it decides, as in Decision[Literal['yes', 'no']]",
    ),
    (
        "q: str = InputField()\na: Decision[int] = OutputField()",
        "Decision[int]: decides between values that are listed: a Literal, an Enum, bool",
    ),
    (
        "q: str = InputField()\na: Code['not a language'] = OutputField()",
        "Code['not a language']; allowed: a language's name, as in Code['python']",
    ),
    (
        "q: str = InputField()\na: str = OutputField()\n@field_validator('b')\ndef f(cls, v): return v",
        "S.f: @field_validator('b'): no such field; there are q, a",
    ),
    (
        "q: str = InputField()\na: str = OutputField()\n@field_serializer('a')\ndef f(self, v): return v",
        "S.f: @field_serializer means nothing to a signature; allowed: @field_validator, @model_validator",
    ),
    (
        "q: str = InputField()\na: str = OutputField()\n@computed_field\ndef f(self) -> int: return 1",
        "S.f: @computed_field means nothing to a signature; allowed: @field_validator, @model_validator",
    ),
]


def exact(said: str) -> str:
    return said.replace("{OURS}", OURS).replace("{KNOWN}", KNOWN)


@pytest.mark.parametrize(("source", "said"), STRINGS, ids=[source for source, _ in STRINGS])
def test_a_malformed_string_is_refused_with_its_message(source, said):
    with pytest.raises(SignatureError) as raised:
        Signature(source)
    assert str(raised.value).split("\n")[0] == exact(said)


@pytest.mark.parametrize(("body", "said"), BODIES, ids=[body.replace("\n", "; ") or "nothing" for body, _ in BODIES])
def test_a_malformed_class_is_refused_with_its_message(body, said):
    module = types.ModuleType("planted")
    module.__dict__.update(
        {name: getattr(otpy.types, name) for name in otpy.types.__all__},
        Signature=Signature,
        InputField=InputField,
        OutputField=OutputField,
        Literal=Literal,
        Callable=Callable,
        field_validator=pydantic.field_validator,
        field_serializer=pydantic.field_serializer,
        computed_field=pydantic.computed_field,
    )
    lines = (body or "pass").splitlines()
    source = "\n    ".join(["class S(Signature):", *lines])
    sys.modules["planted"] = module
    try:
        with pytest.raises(SignatureError) as raised:
            exec(compile(source, "planted", "exec", dont_inherit=True), module.__dict__)
    finally:
        del sys.modules["planted"]
    assert str(raised.value) == exact(said)


def test_there_are_sixty_or_more():
    assert len(STRINGS) + len(BODIES) >= 60

"""The types that models know by themselves, as fields: by name in the string form, in classes, nested."""

from __future__ import annotations

from typing import Literal

import pytest
from pydantic import BaseModel

import otpy.types
from otpy.errors import SignatureError
from otpy.signatures import InputField, OutputField, Signature
from otpy.signatures.string_form import parse_type
from otpy.types import Citations, Code, Decision, Document, History, Image, Reasoning, Type

NAMES = ["Image", "Audio", "File", "Document", "History", "Code", "Reasoning", "Citations", "Decision"]
NAMES += ["Tool", "ToolCalls", "ToolResults"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("prefix", ["", "otpy.", "otpy.types.", "dspy."])
def test_each_is_known_by_name_with_and_without_a_prefix(prefix, name):
    assert parse_type(prefix + name) is getattr(otpy.types, name)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("list[dspy.Image]", list[Image]),
        ("Optional[otpy.Image]", Image | None),
        ("dict[str, Image | None]", dict[str, Image | None]),
        ("dspy.Code['Python']", Code["python"]),
        ("Decision[Literal['a', 'b']]", Decision[Literal["a", "b"]]),
        ("list[Decision[bool]]", list[Decision[bool]]),
    ],
)
def test_they_stand_inside_of_other_types(text, kind):
    assert parse_type(text) == kind


class Slide(BaseModel):
    title: str
    picture: Image | None = None


class Explain(Signature):
    """Explain the slides."""

    history: History = InputField()
    slides: list[Slide] = InputField()
    sources: list[Document] = InputField()
    thought: Reasoning = OutputField()
    script: Code[Literal["python"]] | None = OutputField()
    sure: Decision[Literal["yes", "no"]] = OutputField()
    quotes: Citations = OutputField()


def test_in_a_class_they_are_validated_wherever_they_stand():
    inputs = Explain.validate_inputs(
        {
            "history": [{"slides": [], "thought": "…"}],
            "slides": [{"title": "1", "picture": "https://example.org/1.png"}],
            "sources": [{"text": "Ice melts."}],
        }
    )
    assert inputs["slides"][0].picture == Image("https://example.org/1.png")
    with pytest.raises(SignatureError, match=r"'slides\.0\.picture': .*127\.0\.0\.1/x\.png is a private address"):
        Explain.validate_inputs({**inputs, "slides": [{"title": "1", "picture": "http://127.0.0.1/x.png"}]})


def test_as_outputs_they_are_read_from_what_a_model_writes():
    outputs = Explain.read_outputs(
        '{"thought": "hm", "script": null, "sure": "yes", "quotes": [{"cited_text": "Ice", "document_title": ""}]}'
    )
    assert outputs["thought"] == "hm"
    assert outputs["sure"] == "yes"
    assert type(outputs["thought"]) is Reasoning
    assert outputs["quotes"][0].cited_text == "Ice"


def test_the_kind_of_a_field_says_whether_a_model_knows_its_type():
    kinds = {name: field.kind for name, field in Explain.fields.items()}
    assert kinds["history"] is History
    assert kinds["slides"] is kinds["sources"] is None
    assert kinds["script"] is Code["python"]
    assert [field.kind.native for field in Explain.output_fields.values() if field.kind] == [
        "reasoning",
        None,
        None,
        "citations",
    ]


def test_a_type_of_ones_own_is_a_field_too():
    class Celsius(Type):
        degrees: float

    signature = Signature("place -> t: Celsius", types={"Celsius": Celsius})
    assert signature.read_outputs('{"t": {"degrees": 21}}')["t"] == Celsius(degrees=21)
    assert signature.output_fields["t"].kind is Celsius

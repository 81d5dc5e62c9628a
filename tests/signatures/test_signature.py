"""A signature is a contract: every mistake in it is raised where it is written, and it is a value."""

from __future__ import annotations

import datetime as dt
import enum
import json
import sys
import types
from typing import Annotated, Any, Literal

import pydantic
import pytest

from otpy.errors import AdapterParseError, SignatureError
from otpy.signatures import (
    Example,
    FieldSpec,
    InputField,
    OutputField,
    Prediction,
    Signature,
    allowed_values,
    type_text,
)


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Address(pydantic.BaseModel):
    street: str
    number: int = 1


class Person(pydantic.BaseModel):
    name: str
    addresses: list[Address] = []
    friend: Person | None = None


class Triage(Signature):
    """Classify the
    customer's query.
    """

    query: str = InputField(desc="what the customer wrote")
    intent: Literal["card", "pin"] = OutputField()


def made(body: str, name: str = "S", **names: Any) -> Any:
    """Run a class statement as a module of its own would."""
    module = types.ModuleType("planted")
    module.__dict__.update(names, Signature=Signature, InputField=InputField, OutputField=OutputField, Literal=Literal)
    sys.modules["planted"] = module
    try:
        source = f"class {name}(Signature):\n    " + "\n    ".join(body.splitlines())
        exec(compile(source, "planted", "exec", dont_inherit=True), module.__dict__)
        return module.__dict__[name]
    finally:
        del sys.modules["planted"]


# -- what it says ------------------------------------------------------------------------------------------------------


def test_the_docstring_is_the_instructions_without_its_indentation():
    assert Triage.instructions == "Classify the\ncustomer's query."


def test_without_a_docstring_the_instructions_are_made_from_the_names_of_the_fields():
    assert Signature("question, hint -> answer").instructions == (
        "Given the fields `question`, `hint`, produce the fields `answer`."
    )


def test_made_instructions_follow_the_fields_and_written_ones_stay():
    more = OutputField()
    assert "`reasoning`, `answer`" in Signature("question -> answer").prepend("reasoning", more).instructions
    assert Triage.prepend("reasoning", more).instructions == Triage.instructions


def test_fields_are_known_by_name_and_in_order():
    assert list(Triage.fields) == ["query", "intent"]
    assert list(Triage.input_fields) == ["query"]
    assert list(Triage.output_fields) == ["intent"]
    assert Triage.fields["intent"].allowed == ("card", "pin")
    assert Triage.fields["query"].desc == "what the customer wrote"
    assert Triage.signature == "query: str -> intent: Literal['card', 'pin']"


def test_an_unannotated_field_is_a_text():
    class Loose(Signature):
        question = InputField()
        year: int = InputField()
        answer = OutputField()

    assert Loose.signature == "question: str, year: int -> answer: str"


def test_a_subclass_inherits_fields_and_instructions_and_adds_its_own():
    class Urgent(Triage):
        intent: Literal["card"] = OutputField(desc="narrower")
        urgent: bool = OutputField()

    assert Urgent.signature == "query: str -> intent: Literal['card'], urgent: bool"
    assert Urgent.instructions == Triage.instructions


def test_a_type_may_be_defined_in_the_function_where_the_signature_is():
    class Local(pydantic.BaseModel):
        x: int

    class UsesLocal(Signature):
        question: str = InputField()
        answer: Local = OutputField()

    assert UsesLocal.validate_outputs({"answer": {"x": 1}}) == {"answer": Local(x=1)}


def test_a_field_may_have_any_name_that_pydantic_uses_itself():
    odd = Signature("json, schema -> model_dump, model_config: int, dict")
    assert odd.validate_outputs({"model_dump": "a", "model_config": 1, "dict": "b"})["model_config"] == 1


# -- mistakes are found where the contract is written ------------------------------------------------------------------

MISTAKES = {
    "no outputs": ("q: str = InputField()", "no output fields"),
    "no inputs": ("a: str = OutputField()", "no input fields"),
    "nothing": ("pass", "no input fields"),
    "neither input nor output": ("q: str\na: str = OutputField()", "S.q is neither input nor output"),
    "a default": ("q: str = 'x'\na: str = OutputField()", "S.q has the default 'x'"),
    "a plain value": ("q: str = InputField()\na: str = OutputField()\nx = 5", "S.x is no field"),
    "a method": ("q: str = InputField()\na: str = OutputField()\ndef f(self): ...", "S.f is no field"),
    "a reserved name": ("q: str = InputField()\nusage: str = OutputField()", "S.usage"),
    "an underscore": ("q: str = InputField()\n_a: str = OutputField()", "S._a"),
    "a type that is no type": ("q: str = InputField()\na: 5 = OutputField()", "S.a"),
    "a type pydantic cannot build": ("q: str = InputField()\na: Opaque = OutputField()", "S.a: the type Opaque"),
    "a type without JSON": ("q: str = InputField()\na: Callable = OutputField()", "S.a: the type Callable"),
    "an unhashable Literal": ("q: str = InputField()\na: Literal[[]] = OutputField()", "S.a: Literal takes texts"),
    "an empty Literal": ("q: str = InputField()\na: Literal[()] = OutputField()", "S.a: Literal takes texts"),
    "a Literal of bytes": ("q: str = InputField()\na: Literal[b'x'] = OutputField()", "not b'x'"),
    "an unknown name": ("q: str = InputField()\na: 'Nowhere' = OutputField()", "'Nowhere' can't be resolved"),
    "an unknown name inside": ("q: str = InputField()\na: list['Nowhere'] = OutputField()", "S.a"),
    "a hidden type": ("q: str = InputField()\ndate: date = OutputField()", "S.date has the same name as its type"),
    "an unknown constraint": ("q: str = InputField(maximum=3)\na: str = OutputField()", "maximum"),
    "a bound on a text": ("q: str = InputField()\na: str = OutputField(gt=3)", "S.a: gt=3 does not fit the type str"),
    "a length of a number": ("q: int | None = InputField(max_length=3)\na: str = OutputField()", "S.q: max_length=3"),
    "a pattern of a list": ("q: str = InputField()\na: list[str] = OutputField(pattern='x')", "S.a: pattern='x'"),
    "a pattern that is none": ("q: str = InputField()\na: str = OutputField(pattern='(')", "S.a"),
    "a desc that is no text": ("q: str = InputField(desc=3)\na: str = OutputField()", "desc=3"),
}


class Opaque:
    pass


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_in_a_class_is_raised_where_the_class_is_made(mistake):
    from collections.abc import Callable

    body, said = MISTAKES[mistake]
    with pytest.raises(SignatureError) as raised:
        made(body, Opaque=Opaque, Callable=Callable, date=dt.date)
    assert said in str(raised.value)


def test_under_future_annotations_a_field_may_be_called_like_its_type():
    body = "q: str = InputField()\ndate: 'date' = OutputField()"
    assert made(body, date=dt.date).output_fields["date"].annotation is dt.date


def test_a_signature_is_not_called():
    with pytest.raises(SignatureError, match=r"otpy\.Predict\(Triage\)"):
        Triage(query="hello")  # type: ignore[call-arg]


@pytest.mark.parametrize("name", sorted({"self", *(name for name in dir(Prediction) if not name.startswith("_"))}))
def test_a_name_that_predictions_use_cannot_be_a_field(name):
    with pytest.raises(SignatureError, match=name):
        Signature(f"question -> {name}")


# -- it is a value -----------------------------------------------------------------------------------------------------


def test_signatures_of_equal_content_are_equal_and_hash_equal():
    one, two = Signature("a -> b: int", "Do."), Signature("a -> b: int", "Do.")
    assert one == two
    assert hash(one) == hash(two)
    assert len({one, two, Signature("a -> b: str", "Do.")}) == 2


@pytest.mark.parametrize(
    "other",
    [
        Triage.with_instructions("Other."),
        Triage.with_updated_field("intent", desc="other"),
        Triage.with_updated_field("intent", type_=Literal["pin", "card"]),
        Triage.append("more", OutputField()),
        Triage.append("more", OutputField()).delete("intent"),
    ],
)
def test_a_change_makes_another_signature_and_leaves_the_first_alone(other):
    assert other != Triage
    assert Triage.signature == "query: str -> intent: Literal['card', 'pin']"


def test_written_instructions_that_equal_the_made_ones_make_no_difference():
    plain = Signature("a -> b")
    written = Signature("a -> b", plain.instructions)
    assert written == plain
    assert hash(written) == hash(plain)


def test_fields_are_inserted_among_those_of_their_side():
    grown = Triage.append("b", InputField()).prepend("a", InputField()).insert(1, "c", OutputField(), int)
    assert grown.signature == "a: str, query: str, b: str -> intent: Literal['card', 'pin'], c: int"
    assert grown.delete("a").delete("b").delete("c") == Triage


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda: Triage.delete("nothing"), "no field 'nothing'; it has query, intent"),
        (lambda: Triage.delete("intent"), "no output fields"),
        (lambda: Triage.append("query", InputField()), "'query' appears twice"),
        (lambda: Triage.append("query", OutputField()), "'query' appears twice"),
        (lambda: Triage.append("x", "field"), "use InputField"),
        (lambda: Triage.append("not a name", InputField()), "'not a name' cannot be the name"),
        (lambda: Triage.append("class", InputField()), "'class' cannot be the name"),
        (lambda: Triage.with_updated_field("nothing", desc="x"), "no field 'nothing'"),
        (lambda: Triage.with_instructions(" "), "not empty"),
        (lambda: Triage.with_instructions(3), "instructions=3"),
    ],
)
def test_a_change_that_cannot_be_is_refused(change, said):
    with pytest.raises(SignatureError) as raised:
        change()
    assert said in str(raised.value)


def test_its_state_is_json_and_holds_names_types_and_constraints():
    rated = Signature("text -> title").append("stars", OutputField(desc="how good", ge=1), int)
    assert json.loads(json.dumps(rated.dump_state()))["fields"][2] == {
        "name": "stars",
        "side": "output",
        "type": "int",
        "desc": "how good",
        "constraints": {"ge": 1},
    }


# -- values ------------------------------------------------------------------------------------------------------------


def test_inputs_that_do_not_fit_are_named_all_at_once():
    both = Signature("question, year: int -> answer")
    with pytest.raises(SignatureError) as raised:
        both.validate_inputs({"year": "soon", "qestion": "x"})
    for said in ("'question' is missing", "'year'", "'soon'", "'qestion' is unexpected", "question: str, year: int"):
        assert said in str(raised.value)


def test_outputs_are_converted_to_their_types():
    several = Signature(
        "q -> day: date, colour: Colour, n: int, who: Person", types={"Colour": Colour, "Person": Person}
    )
    values = {"day": "2026-11-21", "colour": "red", "n": "3", "who": {"name": "Ada", "addresses": [{"street": "x"}]}}
    assert several.validate_outputs(values) == {
        "day": dt.date(2026, 11, 21),
        "colour": Colour.RED,
        "n": 3,
        "who": Person(name="Ada", addresses=[Address(street="x")]),
    }


def test_a_constraint_is_enforced_and_told():
    rated = (
        Signature("text -> x").delete("x")
        if False
        else Signature("text -> x").append("n", OutputField(ge=1, le=5), int)
    )
    assert rated.fields["n"].constraint_text == "at least 1, at most 5"
    with pytest.raises(SignatureError, match=r"'n': .*less than or equal to 5, not 9"):
        rated.validate_outputs({"x": "a", "n": 9})


def test_a_long_offending_value_is_shortened_in_the_error():
    with pytest.raises(SignatureError) as raised:
        Triage.validate_outputs({"intent": "x" * 10_000})
    assert len(str(raised.value)) < 400


def test_reading_outputs_leaves_further_keys_out_and_blames_the_model_for_what_is_missing():
    assert Triage.read_outputs('{"intent": "pin", "sure": true}') == {"intent": "pin"}
    with pytest.raises(AdapterParseError) as raised:
        Triage.read_outputs('{"intent": "car"}', answer='I say {"intent": "car"}')
    assert raised.value.missing == ("intent",)
    assert raised.value.text.startswith("I say")
    assert "'card' or 'pin'" in raised.value.detail


def test_strict_models_are_read_from_json_as_json_means_it():
    class Strict(pydantic.BaseModel):
        model_config = pydantic.ConfigDict(strict=True)
        day: dt.date
        pair: tuple[int, int]

    signature = Signature("q -> a: Strict", types={"Strict": Strict})
    assert signature.read_outputs('{"a": {"day": "2026-01-02", "pair": [1, 2]}}')["a"].pair == (1, 2)


# -- the schema --------------------------------------------------------------------------------------------------------


def test_the_schema_is_closed_and_ordered_and_requires_everything():
    schema = Signature("q -> reasoning, answer: Literal['b', 'a'], n: int").output_schema()
    assert schema.name.isidentifier()
    assert schema.schema.value == {
        "type": "object",
        "properties": {
            "reasoning": {"type": "string"},
            "answer": {"enum": ["b", "a"], "type": "string"},
            "n": {"type": "integer"},
        },
        "required": ["reasoning", "answer", "n"],
        "additionalProperties": False,
    }
    assert str(schema.schema).index("reasoning") < str(schema.schema).index("answer")


def objects(node: Any) -> list[dict[str, Any]]:
    if isinstance(node, list):
        return [found for item in node for found in objects(item)]
    if not isinstance(node, dict):
        return []
    return [node, *(found for value in node.values() for found in objects(value))]


def test_nested_objects_are_closed_too_and_hold_nothing_a_strict_server_refuses():
    class Title(pydantic.BaseModel):
        title: str = "untitled"
        properties: Annotated[int, pydantic.Field(description="how many")] = 1
        kind: Literal["only"] = "only"

    signature = Signature("q -> who: Person, what: Title, m: dict[str, int]", types={"Person": Person, "Title": Title})
    schema = signature.output_schema().schema.value
    found = objects(schema)
    assert "Person" in schema["$defs"]
    assert all(set(node["required"]) == set(node["properties"]) for node in found if "required" in node)
    assert all(node["additionalProperties"] is False for node in found if "required" in node)
    assert not any(isinstance(node.get("default"), (str, int)) or "const" in node or "oneOf" in node for node in found)
    assert all(set(node) == {"$ref"} for node in found if "$ref" in node)
    assert schema["$defs"]["Title"]["properties"]["title"] == {"type": "string"}


def test_equal_signatures_ask_for_the_same_schema_whatever_their_names():
    assert Signature("q -> a", name="One").output_schema() == Signature("q -> a", name="Two").output_schema()


# -- types in words ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("annotation", "text"),
    [
        (str, "str"),
        (None, "None"),
        (Any, "Any"),
        (list, "list"),
        (list[dict[str, int]], "list[dict[str, int]]"),
        (tuple[int, ...], "tuple[int, ...]"),
        (int | None, "int | None"),
        (int | str | None, "int | str | None"),
        (Literal["it's", 1, True], """Literal["it's", 1, True]"""),
        (Literal[Colour.RED], "Literal['red']"),
        (dt.date, "date"),
        (Colour, "Colour"),
        (Annotated[int, "x"], "int"),
    ],
)
def test_a_type_has_a_text(annotation, text):
    assert type_text(annotation) == text


@pytest.mark.parametrize(
    ("annotation", "values"),
    [
        (str, ()),
        (bool, (True, False)),
        (Colour, ("red", "blue")),
        (Literal["a"] | None, ("a", None)),
        (Literal["a"] | int, ()),
        (Annotated[Literal["a"], "x"], ("a",)),
    ],
)
def test_a_type_may_list_its_values(annotation, values):
    assert allowed_values(annotation) == values
    assert FieldSpec("x", "output", annotation).allowed == values


def test_validating_does_not_change_what_was_given():
    given = {"query": "x"}
    assert Triage.validate_inputs(Example(given)) == given == {"query": "x"}

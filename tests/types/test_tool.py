"""Tools: what is read from a function, how arguments are checked, and how calls are written as text."""

import dataclasses
import enum
import functools
import json
import pickle
from typing import Annotated, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field, TypeAdapter

from otpy.errors import SignatureError
from otpy.lm import FrozenJSON, ToolUse
from otpy.types.tool import Tool, ToolCall, ToolCalls, ToolResult, ToolResults


def weather(city: str, days: int = 1, unit: Literal["C", "F"] = "C") -> str:
    """Tell the weather.

    Of the next days.

    Args:
        city: Where.
        days: For how long.
    """
    return f"{city} {days} {unit}"


# -- what is read from a function ------------------------------------------------------------------------------------


def test_name_description_and_schema_come_from_the_function():
    tool = Tool(weather)
    assert (tool.name, tool.desc) == ("weather", "Tell the weather.\n\nOf the next days.")
    assert tool.parameters == {
        "type": "object",
        "properties": {
            "city": {"type": "string", "description": "Where."},
            "days": {"type": "integer", "description": "For how long.", "default": 1},
            "unit": {"type": "string", "enum": ["C", "F"], "default": "C"},
        },
        "required": ["city"],
        "additionalProperties": False,
    }
    assert tool.definition.parameters.value == tool.parameters


GOOGLE = """Do.

    Args:
        x (int): The number.
    """
NUMPY = """Do.

    Parameters
    ----------
    x : int
        The number.
    """
REST = """Do.

    :param x: The number.
    """


@pytest.mark.parametrize("docstring", [GOOGLE, NUMPY, REST], ids=["google", "numpy", "rest"])
def test_parameters_are_described_in_any_of_the_usual_styles(docstring):
    def do(x: int): ...

    do.__doc__ = docstring
    tool = Tool(do)
    assert tool.desc == "Do."
    assert tool.args["x"]["description"] == "The number."


def test_a_description_in_the_hint_is_kept():
    def do(x: Annotated[int, Field(description="mine", le=3)]): ...

    assert Tool(do).args["x"] == {"type": "integer", "maximum": 3, "description": "mine"}


def test_name_description_and_parameters_can_be_overridden():
    tool = Tool(weather, name="forecast", desc="Look ahead.", args={"city": "A town.", "days": Literal[1, 2]})
    assert (tool.name, tool.desc) == ("forecast", "Look ahead.")
    assert tool.args["city"]["description"] == "A town."
    with pytest.raises(ValueError, match="'days': input should be 1 or 2"):
        tool.validated({"city": "Bonn", "days": 3})


class Scale:
    """A scale."""

    def __call__(self, grams: int) -> int:
        """Weigh it."""
        return grams

    def tare(self, *, to: int = 0) -> None:
        """Set it."""


@functools.wraps(weather)
def wrapped(**given):
    return weather(**given)


@pytest.mark.parametrize(
    ("function", "name", "desc", "args"),
    [
        (Scale(), "Scale", "Weigh it.", ["grams"]),
        (Scale().tare, "tare", "Set it.", ["to"]),
        (functools.partial(weather, days=2), "weather", "Tell the weather.", ["city", "days", "unit"]),
        (wrapped, "weather", "Tell the weather.", ["city", "days", "unit"]),
    ],
    ids=["an object that can be called", "a bound method", "a partial", "a decorated function"],
)
def test_whatever_can_be_called_by_name_is_a_tool(function, name, desc, args):
    tool = Tool(function)
    assert (tool.name, tool.desc.split("\n")[0], list(tool.args)) == (name, desc, args)


def test_a_parameter_may_have_any_name():
    def odd(schema: int, json: int, model_config: int, _x: int, class_: int = 0): ...

    given = {"schema": 1, "json": 2, "model_config": 3, "_x": 4}
    assert Tool(odd).validated(given) == given


def test_a_function_of_any_arguments_has_those_it_is_given():
    def anything(**options): ...

    assert Tool(anything).validated({"a": 1}) == {"a": 1}
    named = Tool(anything, args={"level": int})
    assert named.validated({"level": "2"}) == {"level": 2}
    with pytest.raises(ValueError, match="'a' is unexpected"):
        named.validated({"level": 1, "a": 1})


def positional(x, /): ...


def variable(*xs): ...


def unresolved(x: "Nowhere"): ...  # noqa: F821


def unusable(x: Scale): ...


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (Tool, "needs a function"),
        (lambda: Tool(3), "not a function"),
        (lambda: Tool(lambda x: x), "tool name '<lambda>': letters, digits"),
        (lambda: Tool(weather, name="a b"), "tool name 'a b'"),
        (lambda: Tool(weather, name="x" * 65), "at most 64"),
        (lambda: Tool(weather, args={"town": "?"}), "has no parameter 'town'; its parameters: city, days, unit"),
        (lambda: Tool(weather, args={"city": "?"}, parameters={}), "the schema is given whole"),
        (lambda: Tool(positional), "x cannot be given by name"),
        (lambda: Tool(variable), r"\*xs cannot be given by name"),
        (lambda: Tool(unresolved), "its signature cannot be read: name 'Nowhere' is not defined"),
        (lambda: Tool(unusable), "a parameter's type cannot be used"),
    ],
)
def test_what_cannot_be_a_tool_is_refused_where_it_is_made(make, message):
    with pytest.raises(SignatureError, match=message):
        make()


# -- arguments -------------------------------------------------------------------------------------------------------


class Place(BaseModel):
    name: str
    at: tuple[float, float] | None = None


@dataclasses.dataclass
class Span:
    days: int


class Unit(enum.Enum):
    C = "celsius"


def forecast(place: Place, span: Span, unit: Unit = Unit.C, note: str | None = None): ...


def test_arguments_become_what_the_hints_say():
    found = Tool(forecast).validated({"place": {"name": "Bonn"}, "span": {"days": "3"}, "unit": "celsius"})
    assert found == {"place": Place(name="Bonn"), "span": Span(3), "unit": Unit.C}


def test_null_for_what_may_be_left_out_leaves_it_out_unless_it_may_be_null():
    tool = Tool(forecast)
    found = tool.validated({"place": {"name": "x"}, "span": {"days": 1}, "unit": None, "note": None})
    assert found == {"place": Place(name="x"), "span": Span(1), "note": None}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "'city' is missing; the arguments are city, days, unit"),
        ({"city": "x", "town": 1}, "'town' is unexpected; the arguments are"),
        ({"city": None}, "'city': input should be a valid string, not None"),
        ({"city": "x", "days": "many"}, "'days': input should be a valid integer.*not 'many'"),
        ({"city": "x", "unit": "K"}, "'unit': input should be 'C' or 'F', not 'K'"),
    ],
)
def test_what_does_not_fit_is_said_in_words(given, message):
    with pytest.raises(ValueError, match=message):
        Tool(weather).validated(given)


def test_a_huge_wrong_argument_is_not_repeated_whole():
    with pytest.raises(ValueError, match="days") as caught:
        Tool(weather).validated({"city": "x", "days": "9" * 1_000_000 + "x"})
    assert len(str(caught.value)) < 600


def test_of_a_tool_whose_schema_is_given_the_names_are_checked():
    schema = {"properties": {"a": {"type": "integer"}}, "required": ["a"], "additionalProperties": False}
    tool = Tool(lambda **given: given, name="remote", parameters=schema)
    assert tool.validated({"a": "what its server says"}) == {"a": "what its server says"}
    with pytest.raises(ValueError, match="'a' is missing; 'b' is unexpected"):
        tool.validated({"b": 1})


# -- a value ---------------------------------------------------------------------------------------------------------


def test_equal_tools_are_equal_and_hash_alike():
    assert Tool(weather) == Tool(weather)
    assert hash(Tool(weather)) == hash(Tool(weather))
    assert Tool(weather) != Tool(weather, desc="other")
    assert Tool(weather) != weather


def test_a_tool_does_not_change():
    with pytest.raises(ValueError, match="frozen"):
        Tool(weather).name = "other"


@pytest.mark.parametrize("tool", [Tool(weather, args={"city": "A town."}), Tool(name="remote", parameters={"a": 1})])
def test_a_tool_can_be_pickled(tool):
    assert pickle.loads(pickle.dumps(tool)) == tool


def test_a_tool_in_a_field_is_written_without_its_function_and_read_as_a_description():
    kind = TypeAdapter(list[Tool])
    written = kind.dump_json([Tool(weather)])
    (read,) = kind.validate_json(written)
    assert (read.name, read.parameters, read.func) == ("weather", Tool(weather).parameters, None)
    assert kind.validate_python([Tool(weather)]) == [Tool(weather)]


def test_a_tool_is_shown_in_a_line():
    assert str(Tool(weather)) == (
        'weather(city: string, days: integer = 1, unit: "C" | "F" = "C"): Tell the weather. Of the next days.'
    )
    assert str(Tool(name="stop", desc="End.")) == "stop(): End."


# -- calls and results -----------------------------------------------------------------------------------------------

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)
calls = st.builds(ToolCall, name=st.text(), args=st.dictionaries(st.text(), values), id=st.text())


@given(st.lists(calls).map(lambda found: ToolCalls(tool_calls=tuple(found))))
def test_calls_are_read_as_they_were_written(value):
    assert ToolCalls.model_validate_json(value.model_dump_json()) == value
    assert hash(ToolCalls.model_validate_json(value.model_dump_json())) == hash(value)


def test_a_call_is_written_without_what_it_does_not_have():
    assert ToolCall(name="now").model_dump() == {"name": "now", "args": {}}
    assert ToolCall(name="now", id="7", signature="s").model_dump() == {
        "name": "now",
        "args": {},
        "id": "7",
        "signature": "s",
    }


def test_calls_and_results_are_parts_of_messages():
    found = ToolCalls.of_parts((ToolUse("7", "weather", FrozenJSON.of({"city": "Bonn"}), "signed"),))
    assert found.parts() == (ToolUse("7", "weather", FrozenJSON.of({"city": "Bonn"}), "signed"),)
    assert [part.id for part in ToolCalls(tool_calls=[ToolCall(name="a"), ToolCall(name="b")]).parts()] == [
        "call_1",
        "call_2",
    ]
    (part,) = ToolResults(tool_results=[ToolResult(name="a", content="no", is_error=True)]).parts()
    assert (part.id, part.content, part.is_error) == ("call_1", "no", True)


class Node(BaseModel):
    value: int
    next: "Node | None" = None


def linked(start: Node, limit: int = 3): ...


def test_the_schema_of_calls_names_the_tools_and_closes_their_arguments():
    kind = ToolCalls.of([Tool(linked), Tool(weather)], max_calls=2)
    schema = TypeAdapter(kind).json_schema()
    assert "$ref" not in json.dumps(schema)
    several = schema["properties"]["tool_calls"]
    assert (several["minItems"], several["maxItems"]) == (1, 2)
    first, second = several["items"]["anyOf"]
    assert first["properties"]["args"]["properties"]["start"]["properties"]["next"]["anyOf"][0] == {"type": "object"}
    assert second["properties"]["args"]["properties"]["days"]["anyOf"][1] == {"type": "null"}
    assert second["properties"]["args"]["required"] == ["city", "days", "unit"]
    plain = ToolCalls(tool_calls=[ToolCall(name="linked", args={})])
    assert TypeAdapter(kind).validate_python(plain) == plain


def test_a_schema_whose_references_double_at_every_level_is_refused():
    levels = {f"d{n}": {"properties": {side: {"$ref": f"#/$defs/d{n + 1}"} for side in "ab"}} for n in range(40)}
    schema = {"type": "object", "properties": {"x": {"$ref": "#/$defs/d0"}}, "$defs": levels}
    with pytest.raises(SignatureError, match="tool 't': its JSON schema has more than"):
        ToolCalls.of([Tool(name="t", parameters=schema)])


def test_a_schema_that_is_too_deep_is_refused():
    levels = {f"d{n}": {"items": {"$ref": f"#/$defs/d{n + 1}"}} for n in range(400)}
    schema = {"type": "object", "properties": {"x": {"$ref": "#/$defs/d0"}}, "$defs": levels}
    with pytest.raises(SignatureError, match="levels"):
        ToolCalls.of([Tool(name="t", parameters=schema)])

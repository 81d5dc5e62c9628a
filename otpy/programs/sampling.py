"""Values that stand for a model's answers: of the right type, with texts that say where they come from. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final, cast, get_args, get_origin

from pydantic import Field, TypeAdapter, ValidationError

from otpy.types import Audio, File, Image

if TYPE_CHECKING:
    from collections.abc import Mapping

    from otpy.signatures import FieldSpec

__all__ = ["Unknown", "misfit", "sample", "ways"]

_DEPTH: Final = 3  # objects in objects
_UNSURE: Final = {
    "greater_than", "greater_than_equal", "less_than", "less_than_equal", "multiple_of", "string_too_short",
    "string_too_long", "string_pattern_mismatch", "too_short", "too_long", "bytes_too_short", "bytes_too_long",
    "value_error", "assertion_error",
}  # fmt: skip
"""What may be wrong with this value and right with the next one."""
_FORMATS: Final = {
    "date": "2026-01-02", "date-time": "2026-01-02T03:04:05", "time": "03:04:05", "duration": "PT1S",
    "uuid": "00000000-0000-4000-8000-000000000000", "uri": "https://example.org/", "email": "a@example.org",
}  # fmt: skip


_MEDIA: Final[Mapping[Any, bytes]] = {
    Image: b"\x89PNG\r\n\x1a\n", Audio: b"RIFF\x04\x00\x00\x00WAVE", File: b"%PDF-1.7\n"
}  # fmt: skip
"""How the smallest of each begins."""


class Unknown(str):
    """A value of which nothing is known; it goes wherever it is put."""

    __slots__ = ()


def _adapter(field: FieldSpec) -> TypeAdapter[Any]:
    described: Any = Field(**dict(field.constraints))
    kind: Any = Annotated[field.annotation, described]
    return TypeAdapter(kind)


def sample(field: FieldSpec, name: str, turn: int = 0) -> Any:
    """Return a value of a field's type, or an `Unknown` where no rule here makes one.

    Args:
        field: The field.
        name: What its texts say, to be recognised by.
        turn: Which of the values to take where there are several ways: choices, unions, booleans.

    Example:
        >>> from typing import Literal
        >>> from otpy.programs.sampling import sample
        >>> from otpy.signatures import FieldSpec
        >>> colour = FieldSpec("colour", "output", list[Literal["red", "blue"]])
        >>> sample(colour, "paint.colour"), sample(colour, "paint.colour", turn=1)
        (['red'], ['blue'])
        >>> sample(FieldSpec("word", "output", str), "paint.word")
        '<paint.word>'
    """
    label = f"<{name}>"
    if (medium := _medium(field.annotation)) is not None:
        return medium
    try:
        adapter = _adapter(field)
        schema: dict[str, Any] = adapter.json_schema()
        return adapter.validate_python(_Sampling(schema.get("$defs", {}), label, turn).value(schema))
    except Exception:  # noqa: BLE001 - a type's own hooks may raise anything, and what cannot be made is unknown
        return sample(field, name) if turn else Unknown(label)


def _medium(annotation: Any) -> Any:
    """The smallest picture, sound or file, alone or in a list; `None` for any other type."""
    if annotation in _MEDIA:
        return annotation(_MEDIA[annotation])
    origin, args = get_origin(annotation), get_args(annotation)
    found = next((medium for arg in args if (medium := _medium(arg)) is not None), None)
    return [found] if found is not None and origin is list else found


def ways(field: FieldSpec) -> int:
    """Return how many turns of `sample` see every choice of a field's type once.

    Args:
        field: The field.
    """
    try:
        schema: dict[str, Any] = _adapter(field).json_schema()
    except Exception:  # noqa: BLE001 - as above
        return 1
    return _ways(schema, schema.get("$defs", {}), 0)


def _ways(schema: Any, definitions: Mapping[str, Any], depth: int) -> int:
    if not isinstance(schema, dict) or depth > _DEPTH:
        return 1
    node: dict[str, Any] = cast("Any", schema)
    if "$ref" in node:
        return _ways(definitions.get(str(node["$ref"]).rpartition("/")[2]), definitions, depth + 1)
    options: list[Any] = node.get("anyOf") or node.get("oneOf") or []
    here = max(len(node.get("enum", ())), len(options), 2 if node.get("type") == "boolean" else 1)
    inner = [*options, *node.get("properties", {}).values(), node.get("items"), node.get("additionalProperties")]
    return max([here, *(_ways(item, definitions, depth + 1) for item in inner)])


def misfit(field: FieldSpec, value: Any) -> str:
    """Return why a value cannot be given to a field, in words; empty if it can, or another of its type might.

    Args:
        field: The field.
        value: What it is given.

    Example:
        >>> from otpy.programs.sampling import misfit
        >>> from otpy.signatures import FieldSpec
        >>> misfit(FieldSpec("n", "input", int), "<ask.query>")
        'input should be a valid integer, unable to parse string as an integer'
    """
    try:
        _adapter(field).validate_python(value)
    except ValidationError as error:
        wrong = [item for item in error.errors(include_url=False) if item["type"] not in _UNSURE]
        wrong = [item for item in wrong if not isinstance(item["input"], Unknown)]
        return "; ".join(
            ".".join(str(part) for part in item["loc"]) + (": " if item["loc"] else "")
            + item["msg"][0].lower() + item["msg"][1:]
            for item in wrong
        )  # fmt: skip
    return ""


class _Sampling:
    """The making of one value from a JSON schema."""

    def __init__(self, definitions: Mapping[str, Any], label: str, turn: int) -> None:
        self.definitions, self.label, self.turn = definitions, label, turn

    def value(self, schema: Mapping[str, Any], depth: int = 0) -> Any:  # noqa: C901, PLR0911 - a case a kind of schema
        match schema:
            case {"$ref": str() as name}:
                return self.value(self.definitions[name.rpartition("/")[2]], depth + 1)
            case {"const": value}:
                return value
            case {"enum": [*values]}:
                return values[self.turn % len(values)]
            case {"anyOf": [*options]} | {"oneOf": [*options]} | {"allOf": [*options]}:
                simple = [option for option in options if option.get("type") == "null"]
                return self.value(simple[0] if simple and depth > _DEPTH else options[self.turn % len(options)], depth)
            case {"type": "object"}:
                return self.object(schema, depth)
            case {"type": "array"}:
                return self.array(schema, depth)
            case {"type": "boolean"}:
                return self.turn % 2 == 0
            case {"type": "integer"} | {"type": "number"}:
                return self.number(schema)
            case {"type": "null"}:
                return None
            case {"type": "string"}:
                return self.text(schema)
            case _:
                return Unknown(self.label)

    def object(self, schema: Mapping[str, Any], depth: int) -> dict[str, Any]:
        properties: dict[str, Any] = schema.get("properties", {})
        needed = properties if depth <= _DEPTH else schema.get("required", ())
        made = {name: self.value(properties[name], depth + 1) for name in needed}
        further = schema.get("additionalProperties")
        if not properties and isinstance(further, dict) and depth <= _DEPTH:
            made["key"] = self.value(cast("Any", further), depth + 1)
        return made

    def array(self, schema: Mapping[str, Any], depth: int) -> list[Any]:
        if first := schema.get("prefixItems"):
            return [self.value(item, depth + 1) for item in first]
        least = int(schema.get("minItems", 0))
        count = least if depth > _DEPTH else max(1, least)
        return [self.value(schema.get("items", {}), depth + 1) for _ in range(count)]

    def number(self, schema: Mapping[str, Any]) -> float:
        step = schema.get("multipleOf", 1)
        low, high = schema.get("minimum"), schema.get("maximum")
        if low is None and "exclusiveMinimum" in schema:
            low = schema["exclusiveMinimum"] + step
        if high is None and "exclusiveMaximum" in schema:
            high = schema["exclusiveMaximum"] - step
        number = low if low is not None else min(step, high) if high is not None else step
        if "multipleOf" in schema:
            number = -(-number // step) * step
        if schema["type"] == "integer":
            return int(number)
        if low is None or high is None or "multipleOf" in schema:
            return float(number)
        return float(schema.get("exclusiveMinimum", low) + schema.get("exclusiveMaximum", high)) / 2

    def text(self, schema: Mapping[str, Any]) -> str:
        if (form := schema.get("format")) in _FORMATS:
            return _FORMATS[form]
        text = self.label.ljust(int(schema.get("minLength", 0)), ".")
        return text[: int(schema.get("maxLength", len(text)))]

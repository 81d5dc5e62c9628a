"""One side of a signature as pydantic sees it: validate values, read JSON, write JSON, the JSON schema.

A dataclass stands for the side, because a dataclass may have fields of any name, such as `json` or `schema`.
"""

from __future__ import annotations

from dataclasses import field as dataclass_field
from dataclasses import make_dataclass
from typing import TYPE_CHECKING, Annotated, Any, Final, cast

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError

from otpy.errors import SignatureError
from otpy.lm import FrozenJSON

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from otpy.signatures.fields import FieldSpec

__all__ = ["Record", "Unfit"]

_SHOWN: Final = 80  # characters of an offending value
_SAID_ALL: Final = {"value_error", "assertion_error"}  # a validator's own words


class Unfit(ValueError):
    """Values that do not fit, in words.

    Args:
        names: The fields that are missing or invalid.
        detail: What is wrong with each, in words a person or a model can act on.
    """

    def __init__(self, names: tuple[str, ...], detail: str) -> None:
        """Keep both."""
        self.names, self.detail = names, detail
        super().__init__(detail)


class Record:
    """Validates the values of some fields together.

    Args:
        owner: The signature's name, for messages.
        module: Where the signature is defined: there, pydantic looks up names inside of types.
        fields: The fields, in order.
        validators: pydantic's validators that watch this side, by name.

    Raises:
        SignatureError: If pydantic can't build a schema for a field's type and constraints.
    """

    def __init__(
        self, owner: str, module: str, fields: Iterable[FieldSpec], validators: Mapping[str, Any] | None = None
    ) -> None:
        """Build the validator; each field is tried alone only if together they fail, to name the one to blame."""
        self.fields = {field.name: field for field in fields}
        try:
            self._adapter = _adapter(owner, module, self.fields.values(), validators or {})
            schema = _tidied(self._adapter.json_schema())
            self.schema = FrozenJSON.of(_inlined(schema, _short(schema)), sort_keys=False)
        except Exception as error:
            for field in self.fields.values():
                try:
                    _adapter(owner, module, [field], {}).json_schema()
                except Exception as why:  # noqa: BLE001 - a type's own hooks may raise anything
                    raise SignatureError(f"{owner}.{field.name}: the type {field.type} {_refused(why)}") from None
            raise SignatureError(f"{owner}: {_refused(error)}") from error
        self._type: Any = self._adapter._type  # noqa: SLF001 - the dataclass given to it
        self._texts = all(field.annotation is str for field in self.fields.values())

    def validated(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return values converted to their types.

        Raises:
            Unfit: If any is missing, unexpected or invalid.
        """
        try:
            if values.keys() <= self.fields.keys():
                return self._values(self._adapter.validate_python(dict(values)))
        except ValidationError as error:
            raise self._unfit(error) from None
        unexpected = [name for name in values if name not in self.fields]
        words = [f"{name!r} is unexpected" for name in unexpected]
        try:
            self._adapter.validate_python({name: value for name, value in values.items() if name in self.fields})
        except ValidationError as error:
            words.insert(0, self._unfit(error).detail)
        raise Unfit(tuple(unexpected), "; ".join(words))

    def read(self, text: str | bytes) -> dict[str, Any]:
        """Return the values in a JSON object; keys that are no fields are left out.

        Raises:
            Unfit: If it is no JSON object, or a field is missing or invalid.
        """
        try:
            return self._values(self._adapter.validate_json(text))
        except ValidationError as error:
            raise self._unfit(error) from None

    def dumped(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return values of these fields as plain JSON data, in field order.

        Raises:
            Unfit: If one is missing, or can't be written as JSON.
        """
        missing = [name for name in self.fields if name not in values]
        if missing:
            raise Unfit(tuple(missing), "; ".join(f"{name!r} is missing" for name in missing))
        if self._texts:
            texts: dict[str, Any] = {name: values[name] for name in self.fields}
            if all(type(text) is str for text in texts.values()):
                return texts
        record = self._type(*(values[name] for name in self.fields))
        try:
            dumped: dict[str, Any] = self._adapter.dump_python(record, mode="json", warnings="error")
        except (PydanticSerializationError, ValueError) as error:
            raise Unfit((), f"a value can't be written as JSON: {error}") from None
        return dumped

    def _values(self, record: Any) -> dict[str, Any]:
        return {name: getattr(record, name) for name in self.fields}

    def _unfit(self, error: ValidationError) -> Unfit:
        names: list[str] = []
        words: list[str] = []
        for item in error.errors(include_url=False, include_context=False):
            where, message = ".".join(str(part) for part in item["loc"]), _said(item["msg"])
            names.extend([str(item["loc"][0])] if item["loc"] else self.fields)
            if item["type"] == "missing":
                words.append(f"{where!r} is missing")
            else:
                fault = message if item["type"] in _SAID_ALL or not where else f"{message}, not {_shown(item['input'])}"
                words.append(f"{where!r}: {fault}" if where else fault)
        return Unfit(tuple(dict.fromkeys(names)), "; ".join(words))


def _adapter(owner: str, module: str, fields: Iterable[FieldSpec], validators: Mapping[str, Any]) -> TypeAdapter[Any]:
    kinds: list[tuple[str, Any, Any]] = []
    for field in fields:
        described: Any = Field(description=field.desc or None, **dict(field.constraints))
        without_default = dataclass_field()  # said, as a class seems to have a value for `mro` and all that `type` has
        kinds.append((field.name, Annotated[field.annotation, described], without_default))
    namespace = {**validators, "__pydantic_config__": ConfigDict(extra="ignore"), "__module__": module}
    return TypeAdapter(make_dataclass(owner, kinds, namespace=namespace))


def _said(message: str) -> str:
    """pydantic's sentence in the middle of ours; that of a validator as it was raised."""
    for beginning in ("Value error, ", "Assertion failed, "):
        if message.startswith(beginning):
            return message.removeprefix(beginning)
    return message[:1].lower() + message[1:]


def _shown(value: object) -> str:
    if isinstance(value, bytes):
        return f"{len(value)} bytes"
    shown = repr(value)
    return shown if len(shown) <= _SHOWN else shown[:_SHOWN] + "…"


def _refused(error: Exception) -> str:
    lines = str(error).splitlines() or [type(error).__name__]
    why = lines[-1].strip() if lines[0].endswith(":") else lines[0]  # pydantic nests the cause of what it can't build
    return f"can't be used: {why}"


_DROPPED: Final = {"title", "default", "discriminator", "required"}
_RENAMED: Final = {"oneOf": "anyOf"}


def _tidied(node: Any) -> Any:
    """Put a schema into the form that both llama.cpp's grammars and OpenAI's strict mode take.

    Every object closed and with all keys required, no defaults, no titles, `enum` for `const`, `anyOf` for `oneOf`,
    nothing beside a `$ref`.
    """
    if isinstance(node, list):
        items: list[Any] = cast("Any", node)
        return [_tidied(item) for item in items]
    if not isinstance(node, dict):
        return node
    schema: dict[str, Any] = cast("Any", node)
    if "$ref" in schema:
        return {"$ref": schema["$ref"]}
    tidy: dict[str, Any] = {}
    for key, value in schema.items():
        if key in {"properties", "$defs"}:
            tidy[key] = {name: _tidied(child) for name, child in value.items()}
        elif key == "const":
            tidy["enum"] = [value]
        elif key == "enum":
            tidy[key] = value
        elif key not in _DROPPED:
            tidy[_RENAMED.get(key, key)] = _tidied(value)
    if "properties" in tidy:
        tidy |= {"required": list(tidy["properties"]), "additionalProperties": False}
    return tidy


def _inlined(node: Any, short: Mapping[str, Any]) -> Any:
    """Put definitions of one line where they are used."""
    if isinstance(node, list):
        items: list[Any] = cast("Any", node)
        return [_inlined(item, short) for item in items]
    if not isinstance(node, dict):
        return node
    schema: dict[str, Any] = cast("Any", node)
    if schema.get("$ref") in short:
        return short[schema["$ref"]]
    inlined = {key: _inlined(value, short) for key, value in schema.items() if key != "$defs"}
    named = {name: part for name, part in schema.get("$defs", {}).items() if f"#/$defs/{name}" not in short}
    return {"$defs": {name: _inlined(part, short) for name, part in named.items()}, **inlined} if named else inlined


def _short(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The definitions that are no objects: enumerations, and what `otpy.types` are written as."""
    return {
        f"#/$defs/{name}": part
        for name, part in schema.get("$defs", {}).items()
        if "properties" not in part and "$ref" not in str(part)
    }

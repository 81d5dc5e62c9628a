"""Demos of a predictor: examples of its task, checked field by field; some may lack fields. Pure."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from otpy.errors import SignatureError
from otpy.signatures import Example
from otpy.signatures.record import Record, Unfit

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from otpy.signatures import FieldSpec, Signature

__all__ = ["demos_of", "dumped_demo", "read_demo"]


def demos_of(signature: type[Signature], demos: Iterable[Mapping[str, Any]]) -> tuple[Example, ...]:
    """Return demos with the signature's fields, validated, if they can also be written as JSON and read again.

    Args:
        signature: The contract.
        demos: Examples of the task; one may lack fields, and has at least one on either side.

    Raises:
        SignatureError: If one has not, or has an invalid value.
    """
    return tuple(_demo(signature, number, demo) for number, demo in enumerate(demos, 1))


def _demo(signature: type[Signature], number: int, demo: Mapping[str, Any]) -> Example:
    present = {name: demo[name] for name in signature.fields if name in demo}
    if not (present.keys() & signature.input_fields.keys() and present.keys() & signature.output_fields.keys()):
        inputs, outputs = (", ".join(fields) for fields in (signature.input_fields, signature.output_fields))
        raise SignatureError(
            f"demo {number} has {', '.join(demo) or 'nothing'}; it needs one of the inputs {inputs} at least, and one"
            f" of the outputs {outputs}"
        )
    try:
        if len(present) == len(signature.fields):
            values = signature.validate_inputs({name: present[name] for name in signature.input_fields})
            values |= signature.validate_outputs({name: present[name] for name in signature.output_fields})
        else:
            values = {name: _one(signature.fields[name], value) for name, value in present.items()}
        read_demo(signature, dumped_demo(signature, values))
    except SignatureError as error:
        raise SignatureError(f"demo {number}: {error}") from None
    return Example(values).with_inputs(*(name for name in signature.input_fields if name in values))


def dumped_demo(signature: type[Signature], demo: Mapping[str, Any]) -> dict[str, Any]:
    """Return a demo as JSON data.

    Args:
        signature: The contract.
        demo: The demo.

    Raises:
        SignatureError: If a value cannot be written.
    """
    if len(demo) == len(signature.fields):
        return {**signature.dump_inputs(demo), **signature.dump_outputs(demo)}
    data: dict[str, Any] = {}
    for name, value in demo.items():
        try:
            data |= _record(signature.fields[name]).dumped({name: value})
        except Unfit as unfit:
            raise SignatureError(unfit.detail) from None
    return data


def read_demo(signature: type[Signature], data: Mapping[str, Any]) -> dict[str, Any]:
    """Return a demo that `dumped_demo` has written.

    Args:
        signature: The contract.
        data: What it returned.

    Raises:
        SignatureError: If a value is invalid.
    """
    if len(data) == len(signature.fields):
        return signature.read_json(data)
    values: dict[str, Any] = {}
    for name, value in data.items():
        if name not in signature.fields:
            raise SignatureError(f"{signature.__name__} has no field {name!r}; it has {', '.join(signature.fields)}")
        try:
            values |= _record(signature.fields[name]).read(json.dumps({name: value}))
        except Unfit as unfit:
            raise SignatureError(unfit.detail) from None
    return values


def _one(field: FieldSpec, value: Any) -> Any:
    try:
        return _record(field).validated({field.name: value})[field.name]
    except Unfit as unfit:
        raise SignatureError(unfit.detail) from None


@lru_cache(maxsize=512)
def _record(field: FieldSpec) -> Record:
    return Record("demo", __name__, [field])

"""Programs on disk: JSON, by the names of predictors and fields, with a hash of the content. Never pickle."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from otpy.errors import ProgramError, SignatureError
from otpy.programs import files
from otpy.programs.chain_of_thought import ChainOfThought
from otpy.programs.predict import Predict
from otpy.programs.program import Program
from otpy.signatures import FieldSpec, Signature, SignatureMeta
from otpy.signatures.string_form import parse_type

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

__all__ = ["load", "load_file", "save"]

P = TypeVar("P", bound=Program)


def save(program: Program, path: str | os.PathLike[str]) -> None:
    """Write a program's state to a JSON file, whole or not at all.

    Args:
        program: The program.
        path: The file; an older one is replaced.

    Raises:
        ProgramError: If the file cannot be written.

    Example:
        >>> import tempfile
        >>> from otpy.programs import Predict, load_file, save
        >>> program = Predict("question -> answer", demos=[{"question": "2 + 2?", "answer": "4"}])
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     save(program, f"{directory}/program.json")
        ...     load_file(f"{directory}/program.json") == program
        True
    """
    program.save(path)


def load(program: P | type[P], path: str | os.PathLike[str], *, verify: bool = True) -> P:
    """Return a copy of a program with the state of a file.

    Args:
        program: A program of the same structure: the same predictors, the same fields of the same types. Or its class,
            if that needs no arguments.
        path: The file.
        verify: Whether the content must match the file's own hash, and the program's class have the name it had; pass
            `False` for a file edited by hand.

    Raises:
        ProgramError: If the file cannot be read, has been edited, or belongs to another structure; the message names
            the predictors and fields that differ.
        SignatureError: If a demo in it does not fit.
    """
    filling: Any = program
    if isinstance(program, type):
        try:
            filling = program()
        except TypeError as error:
            raise ProgramError(f"load: {program.__name__} needs arguments ({error}); give load() a program") from None
    if not isinstance(filling, Program):
        raise ProgramError(f"load() takes a program to fill, as in load(MyProgram(), path), not {program!r}")
    loaded: Any = filling.load(path, verify=verify)
    return loaded  # type: ignore[no-any-return]


def load_file(path: str | os.PathLike[str], *, verify: bool = True) -> Program:
    """Return the program of a file that needs no code: a `Predict` or `ChainOfThought` over plain types.

    Args:
        path: The file.
        verify: As for `load`.

    Raises:
        ProgramError: If it cannot be read, or needs its class or its types from your code; then use `load`.
        SignatureError: If a demo in it does not fit.
    """
    state = files.read(path, verify=verify)
    kind, predictors = state["program"], state["predictors"]
    name = {"Predict": "self", "ChainOfThought": "predict"}.get(kind)
    if name is None or set(predictors) != {name}:
        raise ProgramError(f"{path}: a {kind} needs its class: load({kind}(...), path)")
    try:
        signature = _signature(predictors[name]["signature"], path)
    except (KeyError, TypeError, AttributeError) as error:
        raise ProgramError(f"{path}: not a saved predictor: {error!r}") from error
    program = Predict(signature) if kind == "Predict" else ChainOfThought(signature.delete("reasoning"))
    return program.map_predictors(lambda _, predictor: predictor.filled(predictors[name], f"{path}: {name}"))


def _signature(contract: Mapping[str, Any], path: str | os.PathLike[str]) -> type[Signature]:
    fields: list[FieldSpec] = []
    for field in contract["fields"]:
        try:
            kind = parse_type(field["type"])
        except SignatureError as error:
            raise ProgramError(
                f"{path}: field {field['name']!r} has the type {field['type']}, which only your code knows;"
                " load it with load(program, path)"
            ) from error
        constraints = tuple(field.get("constraints", {}).items())
        fields.append(FieldSpec(field["name"], field["side"], kind, field["desc"], constraints))
    made: Any = SignatureMeta(contract["name"], (Signature,), {}, fields=fields, instructions=contract["instructions"])
    return made  # type: ignore[no-any-return]

"""Programs on disk: JSON, by the names of predictors and fields, with a hash of the content. Never pickle."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from otpy.adapters import ADAPTERS
from otpy.errors import ProgramError, SignatureError
from otpy.programs.chain_of_thought import ChainOfThought
from otpy.programs.predict import Predict
from otpy.programs.program import Program
from otpy.signatures import Signature, SignatureMeta
from otpy.signatures.fields import FieldSpec
from otpy.signatures.string_form import parse_string

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["FORMAT", "load", "load_file", "save"]

P = TypeVar("P", bound=Program)

FORMAT: Final = 1
"""The version of the file's shape."""


def save(program: Program, path: str | Path) -> None:
    """Write a program's state to a JSON file, whole or not at all.

    Args:
        program: The program.
        path: The file; an older one is replaced.

    Raises:
        ProgramError: If the file cannot be written.
    """
    from otpy import __version__  # noqa: PLC0415 - the number only

    state = {"format": FORMAT, "otpy": __version__, **program.dump_state(), "hash": program.content_hash()}
    target = Path(path)
    try:
        handle, temporary = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump(state, file, indent=2, ensure_ascii=False)
                file.write("\n")
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, target)
        except BaseException:
            with contextlib.suppress(OSError):
                Path(temporary).unlink()
            raise
    except OSError as error:
        raise ProgramError(f"{target}: cannot be written: {error.strerror or error}") from error


def load(program: P, path: str | Path, *, verify: bool = True) -> P:
    """Return a copy of a program with the state of a file.

    Args:
        program: A program of the same structure: the same predictors, the same fields of the same types.
        path: The file.
        verify: Whether the content must match the file's own hash; pass `False` for a file edited by hand.

    Raises:
        ProgramError: If the file cannot be read, has been edited, or belongs to another structure; the message names
            the predictors and fields that differ.
        SignatureError: If a demo in it does not fit.
    """
    if not isinstance(program, Program):
        raise ProgramError(f"load() takes a program to fill, as in load(MyProgram(), path), not {program!r}")
    state = _read(path, verify=verify)
    own, saved = dict(program.named_predictors()), state["predictors"]
    if set(own) != set(saved):
        raise ProgramError(
            f"{path}: predictors differ: the file has {', '.join(saved)}; the program has {', '.join(own)}"
        )
    return program.map_predictors(lambda name, predictor: _filled(predictor, saved[name], f"{path}: {name}"))


def load_file(path: str | Path, *, verify: bool = True) -> Program:
    """Return the program of a file that needs no code: a `Predict` or `ChainOfThought` over plain types.

    Args:
        path: The file.
        verify: As for `load`.

    Raises:
        ProgramError: If it cannot be read, or needs its class or its types from your code; then use `load`.
    """
    state = _read(path, verify=verify)
    kinds = {"Predict": "self", "ChainOfThought": "predict"}
    name = kinds.get(state["program"])
    if name is None or set(state["predictors"]) != {name}:
        raise ProgramError(f"{path}: a {state['program']} needs its class: load({state['program']}(...), path)")
    saved = state["predictors"][name]
    signature = _signature(saved["signature"], path)
    if state["program"] == "Predict":
        return _filled(Predict(signature), saved, str(path))
    outer: Program = ChainOfThought(signature.delete("reasoning"))
    return outer.map_predictors(lambda _, predictor: _filled(predictor, saved, str(path)))


def _read(path: str | Path, *, verify: bool) -> dict[str, Any]:
    try:
        state = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ProgramError(f"{path}: cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise ProgramError(f"{path}: not a saved program: {error}") from error
    if not isinstance(state, dict) or not isinstance(state.get("predictors"), dict) or "format" not in state:
        raise ProgramError(f"{path}: not a saved program: no 'format' and 'predictors' in it")
    if state["format"] != FORMAT:
        raise ProgramError(f"{path}: format {state['format']!r}; this version of otpy reads {FORMAT}")
    if verify and _hash(state) != state.get("hash"):
        raise ProgramError(f"{path}: its content does not match its hash; if you edited it, load it with verify=False")
    return state


def _hash(state: Mapping[str, Any]) -> str:
    import hashlib  # noqa: PLC0415 - only here

    text = json.dumps(
        {"program": state.get("program"), "predictors": state["predictors"]}, sort_keys=True, ensure_ascii=False
    )
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def _filled(predictor: Predict, saved: Mapping[str, Any], where: str) -> Predict:
    try:
        contract, adapter = saved["signature"], ADAPTERS.get(saved["adapter"], predictor.adapter)
        signature = predictor.signature
        own = {field.name: (field.side, field.type) for field in signature.fields.values()}
        theirs = {field["name"]: (field["side"], field["type"]) for field in contract["fields"]}
        if own != theirs:
            differing = sorted(name for name in {*own, *theirs} if own.get(name) != theirs.get(name))
            details = "; ".join(
                f"{name}: {_words(theirs.get(name))} in the file, {_words(own.get(name))} in the program"
                for name in differing
            )
            raise ProgramError(f"{where}: the fields differ: {details}")
        for field in contract["fields"]:
            if field["desc"] != signature.fields[field["name"]].desc:
                signature = signature.with_updated_field(field["name"], desc=field["desc"])
        if contract["instructions"] != signature.instructions:
            signature = signature.with_instructions(contract["instructions"])
        return Predict(
            signature, client=saved["client"], adapter=adapter, demos=saved["demos"], **saved["config"]
        )
    except (KeyError, TypeError) as error:
        raise ProgramError(f"{where}: not a saved predictor: {error}") from error


def _words(field: tuple[str, str] | None) -> str:
    return "absent" if field is None else f"{field[0]} {field[1]}"


def _signature(contract: Mapping[str, Any], path: str | Path) -> SignatureMeta:
    fields = []
    for field in contract["fields"]:
        try:
            parsed = parse_string(f"{field['name']}: {field['type']} -> _")[0]
        except SignatureError as error:
            raise ProgramError(
                f"{path}: field {field['name']!r} has the type {field['type']}, which only your code knows;"
                f" load it with load(program, path)"
            ) from error
        constraints = tuple(field.get("constraints", {}).items())
        fields.append(FieldSpec(field["name"], field["side"], parsed.annotation, field["desc"], constraints))
    return SignatureMeta(
        contract["name"], (Signature,), {}, fields=fields, instructions=contract["instructions"]
    )  # type: ignore[no-any-return]

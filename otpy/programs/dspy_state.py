"""Reads the state that DSPy saves: predictors by path, demos by name, fields as well as their labels tell them.

DSPy's file has no names of fields, only a label each (`"Next Tool Name:"`, made from the name) and the order. Where
the labels are those of our names, they say which field is meant, in whatever order; where they are not, the position
has to. Whatever is guessed or left out is said in a `DSPyStateWarning`.
"""

from __future__ import annotations

import re
import warnings
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from otpy.errors import ProgramError, SignatureError

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator, Mapping

    from otpy.programs.predict import Predict
    from otpy.programs.program import Program
    from otpy.signatures import Signature

__all__ = ["DSPyStateWarning", "filled", "recognised"]

P = TypeVar("P", bound="Program")

_KEYS: Final = {"traces", "train", "demos", "signature", "lm"}
_KNOWN: Final = {"model", "model_type", "temperature", "max_tokens"}
"""What is told of a model that is not taken over; anything else might be a secret."""


class DSPyStateWarning(UserWarning):
    """Something in a state saved by DSPy was guessed, or left out."""


def recognised(content: Any) -> bool:
    """Whether a JSON file was written by DSPy's `save`.

    Args:
        content: What the file holds.

    Example:
        >>> from otpy.programs.dspy_state import recognised
        >>> recognised({"metadata": {"dependency_versions": {"dspy": "3.4.1"}}}), recognised({"format": 2})
        (True, False)
    """
    match content:
        case {"metadata": {"dependency_versions": {"dspy": str()}}}:
            return True
        case {"demos": list(), "signature": {"fields": list()}}:
            return True
        case _:
            return False


def filled(
    program: P, content: Mapping[str, Any], path: str | os.PathLike[str], paths: Mapping[str, str] | None = None
) -> P:
    """Return a copy of a program with instructions, descriptions and demos of a state that DSPy saved.

    Args:
        program: A program with predictors at the same paths, each with as many fields.
        content: What the file holds.
        path: The file, for messages.
        paths: Our paths by DSPy's, where the two differ.

    Raises:
        ProgramError: If the predictors differ, or one has another number of fields; the message names them.

    Warns:
        DSPyStateWarning: For whatever is guessed or left out.
    """
    states = {name: state for name, state in content.items() if name != "metadata"}
    match states:
        case {"demos": list(), "signature": dict()}:  # a bare predictor, which has no path there
            states = {"self": states}
        case _:
            pass
    ours = dict(program.named_predictors())
    theirs = {(paths or {}).get(name, name): state for name, state in states.items()}
    if len(ours) == len(theirs) == 1 and not paths:
        theirs = dict(zip(ours, theirs.values(), strict=True))
    if set(ours) != set(theirs):
        raise ProgramError(
            f"{path}: saved by DSPy with the predictors {', '.join(states)}; the program has {', '.join(ours)}; say"
            ' which is which: load_dspy(program, path, paths={"theirs": "ours"})'
        )
    notes: list[str] = []

    def taken(name: str, predictor: Predict) -> Predict:
        reading = _Reading(f"{path}: {name}", notes)
        return reading.predictor(predictor, theirs[name])

    result = program.map_predictors(taken)
    for note in notes:
        warnings.warn(note, DSPyStateWarning, stacklevel=4)
    return result


class _Reading:
    """The reading of one predictor's state."""

    def __init__(self, where: str, notes: list[str]) -> None:
        self.where, self.notes = where, notes

    def note(self, text: str) -> None:
        self.notes.append(f"{self.where}: {text}")

    def refuse(self, text: str) -> ProgramError:
        return ProgramError(f"{self.where}: {text}")

    def predictor(self, predictor: Predict, state: Any) -> Predict:
        match state:
            case {"demos": list(), "signature": {"instructions": str() as instructions, "fields": list()}}:
                pass
            case _:
                raise self.refuse("not a state that DSPy saves: it has no 'demos' and 'signature' with 'fields'")
        if unknown := [key for key in state if key not in _KEYS]:
            raise self.refuse(f"unknown key {unknown[0]!r}; DSPy's states have {', '.join(sorted(_KEYS))}")
        for key in ("traces", "train"):
            if state.get(key):
                self.note(f"{len(state[key])} entries of {key!r} are left out: programs here hold no such thing")
        self.model(state.get("lm"))
        signature = self.described(predictor.signature, state["signature"]["fields"])
        if instructions.strip() and instructions != signature.instructions:
            signature = signature.with_instructions(instructions)
        return self.with_demos(predictor.replace(signature=signature, demos=()), state["demos"])

    def model(self, saved: Any) -> None:
        if isinstance(saved, dict):
            settings = cast("dict[str, Any]", saved)
            said = ", ".join(f"{k}={v!r}" for k, v in settings.items() if k in _KNOWN and v is not None)
            self.note(
                f"its model ({said}) is left out: programs here name a client, and settings say which model that is;"
                " see with_client and with_config"
            )

    # -- fields ----------------------------------------------------------------------------------------------------

    def described(self, signature: type[Signature], saved: list[Any]) -> type[Signature]:
        names = list(signature.fields)
        said: list[dict[str, Any]] = [field if isinstance(field, dict) else {} for field in saved]
        labels = [str(field.get("prefix", "")) for field in said]
        if len(saved) != len(names):
            raise self.refuse(
                f"DSPy saved {len(saved)} fields ({' '.join(labels)}), and {signature.__name__} has {len(names)}"
                f" ({', '.join(names)})"
            )
        for name, field in zip(self.named(names, labels), said, strict=True):
            desc: Any = field.get("description")
            if not isinstance(desc, str) or re.fullmatch(r"\$\{\w+\}", desc):
                continue  # DSPy's way to say that there is none
            if desc and desc != signature.fields[name].desc:
                signature = signature.with_updated_field(name, desc=desc)
        return signature

    def named(self, names: list[str], labels: list[str]) -> list[str]:
        """Our names in the order of their fields: by label where all labels are known, else by position."""
        by_label = {_bare(name): name for name in names}
        found = [by_label.get(_bare(label)) for label in labels]
        if len(by_label) == len(names) and set(found) == set(names):
            return [name for name in found if name is not None]
        strangers = [label for label, name in zip(labels, found, strict=True) if name is None] or labels
        pairs = ", ".join(f"{label!r} is {name!r}" for label, name in zip(labels, names, strict=True))
        self.note(f"the labels {', '.join(map(repr, strangers))} are of none of our fields; by position, {pairs}")
        return names

    # -- demos -----------------------------------------------------------------------------------------------------

    def with_demos(self, predictor: Predict, saved: list[Any]) -> Predict:
        kept: list[Mapping[str, Any]] = []
        for number, demo in enumerate(saved, 1):
            try:
                kept.append(dict(self.fields(predictor, demo)))
                predictor.replace_demos(kept[-1:])
            except SignatureError as error:
                kept.pop()
                self.note(f"demo {number} is left out: {str(error).removeprefix('demo 1: ')}")
        return predictor.replace_demos(kept)

    def fields(self, predictor: Predict, demo: Any) -> Iterator[tuple[str, Any]]:
        if not isinstance(demo, dict):
            raise self.refuse(f"a demo is {demo!r:.100}, not an object")
        known: dict[str, Any] = cast("dict[str, Any]", demo)
        for name in predictor.signature.fields:
            if name in known:
                yield name, known[name]


def _bare(text: str) -> str:
    """A name or a label without what DSPy's way from one to the other changes: case, spaces, underscores, the colon."""
    return re.sub(r"[\W_]+", "", text).lower()

"""Programs on disk: JSON, by the names of predictors and fields, with a hash of the content. Never pickle."""

from __future__ import annotations

import importlib.util
import inspect
import re
from types import FunctionType, GetSetDescriptorType, MappingProxyType, MemberDescriptorType
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from otpy.errors import ProgramError, SignatureError
from otpy.programs import dspy_state, files, state
from otpy.programs.aggregation import majority
from otpy.programs.chain_of_thought import ChainOfThought
from otpy.programs.parts import frozen
from otpy.programs.predict import Predict
from otpy.programs.program import Program
from otpy.signatures import FieldSpec, Signature, SignatureMeta
from otpy.signatures.string_form import parse_string

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Mapping

    from otpy.programs.lineage import Lineage

__all__ = ["NeedsCode", "load", "load_dspy", "load_file", "load_program", "save"]

P = TypeVar("P", bound=Program)


class NeedsCode(ProgramError):
    """A file is of a program that holds code, which is in no file.

    Args:
        path: The file.
        what: What of it.
        then: What to do, in Python.
    """

    def __init__(self, path: object, what: str, then: str) -> None:
        """Keep what it needs apart from what to do."""
        super().__init__(path, what, then)
        self.path, self.what, self.then = path, what, then

    def __str__(self) -> str:
        """Print all of it."""
        return f"{self.path}: {self.what}{self.then}"


_OWN: Final = re.compile(r"otpy\.programs\.[a-z_]+")
"""The rooms whose classes a file may name: those of otpy itself."""


def save(program: Program, path: str | os.PathLike[str], *, lineage: Lineage | None = None) -> None:
    """Write a program to a JSON file, whole or not at all.

    Args:
        program: The program.
        path: The file; an older one is replaced.
        lineage: Where the program comes from; what it knows of that itself unless told otherwise.

    Raises:
        ProgramError: If the file cannot be written.

    Example:
        >>> import tempfile
        >>> from otpy.programs import Predict
        >>> from otpy.programs.saving import load_program, save
        >>> program = Predict("question -> answer", demos=[{"question": "2 + 2?", "answer": "4"}])
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     save(program, f"{directory}/program.json")
        ...     load_program(f"{directory}/program.json") == program
        True
    """
    state.saved(program, path, lineage)


def load(program: P | type[P], path: str | os.PathLike[str], *, verify: bool = True) -> P:
    """Return a copy of a program with the state of a file: one that `save` wrote, or DSPy.

    Args:
        program: A program of the same structure: the same predictors, the same fields of the same types. Or its class,
            if that needs no arguments.
        path: The file.
        verify: Whether the content must match the file's own hash, and the program's classes have the names they had;
            pass `False` for a file edited by hand.

    Raises:
        ProgramError: If the file cannot be read, has been edited, comes from a newer otpy, or belongs to another
            structure; the message names the predictors and fields that differ.
        SignatureError: If a demo in it does not fit.

    Warns:
        DSPyStateWarning: For what is guessed or left out of a state saved by DSPy.
    """
    return state.loaded(_to_fill(program, "load"), path, verify=verify)


def load_dspy(program: P | type[P], path: str | os.PathLike[str], *, paths: Mapping[str, str] | None = None) -> P:
    """Return a copy of a program with the state that DSPy's `save("….json")` wrote.

    Instructions, descriptions of fields and demos are taken over; models are not.

    Args:
        program: As for `load`.
        path: The file.
        paths: Our predictors' paths by DSPy's, where the two differ.

    Raises:
        ProgramError: If it is no such file, or its predictors or their numbers of fields differ from the program's.

    Warns:
        DSPyStateWarning: For whatever is guessed or left out.
    """
    content = files.parsed(path)
    if not dspy_state.recognised(content):
        raise ProgramError(f"{path}: not a state that DSPy saved; load(program, path) reads otpy's own files")
    filling = _to_fill(program, "load_dspy")
    with files.reading(path):
        return dspy_state.filled(filling, content, path, paths)


def _to_fill(program: P | type[P], what: str) -> P:
    filling: Any = program
    if isinstance(program, type):
        try:
            filling = program()
        except TypeError as error:
            raise ProgramError(
                f"{what}: {program.__name__} needs arguments ({error}); give {what}() a program"
            ) from None
    if not isinstance(filling, Program):
        raise ProgramError(f"{what}() takes a program to fill, as in {what}(MyProgram(), path), not {program!r}")
    result: Any = filling
    return result  # type: ignore[no-any-return]


def load_program(path: str | os.PathLike[str], *, classes: Iterable[type] = (), verify: bool = True) -> Program:
    """Return the program of a file, with no program to fill: it is built from what the file says.

    A file cannot name code to be run: only otpy's own programs and types are known, and those given in `classes`.

    Args:
        path: The file.
        classes: Further programs, and types of fields, that the file may name.
        verify: As for `load`.

    Raises:
        ProgramError: If it cannot be read, or needs a class, a type, or a value (a tool, a function) that only your
            code has; then use `load`.
        SignatureError: If a demo in it does not fit.
    """
    content = files.parsed(path)
    if dspy_state.recognised(content):
        raise ProgramError(f"{path}: saved by DSPy, without types: give load() a program to fill, load(program, path)")
    content = files.checked(content, path, verify=verify)
    if content["format"] == 1:
        content["tree"] = _tree_of_old(content, path)
    building = _Building(path, content["predictors"], tuple(classes))
    with files.reading(path):
        return state.filled(building.program(content["tree"], ""), content, path, verify=verify)


load_file = load_program
"""The older name."""


def _tree_of_old(content: Mapping[str, Any], path: str | os.PathLike[str]) -> dict[str, Any]:
    """The tree that a file of format 1 would have: of the two programs that could be read without code then."""
    kinds: dict[str, dict[str, Any]] = {
        "Predict": {"class": state.class_path(Predict)},
        "ChainOfThought": {
            "class": state.class_path(ChainOfThought), "parts": {"predict": {"class": state.class_path(Predict)}}
        },
    }  # fmt: skip
    if content["program"] not in kinds:
        raise ProgramError(f"{path}: a {content['program']} needs its class: load({content['program']}(...), path)")
    return kinds[content["program"]]


class _Building:
    """The building of one program from a saved tree."""

    def __init__(self, path: str | os.PathLike[str], predictors: Mapping[str, Any], classes: tuple[type, ...]) -> None:
        self.path, self.predictors = path, predictors
        self.programs = {cls.__qualname__: cls for cls in classes if issubclass(cls, Program)}
        self.types: dict[str, Any] = {cls.__name__: cls for cls in classes if not issubclass(cls, Program)}

    def program(self, node: Mapping[str, Any], at: str) -> Program:
        cls = self.known(node["class"])
        if issubclass(cls, Predict):
            if guards := node.get("code"):
                raise NeedsCode(
                    self.path,
                    f"{at or 'the predictor'} has {' and '.join(guards)}",
                    ", which are code that no file holds, and without which it would let other answers through; load it"
                    " with load(program, path)",
                )
            making = cast("type[Predict[Any]]", cls)  # type: ignore[redundant-cast]  # not to pyright
            return making(self.signature(self.predictors[at or "self"]["signature"]))
        content = {name: self.value(part, f"{at}.{name}" if at else name) for name, part in node["parts"].items()}
        if missing := [name for name in cls._parts if name not in content]:
            raise ProgramError(f"{self.path}: {cls.__name__} needs {missing[0]!r}, which is not in the file")
        for name in content:
            if _hides(cls, name):
                raise ProgramError(f"{self.path}: {at or 'the program'}: a part {name!r} would hide that of the class")
        state.check_values(cls, content, f"{self.path}: {at or 'the program'}")
        return object.__new__(cls)._sealed_with(content)  # noqa: SLF001 - our own class

    def value(self, node: Mapping[str, Any], at: str) -> Any:
        match node:
            case {"class": _}:
                return self.program(node, at)
            case {"list": items}:
                return tuple(self.value(item, f"{at}[{number}]") for number, item in enumerate(items))
            case {"dict": pairs}:
                return MappingProxyType({key: self.value(item, f"{at}[{key!r}]") for key, item in pairs})
            case {"value": value}:
                return frozen(value)
            case {"signature": contract}:
                return self.signature(contract)
            case {"code": state.MAJORITY}:
                return majority
            case _:
                what = node.get("code", "?")
                raise NeedsCode(
                    self.path,
                    f"{at} is code (of type {what})",
                    ", which no file holds; load it with load(program, path)",
                )

    def known(self, path: str) -> type[Program]:
        module, _, name = path.rpartition(":")
        if name in self.programs:
            return self.programs[name]
        if _OWN.fullmatch(module) and importlib.util.find_spec(module) is not None:
            cls = vars(importlib.import_module(module)).get(name)
            if isinstance(cls, type) and issubclass(cls, Program) and cls.__module__ == module:
                return cls
        allowed = ", ".join(["those of otpy.programs", *self.programs])
        raise NeedsCode(
            self.path,
            f"a {name} needs its class",
            f", which no file may choose: load_program(path, classes=[{name}]) or load({name}(...), path); allowed now:"
            f" {allowed}",
        )

    def signature(self, contract: Mapping[str, Any]) -> type[Signature]:
        fields: list[FieldSpec] = []
        for field in contract["fields"]:
            try:
                kind = parse_string(f"x -> y: {field['type']}", self.types)[1].annotation
            except SignatureError as error:
                raise NeedsCode(
                    self.path,
                    f"field {field['name']!r} has the type {field['type']}",
                    f", which only your code knows; load_program(path, classes=[{field['type']}]) or"
                    " load(program, path)",
                ) from error
            constraints = tuple(field.get("constraints", {}).items())
            fields.append(FieldSpec(field["name"], field["side"], kind, field["desc"], constraints))
        made: Any = SignatureMeta(
            contract["name"], (Signature,), {}, fields=fields, instructions=contract["instructions"]
        )
        return made  # type: ignore[no-any-return]


def _hides(cls: type[Program], name: str) -> bool:
    """Whether an attribute of this name would stand before a method or another thing that a class works by."""
    there = inspect.getattr_static(cls, name, None)
    works = (FunctionType, property, classmethod, staticmethod, MemberDescriptorType, GetSetDescriptorType)
    return name.startswith("__") or not name.isidentifier() or (isinstance(there, works) and name not in cls._parts)

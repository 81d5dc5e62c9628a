"""All that a program's file holds, from the program and back into one: values by attribute, predictors by path."""

from __future__ import annotations

import inspect
import math
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from otpy.errors import ProgramError, SignatureError
from otpy.programs import dspy_state, files
from otpy.programs.aggregation import majority
from otpy.programs.lineage import descended, lineage_of, read_lineage
from otpy.programs.parts import frozen, programs_in
from otpy.signatures import SignatureMeta

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Mapping

    from otpy.programs.lineage import Lineage
    from otpy.programs.predict import Predict
    from otpy.programs.program import Program

__all__ = [
    "MAJORITY",
    "check_values",
    "class_path",
    "dumped",
    "filled",
    "is_code",
    "is_predictor",
    "kind_of",
    "loaded",
    "saved",
]

P = TypeVar("P", bound="Program")

_NO: Final = object()

MAJORITY: Final = "otpy.majority"
"""What a file calls the one function of otpy's own that a program holds unless told otherwise."""


def kind_of(program: Program) -> type[Program]:
    """Return the class that all programs have in common; the room where it stands imports this one."""
    return next(cls for cls in reversed(type(program).__mro__) if hasattr(cls, "named_predictors"))


def is_predictor(program: Program) -> bool:
    """Whether it asks a model by itself: its path in itself is `"self"`."""
    return any(part is program for _, part in program.named_predictors())


def is_code(value: Any) -> bool:
    """Whether it is something that no file can hold, such as a function or a tool."""
    return _plain(value) is _NO and not isinstance(value, SignatureMeta)


def class_path(cls: type) -> str:
    """Return where a class is defined, as in `"otpy.programs.predict:Predict"`."""
    return f"{cls.__module__}:{cls.__qualname__}"


# -- from a program -------------------------------------------------------------------------------------------------


def dumped(program: Program) -> dict[str, Any]:
    """Return a program as JSON data: its `tree` of classes and values, and its `predictors` by path.

    Args:
        program: The program.

    Example:
        >>> from otpy.programs import ChainOfThought
        >>> from otpy.programs.state import dumped
        >>> dumped(ChainOfThought("question -> answer"))["tree"]["parts"]
        {'predict': {'class': 'otpy.programs.predict:Predict'}}
    """
    return {
        "program": type(program).__name__,
        "tree": _node(program, kind_of(program)),
        "predictors": {path: predictor.dump_predictor() for path, predictor in program.named_predictors()},
    }


def _node(value: Any, kind: type[Program]) -> dict[str, Any]:
    if isinstance(value, kind):
        node: dict[str, Any] = {"class": class_path(type(value))}
        if not is_predictor(value):
            node["parts"] = {name: _node(part, kind) for name, part in vars(value).items()}
        elif guards := _guards(value):
            node["code"] = guards
        return node
    if next(programs_in(value, "", kind), None) is not None:
        if type(value) is tuple:
            return {"list": [_node(item, kind) for item in cast("Any", value)]}
        return {"dict": [[_plain(key), _node(item, kind)] for key, item in value.items() if _plain(key) is not _NO]}
    if isinstance(value, SignatureMeta):
        return {"signature": value.dump_state()}
    data = _plain(value)
    return {"value": data} if data is not _NO else {"code": MAJORITY if value is majority else type(value).__name__}


def _guards(predictor: Any) -> list[str]:
    """What of a predictor is code that checks its answers: a file can only say that there was some."""
    guards = {"constraints": predictor.constraints, "validators": predictor.signature._validators}  # noqa: SLF001 - the contract's own
    return [name for name, code in guards.items() if code]


def _plain(value: Any) -> Any:
    """The value as JSON data, or `_NO` if JSON cannot say it."""
    if value is None or type(value) in {bool, int, str} or (type(value) is float and math.isfinite(value)):
        return value
    if type(value) is tuple:
        items = [_plain(item) for item in cast("Any", value)]
        return _NO if any(item is _NO for item in items) else items
    if type(value) is MappingProxyType:
        pairs: dict[Any, Any] = {key: _plain(item) for key, item in cast("Any", value).items()}
        return pairs if all(type(key) is str and item is not _NO for key, item in pairs.items()) else _NO
    return _NO


def saved(program: Program, path: str | os.PathLike[str], lineage: Lineage | None = None) -> None:
    """Write a program to a file; see `otpy.programs.save`.

    Args:
        program: The program.
        path: The file.
        lineage: Where the program comes from; what it knows of it itself if `None`.

    Raises:
        ProgramError: If the file cannot be written.
    """
    known = lineage_of(program) if lineage is None else lineage
    files.write({**dumped(program), "lineage": known.dump_state() if known is not None else None}, path)


# -- into a program -------------------------------------------------------------------------------------------------


def loaded(program: P, path: str | os.PathLike[str], *, verify: bool) -> P:
    """Return a copy of a program with the state of a file, otpy's or DSPy's; see `otpy.programs.load`.

    Args:
        program: A program of the same structure.
        path: The file.
        verify: Whether hash and names of classes must be right.

    Raises:
        ProgramError: If the file cannot be read, was edited, or belongs to another structure.
        SignatureError: If a demo in it does not fit.
    """
    content = files.parsed(path)
    with files.reading(path):
        if dspy_state.recognised(content):
            return dspy_state.filled(program, content, path)
        return filled(program, files.checked(content, path, verify=verify), path, verify=verify)


def filled(program: P, state: Mapping[str, Any], path: str | os.PathLike[str], *, verify: bool) -> P:
    """Return a copy of a program with a state that was read from a file.

    Args:
        program: A program of the same structure.
        state: The state.
        path: The file, for messages.
        verify: Whether the names of classes must be the same.

    Raises:
        ProgramError: If it belongs to another structure; the message names what differs.
        SignatureError: If a demo in it does not fit.
    """
    if verify and state["program"] != type(program).__name__:
        raise ProgramError(
            f"{path}: holds a {state['program']}, not a {type(program).__name__}; if that is the same program under"
            " another name, load it with verify=False"
        )
    own, theirs = dict(program.named_predictors()), state["predictors"]
    if set(own) != set(theirs):
        raise ProgramError(
            f"{path}: predictors differ: the file has {', '.join(theirs)}; the program has {', '.join(own)}"
        )
    for name, predictor in own.items():
        known = predictor.dump_predictor()
        unknown = [key for key in theirs[name] if key not in known]
        if unknown:
            raise ProgramError(f"{path}: {name}: unknown key {unknown[0]!r}; known: {', '.join(known)}")
    result: Any = program
    if state["format"] > 1:
        try:
            result = _Filling(str(path), kind_of(program), verify=verify).value(program, state["tree"], "")
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            if isinstance(error, ProgramError):
                raise
            raise ProgramError(f"{path}: not a saved program: its tree is not in order: {error!r}") from error
    take: Callable[[str, Predict], Predict]
    take = lambda name, predictor: predictor.filled(theirs[name], f"{path}: {name}")  # noqa: E731 - typed so
    result = result.map_predictors(take)
    lineage = state.get("lineage")
    return result if lineage is None else descended(result, read_lineage(lineage, path))  # type: ignore[no-any-return]


_KEPT_AS: Final = {"sandbox": "engine", "retriever": "retrieve", "signature": "respond"}
"""What our programs call a parameter of theirs when they keep it, where that is another name."""


def check_values(cls: type[Program], content: Mapping[str, Any], where: str) -> None:
    """Have the constructor of a program of otpy's own look at values from a file, as far as it can be called with them.

    Args:
        cls: The class; one that is not ours checks nothing, as its constructor may do anything.
        content: All its attributes.
        where: The file and the path, for messages.

    Raises:
        ProgramError: If the constructor would not have taken a value.
    """
    if not cls.__module__.startswith(f"{__package__}."):
        return
    given: dict[str, Any] = {}
    for parameter in list(inspect.signature(cls.__init__).parameters.values())[1:]:
        name = parameter.name if parameter.name in content else _KEPT_AS.get(parameter.name, parameter.name)
        if name in content:
            value = content[name]
            by_name: Any = value if parameter.name == "tools" and _mapping(value) else None
            given[parameter.name] = value if by_name is None else list(by_name.values())
        elif parameter.name == "signature":
            given["signature"] = "question -> answer"  # it is in the predictors, and checked with them
        elif parameter.kind is not parameter.VAR_KEYWORD and parameter.default is parameter.empty:
            return
    if not given:
        return
    try:
        cls(**given)
    except SignatureError:  # about what else there is; those of the file's own are found by its predictors
        return
    except ProgramError as error:
        raise ProgramError(f"{where}: {error}") from error


class _Filling:
    """One walk through a program and a saved tree side by side."""

    def __init__(self, where: str, kind: type[Program], *, verify: bool) -> None:
        self.where, self.kind, self.verify = where, kind, verify

    def value(self, own: Any, node: Mapping[str, Any], path: str) -> Any:
        match node:
            case {"class": str() as saved}:
                return self.program(own, node, saved.rpartition(":")[2].rpartition(".")[2], path)
            case {"list": items}:
                self.expect(own, path, f"{len(items)} items", same=_tuple(own) and len(own) == len(items))
                pairs = zip(own, items, strict=True)
                return tuple(self.value(one, item, f"{path}[{number}]") for number, (one, item) in enumerate(pairs))
            case {"dict": pairs}:
                keys = [key for key, _ in pairs]
                known = {key for key in own if _plain(key) is not _NO} if _mapping(own) else None
                self.expect(own, path, f"the keys {keys}", same=known == set(keys))
                changed = {key: self.value(own[key], item, f"{path}[{key!r}]") for key, item in pairs}
                return MappingProxyType({**own, **changed})
            case {"value": None} if is_code(own):  # a function that may be left out, and was when this was saved
                return own
            case {"value": value}:
                self.expect(own, path, repr(value), same=_same_kind(_plain(own), value))
                return frozen(value)
            case {"signature": _} | {"code": _}:
                return own
            case _:
                raise ProgramError(f"{self.where}: not a saved program: {path or 'tree'} is {node!r:.100}")

    def program(self, own: Any, node: Mapping[str, Any], name: str, path: str) -> Any:
        self.expect(own, path, f"a {name}", same=isinstance(own, self.kind))
        if self.verify and path and name != type(own).__name__:
            self.expect(own, path, f"a {name}; if that is the same under another name, load with verify=False")
        if is_predictor(own):
            return own
        parts: dict[str, Any] = node["parts"]
        has = cast("dict[str, Any]", vars(own))
        for part in parts:
            if part not in has:
                raise ProgramError(
                    f"{self.where}: {_joined(path, part)} is in the file, and {type(own).__name__} has no such"
                    f" attribute; it has {', '.join(has)}"
                )
        changes = {part: self.value(has[part], item, _joined(path, part)) for part, item in parts.items()}
        check_values(cast("type[Program]", type(own)), {**has, **changes}, f"{self.where}: {path or 'the program'}")
        return own.replace(**changes)

    def expect(self, own: Any, path: str, saved: str, *, same: bool = False) -> None:
        if not same:
            mine = f"a {type(own).__name__}" if _plain(own) is _NO else repr(own)
            raise ProgramError(f"{self.where}: {path or 'the program'} is {mine} in the program; the file has {saved}")


def _tuple(value: Any) -> bool:
    return type(value) is tuple


def _mapping(value: Any) -> bool:
    return type(value) is MappingProxyType


def _joined(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _same_kind(own: Any, saved: Any) -> bool:
    """Whether one value may stand where the other does: both numbers, both texts, …; `None` fits anywhere."""
    if own is _NO:
        return False
    if own is None or saved is None:
        return True
    if isinstance(own, bool) or isinstance(saved, bool):
        return type(own) is type(saved)
    return type(own) is type(saved) or (type(own) is float and type(saved) is int)

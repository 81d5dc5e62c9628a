"""The state of a program as a file: JSON with a hash of its content, written whole or not at all. Never pickle."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from otpy.errors import OtpyError, ProgramError

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

__all__ = ["FORMAT", "checked", "content_hash", "otpy_version", "parsed", "put", "read", "reading", "whole", "write"]

FORMAT: Final = 2
"""The version of the file's shape: 1 had no `tree` and no `lineage`."""

DEEPEST: Final = 200
"""How many lists and objects of a file may stand in one another; what reads them is recursive."""

_KEYS: Final = {
    1: {"format", "otpy", "program", "predictors", "hash"},
    2: {"format", "otpy", "program", "tree", "predictors", "lineage", "hash"},
}


def content_hash(state: Mapping[str, Any]) -> str:
    """Return a hash of a program's state, the same in every process and wherever its classes are defined.

    Args:
        state: The class's name as `program`, the `predictors` by path, and the `tree` if it has one.
    """
    content = {"program": state["program"], "predictors": state["predictors"]}
    if "tree" in state:
        content["tree"] = _without_modules(state["tree"])
    text = json.dumps(content, sort_keys=True, ensure_ascii=False)
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def _without_modules(node: Any) -> Any:
    """Leave out where classes are defined: a script's are in `__main__` today, and in a module tomorrow."""
    if isinstance(node, list):
        return [_without_modules(item) for item in node]  # pyright: ignore[reportUnknownVariableType] - JSON
    if not isinstance(node, dict) or "value" in node:
        return cast("Any", node)
    known = cast("dict[str, Any]", node)
    plain = {key: _without_modules(value) for key, value in known.items()}
    return {**plain, "class": str(plain["class"]).rpartition(":")[2]} if "class" in plain else plain


def otpy_version() -> str:
    """Return the version of otpy that runs here."""
    return str(sys.modules[__name__.partition(".")[0]].__version__)


def write(state: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
    """Write the state of a program; an older file is replaced at once, when the new one is safely on disk.

    Args:
        state: As for `content_hash`, and its `lineage` if it has one.
        path: The file.

    Raises:
        ProgramError: If it cannot be written.
    """
    put(whole(state), path)


def whole(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return the state of a program as a file has it: with the version of the shape, and the hash.

    Args:
        state: As for `write`.
    """
    return {"format": FORMAT, "otpy": otpy_version(), **state, "hash": content_hash(state)}


def put(whole: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
    """Write JSON data to a file; an older one is replaced at once, when the new one is safely on disk.

    Args:
        whole: The data.
        path: The file.

    Raises:
        ProgramError: If it cannot be written.
    """
    target = Path(path)
    _check_depth(whole, target)
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    try:
        try:
            with temporary.open("x", encoding="utf-8", newline="\n") as file:
                json.dump(whole, file, indent=2)  # in ASCII, because a text may hold what UTF-8 cannot
                file.write("\n")
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(target)
            _keep_name(target.parent)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
    except OSError as error:
        raise ProgramError(f"{target}: cannot be written: {error.strerror or error}") from error


def _keep_name(directory: Path) -> None:
    """Have the new name survive a power cut too; where directories cannot be opened, the system sees to it itself."""
    if os.name != "posix":
        return
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def parsed(path: str | os.PathLike[str]) -> Any:
    """Return what a JSON file holds.

    Args:
        path: The file.

    Raises:
        ProgramError: If it cannot be read, is no JSON, or is a pickle.
    """
    file = Path(path)
    if file.is_dir() and (file / "program.pkl").exists():
        raise _pickled(path)
    try:
        content = file.read_bytes()
    except OSError as error:
        raise ProgramError(f"{path}: cannot be read: {error.strerror or error}") from error
    if file.suffix == ".pkl" or content.startswith(b"\x80"):  # how every pickle since protocol 2 begins
        raise _pickled(path)
    try:
        return json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ProgramError(f"{path}: not a saved program: {error}") from error


def _pickled(path: str | os.PathLike[str]) -> ProgramError:
    return ProgramError(
        f"{path}: a pickle, which can run any code when it is read, so it is not read here; where it came from, save"
        " the state as .json: program.save('program.json')"
    )


def checked(state: Any, path: str | os.PathLike[str], *, verify: bool) -> dict[str, Any]:
    """Return the content of a file if it is a program that this version of otpy can read.

    Args:
        state: What the file holds.
        path: The file, for messages.
        verify: Whether the content must match the file's own hash.

    Raises:
        ProgramError: If it is no saved program, comes from a newer version, has unknown keys, or was edited.
    """
    _check_depth(state, path)
    match state:
        case {"format": int() as found, "program": str(), "predictors": dict()} if not isinstance(found, bool):
            pass
        case _:
            raise ProgramError(f"{path}: not a saved program: it has no 'format', 'program' and 'predictors'")
    if found not in _KEYS:
        writer = f", which otpy {state.get('otpy', '?')} wrote" if found > FORMAT else ""
        raise ProgramError(
            f"{path}: format {found!r}{writer}; this version of otpy ({otpy_version()}) reads the formats"
            f" {', '.join(map(str, _KEYS))}" + ("; a newer one reads it" if found > FORMAT else "")
        )
    if unknown := [key for key in state if key not in _KEYS[found]]:
        raise ProgramError(
            f"{path}: unknown key {unknown[0]!r}; a file of format {found} has {', '.join(sorted(_KEYS[found]))}"
        )
    for name, predictor in state["predictors"].items():
        with reading(f"{path}: {name}", "not a saved predictor"):
            _check_predictor(predictor)
    if found > 1:
        with reading(path, "not a saved program: its tree is not in order"):
            _check_node(state["tree"], "the tree")
    if verify and content_hash(state) != state.get("hash"):
        raise ProgramError(f"{path}: its content does not match its hash; if you edited it, load it with verify=False")
    return dict(state)


def read(path: str | os.PathLike[str], *, verify: bool) -> dict[str, Any]:
    """Return the state of a program.

    Args:
        path: The file.
        verify: Whether the content must match the file's own hash.

    Raises:
        ProgramError: If it cannot be read, is no saved program, comes from a newer version, or was edited.
    """
    return checked(parsed(path), path, verify=verify)


@contextlib.contextmanager
def reading(path: object, what: str = "not a saved program") -> Generator[None]:
    """Turn whatever goes wrong with odd data inside of the block into a `ProgramError` about the file.

    Args:
        path: The file, for messages.
        what: What is wrong then.
    """
    try:
        yield
    except OtpyError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError, ImportError) as error:
        raise ProgramError(
            f"{path}: {what}: {str(error) if type(error) is ValueError else repr(error):.300}"
        ) from error


# -- the shape of what is read: a hash says that a file is whole, not that it is harmless -----------------------------


def _check_depth(content: Any, path: object) -> None:
    level: list[Any] = [content]
    for _ in range(DEEPEST + 1):
        inside: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                inside += cast("Any", item).values()
            elif isinstance(item, (list, tuple)):
                inside += cast("Any", item)
        if not inside:
            return
        level = inside
    raise ProgramError(f"{path}: lists and objects are nested more than {DEEPEST} deep; no file holds that")


def _check_predictor(predictor: Any) -> None:
    whole: Any = predictor
    match predictor:
        case {"signature": contract, "demos": list()} if all(isinstance(demo, dict) for demo in whole["demos"]):
            _check_contract(contract)
        case _:
            raise ValueError(f"{predictor!r:.100}")


def _check_contract(contract: Any) -> None:
    whole: Any = contract
    match contract:
        case {"name": str(), "instructions": str(), "fields": list()}:
            pass
        case _:
            raise ValueError(f"the signature is {contract!r:.100}")
    for field in whole["fields"]:
        match field:
            case {"name": str(), "side": "input" | "output", "type": str(), "desc": str()}:
                dict(field.get("constraints", {}))
            case _:
                raise ValueError(f"a field is {field!r:.100}")


def _check_node(node: Any, path: str) -> None:
    whole: Any = node
    match node:
        case {"class": str()}:
            parts = node.get("parts", {})
            for name, part in parts.items():
                _check_node(part, f"{path}.{name}")
            ", ".join(node.get("code", []))  # of texts
        case {"list": list()}:
            for number, item in enumerate(whole["list"]):
                _check_node(item, f"{path}[{number}]")
        case {"dict": list()}:
            for key, item in whole["dict"]:
                hash(key)
                _check_node(item, f"{path}[{key!r:.50}]")
        case {"signature": contract}:
            _check_contract(contract)
        case {"value": _} | {"code": str()}:
            pass
        case _:
            raise ValueError(f"{path} is {node!r:.100}")

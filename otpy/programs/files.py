"""The state of a program as a file: JSON with a hash of its content, written whole or not at all. Never pickle."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from otpy.errors import ProgramError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["FORMAT", "content_hash", "read", "write"]

FORMAT: Final = 1
"""The version of the file's shape."""


def content_hash(state: Mapping[str, Any]) -> str:
    """Return a hash of a program's state, the same in every process.

    Args:
        state: The class's name as `program`, and the `predictors` by path.
    """
    content = {"program": state["program"], "predictors": state["predictors"]}
    text = json.dumps(content, sort_keys=True, ensure_ascii=False)
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def write(state: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
    """Write the state of a program; an older file is replaced at once, when the new one is safely on disk.

    Args:
        state: As for `content_hash`.
        path: The file.

    Raises:
        ProgramError: If it cannot be written.
    """
    version = sys.modules[__name__.partition(".")[0]].__version__
    whole = {"format": FORMAT, "otpy": version, **state, "hash": content_hash(state)}
    target = Path(path)
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    try:
        try:
            with temporary.open("x", encoding="utf-8", newline="\n") as file:
                json.dump(whole, file, indent=2)  # in ASCII, because a text may hold what UTF-8 cannot
                file.write("\n")
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(target)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
    except OSError as error:
        raise ProgramError(f"{target}: cannot be written: {error.strerror or error}") from error


def read(path: str | os.PathLike[str], *, verify: bool) -> dict[str, Any]:
    """Return the state of a program.

    Args:
        path: The file.
        verify: Whether the content must match the file's own hash.

    Raises:
        ProgramError: If it cannot be read, is no saved program, or was edited.
    """
    try:
        state: Any = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ProgramError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise ProgramError(f"{path}: not a saved program: {error}") from error
    match state:
        case {"format": found, "program": str(), "predictors": dict()}:
            pass
        case _:
            raise ProgramError(f"{path}: not a saved program: it has no 'format', 'program' and 'predictors'")
    if found != FORMAT:
        raise ProgramError(f"{path}: format {found!r}; this version of otpy reads format {FORMAT}")
    if verify and content_hash(state) != state.get("hash"):
        raise ProgramError(f"{path}: its content does not match its hash; if you edited it, load it with verify=False")
    return dict(state)

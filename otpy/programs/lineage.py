"""`Lineage`: which program a program came of, who made it, and from what."""

from __future__ import annotations

import datetime as dt
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any, TypeVar

from otpy.errors import ProgramError
from otpy.programs.files import otpy_version

if TYPE_CHECKING:
    from collections.abc import Mapping

    from otpy.programs.program import Program

__all__ = ["Lineage", "descended", "lineage_of", "read_lineage"]

P = TypeVar("P", bound="Program")


def _now() -> str:
    return dt.datetime.now(dt.UTC).isoformat(timespec="seconds")


@dataclass(frozen=True, slots=True)
class Lineage:
    """Where a program comes from; it stands in the saved file and is no part of the program's value.

    Args:
        optimizer: Who made it, such as `"BootstrapFewShot"`.
        parent: The content hash of the program it was made from.
        data: A hash of the rows it was made with.
        seed: What decided the choices.
        otpy: The version of otpy.
        time: When, as ISO 8601 in UTC.

    Example:
        >>> from otpy.programs import Predict
        >>> from otpy.programs.lineage import Lineage, descended, lineage_of
        >>> plain = Predict("question -> answer")
        >>> better = descended(plain.with_instructions("Be short."), Lineage("me", plain.content_hash()))
        >>> lineage_of(better).parent == plain.content_hash(), lineage_of(plain)
        (True, None)
    """

    optimizer: str
    parent: str | None = None
    data: str | None = None
    seed: int | None = None
    otpy: str = field(default_factory=otpy_version)
    time: str = field(default_factory=_now)

    def dump_state(self) -> dict[str, Any]:
        """Return it as JSON data."""
        return asdict(self)


def descended(program: P, lineage: Lineage) -> P:
    """Return an equal program that knows where it comes from; a changed copy of it no longer does.

    Args:
        program: The program.
        lineage: Where it comes from.
    """
    copy = program.replace()
    copy._memo["lineage"] = lineage  # noqa: SLF001 - beside the value, and of our own class
    return copy


def lineage_of(program: Program) -> Lineage | None:
    """Return where a program comes from, if an optimizer or the file it was loaded from has said so.

    Args:
        program: The program.
    """
    found: Lineage | None = program._memo.get("lineage")  # noqa: SLF001 - our own class
    return found


def read_lineage(saved: Mapping[str, Any], where: object) -> Lineage:
    """Return the lineage that stands in a file.

    Args:
        saved: What `dump_state` once returned.
        where: The file, for messages.

    Raises:
        ProgramError: If it is none.
    """
    known = {field.name for field in fields(Lineage)}
    kinds: dict[str, Any] = {"seed": int}
    match saved:
        case {"optimizer": str(), "otpy": str(), "time": str()} if set(saved) <= known and all(
            value is None or isinstance(value, kinds.get(name, str)) for name, value in saved.items()
        ):
            return Lineage(**saved)
        case _:
            raise ProgramError(f"{where}: lineage: {saved!r:.200}; it has the keys {', '.join(sorted(known))}")

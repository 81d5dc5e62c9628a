"""What a run is the run of: the optimizer and its parameters, the programs, the data. A journal is of one such only."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Final, cast

from otpy.errors import TeleprompterError
from otpy.evaluate.journal_keys import key_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from otpy.programs import Program
    from otpy.signatures import Example
    from otpy.teleprompters.teleprompter import Teleprompter

__all__ = ["data_hash", "header_of"]

_HOW: Final = frozenset({"max_concurrency", "display_progress", "max_errors"})
"""Parameters that decide how a run goes, but not what comes of it: they may be others when it goes on."""


def header_of(
    teleprompter: Teleprompter[Any], student: Program, teacher: Program | None, data: str, *, review: bool = False
) -> dict[str, Any]:
    """Return what a journal is the journal of.

    Args:
        teleprompter: The optimizer.
        student: The program it begins with.
        teacher: The program that solves the examples in its place, if there is one.
        data: The `data_hash` of the trainset and the valset.
        review: Whether people look at new instructions.
    """
    header = {
        "optimizer": type(teleprompter).__name__,
        "params": _deciding(teleprompter.params()),
        "student": student.content_hash(),
        "teacher": None if teacher is None else teacher.content_hash(),
        "data": data,
    }
    return {**header, "review": True} if review else header


def _deciding(told: Any) -> Any:
    """What decides, of parameters and of those of optimizers among them."""
    if isinstance(told, dict):
        params = cast("dict[str, Any]", told)
        return {name: _deciding(value) for name, value in params.items() if name not in _HOW}
    return [_deciding(one) for one in told] if isinstance(told, list) else told  # pyright: ignore[reportUnknownVariableType]


def data_hash(*sets: Iterable[Example]) -> str:
    """Return a hash of examples, the same in every process.

    Raises:
        TeleprompterError: If the content of one cannot be told.
    """
    digest = hashlib.blake2b(digest_size=16)
    for examples in sets:
        digest.update(b"/")
        for number, example in enumerate(examples):
            try:
                digest.update(key_of(example))
            except Exception as error:
                raise TeleprompterError(f"row {number}: {error}") from error
    return digest.hexdigest()

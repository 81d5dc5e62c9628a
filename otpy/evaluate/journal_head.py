"""What a journal's first line says: what it is a journal of."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from otpy.config.manager import CurrentSettings
from otpy.evaluate.journal_lines import SCHEMA, is_sealed

if TYPE_CHECKING:
    from otpy.actors import Names
    from otpy.config.settings import Settings
    from otpy.programs import Program

__all__ = ["MARK", "UNREADABLE", "asked", "begun", "header_of", "whole"]

_NAME: Final = "otpy.evaluate"
MARK: Final = f'{{"v":{SCHEMA},"journal":"{_NAME}",'.encode()
"""How the first line begins."""
UNREADABLE: Final = (ValueError, LookupError, TypeError, AttributeError, RecursionError, ArithmeticError)
"""What reading a line raises that is damaged."""


def header_of(line: bytes) -> dict[str, Any] | None:
    """Return what a file's first line says it is a journal of; `None` if it is none."""
    try:
        header: Any = json.loads(line)
        return dict(header) if header["journal"] == _NAME else None
    except UNREADABLE:
        return None


def begun(line: bytes) -> bool:
    """Return whether a first line is empty, or whoever began the journal died at it."""
    return not line.endswith(b"\n") and (MARK.startswith(line) or line.startswith(MARK))


def whole(line: bytes) -> bool:
    """Return whether a line lacks nothing but its end."""
    if (intact := is_sealed(line)) is not None:
        return intact
    try:
        json.loads(line)
    except UNREADABLE:
        return False
    return True


async def asked(program: Program, names: Names) -> dict[str, Any]:
    """Return what the clients of a program are, as far as it decides the answers: models and parameters, no addresses.

    Args:
        program: The program; clients that its code asks by itself are not seen.
        names: Of the application it runs in.
    """
    settings: Settings = await (await names.wait_for("config", 5.0)).call(CurrentSettings())
    found: dict[str, Any] = {}
    wanted = [predictor.client for _, predictor in program.named_predictors()]
    while wanted:
        name = wanted.pop()
        if name in settings.routes and name not in found:
            route = settings.routes[name]
            found[name] = route.model_dump(mode="json", exclude_unset=True)
            wanted += route.members
        elif name in settings.clients:
            client = settings.clients[name]
            found[name] = {
                "model": client.model,
                "temperature": client.temperature,
                "max_tokens": client.max_tokens,
            }
    return found

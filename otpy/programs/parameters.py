"""Parameters that a program does not have: refused with those it has, whichever part of it has noticed."""

from __future__ import annotations

import inspect
import re
from typing import TYPE_CHECKING, Any

from otpy.errors import ProgramError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["UnknownParameter", "unknown"]


class UnknownParameter(ProgramError):
    """A program was given a parameter that it does not have.

    Args:
        message: What it has.
        name: The parameter.
    """

    def __init__(self, message: str, name: str) -> None:
        """Keep the name."""
        self.name = name
        super().__init__(message)


_OTHERS = {
    "lm": "client",
    "module": "program",
    "N": "n",
    "M": "m",
    "max_iterations": "max_iters",
    "num_threads": "max_concurrency",
    "config": "with_config(…)",
}
"""What others call it."""


def unknown(cls: type, error: Exception, given: Mapping[str, Any]) -> UnknownParameter | None:
    """Return the error about a parameter that a class does not have, `None` if it is about something else.

    Args:
        cls: The class.
        error: What its constructor has raised.
        given: The keyword arguments.
    """
    found = re.search(r"unexpected keyword argument '(\w+)'", str(error))
    name = error.name if isinstance(error, UnknownParameter) else found[1] if found is not None else None
    if name is None or name not in given:
        return None
    own = [
        parameter.name
        for parameter in list(inspect.signature(cls.__init__).parameters.values())[1:]  # type: ignore[misc]
        if parameter.kind is not parameter.VAR_KEYWORD
    ]
    inner = "; and those of Predict" if isinstance(error, UnknownParameter) else ""
    then = f"; it is called {_OTHERS[name]} here" if name in _OTHERS else ""
    return UnknownParameter(f"{cls.__name__} has no parameter {name!r}{then}; it has {', '.join(own)}{inner}", name)

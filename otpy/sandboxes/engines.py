"""The engines by name, as programs are given them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from otpy.errors import ProgramError
from otpy.sandboxes.bubblewrap import Bubblewrap
from otpy.sandboxes.monty import Monty
from otpy.sandboxes.pyodide import Pyodide

if TYPE_CHECKING:
    from otpy.sandboxes.engine import Engine

__all__ = ["ENGINES", "engine"]

ENGINES: Final[dict[str, type[Any]]] = {"monty": Monty, "pyodide": Pyodide, "bubblewrap": Bubblewrap}
"""Every engine by its name."""


def engine(sandbox: str | Engine) -> Engine:
    """Return an engine: the one of this name with its defaults, or the one that it is already.

    Args:
        sandbox: A name, or a value such as `Monty(limits=Limits(seconds=2))`.

    Raises:
        ProgramError: If it is neither.

    Example:
        >>> from otpy.sandboxes.engines import engine
        >>> engine("monty").limits.seconds
        10.0
        >>> engine("subprocess")
        Traceback (most recent call last):
            ...
        otpy.errors.ProgramError: sandbox='subprocess'; allowed: 'monty', 'pyodide', 'bubblewrap', or an engine such \
as Monty(limits=Limits(seconds=2))
    """
    if isinstance(sandbox, str) and sandbox in ENGINES:
        made: Engine = ENGINES[sandbox]()
        return made
    parts = ("name", "limits", "sessions", "warm", "check", "open")
    if not isinstance(sandbox, str) and all(hasattr(sandbox, part) for part in parts):
        try:
            hash(sandbox)
        except TypeError as error:
            raise ProgramError(f"sandbox={sandbox!r}: an engine is a value, with tuples for lists: {error}") from None
        return sandbox
    names = ", ".join(map(repr, ENGINES))
    another = "an engine such as Monty(limits=Limits(seconds=2))"
    raise ProgramError(f"sandbox={sandbox!r}; allowed: {names}, or {another}")

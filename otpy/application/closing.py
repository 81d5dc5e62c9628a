"""Closing an application whose event loop may be blocked: whoever waits is told, and may leave."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final

from otpy.telemetry.reports import reports

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from otpy.actors import Node

__all__ = ["Closing"]

logger = reports("otpy")

PATIENCE: Final = 2.0
"""Seconds in which the loop has to answer before somebody is said to block it."""


class Closing:
    """Watches, for the length of a `with` block, whether a node's loop gets to close anything.

    Code that blocks the loop cannot be ended, in Python, from outside; so closing waits for it. If that takes long, the
    log says where the code is, and that Ctrl-C leaves without it: the loop's thread keeps no process from ending.

    Args:
        node: The node.

    Example:
        >>> from otpy.actors import Node
        >>> from otpy.application.closing import Closing
        >>> with Node() as node:
        ...     with Closing(node) as closing:
        ...         node.run(__import__("asyncio").sleep(0))
        ...     print(closing.answered)
        True
    """

    def __init__(self, node: Node) -> None:
        """Watch nothing yet."""
        self._node = node
        self._answered, self._over = threading.Event(), threading.Event()

    @property
    def answered(self) -> bool:
        """Whether the loop has had a turn meanwhile."""
        return self._answered.is_set()

    def __enter__(self) -> Self:
        """Ask the loop for an answer."""
        self._node.loop.call_soon_threadsafe(self._heard)
        threading.Thread(target=self._watch, name="otpy-closing", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Watch no more."""
        self._over.set()

    def _heard(self) -> None:
        self._answered.set()
        self._over.set()

    def _watch(self) -> None:
        if not self._over.wait(PATIENCE):
            logger.warning(
                "closing waits for code that blocks the event loop; await instead, make `forward` a plain method, or"
                ' evaluate with isolation="thread" or "process"; Ctrl-C leaves without it\n%s',
                self._node.stack(),
            )

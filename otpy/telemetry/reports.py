"""Loggers that harm nobody: a handler that raises must not decide what becomes of a process."""

from __future__ import annotations

import logging
import sys
import traceback
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Reports", "reports"]


class Reports(logging.LoggerAdapter[logging.Logger]):
    """A logger whose handlers may raise: that is printed to standard error, and the work goes on.

    Python's own handlers never do; handlers of others sometimes do, with a full disk or a lost connection.
    """

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        """Log, and survive it."""
        stacklevel: int = kwargs.pop("stacklevel", 1)
        try:
            super().log(level, msg, *args, stacklevel=stacklevel + 1, **kwargs)
        except Exception as error:  # noqa: BLE001 - see the class
            print(f"otpy: a log handler of {self.logger.name!r} raised:", file=sys.stderr)  # noqa: T201
            traceback.print_exception(error, file=sys.stderr)

    def process(self, msg: Any, kwargs: Any) -> tuple[Any, Any]:
        """Leave `extra` alone."""
        return msg, kwargs


def reports(name: str, extra: Mapping[str, object] | None = None) -> Reports:
    """Return the logger of this name, made harmless.

    Args:
        name: As for `logging.getLogger`.
        extra: As for `logging.LoggerAdapter`.

    Example:
        >>> from otpy.telemetry.reports import reports
        >>> reports("otpy.example").debug("not shown")
    """
    return Reports(logging.getLogger(name), extra)

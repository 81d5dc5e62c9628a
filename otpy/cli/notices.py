"""What happens in the tree while a command works, told in lines on stderr: restarts, and a cache that went away."""

from __future__ import annotations

import contextlib
import logging
import sys
from typing import TYPE_CHECKING, Any, Final

from otpy.telemetry import bus

if TYPE_CHECKING:
    from collections.abc import Generator

__all__ = ["noticed"]

NOTICES: Final = {
    "otpy.supervisor.restart": "{child!r} was restarted (it ended with: {reason})",
    "otpy.supervisor.gave_up": "{child!r} kept failing and was given up (it ended with: {reason})",
    "otpy.cache.degraded": "the cache: {error}",
    "otpy.judgements.waiting": "questions wait for a person: otpy judge {path}",
}


@contextlib.contextmanager
def noticed() -> Generator[None]:
    """Print notices while the block runs; the crash reports behind them are for `OTPY_DEBUG=1`."""
    logger, silent = logging.getLogger("otpy"), logging.NullHandler()
    logger.addHandler(silent)
    try:
        with bus.attached("command line", _print):
            yield
    finally:
        logger.removeHandler(silent)


def _print(event: str, fields: dict[str, Any]) -> None:
    if event in NOTICES:
        line = NOTICES[event].format_map(fields)
        print("otpy:", " ".join(line.split()), file=sys.stderr)

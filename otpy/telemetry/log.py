"""Events as structured log lines, by structlog: the only room that knows it.

Without it, what crashes and what is restarted goes to Python's own `logging` under `otpy`, as text.
"""

from __future__ import annotations

import contextlib
import logging
import sys
from typing import TYPE_CHECKING, Any, Final, TextIO

from otpy.telemetry import bus

if TYPE_CHECKING:
    from collections.abc import Generator

__all__ = ["log_events"]

_LEVELS: Final = {
    "otpy.process.crash": "error",
    "otpy.process.orphaned": "error",
    "otpy.supervisor.restart": "warning",
    "otpy.supervisor.gave_up": "critical",
    "otpy.supervisor.child_failed": "error",
    "otpy.breaker.change": "warning",
    "otpy.cache.degraded": "warning",
    "otpy.cache.migrated": "info",
    "otpy.recording.damaged": "warning",
    "otpy.journal.damaged": "warning",
    "otpy.client.retry": "warning",
    "otpy.limits.storage": "warning",
    "otpy.config.change": "info",
    "otpy.evaluate.start": "info",
    "otpy.evaluate.stop": "info",
}
"""Events that are no mere detail; all others are `debug`."""


@contextlib.contextmanager
def log_events(*, level: str = "info", json: bool | None = None, stream: TextIO | None = None) -> Generator[None]:
    """Write events as log lines for the length of a block.

    Args:
        level: The least level that is written: `"debug"`, `"info"`, `"warning"`, `"error"`, `"critical"`.
        json: One JSON object a line, or coloured text; by default JSON unless the stream is a terminal.
        stream: Where to; by default standard error.

    Raises:
        ValueError: If the level is unknown.

    Example:
        >>> import io
        >>> from otpy.telemetry import bus, log_events
        >>> out = io.StringIO()
        >>> with log_events(json=True, stream=out):
        ...     bus.emit("otpy.breaker.change", client="openai", state="open")
        >>> '"state": "open"' in out.getvalue()
        True
    """
    import structlog  # noqa: PLC0415 - only where events are logged

    numbers = logging.getLevelNamesMapping()
    if level.upper() not in numbers:
        raise ValueError(f"level={level!r}; allowed: 'debug', 'info', 'warning', 'error', 'critical'")
    least = numbers[level.upper()]
    out = sys.stderr if stream is None else stream
    as_json = not out.isatty() if json is None else json
    renderer: Any = structlog.processors.JSONRenderer(default=repr) if as_json else structlog.dev.ConsoleRenderer()
    logger: Any = structlog.wrap_logger(
        structlog.PrintLogger(out),
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(least),
    )

    def listener(event: str, fields: dict[str, Any]) -> None:
        written = {name: value if isinstance(value, (str, int, float, bool, type(None))) else repr(value)
                   for name, value in fields.items()}  # fmt: skip
        getattr(logger, _LEVELS.get(event, "debug"))(event, **written)

    plain = logging.getLogger("otpy")
    before = plain.disabled
    plain.disabled = True  # the same news, as text
    for name in ("otpy.actors", "otpy.supervisors"):
        logging.getLogger(name).disabled = True
    try:
        with bus.attached("log", listener):
            yield
    finally:
        plain.disabled = before
        for name in ("otpy.actors", "otpy.supervisors"):
            logging.getLogger(name).disabled = False

"""What went wrong, in one line for people and one number for scripts."""

from __future__ import annotations

from otpy.errors import ConfigError, EvaluationError, OtpyError, ProgramError, SignatureError, TeleprompterError

__all__ = ["FAILED", "INTERRUPTED", "USAGE", "Stopped", "explained"]

FAILED = 1
USAGE = 2
INTERRUPTED = 130

_AS_TYPED = (ConfigError, EvaluationError, ProgramError, SignatureError, TeleprompterError)
"""Errors in what was asked for, not in what happened afterwards."""


class Stopped(OtpyError):
    """A command that showed and kept what there was, and ends with a status other than 0.

    Args:
        message: Why, and what was kept.
        status: The exit status.
        shown: Whether the command's JSON object, if it was asked for, is printed and has this in it.
    """

    def __init__(self, message: str, status: int, *, shown: bool = False) -> None:
        """Keep the status."""
        self.status, self.shown = status, shown
        super().__init__(message)


def explained(error: BaseException) -> tuple[str, int]:  # noqa: PLR0911 - one line a kind of error
    """Return the line that explains an error, and the exit status.

    Args:
        error: Whatever a command raised.

    Example:
        >>> from otpy.cli.failures import explained
        >>> explained(FileNotFoundError(2, "No such file or directory", "rows.csv"))
        ('rows.csv: No such file or directory', 1)
    """
    match error:
        case KeyboardInterrupt():
            return "interrupted; nothing was kept", INTERRUPTED
        case SystemExit(code=code):
            return "stopped", code if isinstance(code, int) else FAILED
        case Stopped():
            return str(error), error.status
        case OtpyError():
            return _one_line(error), USAGE if isinstance(error, _AS_TYPED) else FAILED
        case OSError(filename=str() as name, strerror=str() as reason):
            return f"{name}: {reason}", FAILED
        case _ if callable(said := getattr(error, "format_message", None)):  # the parser's own errors, all of one shape
            command = getattr(getattr(error, "ctx", None), "command_path", "otpy")
            line = " ".join(str(said()).split()).rstrip(".")
            return f"{line} (see {command} --help)", int(getattr(error, "exit_code", USAGE))
        case _ if type(error).__name__ == "Abort":  # what older parsers make of Ctrl-C
            return "interrupted; nothing was kept", INTERRUPTED
        case _:
            what = f"{type(error).__name__}: {error}".splitlines()[0]
            return f"a fault in otpy: {what} (OTPY_DEBUG=1 shows where; please report it)", FAILED


def _one_line(error: OtpyError) -> str:
    """Fold a message; of a drawing under a signature its first line says all."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if isinstance(error, SignatureError) and error.column is not None:
        return f"{lines[0]} in {error.source!r}"
    return "; ".join(lines) or type(error).__name__

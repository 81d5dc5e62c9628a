"""What goes wrong with settings, contracts, programs, data and the work that is done with them."""

from __future__ import annotations

from typing import Any

from otpy.errors.family import OtpyError

__all__ = [
    "AdapterParseError",
    "ConfigError",
    "ConstraintNotMet",
    "DatasetError",
    "EvaluationAborted",
    "EvaluationError",
    "NoApplication",
    "ProgramError",
    "SignatureError",
    "TeleprompterError",
]


# -- configuration --------------------------------------------------------------------------------------------------


class ConfigError(OtpyError, ValueError):
    """Settings that do not hold together: the message names the setting, its source and the allowed values."""


# -- signatures and programs ----------------------------------------------------------------------------------------


class SignatureError(OtpyError, ValueError):
    """A contract that cannot be: raised where the signature is made.

    Args:
        message: What is wrong, with the offending piece.
        source: The text of a string signature, if there is one.
        column: Where in `source` the piece starts, counted from 1.
    """

    def __init__(self, message: str, source: str | None = None, column: int | None = None) -> None:
        """Keep the text and the column, and draw a caret under it."""
        self.source, self.column = source, column
        if source is not None and column is not None:
            message = f"{message} (column {column})\n  {source}\n  {' ' * (column - 1)}^"
        super().__init__(message)


class AdapterParseError(SignatureError):
    """The model's answer does not fulfil the signature.

    Args:
        signature: The signature's name.
        text: What the model said.
        missing: Output fields that are absent or invalid.
        detail: The validation error, in words a model can act on.

    Attributes:
        attempts: Every answer of the model, the last one included, once all re-asks are used up.
        usage: What they cost together, an `otpy.lm.Usage`; `None` outside of a program.
    """

    retryable = True
    attempts: tuple[str, ...] = ()
    usage: Any = None

    def __init__(self, signature: str, text: str, missing: tuple[str, ...] = (), detail: str = "") -> None:
        """Keep the answer and what is missing from it."""
        self.signature, self.text, self.missing, self.detail = signature, text, missing, detail
        shown = text if len(text) <= 200 else text[:200] + "…"
        what = detail or f"missing {', '.join(missing)}"
        super().__init__(f"the answer does not fulfil {signature}: {what}. The model said: {shown!r}")


class ConstraintNotMet(AdapterParseError):
    """The model's answer is of the right types, and not what an `Assert` of the program says it must be."""


class ProgramError(OtpyError, ValueError):
    """A program that cannot be built, called, saved or loaded as asked."""


class NoApplication(ProgramError):
    """A program was called with no application running.

    Args:
        message: Replaces the default text, which shows how to start one.
    """

    def __init__(self, message: str = "") -> None:
        """Say how to start one."""
        super().__init__(
            message
            or 'no application is running; start one: `with otpy.start(lm="local/smollm2-135m"): program(...)`'
            " (in async code: `async with otpy.start(...): await program.acall(...)`)"
        )


# -- data, evaluation, teleprompters --------------------------------------------------------------------------------


class DatasetError(OtpyError, ValueError):
    """A data file that cannot be used: the message names the file, the row and the column.

    Args:
        message: What is wrong.
        path: The file.
        row: The row, counted from 1, if one row is to blame.
    """

    def __init__(self, message: str, path: str = "", row: int | None = None) -> None:
        """Keep the file and the row."""
        self.path, self.row = path, row
        where = path + (f", row {row}" if row is not None else "")
        super().__init__(f"{where}: {message}" if where else message)


class EvaluationError(OtpyError, ValueError):
    """An evaluation that cannot run as asked."""


class EvaluationAborted(EvaluationError):
    """An evaluation stopped early; what was finished is in `result`.

    Args:
        message: Why it stopped.
        result: The partial result.
    """

    def __init__(self, message: str, result: Any = None) -> None:
        """Keep the partial result."""
        self.result = result
        super().__init__(message)


class TeleprompterError(OtpyError, ValueError):
    """An optimization that cannot run as asked, or found nothing it could use."""

"""The root of the family."""

from __future__ import annotations

from typing import Any, ClassVar

__all__ = [
    "OtpyError",
    "shown",
]


def _rebuild(cls: type[OtpyError], message: str, fields: dict[str, Any]) -> OtpyError:
    """Recreate an unpickled error without running its constructor."""
    error = cls.__new__(cls, message)
    error.args = (message,)
    error.__dict__.update(fields)
    return error


class OtpyError(Exception):
    """The root of everything otpy raises on purpose.

    Example:
        >>> import otpy.errors
        >>> issubclass(otpy.errors.LMTimeout, otpy.errors.OtpyError)
        True
    """

    retryable: ClassVar[bool] = False

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the message and the fields, whatever the constructor takes."""
        return _rebuild, (type(self), str(self), dict(self.__dict__))


def shown(value: object) -> str:
    """Return `repr(value)`, whatever its `__repr__` does: an error about an error must not fail.

    Example:
        >>> from otpy.errors import shown
        >>> class Detached(Exception):
        ...     def __repr__(self):
        ...         raise RuntimeError("not now")
        >>> shown("killed"), shown(Detached())
        ("'killed'", '<Detached, whose repr raises RuntimeError>')
    """
    try:
        return repr(value)
    except Exception as error:  # noqa: BLE001 - see above
        return f"<{type(value).__name__}, whose repr raises {type(error).__name__}>"

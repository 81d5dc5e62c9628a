"""What travels between the driver and its nodes: pickled, as programs, metrics, rows and errors of a user's own are.

Pickle runs code, so it is for those who trust each other: a cluster is one user's. What is defined in a script or in a
notebook goes as its code, by cloudpickle; signatures go as their fields, which is how their classes are made.
"""

from __future__ import annotations

import io
import pickle
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, cast

from otpy.errors import EvaluationError
from otpy.evaluate.parcels import _as_fields, _known
from otpy.evaluate.row import Failed, Row, Scored
from otpy.signatures import SignatureMeta

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["packer", "sendable", "unpacked"]


def packer(cloudpickle: Any) -> Callable[[Any], bytes]:
    """Return a function that pickles.

    Args:
        cloudpickle: The library, or the copy of it that Ray has.
    """
    by_value = cloudpickle.list_registry_pickle_by_value()

    class Pickler(cloudpickle.CloudPickler):  # type: ignore[misc]
        def reducer_override(self, value: Any, /) -> Any:
            if isinstance(value, SignatureMeta):
                module = value.__module__
                by_name = _known(value) and module != "__main__" and module not in by_value
                return NotImplemented if by_name else _as_fields(value)
            if type(value) is MappingProxyType:
                return MappingProxyType, (dict(cast("Any", value)),)
            return cloudpickle.CloudPickler.reducer_override(self, value)

    def packed(value: Any) -> bytes:
        buffer = io.BytesIO()
        Pickler(buffer).dump(value)
        return buffer.getvalue()

    return packed


def unpacked(data: bytes) -> Any:
    """Return what was pickled by somebody we trust.

    Args:
        data: What the function that `packer` makes has returned.
    """
    return pickle.loads(data)  # noqa: S301 - see above


def sendable(row: Row, dumps: Callable[[Any], bytes]) -> Row:
    """Return a fate that can be sent: where it cannot, one that says the same in words.

    Args:
        row: The fate.
        dumps: Pickles.

    Example:
        >>> import pickle, threading
        >>> from otpy.evaluate import Failed
        >>> from otpy.integrations.sending import sendable
        >>> from otpy.signatures import Example
        >>> class Odd(Exception):
        ...     def __init__(self, a, b):
        ...         super().__init__(f"{a} is not {b}")
        >>> row = sendable(Failed(0, Example(n=1), Odd(1, 2), "program", 0.1), pickle.dumps)
        >>> row.kind, row.explanation, type(pickle.loads(pickle.dumps(row)).reason).__name__
        ('Odd', 'Odd: 1 is not 2', 'Odd')
    """
    if isinstance(row, Scored):
        try:
            dumps(row.prediction)
        except Exception as error:  # noqa: BLE001 - whatever a user's field raises
            why = EvaluationError(f"its prediction cannot be sent from its node: {type(error).__name__}: {error}")
            return Failed(
                row.index,
                row.example,
                why,
                "program",
                row.seconds,
                row.usage,
                (),
                row.money,
                row.attempts,
                row.repeat,
            )
        return row
    if isinstance(row.reason, str):
        return row
    try:
        unpacked(dumps(row.reason))  # many errors go in and don't come out again
    except Exception:  # noqa: BLE001 - whatever a user's error raises
        return replace(row, reason=stand_in(type(row.reason).__name__, str(row.reason)))
    return row


def stand_in(name: str, words: str) -> Exception:
    """Return an error that is called and says the same as one that cannot be sent.

    Args:
        name: The name of its class.
        words: What it says.
    """

    def again(_: object) -> tuple[Any, ...]:
        return stand_in, (name, words)

    kind = type(name, (EvaluationError,), {"__reduce__": again})
    return kind(words)  # type: ignore[no-any-return]

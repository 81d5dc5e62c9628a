"""Rows as lines of a journal, and back. Pure.

One JSON object a line, each with the version of its shape; of the example only the key of its content is in it. What a
journal is looked through for comes first, so that a line need not be read to be known. Last comes a checksum of all
before it, so that a line is what was written, or is known to be damaged.
"""

from __future__ import annotations

import json
import re
import zlib
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, TypeAlias, cast

from otpy.errors import EvaluationError
from otpy.evaluate.journal_failures import is_json, may_pass, reason_data, reason_of
from otpy.evaluate.row import Failed, Row, Scored
from otpy.evaluate.score import Score
from otpy.lm import Usage
from otpy.signatures import Prediction
from otpy.signatures.example import exchanges_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from otpy.programs import Program
    from otpy.signatures import Example, SignatureMeta

__all__ = [
    "FORMER",
    "SCHEMA",
    "Fate",
    "Head",
    "head_of",
    "is_sealed",
    "kept",
    "row_line",
    "row_of",
    "sealed",
    "signatures_of",
]

Fate: TypeAlias = Literal["scored", "failed", "passing"]

SCHEMA: Final = 2
"""The version of a line's shape."""
FORMER: Final = 1
"""The version before it, which had no checksums: it is still read."""
_HEAD: Final = re.compile(rb'\{"v":([12]),"key":"([0-9a-f]{32})","repeat":(\d+),"time":(\d+),"fate":"([a-z]+)",')
_SEAL: Final = re.compile(rb',"crc":"([0-9a-f]{8})"\}')
_SEAL_LENGTH: Final = 18
_FATES: Final[dict[bytes, Fate]] = {b"scored": "scored", b"failed": "failed", b"passing": "passing"}
_COUNTS: Final = Usage.__slots__
_NEXT: Final = "return what can be written as JSON, or evaluate without a journal"


class Head(NamedTuple):
    """What a line is about.

    Args:
        key: Of the example's content.
        repeat: Which of the runs over the devset.
        time: How many rows before it were equal.
        fate: `"passing"` is a failure that may pass by itself.
    """

    key: bytes
    repeat: int
    time: int
    fate: Fate


def signatures_of(program: Program) -> dict[str, SignatureMeta]:
    """Return the contracts that a program's predictions may be read by, by the paths of its predictors.

    Args:
        program: The program.
    """
    return {path: predictor.signature for path, predictor in program.named_predictors()}


def row_line(row: Row, key: bytes, time: int, signatures: Mapping[str, SignatureMeta]) -> bytes:
    """Return the line of a row.

    Args:
        row: The row.
        key: Of its example's content.
        time: How many rows before it are equal.
        signatures: As `signatures_of` returns them.

    Raises:
        EvaluationError: If its prediction, or whatever else of it, cannot be written so that it is the same when it is
            read.
    """
    try:
        return _row_line(row, key, time, signatures)
    except EvaluationError:
        raise
    except (TypeError, ValueError, RecursionError) as error:
        raise EvaluationError(
            f"row {row.index} cannot be kept in a journal: {type(error).__name__}: {error}; {_NEXT}"
        ) from error


def kept(row: Row, key: bytes, time: int, signatures: Mapping[str, SignatureMeta]) -> tuple[Row, bytes]:
    """Return a row as a journal keeps it, and its line: one that cannot be written has failed with that.

    Args:
        row: As for `row_line`.
        key: As for `row_line`.
        time: As for `row_line`.
        signatures: As for `row_line`.
    """
    try:
        return row, row_line(row, key, time, signatures)
    except EvaluationError as error:
        exchanges = row.exchanges if isinstance(row, Failed) else exchanges_of(row.prediction)
        took = row.seconds, row.usage, exchanges, row.money, row.attempts, row.repeat
        row = Failed(row.index, row.example, error, "program", *took)
        return row, row_line(row, key, time, signatures)


def _row_line(row: Row, key: bytes, time: int, signatures: Mapping[str, SignatureMeta]) -> bytes:
    data: dict[str, Any] = {"index": row.index}
    if isinstance(row, Scored):
        fate: Fate = "scored"
        data |= _prediction_data(row.prediction, row, signatures)
        score = row.score
        reasons = [float(score), score.feedback, dict(score.subscores)] if isinstance(score, Score) else None
        data["score"] = score if reasons is None else reasons
    else:
        fate = "passing" if may_pass(row.reason) else "failed"
        data |= {"where": row.where, "reason": reason_data(row.reason)}
    data |= {"seconds": row.seconds, "usage": _counts(row.usage), "attempts": row.attempts}
    if row.money is not None:
        data["money"] = str(row.money)
    head = f'{{"v":{SCHEMA},"key":"{key.hex()}","repeat":{row.repeat},"time":{time},"fate":"{fate}",'
    return sealed((head + _json(data)[1:]).encode("ascii"))


def sealed(line: bytes) -> bytes:
    """Return an object with a checksum as its last field, and the end of the line.

    Args:
        line: The object.

    Example:
        >>> from otpy.evaluate.journal_lines import is_sealed, sealed
        >>> line = sealed(b'{"a":1}')
        >>> is_sealed(line), is_sealed(line.replace(b"1", b"2", 1)), is_sealed(b'{"a":1}')
        (True, False, None)
    """
    content = line[:-1]
    return b'%b,"crc":"%08x"}\n' % (content, zlib.crc32(content))


def is_sealed(line: bytes) -> bool | None:
    """Return whether a line is as it was written; `None` if it has no checksum.

    Args:
        line: The line, with or without its end.
    """
    line = line.removesuffix(b"\n")
    seal = _SEAL.fullmatch(line, max(len(line) - _SEAL_LENGTH, 0))
    return None if seal is None else int(seal[1], 16) == zlib.crc32(line[:-_SEAL_LENGTH])


_json: Final = json.JSONEncoder(separators=(",", ":")).encode


def _counts(usage: Usage) -> list[int]:
    return [getattr(usage, name) for name in _COUNTS]


def _prediction_data(prediction: Prediction, row: Scored, signatures: Mapping[str, SignatureMeta]) -> dict[str, Any]:
    values = prediction.to_dict()
    data: dict[str, Any] = {}
    if prediction.usage != row.usage:
        data["predicted"] = _counts(prediction.usage)
    if prediction.attempts:
        data["said"] = prediction.attempts
    if is_json(values):
        return {**data, "prediction": values}
    for path, signature in signatures.items():
        if signature.output_fields.keys() == values.keys():
            try:
                dumped = signature.dump_outputs(values)
                if signature.read_outputs(_json(dumped)) == values:
                    return {**data, "prediction": dumped, "by": path}
            except (TypeError, ValueError, RecursionError):  # a `SignatureError` is the second
                continue
    what = next(
        (f"{name!r} is {_short(value)}" for name, value in values.items() if not is_json(value)),
        "the name of an output is no text",
    )
    raise EvaluationError(
        f"row {row.index}: its prediction cannot be kept in a journal: {what}, and that is neither JSON data nor an"
        f" output of one of the program's signatures; {_NEXT}"
    )


def _short(value: Any) -> str:
    kind = cast("Any", type(value))
    if kind is int:
        return "an integer of more than 639 digits"
    more = ", which holds something else, or itself, or more than 100 levels" if kind in {list, dict} else ""
    return f"of type {kind.__qualname__}{more}"


def head_of(line: bytes, *, former: bool = False) -> Head:
    """Return what a line is about, without reading the rest of it.

    Args:
        line: The line, with its end.
        former: Whether it may be one of the version before, which has no checksum.

    Raises:
        ValueError: If it is no line of a journal, or damaged.
    """
    found, intact = _HEAD.match(line), is_sealed(line)
    if found is not None:
        version, key, repeat, time, fate = found.groups()
        unsealed = former and intact is None and int(version) == FORMER and line.rstrip().endswith(b"}")
        if (intact or unsealed) and fate in _FATES:
            return Head(bytes.fromhex(key.decode("ascii")), int(repeat), int(time), _FATES[fate])
    raise ValueError("no line of a journal, or damaged")


def row_of(line: bytes, index: int, example: Example, signatures: Mapping[str, SignatureMeta]) -> Row:
    """Return the row of a line.

    Args:
        line: The line.
        index: Where the example is now.
        example: The example, whose content the line was written for.
        signatures: As `signatures_of` returns them.

    Raises:
        ValueError: If it is no line of a row; `ArithmeticError`, `LookupError`, `TypeError` or `AttributeError` too.
    """
    data = json.loads(line)
    usage, money = Usage(*data["usage"]), data.get("money")
    seconds, attempts, repeat = data["seconds"], data["attempts"], data["repeat"]
    paid = None if money is None else Decimal(money)
    if data["fate"] != "scored":
        reason = reason_of(data["reason"])
        return Failed(
            index, example, reason, data["where"], seconds, usage, money=paid, attempts=attempts, repeat=repeat
        )
    values, score = data["prediction"], data["score"]
    if "by" in data:
        values = signatures[data["by"]].read_outputs(_json(values))
    spent = Usage(*data["predicted"]) if "predicted" in data else usage
    prediction = Prediction(values, usage=spent, attempts=tuple(data.get("said", ())))
    return Scored(
        index,
        example,
        prediction,
        Score(*cast("Any", score)) if isinstance(score, list) else score,
        seconds,
        usage,
        money=paid,
        attempts=attempts,
        repeat=repeat,
    )

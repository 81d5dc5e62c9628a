"""Rows as lines of a journal, and back. Pure.

One JSON object a line, each with the version of its shape; of the example only the key of its content is in it. What a
journal is looked through for comes first, so that a line need not be read to be known.
"""

from __future__ import annotations

import json
import re
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, TypeAlias, cast

from otpy.errors import EvaluationError, SignatureError
from otpy.evaluate.journal_failures import is_json, may_pass, reason_data, reason_of
from otpy.evaluate.row import Failed, Row, Scored
from otpy.evaluate.score import Score
from otpy.lm import Usage
from otpy.signatures import Prediction

if TYPE_CHECKING:
    from collections.abc import Mapping

    from otpy.programs import Program
    from otpy.signatures import Example, SignatureMeta

__all__ = ["SCHEMA", "Fate", "Head", "head_of", "row_line", "row_of", "signatures_of"]

Fate: TypeAlias = Literal["scored", "failed", "passing"]

SCHEMA: Final = 1
"""The version of a line's shape."""
_HEAD: Final = re.compile(rb'\{"v":1,"key":"([0-9a-f]{32})","repeat":(\d+),"time":(\d+),"fate":"([a-z]+)",')
_FATES: Final[dict[bytes, Fate]] = {b"scored": "scored", b"failed": "failed", b"passing": "passing"}
_COUNTS: Final = Usage.__slots__


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
        EvaluationError: If its prediction cannot be written so that it is the same when it is read.
    """
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
    return (head + _json(data)[1:] + "\n").encode("ascii")


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
            except SignatureError:
                continue
    name = next(name for name in values if not is_json(values[name]))
    raise EvaluationError(
        f"row {row.index}: its prediction cannot be kept in a journal: {name!r} is {_short(values[name])}, which is"
        " neither JSON data nor an output of one of the program's signatures; return what can be written as JSON,"
        " or evaluate without a journal"
    )


def _short(value: object) -> str:
    return f"of type {type(value).__qualname__}"


def head_of(line: bytes) -> Head:
    """Return what a line is about, without reading the rest of it.

    Args:
        line: The line, with its end.

    Raises:
        ValueError: If it is no line of a journal; `KeyError` or `TypeError` likewise.
    """
    found = _HEAD.match(line)
    if found is not None and line.rstrip().endswith(b"}"):
        key, repeat, time, fate = found.groups()
        return Head(bytes.fromhex(key.decode("ascii")), int(repeat), int(time), _FATES[fate])
    data = json.loads(line)
    if data["v"] != SCHEMA:
        raise ValueError("another version")
    return Head(bytes.fromhex(data["key"]), int(data["repeat"]), int(data["time"]), _FATES[data["fate"].encode()])


def row_of(line: bytes, index: int, example: Example, signatures: Mapping[str, SignatureMeta]) -> Row:
    """Return the row of a line.

    Args:
        line: The line.
        index: Where the example is now.
        example: The example, whose content the line was written for.
        signatures: As `signatures_of` returns them.

    Raises:
        ValueError: If it is no line of a row; `KeyError`, `TypeError` or `AttributeError` likewise.
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

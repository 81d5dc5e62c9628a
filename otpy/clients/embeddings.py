"""Embeddings of OpenAI-compatible servers: a pure codec.

Source: OpenAI API reference, "Embeddings"; llama.cpp's `tools/server/README.md`, whose vectors may be pooled or one a
token (only the former are an embedding).
"""

from __future__ import annotations

import base64
import math
import sys
from array import array
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, cast

from otpy.clients.codec import Asked, as_body
from otpy.clients.openai_errors import UNREADABLE, invalid, read_answer
from otpy.clients.openai_parts import usage_of, whole, why
from otpy.errors import LMRequestInvalid

if TYPE_CHECKING:
    from collections.abc import Sequence

    from otpy.lm import Usage

__all__ = ["Embedded", "Encoding", "Vector", "decode", "encode"]

Vector: TypeAlias = "array[float]"
"""32-bit floats; `numpy.asarray` takes it without a copy."""
Encoding: TypeAlias = Literal["float", "base64"]
"""How vectors are written: as numbers, or as the base64 of little-endian 32-bit floats, a fourth as long."""

_ENCODINGS: Final = ("float", "base64")


@dataclass(frozen=True, slots=True)
class Embedded:
    """What a server answered.

    Args:
        vectors: One for every text, in the order of the texts, all of one length.
        usage: Tokens.
        model: The model that answered, as the server names it.
    """

    vectors: tuple[Vector, ...]
    usage: Usage
    model: str = ""


def encode(texts: Sequence[str], model: str, dimensions: int | None = None, *, encoding: Encoding = "float") -> Asked:
    """Return the request for the embeddings of some texts.

    Args:
        texts: At least one; what is empty some servers refuse.
        model: The model, as the server knows it.
        dimensions: The length of the vectors, from models that can shorten them; `None` for their own.
        encoding: How the vectors are to be written; every server knows `"float"`.

    Raises:
        LMRequestInvalid: If there is no text, or one argument is out of its range.

    Example:
        >>> from otpy.clients.embeddings import encode
        >>> encode(["hello"], "m").body
        b'{"model":"m","input":["hello"],"encoding_format":"float"}'
    """
    if isinstance(texts, str) or not texts:
        raise LMRequestInvalid(f"texts={texts!r:.100}: give a list of at least one text")
    if dimensions is not None and dimensions < 1:
        raise LMRequestInvalid(f"dimensions={dimensions!r}: give at least 1, or None for the model's own")
    if encoding not in _ENCODINGS:
        raise LMRequestInvalid(f"encoding={encoding!r}: allowed are {', '.join(map(repr, _ENCODINGS))}")
    body: dict[str, Any] = {"model": model, "input": list(texts), "encoding_format": encoding}
    if dimensions is not None:
        body["dimensions"] = dimensions
    return Asked("/embeddings", as_body(body))


def decode(body: bytes, count: int | None = None) -> Embedded:
    """Read the body of an answer with status 200, in either encoding, whichever was asked for.

    Args:
        body: The whole body.
        count: How many texts were sent; `None` if that is not to be checked.

    Raises:
        LMResponseInvalid: If it is not a list of embeddings, one for every text, of one length and of finite numbers.
        LMError: If it is an error after all, which some gateways send with status 200.

    Example:
        >>> from otpy.clients.embeddings import decode
        >>> list(decode(b'{"data": [{"index": 0, "embedding": [0.5, 1]}]}').vectors[0])
        [0.5, 1.0]
    """
    answer = read_answer(body, "data", "a list of embeddings")
    try:
        items: list[dict[str, Any]] = list(answer["data"])
        places = [item.get("index", place) for place, item in enumerate(items)]
        if sorted(places) != list(range(len(items) if count is None else count)) or not items:
            raise ValueError(f"{len(items)} embeddings with the indices {places!r:.100}")
        vectors = [_vector(item["embedding"]) for item in items]
        if len({len(vector) for vector in vectors}) != 1:
            raise ValueError("embeddings of different lengths")
        return Embedded(
            tuple(vectors[at] for at in sorted(range(len(places)), key=places.__getitem__)),
            usage_of(answer.get("usage"), "prompt", "completion"),
            whole(str(answer.get("model") or "")),
        )
    except UNREADABLE as error:
        raise invalid(f"the answer is not a list of embeddings ({why(error)})", body) from error


def _vector(said: Any) -> Vector:
    if isinstance(said, str):
        vector = array("f", base64.b64decode(said, validate=True))
        if sys.byteorder == "big":
            vector.byteswap()
    elif isinstance(said, list):
        vector = array("f", cast("list[float]", said))
    else:
        raise TypeError(f"{said!r:.100} is no vector")
    if not vector or not all(map(math.isfinite, vector)):
        raise ValueError("an embedding is empty, or not of finite numbers")
    return vector

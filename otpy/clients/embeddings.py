"""Embeddings of OpenAI-compatible servers: a pure codec.

To the client, a request for vectors is a request like any other, whose messages are the texts; its answer is one whose
text holds the vectors, so that it can be remembered and recorded like any other.

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

from otpy.clients import openai_errors
from otpy.clients.codec import Asked, as_body
from otpy.clients.openai_errors import UNREADABLE, invalid, read_answer
from otpy.clients.openai_parts import usage_of, whole, why
from otpy.clients.profiles import unsayable
from otpy.errors import LMContextWindowExceeded, LMRequestInvalid, LMResponseInvalid
from otpy.lm import FrozenJSON, LMRequest, LMResponse, Message, text_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from otpy.clients.codec import Codec, Headers, Limits, Profile, StreamDecoder
    from otpy.errors import LMError
    from otpy.lm import Usage

__all__ = [
    "EmbedRequest", "Embedded", "Embeddings", "Encoding", "Vector", "codec_for", "decode", "encode", "packed", "told",
    "vectors_of",
]  # fmt: skip

Vector: TypeAlias = "array[float]"
"""32-bit floats; `numpy.asarray` takes it without a copy."""
Encoding: TypeAlias = Literal["float", "base64"]
"""How vectors are written: as numbers, or as the base64 of little-endian 32-bit floats, a fourth as long."""

_ENCODINGS: Final = ("float", "base64")
_COMPACT: Final = frozenset({
    "openai", "openai_reasoning", "openai_responses", "azure", "llama_cpp", "llama_cpp_responses", "llama_cpp_messages",
    "llama_cpp_embedder", "vllm",
})  # fmt: skip
"""Profiles whose servers are documented to know base64, which is a fifth as much to read."""
_TOO_LONG: Final = "is too large to process"
"""What llama.cpp says of a text that is longer than the model can read: with status 500, as of a fault of its own."""


class EmbedRequest(LMRequest):
    """A request for the vectors of some texts; all that a client does for requests, it does for this one.

    Example:
        >>> from otpy.clients.embeddings import EmbedRequest
        >>> request = EmbedRequest.of(["hello", "goodbye"], dimensions=256)
        >>> request.texts, request.dimensions
        (('hello', 'goodbye'), 256)
    """

    __slots__ = ()

    @classmethod
    def of(cls, texts: Iterable[str], *, model: str | None = None, dimensions: int | None = None) -> EmbedRequest:
        """Make one.

        Args:
            texts: At least one.
            model: Overrides the client's model.
            dimensions: The length of the vectors, from models that can shorten them; `None` for their own.
        """
        messages = tuple(Message("user", text) for text in texts)
        extra = FrozenJSON.of({} if dimensions is None else {"dimensions": dimensions})
        return cls(messages, model=model, max_tokens=0, extra=extra)  # nothing is written, so nothing is set aside

    @property
    def texts(self) -> tuple[str, ...]:
        """The texts."""
        return tuple(text_of(message.content) for message in self.messages)

    @property
    def dimensions(self) -> int | None:
        """The length of the vectors that is asked for."""
        dimensions: int | None = self.extra.value.get("dimensions")
        return dimensions

    def key(self, *context: str) -> str:
        """A content hash, another than that of a conversation of the same texts.

        Args:
            context: What else decides the answer, such as the client's address.
        """
        return super().key("embeddings", *context)


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


def decode(body: bytes, count: int | None = None, dimensions: int | None = None) -> Embedded:
    """Read the body of an answer with status 200, in either encoding, whichever was asked for.

    Args:
        body: The whole body.
        count: How many texts were sent; `None` if that is not to be checked.
        dimensions: The length of the vectors that was asked for; `None` if that is not to be checked.

    Raises:
        LMRequestInvalid: If they have another length, as from servers that ignore what they cannot do.
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
        if dimensions not in {None, len(vectors[0])}:
            raise LMRequestInvalid(
                f"dimensions={dimensions!r}: the server ignores it, its vectors have {len(vectors[0])}; leave it out,"
                " or ask a model that can shorten them",
                status=200,
            )
        return Embedded(
            tuple(vectors[at] for at in sorted(range(len(places)), key=places.__getitem__)),
            usage_of(answer.get("usage"), "prompt", "completion"),
            whole(str(answer.get("model") or "")),
        )
    except UNREADABLE as error:
        raise invalid(f"the answer is not a list of embeddings ({why(error)})", body) from error


def _vector(said: Any) -> Vector:
    if isinstance(said, str):
        vector = _little(array("f", base64.b64decode(said, validate=True)))
    elif isinstance(said, list):
        vector = array("f", cast("list[float]", said))
    else:
        raise TypeError(f"{said!r:.100} is no vector")
    if not vector or not all(map(math.isfinite, vector)):
        raise ValueError("an embedding is empty, or not of finite numbers")
    return vector


# -- to the client ----------------------------------------------------------------------------------------------------


class Embeddings:
    """The dialect of one request for vectors, below the same base URL as conversations.

    Args:
        request: The request.
        codec: What the provider speaks otherwise.

    Example:
        >>> from otpy.clients.dialects import codec
        >>> from otpy.clients.embeddings import EmbedRequest, Embeddings
        >>> from otpy.clients.profiles import PROFILES
        >>> request = EmbedRequest.of(["hello"])
        >>> Embeddings(request, codec("openai_chat")).encode(request, model="m", profile=PROFILES["generic"]).path
        '/embeddings'
    """

    name = "embeddings"

    def __init__(self, request: EmbedRequest, codec: Codec) -> None:
        """Keep what the answer is held against."""
        self._count, self._dimensions, self._codec = len(request.messages), request.dimensions, codec

    def key_headers(self, key: str, profile: Profile) -> tuple[tuple[str, str], ...]:
        """Return the headers that carry an API key."""
        return self._codec.key_headers(key, profile)

    def encode(self, request: LMRequest, *, model: str, profile: Profile, stream: bool = False) -> Asked:
        """Return the request in this dialect.

        Raises:
            LMRequestInvalid: If the deployment has no embeddings, or the request asks for a stream.
        """
        if "embeddings" in profile.lacks:
            raise unsayable("a request for embeddings", profile)
        if stream or not isinstance(request, EmbedRequest):
            raise LMRequestInvalid("embeddings do not come in pieces; ask for them with app.embed")
        encoding: Encoding = "base64" if profile.name in _COMPACT else "float"
        return encode(request.texts, model, request.dimensions, encoding=encoding)

    def decode(self, body: bytes) -> LMResponse:
        """Read the body of an answer with status 200.

        Raises:
            LMError: As `embeddings.decode`.
        """
        answer = decode(body, self._count, self._dimensions)
        return LMResponse(packed(answer.vectors), answer.model, usage=answer.usage)

    def decode_stream(self) -> StreamDecoder:
        """Refuse: there are no streams of them."""
        raise LMRequestInvalid("embeddings do not come in pieces; ask for them with app.embed")

    def classify_error(self, status: int, headers: Headers, body: bytes) -> LMError:
        """Turn an answer with another status into the exception that says what to do."""
        error = openai_errors.classify_error(status, headers, body)
        if isinstance(error, LMContextWindowExceeded) or _TOO_LONG in str(error):
            return LMContextWindowExceeded(
                f"a text is longer than the model can read; split it: {error.body}", status=status, body=error.body
            )
        if status == 501:
            return LMRequestInvalid(f"the server has no embeddings: {error.body}", status=status, body=error.body)
        return error

    def read_limits(self, headers: Headers, now: float) -> Limits:
        """Read what the headers of any answer say of the provider's limits."""
        return self._codec.read_limits(headers, now)


def codec_for(request: LMRequest, codec: Codec) -> Codec:
    """Return the dialect of a request: the provider's, or that of embeddings.

    Args:
        request: What is asked.
        codec: The provider's.
    """
    return Embeddings(request, codec) if isinstance(request, EmbedRequest) else codec


def packed(vectors: Sequence[Vector]) -> str:
    """Return vectors of one length as a text: the base64 of their numbers, one after the other.

    Args:
        vectors: At least one.

    Example:
        >>> from array import array
        >>> from otpy.clients.embeddings import packed, vectors_of
        >>> from otpy.lm import LMResponse
        >>> vectors_of(LMResponse(packed([array("f", [0.5, 1]), array("f", [2, 3])])), 2)
        (array('f', [0.5, 1.0]), array('f', [2.0, 3.0]))
    """
    joined = array("f", b"".join(vector.tobytes() for vector in vectors))
    return base64.b64encode(_little(joined).tobytes()).decode("ascii")


def vectors_of(response: LMResponse, count: int) -> tuple[Vector, ...]:
    """Return the vectors that an answer holds.

    Args:
        response: The answer to an `EmbedRequest`.
        count: How many there must be.

    Raises:
        LMResponseInvalid: If it holds something else.
    """
    try:
        joined = _little(array("f", base64.b64decode(response.text, validate=True)))
    except ValueError as error:
        raise LMResponseInvalid(f"what was remembered is no vector: {error}") from error
    length, rest = divmod(len(joined), count)
    if rest or not length:
        raise LMResponseInvalid(f"{len(joined)} numbers are not {count} vectors")
    return tuple(joined[start : start + length] for start in range(0, len(joined), length))


def told(request: LMRequest, response: LMResponse | None) -> LMResponse | None:
    """Return an answer as it is shown to people: vectors by their number and length.

    Args:
        request: What was asked.
        response: The answer, if there is one.
    """
    if response is None or not isinstance(request, EmbedRequest):
        return response
    vectors = vectors_of(response, len(request.messages))
    text = f"{len(vectors)} vectors of {len(vectors[0])} numbers"
    return LMResponse(text, response.model, usage=response.usage, cached=response.cached)


def _little(numbers: Vector) -> Vector:
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers

"""What a provider's dialect is to the client: a codec, five pure functions, and the values they speak of.

A codec knows bytes and headers, never sockets or processes. Which codec, and which habits of a server, is a matter of
the deployment (`Profile`), never guessed from a model's name.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from pydantic_core import PydanticSerializationError, from_json, to_json

if TYPE_CHECKING:
    from otpy.errors import LMError
    from otpy.lm import LMRequest, LMResponse, StreamEvent

__all__ = ["Asked", "Codec", "Headers", "Limits", "Profile", "StreamDecoder", "Window", "as_body", "as_tree"]

Headers = Mapping[str, str]
"""HTTP headers, with lower-case names."""


@dataclass(frozen=True, slots=True)
class Profile:
    """The habits of a kind of deployment; chosen in the settings, known for the usual providers.

    Args:
        name: What settings call it.
        dialect: The codec that speaks to it.
        max_tokens: The parameter that bounds the answer, where servers of one dialect differ.
        sampling: Whether it takes `temperature`, `top_p` and `seed`.
        schema: Whether answers can be held to a JSON schema.
        version: The version of the API, where a header says it.
        extra: Parameters sent with every request.
        lacks: What it refuses, or takes and ignores, by the names of a request's fields (`"n"`, `"tool_choice"`), of
            kinds of media (`"audio"`) and of their addresses (`"image_url"`): a request that needs it is not sent.
        reasoning: Where a message takes back what the model thought in an earlier turn; empty if it has no place.
        most_tokens: The bound on an answer where the dialect demands one and nobody has said it.
    """

    name: str
    dialect: str = "openai_chat"
    max_tokens: str = "max_tokens"
    sampling: bool = True
    schema: bool = True
    version: str = ""
    extra: tuple[tuple[str, Any], ...] = ()
    lacks: tuple[str, ...] = ()
    reasoning: str = ""
    most_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Asked:
    """A request in a provider's dialect.

    Args:
        path: What follows the base URL, as in `"/chat/completions"`.
        body: The body.
        headers: Further headers, none of them with a key.
    """

    path: str
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Window:
    """What is left of one limit.

    Args:
        limit: How much there is in a window; `None` if it is not said.
        remaining: How much is left of it; `None` if it is not said.
        reset: Seconds until it is whole again; `None` if it is not said.
    """

    limit: int | None = None
    remaining: int | None = None
    reset: float | None = None


@dataclass(frozen=True, slots=True)
class Limits:
    """What a provider's headers say of its limits.

    Args:
        requests: Requests.
        tokens: Tokens, read and written.
        input_tokens: Tokens read, where they are counted apart.
        output_tokens: Tokens written, where they are counted apart.
        retry_after: Seconds that it asks us to wait.
        should_retry: Whether it says that trying again makes sense; `None` if it does not say.
    """

    requests: Window = field(default_factory=Window)
    tokens: Window = field(default_factory=Window)
    input_tokens: Window = field(default_factory=Window)
    output_tokens: Window = field(default_factory=Window)
    retry_after: float | None = None
    should_retry: bool | None = None


class StreamDecoder(Protocol):
    """What reads one streamed answer; it keeps what has come so far."""

    def feed(self, piece: bytes) -> Iterator[StreamEvent]:
        """Take some bytes of the body, cut anywhere, also within a character, and yield what they complete.

        Raises:
            LMError: If the provider says in the stream that it failed.
            LMResponseInvalid: If they are not what the dialect promises.
        """
        ...

    def close(self) -> Iterator[StreamEvent]:
        """Hear that the body is over, and yield what is still owed: the `StreamEnd`, if there has been none.

        Raises:
            LMConnectionError: If the answer is not whole: the stream was cut.
        """
        ...


class Codec(Protocol):
    """A provider's dialect."""

    name: str

    def key_headers(self, key: str, profile: Profile) -> tuple[tuple[str, str], ...]:
        """Return the headers that carry an API key."""
        ...

    def encode(self, request: LMRequest, *, model: str, profile: Profile, stream: bool = False) -> Asked:
        """Return the request in this dialect; what the client adds (temperature, max_tokens) is in `request` already.

        Raises:
            LMRequestInvalid: If the dialect, or the profile, has no way to say this; the message names what.
        """
        ...

    def decode(self, body: bytes) -> LMResponse:
        """Read the body of an answer with status 200.

        Raises:
            LMResponseInvalid: If it is not what the dialect promises.
        """
        ...

    def decode_stream(self) -> StreamDecoder:
        """Return what reads one streamed answer."""
        ...

    def classify_error(self, status: int, headers: Headers, body: bytes) -> LMError:
        """Turn an answer with another status into the exception that says what to do."""
        ...

    def read_limits(self, headers: Headers, now: float) -> Limits:
        """Read what the headers of any answer say of the provider's limits.

        Args:
            headers: With lower-case names.
            now: Seconds since 1970, for limits that are said as dates.
        """
        ...


def as_body(tree: dict[str, Any]) -> bytes:
    """Return a tree as the JSON body of a request; what no UTF-8 can hold is sent as `?`."""
    try:
        return to_json(tree, inf_nan_mode="constants")
    except PydanticSerializationError:  # half a surrogate pair, which only the standard library writes
        return json.dumps(tree, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "replace")


def as_tree(body: bytes | str) -> Any:
    """Return the value that a JSON text says.

    Raises:
        ValueError: If it is no JSON.
        RecursionError: If it is nested too deeply.
    """
    try:
        return from_json(body)
    except ValueError:  # half a surrogate pair, and whatever else only the standard library reads; its words are better
        return json.loads(body)

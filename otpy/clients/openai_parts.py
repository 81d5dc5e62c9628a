"""What OpenAI's two dialects share: how media, tokens, tool arguments and log probabilities are written.

Source: OpenAI API reference, "Chat" and "Responses".
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final, NoReturn

from otpy.clients.openai_errors import object_in
from otpy.errors import LMRequestInvalid
from otpy.lm import Choice, FrozenJSON, Text, TokenLogprob, ToolUse, Usage

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from otpy.lm import Media, Part

__all__ = ["audio_of", "choice_of", "file_name", "is_address", "logprobs_of", "text_in", "usage_of", "whole", "why"]

_AUDIO: Final = {
    "audio/wav": "wav", "audio/x-wav": "wav", "audio/wave": "wav", "audio/vnd.wave": "wav",
    "audio/mpeg": "mp3", "audio/mp3": "mp3",
}  # fmt: skip
_ENDINGS: Final = {
    "application/pdf": ".pdf", "application/json": ".json", "text/plain": ".txt", "text/markdown": ".md",
    "text/csv": ".csv", "text/html": ".html",
}  # fmt: skip
"""Not those of the system's tables: equal requests are equal bytes on every machine."""


def audio_of(media: Media) -> dict[str, Any]:
    """Return a sound as both dialects write it.

    Args:
        media: The sound, with its bytes.

    Raises:
        LMRequestInvalid: If it is not WAV or MP3, or has only an address.
    """
    form = _AUDIO.get(media.media_type.partition(";")[0].strip().lower())
    if form is None or media.data is None:
        raise LMRequestInvalid(f"{media!r}: a sound is sent as data=, with the media type 'audio/wav' or 'audio/mpeg'")
    return {"type": "input_audio", "input_audio": {"data": media.base64, "format": form}}


def file_name(media: Media) -> str:
    """Return a file's name, or one that says its type.

    Example:
        >>> from otpy.clients.openai_parts import file_name
        >>> from otpy.lm import Media
        >>> file_name(Media("file", "application/pdf", b"%PDF"))
        'file.pdf'
    """
    return media.name or f"file{_ENDINGS.get(media.media_type.partition(';')[0].strip().lower(), '')}"


MOST_TOKENS: Final = 10**12
"""More tokens than this no answer has; a count above it is none."""


def is_address(url: str) -> bool:
    """Return whether it is an address, and not the provider's own name for a file.

    Example:
        >>> from otpy.clients.openai_parts import is_address
        >>> is_address("https://example.org/a.png"), is_address("file-abc123")
        (True, False)
    """
    return "://" in url or url.startswith("data:")


def whole(text: str) -> str:
    r"""Return a text that UTF-8 can hold: half a surrogate pair, which JSON can say, becomes `?`.

    Example:
        >>> from otpy.clients.openai_parts import whole
        >>> whole("caf\u00e9 \ud83d")
        'café ?'
    """
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def text_in(value: Any) -> str:
    """Return a JSON value that is a text, `whole`.

    Raises:
        TypeError: If it is none.
    """
    if not isinstance(value, str):
        raise TypeError(f"{value!r:.100} is no text")
    return whole(value)


def why(error: BaseException) -> str:
    """Return what a reader's exception says, for a message."""
    return str(error)[:200] if isinstance(error, ValueError) else f"{type(error).__name__}: {str(error)[:200]}"


def usage_of(counts: Any, read: str, written: str) -> Usage:
    """Return the tokens that an answer counts; what is not said, or is no number of tokens, is 0.

    Args:
        counts: The `usage` object, or what stands in its place.
        read: What the dialect calls tokens read.
        written: What it calls tokens written.
    """
    counts = object_in(counts)
    reading, writing = counts.get(f"{read}_tokens_details"), counts.get(f"{written}_tokens_details")
    if reading is None and writing is None:
        return Usage(_number(counts.get(f"{read}_tokens")), _number(counts.get(f"{written}_tokens")), 0, 0, 1)
    reading, writing = object_in(reading), object_in(writing)
    return Usage(
        _number(counts.get(f"{read}_tokens")),
        _number(counts.get(f"{written}_tokens")),
        _number(reading.get("cached_tokens")),
        _number(writing.get("reasoning_tokens")),
        1,
        _number(reading.get("cache_write_tokens")),
    )


def _number(value: Any) -> int:
    if type(value) is float and value.is_integer():
        value = int(value)
    return value if type(value) is int and 0 <= value <= MOST_TOKENS else 0


def logprobs_of(tokens: Iterable[Any] | None) -> tuple[TokenLogprob, ...]:
    """Return the tokens of an answer with their log probabilities.

    Args:
        tokens: Objects with `token`, `logprob` and `top_logprobs`.

    Raises:
        TypeError: If they are something else; `KeyError` and `ValueError` likewise.
    """
    return tuple(
        TokenLogprob(
            whole(token["token"]),
            float(token["logprob"]),
            tuple((whole(top["token"]), float(top["logprob"])) for top in token.get("top_logprobs") or ()),
        )
        for token in tokens or ()
    )


def choice_of(
    parts: Sequence[Part | tuple[str, str, Any]],
    finish: str,
    *,
    refusal: str = "",
    logprobs: tuple[TokenLogprob, ...] = (),
) -> Choice:
    """Put an answer together.

    Args:
        parts: What it is made of, in its order; the use of a tool as its id, the tool's name, and the arguments as they
            came. Arguments that `finish="length"` has cut off are left out.
        finish: Why it ended, in our words. A "stop" with tools to be used is a "tool_use": a tool that had to be used
            ends an OpenAI answer so.
        refusal: The words in which the model refuses; then they are the text, and `finish` is "refusal".
        logprobs: As in `Choice`.

    Raises:
        ValueError: If the arguments of a tool are no JSON object.
    """
    came: list[Part] = []
    for part in parts:
        if not isinstance(part, tuple):
            if part != Text(""):
                came.append(part)
            continue
        name, arguments = part[1], part[2]
        try:
            came.append(ToolUse(part[0] or f"call_{len(came)}", name, _input(arguments)))
        except (ValueError, RecursionError) as error:
            if finish != "length":
                raise ValueError(
                    f"the arguments of the tool {name!r} are no JSON object: {arguments!r:.100}"
                ) from error
    if refusal:
        finish = "refusal"
    elif finish == "stop" and any(isinstance(part, ToolUse) for part in came):
        finish = "tool_use"
    if len(came) == 1 and type(came[0]) is Text and not refusal:  # nearly always
        return Choice(came[0].text, finish, (), logprobs)
    text = "".join(part.text for part in came if isinstance(part, Text))
    if refusal and not text:
        text = refusal
        came.append(Text(text))
    plain = all(isinstance(part, Text) for part in came)
    return Choice(text, finish, () if plain else tuple(came), logprobs)


def _input(arguments: Any) -> FrozenJSON:
    value: Any = arguments
    if isinstance(arguments, str):
        value = json.loads(arguments, parse_constant=_no_json) if arguments.strip() else {}
    if not isinstance(value, dict):
        raise ValueError("not an object")  # noqa: TRY004 - of JSON
    return FrozenJSON(whole(FrozenJSON.of(object_in(value), sort_keys=False)))


def _no_json(constant: str) -> NoReturn:
    raise ValueError(constant)

"""How answers and faults become HTTP: what a fake provider sends, and how it fails to."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from otpy.testing.fake_script import Fault, Say

if TYPE_CHECKING:
    from collections.abc import Iterator

    from otpy.testing.fake_answers import Said
    from otpy.testing.fake_dialects import Dialect

__all__ = ["Reply", "reply_with", "wrong"]

Pairs: TypeAlias = tuple[tuple[str, str], ...]

_JSON: Final = (("content-type", "application/json"),)
_EVENTS: Final = (("content-type", "text/event-stream"), ("cache-control", "no-cache"))
_PAGE: Final = (
    b"<!DOCTYPE html><html><head><title>Welcome</title></head><body><p>Nothing to see here.</p></body></html>"
)
_BROKEN: Final = b'event: message_start\ndata: {"type": "message_start", "id": \n\n'
_HUGE: Final = 100 * 2**20
_BLOCK: Final = 2**16


@dataclass(frozen=True, slots=True)
class Reply:
    """What is sent.

    Args:
        status: HTTP status; 0 if the connection is closed without an answer.
        headers: Without those of the body's length.
        pieces: The body.
        padding: Bytes of `x` behind them, for a body too large to be kept.
        length: What `content-length` says; `None` for a body that is sent in chunks.
        fault: The kind of fault; empty for an answer.
        breaks: Whether the connection is closed behind the pieces, before the body is whole.
        read: Tokens of the request, if the model came to read it.
        written: Tokens of the answer.
        say: Its `delay`, `drip` and `hold`.
        number: Which request it answers.
    """

    status: int
    headers: Pairs = _JSON
    pieces: tuple[bytes, ...] = ()
    padding: int = 0
    length: int | None = 0
    fault: str = ""
    breaks: bool = False
    read: int = 0
    written: int = 0
    say: Say = Say()  # noqa: RUF009 - frozen
    number: int = 0

    @property
    def body(self) -> bytes:
        """All of the body that is sent."""
        return b"".join(self.blocks())

    def blocks(self) -> Iterator[bytes]:
        """Yield the body in the pieces it is sent in."""
        yield from self.pieces
        for start in range(0, self.padding, _BLOCK):
            yield b"x" * min(_BLOCK, self.padding - start)


def wrong(dialect: Dialect, status: int, message: str, wait: float | None = None) -> Reply:
    """Return an error in the words of a dialect."""
    reply = _whole(dialect.error(status, message, wait), Say(), status)
    return replace(reply, headers=(*reply.headers, *dialect.wait_headers(wait)), fault="status")


def reply_with(answer: Say | Fault, dialect: Dialect, said: Said, *, stream: bool) -> Reply:
    """Return what is sent for an answer of the script.

    Args:
        answer: The answer.
        dialect: Whose words it is said in.
        said: The answer, or that which goes wrong.
        stream: Whether it was asked for as a stream.
    """
    if isinstance(answer, Say):
        return _told(dialect, said, stream=stream)
    reply = _broken(answer, dialect, said, stream=stream)
    return replace(reply, fault=answer.kind, say=answer.say)


def _whole(tree: dict[str, Any], say: Say, status: int = 200) -> Reply:
    body = json.dumps(tree, separators=(",", ":"), ensure_ascii=False).encode()
    step = -(-len(body) // 8) if say.drip else len(body)
    pieces = tuple(body[start : start + step] for start in range(0, len(body), step))
    return Reply(status, pieces=pieces, length=len(body), say=say)


def _told(dialect: Dialect, said: Said, *, stream: bool) -> Reply:
    if stream:
        reply = Reply(200, _EVENTS, tuple(dialect.events(said)), length=None, say=said.say)
    else:
        reply = _whole(dialect.whole(said), said.say)
    return replace(reply, read=said.read, written=said.written)


def _broken(  # noqa: PLR0911 - one end for each kind
    fault: Fault, dialect: Dialect, said: Said, *, stream: bool
) -> Reply:
    match fault.kind:
        case "drop":
            return Reply(0, breaks=True)
        case "cut":
            return _cut(fault, _told(dialect, said, stream=stream))
        case "late" if stream:
            told = _told(dialect, said, stream=True)
            place = fault.at if isinstance(fault.at, int) else len(told.pieces) // 2
            failure = dialect.late(dialect.error(fault.status, fault.message, None))
            return replace(told, pieces=(*told.pieces[:place], failure))
        case "garbage":
            told = _told(dialect, said, stream=stream)
            body = _BROKEN if stream else told.body[:-2] + b",}"
            return replace(told, pieces=(body,), length=len(body))
        case "html":
            return Reply(200, (("content-type", "text/html"),), (_PAGE,), length=len(_PAGE))
        case "huge":
            size = fault.at if isinstance(fault.at, int) else _HUGE
            start = (b"data: " if stream else b"") + b'{"padding": "'
            return Reply(200, _EVENTS if stream else _JSON, (start[:size],), max(size - len(start), 0), size)
        case _:
            return wrong(dialect, fault.status, fault.message, fault.retry_after)


def _cut(fault: Fault, told: Reply) -> Reply:
    body = told.body
    if fault.at == "character":
        place = next((at + 1 for at, byte in enumerate(body) if byte >= 0x80), len(body) // 2)
    else:
        place = fault.at if isinstance(fault.at, int) else len(body) // 2
    place = min(place, len(body) - 1)
    pieces: list[bytes] = []
    left = place
    for piece in told.pieces:
        if left > 0:
            pieces.append(piece[:left])
        left -= len(piece)
    length = place if fault.clean and told.length is not None else told.length
    return replace(told, pieces=tuple(pieces), length=length, breaks=not fault.clean)

"""Server-sent events, as bytes that come in pieces: what streamed answers are made of.

Source: the HTML standard, section 9.2.6, "Interpreting an event stream". What only a browser needs (`id`, `retry`) is
left out, and what is never finished is never seen: an event counts when the empty line after it has come.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from otpy.errors import LMResponseInvalid

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["LONGEST_EVENT", "SSE", "ServerSentEvent"]

LONGEST_EVENT: Final = 16 * 2**20
"""Bytes that one event may have."""


@dataclass(frozen=True, slots=True)
class ServerSentEvent:
    """One event.

    Args:
        data: Its data; several lines of it are joined by line ends.
        event: Its type.
    """

    data: str
    event: str = "message"


class SSE:
    r"""Reads server-sent events from bytes that may be cut anywhere, also within a character or a line end.

    Args:
        longest: Bytes that one event may have, or a line of it.

    Example:
        >>> from otpy.clients.sse import SSE
        >>> events = SSE()
        >>> list(events.feed(b"event: ping\ndata: caf\xc3"))
        []
        >>> list(events.feed(b"\xa9\n\n: a comment\n"))
        [ServerSentEvent(data='café', event='ping')]
    """

    def __init__(self, *, longest: int = LONGEST_EVENT) -> None:
        """Begin with nothing."""
        self._longest = longest
        self._size = 0  # of the data of the event that is being read
        self._rest: list[bytes] = []  # of a line that is not whole yet
        self._waiting = 0  # bytes of it
        self._after_cr = self._begun = False
        self._event = ""
        self._data: list[bytes] = []

    def feed(self, piece: bytes) -> Iterator[ServerSentEvent]:
        """Take some bytes and yield the events that they complete.

        Args:
            piece: The bytes; what is no UTF-8 in them becomes U+FFFD.

        Raises:
            LMResponseInvalid: If an event is larger than allowed.
        """
        if self._after_cr and piece:
            self._after_cr = False
            piece = piece.removeprefix(b"\n")
        if b"\n" not in piece and b"\r" not in piece:
            self._hold(piece)
            return
        lines = b"".join((*self._rest, piece)).splitlines()
        self._rest, self._waiting = [], 0
        self._after_cr = piece.endswith(b"\r")
        rest = b"" if piece[-1] in b"\r\n" else lines.pop()
        for line in lines:
            if line or not self._begun:
                self._take(line)
                continue
            if self._data:
                data = b"\n".join(self._data).decode("utf-8", "replace")
                yield ServerSentEvent(data, self._event or "message")
            self._event, self._data, self._size = "", [], 0
        self._hold(rest)

    def _hold(self, piece: bytes) -> None:
        if piece:
            self._rest.append(piece)
            self._waiting += len(piece)
            self._check()

    def _take(self, line: bytes) -> None:
        if not self._begun:
            self._begun = True
            line = line.removeprefix(b"\xef\xbb\xbf")
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            self._data.append(value)
            self._size += len(value) + 1
            self._check()
        elif name == b"event":
            self._event = value.decode("utf-8", "replace")

    def _check(self) -> None:
        if self._size + self._waiting > self._longest:
            start = b"".join((*self._data, *self._rest))[:200].decode("utf-8", "replace")
            raise LMResponseInvalid(
                f"an event of the stream has more than {self._longest} bytes, as no model's has: is base_url right?"
                f" It begins with {start!r}",
                status=200,
                body=start,
            )

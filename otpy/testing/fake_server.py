"""The HTTP/1.1 server under a fake provider: sends what it is told to, also what no good server would."""

from __future__ import annotations

import asyncio
import http
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol, cast

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping

    from otpy.testing.fake_replies import Reply

__all__ = ["Departure", "FakeServer", "Provider"]

LAST_TURNS: Final = 10
"""Turns of the loop in which what was being accepted when the server closed becomes a connection."""
BACKLOG: Final = 4096
"""Connections that may wait to be accepted."""
_BLOCK: Final = 2**16


@dataclass(frozen=True, slots=True)
class Departure:
    """A client that left before its answer was whole.

    Args:
        number: Of its request, from 1.
        at: When it was noticed, in seconds of `time.monotonic()`.
        waited: Seconds since the request had come.
        sent: Bytes of the body that were on their way by then.
    """

    number: int
    at: float
    waited: float
    sent: int


class Provider(Protocol):
    """What a server asks; every request is begun, has perhaps a head, and is ended."""

    def connected(self) -> None:
        """Hear of a new connection."""
        ...

    def begin(self, target: str, headers: Mapping[str, str], body: bytes) -> Reply:
        """Return what to send."""
        ...

    def head(self, reply: Reply) -> None:
        """Hear that it goes out now."""
        ...

    def end(self, reply: Reply, departure: Departure | None, *, sent: bool) -> None:
        """Hear whether it was sent, and who left meanwhile."""
        ...


class FakeServer:
    """A server on 127.0.0.1, in a thread of its own.

    Args:
        provider: Says what is answered.
        port: The port; 0 for a free one, which `port` names then.
    """

    def __init__(self, provider: Provider, port: int = 0) -> None:
        """Prepare."""
        self.port = port
        self._provider = provider
        self._ready = threading.Event()
        self._failure: BaseException | None = None

    def start(self) -> None:
        """Listen.

        Raises:
            OSError: If the port is taken.
        """
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="fake-provider", daemon=True)
        self._thread.start()
        self._ready.wait()
        if self._failure is not None:
            raise self._failure

    def stop(self) -> None:
        """Stop, and drop what is connected."""
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    def release(self) -> None:
        """Answer what is held, and hold nothing any more."""
        self._loop.call_soon_threadsafe(self._released.set)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._serve())
        except OSError as error:
            self._failure = error
        finally:
            self._ready.set()
            self._loop.close()

    async def _serve(self) -> None:
        self._stop, self._released = asyncio.Event(), asyncio.Event()
        self._conversations: set[asyncio.Task[None]] = set()
        self._open: set[asyncio.Transport] = set()
        server = await self._loop.create_server(self._connection, "127.0.0.1", self.port, backlog=BACKLOG)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stop.wait()
        server.close()
        for _ in range(LAST_TURNS):  # for conversations, and connections, that have not even begun
            for transport in list(self._open):
                transport.abort()
            await asyncio.sleep(0)
        while self._conversations:
            await asyncio.wait(self._conversations)

    def _connection(self) -> _Connection:
        gone = self._loop.create_future()

        async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await self._converse(reader, writer, gone)

        return _Connection(converse, gone, self._open, self._loop)

    async def _converse(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, gone: asyncio.Future[None]
    ) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._conversations.add(task)
        self._provider.connected()
        try:
            while not gone.done():
                target, headers, body = await _request(reader)
                if (
                    not await self._exchange(target, headers, body, writer, gone)
                    or headers.get("connection") == "close"
                ):
                    break
        except (OSError, EOFError, ValueError, asyncio.LimitOverrunError):
            pass  # whoever left, or spoke no HTTP
        finally:
            self._conversations.discard(task)
            writer.close()

    async def _exchange(
        self,
        target: str,
        headers: Mapping[str, str],
        body: bytes,
        writer: asyncio.StreamWriter,
        gone: asyncio.Future[None],
    ) -> bool:
        """Answer one request; return whether the connection goes on."""
        started, passed, ended = time.monotonic(), 0, False
        reply = self._provider.begin(target, headers, body)
        try:
            if reply.say.hold:
                await self._held(gone)
            await _pause(reply.say.delay, gone)
            self._provider.head(reply)
            for block, size, last in _framed(reply):
                await _pause(reply.say.drip if passed else 0, gone)
                if last:  # whoever reads it finds it counted
                    ended = True
                    self._provider.end(reply, None, sent=True)
                writer.write(block)
                passed += size
                await writer.drain()
        except ConnectionError:
            return False
        finally:
            if not ended:
                now = time.monotonic()
                left = Departure(reply.number, now, now - started, passed) if not self._stop.is_set() else None
                self._provider.end(reply, left, sent=False)
        return not reply.breaks

    async def _held(self, gone: asyncio.Future[None]) -> None:
        released = asyncio.ensure_future(self._released.wait())
        try:
            await asyncio.wait((released, gone), return_when=asyncio.FIRST_COMPLETED)
        finally:
            released.cancel()


class _Connection(asyncio.StreamReaderProtocol):
    """Streams that also tell when the other side has gone, while nobody reads."""

    def __init__(
        self,
        converse: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
        gone: asyncio.Future[None],
        open_: set[asyncio.Transport],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        super().__init__(asyncio.StreamReader(loop=loop), converse, loop)
        self._gone, self._open = gone, open_

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._open.add(self._transport)
        super().connection_made(transport)

    def eof_received(self) -> bool | None:
        self._leave()
        return super().eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self._leave()
        self._open.discard(self._transport)
        super().connection_lost(exc)

    def _leave(self) -> None:
        if not self._gone.done():
            self._gone.set_result(None)


async def _pause(seconds: float, gone: asyncio.Future[None]) -> None:
    """Wait, and notice if the client leaves meanwhile."""
    if seconds > 0:
        await asyncio.wait((gone,), timeout=seconds)
    if gone.done():
        raise ConnectionResetError("the client has left")


async def _request(reader: asyncio.StreamReader) -> tuple[str, dict[str, str], bytes]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    _, target, _ = head[0].split(" ")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:]) if name}
    if headers.get("transfer-encoding", "").lower() != "chunked":
        return target, headers, await reader.readexactly(int(headers.get("content-length", "0")))
    chunks: list[bytes] = []
    while size := int((await reader.readuntil(b"\r\n")).partition(b";")[0], 16):
        chunks.append(await reader.readexactly(size))
        await reader.readexactly(2)
    while await reader.readuntil(b"\r\n") != b"\r\n":
        pass
    return target, headers, b"".join(chunks)


def _head(reply: Reply) -> bytes:
    reason = http.HTTPStatus(reply.status).phrase if reply.status in set(http.HTTPStatus) else "Unnamed"
    length = ("transfer-encoding", "chunked") if reply.length is None else ("content-length", str(reply.length))
    lines = (f"{name}: {value}" for name, value in (*reply.headers, length))
    return "\r\n".join((f"HTTP/1.1 {reply.status} {reason}", *lines, "", "")).encode("latin-1")


def _framed(reply: Reply) -> Iterator[tuple[bytes, int, bool]]:
    """Yield what is written at once, how many bytes of the body are in it, and whether it is the last; at least one."""
    chunked = reply.length is None
    waiting = [_head(reply)] if reply.status else []
    size = 0
    for block in reply.blocks():
        if size and (reply.say.drip or size >= _BLOCK):
            yield b"".join(waiting), size, False
            waiting, size = [], 0
        waiting.append(b"%x\r\n%b\r\n" % (len(block), block) if chunked else block)
        size += len(block)
    if chunked and not reply.breaks:
        waiting.append(b"0\r\n\r\n")
    yield b"".join(waiting), size, True

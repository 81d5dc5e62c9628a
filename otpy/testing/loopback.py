"""A language-model server for tests: OpenAI's dialect on a free loopback port, answering by script.

It is a real server in a thread of its own, so that what is tested is the real client, over real sockets.
"""

from __future__ import annotations

import asyncio
import json
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Self

__all__ = ["LoopbackLM", "Scripted"]


@dataclass(frozen=True, slots=True)
class Scripted:
    """One scripted answer.

    Args:
        content: What the model says; anything but a text is sent as JSON.
        status: HTTP status.
        headers: Further response headers.
        body: The whole body instead of a completion, as it stands.
        drop: Close the connection without an answer.
        hold: Answer only when the server is told to `release`.
        delay: Seconds before the answer.
    """

    content: Any = "ok"
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict[str, str])
    body: bytes | None = None
    drop: bool = False
    hold: bool = False
    delay: float = 0.0


class LoopbackLM:
    """A server that answers what `script(request)` says.

    Args:
        script: Gets the decoded request body, returns a `Scripted` or just the content.

    Example:
        >>> import otpy
        >>> from otpy.testing import LoopbackLM
        >>> with LoopbackLM(lambda request: {"answer": "4"}) as server:
        ...     with otpy.start(lm="openai/scripted", base_url=server.url, api_key="none", cache=False):
        ...         print(otpy.Predict("question -> answer")(question="2 + 2?").answer)
        4
    """

    def __init__(self, script: Callable[[dict[str, Any]], Any] = lambda _: "ok", *, port: int = 0) -> None:
        """Prepare; entering starts it."""
        self.script = script
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.in_flight = self.peak_in_flight = 0
        self.disconnected = 0
        self._port = port
        self._arrived = threading.Condition()
        self._ready = threading.Event()

    def __enter__(self) -> Self:
        """Start listening."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="loopback-lm", daemon=True)
        self._thread.start()
        self._ready.wait(10)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop, and drop what is connected."""
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    @property
    def url(self) -> str:
        """The base URL."""
        return f"http://127.0.0.1:{self.port}/v1"

    def wait_for(self, count: int, seconds: float = 10.0) -> None:
        """Return when so many requests have arrived.

        Raises:
            TimeoutError: If they do not within the time.
        """
        with self._arrived:
            if not self._arrived.wait_for(lambda: len(self.requests) >= count, seconds):
                raise TimeoutError(f"{len(self.requests)} of {count} requests arrived within {seconds:g} s")

    def wait_for_disconnect(self, count: int = 1, seconds: float = 10.0) -> None:
        """Return when so many clients have left before their answer.

        Raises:
            TimeoutError: If they do not within the time.
        """
        with self._arrived:
            if not self._arrived.wait_for(lambda: self.disconnected >= count, seconds):
                raise TimeoutError(f"{self.disconnected} of {count} clients disconnected within {seconds:g} s")

    def release(self) -> None:
        """Answer what is held, and hold nothing any more."""
        self._loop.call_soon_threadsafe(self._released.set)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._serve())
        finally:
            self._loop.close()

    async def _serve(self) -> None:
        self._stop, self._released = asyncio.Event(), asyncio.Event()
        self._connections: set[asyncio.Task[None]] = set()
        server = await asyncio.start_server(self._connected, "127.0.0.1", self._port, backlog=4096)
        self.port: int = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stop.wait()
        server.close()
        for task in list(self._connections):
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            while await self._exchange(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._connections.discard(task)
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:]) if name}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        request: dict[str, Any] = json.loads(body) if body else {}
        with self._arrived:
            self.requests.append(request)
            self.headers.append(headers)
            self.in_flight += 1
            self.peak_in_flight = max(self.peak_in_flight, self.in_flight)
            self._arrived.notify_all()
        try:
            try:
                answer = self.script(request)
            except Exception as error:  # noqa: BLE001 - a script's mistake is the test's news, not the server's end
                answer = Scripted(f"the script raised {error!r}", status=500)
            scripted = answer if isinstance(answer, Scripted) else Scripted(answer)
            if scripted.drop:
                return False
            waits: list[Any] = [self._released.wait()] if scripted.hold else []
            if scripted.delay:
                waits.append(asyncio.sleep(scripted.delay))
            if waits and not await self._still_there(reader, waits):
                return False
            writer.write(_response(scripted, request))
            await writer.drain()
        finally:
            self.in_flight -= 1
        return True

    async def _still_there(self, reader: asyncio.StreamReader, waits: list[Any]) -> bool:
        """Wait, and notice if the client leaves meanwhile."""
        gone = asyncio.ensure_future(reader.read(1))
        due = asyncio.ensure_future(asyncio.gather(*waits))
        await asyncio.wait((gone, due), return_when=asyncio.FIRST_COMPLETED)
        left = not due.done()
        for task in (gone, due):
            task.cancel()
        await asyncio.gather(gone, due, return_exceptions=True)
        if left:
            with self._arrived:
                self.disconnected += 1
                self._arrived.notify_all()
        return not left


def _response(scripted: Scripted, request: dict[str, Any]) -> bytes:
    content = scripted.content if isinstance(scripted.content, str) else json.dumps(scripted.content)
    if scripted.body is not None:
        body = scripted.body
    elif scripted.status != 200:
        body = json.dumps({"error": {"message": content, "type": "scripted", "code": None}}).encode()
    else:
        words = sum(len(str(message.get("content", "")).split()) for message in request.get("messages", ()))
        body = json.dumps(
            {
                "id": "scripted",
                "object": "chat.completion",
                "model": request.get("model", "scripted"),
                "choices": [
                    {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": content}}
                ],
                "usage": {"prompt_tokens": words, "completion_tokens": len(content.split()), "total_tokens": 0},
            }
        ).encode()
    headers = {"content-type": "application/json", **scripted.headers, "content-length": str(len(body))}
    lines = [f"HTTP/1.1 {scripted.status} scripted", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body

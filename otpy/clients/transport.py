"""The one seam to the network: httpx's transport interface, called directly, with pyqwest beneath.

The only room that knows httpx and pyqwest, and it imports both late. Any `httpx.AsyncBaseTransport` fits, so a test
can put `httpx.MockTransport` in its place. Redirects are not followed: a key goes nowhere but where it was sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from otpy.errors import LMConnectionError, LMResponseInvalid, LMTimeout

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Generator, Mapping

    import httpx
    from pyqwest import HTTPTransport

__all__ = ["Transport", "open_transport"]

CONNECT_SECONDS: Final = 10.0
GIL_SECONDS: Final = 0.01
"""A moment for threads that are not ours; see `aclose`."""
IDLE_CONNECTIONS: Final = 10_000
"""Connections kept for later, to one server."""
LONGEST_ANSWER: Final = 64 * 2**20
"""Bytes; a longer answer is refused while it is read."""


class Transport:
    """A POST that takes bytes and returns bytes, or raises one of our errors.

    Args:
        inner: What carries it.
        pool: The connections beneath, to be closed with it.
        longest_answer: Bytes that an answer may have.

    Example:
        >>> import asyncio, httpx
        >>> from otpy.clients.transport import Transport
        >>> echo = Transport(httpx.MockTransport(lambda request: httpx.Response(200, content=request.content)))
        >>> asyncio.run(echo.post("http://example.invalid/", (), b"hello", 5.0))[0::2]
        (200, b'hello')
    """

    def __init__(
        self,
        inner: httpx.AsyncBaseTransport,
        pool: HTTPTransport | None = None,
        *,
        longest_answer: int = LONGEST_ANSWER,
    ) -> None:
        """Wrap a transport."""
        self._pool = pool
        import httpx  # noqa: PLC0415 - 60 ms, and only where a request is sent

        self._httpx = httpx
        self._inner = inner
        self._longest = longest_answer
        self._urls: dict[str, httpx.URL] = {}
        self._closed = False

    async def post(
        self,
        url: str,
        headers: tuple[tuple[str, str], ...],
        body: bytes,
        timeout: float,  # noqa: ASYNC109 - a deadline
    ) -> tuple[int, Mapping[str, str], bytes]:
        """Send a request and read the whole answer.

        Args:
            url: Where.
            headers: Names and values.
            body: What.
            timeout: Seconds for all of it.

        Returns:
            Status, headers with lower-case names, body.

        Raises:
            LMConnectionError: If there is no connection, or it breaks.
            LMTimeout: If it takes too long.
            LMResponseInvalid: If the answer is larger than allowed, or its encoding broken.
        """
        with self._in_our_words(url, timeout):
            async with asyncio.timeout(timeout), self._answered(url, headers, body) as response:
                answer = await self._read(response)
        return response.status_code, _plain(response), answer

    @contextlib.asynccontextmanager
    async def stream(
        self,
        url: str,
        headers: tuple[tuple[str, str], ...],
        body: bytes,
        timeout: float,  # noqa: ASYNC109 - a deadline
    ) -> AsyncGenerator[tuple[int, Mapping[str, str], AsyncIterator[bytes]]]:
        """Send a request and have the answer in the pieces in which it comes.

        Args:
            url: Where.
            headers: Names and values.
            body: What.
            timeout: Seconds until the first piece, and from each to the next.

        Returns:
            Status, headers with lower-case names, and the pieces; leaving the block early closes the connection.

        Raises:
            LMError: As `post`.
        """
        with self._in_our_words(url, timeout):
            async with asyncio.timeout(timeout) as patience, self._answered(url, headers, body) as response:
                yield response.status_code, _plain(response), self._pieces(response, patience, timeout)

    async def _pieces(
        self,
        response: httpx.Response,
        patience: asyncio.Timeout,
        timeout: float,  # noqa: ASYNC109 - of each piece
    ) -> AsyncGenerator[bytes]:
        size, loop = 0, asyncio.get_running_loop()
        stream: Any = response.stream
        async for piece in stream:
            size += len(piece)
            if size > self._longest:
                raise self._too_long(response)
            patience.reschedule(None)  # whoever reads may take as long as it likes
            yield piece
            patience.reschedule(loop.time() + timeout)

    @contextlib.asynccontextmanager
    async def _answered(
        self, url: str, headers: tuple[tuple[str, str], ...], body: bytes
    ) -> AsyncGenerator[httpx.Response]:
        httpx = self._httpx
        address = self._urls.get(url)
        if address is None:
            address = self._urls[url] = httpx.URL(url)
        request = httpx.Request("POST", address, headers=headers, content=body)
        try:
            response = await self._inner.handle_async_request(request)
        except ValueError as error:  # e.g. headers that are no text
            raise LMResponseInvalid(f"the headers of {_origin(url)} cannot be read: {_why(error)}") from error
        try:
            yield response
        finally:
            await response.aclose()

    @contextlib.contextmanager
    def _in_our_words(self, url: str, timeout: float) -> Generator[None]:
        httpx = self._httpx
        try:
            yield
        except TimeoutError:
            raise LMTimeout(f"no answer from {_origin(url)} within {timeout:g} s") from None
        except httpx.TimeoutException as error:
            raise LMTimeout(f"no answer from {_origin(url)}: {_why(error)}") from error
        except httpx.DecodingError as error:
            raise LMResponseInvalid(f"the answer of {_origin(url)} cannot be decoded: {_why(error)}") from error
        except (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError) as error:
            raise LMConnectionError(f"the answer of {_origin(url)} broke off, or is no HTTP: {_why(error)}") from error
        except (httpx.TransportError, httpx.InvalidURL) as error:
            raise LMConnectionError(
                f"no connection to {_origin(url)}: {_why(error)}; is the server running, and base_url right?"
            ) from error

    def _too_long(self, response: httpx.Response) -> LMResponseInvalid:
        return LMResponseInvalid(f"the answer is longer than {self._longest} bytes", status=response.status_code)

    async def _read(self, response: httpx.Response) -> bytes:
        parts: list[bytes] = []
        size = 0
        stream: Any = response.stream
        async for part in stream:
            size += len(part)
            if size > self._longest:
                raise self._too_long(response)
            parts.append(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def aclose(self) -> None:
        """Close all connections."""
        if not self._closed:
            self._closed = True
            await self._inner.aclose()
            if self._pool is not None:
                await self._pool.aclose()
                # its threads still have to drop what failed last, for which they need the GIL: if the interpreter ends
                # meanwhile, it aborts (pyqwest 0.12 as well as pyreqwest 0.15, Python 3.11: exit status 134)
                await asyncio.sleep(GIL_SECONDS)


def open_transport(base_url: str) -> Transport:
    """Open a transport to one server, with as many connections as there are requests in flight.

    Args:
        base_url: The server; a proxy from the environment is used unless it is on this machine.
    """
    from pyqwest import HTTPTransport, Proxy  # noqa: PLC0415 - only where a request is sent
    from pyqwest.httpx import AsyncPyqwestTransport  # noqa: PLC0415 - the same

    nobody = None
    if urlsplit(base_url).hostname in {"127.0.0.1", "localhost", "::1"}:  # this keeps those of the environment out
        nobody = Proxy("http://127.0.0.1:9", no_proxy="localhost,127.0.0.0/8,::1")
    pool = HTTPTransport(
        tls_include_system_certs=True,
        connect_timeout=CONNECT_SECONDS,
        pool_max_idle_per_host=IDLE_CONNECTIONS,
        follow_redirects=False,
        enable_otel=False,
        use_system_dns=True,
        proxy=nobody,
    )
    return Transport(AsyncPyqwestTransport(pool), pool)


def _plain(response: httpx.Response) -> dict[str, str]:
    """The headers as a dict; httpx's own takes a microsecond and more to look one up, and limits are in a dozen."""
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in response.headers.raw}


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname}" + (f":{parts.port}" if parts.port else "")


def _why(error: BaseException) -> str:
    """The words of an error, without the address that may hold a secret."""
    return re.sub(r" for url \([^)]*\)", "", str(error)) or type(error).__name__

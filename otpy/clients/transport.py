"""The one seam to the network: bytes there and bytes back, over a `Wire` or any transport of httpx.

Redirects are not followed: a key goes nowhere but where it was sent. What goes wrong is said in our errors, with what
to look at next.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urljoin, urlsplit

from otpy.clients.wire import Wire, is_here
from otpy.errors import LMConnectionError, LMError, LMResponseInvalid, LMStatusError, LMTimeout

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Mapping

    import httpx

    from otpy.clients.wire import Answer, Method

__all__ = ["Transport", "never_sent", "open_transport"]

LONGEST_ANSWER: Final = 64 * 2**20
"""Bytes; a longer answer is refused while it is read."""
_NEXT: Final = (
    ("proxy authorization required", "the proxy wants a user and a password: http://user:password@host:port"),
    ("tunnel error", "the proxy does not let it through; name the host in NO_PROXY if it needs none"),
    ("certificate", "is base_url right? An authority of your own is trusted if SSL_CERT_FILE names its certificate"),
    ("dns error", "nobody knows this name: is base_url right, and the network up?"),
    ("no TLS", "what answers there speaks no TLS: should base_url begin with http://?"),
)
"""What to look at, by what the libraries beneath say; they have no classes for it."""
_DIGITS: Final = 18
"""As many as no length has."""
_RUNNING: Final = "is the server running, and base_url right?"
_PATIENCE: Final = "raise timeout if it may take longer; else see whether the server is well, and base_url right"


class Transport:
    """A POST (or GET) that takes bytes and returns bytes, or raises one of our errors.

    Args:
        inner: What carries it: a `Wire`, or an `httpx.AsyncBaseTransport`, such as a `MockTransport`.
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
        inner: Wire | httpx.AsyncBaseTransport,
        *,
        longest_answer: int = LONGEST_ANSWER,
    ) -> None:
        """Wrap a transport."""
        import httpx  # noqa: PLC0415 - 60 ms, and only where a request is sent

        self._httpx = httpx
        self._wire = inner if isinstance(inner, Wire) else _Httpx(inner)
        kinds: tuple[type[Exception], ...] = (TimeoutError, httpx.HTTPError, httpx.InvalidURL, httpx.StreamError)
        self._errors = kinds
        self._longest = longest_answer
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
            LMStatusError: If the server sends us elsewhere, or a proxy wants to know who we are.
        """
        return await self._asked("POST", url, headers, body, timeout)

    async def get(
        self,
        url: str,
        headers: tuple[tuple[str, str], ...],
        timeout: float,  # noqa: ASYNC109 - a deadline
    ) -> tuple[int, Mapping[str, str], bytes]:
        """Ask for what is at an address, as providers tell how a job is; arguments and errors as for `post`."""
        return await self._asked("GET", url, headers, b"", timeout)

    async def _asked(
        self,
        method: Method,
        url: str,
        headers: tuple[tuple[str, str], ...],
        body: bytes,
        timeout: float,  # noqa: ASYNC109 - a deadline
    ) -> tuple[int, Mapping[str, str], bytes]:
        try:
            async with asyncio.timeout(timeout):
                answer = await self._wire.send(url, headers, body, method)
                said = answer.headers
                length = self._check(url, answer.status, said)
                if length is not None and "content-encoding" not in said:
                    return answer.status, said, await answer.whole()
                parts = [part async for part in self._bounded(answer)]
        except self._errors as error:
            raise self._in_our_words(error, url, timeout) from _cause(error)
        return answer.status, said, parts[0] if len(parts) == 1 else b"".join(parts)

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
        try:
            async with asyncio.timeout(timeout) as patience:
                answer = await self._wire.send(url, headers, body)
                self._check(url, answer.status, answer.headers)
                async with contextlib.aclosing(self._pieces(answer, patience, timeout)) as pieces:
                    yield answer.status, answer.headers, pieces
        except self._errors as error:
            raise self._in_our_words(error, url, timeout) from _cause(error)

    async def _pieces(
        self,
        answer: Answer | _HttpxAnswer,
        patience: asyncio.Timeout,
        timeout: float,  # noqa: ASYNC109 - of each piece
    ) -> AsyncGenerator[bytes]:
        loop = asyncio.get_running_loop()
        async with contextlib.aclosing(self._bounded(answer)) as pieces:
            async for piece in pieces:
                patience.reschedule(None)  # whoever reads may take as long as it likes
                yield piece
                patience.reschedule(loop.time() + timeout)

    async def _bounded(self, answer: Answer | _HttpxAnswer) -> AsyncGenerator[bytes]:
        size = 0
        async with contextlib.aclosing(answer.pieces()) as pieces:
            async for piece in pieces:
                size += len(piece)
                if size > self._longest:
                    raise self._too_long(answer.status)
                yield piece

    def _check(self, url: str, status: int, said: Mapping[str, str]) -> int | None:
        """Return the length of the body, if it is said; raise if it is seen before it that there is no answer in it."""
        told = said.get("content-length", "")
        length = int(told[:_DIGITS]) if told.isdecimal() else None
        if length is not None and length > self._longest:
            raise self._too_long(status)
        if 300 <= status < 400:
            there = _shown(url, said.get("location"))
            raise LMStatusError(
                f"{_origin(url)} answers {status} and sends us to {there}; that is not followed, so that the key goes"
                " nowhere else: set base_url to where the API is",
                status=status,
            )
        if status == 407:
            raise LMStatusError(f"{_NEXT[0][1]} (407 for {_origin(url)}){_proxy_of(url)}", status=status)
        return length

    def _in_our_words(self, error: Exception, url: str, timeout: float) -> LMError:
        httpx, where = self._httpx, _origin(url)
        if isinstance(error, TimeoutError):
            return LMTimeout(f"no answer from {where} within {timeout:g} s; {_PATIENCE}")
        why, proxy = _why(error), _proxy_of(url)
        if isinstance(error, httpx.TimeoutException):
            return LMTimeout(f"no answer from {where}: {why}{proxy}; {_PATIENCE}")
        if isinstance(error, httpx.DecodingError):
            return LMResponseInvalid(f"the answer of {where} cannot be decoded: {why}; is base_url right?")
        if isinstance(error, (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError)):
            return LMConnectionError(
                f"the answer of {where} broke off, or is no HTTP: {why}{proxy}; if it stays so, is base_url right, and"
                " https:// or http://?"
            )
        what = next((advice for words, advice in _NEXT if words in why), _RUNNING)
        if _NEXT[0][0] in why:
            return LMStatusError(f"{what} (407 for {where}){proxy}", status=407)
        return LMConnectionError(f"no connection to {where}: {why}{proxy}; {what}")

    def _too_long(self, status: int) -> LMResponseInvalid:
        return LMResponseInvalid(
            f"the answer is longer than {self._longest} bytes, as no model's is: is base_url right?", status=status
        )

    async def aclose(self) -> None:
        """Close all connections."""
        if not self._closed:
            self._closed = True
            await self._wire.aclose()


class _Httpx:
    """A transport of httpx, as a wire."""

    def __init__(self, inner: httpx.AsyncBaseTransport) -> None:
        import httpx  # noqa: PLC0415 - late, as above

        self._httpx, self._inner = httpx, inner

    async def send(
        self, url: str, headers: tuple[tuple[str, str], ...], body: bytes, method: Method = "POST"
    ) -> _HttpxAnswer:
        request = self._httpx.Request(method, url, headers=headers, content=body)
        try:
            return _HttpxAnswer(await self._inner.handle_async_request(request))
        except ValueError as error:  # e.g. headers that are no text
            raise self._httpx.RemoteProtocolError(str(error)) from error

    async def aclose(self) -> None:
        await self._inner.aclose()


class _HttpxAnswer:
    """Its answer."""

    def __init__(self, response: httpx.Response) -> None:
        self._response, self.status = response, response.status_code
        self.headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in response.headers.raw}

    async def whole(self) -> bytes:
        return b"".join([piece async for piece in self.pieces()])

    async def pieces(self) -> AsyncGenerator[bytes]:
        stream: Any = self._response.stream
        try:
            async for piece in stream:
                yield piece
        finally:
            await self._response.aclose()


def open_transport(base_url: str) -> Transport:
    """Open a transport to one server, with as many connections as there are requests in flight.

    Args:
        base_url: The server; a proxy from the environment is used unless it is on this machine.
    """
    return Transport(Wire(base_url))


def never_sent(error: LMError) -> bool:
    """Return whether an error of a transport says that the request did not even leave: then it took nothing.

    Args:
        error: What `post` or `stream` raised.

    Example:
        >>> import asyncio
        >>> from otpy.clients.transport import never_sent, open_transport
        >>> from otpy.errors import LMConnectionError
        >>> async def ask():
        ...     transport = open_transport("http://127.0.0.1:9")
        ...     try:
        ...         await transport.post("http://127.0.0.1:9/v1", (), b"", 5.0)
        ...     except LMConnectionError as error:  # nobody listens there
        ...         return never_sent(error)
        ...     finally:
        ...         await transport.aclose()
        >>> asyncio.run(ask())
        True
    """
    return type(error.__cause__).__name__ in {"ConnectError", "ConnectTimeout", "LocalProtocolError", "InvalidURL"}


def _proxy_of(url: str) -> str:
    """Say which variable of the environment names a proxy for an address, if one does."""
    from urllib import request  # noqa: PLC0415 - 20 ms, and only where something went wrong

    parts = urlsplit(url)
    proxies = request.getproxies_environment()
    name = next((name for name in (parts.scheme, "all") if name in proxies), None)
    around: Any = request  # typeshed does not know what is in it on every system
    if name is None or is_here(parts.hostname) or around.proxy_bypass_environment(parts.netloc, proxies):
        return ""
    return f" (through the proxy that {name.upper()}_PROXY names)"


def _shown(url: str, location: str | None) -> str:
    """Where a redirect leads, without what may be secret in it: user, password, query."""
    try:
        there = urljoin(url, location or "")
        return "nowhere" if location is None else (_origin(there) + urlsplit(there).path)[:200]
    except ValueError:
        return "an address that is none"


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname}" + (f":{parts.port}" if parts.port else "")


def _why(error: BaseException) -> str:
    """The words of an error, without the address that may hold a secret."""
    return re.sub(r" for url \([^)]*\)", "", str(error)) or type(error).__name__


def _cause(error: Exception) -> Exception | None:
    return None if isinstance(error, TimeoutError) else error

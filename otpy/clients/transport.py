"""The one seam to the network: httpx's transport interface, called directly, with pyreqwest beneath.

The only room that knows httpx and pyreqwest, and it imports both late. Any `httpx.AsyncBaseTransport` fits, so a test
can put `httpx.MockTransport` in its place. Redirects are not followed: a key goes nowhere but where it was sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import importlib
import threading
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from otpy.errors import LMConnectionError, LMResponseInvalid, LMTimeout

if TYPE_CHECKING:
    from collections.abc import Mapping

    import httpx

__all__ = ["Transport", "open_transport"]

CONNECT_SECONDS: Final = 10.0
GIL_SECONDS: Final = 0.01
LONGEST_ANSWER: Final = 64 * 2**20
"""Bytes; a longer answer is refused while it is read."""


class Transport:
    """A POST that takes bytes and returns bytes, or raises one of our errors.

    Args:
        inner: What carries it.
        longest_answer: Bytes that an answer may have.

    Example:
        >>> import asyncio, httpx
        >>> from otpy.clients.transport import Transport
        >>> echo = Transport(httpx.MockTransport(lambda request: httpx.Response(200, content=request.content)))
        >>> asyncio.run(echo.post("http://example.invalid/", (), b"hello", 5.0))[0::2]
        (200, b'hello')
    """

    def __init__(self, inner: httpx.AsyncBaseTransport, *, longest_answer: int = LONGEST_ANSWER) -> None:
        """Wrap a transport."""
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
        httpx = self._httpx
        try:
            address = self._urls.get(url)
            if address is None:
                address = self._urls[url] = httpx.URL(url)
            # pyreqwest lets a cancelled request run on in its own runtime; with the same deadline it ends there too
            extensions = {"timeout": {"read": timeout}}
            request = httpx.Request("POST", address, headers=headers, content=body, extensions=extensions)
            async with asyncio.timeout(timeout):
                response = await self._inner.handle_async_request(request)
                try:
                    answer = await self._read(response)
                finally:
                    await response.aclose()
        except TimeoutError:
            raise LMTimeout(f"no answer from {_origin(url)} within {timeout:g} s") from None
        except httpx.TimeoutException as error:
            raise LMTimeout(f"no answer from {_origin(url)}: {_why(error)}") from error
        except httpx.DecodingError as error:
            raise LMResponseInvalid(f"the answer of {_origin(url)} cannot be decoded: {_why(error)}") from error
        except (httpx.TransportError, httpx.InvalidURL) as error:
            raise LMConnectionError(
                f"no connection to {_origin(url)}: {_why(error)}; is the server running, and base_url right?"
            ) from error
        except ValueError as error:  # pyreqwest reads headers as ASCII
            raise LMResponseInvalid(f"the headers of {_origin(url)} cannot be read: {_why(error)}") from error
        return response.status_code, response.headers, answer

    async def _read(self, response: httpx.Response) -> bytes:
        parts: list[bytes] = []
        size = 0
        stream: Any = response.stream
        async for part in stream:
            size += len(part)
            if size > self._longest:
                raise LMResponseInvalid(f"the answer is longer than {self._longest} bytes", status=response.status_code)
            parts.append(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def aclose(self) -> None:
        """Close all connections."""
        if not self._closed:
            self._closed = True
            await self._inner.aclose()
            # pyreqwest's thread still has to drop what failed last, for which it needs the GIL: if the interpreter ends
            # meanwhile, it aborts (Python 3.11, exit status 134)
            await asyncio.sleep(GIL_SECONDS)


def open_transport(base_url: str) -> Transport:
    """Open a transport to one server, with as many connections as there are requests in flight.

    Args:
        base_url: The server; a proxy from the environment is used unless it is on this machine.
    """
    _load_library()
    from pyreqwest.client import ClientBuilder  # noqa: PLC0415 - only where a request is sent
    from pyreqwest.compatibility.httpx import HttpxTransport  # noqa: PLC0415 - the same

    builder = ClientBuilder().connect_timeout(timedelta(seconds=CONNECT_SECONDS)).follow_redirects(enable=False)
    if urlsplit(base_url).hostname in {"127.0.0.1", "localhost", "::1"}:
        builder = builder.no_proxy()
    return Transport(HttpxTransport(builder.build()))


@functools.cache
def _load_library() -> None:
    """Load pyreqwest in a thread that never ends.

    What is allocated at its import dies with the thread that imported it: with pyreqwest 0.15 any later use, from
    whichever thread, is then a segmentation fault, and an application's loop runs in a thread that ends.
    """
    loaded = threading.Event()

    def load() -> None:
        try:
            importlib.import_module("pyreqwest.client")
        finally:
            loaded.set()
        threading.Event().wait()

    threading.Thread(target=load, name="otpy-pyreqwest", daemon=True).start()
    loaded.wait()


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname}" + (f":{parts.port}" if parts.port else "")


def _why(error: BaseException) -> str:
    """The innermost words of an error, without the address that may hold a secret."""
    words = [str(error)]
    cause = error.__cause__
    details: Any = getattr(cause, "details", None)
    with contextlib.suppress(Exception):  # pyreqwest documents no shape; without it the message is shorter
        innermost: Any = details["causes"][-1]
        words.append(str(innermost["message"]))
    return ": ".join(word for word in words if word) or type(error).__name__

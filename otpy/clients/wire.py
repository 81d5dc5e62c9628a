"""The wire: requests as bytes, answers in pieces, carried by wreq. The only room that knows it, and it imports it late.

What goes wrong is raised in httpx's words, which `transport` turns into ours. The text of wreq's own errors names
addresses and proxies, with what is secret in them: only known words of it are passed on.
"""

from __future__ import annotations

import ipaddress
import os
import re
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping

    import httpx
    import wreq

__all__ = ["Answer", "Method", "Wire", "is_here"]

Method: TypeAlias = Literal["GET", "POST"]

CONNECT_SECONDS: Final = 10.0
IDLE_CONNECTIONS: Final = 10_000
"""Connections kept for later, to one server."""
IDLE_SECONDS: Final = 90.0
"""How long they are kept."""
WORKERS: Final = 2
"""Threads that carry them: opening 10,000 connections keeps one of them busy for a second."""
_MAPS_KEPT: Final = 32
_SAID: Final = (
    (re.compile(r'message: "([^"]{1,200})"'), "{0}"),  # of the operating system
    (re.compile(r"DnsError\(.*error: \"([^\"]{1,200})\""), "dns error: {0}"),
    (re.compile(r"CERTIFICATE_VERIFY_FAILED"), "the certificate is not trusted, or another host's"),
    (re.compile(r"WRONG_VERSION_NUMBER"), "no TLS in what it answers"),
    (re.compile(r'library: "SSL[^"]*".*?reason: "([A-Z0-9_]{1,80})"'), "TLS: {0}"),
    (re.compile(r"ProxyAuthRequired"), "proxy authorization required"),
    (re.compile(r"TunnelUnsuccessful|TunnelUnexpectedEof|UnexpectedEof.*[Pp]roxy"), "tunnel error: unsuccessful"),
    (re.compile(r"TimedOut"), "timed out"),
    (re.compile(r"Parse\((\w{1,40})\)"), "invalid HTTP ({0})"),
    (re.compile(r'error: "([^"]{1,200})"'), "{0}"),
    (
        re.compile(r"IncompleteMessage|IncompleteBody|UnexpectedEof|ConnectionReset|BrokenPipe"),
        "connection closed early",
    ),
    (re.compile(r"source: (\w{1,60})"), "{0}"),
)
"""What is passed on of an error, by its text: there are no classes for it."""


class Answer:
    """An answer of which the head has come.

    Args:
        response: wreq's.
        wire: What it came over.
    """

    __slots__ = ("_response", "_wire", "headers", "status")

    def __init__(self, response: Any, wire: Wire) -> None:
        """Read the head."""
        self._response, self._wire = response, wire
        self.status: int = response.status.as_int()
        self.headers: Mapping[str, str] = {
            str(name, "latin-1").lower(): str(value, "latin-1") for name, value in response.headers
        }

    async def whole(self) -> bytes:
        """Return the body, which must be known to be short."""
        try:
            return bytes(await self._response.bytes())
        except self._wire.errors as error:
            raise self._wire.said(error) from None

    async def pieces(self) -> AsyncGenerator[bytes]:
        """Yield the body in the pieces in which it comes, unpacked."""
        try:
            async with self._response.stream() as stream:
                async for piece in stream:
                    data: Any = piece
                    if isinstance(data, memoryview):  # and no trailer
                        yield bytes(data)  # pyright: ignore[reportUnknownArgumentType]
        except self._wire.errors as error:
            raise self._wire.said(error) from None


class Wire:
    """Connections to one server.

    Args:
        base_url: The server; a proxy of the environment is used unless it is on this machine.
    """

    def __init__(self, base_url: str) -> None:
        """Open no connection yet."""
        import httpx  # noqa: PLC0415 - late, for its errors; 60 ms
        import wreq  # noqa: PLC0415 - late, see the module
        from wreq import dns, exceptions, header, redirect  # noqa: PLC0415 - the same

        self._stopped = httpx.ConnectError("the client has been stopped")
        self._errors, self._map = exceptions, header.HeaderMap
        self.errors = tuple(
            kind for kind in vars(exceptions).values() if isinstance(kind, type) and issubclass(kind, Exception)
        )
        self._maps: dict[tuple[tuple[str, str], ...], Any] = {}
        trusted: dict[str, Any] = {"tls_verify": _trusted()} if base_url.startswith("https:") else {}
        self._client: wreq.Client | None = wreq.Client(
            redirect=redirect.Policy.none(),
            connect_timeout=timedelta(seconds=CONNECT_SECONDS),
            pool_max_idle_per_host=IDLE_CONNECTIONS,
            pool_idle_timeout=timedelta(seconds=IDLE_SECONDS),
            dns_options=dns.DnsOptions(system_dns=True),
            no_proxy=is_here(urlsplit(base_url).hostname),
            runtime=_runtime(),
            **trusted,
        )

    async def send(
        self, url: str, headers: tuple[tuple[str, str], ...], body: bytes, method: Method = "POST"
    ) -> Answer:
        """Send a request and return its answer as soon as its head has come.

        Cancelled, it closes the connection.

        Args:
            url: Where.
            headers: Names and values.
            body: What.
            method: How; a GET has no body.

        Raises:
            httpx.HTTPError: Whatever goes wrong.
        """
        known = self._maps.get(headers)
        if known is None:
            if len(self._maps) >= _MAPS_KEPT:
                self._maps.clear()
            known = self._maps[headers] = self._map(dict(headers))
        if self._client is None:
            raise self._stopped
        try:
            if method == "GET":
                return Answer(await self._client.get(url, headers=known), self)
            return Answer(await self._client.post(url, headers=known, body=body), self)
        except self.errors as error:
            raise self.said(error) from None

    def said(self, error: Exception) -> httpx.HTTPError | httpx.InvalidURL:
        """Return an error in httpx's words, without what may be secret.

        Args:
            error: wreq's.
        """
        import httpx  # noqa: PLC0415 - late, as above

        ours = self._errors
        text = str(error)
        why = next((words.format(*found.groups()) for known, words in _SAID if (found := known.search(text))), "")
        why = why or type(error).__name__
        if isinstance(error, ours.TimeoutError):
            return httpx.ConnectTimeout(why)
        if isinstance(error, (ours.ConnectionError, ours.ProxyConnectionError, ours.TlsError)):
            return httpx.ConnectTimeout(why) if why == "timed out" else httpx.ConnectError(why)
        if isinstance(error, ours.BuilderError):
            return httpx.InvalidURL(why)
        if isinstance(error, ours.DecodingError) and "netty" not in text and "UnexpectedEof" not in text:  # of gzip
            return httpx.DecodingError(why)
        return httpx.RemoteProtocolError(why) if "Parse" in text else httpx.ReadError(why)

    async def aclose(self) -> None:
        """Let go of the connections."""
        self._client = None


_runtimes: dict[int, Any] = {}


def _runtime() -> Any:
    """The threads that carry the requests of this OS process: those of the one it was forked from are not in it."""
    from wreq import runtime  # noqa: PLC0415 - late, see the module

    if (here := os.getpid()) not in _runtimes:
        _runtimes[here] = runtime.Runtime(workers=WORKERS, thread_name="otpy-wire")
    return _runtimes[here]


def is_here(host: str | None) -> bool:
    """Return whether a host is this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False


def _trusted() -> Any:
    """The authorities of certifi and of the system, and those that `SSL_CERT_FILE` or `SSL_CERT_DIR` names."""
    import ssl  # noqa: PLC0415 - late, and only for https
    from pathlib import Path  # noqa: PLC0415 - the same

    import certifi  # noqa: PLC0415 - the same
    from wreq import tls  # noqa: PLC0415 - the same

    paths = ssl.get_default_verify_paths()
    texts = [Path(certifi.where()).read_text(encoding="ascii")]
    if paths.cafile is not None:
        texts.append(Path(paths.cafile).read_text(encoding="ascii", errors="replace"))
    certificates = dict.fromkeys(found for text in texts for found in _PEM.findall(text))
    return tls.CertStore(pem_certs=list(certificates), default_paths=True)


_PEM: Final = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)

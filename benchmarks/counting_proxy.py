"""A reverse proxy that counts what is asked of an OpenAI-compatible server, and the tokens it says it took.

Whoever asks `http://…/NAME/v1/chat/completions` is counted under NAME. So two libraries, or two parts of one run, are
counted by the same hand, whatever they themselves report.
"""

from __future__ import annotations

import http.client
import json
import threading
from collections import defaultdict
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from types import TracebackType

TIMEOUT = 600.0


@dataclass
class Count:
    """What was asked under one name.

    Args:
        requests: Requests that were sent on, those refused by the server included.
        refused: Of these, such as were not answered with 200.
        input_tokens: Of the prompts, as the server says.
        output_tokens: Of the answers.
    """

    requests: int = 0
    refused: int = 0
    input_tokens: int = 0
    output_tokens: int = 0

    def take(self, status: int, body: bytes) -> None:
        """Count one answer.

        Args:
            status: Its HTTP status.
            body: Its body; one that tells no usage counts for no tokens.
        """
        self.requests += 1
        self.refused += status != http.client.OK
        try:
            usage = json.loads(body).get("usage") or {}
        except (ValueError, AttributeError):
            return
        self.input_tokens += usage.get("prompt_tokens", 0)
        self.output_tokens += usage.get("completion_tokens", 0)


class CountingProxy:
    """A proxy on a free loopback port, while the block lasts.

    Args:
        upstream: The server's address, with or without `/v1`.
    """

    def __init__(self, upstream: str) -> None:
        """Prepare; nothing is opened yet."""
        parts = urlsplit(upstream)
        self._host, self._port = parts.hostname or "127.0.0.1", parts.port or 80
        self._lock = threading.Lock()
        self.counts: defaultdict[str, Count] = defaultdict(Count)
        """By name."""

    def __enter__(self) -> Self:
        """Listen."""
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Listen no longer."""
        self._server.shutdown()
        self._server.server_close()

    def url(self, name: str) -> str:
        """Return the address under which requests are counted for a name.

        Args:
            name: Letters, digits, `-` and `_`.
        """
        return f"http://127.0.0.1:{self._server.server_address[1]}/{name}/v1"

    def _passed_on(self, path: str, body: bytes) -> tuple[int, bytes]:
        _, name, rest = path.split("/", 2)
        upstream = http.client.HTTPConnection(self._host, self._port, timeout=TIMEOUT)
        try:
            upstream.request("POST", f"/{rest}", body, {"Content-Type": "application/json"})
            answer = upstream.getresponse()
            status, said = answer.status, answer.read()
        except OSError as error:
            status, said = http.client.BAD_GATEWAY, json.dumps({"error": {"message": str(error)}}).encode()
        finally:
            upstream.close()
        with self._lock:
            self.counts[name].take(status, said)
        return status, said

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        passed_on = self._passed_on

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                if self.path.count("/") < 2 or json.loads(body or b"{}").get("stream"):
                    status, said = http.client.BAD_REQUEST, b'{"error": {"message": "no name, or a stream"}}'
                else:
                    status, said = passed_on(self.path, body)
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(said)))
                self.end_headers()
                self.wfile.write(said)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the library's name
                """Say nothing."""

        return Handler

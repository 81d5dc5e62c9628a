"""A retriever behind HTTP: any class with `async def search(query, k)` is one.

python examples/http_retriever.py "ferry to Loam"                            # with a server of its own
python examples/http_retriever.py "ferry to Loam" --url http://host:9000/search

The server is asked `GET url?query=…&k=3` and answers `{"passages": [{"id": …, "text": …, "score": …}, …]}`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

import httpx

import otpy
from otpy.errors import DatasetError
from otpy.retrieval import BM25, Passage

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True)
class HTTPRetriever:
    """A value: it knows where to ask, and opens a connection when it does."""

    url: str
    timeout: float = 10.0  # seconds
    attempts: int = 3

    async def search(self, query: str, k: int = 3) -> tuple[Passage, ...]:
        async with httpx.AsyncClient(timeout=self.timeout) as client:
            for attempt in range(1, self.attempts + 1):
                response = await client.get(self.url, params={"query": query, "k": k})
                if response.status_code < 500 or attempt == self.attempts:
                    break
                await asyncio.sleep(0.1 * 2**attempt)
        response.raise_for_status()
        try:
            rows = response.json()["passages"]
            return tuple(Passage(row["text"], row["id"], score=float(row["score"])) for row in rows[:k])
        except (ValueError, KeyError, TypeError) as error:
            raise DatasetError(f"is no list of passages: {error!r}", self.url) from error


@contextlib.contextmanager
def serving(index: BM25) -> Iterator[str]:
    """Serve an index on this machine, and say where."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = parse_qs(urlsplit(self.path).query)
            found = index.top(asked["query"][0], int(asked["k"][0]))
            rows = [{"id": passage.id, "text": passage.text, "score": passage.score} for passage in found]
            body = json.dumps({"passages": rows}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/search"
        finally:
            server.shutdown()
            thread.join()


async def main(query: str, url: str) -> None:
    found = await otpy.Retrieve(HTTPRetriever(url), k=3).acall(query=query)
    for score, text in zip(found.scores, found.passages, strict=True):
        print(f"{score:5.2f}  {text}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("query")
    parser.add_argument("--url", help="where to ask; without it, a server is started for the time being")
    arguments = parser.parse_args()
    with contextlib.ExitStack() as stack:
        islands = Path(__file__).with_name("islands.txt").read_text(encoding="utf-8").splitlines()
        asyncio.run(main(arguments.query, arguments.url or stack.enter_context(serving(BM25(islands)))))

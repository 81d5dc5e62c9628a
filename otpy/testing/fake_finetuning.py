"""`FakeFineTuning`: OpenAI's fine-tuning API without a model behind it, for tests of what trains at a provider.

Pure inside, a request in and an answer out, so it can stand behind a transport in virtual time; or it listens on a real
socket.
"""

from __future__ import annotations

import contextlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qs, unquote, urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

__all__ = ["FakeFineTuning", "Trouble"]

STAGES: Final = ("validating_files", "queued", "running", "running", "succeeded")
_PART: Final = re.compile(rb'name="(\w+)"(?:; filename="([^"]*)")?')


@dataclass(frozen=True, slots=True)
class Trouble:
    """What goes wrong with a request.

    Args:
        status: The answer's status.
        message: The words in it.
        headers: Its headers.
        lost: The request is done as asked, but its answer is lost: the connection breaks.
        refused: There is no connection at all.
    """

    status: int = 500
    message: str = "out of order"
    headers: dict[str, str] = field(default_factory=dict[str, str])
    lost: bool = False
    refused: bool = False


class FakeFineTuning:
    """A provider of fine-tuning, by script.

    Args:
        stages: The status of a job at each look at it; the last one stays.
        trouble: Gets the method, the path without the query, and the request's number from 1; returns what goes wrong
            with it, or `None`.
        error: Why a job fails that does.
        key: The API key that is wanted; anybody's if `None`.

    Attributes:
        requests: What came, as `"POST /files"`, in order.
        files: What was uploaded, by id.
        jobs: The jobs, by id, as the API tells of them.

    Example:
        >>> from otpy.testing.fake_finetuning import FakeFineTuning
        >>> FakeFineTuning().answer("GET", "/v1/fine_tuning/jobs", {}, b"")
        (None, 200, b'{"object": "list", "data": [], "has_more": false}')
    """

    def __init__(
        self,
        *,
        stages: tuple[str, ...] = STAGES,
        trouble: Callable[[str, str, int], Trouble | None] = lambda _method, _path, _number: None,
        error: str = "the training file has no assistant message in line 3",
        key: str | None = None,
    ) -> None:
        """Know of no file and no job."""
        self.stages, self.trouble, self.error, self.key = stages, trouble, error, key
        self.requests: list[str] = []
        self.files: dict[str, bytes] = {}
        self.names: dict[str, str] = {}
        self.jobs: dict[str, dict[str, Any]] = {}
        self.page: int | None = None
        """Items on a page at most; as many as are asked for if `None`."""
        self._looks: dict[str, int] = {}
        self._lock = threading.Lock()

    def count(self, request: str) -> int:
        """Return how often something was asked.

        Args:
            request: As in `requests`, or its beginning.
        """
        return sum(one.startswith(request) for one in self.requests)

    def answer(self, method: str, url: str, headers: dict[str, str], body: bytes) -> tuple[Trouble | None, int, bytes]:
        """Return what goes wrong, the status, and the body.

        Args:
            method: As `"GET"`.
            url: The path with its query, from `/v1` on.
            headers: With lower-case names.
            body: The request's.
        """
        with self._lock:
            parts = urlsplit(url)
            path = unquote(parts.path).partition("/v1")[2]
            self.requests.append(f"{method} {path}")
            trouble = self.trouble(method, path, len(self.requests))
            if trouble is not None and not trouble.lost:
                return trouble, trouble.status, _said(trouble.message)
            if self.key is not None and headers.get("authorization") != f"Bearer {self.key}":
                return trouble, 401, _said(f"Incorrect API key provided: {headers.get('authorization')}")
            status, answer = self._done(method, path, parse_qs(parts.query), body)
            return trouble, status, json.dumps(answer).encode()

    def _done(self, method: str, path: str, query: dict[str, list[str]], body: bytes) -> tuple[int, Any]:
        match method, path.strip("/").split("/"):
            case "POST", ["files"]:
                return self._upload(body)
            case "GET", ["files"]:
                found = [self._file(id_) for id_ in reversed(self.files)]
                return 200, self._listed(found, query)
            case "POST", ["fine_tuning", "jobs"]:
                return self._create(json.loads(body))
            case "GET", ["fine_tuning", "jobs"]:
                marks = {name[9:-1]: value[0] for name, value in query.items() if name.startswith("metadata[")}
                jobs = [job for job in reversed(self.jobs.values()) if marks.items() <= job["metadata"].items()]
                return 200, self._listed(jobs, query)
            case _, ["fine_tuning", "jobs", job, *rest] if job in self.jobs:
                return self._look(method, self.jobs[job], rest)
            case _:
                return 404, {"error": {"message": f"Could not find {path}"}}

    def _upload(self, body: bytes) -> tuple[int, Any]:
        edge = body.partition(b"\r\n")[0]
        fields: dict[str, tuple[str, bytes]] = {}
        for part in body.split(edge)[1:-1]:
            head, _, content = part.partition(b"\r\n\r\n")
            named = _PART.search(head)
            if named is not None:
                fields[named[1].decode()] = ((named[2] or b"").decode(), content.removesuffix(b"\r\n"))
        if fields.get("purpose", ("", b""))[1] != b"fine-tune" or "file" not in fields:
            return 400, {"error": {"message": "a file and its purpose are wanted"}}
        id_ = f"file-{len(self.files) + 1}"
        self.names[id_], self.files[id_] = fields["file"]
        return 200, self._file(id_)

    def _file(self, id_: str) -> dict[str, Any]:
        facts = {"id": id_, "object": "file", "bytes": len(self.files[id_]), "filename": self.names[id_]}
        return {**facts, "purpose": "fine-tune", "status": "processed"}

    def _create(self, asked: dict[str, Any]) -> tuple[int, Any]:
        if asked.get("training_file") not in self.files:
            return 400, {"error": {"message": f"No such File object: {asked.get('training_file')}"}}
        id_ = f"ftjob-{len(self.jobs) + 1}"
        facts = {"id": id_, "object": "fine_tuning.job", "status": self.stages[0], "fine_tuned_model": None}
        self.jobs[id_] = {"metadata": {}, **asked, **facts, "error": None}
        self._looks[id_] = 0
        self._move(id_)
        return 200, self.jobs[id_]

    def _move(self, id_: str) -> None:
        job = self.jobs[id_]
        job["status"] = self.stages[min(self._looks[id_], len(self.stages) - 1)]
        if job["status"] == "succeeded":
            job["fine_tuned_model"] = f"ft:{job['model']}:{job.get('suffix') or 'otpy'}:{id_.rpartition('-')[2]}"
        if job["status"] == "failed":
            job["error"] = {"code": "invalid_training_file", "message": self.error, "param": "training_file"}

    def _look(self, method: str, job: dict[str, Any], rest: list[str]) -> tuple[int, Any]:
        id_ = job["id"]
        ended = job["status"] in {"succeeded", "failed", "cancelled"}
        if (method, rest) == ("POST", ["cancel"]):
            if ended:
                return 400, {"error": {"message": f"Job has already completed: {id_}"}}
            job["status"] = "cancelled"
        elif (method, rest) == ("GET", ["events"]):
            step = self._looks[id_]
            data = {"step": step, "total_steps": len(self.stages) - 1, "train_loss": round(1 / (1 + step), 3)}
            event = {"object": "fine_tuning.job.event", "type": "metrics", "level": "info", "message": f"Step {step}"}
            return 200, {"object": "list", "data": [{"id": "ftevent-1", **event, "data": data}], "has_more": False}
        elif (method, rest) == ("GET", []):
            if not ended:
                self._looks[id_] += 1
                self._move(id_)
        else:
            return 405, {"error": {"message": f"{method} is not allowed"}}
        return 200, job

    def _listed(self, items: list[Any], query: dict[str, list[str]]) -> dict[str, Any]:
        limit, after = int(query.get("limit", ["20"])[0]), query.get("after", [""])[0]
        limit = limit if self.page is None else min(limit, self.page)
        begin = next((at + 1 for at, item in enumerate(items) if item["id"] == after), 0)
        return {"object": "list", "data": items[begin : begin + limit], "has_more": begin + limit < len(items)}

    @contextlib.contextmanager
    def serving(self, port: int = 0) -> Generator[str]:
        """Listen on 127.0.0.1 inside the block, and yield the base URL.

        Args:
            port: The port; 0 for a free one.
        """
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self._answer()

            def do_POST(self) -> None:
                self._answer()

            def _answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
                headers = {name.lower(): value for name, value in self.headers.items()}
                trouble, status, answer = fake.answer(self.command, self.path, headers, body)
                if trouble is not None and (trouble.lost or trouble.refused):
                    self.close_connection = True
                    return
                self.send_response(status)
                for name, value in ({} if trouble is None else trouble.headers).items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the library's name
                pass

        server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/v1"
        finally:
            server.shutdown()
            thread.join(10)
            server.server_close()


def _said(message: str) -> bytes:
    return json.dumps({"error": {"message": message, "type": "fake", "code": None}}).encode()

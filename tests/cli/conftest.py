"""The command line as people run it: a process of its own, talking to a server of ours on this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).resolve().parents[2]


@dataclass
class LMServer:
    """An OpenAI-compatible server whose answers a test decides."""

    answer: Callable[[list[str]], Any] = lambda _conversation: {"answer": "yes"}
    status: int = 200
    asked: list[dict[str, Any]] = field(default_factory=list)
    held: threading.Event | None = None
    arrived: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    url: str = ""


@pytest.fixture
def server() -> Iterator[LMServer]:
    """A server on a free port of this machine."""
    state = LMServer()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            state.asked.append(body)
            state.arrived.release()
            if state.held is not None:
                state.held.wait(30)
            content = json.dumps(state.answer([message["content"] for message in body["messages"]]))
            reply: dict[str, Any] = {
                "id": "1",
                "object": "chat.completion",
                "model": body.get("model", "m"),
                "choices": [
                    {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": content}}
                ],
                "usage": {"prompt_tokens": 10, "completion_tokens": 2, "total_tokens": 12},
            }
            if state.status != 200:
                reply = {"error": {"message": "planted failure", "type": "planted", "code": "planted"}}
            data = json.dumps(reply).encode()
            try:
                self.send_response(state.status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)
            except OSError:
                self.close_connection = True  # the client went away, as a test may want it to

        def log_message(self, *_: object) -> None:
            pass

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    listening.daemon_threads = True
    state.url = f"http://127.0.0.1:{listening.server_address[1]}/v1"
    thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield state
    if state.held is not None:
        state.held.set()
    listening.shutdown()
    listening.server_close()
    thread.join()


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """The environment of the processes: nothing of ours, a cache directory of the test's own."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("OTPY_", "OPENAI_"))}
    return kept | {
        "PYTHONPATH": str(ROOT),
        "OTPY_CACHE_DIR": str(tmp_path / "cache"),
        "PYTHONDONTWRITEBYTECODE": "1",
        "COLUMNS": "120",
        "NO_COLOR": "1",
    }


@dataclass
class Ran:
    """What a command left: its exit status and what it wrote."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """The one object on stdout."""
        return json.loads(self.out)


@pytest.fixture
def otpy(tmp_path: Path, environment: dict[str, str]) -> Callable[..., Ran]:
    """Run `otpy` with these arguments in a directory of the test's own."""

    def run(*arguments: object, **variables: str) -> Ran:
        ran = subprocess.run(
            [sys.executable, "-W", "error", "-m", "otpy", *map(str, arguments)],
            cwd=tmp_path,
            env=environment | variables,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        return Ran(ran.returncode, ran.stdout, ran.stderr)

    return run


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, str], Path]:
    """Write a file of the test's own directory."""

    def to(name: str, text: str) -> Path:
        (tmp_path / name).write_text(text, encoding="utf-8")
        return tmp_path / name

    return to


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    """Run `otpy` in this process, in a directory of the test's own: the same commands, half a second sooner."""
    from otpy.cli.main import main

    monkeypatch.chdir(tmp_path)
    for name in os.environ:
        if name.startswith(("OTPY_", "OPENAI_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("OTPY_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("OTPY_CACHE__ENABLED", "false")
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setattr(sys, "path", [*sys.path])

    def run(*arguments: object, **variables: str) -> Ran:
        capsys.readouterr()
        with monkeypatch.context() as now:
            for name, value in variables.items():
                now.setenv(name, value)
            status = main([str(argument) for argument in arguments])
        wrote = capsys.readouterr()
        for name, module in list(sys.modules.items()):  # another test has others of the same names
            if str(getattr(module, "__file__", None) or "").startswith(str(tmp_path)):
                del sys.modules[name]
        return Ran(status, wrote.out, wrote.err)

    return run


WORDS = {
    "fruit": "apple pear plum fig lime date kiwi mango peach grape",
    "tool": "saw axe file rake plane drill vice hammer chisel spade",
}
KINDS = {word: kind for kind, words in WORDS.items() for word in words.split()}
SORT = "word -> kind: Literal['fruit', 'tool']"


def lines(words: list[str]) -> str:
    """Rows of these words, as a file has them."""
    return "".join(json.dumps({"word": word, "kind": KINDS[word]}) + "\n" for word in words)


@pytest.fixture
def sorting(server: LMServer, write: Callable[[str, str], Path]) -> list[str]:
    """The options of a job whose model knows fruit, and tools once it is shown as many as two of them."""

    def answer(conversation: list[str]) -> Any:
        asked = conversation[-1].removeprefix("word: ").split("\n")[0]
        shown = sum(KINDS.get(text.removeprefix("word: ")) == "tool" for text in conversation[1:-1])
        return {"kind": KINDS.get(asked, "tool") if shown > 1 else "fruit"}

    server.answer = answer
    words = list(KINDS)
    write("train.jsonl", lines(words[:7] + words[10:17]))
    write("val.jsonl", lines(words[7:10] + words[17:]))
    where = ["--lm", "openai_compatible/m", "--base-url", server.url]
    return ["--program", SORT, "--metric", "exact_match:kind", *where]

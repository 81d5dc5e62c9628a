"""The examples of retrieval: they run as a newcomer would run them, and find what they should."""

import asyncio
import importlib.util
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import httpx
import pytest

from otpy.errors import DatasetError
from otpy.programs.retrieve import Retrieve
from otpy.retrieval import BM25, ENGLISH, Hybrid, Tokenizer
from otpy.testing import LoopbackLM

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def run(script, *arguments, cwd):
    result = subprocess.run(
        [sys.executable, EXAMPLES / script, *arguments],
        cwd=cwd, env=os.environ | {"OPENAI_API_KEY": "none", "PYTHONPATH": str(EXAMPLES.parent)},
        capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def http_retriever():
    spec = importlib.util.spec_from_file_location("http_retriever", EXAMPLES / "http_retriever.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


# -- 200 passages ----------------------------------------------------------------------------------------------------

ASKED = [
    ("How many inhabitants has {}?", "{} has "),
    ("When does the ferry to {} leave?", "The ferry to {} "),
    ("How high is the lighthouse of {}?", "The lighthouse of {} "),
    ("What do the people of {} eat on the first day of spring?", "On the first day of spring the people of {} "),
    ("What is the highest point of {}?", "The highest point of {} "),
]


def test_every_one_of_the_200_passages_is_found_by_its_question():
    passages = (EXAMPLES / "islands.txt").read_text().splitlines()
    index = BM25(passages, tokenizer=Tokenizer(ENGLISH))
    islands = [passage.split()[0] for passage in passages[::5]]
    assert (len(index), len(islands)) == (200, 40)
    for island in islands:
        for question, beginning in ASKED:
            (best,) = index.top(question.format(island), 1)
            assert best.text.startswith(beginning.format(island))


def test_rag_on_any_server(tmp_path):
    def answer(body):
        return {"response": body["messages"][-1]["content"]}

    with LoopbackLM(answer) as server:
        printed = run("rag_200_passages.py", "--lm", "openai/scripted", "--base-url", server.url, cwd=tmp_path)
    assert "from: The lighthouse of Gristen was built in 1926" in printed
    without, answered = printed.splitlines()[-2:]
    assert without.startswith("without passages: 0.0 %")
    assert answered.startswith("with passages:    100.0 %")


@pytest.mark.local_model
def test_rag_on_the_local_model(tmp_path):
    printed = run("rag_200_passages.py", cwd=tmp_path)
    without, answered = printed.splitlines()[-2:]
    assert without.startswith("without passages: 0.0 %")
    right = float(answered.removeprefix("with passages:").split("%")[0])
    assert right >= 50, printed


# -- behind HTTP -----------------------------------------------------------------------------------------------------


def test_the_http_retriever_runs(tmp_path):
    printed = run("http_retriever.py", "ferry to Loam", cwd=tmp_path)
    assert "The ferry to Loam leaves from Lowick" in printed.splitlines()[0]
    assert len(printed.splitlines()) == 3


def test_the_http_retriever_finds_what_the_index_behind_it_finds(http_retriever):
    index = BM25(["a cat & a dog?", "a cat", "ein Käfer"])
    with http_retriever.serving(index) as url:
        retriever = http_retriever.HTTPRetriever(url)
        for query in ("cat & dog?", "käfer", "nothing"):
            assert asyncio.run(retriever.search(query, 2)) == index.top(query, 2)
        found = asyncio.run(Retrieve(retriever, k=1).acall(query="dog"))
        assert found.passages == ["a cat & a dog?"]
        assert asyncio.run(Hybrid([retriever, index]).search("käfer"))[0].text == "ein Käfer"


class Sick(BaseHTTPRequestHandler):
    answers: ClassVar[list[tuple[int, bytes]]]

    def do_GET(self):
        status, body = self.answers.pop(0)
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def sick():
    class Handler(Sick):
        answers: ClassVar[list[tuple[int, bytes]]] = []

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/", Handler.answers
        server.shutdown()
        thread.join()


def test_the_http_retriever_asks_again_a_bounded_number_of_times(http_retriever, sick):
    url, answers = sick
    good = json.dumps({"passages": [{"id": "1", "text": "a", "score": 1}]}).encode()
    answers += [(503, b""), (200, good)]
    retriever = http_retriever.HTTPRetriever(url, attempts=2)
    assert asyncio.run(retriever.search("a"))[0].text == "a"
    answers += [(503, b""), (503, b""), (200, good)]
    with pytest.raises(httpx.HTTPStatusError, match="503"):
        asyncio.run(retriever.search("a"))
    assert len(answers) == 1


@pytest.mark.parametrize("body", [b"<html>", b"[]", b"{}", b'{"passages": [{"id": "1"}]}', b'{"passages": 3}'])
def test_the_http_retriever_refuses_what_is_no_list_of_passages(http_retriever, sick, body):
    url, answers = sick
    answers.append((200, body))
    with pytest.raises(DatasetError, match="is no list of passages"):
        asyncio.run(http_retriever.HTTPRetriever(url).search("a"))

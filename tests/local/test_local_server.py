"""The program that serves a local model: it says where it is, and answers by the schema."""

import concurrent.futures
import json
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import pytest

from otpy.clients import local_server, models

runtime = pytest.mark.skipif(not models.runtime_installed(), reason="no xllamacpp: pip install -e '.[local]'")


def started(*command):
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


# -- what it cannot serve --------------------------------------------------------------------------------------------


@runtime
def test_weights_that_are_none_end_it_with_a_status_and_the_reason(tmp_path):
    nonsense = tmp_path / "weights.gguf"
    nonsense.write_bytes(b"GGUF nonsense")
    command = local_server.command(str(nonsense), context=64, parallel=1)
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        said = process.stderr.read()
        assert process.stdout.read() == ""
        assert process.wait(10) == 1
    assert any(line.startswith(f"llama.cpp cannot serve {nonsense}") for line in said.splitlines())  # it logs besides
    assert "Traceback" not in said


# -- the real one ----------------------------------------------------------------------------------------------------

WORDS = ("oak", "dog", "tulip", "horse", "moss", "eagle", "fern", "salmon")
SCHEMA = {"type": "object", "properties": {"kind": {"enum": ["animal", "plant"]}}, "required": ["kind"]}


def ask(url, word, **more):
    body = {
        "messages": [
            {"role": "system", "content": "Say whether the word is an animal or a plant."},
            {"role": "user", "content": f"word: {word}"},
        ],
        "temperature": 0,
        "max_tokens": 40,
        "response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": SCHEMA, "strict": True}},
        **more,
    }
    request = urllib.request.Request(
        f"{url}/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as response:
        return json.load(response)["choices"][0]["message"]["content"]


@pytest.fixture
def serve():
    """Start the real server with the real weights; what a test started ends with it."""
    processes = []

    def start():
        processes.append(started(*models.server_command("smollm2-135m", parallel=1)))
        return processes[-1]

    yield start
    for process in processes:
        with process:
            process.kill()


def url_of(process):
    return json.loads(process.stdout.readline())["url"]


@pytest.mark.local_model
def test_its_first_line_is_a_loopback_address_that_answers_by_the_schema(serve):
    url = url_of(serve())
    assert url.startswith("http://127.0.0.1:")
    assert url.endswith("/v1")
    assert json.loads(ask(url, "oak"))["kind"] in {"animal", "plant"}


@pytest.mark.local_model
@pytest.mark.parametrize("when", ["as it loads", "when it serves", "in the middle of an answer"])
def test_sigterm_ends_it_at_once(serve, when):
    process = serve()
    if when != "as it loads":
        url = url_of(process)
    if when == "in the middle of an answer":
        body = json.dumps({"prompt": "Once", "n_predict": 4000, "stream": True, "ignore_eos": True}).encode()
        request = urllib.request.Request(f"{url[:-3]}/completion", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as response:
            assert response.readline().startswith(b"data: ")  # it has begun
            process.send_signal(signal.SIGTERM)
            assert process.wait(3) == -signal.SIGTERM
    else:
        process.send_signal(signal.SIGTERM)
        assert process.wait(3) == -signal.SIGTERM


OWNER = """
import asyncio
from otpy.actors import FirstLine, Port
from otpy.clients import models

async def main():
    port = await Port.start(models.server_command("smollm2-135m", parallel=1), first_line=True)
    print(await port.call(FirstLine()), flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""


@pytest.mark.local_model
def test_it_is_gone_when_the_python_process_that_owns_its_port_is_killed():
    with started(sys.executable, "-c", OWNER) as owner:
        url = url_of(owner)
        assert ask(url, "oak")
        owner.kill()
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", int(url.split(":")[2].partition("/")[0]))).close()
        except ConnectionError:  # refused, or reset while it ends
            break
    else:
        pytest.fail("the server outlived the Python process")


@pytest.mark.local_model
def test_an_answer_at_temperature_0_depends_on_nothing_but_the_question(serve):
    url = url_of(serve())
    alone = [ask(url, word) for word in WORDS]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda word: ask(url, word), reversed(WORDS)))
    anew = url_of(serve())  # as after a restart: nothing is remembered
    assert together[::-1] == alone
    assert [ask(anew, word) for word in WORDS[4:]] == alone[4:]

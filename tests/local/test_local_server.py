"""The program that serves a local model: it says where it is, answers by the schema, and never outlives its parent."""

import concurrent.futures
import json
import os
import signal
import subprocess
import sys
import urllib.request

import pytest

from otpy.clients import local_server, models

linux = pytest.mark.skipif(sys.platform != "linux", reason="prctl is Linux's; elsewhere the pipe does it")
runtime = pytest.mark.skipif(not models.runtime_installed(), reason="no xllamacpp: pip install -e '.[local]'")

# A server without a model: what it does about its parent is the same.
IDLE = """
import sys, threading
from otpy.clients.local_server import _die_with_parent
_die_with_parent(int(sys.argv[1]))
print("up", flush=True)
threading.Event().wait()
"""
# A parent that lets its child have its own standard input and output, and waits to be killed.
PARENT = f"""
import os, subprocess, sys, threading
subprocess.Popen([sys.executable, "-c", {IDLE!r}, str(os.getpid())], start_new_session=True)
threading.Event().wait()
"""


def started(*command):
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


# -- it does not outlive its parent ----------------------------------------------------------------------------------


def test_it_leaves_when_its_standard_input_closes():
    with started(sys.executable, "-c", IDLE, str(os.getpid())) as process:
        assert process.stdout.readline() == b"up\n"
        process.stdin.close()
        assert process.wait(10) == 0


@linux
def test_it_dies_with_a_parent_killed_by_9_while_its_standard_input_stays_open():
    with started(sys.executable, "-c", PARENT) as parent:
        assert parent.stdout.readline() == b"up\n"
        parent.kill()
        assert parent.stdout.read() == b""  # the child holds the other end: the pipe ends when the child does


@linux
def test_one_whose_parent_died_before_it_looked_leaves_without_loading_anything():
    command = local_server.command("/nowhere/weights.gguf", context=64, parallel=1)
    with started(sys.executable, "-c", "") as gone:
        gone.wait(10)
    command[command.index("--parent") + 1] = str(gone.pid)
    with started(*command) as process:
        assert process.stdout.read() == b""
        assert process.wait(10) == 0


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
    assert said.splitlines()[-1].startswith(f"llama.cpp cannot serve {nonsense}")
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


@pytest.mark.local_model
def test_an_answer_at_temperature_0_depends_on_nothing_but_the_question(serve):
    url = url_of(serve())
    alone = [ask(url, word) for word in WORDS]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda word: ask(url, word), reversed(WORDS)))
    anew = url_of(serve())  # as after a restart: nothing is remembered
    assert together[::-1] == alone
    assert [ask(anew, word) for word in WORDS[4:]] == alone[4:]

"""The program that serves the embedded model: it says where it is, answers by the schema, and never outlives its parent."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
import urllib.request

import pytest

from otpy.clients import local_server, models

linux = pytest.mark.skipif(sys.platform != "linux", reason="prctl is Linux's; elsewhere the pipe does it")

LABELS = ["brakes", "lights"]
SCHEMA = {
    "type": "object",
    "properties": {"topic": {"type": "string", "enum": LABELS}},
    "required": ["topic"],
    "additionalProperties": False,
}


def ask(url, text):
    body = {
        "model": "local",
        "temperature": 0,
        "max_tokens": 40,
        "messages": [{"role": "user", "content": text}],
        "response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": SCHEMA, "strict": True}},
    }
    request = urllib.request.Request(
        f"{url}/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as response:
        return json.load(response)["choices"][0]["message"]["content"]


def gone(pid, seconds=10.0):
    """Whether a process that is not our child has ended within some seconds."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        if _state(pid) == "Z":
            return True
        time.sleep(0.02)
    return False


def _state(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(") ")[2][:1]
    except OSError:
        return ""


@pytest.fixture
def server():
    """The real server, with the real weights."""
    command = models.server_command("smollm2-135m", parallel=1)
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        yield process
        process.kill()


@pytest.mark.local_model
def test_its_first_line_is_a_loopback_address_that_answers_by_the_schema_and_alike_each_time(server):
    url = json.loads(server.stdout.readline())["url"]
    assert url.startswith("http://127.0.0.1:")
    assert url.endswith("/v1")
    answers = {ask(url, "Say what the message is about.\n\nThe lamp is dark.") for _ in range(3)}
    assert len(answers) == 1
    assert json.loads(answers.pop())["topic"] in LABELS


@pytest.mark.local_model
@pytest.mark.parametrize("when", ["as it loads", "when it serves"])
def test_sigterm_ends_it_at_once(server, when):
    if when == "when it serves":
        server.stdout.readline()
    server.send_signal(signal.SIGTERM)
    assert server.wait(3) == -signal.SIGTERM


@pytest.mark.local_model
def test_it_leaves_when_its_standard_input_closes(server):
    server.stdout.readline()
    server.stdin.close()
    assert server.wait(3) == 0


@pytest.mark.local_model
def test_weights_that_are_none_end_it_with_a_status_and_a_reason(tmp_path):
    nonsense = tmp_path / "weights.gguf"
    nonsense.write_bytes(b"GGUF nonsense")
    command = local_server.command(str(nonsense), context=64, parallel=1)
    done = subprocess.run(command, stdin=subprocess.PIPE, capture_output=True, text=True, timeout=60)
    assert done.returncode != 0
    assert done.stdout == ""
    assert done.stderr


PARENT = textwrap.dedent(
    """
    import signal, subprocess, sys
    from otpy.clients import local_server

    command = local_server.command(sys.argv[1], context=512, parallel=1)
    child = subprocess.Popen(command, stdin=KEPT, stdout=subprocess.PIPE, start_new_session=True)
    child.stdout.readline()
    print(child.pid, flush=True)
    signal.pause()
    """
)


@pytest.mark.local_model
@pytest.mark.parametrize(
    "stdin",
    [
        pytest.param("subprocess.PIPE", id="by the pipe or the kernel"),
        pytest.param("sys.stdin", id="by the kernel, with a standard input that stays open", marks=linux),
    ],
)
def test_it_dies_with_a_parent_killed_by_9(stdin):
    weights = str(models.find("smollm2-135m").file)
    program = PARENT.replace("KEPT", stdin)
    with subprocess.Popen(
        [sys.executable, "-c", program, weights], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        child = int(parent.stdout.readline())
        assert _state(child) or sys.platform != "linux"
        parent.kill()
        parent.wait()
        assert gone(child)


@linux
def test_a_server_whose_parent_died_before_it_looked_leaves_without_loading_anything():
    command = local_server.command("/nowhere/weights.gguf", context=64, parallel=1)
    command[command.index("--parent") + 1] = "1"  # somebody else's child
    if os.getpid() == 1:
        pytest.skip("we are process 1")
    done = subprocess.run(command, stdin=subprocess.PIPE, capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")

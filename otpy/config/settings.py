"""`Settings`: everything that can be set, as one frozen value, checked as a whole.

Three sources, later ones win: a TOML file, environment variables (`OTPY_CLIENTS__DEFAULT__MODEL`), code. An error names
the setting, the value, its source and what is allowed; secrets appear nowhere.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, Self, cast

from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator

from otpy.config.client_settings import (
    BreakerSettings,
    BudgetSettings,
    ClientSettings,
    Frozen,
    RetrySettings,
    RouteSettings,
    wrong,
)
from otpy.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic_core import ErrorDetails

__all__ = [
    "BreakerSettings",
    "BudgetSettings",
    "CacheSettings",
    "ClientSettings",
    "RecordingSettings",
    "RetrySettings",
    "RouteSettings",
    "Settings",
]

PREFIX: Final = "OTPY_"
"""Environment variables that are settings begin with this; `__` stands for the dot."""
NO_SETTINGS: Final = frozenset({"OTPY_CACHE_DIR", "OTPY_DEBUG"})
"""Environment variables with the prefix that are something else."""


def _without_nul(path: Path | None) -> Path | None:
    if path is not None and "\0" in str(path):
        raise ValueError("a path holds no NUL character")
    return path


class CacheSettings(Frozen):
    """Where answers are remembered.

    Args:
        enabled: Whether at all.
        disk: Whether on disk as well as in memory.
        path: The SQLite file; by default `answers.sqlite` in the cache directory.
        max_memory_entries: Answers kept in memory, at least 1.
        max_bytes: How big the file may get, at least 1,000,000; the answers used least recently go first. `None` for
            any size.
        ttl: Seconds after which an answer is asked for anew; `None` for never.
        namespace: Keeps the answers of a project or an experiment apart from others in the same file: neither finds
            the other's, and they are cleared and counted apart. Letters, digits, `_`, `-` and `.`, up to 64.
    """

    enabled: bool = True
    disk: bool = True
    path: Path | None = None
    max_memory_entries: int = Field(default=100_000, ge=1)
    max_bytes: int | None = Field(default=1_073_741_824, ge=1_000_000)
    ttl: float | None = Field(default=None, gt=0)
    namespace: str = "default"

    @field_validator("path")
    @classmethod
    def _a_real_path(cls, path: Path | None) -> Path | None:
        return _without_nul(path)

    @field_validator("namespace")
    @classmethod
    def _a_plain_name(cls, namespace: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", namespace):
            raise ValueError("allowed: 1 to 64 letters, digits, '_', '-' and '.'")
        return namespace

    def resolved_path(self) -> Path | None:
        """Return the file, or `None` for memory only."""
        if not self.disk:
            return None
        if self.path is not None:
            return self.path
        from otpy.config.local_models import cache_dir  # noqa: PLC0415 - a function beside a table

        return cache_dir() / "answers.sqlite"


class RecordingSettings(Frozen):
    """Where what is asked and answered is recorded, and replayed from.

    Args:
        path: The file, one JSON object a line; `None` for no recording.
        mode: `"record"` asks always, and adds to the file; `"replay"` never asks, and what is not in the file is an
            error that shows the difference; `"until_divergence"` answers from the file up to the first request that is
            not there, and from then on asks, and records that anew.
    """

    path: Path | None = None
    mode: Literal["record", "replay", "until_divergence"] = "until_divergence"

    @model_validator(mode="after")
    def _somewhere(self) -> Self:
        if self.path is None and "mode" in self.model_fields_set:
            raise wrong("path", "is missing; name the file of the recording, or leave mode out")
        return self


class Settings(Frozen):
    """Everything that can be set.

    Args:
        clients: Clients by name; programs ask `"default"` unless told otherwise.
        routes: Several clients under one name.
        cache: Where answers are remembered.
        budget: Hard caps on everything that is asked.
        history: How many requests and answers are kept to be looked at; 0 for none.
        recording: Where what is asked and answered is recorded, and replayed from.

    Example:
        >>> from otpy.config import Settings
        >>> settings = Settings.load(None, {}, {"clients": {"default": {"model": "openai/gpt-x"}}})
        >>> settings.changed(**{"clients.default.temperature": 0.5}).clients["default"].temperature
        0.5
    """

    clients: dict[str, ClientSettings] = Field(default_factory=dict)
    routes: dict[str, RouteSettings] = Field(default_factory=dict)
    cache: CacheSettings = CacheSettings()
    budget: BudgetSettings = BudgetSettings()
    history: int = Field(default=1_000, ge=0)
    recording: RecordingSettings = RecordingSettings()

    @model_validator(mode="after")
    def _routes_lead_somewhere(self) -> Self:
        for name, route in self.routes.items():
            if name in self.clients:
                raise wrong(f"routes.{name}", "there is a client of this name")
            for member in route.members:
                if member not in self.clients:
                    known = ", ".join(self.clients)
                    raise wrong(f"routes.{name}", f"no client is called {member!r}; there are {known}")
        return self

    @classmethod
    def load(cls, file: Path | None, environ: Mapping[str, str], overrides: Mapping[str, Any]) -> Settings:
        """Read settings from a file, the environment and code, in this order.

        Args:
            file: A TOML file, or `None`.
            environ: Environment variables.
            overrides: A tree of values, which win.

        Raises:
            ConfigError: If the file cannot be read, or the whole does not hold together; one line a problem.
        """
        sources: dict[str, str] = {}
        tree: dict[str, Any] = {}
        if file is not None:
            try:
                read = tomllib.loads(file.read_text(encoding="utf-8"))
            except (OSError, ValueError) as error:
                raise ConfigError(f"{file}: cannot be read: {error}") from error
            _merge(tree, read, sources, str(file))
        for name, value in environ.items():
            if name.startswith(PREFIX) and name not in NO_SETTINGS:
                path = name.removeprefix(PREFIX).lower().split("__")
                _merge(tree, _nested(path, value), sources, f"environment variable {name}")
        _merge(tree, overrides, sources, "code")
        return _validated(tree, sources)

    def changed(self, **changes: Any) -> Settings:
        """Return settings with some values changed, checked as a whole.

        Args:
            changes: Dotted paths and their new values.

        Raises:
            ConfigError: If the result would not hold together.
        """
        tree = _thawed(self)
        for path, value in changes.items():
            _merge(tree, _nested(path.split("."), value), {}, "code")
        return _validated(tree, dict.fromkeys(changes, "code"))


def _thawed(model: BaseModel) -> dict[str, Any]:
    """Turn settings back into a tree, secrets still wrapped."""

    def thaw(value: Any) -> Any:
        if isinstance(value, BaseModel):
            return {name: thaw(getattr(value, name)) for name in value.model_fields_set}
        if isinstance(value, dict):
            return {name: thaw(item) for name, item in cast("dict[str, Any]", value).items()}
        return value

    return cast("dict[str, Any]", thaw(model))


def _nested(path: list[str], value: Any) -> dict[str, Any]:
    for name in reversed(path):
        value = {name: value}
    nested: dict[str, Any] = value
    return nested


def _merge(tree: dict[str, Any], above: Mapping[str, Any], sources: dict[str, str], source: str, at: str = "") -> None:
    for name, value in above.items():
        path = f"{at}{name}"
        if hasattr(value, "items"):
            below: Any = tree.get(name)
            if isinstance(below, BaseModel):
                below = _thawed(below)
            if below is not None and not isinstance(below, dict):
                was = f"{_shown(path, below)} (from {sources.get(path, 'code')})"
                raise ConfigError(f"{was}: is a table of settings, of which {source} sets {', '.join(value)}")
            tree[name] = dict(cast("dict[str, Any]", below or {}))
            _merge(tree[name], value, sources, source, f"{path}.")
        else:
            tree[name] = value
        sources[path] = source


def _validated(tree: dict[str, Any], sources: Mapping[str, str]) -> Settings:
    try:
        return Settings.model_validate(tree)
    except ValidationError as error:
        lines = [_line(item, tree, sources) for item in error.errors(include_url=False, include_input=False)]
        raise ConfigError("\n".join(lines)) from None


def _line(item: ErrorDetails, tree: dict[str, Any], sources: Mapping[str, str]) -> str:
    """Say in one line which setting is wrong, what it is, where it came from and what is allowed."""
    parts = [str(part) for part in item["loc"]]
    if item["type"] == "setting":
        parts.append(item.get("ctx", {})["setting"])
    path = ".".join(parts)
    source = next((found for n in range(len(parts), 0, -1) if (found := sources.get(".".join(parts[:n])))), "code")
    where = "" if source == "code" else f" (from {source})"
    message = item["msg"].removeprefix("Value error, ")
    if item["type"] == "missing":
        return f"{path}{where}: is missing"
    if item["type"] == "extra_forbidden":
        return f"{path}{where}: no such setting; there are {', '.join(_table(parts[:-1]).model_fields)}"
    if item["type"] == "model_type":
        message = f"is a table of settings: {', '.join(_table(parts).model_fields)}"
    value: Any = tree
    for part in parts:
        value = cast("dict[str, Any]", value).get(part) if isinstance(value, dict) else None
    return f"{_shown(path, value)}{where}: {message[0].lower()}{message[1:]}"


def _table(parts: list[str]) -> type[BaseModel]:  # noqa: PLR0911 - a table of tables
    """Which settings are to be found at a path."""
    match parts:
        case ["clients", _, "retry", *_]:
            return RetrySettings
        case ["clients", _, "breaker", *_]:
            return BreakerSettings
        case ["clients", _, "budget", *_] | ["budget", *_]:
            return BudgetSettings
        case ["clients", _, *_]:
            return ClientSettings
        case ["routes", _, *_]:
            return RouteSettings
        case ["cache", *_]:
            return CacheSettings
        case ["recording", *_]:
            return RecordingSettings
        case _:
            return Settings


def _shown(path: str, value: Any) -> str:
    """Show a setting and its value, unless the value may hold a secret."""
    plain = isinstance(value, (str, int, float, Path)) and "@" not in str(value)
    return f"{path}={value!r}" if plain and not path.endswith(".api_key") else path

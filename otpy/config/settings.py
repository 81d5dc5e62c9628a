"""`Settings`: everything that can be set, as one frozen value, checked as a whole.

Three sources, later ones win: a TOML file, environment variables (`OTPY_CLIENTS__DEFAULT__MODEL`), code. An error names
the setting, the value, its source and what is allowed; secrets appear nowhere.
"""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal, Self, cast
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_core import PydanticCustomError

from otpy.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic_core import ErrorDetails

__all__ = ["BreakerSettings", "CacheSettings", "ClientSettings", "RetrySettings", "Settings"]

PREFIX: Final = "OTPY_"
"""Environment variables that are settings begin with this; `__` stands for the dot."""
NO_SETTINGS: Final = frozenset({"OTPY_CACHE_DIR", "OTPY_DEBUG"})
"""Environment variables with the prefix that are something else."""

PROVIDERS: Final[Mapping[str, tuple[str | None, str | None, str]]] = {
    "openai": ("https://api.openai.com/v1", "OPENAI_API_KEY", "openai"),
    "openrouter": ("https://openrouter.ai/api/v1", "OPENROUTER_API_KEY", "generic"),
    "groq": ("https://api.groq.com/openai/v1", "GROQ_API_KEY", "generic"),
    "together": ("https://api.together.xyz/v1", "TOGETHER_API_KEY", "generic"),
    "mistral": ("https://api.mistral.ai/v1", "MISTRAL_API_KEY", "generic"),
    "deepseek": ("https://api.deepseek.com/v1", "DEEPSEEK_API_KEY", "generic"),
    "ollama": ("http://127.0.0.1:11434/v1", None, "generic"),
    "vllm": ("http://127.0.0.1:8000/v1", None, "generic"),
    "llama_cpp": ("http://127.0.0.1:8080/v1", None, "llama_cpp"),
    "local": (None, None, "llama_cpp"),
}
"""What is known of a provider: where it is, which variable holds its key, how its server wants to be asked."""


class _Frozen(BaseModel):
    model_config: ClassVar[ConfigDict] = ConfigDict(
        frozen=True, extra="forbid", protected_namespaces=(), hide_input_in_errors=True, allow_inf_nan=False
    )


class RetrySettings(_Frozen):
    """How a failed request is tried again.

    Args:
        max_attempts: Attempts in all, at least 1.
        base: Seconds before the second attempt, before jitter; doubled each time.
        cap: Longest wait between attempts, in seconds.
        max_wait: If a provider asks for a longer wait than this, in seconds, the request fails instead.
    """

    max_attempts: int = Field(default=5, ge=1)
    base: float = Field(default=0.5, gt=0)
    cap: float = Field(default=20.0, gt=0)
    max_wait: float = Field(default=120.0, ge=0)


class BreakerSettings(_Frozen):
    """When a client stops asking a provider that keeps failing.

    Args:
        fail_max: Failures in a row that open the circuit, at least 1.
        reset_timeout: Seconds until one trial request is let through.
    """

    fail_max: int = Field(default=5, ge=1)
    reset_timeout: float = Field(default=5.0, gt=0)


class ClientSettings(_Frozen):
    """One client: a model, where it is, and how it may be asked.

    Args:
        model: `"provider/model"`, as in `"local/smollm2-135m"` or `"openai/gpt-x"`.
        base_url: Where the API is; known for the usual providers.
        api_key: The key; better kept in the environment.
        api_key_env: The environment variable that holds the key; known for the usual providers.
        temperature: For requests that say none; by default the provider's own, and 0 for a local model.
        max_tokens: For requests that say none.
        timeout: Seconds for one attempt at a request.
        max_concurrency: Requests in flight at the same time; `None` for any number (of a local model, `parallel` + 1).
        requests_per_minute: The provider's limit; `None` for none.
        parallel: Requests a local model's server works on at the same time. With one, all of them share the cached
            beginning of the prompt, which on a few cores is faster than several at once.
        cache: Whether answers are remembered.
        profile: How the server wants to be asked; known for the usual providers.
        retry: How a failed request is tried again.
        breaker: When to stop asking.
    """

    model: str
    base_url: str | None = None
    api_key: SecretStr | None = None
    api_key_env: str | None = None
    temperature: float | None = Field(default=None, ge=0)
    max_tokens: int | None = Field(default=None, ge=1)
    timeout: float = Field(default=120.0, gt=0)
    max_concurrency: int | None = Field(default=None, ge=1)
    requests_per_minute: int | None = Field(default=None, ge=1)
    parallel: int = Field(default=1, ge=1, le=64)
    cache: bool = True
    profile: Literal["generic", "openai", "llama_cpp"] | None = None
    retry: RetrySettings = RetrySettings()
    breaker: BreakerSettings = BreakerSettings()

    @field_validator("model")
    @classmethod
    def _provider_and_model(cls, model: str) -> str:
        provider, _, name = model.partition("/")
        if not provider or not name:
            raise ValueError("write it as 'provider/model', as in 'local/smollm2-135m'")
        return model

    @field_validator("base_url")
    @classmethod
    def _address(cls, base_url: str | None) -> str | None:
        if base_url is None:
            return None
        try:
            parts = urlsplit(base_url)
            whole = (
                parts.scheme in {"http", "https"} and bool(parts.hostname) and (parts.port is None or parts.port > 0)
            )
        except ValueError:
            whole = False
        else:
            whole = whole and parts.username is None and not parts.query and not parts.fragment
        if not whole or not base_url.isascii() or not base_url.isprintable() or " " in base_url:
            raise ValueError("write it as http(s)://host[:port][/path]; a key belongs into api_key")
        return base_url.rstrip("/")

    @field_validator("api_key")
    @classmethod
    def _key(cls, api_key: SecretStr | None) -> SecretStr | None:
        return None if api_key is None else _sendable(api_key.get_secret_value())

    @model_validator(mode="after")
    def _known_provider(self) -> Self:
        if self.provider not in PROVIDERS and self.base_url is None:
            raise _wrong(
                "model",
                f"unknown provider {self.provider!r}; known: {', '.join(PROVIDERS)};"
                f" any other OpenAI-compatible server needs base_url",
            )
        if self.is_local:
            from otpy.config.local_models import LOCAL_MODELS  # noqa: PLC0415 - a table

            if self.model_name not in LOCAL_MODELS:
                raise _wrong("model", f"unknown local model; known: {', '.join(LOCAL_MODELS)}")
            if self.base_url is not None:
                raise _wrong("base_url", "a local model has its own server; leave it out")
        return self

    @property
    def provider(self) -> str:
        """The part of `model` before the slash."""
        return self.model.partition("/")[0]

    @property
    def model_name(self) -> str:
        """The part of `model` after the slash: the provider's own name of it."""
        return self.model.partition("/")[2]

    @property
    def is_local(self) -> bool:
        """Whether the model runs in a server of ours."""
        return self.provider == "local"

    @property
    def in_flight(self) -> int | None:
        """Requests that may be in flight: as set; a local model gets what its server works on, and one to come."""
        if not self.is_local:
            return self.max_concurrency
        return min(self.max_concurrency or self.parallel + 1, self.parallel + 1)

    @property
    def url(self) -> str | None:
        """Where the API is; `None` for a local model, whose server says where it came up."""
        return self.base_url or PROVIDERS.get(self.provider, (None, None, ""))[0]

    @property
    def effective_profile(self) -> str:
        """The profile, given or known."""
        return self.profile or (PROVIDERS[self.provider][2] if self.provider in PROVIDERS else "generic")

    @property
    def cache_context(self) -> tuple[str, ...]:
        """What, besides the request, decides an answer: part of every cache key."""
        where = "local" if self.is_local else str(self.url)
        return (self.model, where, repr(self.effective_temperature), repr(self.max_tokens))

    @property
    def effective_temperature(self) -> float | None:
        """The temperature of requests that say none: what is set, and 0 for a local model, whose runs then repeat."""
        return 0.0 if self.temperature is None and self.is_local else self.temperature

    def resolved_api_key(self, environ: Mapping[str, str] | None = None) -> SecretStr | None:
        """Return the key, from the settings or the environment.

        Raises:
            ConfigError: If the provider needs a key and there is none, or it cannot be sent; the message names the
                variable.
        """
        if self.api_key is not None:
            return self.api_key
        environ = os.environ if environ is None else environ
        variable = self.key_variable
        if variable is None:
            return None
        value = environ.get(variable)
        if not value:
            raise ConfigError(
                f"no API key for {self.model}: set the environment variable {variable}, or api_key= in the settings"
            )
        try:
            return _sendable(value)
        except ValueError as error:
            raise ConfigError(f"the API key for {self.model} in the environment variable {variable}: {error}") from None

    @property
    def key_variable(self) -> str | None:
        """The environment variable that may hold the key."""
        known = PROVIDERS.get(self.provider, (None, None, ""))
        return self.api_key_env or (known[1] if self.base_url in {None, known[0]} else None)

    @property
    def key_source(self) -> str:
        """Where the key is taken from, in words for an error."""
        if self.api_key is not None:
            return "api_key in the settings"
        if self.key_variable is not None:
            return f"the environment variable {self.key_variable}"
        return "whether the server wants a key: none was sent; set api_key, or name its variable in api_key_env"


def _sendable(key: str) -> SecretStr:
    """Refuse, without showing it, a key that no HTTP header can carry."""
    key = key.strip()
    if not key:
        raise ValueError("it is empty; leave it out if the server needs none")
    if not key.isascii() or not key.isprintable():
        raise ValueError("it holds a character that no HTTP header can carry; copy it again")
    return SecretStr(key)


def _wrong(setting: str, why: str) -> PydanticCustomError:
    """Blame one setting for what shows only beside the others."""
    return PydanticCustomError("setting", "{why}", {"setting": setting, "why": why})


class CacheSettings(_Frozen):
    """Where answers are remembered.

    Args:
        enabled: Whether at all.
        disk: Whether on disk as well as in memory.
        path: The SQLite file; by default `answers.sqlite` in the cache directory.
        max_memory_entries: Answers kept in memory, at least 1.
    """

    enabled: bool = True
    disk: bool = True
    path: Path | None = None
    max_memory_entries: int = Field(default=100_000, ge=1)

    def resolved_path(self) -> Path | None:
        """Return the file, or `None` for memory only."""
        if not self.disk:
            return None
        if self.path is not None:
            return self.path
        from otpy.config.local_models import cache_dir  # noqa: PLC0415 - a function beside a table

        return cache_dir() / "answers.sqlite"


class Settings(_Frozen):
    """Everything that can be set.

    Args:
        clients: Clients by name; programs ask `"default"` unless told otherwise.
        cache: Where answers are remembered.

    Example:
        >>> from otpy.config import Settings
        >>> settings = Settings.load(None, {}, {"clients": {"default": {"model": "openai/gpt-x"}}})
        >>> settings.changed(**{"clients.default.temperature": 0.5}).clients["default"].temperature
        0.5
    """

    clients: dict[str, ClientSettings] = Field(default_factory=dict)
    cache: CacheSettings = CacheSettings()

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


def _table(parts: list[str]) -> type[BaseModel]:
    """Which settings are to be found at a path."""
    match parts:
        case ["clients", _, "retry", *_]:
            return RetrySettings
        case ["clients", _, "breaker", *_]:
            return BreakerSettings
        case ["clients", _, *_]:
            return ClientSettings
        case ["cache", *_]:
            return CacheSettings
        case _:
            return Settings


def _shown(path: str, value: Any) -> str:
    """Show a setting and its value, unless the value may hold a secret."""
    plain = isinstance(value, (str, int, float, Path)) and "@" not in str(value)
    return f"{path}={value!r}" if plain and not path.endswith(".api_key") else path

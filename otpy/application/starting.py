"""`otpy.start`: from keyword arguments, a file and the environment to an application."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from otpy.application.app import Application
from otpy.config.settings import Settings
from otpy.errors import ConfigError

if TYPE_CHECKING:
    from decimal import Decimal

    from pydantic import SecretStr

    from otpy.clients.recording import Mode

__all__ = ["start"]


def start(  # noqa: PLR0913 - the shorthand for everything one client needs
    lm: str | None = None,
    *,
    base_url: str | None = None,
    api_key: str | SecretStr | None = None,
    profile: str | None = None,
    temperature: float | None = None,
    max_tokens: int | None = None,
    timeout: float | None = None,
    cache: bool | None = None,
    max_concurrency: int | None = None,
    requests_per_minute: int | None = None,
    input_price: Decimal | float | str | None = None,
    output_price: Decimal | float | str | None = None,
    recording: str | Path | None = None,
    recording_mode: Mode | None = None,
    settings: Settings | dict[str, Any] | str | Path | None = None,
    name: str = "otpy",
) -> Application:
    """Prepare an application; `with` (or `async with`) starts its tree and stops it again.

    The keywords are shorthand for one client called `default`. Several clients, and everything else, come from
    `settings`, from the file `otpy.toml` in the current directory, and from environment variables such as
    `OTPY_CLIENTS__DEFAULT__MODEL`; later ones win: file, environment, code.

    Args:
        lm: The model, as `"provider/model"`: `"local/smollm2-135m"`, `"openai/gpt-x"`.
        base_url: Where the API is, for any OpenAI-compatible server, or one of another dialect with its `profile`.
        api_key: The key; better kept in the provider's environment variable.
        profile: How the server wants to be asked, as `"anthropic"`; known for the usual providers.
        temperature: Sampling temperature, from 0.
        max_tokens: Longest answer, in tokens.
        timeout: Seconds for one attempt at a request.
        cache: Whether answers are remembered, in memory and on disk.
        max_concurrency: Requests in flight at the same time, at least 1.
        requests_per_minute: The provider's limit.
        input_price: Dollars per million tokens read, where no published price is known, as for a server of one's own.
        output_price: Dollars per million tokens written; the two are given together.
        recording: The file in which what is asked and answered is recorded, and from which it is replayed.
        recording_mode: `"record"`, `"replay"` (nothing is ever sent), or `"until_divergence"`, the default: what has
            not changed is replayed, and the rest is asked and recorded.
        settings: A `Settings`, a dictionary of the same shape, or the path of a TOML file.
        name: The application's name.

    Raises:
        ConfigError: If the settings do not hold together; the message names the setting and where it came from.

    Example:
        >>> import otpy
        >>> otpy.start(lm="openai/some-model", api_key="sk-secret")
        <Application 'otpy', not running>
    """
    client = {
        "model": lm,
        "base_url": base_url,
        "api_key": api_key,
        "profile": profile,
        "temperature": temperature,
        "max_tokens": max_tokens,
        "timeout": timeout,
        "max_concurrency": max_concurrency,
        "requests_per_minute": requests_per_minute,
        "input_price": input_price,
        "output_price": output_price,
    }
    overrides: dict[str, Any] = {}
    given = {key: value for key, value in client.items() if value is not None}
    if given:
        overrides["clients"] = {"default": given}
    if cache is not None:
        overrides["cache"] = {"enabled": cache}
    tape = {"path": recording, "mode": recording_mode}
    if recorded := {key: value for key, value in tape.items() if value is not None}:
        overrides["recording"] = recorded
    if isinstance(settings, Settings):
        base = settings
        if overrides:
            base = base.changed(**_dotted(overrides))
        return Application(base, name)
    file = Path(settings) if isinstance(settings, (str, Path)) else Path("otpy.toml")
    if isinstance(settings, (str, Path)) and not file.exists():
        raise ConfigError(f"settings={str(settings)!r}: no such file")
    if isinstance(settings, dict):
        overrides = _merged(settings, overrides)
    return Application(Settings.load(file if file.exists() else None, os.environ, overrides), name)


def _merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        if isinstance(old, dict) and isinstance(value, dict):
            merged[key] = _merged(cast("dict[str, Any]", old), cast("dict[str, Any]", value))
        else:
            merged[key] = value
    return merged


def _dotted(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat |= _dotted(cast("dict[str, Any]", value), f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat

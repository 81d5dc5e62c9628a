"""A further client for settings that are in use: what may be added, and what may not."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from otpy.actors import Call
from otpy.config.settings import Settings
from otpy.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["AddClient", "DropClient", "with_client", "without_client"]


@dataclass(frozen=True, slots=True)
class AddClient(Call[Any]):
    """Ask the config manager for a client more; the answer is the new settings, or a `ConfigError`.

    Args:
        name: The client's name.
        settings: What the client is, as in `ClientSettings`.
    """

    name: str
    settings: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class DropClient(Call[Any]):
    """Ask the config manager to forget a client that was just added, and could not be started.

    Args:
        name: The client's name.
    """

    name: str


def with_client(before: Settings, name: str, settings: Mapping[str, Any]) -> Settings:
    """Return settings with a client more; the same if they have it already.

    Args:
        before: The settings in use.
        name: The client's name.
        settings: What the client is.

    Raises:
        ConfigError: If it is wrong, has caps, lacks a key, or another client or a route has the name.

    Example:
        >>> from otpy.config.adding import with_client
        >>> from otpy.config.settings import Settings
        >>> sorted(with_client(Settings(), "second", {"model": "local/smollm2-135m"}).clients)
        ['second']
    """
    client = Settings.load(None, {}, {"clients": {name: settings}}).clients[name]
    known = before.clients.get(name)
    if known == client:
        return before
    if known is not None:
        raise ConfigError(f"there is a client {name!r} already, {known.model} with other settings; choose another name")
    if client.budget.caps:
        raise ConfigError(f"clients.{name}.budget: caps are set when the application starts; leave it out")
    client.resolved_api_key()
    if client.provider == "litellm" and importlib.util.find_spec("litellm") is None:
        raise ConfigError(f"{client.model} needs litellm: pip install 'otpy-framework[litellm]'")
    return before.changed(clients={name: settings})


def without_client(before: Settings, name: str) -> Settings:
    """Return settings without a client.

    Args:
        before: The settings in use.
        name: The client's name; that there is none is no error.
    """
    return before.model_copy(update={"clients": {key: one for key, one in before.clients.items() if key != name}})

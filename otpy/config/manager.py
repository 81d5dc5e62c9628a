"""`ConfigManager`: the process that holds the one frozen `Settings`, and tells subscribers when it is replaced.

A change is validated as a whole; an invalid one changes nothing. Whoever wants the current settings reads the
manager's snapshot, which needs no message; whoever must act on a change subscribes.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from otpy.actors import Call, Cast, Down, GenServer, NoReply, Ref, monitor
from otpy.config.adding import AddClient, DropClient, with_client, without_client
from otpy.errors import ConfigError
from otpy.telemetry import bus as telemetry

if TYPE_CHECKING:
    from pydantic import SecretStr

    from otpy.actors import Caller
    from otpy.config.client_settings import ClientSettings
    from otpy.config.settings import Settings

__all__ = ["Change", "ConfigManager", "CurrentSettings", "SettingsBox", "SettingsChanged", "Subscribe"]


@dataclass(frozen=True, slots=True)
class CurrentSettings(Call[Any]):
    """Ask for the settings."""


@dataclass(frozen=True, slots=True)
class Change(Call[Any]):
    """Ask for a change; the answer is the new settings, or a `ConfigError` and nothing has changed.

    Args:
        changes: Dotted paths and their new values, as in `{"clients.default.temperature": 0.7}`.
    """

    changes: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Subscribe(Call[Any]):
    """Ask to be told of changes, by a `SettingsChanged` cast; the answer is the settings as they are now.

    Args:
        process: Who wants to know.
    """

    process: Ref[Any]


@dataclass(frozen=True, slots=True)
class SettingsChanged(Cast):
    """The settings have been replaced.

    Args:
        settings: The new ones.
        fields: The dotted paths that were changed.
    """

    settings: Settings
    fields: tuple[str, ...]


class SettingsBox:
    """Where the current settings can be read without asking; it outlives the manager, whose crash loses no change.

    Args:
        settings: The settings to begin with.
    """

    __slots__ = ("_keys", "current")

    def __init__(self, settings: Settings) -> None:
        """Hold the first settings."""
        self.current = settings
        self._keys: dict[str | None, SecretStr] = {}

    def key_of(self, client: ClientSettings) -> SecretStr | None:
        """Return a client's key; one that was in the environment once is remembered when it is taken out.

        Args:
            client: The client's settings.

        Raises:
            ConfigError: If it needs one and there never was one.
        """
        try:
            key = client.resolved_api_key()
        except ConfigError:
            if client.key_variable not in self._keys:
                raise
            return self._keys[client.key_variable]
        if key is not None and client.api_key is None:
            self._keys[client.key_variable] = key
        return key


def check_change(before: Settings, after: Settings) -> None:
    """Refuse settings that a running tree could not take over.

    Args:
        before: The settings it runs with.
        after: Those it is to run with.

    Raises:
        ConfigError: If clients come or go, one moves between this machine and a provider, or a key is missing, or a
            cap, the length of the history, a recording or the cache's file changes; each needs another tree: start a
            new application.
    """
    kept: dict[str, tuple[object, object]] = {
        "budget": (after.budget, before.budget),
        "history": (after.history, before.history),
        "recording": (after.recording, before.recording),
        "cache.path": (after.cache.path, before.cache.path),
        "cache.disk": (after.cache.disk, before.cache.disk),
    }
    for setting, (new, old) in kept.items():
        if new != old:
            raise ConfigError(f"{setting} cannot change while the application runs; start a new application")
    if after.cache.enabled and not before.cache.enabled:
        raise ConfigError("cache.enabled cannot be turned on while the application runs; start a new application")
    if before.clients.keys() != after.clients.keys():
        changed = ", ".join(map(repr, sorted(before.clients.keys() ^ after.clients.keys())))
        raise ConfigError(f"clients cannot come or go while the application runs: {changed}; start a new application")
    for name, client in after.clients.items():
        _check_client(name, before.clients[name], client)


def _check_client(name: str, was: ClientSettings, client: ClientSettings) -> None:
    for setting in ("budget", "limits_storage"):
        if getattr(client, setting) != getattr(was, setting):
            raise ConfigError(
                f"clients.{name}.{setting} cannot change while the application runs; start a new application"
            )
    if client.is_local != was.is_local or (client.is_local and client.model != was.model):
        raise ConfigError(
            f"client {name!r} cannot change from {was.model!r} to {client.model!r} while the application runs: a local"
            " model's server is part of the tree; start a new application"
        )
    if (client.model, client.api_key, client.key_variable) != (was.model, was.api_key, was.key_variable):
        client.resolved_api_key()
        if client.provider == "litellm" and importlib.util.find_spec("litellm") is None:
            raise ConfigError(f"{client.model} needs litellm: pip install 'otpy-framework[litellm]'")


def _changed(before: Settings, request: Change | AddClient | DropClient) -> tuple[tuple[str, ...], Settings]:
    match request:
        case Change(changes):
            after = before.changed(**changes)
            check_change(before, after)
            return tuple(changes), after
        case AddClient(name, settings):
            return (f"clients.{name}",), with_client(before, name, settings)
        case DropClient(name):
            return (f"clients.{name}",), without_client(before, name)


class ConfigManager(GenServer):
    """Holds the settings; the only one that replaces them."""

    def init(self, box: SettingsBox) -> None:
        """Take over the settings in the box."""
        self.box = box
        self.subscribers: dict[Ref[Any], None] = {}

    def handle_call(self, request: Any, caller: Caller) -> Any:
        """Answer `CurrentSettings`, `Change`, `AddClient`, `DropClient` and `Subscribe`."""
        match request:
            case CurrentSettings():
                return self.box.current
            case Change() | AddClient() | DropClient():
                before = self.box.current
                try:
                    fields, self.box.current = _changed(before, request)
                except ConfigError as error:
                    caller.fail(error)
                    return NoReply()
                if self.box.current is before:
                    return before
                telemetry.emit("otpy.config.change", fields=fields)
                for subscriber in self.subscribers:
                    subscriber.cast(SettingsChanged(self.box.current, fields))
                return self.box.current
            case Subscribe(process):
                if process not in self.subscribers:
                    self.subscribers[process] = None
                    monitor(process)
                return self.box.current
            case _:
                return super().handle_call(request, caller)

    def handle_info(self, message: Any) -> None:
        """Forget a subscriber that is gone."""
        if isinstance(message, Down):
            self.subscribers.pop(message.process, None)

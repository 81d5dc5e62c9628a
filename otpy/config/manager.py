"""`ConfigManager`: the process that holds the one frozen `Settings`, and tells subscribers when it is replaced.

A change is validated as a whole; an invalid one changes nothing. Whoever wants the current settings reads the
manager's snapshot, which needs no message; whoever must act on a change subscribes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from otpy.actors import Call, Cast, Down, GenServer, NoReply, Ref, monitor
from otpy.errors import ConfigError
from otpy.telemetry import bus as telemetry

if TYPE_CHECKING:
    from otpy.actors import Caller
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

    __slots__ = ("current",)

    def __init__(self, settings: Settings) -> None:
        """Hold the first settings."""
        self.current = settings


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
        if client.budget != before.clients[name].budget:
            raise ConfigError(
                f"clients.{name}.budget cannot change while the application runs; start a new application"
            )
        if client.is_local != before.clients[name].is_local or (
            client.is_local and client.model != before.clients[name].model
        ):
            raise ConfigError(
                f"client {name!r} cannot change from {before.clients[name].model!r} to {client.model!r} while the"
                " application runs: a local model's server is part of the tree; start a new application"
            )
        if client.limits_storage != before.clients[name].limits_storage:
            raise ConfigError(
                f"clients.{name}.limits_storage cannot change while the application runs; start a new application"
            )
        if (client.model, client.url) != (before.clients[name].model, before.clients[name].url):
            client.resolved_api_key()


class ConfigManager(GenServer):
    """Holds the settings; the only one that replaces them."""

    def init(self, box: SettingsBox) -> None:
        """Take over the settings in the box."""
        self.box = box
        self.subscribers: dict[Ref[Any], None] = {}

    def handle_call(self, request: Any, caller: Caller) -> Any:
        """Answer `CurrentSettings`, `Change` and `Subscribe`."""
        match request:
            case CurrentSettings():
                return self.box.current
            case Change(changes):
                try:
                    proposed = self.box.current.changed(**changes)
                    check_change(self.box.current, proposed)
                    self.box.current = proposed
                except ConfigError as error:
                    caller.fail(error)
                    return NoReply()
                fields = tuple(changes)
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

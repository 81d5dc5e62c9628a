"""`SharedLimits`: the process that fetches one client's slices of a budget which several machines share.

The budget is counted at a Redis server. Asking it takes time and may fail, so a process of its own does, in a thread;
the client tells it what is wanted and hears what was granted. While the server is away the client goes on with an equal
share of the budget, counted here.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from otpy.actors import Cast, GenServer, send_interval, whereis
from otpy.clients.limiter_storage import Resource, SharedMinute
from otpy.errors import RateLimited
from otpy.telemetry import bus as telemetry
from otpy.telemetry.reports import reports

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from otpy.config.client_settings import ClientSettings
    from otpy.config.manager import SettingsBox

__all__ = ["Granted", "SharedBudget", "SharedLimits", "Take", "key_of"]

logger = reports("otpy")

LOOK: Final = 2.0
"""Seconds between two looks at who else shares, and at a server that is away."""
UNKNOWN: Final = 10
"""The part of the budget that is gone on with if the server was never there to say how many share it: a tenth."""


@dataclass(frozen=True, slots=True)
class Take(Cast):
    """Ask for slices.

    Args:
        wanted: For each resource how much, and the bound per minute; `Limiter.wanted` says it.
    """

    wanted: Mapping[Resource, tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Granted(Cast):
    """What a client hears: slices, and how the budget stands.

    Args:
        taken: How much, by resource.
        waits: Seconds before it makes sense to ask for more, of what there was too little of.
        shared: How the shared budget stands, as plain data.
    """

    taken: Mapping[Resource, int]
    waits: Mapping[Resource, float]
    shared: Mapping[str, Any]


class SharedBudget:
    """A shared budget, or an equal share of it while it cannot be asked for.

    Args:
        shared: The budget.
        alone: What is counted here meanwhile.
        tell: Called when the budget goes away, with the reason, and when it is back, with `None`.

    Example:
        >>> from otpy.clients.limiter_storage import SharedMinute
        >>> from otpy.clients.shared_limits import SharedBudget
        >>> budget = SharedBudget(SharedMinute.memory("openai"), SharedMinute.memory("openai"), print)
        >>> budget.look()
        >>> budget.take({"requests": (2, 600)}), budget.clients
        (({'requests': 2}, {}), 1)
    """

    def __init__(self, shared: SharedMinute, alone: SharedMinute, tell: Callable[[RateLimited | None], object]) -> None:
        """Ask nobody yet."""
        self._shared, self._alone, self._tell = shared, alone, tell
        self.clients: int | None = None
        self.away = False

    def rename(self, key: str) -> None:
        """Share another budget from now on: the settings name another model."""
        if key != self._shared.key:
            self._shared.key = self._alone.key = key
            self._shared.forget()

    def look(self) -> None:
        """See how many share it, and whether it is back if it was away."""
        try:
            self.clients = self._shared.meet()
        except RateLimited as error:
            self._lost(error)
            return
        if self.away:
            self.away = False
            self._tell(None)

    def take(
        self, wanted: Mapping[Resource, tuple[int, int]]
    ) -> tuple[Mapping[Resource, int], Mapping[Resource, float]]:
        """Take slices, as `SharedMinute.take` does; while the budget is away, of an equal share of it."""
        if not self.away:
            with contextlib.suppress(RateLimited):  # a connection that was closed meanwhile; the next one is new
                return self._shared.take(wanted)
            try:
                return self._shared.take(wanted)
            except RateLimited as error:
                self._lost(error)
        among = self.clients or UNKNOWN
        share: dict[Resource, tuple[int, int]] = {
            resource: (amount, max(bound // among, 1)) for resource, (amount, bound) in wanted.items()
        }
        return self._alone.take(share)

    def _lost(self, error: RateLimited) -> None:
        self._shared.forget()
        if not self.away:
            self.away = True
            self._tell(error)


class SharedLimits(GenServer):
    """Fetches slices of a shared budget for one client.

    Args (of `child_spec`):
        client: The client's name.
        box: Where the settings are.
    """

    scheduling = "thread"

    def init(self, client: str, box: SettingsBox) -> None:
        """Open the storage; the server is asked later, since no client needs it to start.

        Raises:
            ConfigError: If the address is none, or the Redis client is not installed.
        """
        self.client, self.box = client, box
        settings = box.current.clients[client]
        assert settings.limits_storage is not None, "the tree has no such process without"
        url = settings.limits_storage.get_secret_value()
        parts = urlsplit(url)
        self.at = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
        key = key_of(settings)
        self.shared = SharedBudget(SharedMinute.redis(key, url), SharedMinute.memory(key), self._changed)
        send_interval(self.ref, LOOK, "look")
        self.ref.send("look")

    def handle_cast(self, message: Any) -> Any:
        """Take what is wanted."""
        if isinstance(message, Take):
            self.shared.rename(key_of(self.box.current.clients[self.client]))
            self._grant(*self.shared.take(message.wanted))
            return None
        return super().handle_cast(message)

    def handle_info(self, message: Any) -> None:
        """Look who else is there."""
        if message != "look":
            super().handle_info(message)
            return
        before = self.shared.clients
        self.shared.look()
        if self.shared.clients != before:
            self._grant()

    def format_status(self, state: Any) -> Any:
        """Leave out what holds the password."""
        return {**state, "box": "...", "shared": self.state()}

    def state(self) -> dict[str, Any]:
        """Return how the budget stands, as plain data."""
        return {"at": self.at, "state": "away" if self.shared.away else "shared", "clients": self.shared.clients}

    def _grant(
        self, taken: Mapping[Resource, int] | None = None, waits: Mapping[Resource, float] | None = None
    ) -> None:
        client = whereis(("client", self.client))
        if client is not None:
            client.cast(Granted(taken or {}, waits or {}, self.state()))

    def _changed(self, error: RateLimited | None) -> None:
        state = "shared" if error is None else "away"
        telemetry.emit("otpy.limits.storage", client=self.client, at=self.at, state=state, error=error)
        if error is None:
            logger.warning("client %r: the budget at %s is shared again", self.client, self.at)
        else:
            among = self.shared.clients or UNKNOWN
            logger.warning("client %r: %s (%s); it goes on with 1/%d of it", self.client, error, self.at, among)
        self._grant()


def key_of(settings: ClientSettings) -> str:
    """Return what a client shares its budget by: where its model is, and its name, as the provider counts.

    Example:
        >>> from otpy.clients.shared_limits import key_of
        >>> from otpy.config.client_settings import ClientSettings
        >>> key_of(ClientSettings(model="openai/gpt-x"))
        'https://api.openai.com/v1|gpt-x'
    """
    return f"{settings.url}|{settings.model_name}"

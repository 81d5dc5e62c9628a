"""What an application may get while it runs: further clients."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from otpy.application.coming_up import innermost
from otpy.config.adding import AddClient, DropClient
from otpy.errors import ActorDown, AlreadyRegistered, NotRegistered, StartFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from otpy.actors import ChildSpec, Names
    from otpy.config.client_settings import ClientSettings
    from otpy.config.settings import Settings
    from otpy.supervisors import SupervisorRef

__all__ = ["Growing"]

T = TypeVar("T")

RESTART_SECONDS: Final = 5.0
"""How long to wait for a supervisor that is being restarted."""


class Growing:
    """The part of an application that takes in further clients."""

    _names: Names
    _client: Callable[[str], ChildSpec] | None
    """Describes the subtree of a client; `None` where nobody is ever asked."""

    @property
    def settings(self) -> Settings:
        """The settings as they are now."""
        raise NotImplementedError

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the application's loop and wait for it."""
        raise NotImplementedError

    async def _call(self, name: object, request: Any) -> Any:
        raise NotImplementedError

    def add_client(self, name: str, **settings: Any) -> ClientSettings:
        """Take in a further client while running; one that is there already, with the same settings, is no error.

        It is supervised like the others, and comes back with them.

        Args:
            name: What programs call it.
            settings: As for the clients of `otpy.start`: `model="local/smollm2-135m"`.

        Returns:
            Its settings.

        Raises:
            ConfigError: If they are wrong, or a client or a route has the name; nothing has changed then.
            ModelNotAvailable: If it is a local model that is not here.

        Example:
            >>> import otpy
            >>> from otpy.testing import FakeProvider
            >>> with FakeProvider("Paris") as fake:
            ...     with otpy.start(lm="acme/m", base_url=fake.url("openai_chat"), cache=False) as app:
            ...         _ = app.add_client("second", model="acme/other", base_url=fake.url("openai_chat"))
            ...         print(otpy.Predict("question -> answer", client="second").client, list(app.settings.clients))
            second ['default', 'second']
        """
        return self.run(self.aadd_client(name, **settings))

    async def aadd_client(self, name: str, **settings: Any) -> ClientSettings:
        """Take in a further client, as `add_client` does, in async code on the application's loop."""
        known = name in self.settings.clients
        now = cast("Settings", await self._call("config", AddClient(name, settings)))
        try:
            if self._client is not None:
                await self._started(self._client(name))
        except Exception:
            if not known:
                with contextlib.suppress(ActorDown, NotRegistered):
                    await self._call("config", DropClient(name))
            raise
        return now.clients[name]

    async def _started(self, spec: ChildSpec) -> None:
        while True:
            supervisor = cast("SupervisorRef", await self._names.wait_for("clients", RESTART_SECONDS))
            try:
                await supervisor.start_child(spec)
            except AlreadyRegistered:  # it came back with the others meanwhile, or was there
                return
            except StartFailed as failed:
                raise innermost(failed) from failed
            except ActorDown:
                continue
            return

"""What was said is kept: under the client that answered, at its price, and without the keys."""

from __future__ import annotations

import contextlib
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from otpy.clients.charging import Tariff
from otpy.clients.history import Exchange, number_of
from otpy.clients.labels import current_labels
from otpy.clients.routed import last_asked
from otpy.errors import ConfigError

if TYPE_CHECKING:
    from otpy.clients.book import Book
    from otpy.clients.history import History
    from otpy.config.manager import SettingsBox
    from otpy.config.settings import ClientSettings, Settings
    from otpy.lm import LMRequest, LMResponse

__all__ = ["Keeping"]


class Keeping:
    """Puts what is asked and answered into an application's history.

    Args:
        history: The history.
        box: The current settings.
        book: The application's book.
    """

    def __init__(self, history: History, box: SettingsBox, book: Book) -> None:
        """Hide the keys of the settings as they are."""
        self._history, self._box, self._book = history, box, book
        self._keys_of: Settings | None = None
        self._tariffs: dict[str, tuple[ClientSettings, Tariff]] = {}
        self._settings()

    def begin(self) -> tuple[datetime, float]:
        """Return when a question was asked: on the wall clock, and to count from."""
        self._settings()
        return datetime.now(UTC), time.perf_counter()

    def end(
        self,
        client: str,
        request: LMRequest,
        response: LMResponse | None,
        problem: BaseException | None,
        began: tuple[datetime, float],
    ) -> None:
        """Keep what came of it.

        Args:
            client: Who was asked, or the route.
            request: What was asked.
            response: What was answered, if it was.
            problem: Why it was not.
            began: What `begin` returned.
        """
        settings, (at, start) = self._settings(), began
        route = client if client in settings.routes else ""
        client = (last_asked.get() or client) if route else client
        configured = settings.clients.get(client)
        model, money = request.model or ("" if response is None else response.model), None
        if configured is not None:
            model = request.model or configured.model_name
            if response is not None and not response.cached:
                money = self._tariff(client, configured).price(response.usage, model, at)
        self._history.add(
            Exchange(
                request,
                response,
                problem,
                client=client,
                model=model,
                began=at,
                seconds=time.perf_counter() - start,
                money=money,
                cached=response is not None and response.cached,
                labels=current_labels(),
                route=route,
                number=number_of(request),
            )
        )

    def _settings(self) -> Settings:
        """Return the settings; their keys are hidden from then on, and stay so when they have been replaced."""
        settings = self._box.current
        if settings is not self._keys_of:  # they are replaced, never changed
            self._keys_of = settings
            for client in settings.clients.values():
                with contextlib.suppress(ConfigError):  # it has none: whoever needs it has said so already
                    key = client.resolved_api_key()
                    self._history.hide(*([] if key is None else [key.get_secret_value()]))
        return settings

    def _tariff(self, client: str, settings: ClientSettings) -> Tariff:
        known = self._tariffs.get(client)
        if known is None or known[0] is not settings:  # the same
            known = self._tariffs[client] = settings, Tariff(client, settings, self._book)
        return known[1]

"""What an application needs on its way up: the caps it begins with, and why it failed if it did."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from otpy.clients.budget import Cap
from otpy.clients.labels import Labels

if TYPE_CHECKING:
    from collections.abc import Iterator

    from otpy.config.settings import Settings
    from otpy.errors import StartFailed

__all__ = ["caps_of", "innermost"]


def innermost(failed: StartFailed) -> BaseException:
    """Return the error that made a tree fail, out of the layers of supervisors that report it.

    Args:
        failed: What the uppermost one reports.
    """
    causes: Iterator[Any] = _causes(failed)
    last: BaseException = failed
    for reason in causes:
        if isinstance(reason, BaseException):
            last = reason
    return last


def _causes(reason: Any) -> Iterator[Any]:
    while reason is not None:
        yield reason
        reason = getattr(reason, "detail", None) or getattr(reason, "reason", None)


def caps_of(settings: Settings) -> list[Cap]:
    """Return the caps of the settings: of everything, then of each client.

    Args:
        settings: The settings.
    """
    caps = [Cap(kind, limit) for kind, limit in settings.budget.caps.items()]  # type: ignore[arg-type]
    for name, client in settings.clients.items():
        caps += [Cap(kind, limit, Labels(client=name)) for kind, limit in client.budget.caps.items()]  # type: ignore[arg-type]
    return caps

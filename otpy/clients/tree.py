"""The clients' part of the supervision tree."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from otpy.actors import ChildSpec, Port
from otpy.clients import models
from otpy.clients.client import Client
from otpy.clients.shared_limits import SharedLimits
from otpy.supervisors import REST_FOR_ONE, Supervisor, TaskSupervisor

if TYPE_CHECKING:
    from otpy.clients.book import Book
    from otpy.clients.traffic import Traffic
    from otpy.config.manager import SettingsBox

__all__ = ["Clients", "client_tree", "clients_tree"]


class Clients(Supervisor):
    """The supervisor of all clients: after a restart of those that there are then, added ones too."""

    @classmethod
    def make(cls, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Self, tuple[Any, ...], dict[str, Any]]:
        """Look for the clients when it starts, not when it is described."""
        box, *rest = args
        children = [client_tree(name, box, *rest) for name in box.current.clients]
        return super().make((children,), kwargs)


def clients_tree(
    box: SettingsBox, memory: Any = None, book: Book | None = None, traffic: Traffic | None = None
) -> ChildSpec:
    """Describe the supervisor of all configured clients."""
    return Clients.child_spec(
        box, memory, book, traffic, id="clients", name="clients", max_restarts=10, max_seconds=60.0
    )


def client_tree(
    name: str, box: SettingsBox, memory: Any = None, book: Book | None = None, traffic: Traffic | None = None
) -> ChildSpec:
    """Describe one client: the server of a local model if it has one, its workers, the client, its shared limits.

    In this order, `rest_for_one`: without its server a client has nobody to ask, without workers nobody to send. What
    fetches slices of a budget shared with other machines comes last, since nobody needs it to start.
    """
    settings = box.current.clients[name]
    children: list[ChildSpec] = []
    if settings.is_local:
        children.append(
            Port.child_spec(
                models.server_command(settings.model_name, parallel=settings.parallel),
                first_line=True,
                id="server",
                name=("server", name),
                start_timeout=120.0,
            )
        )
    children.append(TaskSupervisor.child_spec(id="workers", name=("workers", name)))
    children.append(Client.child_spec(name, box, memory, book, traffic, id="client", name=("client", name)))
    if settings.limits_storage is not None:
        children.append(SharedLimits.child_spec(name, box, id="limits", name=("limits", name)))
    return Supervisor.child_spec(children, id=name, strategy=REST_FOR_ONE, max_restarts=5, max_seconds=10.0)

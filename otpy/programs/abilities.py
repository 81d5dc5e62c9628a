"""What the model behind a client's name is able to do, by its deployment's profile."""

from __future__ import annotations

from otpy.clients.profiles import PROFILES
from otpy.clients.running import running

__all__ = ["lacks"]


def lacks(client: str, *what: str) -> bool:
    """Return whether a deployment behind a client's name lacks any of these, by what its profile says.

    Args:
        client: The name of a client or a route.
        what: As in `otpy.clients.profiles.Profile.lacks`.
    """
    settings = getattr(running(), "settings", None)
    if settings is None:  # a worker process of an evaluation, which asks through its parent
        return True
    route = settings.routes.get(client)
    for name in (client,) if route is None else route.members:
        member = settings.clients.get(name)
        if member is None:
            continue
        if set(what) & set(PROFILES[member.effective_profile].lacks):
            return True
    return False

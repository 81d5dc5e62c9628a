"""`Embedder`: the vectors of a client of the application, for indexes and neighbours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, cast

from otpy.clients.embedder import BATCH
from otpy.clients.running import running
from otpy.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from otpy.clients.embeddings import Vector

__all__ = ["Embedder"]


class _Embeds(Protocol):
    """What of an application an embedder needs."""

    async def aembed(
        self, texts: Iterable[str], *, client: str, model: str | None, dimensions: int | None, batch: int
    ) -> list[Vector]: ...


@dataclass(frozen=True, slots=True)
class Embedder:
    """Asks a client of the running application for vectors, as `app.embed` does: a value, like the programs.

    Args:
        client: The client's name, or that of a route whose clients all have the same model.
        model: Overrides the client's model.
        dimensions: The length of the vectors, from models that can shorten them; `None` for their own.
        batch: Texts in one request, at most.

    Raises:
        ConfigError: If an argument is out of range.

    Example:
        >>> from otpy.programs.embedder import Embedder
        >>> Embedder(model="text-embedding-3-small", dimensions=256).name
        'default/text-embedding-3-small/256'
    """

    client: str = "default"
    model: str | None = None
    dimensions: int | None = None
    batch: int = BATCH

    def __post_init__(self) -> None:
        """Check."""
        if not isinstance(self.client, str) or not self.client:
            raise ConfigError(f"client={self.client!r}; allowed: the name of a client")
        for name, least in (("dimensions", self.dimensions), ("batch", self.batch)):
            if least is not None and (not isinstance(least, int) or isinstance(least, bool) or least < 1):
                raise ConfigError(f"{name}={least!r}; allowed: an integer >= 1")

    @property
    def name(self) -> str:
        """What tells its vectors from others: the model if one is given, and the client whose model it is."""
        parts = [self.client, self.model, self.dimensions]
        return "/".join(str(part) for part in parts if part is not None)

    async def embed(self, texts: Sequence[str]) -> list[Vector]:
        """Return a vector for every text, in their order.

        Raises:
            NoApplication: If no application is running.
            ClientError: As `app.aembed`.
        """
        application = cast("_Embeds", running())
        return await application.aembed(
            texts, client=self.client, model=self.model, dimensions=self.dimensions, batch=self.batch
        )

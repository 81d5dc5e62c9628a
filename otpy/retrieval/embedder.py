"""What makes vectors of texts: a protocol, and any function as one that follows it.

The embedder that asks a client of the application is `otpy.programs.Embedder`.
"""

from __future__ import annotations

import asyncio
import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from otpy.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["EmbedderProtocol", "FunctionEmbedder"]


@runtime_checkable
class EmbedderProtocol(Protocol):
    """Whatever makes vectors of texts."""

    @property
    def name(self) -> str:
        """What tells its vectors from those of others, such as the model's name; an index's file keeps it."""
        ...

    async def embed(self, texts: Sequence[str]) -> Sequence[Sequence[float]]:
        """Return a vector for every text, in their order, all of one length."""
        ...


@dataclass(frozen=True, slots=True)
class FunctionEmbedder:
    """A function from texts to vectors as an embedder; a plain one runs in a thread.

    Args:
        function: Takes a list of texts and returns a vector for each, as the `encode` of sentence-transformers does.
        name: What tells its vectors from those of others, such as the model's name.
        batch: Texts it is given at once, at most.

    Raises:
        ConfigError: If it is no function, has no name, or the batch is empty.

    Example:
        >>> import asyncio
        >>> from otpy.retrieval import FunctionEmbedder
        >>> lengths = FunctionEmbedder(lambda texts: [[float(len(text)), 1.0] for text in texts], name="lengths")
        >>> asyncio.run(lengths.embed(["a", "bcd"]))
        [[1.0, 1.0], [3.0, 1.0]]
    """

    function: Callable[[list[str]], Any]
    name: str
    batch: int = 200

    def __post_init__(self) -> None:
        """Check."""
        if not callable(self.function):
            raise ConfigError(f"function={self.function!r}: give a function from a list of texts to their vectors")
        if not isinstance(self.name, str) or not self.name:
            raise ConfigError(f"name={self.name!r}: give the name of the model, which an index's file keeps")
        if not isinstance(self.batch, int) or isinstance(self.batch, bool) or self.batch < 1:
            raise ConfigError(f"batch={self.batch!r}; allowed: an integer >= 1")

    async def embed(self, texts: Sequence[str]) -> list[Sequence[float]]:
        """Return a vector for every text, in their order."""
        vectors: list[Sequence[float]] = []
        for start in range(0, len(texts), self.batch):
            some = list(texts[start : start + self.batch])
            made = self.function(some) if _is_async(self.function) else await asyncio.to_thread(self.function, some)
            vectors.extend(await made if inspect.isawaitable(made) else made)
        return vectors


def _is_async(function: Any) -> bool:
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None))  # noqa: B004 - an object whose __call__ is async

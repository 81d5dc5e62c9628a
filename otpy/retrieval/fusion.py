"""`Hybrid`: several retrievers as one, their answers fused by rank.

Source: Cormack, Clarke and Büttcher 2009, "Reciprocal Rank Fusion Outperforms Condorcet and Individual Rank Learning
Methods": a passage's score is the sum of `1 / (60 + rank)` over the rankings it is in. Scores of different retrievers
cannot be compared; ranks can.
"""

from __future__ import annotations

import asyncio
import inspect
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from otpy.errors import ConfigError
from otpy.retrieval.passage import Passage, Retriever, check_k

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from otpy.retrieval.passage import Where

__all__ = ["Hybrid", "filters", "reciprocal_rank_fusion"]

_CONSTANT: Final = 60
"""What the authors found best: how little being first counts more than being second."""


def reciprocal_rank_fusion(
    rankings: Iterable[Sequence[Passage]],
    k: int | None = None,
    *,
    constant: float = _CONSTANT,
    weights: Sequence[float] | None = None,
) -> tuple[Passage, ...]:
    """Return the passages of several rankings as one ranking; a passage is told by its id.

    Args:
        rankings: Each with the best first.
        k: How many to return, at most; `None` for all.
        constant: Added to every rank.
        weights: How much each ranking counts; `None` for all the same.

    Returns:
        Passages with the fused score, the best first; of equals the one that stands in an earlier ranking, and there
        the one before.

    Raises:
        ConfigError: If a number is out of range, or there is not a weight for every ranking.

    Example:
        >>> from otpy.retrieval import Passage, reciprocal_rank_fusion
        >>> a, b, c = Passage("a"), Passage("b"), Passage("c")
        >>> [passage.text for passage in reciprocal_rank_fusion([[a, b, c], [c, b]])]
        ['c', 'b', 'a']
    """
    ranked = list(rankings)
    if k is not None:
        check_k(k)
    if not constant >= 0:
        raise ConfigError(f"constant={constant!r}; allowed: a number >= 0")
    shares = [1.0] * len(ranked) if weights is None else list(weights)
    _check_weights(shares, len(ranked))
    passages: dict[str, Passage] = {}
    parts: dict[str, list[float]] = {}
    for share, ranking in zip(shares, ranked, strict=True):
        for rank, name in enumerate(dict.fromkeys(passage.id for passage in ranking), 1):
            parts.setdefault(name, []).append(share / (constant + rank))
        for passage in ranking:
            passages.setdefault(passage.id, passage)
    scores = {name: math.fsum(found) for name, found in parts.items()}
    order = sorted(scores, key=lambda name: -scores[name])
    return tuple(passages[name].scored(scores[name]) for name in order[:k])


@dataclass(frozen=True)
class Hybrid:
    """Asks several retrievers at once and fuses their answers by rank; one that fails fails it.

    Args:
        retrievers: At least one, such as a `BM25` and an `Embeddings` over the same passages.
        depth: How many passages each is asked for, at least; more are when more are wanted.
        weights: How much each counts; `None` for all the same.

    Raises:
        ConfigError: If there is no retriever, or not a weight for every one.

    Example:
        >>> import asyncio
        >>> from otpy.retrieval import BM25, Hybrid
        >>> index = BM25(["A cat sat.", "A dog sat."])
        >>> [passage.text for passage in asyncio.run(Hybrid([index, index]).search("cat"))]
        ['A cat sat.']
    """

    retrievers: tuple[Retriever, ...]
    depth: int = 50
    weights: tuple[float, ...] | None = None

    def __init__(
        self, retrievers: Iterable[Retriever], *, depth: int = 50, weights: Iterable[float] | None = None
    ) -> None:
        """Check everything."""
        keep = object.__setattr__
        keep(self, "retrievers", tuple(retrievers))
        keep(self, "depth", depth)
        keep(self, "weights", None if weights is None else tuple(weights))
        check_k(depth)
        if not self.retrievers:
            raise ConfigError("retrievers=(): give at least one")
        for retriever in self.retrievers:
            if not isinstance(retriever, Retriever):
                raise ConfigError(f"{retriever!r:.80} is no retriever: it has no `async def search(query, k)`")
        if self.weights is not None:
            _check_weights(self.weights, len(self.retrievers))

    async def search(self, query: str, k: int = 3, *, where: Where | None = None) -> tuple[Passage, ...]:
        """Return the best passages for a query.

        Args:
            query: A text.
            k: How many, at most.
            where: Which passages are meant, if all retrievers can filter.

        Raises:
            ConfigError: If a retriever cannot filter, or as those raise it.
        """
        check_k(k)
        given: dict[str, Any] = {} if where is None else {"where": where}
        for retriever in self.retrievers:
            if given and not filters(retriever):
                raise ConfigError(f"where={where!r:.80}: {retriever!r:.80} cannot filter, its search has no `where`")
        depth = max(self.depth, k)
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(_asked(each, query, depth, given)) for each in self.retrievers]
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None
        return reciprocal_rank_fusion([task.result() for task in tasks], k, weights=self.weights)


def filters(retriever: Retriever) -> bool:
    """Return whether a retriever's `search` takes `where`.

    Args:
        retriever: The retriever.
    """
    if isinstance(retriever, Hybrid):
        return all(map(filters, retriever.retrievers))
    parameters = inspect.signature(retriever.search).parameters.values()
    return any(parameter.name == "where" or parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)


async def _asked(retriever: Retriever, query: str, k: int, given: dict[str, Any]) -> Sequence[Passage]:
    return await retriever.search(query, k, **given)


def _check_weights(weights: Sequence[float], count: int) -> None:
    if len(weights) != count:
        raise ConfigError(f"weights={weights!r}: {len(weights)} for {count} rankings")
    for weight in weights:
        if not 0 <= weight < math.inf:
            raise ConfigError(f"weights={weights!r}; allowed: finite numbers >= 0")

"""Engines that find close vectors without looking at all of them: usearch and faiss, where they are installed.

Both build a graph (HNSW: Malkov and Yashunin 2018, "Efficient and robust approximate nearest neighbor search using
Hierarchical Navigable Small World graphs"), so they may miss some of the closest; what they find is scored exactly.
"""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, get_args

from otpy.errors import ConfigError
from otpy.retrieval.arrays import numpy, view

if TYPE_CHECKING:
    from otpy.retrieval.vectors import Vectors

__all__ = ["EngineName", "Graph", "build", "check_engine"]

EngineName: TypeAlias = Literal["exact", "usearch", "faiss"]
"""Who finds close vectors: `exact` looks at all of them."""

_PACKAGES: Final = {"usearch": "usearch", "faiss": "faiss-cpu"}
_LINKS: Final = 32
"""Neighbours of a vector in faiss's graph; usearch has its own default."""
_BREADTH: Final = 128
"""Vectors that are looked at on the way, at least."""


@dataclass(frozen=True, slots=True)
class Graph:
    """A graph over the first of some vectors.

    Args:
        engine: Whose it is.
        native: Theirs.
        covers: How many vectors it knows.
    """

    engine: EngineName
    native: Any
    covers: int

    def candidates(self, query: Vectors, count: int) -> list[int]:
        """Return the places of vectors that are probably the closest to a single one.

        Args:
            query: The one.
            count: How many.
        """
        asked = view(query.numbers).reshape(1, -1)
        count = min(count, self.covers)
        if self.engine == "usearch":
            return [int(key) for key in self.native.search(asked[0], count).keys]
        parameters = importlib.import_module("faiss").SearchParametersHNSW(efSearch=max(_BREADTH, count))
        return [int(key) for key in self.native.search(asked, count, params=parameters)[1][0] if key >= 0]


def check_engine(engine: object) -> None:
    """Refuse an engine that is unknown, or not installed.

    Args:
        engine: Its name.

    Raises:
        ConfigError: If so; the message says how to install it.
    """
    if engine not in get_args(EngineName):
        raise ConfigError(f"engine={engine!r}; allowed: {', '.join(map(repr, get_args(EngineName)))}")
    name = str(engine)
    for needed, package in ((name, _PACKAGES.get(name, "")), ("numpy", "numpy")):
        if name != "exact" and importlib.util.find_spec(needed) is None:
            raise ConfigError(f"engine={name!r} needs {package}: pip install 'otpy-framework[{name}]'")


def build(engine: EngineName, vectors: Vectors) -> Graph:
    """Build the graph of some vectors; this takes long, and all of it is computing.

    Args:
        engine: Which; not `exact`.
        vectors: The vectors.
    """
    matrix = vectors.matrix()
    if engine == "usearch":
        native = importlib.import_module("usearch.index").Index(
            ndim=vectors.width, metric="ip", dtype="f32", expansion_search=_BREADTH
        )
        native.add(numpy().arange(len(matrix), dtype="uint64"), matrix, threads=1)  # one, so that it is always the same
    else:
        faiss = importlib.import_module("faiss")
        native = faiss.IndexHNSWFlat(vectors.width, _LINKS, faiss.METRIC_INNER_PRODUCT)
        native.add(matrix)
    return Graph(engine, native, len(matrix))

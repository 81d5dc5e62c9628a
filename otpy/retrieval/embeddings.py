"""`Embeddings`: passages by what they mean."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, cast, get_args

from otpy.errors import ConfigError
from otpy.retrieval import engines, storage
from otpy.retrieval.arrays import within
from otpy.retrieval.embedder import EmbedderProtocol
from otpy.retrieval.once import Once
from otpy.retrieval.passage import Passage, check_k, fingerprint, passing, united
from otpy.retrieval.vectors import Vectors

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable

    from otpy.retrieval.engines import EngineName, Graph
    from otpy.retrieval.passage import Where

__all__ = ["Embeddings"]

KIND: Final = "embeddings"
_MUCH: Final = 5_000_000
"""Multiplications, about 5 ms of them, from which a thread does them so that the event loop need not."""
_MANY: Final = 2_000
"""Vectors, about 30 ms of work, from which a thread brings them to length 1."""


class Embeddings:
    """An index of passages by their vectors: a value, to which `add` gives a larger one.

    Nothing is embedded when it is made. The first `search` embeds the passages, once, whoever else asks meanwhile;
    `await index.embedded()` does it ahead of that. Scores are cosines.

    Args:
        passages: Texts or `Passage`s. Equal ones are one.
        embedder: What makes vectors of texts, as `otpy.Embedder()`, which asks a client of the application.
        engine: `"exact"` compares a query with every passage. `"usearch"` and `"faiss"` (extras of these names) do not,
            and may miss some; they are for a hundred thousand passages and more.

    Raises:
        ConfigError: If the embedder is none, or the engine unknown or not installed.
        DatasetError: If something is no passage, or two passages have one id.

    Example:
        >>> import asyncio
        >>> from otpy.retrieval import Embeddings, FunctionEmbedder
        >>> def vowels(texts):
        ...     return [[text.count(vowel) for vowel in "aeiou"] for text in texts]
        >>> index = Embeddings(["banana", "kiwi", "plum"], FunctionEmbedder(vowels, name="vowels"))
        >>> [passage.text for passage in asyncio.run(index.search("data", k=1))]
        ['banana']
    """

    __slots__ = ("_graph", "_hash", "_ids", "_known", "_vectors", "embedder", "engine", "passages")

    passages: tuple[Passage, ...]
    embedder: EmbedderProtocol
    engine: EngineName

    def __init__(
        self, passages: Iterable[str | Passage], embedder: EmbedderProtocol, *, engine: EngineName = "exact"
    ) -> None:
        """Keep them."""
        if not isinstance(embedder, EmbedderProtocol):
            raise ConfigError(f"embedder={embedder!r}: give an object with `name` and `async def embed(texts)`")
        engines.check_engine(engine)
        self.embedder, self.engine = embedder, engine
        self.passages = tuple(united((), {}, passages))
        self._ids = {passage.id: place for place, passage in enumerate(self.passages)}
        self._known = Vectors.of((), 0, embedder.name)
        self._vectors: Once[Vectors] = Once()
        self._graph: Once[Graph] = Once()
        self._hash = ""

    def add(self, passages: Iterable[str | Passage]) -> Embeddings:
        """Return an index that has these passages too; those it has already change nothing.

        What is embedded is not embedded again, and an engine's graph goes on to be used until a quarter is new.

        Raises:
            DatasetError: As in the constructor.
        """
        new = united(self.passages, self._ids, passages)
        larger = Embeddings((), self.embedder, engine=self.engine)
        larger.passages = (*self.passages, *new)
        larger._ids = {**self._ids, **{passage.id: place for place, passage in enumerate(new, len(self.passages))}}
        larger._known = self._vectors.result or self._known
        graph = self._graph.result
        if graph is not None and 4 * graph.covers >= 3 * len(larger.passages):
            larger._graph = Once(graph)
        return larger

    # -- searching -------------------------------------------------------------------------------------------------

    async def embedded(self) -> Embeddings:
        """Embed what is not embedded yet; returns the index itself.

        Raises:
            ConfigError: If the embedder gives too few vectors, or some that cannot be compared.
            ClientError: Or whatever else the embedder raises.
        """
        await self._all()
        return self

    async def search(self, query: str, k: int = 3, *, where: Where | None = None) -> tuple[Passage, ...]:
        """Return the best passages for a query, the best first, and of equals the one that was added first.

        Args:
            query: A text.
            k: How many, at most.
            where: Which passages are meant; an engine is not asked then.

        Raises:
            ConfigError: If the query is no text, `k` no integer of at least 1, or the embedder is another.
            ClientError: Or whatever else the embedder raises.
        """
        check_k(k)
        if not isinstance(query, str):
            raise ConfigError(f"a query is a text, not {query!r:.80}")
        allowed = passing(where)
        if not self.passages:
            return ()
        vectors = await self._all()
        asked = Vectors.of(await self.embedder.embed([query]), 1, self.embedder.name)
        vectors.check(asked, self.embedder.name)
        if allowed is not None:
            among: list[int] | None = [place for place, passage in enumerate(self.passages) if allowed(passage)]
        elif self.engine != "exact":
            graph = await self._graph.get(self._built)
            among = [*graph.candidates(asked, max(4 * k, 64)), *range(graph.covers, len(self.passages))]
        else:
            among = None
        if vectors.width * (len(vectors) if among is None else len(among)) < _MUCH:
            ranked = vectors.closest(asked, k, among)
        else:
            ranked = await asyncio.to_thread(vectors.closest, asked, k, among)
        return tuple(self.passages[place].scored(score) for place, score in ranked)

    async def _all(self) -> Vectors:
        return self._vectors.result or await self._vectors.get(self._embed)

    async def _embed(self) -> Vectors:
        new = self.passages[len(self._known) :]
        if not new:
            return self._known
        made, name = await self.embedder.embed([passage.text for passage in new]), self.embedder.name
        if len(new) < _MANY:
            return self._known.joined(Vectors.of(made, len(new), name), name)
        return self._known.joined(await asyncio.to_thread(Vectors.of, made, len(new), name), name)

    async def _built(self) -> Graph:
        return await asyncio.to_thread(engines.build, self.engine, await self._all())

    # -- a value ---------------------------------------------------------------------------------------------------

    def content_hash(self) -> str:
        """Return a hash of the passages, the embedder's name and the engine, the same in every process."""
        if not self._hash:
            self._hash = fingerprint(self.passages, KIND, self.embedder.name, self.engine)
        return self._hash

    def __len__(self) -> int:
        """Count the passages."""
        return len(self.passages)

    def __bool__(self) -> bool:
        """Be true, though it may be empty."""
        return True

    def __eq__(self, other: object) -> bool:
        """Whether passages, the embedder's name and the engine are the same."""
        return self is other or (isinstance(other, Embeddings) and self.content_hash() == other.content_hash())

    def __hash__(self) -> int:
        """By content."""
        return hash(self.content_hash())

    def __repr__(self) -> str:
        """Print how many passages there are, and whose vectors they have."""
        return f"Embeddings({len(self.passages)} passages, {self.embedder.name!r}, engine={self.engine!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the passages and their vectors, without an engine's graph."""
        return _restored, (self.passages, self.embedder, self.engine, self._vectors.result or self._known)

    # -- on disk ---------------------------------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write passages and vectors to a file, whole or not at all; an older file is replaced.

        Raises:
            ConfigError: If the passages are not embedded yet.
            DatasetError: If it cannot be written.
        """
        vectors = self._vectors.result
        if vectors is None and self.passages:
            raise ConfigError(f"{self!r} is not embedded yet; `await index.embedded()` before index.save(…)")
        vectors = vectors or self._known
        head = {"kind": KIND, "embedder": self.embedder.name, "engine": self.engine, "width": vectors.width}
        storage.write(path, head, self.passages, {}, {"vectors": vectors.numbers})

    @classmethod
    def load(
        cls, path: str | os.PathLike[str], embedder: EmbedderProtocol, *, engine: EngineName | None = None
    ) -> Embeddings:
        """Return the index of a file; a graph is built anew when it is first needed.

        Args:
            path: The file.
            embedder: The embedder it was made with; it is told by its name.
            engine: Another engine than the file's.

        Raises:
            DatasetError: If it cannot be read, is damaged, or is no index of this kind.
            ConfigError: If the embedder is another, or the engine is not installed.
        """
        stored = storage.read(path, KIND)
        made, kept = stored.setting("embedder", str), stored.setting("engine", str)
        stored.check(kept in get_args(engines.EngineName))
        vectors = Vectors(stored.array("vectors", "f"), stored.setting("width", int))
        stored.check(vectors.width >= 0 and len(vectors.numbers) == vectors.width * len(stored.passages))
        stored.check(vectors.width > 0 or not stored.passages)
        stored.check(within(vectors.numbers, 1.001))  # of vectors of length 1, but for what 32 bits cannot tell
        index = cls((), embedder, engine=cast("EngineName", kept) if engine is None else engine)
        if made != embedder.name:
            raise ConfigError(f"{path}: has vectors of {made!r}, and the embedder is {embedder.name!r}")
        return _filled(index, stored.passages, vectors)


def _restored(passages: tuple[Passage, ...], embedder: Any, engine: EngineName, vectors: Vectors) -> Embeddings:
    return _filled(Embeddings((), embedder, engine=engine), passages, vectors)


def _filled(index: Embeddings, passages: tuple[Passage, ...], vectors: Vectors) -> Embeddings:
    index.passages, index._known = passages, vectors  # noqa: SLF001 - our own class
    index._ids = {passage.id: place for place, passage in enumerate(passages)}  # noqa: SLF001 - the same
    if len(vectors) == len(passages):
        index._vectors = Once(vectors)  # noqa: SLF001 - the same
    return index

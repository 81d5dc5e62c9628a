"""`Passage`: a piece of text that can be found; and what a `Retriever` is. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias, cast, runtime_checkable

from otpy.errors import ConfigError, DatasetError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["Passage", "Retriever", "Where", "check_k", "fingerprint", "passing", "united"]

_NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Passage:
    """A piece of text, told from others by its id.

    Args:
        text: The text.
        id: Its name; a hash of the text unless you give one, so that the same text is the same passage everywhere.
        metadata: JSON data beside it, such as where it comes from.
        score: How well it answers the query that found it: comparable only with others of that answer. It is `None`
            in a passage that was not searched for, and makes no difference to whether two passages are equal.

    Raises:
        DatasetError: If the text or the id is no text, or the metadata no JSON object.

    Example:
        >>> from otpy.retrieval import Passage
        >>> Passage("A cat sat on a mat.", id="cats-1", metadata={"page": 1}).metadata["page"]
        1
        >>> Passage("A cat sat on a mat.").id == Passage("A cat sat on a mat.").id
        True
    """

    text: str
    id: str = ""
    metadata: Mapping[str, Any] = field(default_factory=lambda: _NOTHING, hash=False)
    score: float | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        """Check, freeze, and name what has no name."""
        if not isinstance(self.text, str) or not isinstance(self.id, str):
            raise DatasetError(f"a passage is a text with an id that is a text, not {self.text!r:.80}, {self.id!r:.80}")
        keep = object.__setattr__
        if not self.id:
            keep(self, "id", hashlib.blake2b(self.text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest())
        if type(self.metadata) is not MappingProxyType:
            keep(self, "metadata", MappingProxyType(_json(self.metadata, self.id)))

    def scored(self, score: float) -> Passage:
        """Return a copy with this score."""
        return replace(self, score=score)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle it with its metadata as a dictionary."""
        return Passage, (self.text, self.id, dict(self.metadata), self.score)


@runtime_checkable
class Retriever(Protocol):
    """Whatever finds passages: an index of otpy, or a class of your own with this one method."""

    async def search(self, query: str, k: int = 3) -> tuple[Passage, ...]:
        """Return the best passages for a query, at most `k`, the best first, each with its score."""
        ...


Where: TypeAlias = Mapping[str, Any] | Callable[[Passage], bool]
"""Which passages are meant: those whose metadata has all these values, or those for which a function is true."""


def passing(where: Where | None) -> Callable[[Passage], bool] | None:
    """Return a filter as a function; `None` if there is none.

    Args:
        where: The filter.

    Raises:
        ConfigError: If it is neither a mapping nor a function.

    Example:
        >>> from otpy.retrieval.passage import Passage, passing
        >>> passing({"lang": "en"})(Passage("a cat", metadata={"lang": "en"}))
        True
    """
    if where is None:
        return None
    given: Any = where
    if not isinstance(given, Mapping):
        if callable(given):
            return cast("Callable[[Passage], bool]", given)
        raise ConfigError(f"where={given!r}: give metadata, as in {{'lang': 'en'}}, or a function of a passage")
    wanted, absent = dict(cast("Mapping[str, Any]", given)), object()
    return lambda passage: all(passage.metadata.get(name, absent) == value for name, value in wanted.items())


def check_k(k: object) -> None:
    """Refuse a number of passages that is none.

    Args:
        k: How many are wanted.

    Raises:
        ConfigError: If it is no integer of at least 1.
    """
    if not isinstance(k, int) or isinstance(k, bool) or k < 1:
        raise ConfigError(f"k={k!r}; allowed: an integer >= 1")


def united(known: Sequence[Passage], ids: Mapping[str, int], added: Iterable[str | Passage]) -> list[Passage]:
    """Return those of `added` that are new; what is known already, id and content, is left out.

    Args:
        known: The passages that are there.
        ids: Their places by id.
        added: Texts or passages.

    Raises:
        DatasetError: If an id is taken by another content, or something is neither a text nor a passage.
    """
    if isinstance(added, (str, Passage)):
        raise DatasetError(f"give a list of passages, not {added!r:.80} alone")
    new: dict[str, Passage] = {}
    for number, item in enumerate(added, 1):
        if not isinstance(item, (str, Passage)):
            raise DatasetError(f"a passage is a text or a Passage, not {item!r:.80}", row=number)
        passage = Passage(item) if isinstance(item, str) else item
        there = known[ids[passage.id]] if passage.id in ids else new.get(passage.id)
        if there is None:
            new[passage.id] = passage if passage.score is None else replace(passage, score=None)
        elif there != passage:
            raise DatasetError(f"the id {passage.id!r} is taken by another passage: {there.text!r:.80}", row=number)
    return list(new.values())


def fingerprint(passages: Iterable[Passage], *beside: object) -> str:
    """Return a hash of passages and of what else makes an index the one it is, the same in every process.

    Args:
        passages: The passages, in order.
        beside: JSON data.
    """
    digest = hashlib.blake2b(json.dumps(beside, sort_keys=True).encode("ascii"), digest_size=16)
    for passage in passages:
        line = json.dumps([passage.id, passage.text, dict(passage.metadata)], sort_keys=True)
        digest.update(line.encode("ascii") + b"\n")
    return digest.hexdigest()


def _json(metadata: object, name: str) -> dict[str, Any]:
    try:
        if not isinstance(metadata, Mapping):
            raise TypeError("no mapping")  # noqa: TRY301 - told with the others
        copy: dict[str, Any] = json.loads(json.dumps(dict(metadata), allow_nan=False))  # pyright: ignore[reportUnknownArgumentType]
    except (TypeError, ValueError) as error:
        raise DatasetError(f"the metadata of passage {name!r} is no JSON object: {error}") from None
    return copy

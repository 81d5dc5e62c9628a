"""`BM25`: passages by the words they share with a query.

A passage's score is the sum, over the query's words, of `idf * tf / (tf + k1 * (1 - b + b * length / mean length))`,
where `tf` is how often the word is in the passage, and `idf = ln(1 + (N - n + 0.5) / (n + 0.5))` for a word that `n` of
`N` passages have: never negative, so a word that all have does no harm.

Sources: Robertson and Zaragoza 2009, "The Probabilistic Relevance Framework: BM25 and Beyond"; the variant is that of
Lucene 8 and later with exact lengths ("accurate" in Kamphuis et al. 2020, "Which BM25 Do You Mean?").
"""

from __future__ import annotations

import asyncio
import math
import sys
from array import array
from collections import Counter
from types import NoneType
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from otpy.errors import ConfigError
from otpy.retrieval import storage
from otpy.retrieval.arrays import added_up, ascending, best_of, best_pairs, numpy, view
from otpy.retrieval.passage import Passage, check_k, fingerprint, passing, united
from otpy.retrieval.tokenizer import Tokenizer

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Mapping

    from otpy.retrieval.passage import Where

__all__ = ["BM25"]

Postings: TypeAlias = "tuple[array[int], array[int]]"
"""The places of the passages that have a word, ascending, and how often each has it."""

KIND: Final = "bm25"
_FEW: Final = 2_000  # postings of a query up to which plain Python is as fast as numpy
_LONG: Final = 20_000  # postings that plain Python goes through in about 5 ms; numpy goes through fifty times as many


class BM25:
    """An index of passages by their words: a value, to which `add` gives a larger one.

    Nobody is asked, so `top` does without `await`; `search` is the same for a `Retriever`. With numpy (the extra
    `retrieval`) large indexes are searched many times as fast; the results are the same, to the last bit.

    Args:
        passages: Texts or `Passage`s. Equal ones are one.
        k1: How soon a word that is repeated stops counting, at least 0; at 0, once is enough.
        b: How much a long passage is held against it, from 0 to 1.
        tokenizer: What makes words of texts.

    Raises:
        ConfigError: If a parameter is out of range.
        DatasetError: If something is no passage, or two passages have one id.

    Example:
        >>> from otpy.retrieval import BM25
        >>> index = BM25(["A cat sat on a mat.", "A dog chased the cat.", "Shares fell."])
        >>> [passage.text for passage in index.top("Which cat sat?", k=2)]
        ['A cat sat on a mat.', 'A dog chased the cat.']
        >>> len(index.add(["Shares rose."])), len(index)
        (4, 3)
    """

    __slots__ = ("_hash", "_ids", "_lengths", "_memo", "_postings", "_total", "b", "k1", "passages", "tokenizer")

    passages: tuple[Passage, ...]
    k1: float
    b: float
    tokenizer: Tokenizer

    def __init__(
        self,
        passages: Iterable[str | Passage] = (),
        *,
        k1: float = 1.2,
        b: float = 0.75,
        tokenizer: Tokenizer | None = None,
    ) -> None:
        """Index them."""
        if not _number(k1) or not 0 <= k1 < math.inf:
            raise ConfigError(f"k1={k1!r}; allowed: a number >= 0")
        if not _number(b) or not 0 <= b <= 1:
            raise ConfigError(f"b={b!r}; allowed: a number from 0 to 1")
        self.k1, self.b = float(k1), float(b)
        self.tokenizer = Tokenizer() if tokenizer is None else tokenizer
        self._ids: dict[str, int] = {}
        self._postings: dict[str, Postings] = {}
        self._lengths: array[int] = array("I")
        self._total, self.passages = 0, ()
        self._memo: dict[str, tuple[Any, Any]] = {}
        self._hash = ""
        self._take(passages)

    def _take(self, passages: Iterable[str | Passage]) -> None:
        """Take in more passages, while this is being made; what it shares with a smaller index is copied first."""
        new = united(self.passages, self._ids, passages)
        grown: dict[str, Postings] = {}
        lengths = array("I", self._lengths)
        for place, passage in enumerate(new, len(self.passages)):
            words = self.tokenizer(passage.text)
            lengths.append(len(words))
            for word, count in Counter(words).items():
                pair = grown.get(word)
                if pair is None:
                    places, counts = self._postings.get(word, ((), ()))
                    pair = grown[word] = (array("I", places), array("I", counts))
                pair[0].append(place)
                pair[1].append(count)
        self._ids = {**self._ids, **{passage.id: place for place, passage in enumerate(new, len(self.passages))}}
        self._postings = {**self._postings, **grown}
        self._lengths, self._total, self.passages = lengths, sum(lengths), (*self.passages, *new)

    def add(self, passages: Iterable[str | Passage]) -> BM25:
        """Return an index that has these passages too; those it has already change nothing.

        It costs about as much as indexing these alone, and a copy of what is known of their words.

        Raises:
            DatasetError: As in the constructor.
        """
        larger = BM25(k1=self.k1, b=self.b, tokenizer=self.tokenizer)
        larger.passages, larger._ids, larger._postings = self.passages, self._ids, self._postings
        larger._lengths, larger._total = self._lengths, self._total
        larger._take(passages)
        return larger

    # -- searching -------------------------------------------------------------------------------------------------

    async def search(self, query: str, k: int = 3, *, where: Where | None = None) -> tuple[Passage, ...]:
        """Return the best passages for a query, as `top` does; a long search is done in a thread."""
        if isinstance(query, str) and self._work(self._wanted(query)) > (_LONG if numpy() is None else 50 * _LONG):
            return await asyncio.to_thread(self.top, query, k, where=where)
        return self.top(query, k, where=where)

    def _wanted(self, query: str) -> dict[str, int]:
        """The words of a query that any passage has, and how often it has each."""
        return {word: times for word, times in Counter(self.tokenizer(query)).items() if word in self._postings}

    def _work(self, wanted: Iterable[str]) -> int:
        return sum(len(self._postings[word][0]) for word in wanted)

    def top(self, query: str, k: int = 3, *, where: Where | None = None) -> tuple[Passage, ...]:
        """Return the best passages for a query, the best first, and of equals the one that was added first.

        Args:
            query: Words, or a text; a word that is in it twice counts twice.
            k: How many, at most: passages that share no word with the query are not found.
            where: Which passages are meant.

        Raises:
            ConfigError: If the query is no text, or `k` no integer of at least 1.
        """
        check_k(k)
        if not isinstance(query, str):
            raise ConfigError(f"a query is a text, not {query!r:.80}")
        allowed = passing(where)
        wanted = self._wanted(query)
        among = k if allowed is None else len(self.passages)
        few = self._work(wanted) <= _FEW
        ranked = self._counted(wanted, among) if few or numpy() is None else self._computed(wanted, among)
        found: list[Passage] = []
        for place, score in ranked:
            if allowed is None or allowed(self.passages[place]):
                found.append(self.passages[place].scored(score))
                if len(found) == k:
                    break
        return tuple(found)

    def _idf(self, having: int) -> float:
        return math.log(1 + (len(self.passages) - having + 0.5) / (having + 0.5))

    def _norm(self) -> tuple[float, float]:
        """What a passage's length stands for in the formula: a constant, and a factor of the length."""
        return self.k1 * (1 - self.b), self.k1 * self.b * len(self.passages) / self._total

    def _counted(self, wanted: Mapping[str, int], k: int) -> list[tuple[int, float]]:
        if not wanted:
            return []
        scores: dict[int, float] = {}
        (constant, factor), lengths = self._norm(), self._lengths
        for word, times in wanted.items():
            places, counts = self._postings[word]
            idf = self._idf(len(places))
            for place, count in zip(places, counts, strict=True):
                more = times * (idf * (count / (count + (constant + factor * lengths[place]))))
                scores[place] = scores.get(place, 0.0) + more
        return best_pairs(scores.items(), k)

    def _computed(self, wanted: Mapping[str, int], k: int) -> list[tuple[int, float]]:
        scores = numpy().zeros(len(self.passages))
        for word, times in wanted.items():
            places, weights = self._weights(word)
            scores[places] += times * weights
        return best_of(scores, k, above=0.0)

    def _weights(self, word: str) -> tuple[Any, Any]:
        """What a word adds to the score of each passage that has it, worked out when it is first searched for."""
        known = self._memo.get(word)
        if known is None:
            places, counts = map(view, self._postings[word])
            constant, factor = self._norm()
            parts = counts / (counts + (constant + factor * view(self._lengths)[places]))
            known = self._memo[word] = places.astype("intp"), self._idf(len(places)) * parts
        return known

    # -- a value ---------------------------------------------------------------------------------------------------

    def content_hash(self) -> str:
        """Return a hash of the passages and the parameters, the same in every process."""
        if not self._hash:
            self._hash = fingerprint(self.passages, KIND, self.k1, self.b, self.tokenizer.described())
        return self._hash

    def __len__(self) -> int:
        """Count the passages."""
        return len(self.passages)

    def __bool__(self) -> bool:
        """Be true, though it may be empty."""
        return True

    def __eq__(self, other: object) -> bool:
        """Whether passages and parameters are the same."""
        return self is other or (isinstance(other, BM25) and self.content_hash() == other.content_hash())

    def __hash__(self) -> int:
        """By content."""
        return hash(self.content_hash())

    def __repr__(self) -> str:
        """Print how many passages there are."""
        return f"BM25({len(self.passages)} passages)"

    # -- on disk ---------------------------------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it to a file, whole or not at all; an older file is replaced.

        Raises:
            DatasetError: If it cannot be written.
        """
        words = list(self._postings)
        places, counts, ends = array("I"), array("I"), array("Q")
        for word in words:
            one, other = self._postings[word]
            places.extend(one)
            counts.extend(other)
            ends.append(len(places))
        head = {"kind": KIND, "k1": self.k1, "b": self.b, "tokenizer": self.tokenizer.described()}
        numbers = {"places": places, "counts": counts, "ends": ends, "lengths": self._lengths}
        storage.write(path, head, self.passages, {"words": words}, numbers)

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, tokenizer: Tokenizer | None = None) -> BM25:
        """Return the index of a file.

        Args:
            path: The file.
            tokenizer: The tokenizer it was made with, which is needed if that has a stemmer.

        Raises:
            DatasetError: If it cannot be read, is damaged, or is no index of this kind.
            ConfigError: If the tokenizer is another, or one is needed.
        """
        stored = storage.read(path, KIND)
        k1, b = stored.setting("k1", int, float), stored.setting("b", int, float)
        stored.check(0 <= k1 <= sys.float_info.max and 0 <= b <= 1)
        described = stored.setting("tokenizer", dict)
        stored.check(described.keys() == {"stop_words", "stemmer"} and _texts(described["stop_words"]))
        stored.check(isinstance(described["stemmer"], (str, NoneType)))
        index = cls(k1=k1, b=b, tokenizer=Tokenizer.read(described, tokenizer, str(path)))
        index.passages, index._lengths = stored.passages, stored.array("lengths", "I")
        index._ids = {passage.id: place for place, passage in enumerate(stored.passages)}
        index._total = sum(index._lengths)
        index._postings = _postings(stored, index._lengths)
        return index


def _postings(stored: storage.Stored, lengths: array[int]) -> dict[str, Postings]:
    """Return the words of a file with their postings, once they are found to be some that `add` could have made."""
    stored.check(_texts(stored.lists.get("words")))
    words: list[str] = stored.lists["words"]
    places, counts = stored.array("places", "I"), stored.array("counts", "I")
    ends = stored.array("ends", "Q").tolist()
    starts = [0, *ends[:-1]]
    stored.check(len(set(words)) == len(words) == len(ends))
    stored.check(all(start < end for start, end in zip(starts, ends, strict=False)))
    stored.check(len(places) == len(counts) == (ends[-1] if ends else 0))
    stored.check(len(stored.passages) == len(lengths) > max(places, default=-1) and min(counts, default=1) > 0)
    stored.check(ascending(places, starts) and added_up(places, counts, len(lengths)) == lengths.tolist())
    return {word: (places[start:end], counts[start:end])
            for word, start, end in zip(words, starts, ends, strict=False)}  # fmt: skip


def _texts(value: Any) -> bool:
    return type(value) is list and all(isinstance(word, str) for word in value)  # pyright: ignore[reportUnknownVariableType]


def _number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)

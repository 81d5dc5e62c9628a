"""`Tokenizer`: a text as the words that it is found by. Pure.

Case and forms of characters make no difference (Unicode's NFKC and full case folding). Words are runs of letters,
digits and the marks that belong to them; Chinese and Japanese, which put no spaces between words, are read as pairs of
characters that overlap.

Sources: Unicode Standard Annex 15 (normalization) and section 3.13 (case folding); for the pairs, Lucene's
`CJKAnalyzer`; for the English stop words, Lucene's `EnglishAnalyzer.ENGLISH_STOP_WORDS_SET`.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from otpy.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["ENGLISH", "Tokenizer"]

_ENGLISH: Final = """
a an and are as at be but by for if in into is it no not of on or such that the their then there these they this to was
will with
"""
ENGLISH: Final = frozenset(_ENGLISH.split())
"""Words that nearly every English text has."""

_ASCII: Final = re.compile(r"[a-z0-9]+").findall
_CJK: Final = re.compile("([\u3041-\u3096\u30a1-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]+)")


@dataclass(frozen=True, slots=True)
class Tokenizer:
    """Splits texts into words.

    Args:
        stop_words: Words that are left out, such as `ENGLISH`; folded like all others.
        stemmer: Makes one word of its forms, as in `snowballstemmer.stemmer("english").stemWord`; `None` for none.

    Raises:
        ConfigError: If the stemmer is no function.

    Example:
        >>> from otpy.retrieval import ENGLISH, Tokenizer
        >>> Tokenizer()("The Straße is CLOSED")
        ['the', 'strasse', 'is', 'closed']
        >>> Tokenizer(stop_words=ENGLISH, stemmer=lambda word: word.removesuffix("s"))("The cats")
        ['cat']
    """

    stop_words: frozenset[str] = frozenset()
    stemmer: Callable[[str], str] | None = None

    def __post_init__(self) -> None:
        """Check, and fold the stop words."""
        if isinstance(self.stop_words, str):
            raise ConfigError(f"stop_words={self.stop_words!r}: give a set of words")
        if self.stemmer is not None and not callable(self.stemmer):
            raise ConfigError(f"stemmer={self.stemmer!r}: give a function from a word to its stem, or None")
        object.__setattr__(self, "stop_words", frozenset(map(_folded, self.stop_words)))

    def __call__(self, text: str) -> list[str]:
        """Return the words of a text, in order."""
        folded = _folded(text)
        words = _ASCII(folded) if folded.isascii() else _words(folded)
        if self.stop_words:
            words = [word for word in words if word not in self.stop_words]
        return list(map(self.stemmer, words)) if self.stemmer is not None else words

    def described(self) -> dict[str, Any]:
        """Return what an index's file says of it, as JSON data: a stemmer only by name."""
        named: Any = self.stemmer
        name = getattr(named, "__qualname__", type(named).__qualname__) if named is not None else None
        return {"stop_words": sorted(self.stop_words), "stemmer": name}

    @classmethod
    def read(cls, described: Mapping[str, Any], given: Tokenizer | None, where: str) -> Tokenizer:
        """Return the tokenizer that a file describes.

        Args:
            described: What `described` once returned.
            given: The one that the reader has, which is needed if the file's has a stemmer.
            where: The file, for messages.

        Raises:
            ConfigError: If the one that is given is another, or one is needed.
        """
        if given is not None:
            if given.described() != described:
                raise ConfigError(f"{where}: made with another tokenizer: {described}, not {given.described()}")
            return given
        if described["stemmer"] is not None:
            raise ConfigError(f"{where}: made with the stemmer {described['stemmer']}; give tokenizer=Tokenizer(…)")
        return cls(frozenset(described["stop_words"]))


def _folded(text: str) -> str:
    return text.lower() if text.isascii() else unicodedata.normalize("NFKC", text).casefold()


def _words(text: str) -> list[str]:
    category = unicodedata.category
    kept = "".join(char if char.isalnum() or category(char)[0] == "M" else " " for char in text)
    words: list[str] = []
    for run in kept.split():
        for number, piece in enumerate(_CJK.split(run)):
            if number % 2 == 0 or len(piece) == 1:
                words.extend([piece] if piece else [])
            else:
                words.extend(piece[at : at + 2] for at in range(len(piece) - 1))
    return words

"""JSON as models write it when nothing holds them to it: read where there is one reading, refused where there are two.

Libraries that repair JSON finish what is cut off, drop what they do not understand and choose where there is a choice;
what comes out may be an answer that nobody gave, and costs more than asking again. So this is a grammar, not a repair:
JSON with comments, trailing commas, other quotes, bare keys, Python's constants, and line breaks in texts.
"""

from __future__ import annotations

import re
from typing import Any, Final, NoReturn

__all__ = ["LooseError", "read_loosely"]

_DEPTH: Final = 60  # an answer nested deeper than this is noise
_SPACE: Final = re.compile(r"(?:[\s\ufeff\u00a0]|//[^\n]*|#[^\n]*|/\*.*?\*/)*", re.DOTALL)
_NUMBER: Final = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?(?![\w.])")
_BARE: Final = re.compile(r"[^\W\d][\w-]*")
_WORDS: Final = {"true": True, "false": False, "null": None, "True": True, "False": False, "None": None}
_QUOTES: Final = {'"': '"', "'": "'", "“": "”", "‘": "’", "„": "“", "«": "»"}  # noqa: RUF001 - as models write
_ESCAPES: Final = {**{mark: mark for mark in "\"'/\\"}, "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_ESCAPE: Final = re.compile(r"u([0-9a-fA-F]{4})")


class LooseError(ValueError):
    """A text that is no such JSON either.

    Args:
        at: Where, in characters from 0.
        cut_off: Whether it only breaks off.
        twice: A key that stands twice in an object, with different values.
    """

    def __init__(self, at: int, *, cut_off: bool = False, twice: str | None = None) -> None:
        """Keep them."""
        self.at, self.cut_off, self.twice = at, cut_off, twice
        super().__init__(f"at {at}")


def read_loosely(text: str, at: int = 0) -> tuple[Any, int]:
    r"""Return a value that stands in a text, and where it ends.

    Args:
        text: The text.
        at: Where the value begins.

    Raises:
        LooseError: If it cannot be read, or in more than one way.

    Example:
        >>> from otpy.adapters.mending import read_loosely
        >>> read_loosely("{answer: 'it\'s 4', sure: True,} // I think")
        ({'answer': "it's 4", 'sure': True}, 31)
        >>> read_loosely('{"answer": "once upon a')
        Traceback (most recent call last):
        otpy.adapters.mending.LooseError: at 23
    """
    return _Reading(text).value(at, 0)


class _Reading:
    def __init__(self, text: str) -> None:
        self.text = text

    def refuse(self, at: int) -> NoReturn:
        raise LooseError(at, cut_off=at >= len(self.text.rstrip()))

    def space(self, at: int) -> int:
        found = _SPACE.match(self.text, at)
        return at if found is None else found.end()

    def value(self, at: int, depth: int) -> tuple[Any, int]:
        at = self.space(at)
        mark = self.text[at : at + 1]
        if depth > _DEPTH:
            self.refuse(at)
        if mark == "{":
            return self.object(at, depth)
        if mark == "[":
            return self.list(at, depth)
        if mark in _QUOTES:
            return self.quoted(at)
        if number := _NUMBER.match(self.text, at):
            return _number(number.group()), number.end()
        word = _BARE.match(self.text, at)
        if word is None or word.group() not in _WORDS:
            self.refuse(at if word is None else max(at, word.end() - 1))
        return _WORDS[word.group()], word.end()

    def object(self, at: int, depth: int) -> tuple[dict[str, Any], int]:
        made: dict[str, Any] = {}
        at = self.space(at + 1)
        while self.text[at : at + 1] != "}":
            start = at
            if self.text[at : at + 1] in _QUOTES:
                key, at = self.quoted(at)
            elif bare := _BARE.match(self.text, at):
                key, at = bare.group(), bare.end()
            else:
                self.refuse(at)
            at = self.space(at)
            if self.text[at : at + 1] != ":":
                self.refuse(at)
            value, at = self.value(at + 1, depth + 1)
            if key in made and made[key] != value:
                raise LooseError(start, twice=key)
            made[key] = value
            at = self.after(at, "}")
        return made, at + 1

    def list(self, at: int, depth: int) -> tuple[list[Any], int]:
        made: list[Any] = []
        at = self.space(at + 1)
        while self.text[at : at + 1] != "]":
            value, at = self.value(at, depth + 1)
            made.append(value)
            at = self.after(at, "]")
        return made, at + 1

    def after(self, at: int, end: str) -> int:
        """Where the next item begins, or the end stands."""
        at = self.space(at)
        if self.text[at : at + 1] == ",":
            return self.space(at + 1)
        if self.text[at : at + 1] != end:
            self.refuse(at)
        return at

    def quoted(self, at: int) -> tuple[str, int]:
        close = _QUOTES[self.text[at]]
        pieces: list[str] = []
        at += 1
        while at < len(self.text):
            character = self.text[at]
            if character == "\\":
                piece, at = self.escaped(at + 1)
                pieces.append(piece)
            elif character == close and not self.apostrophe(at):
                # surrogate halves that are escaped one by one belong together
                return "".join(pieces).encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass"), at + 1
            else:
                pieces.append(character)
                at += 1
        raise LooseError(at, cut_off=True)

    def apostrophe(self, at: int) -> bool:
        """Whether a mark that also ends a text stands within a word, where no text can end."""
        around = self.text[at - 1 : at] + self.text[at + 1 : at + 2]
        return self.text[at] in _QUOTES.values() and len(around) == 2 and around.isalnum()

    def escaped(self, at: int) -> tuple[str, int]:
        if found := _ESCAPE.match(self.text, at):
            return chr(int(found.group(1), 16)), found.end()
        if self.text[at : at + 1] not in _ESCAPES:
            self.refuse(at)
        return _ESCAPES[self.text[at]], at + 1


def _number(text: str) -> int | float:
    try:
        return int(text)
    except ValueError:
        return float(text)

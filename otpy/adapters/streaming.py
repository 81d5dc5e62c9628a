"""Readers of answers in sections and in elements; see `otpy.adapters.reading`. Pure.

However an answer is split, each character of it is looked at a bounded number of times.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from otpy.adapters.reading import FieldDelta, FieldDone, Thought, Withdrawn
from otpy.adapters.sections import HEADER, meant, textual
from otpy.adapters.tags import LITERAL, OPENED, begins_tag, content_of, tag_of, unescaped

if TYPE_CHECKING:
    from otpy.adapters.reading import FieldEvent
    from otpy.signatures import SignatureMeta

__all__ = ["SectionReader", "TagReader"]

_MAYBE: Final = re.compile(
    r"[ \t]*(?:\*{0,2}|#+ ?)(?:\[(?:\[[ \t]*(?:#(?:#[ \t]*\w*[ \t]*(?:#(?:#[ \t]*(?:\](?:\]\*{0,2})?)?)?)?)?)?)?)?"
)
"""What may still become a header, by its shape: see `_shape`."""

_SHORT: Final = 256
"""Letters of a tag that is still to end which are looked at with every piece; of a longer one, when it has doubled."""

_ENTITY: Final = re.compile(r"&(?:#?\w{0,8})?\Z")


class _Fields:
    """The outputs that are being told, whatever marks them."""

    def __init__(self, signature: SignatureMeta) -> None:
        self.fields = signature.output_fields
        self.events: list[FieldEvent] = []
        self.told: dict[str, None] = {}
        self._growing: list[str] = []  # a name and what is told of it

    def delta(self, name: str, text: str) -> None:
        if not text:
            return
        if self._growing and self._growing[0] != name:
            self._grown()
        self._growing = self._growing or [name]
        self._growing.append(text)
        self.told[name] = None

    def _grown(self) -> None:
        if self._growing:
            name, *texts = self._growing
            self.events.append(FieldDelta(name, "".join(texts)))
            self._growing = []

    def done(self, name: str, raw: str) -> None:
        self._grown()
        self.events.append(FieldDone(name, raw))
        self.told[name] = None

    def withdraw(self) -> None:
        self._grown()
        if self.told:
            self.events.append(Withdrawn(tuple(self.told)))
        self.told.clear()

    def taken(self) -> list[FieldEvent]:
        self._grown()
        events, self.events = self.events, []
        return events


class _Growing:
    """What of a text can be shown: not the space that may be its last, and nothing if it may mean something else.

    Args:
        marks: Characters with which a text may begin that means something else.
    """

    def __init__(self, marks: str) -> None:
        self.shown = False
        self._marks, self._silent = marks, False
        self._space: list[str] = []

    def add(self, text: str) -> str:
        """Return what can be shown now that this has come."""
        if self._silent:
            return ""
        text = text if self.shown else text.lstrip()
        self._silent = not self.shown and text[:1] != "" and text[0] in self._marks
        said = "" if self._silent else text.rstrip()
        self.shown = self.shown or said != ""
        held = text[len(said) :]
        if not said:
            self._space.append(held)
            return ""
        shown, self._space = "".join((*self._space, said)), [held]
        return shown


def _shape(held: str, character: str) -> str:
    """A line's beginning with one more character, where runs of which any length is the same are short."""
    kind = "a" if character.isalnum() or character == "_" else " " if character == "\t" else character
    return held if (kind in "a " and held.endswith(kind)) or (kind == "#" and held.endswith("###")) else held + kind


class SectionReader:
    """Reads an answer in sections, as `ChatAdapter` asks for it.

    Args:
        signature: The contract.
    """

    def __init__(self, signature: SignatureMeta) -> None:
        """Wait for the first header."""
        self._out = _Fields(signature)
        self._folded = {name.casefold(): name for name in self._out.fields}
        self._thought = Thought()
        self._restart()

    def _restart(self) -> None:
        self._held: list[str] = []
        self._shape, self._line_begins = "", True
        self._seen: set[str] = set()
        self._name: str | None = None
        self._raw: list[str] = []
        self._growing = _Growing('"')  # in quotes it may be JSON, or not: that shows at its end

    def feed(self, piece: str) -> list[FieldEvent]:
        """Return what a further piece adds."""
        text, again = self._thought.feed(piece)
        if again:
            self._out.withdraw()
            self._restart()
        self._read(text)
        return self._out.taken()

    def close(self) -> list[FieldEvent]:
        """Return what the end of the answer adds."""
        self._read(self._thought.close())
        self._line()
        self._end()
        return self._out.taken()

    def _read(self, text: str) -> None:
        at = 0
        while at < len(text):
            if self._line_begins:
                self._held.append(text[at])
                self._shape = _shape(self._shape, text[at])
                at += 1
                if not _MAYBE.fullmatch(self._shape):
                    self._line()
            else:
                end = text.find("\n", at) + 1 or len(text)
                self._content(text[at:end])
                self._line_begins = text[end - 1] == "\n"
                at = end

    def _line(self) -> None:
        """Take the beginning of a line, now that it is clear whether it is a header."""
        held = "".join(self._held)
        self._held.clear()
        self._shape = ""
        if header := HEADER.match(held):
            self._end()
            name = header.group(1)
            name = name if name in self._out.fields else self._folded.get(name.casefold(), name)
            if name in self._out.fields and name not in self._seen:
                self._name = name
                self._seen.add(name)
            held = held[header.end() :]
        self._content(held)
        self._line_begins = held.endswith("\n")

    def _content(self, text: str) -> None:
        if self._name is None or not text:
            return
        self._raw.append(text)
        if textual(self._out.fields[self._name]):
            self._out.delta(self._name, self._growing.add(text))

    def _end(self) -> None:
        """End the section."""
        name, raw = self._name, "".join(self._raw).strip()
        self._name, shown = None, self._growing.shown
        self._raw.clear()
        self._growing = _Growing('"')
        if name is None:
            return
        if textual(self._out.fields[name]) and not shown:
            self._out.delta(name, meant(raw, text=True))
        self._out.done(name, raw)


class TagReader:
    """Reads an answer in elements, as `XMLAdapter` asks for it.

    Args:
        signature: The contract.
    """

    def __init__(self, signature: SignatureMeta) -> None:
        """Wait for the first element."""
        self._out = _Fields(signature)
        kinds = signature.output_schema().schema.shared["properties"]
        self._nested = {name: kind.get("type") != "string" for name, kind in kinds.items()}
        self._thought = Thought()
        self._restart()

    def _restart(self) -> None:
        self._text: list[str] = []  # what has come and may be part of a tag
        self._size = 0
        self._name: str | None = None
        self._seen: set[str] = set()

    def feed(self, piece: str) -> list[FieldEvent]:
        """Return what a further piece adds."""
        text, again = self._thought.feed(piece)
        if again:
            self._out.withdraw()
            self._restart()
        held = len(self._text[0]) if self._text else 0
        self._text.append(text)
        self._size += len(text)
        if self._size < _SHORT or self._size >= 2 * held or "<" in text or ">" in text:
            self._read("".join(self._text))
        return self._out.taken()

    def close(self) -> list[FieldEvent]:
        """Return what the end of the answer adds; an element without an end is no output."""
        events = self.feed(self._thought.close())
        if self._name in self._out.told:
            self._out.withdraw()
            events += self._out.taken()
        return events

    def _read(self, text: str) -> None:
        """Take all that is no part of a tag that is still to come."""
        at = 0
        while True:
            at, more = self._outside(text, at) if self._name is None else self._inside(self._name, text, at)
            if not more:
                break
        self._text, self._size = [text[at:]], len(text) - at

    def _outside(self, text: str, at: int) -> tuple[int, bool]:
        """Look for the next element; returns where to go on, and whether to go on at once."""
        opened = OPENED.search(text, at)
        if opened is None:
            begun = text.rfind("<", at)
            return (begun if begun >= 0 else len(text)), False
        name = opened.group(1)
        if name in self._out.fields and name not in self._seen:
            self._seen.add(name)
            self._name, self._content = name, _Content(name, nested=self._nested[name])
            self._growing, self._entity, self._shown = _Growing('"<&'), "", 0
            if opened.group(2):
                self._finish(name)
        return opened.end(), True

    def _inside(self, name: str, text: str, at: int) -> tuple[int, bool]:
        """Look for the end of the element; as `_outside`."""
        taken, end = self._content.read(text, at)
        if end:
            self._finish(name)
        elif textual(self._out.fields[name]):
            said = self._entity + text[at:taken]
            whole = _ENTITY.sub("", said)
            self._entity = said[len(whole) :]
            decoded = unescaped(self._growing.add(whole))
            self._out.delta(name, decoded)
            self._shown += len(decoded)
        return end or taken, end > 0

    def _finish(self, name: str) -> None:
        raw = "".join(self._content.raw).strip()
        if textual(self._out.fields[name]):
            self._out.delta(name, meant(content_of(raw), text=True)[self._shown :])
        self._out.done(name, raw)
        self._name = None


class _Content:
    """The content of an element, up to its end tag, as `end_of` finds it.

    Args:
        name: The element.
        nested: Whether elements of the same name may stand in it.
    """

    def __init__(self, name: str, *, nested: bool) -> None:
        self.raw: list[str] = []
        self._name, self._nested, self._depth, self._tag = name, nested, 1, tag_of(name)
        self._literal: bool | None = None  # not yet known

    def read(self, text: str, at: int) -> tuple[int, int]:
        """Return how far the content is certain, and where its end tag ends; 0 if it is not there yet."""
        begin = at
        if self._literal is None:
            start = len(text[at:]) - len(text[at:].lstrip()) + at
            if LITERAL.startswith(text[start : start + len(LITERAL)]) and len(text) - start < len(LITERAL):
                self.raw.append(text[at:start])
                return start, 0
            self._literal = text.startswith(LITERAL, start)
        if self._literal:
            closed = text.find("]]>", at)
            if closed < 0:
                certain = max(at, len(text) - 2)
                self.raw.append(text[at:certain])
                return certain, 0
            self._literal, at = False, closed
        for tag in self._tag.finditer(text, at):
            at = tag.end()
            self._depth += -1 if tag.group(1) else 1 if self._nested and not tag.group(2) else 0
            if not self._depth:
                self.raw.append(text[begin : tag.start()])
                return tag.start(), tag.end()
        open_tag = text.rfind("<", at)
        ours = open_tag >= 0 and (self._nested or text[open_tag + 1 : open_tag + 2] in {"", "/"})
        certain = (
            open_tag if ours and ">" not in text[open_tag:] and begins_tag(text[open_tag:], self._name) else len(text)
        )
        self.raw.append(text[begin:certain])
        return certain, 0

"""Readers of answers in sections and in elements; see `otpy.adapters.reading`. Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from otpy.adapters.reading import FieldDelta, FieldDone, Thought, Withdrawn
from otpy.adapters.sections import HEADER, meant, textual
from otpy.adapters.tags import OPENED, content_of, end_of, unescaped

if TYPE_CHECKING:
    from otpy.adapters.reading import FieldEvent
    from otpy.signatures import SignatureMeta

__all__ = ["SectionReader", "TagReader"]

_MAYBE: Final = re.compile(
    r"[ \t]*(?:\*{0,2}|#+ ?)(?:\[(?:\[[ \t]*(?:#(?:#[ \t]*\w*[ \t]*(?:#(?:#[ \t]*(?:\](?:\]\*{0,2})?)?)?)?)?)?)?)?"
)
"""What may still become a header."""

_ENTITY: Final = re.compile(r"&(?:#?\w{0,8})?\Z")


class _Fields:
    """The outputs that are being told, whatever marks them."""

    def __init__(self, signature: SignatureMeta) -> None:
        self.fields = signature.output_fields
        self.events: list[FieldEvent] = []
        self.told: dict[str, None] = {}

    def delta(self, name: str, text: str) -> None:
        if not text:
            return
        last = self.events[-1] if self.events else None
        if isinstance(last, FieldDelta) and last.name == name:
            text = last.text + text
            self.events.pop()
        self.events.append(FieldDelta(name, text))
        self.told[name] = None

    def done(self, name: str, raw: str) -> None:
        self.events.append(FieldDone(name, raw))
        self.told[name] = None

    def withdraw(self) -> None:
        if self.told:
            self.events.append(Withdrawn(tuple(self.told)))
        self.told.clear()

    def taken(self) -> list[FieldEvent]:
        events, self.events = self.events, []
        return events


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
        self._held, self._line_begins = "", True
        self._seen: set[str] = set()
        self._name: str | None = None
        self._raw: list[str] = []
        self._space: str = ""
        self._shown: bool = False

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
        self._line(self._held)
        self._end()
        return self._out.taken()

    def _read(self, text: str) -> None:
        at = 0
        while at < len(text):
            if self._line_begins:
                self._held += text[at]
                at += 1
                if not _MAYBE.fullmatch(self._held):
                    self._line(self._held)
            else:
                end = text.find("\n", at) + 1 or len(text)
                self._content(text[at:end])
                self._line_begins = text[end - 1] == "\n"
                at = end

    def _line(self, held: str) -> None:
        """Take the beginning of a line, now that it is clear whether it is a header."""
        self._held = ""
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
        if not textual(self._out.fields[self._name]):
            return
        text = self._space + text
        text = text if self._shown else text.lstrip()
        if not text or (not self._shown and text[0] == '"'):
            self._space = text  # in quotes it may be JSON, or not: that shows at its end
            return
        shown = text.rstrip()
        self._space = text[len(shown) :]
        self._shown = self._shown or bool(shown)
        self._out.delta(self._name, shown)

    def _end(self) -> None:
        """End the section."""
        name, raw = self._name, "".join(self._raw).strip()
        self._name, shown = None, self._shown
        self._raw.clear()
        self._space = ""
        self._shown = False
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
        self._text = ""
        self._name: str | None = None
        self._seen: set[str] = set()
        self._from, self._shown = 0, 0  # how much of the text is shown, as it stands and decoded

    def feed(self, piece: str) -> list[FieldEvent]:
        """Return what a further piece adds."""
        text, again = self._thought.feed(piece)
        if again:
            self._out.withdraw()
            self._restart()
        self._text += text
        while self._step():
            pass
        return self._out.taken()

    def close(self) -> list[FieldEvent]:
        """Return what the end of the answer adds; an element without an end is no output."""
        events = self.feed(self._thought.close())
        if self._name in self._out.told:
            self._out.withdraw()
            events += self._out.taken()
        return events

    def _step(self) -> bool:
        """Take the next tag, if it is there."""
        if self._name is None:
            opened = OPENED.search(self._text)
            if opened is None:
                self._text = self._text[self._text.rfind("<") :] if "<" in self._text else ""
                return False
            self._text = self._text[opened.end() :]
            name = opened.group(1)
            if name in self._out.fields and name not in self._seen:
                self._seen.add(name)
                if opened.group(2):
                    self._finish(name, "")
                else:
                    self._name = name
            return True
        nested = self._nested[self._name]
        start = 0 if nested else max(0, self._from - len(self._name) - 3)  # what is shown holds no end tag
        end = end_of(self._text, self._name, start, nested=nested)
        if end is None:
            self._grow(self._name)
            return False
        raw = self._text[: end.start()].strip()
        self._text = self._text[end.end() :]
        self._finish(self._name, raw)
        return True

    def _finish(self, name: str, raw: str) -> None:
        if textual(self._out.fields[name]):
            self._out.delta(name, meant(content_of(raw), text=True)[self._shown :])
        self._out.done(name, raw)
        self._name, self._from, self._shown = None, 0, 0

    def _grow(self, name: str) -> None:
        """Show what of a text is certain by now: no tag, no entity and no space that may be its last is cut through."""
        text = self._text[self._from :]
        if not self._shown:
            text = text.lstrip()
            self._from = len(self._text) - len(text)
        if not textual(self._out.fields[name]) or (not self._shown and text[:1] in {"", '"', "<", "&"}):
            return
        begun = text.rfind("<")
        if begun >= 0 and (f"</{name}".startswith(text[begun:]) or text.startswith(f"</{name}", begun)):
            text = text[:begun]
        text = _ENTITY.sub("", text).rstrip()
        decoded = unescaped(text)
        self._out.delta(name, decoded)
        self._from += len(text)
        self._shown += len(decoded)

"""Where in an answer the JSON object with the outputs is, whatever stands around it. Pure."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

from otpy.adapters.mending import LooseError, read_loosely
from otpy.adapters.softening import fitted
from otpy.errors import AdapterParseError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from otpy.signatures import SignatureMeta

__all__ = ["read_object", "without_thought"]

_TRIES: Final = 100  # opening braces at which an object is looked for: an answer of thousands of them is noise
_DEEP: Final = 6  # levels of envelopes around the object
_OPENED: Final = re.compile(r"\s*<(think|thinking|thought|reasoning|reflection)>", re.IGNORECASE)
_CLOSED: Final = re.compile(r"</(?:think|thinking)>", re.IGNORECASE)
_FIRST: Final = re.compile(r"""\{\s*(?:(?P<quoted>["'“‘„«])|(?P<bare>[^\W\d][\w-]*)\s*:)""")  # noqa: RUF001 - as models write
_STARTS: Final = re.compile(r"\s*(?:[\[{<]|```)")


class _Twice(ValueError):
    """A key stands twice in an object, with different values: nobody knows which one is meant."""


class _NoNumber(ValueError):
    """NaN or an infinity, which JSON does not have."""


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for key, value in pairs:
        if key in made and made[key] != value:
            raise _Twice(key)
        made[key] = value
    return made


def _constant(text: str) -> float:
    raise _NoNumber(text)


_DECODER: Final = json.JSONDecoder(object_pairs_hook=_pairs, parse_constant=_constant)


def without_thought(text: str) -> str | None:
    """Return an answer without the thought that some servers leave in front of it.

    Returns:
        The rest, or `None` if the thought never ends.

    Example:
        >>> from otpy.adapters.finding import without_thought
        >>> without_thought('<think>{"answer": 3}? No.</think>{"answer": 4}')
        '{"answer": 4}'
        >>> without_thought('{"answer": "</think>"}')
        '{"answer": "</think>"}'
    """
    text = text.removeprefix("\ufeff")
    if opened := _OPENED.match(text):
        end = re.compile(rf"</{opened.group(1)}>", re.IGNORECASE).search(text, opened.end())
        return None if end is None else text[end.end() :]
    if not _STARTS.match(text) and (closed := _CLOSED.search(text)):
        return text[closed.end() :]  # the opening tag was part of the prompt
    return text


def read_object(signature: SignatureMeta, text: str, answer: str | None = None) -> dict[str, Any]:
    """Return the outputs from the first JSON object in a text that has them all.

    The object may stand in prose, in a code fence, or in an envelope: under another key, as the arguments of a tool, as
    a text within JSON. Of several in the same envelope none is chosen.

    Args:
        signature: The contract.
        text: Where to look.
        answer: All that the model said, for the error.

    Raises:
        AdapterParseError: If there is no such object, or more than one, or it does not fulfil the signature.

    Example:
        >>> from otpy.adapters.finding import read_object
        >>> from otpy.signatures import Signature
        >>> read_object(Signature("question -> answer: int"), 'Sure: {"result": {"answer": 4}}')
        {'answer': 4}
    """
    answer = text if answer is None else answer
    names = tuple(signature.output_fields)
    search = _Search(text, names)
    found = list(search.objects())
    for value, raw in found:
        if value.keys() >= set(names):
            return fitted(signature, raw, answer)
    for value, _ in found:
        inner = _unfolded(value, names) or _inner(value, names)
        if inner is not None:
            return fitted(signature, json.dumps(inner), answer)
    if found and not search.broken:
        return fitted(signature, found[0][1], answer)
    raise AdapterParseError(signature.__name__, answer, names, search.detail)


@dataclass(slots=True)
class _Search:
    """One search through one text."""

    text: str
    names: tuple[str, ...]
    detail: str = ""
    broken: bool = False

    def __post_init__(self) -> None:
        self.detail = f"no JSON object with {', '.join(self.names)} in the answer"
        quoted = self.text.strip()
        if quoted[:1] == quoted[-1:] == '"':  # a JSON object, written as a JSON text
            try:
                inner: Any = json.loads(quoted)
            except (ValueError, RecursionError):
                return
            self.text = str(inner)

    def objects(self) -> Iterator[tuple[dict[str, Any], str]]:
        """Every JSON object that stands in no other, with its text; one that is broken ends the search.

        What stands inside of a broken object is not the answer: it may be a draft of it, or a part.
        """
        at = self.text.find("{")
        for _ in range(_TRIES):
            if at < 0:
                return
            end = at + 1
            try:
                value, end = _DECODER.raw_decode(self.text, at)
                yield value, self.text[at:end]
            except (_Twice, _NoNumber) as error:
                twice = isinstance(error, _Twice)
                self._stop(f"the key {str(error)!r} stands twice in it" if twice else f"{error} is no JSON number")
                return
            except (json.JSONDecodeError, RecursionError):
                try:
                    value, end = read_loosely(self.text, at)
                    yield value, json.dumps(value)
                except LooseError as error:
                    if self._begun(at):
                        self._stop(_reason(self.text, error))
                        return
            at = self.text.find("{", end)

    def _begun(self, at: int) -> bool:
        """Whether this brace begins an object, and does not just stand in prose."""
        key = _FIRST.match(self.text, at)
        return key is not None and (key["quoted"] is not None or _key(key["bare"]) in map(_key, self.names))

    def _stop(self, reason: str) -> None:
        self.broken = True
        self.detail = f"the JSON object with {', '.join(self.names)} can't be read: {reason}"


def _reason(text: str, error: LooseError) -> str:
    if error.twice is not None:
        return f"the key {error.twice!r} stands twice in it"
    return (
        "it breaks off before its end" if error.cut_off else f"it is no JSON from {text[error.at : error.at + 20]!r} on"
    )


def _unfolded(value: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any] | None:
    """The object with its keys in our spelling, if they differ in case and spaces alone."""
    spelled: dict[str, list[str]] = {}
    for key in value:
        spelled.setdefault(_key(key), []).append(key)
    keys = {name: [name] if name in value else spelled.get(_key(name), []) for name in names}
    if any(len(found) != 1 for found in keys.values()):
        return None
    return {name: value[found[0]] for name, found in keys.items()}


def _key(text: str) -> str:
    return re.sub(r"[\s_-]+", "_", text.strip(" `*\"'")).casefold()


def _inner(value: Any, names: tuple[str, ...]) -> dict[str, Any] | None:
    """The one object inside of envelopes that has all the names."""
    found: list[dict[str, Any]] = []
    for inside in _inside(value, _DEEP):
        named = _unfolded(inside, names)
        if named is not None and named not in found:
            found.append(named)
    return found[0] if len(found) == 1 else None


def _inside(value: Any, levels: int) -> Iterator[dict[str, Any]]:
    if levels < 0:
        return
    if isinstance(value, str) and value.lstrip()[:1] in {"{", "["}:
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return
    if isinstance(value, dict):
        found = cast("dict[str, Any]", value)
        if "properties" in found and found.get("type") == "object":
            return  # a schema tells of an answer, it is none
        yield found
        value = list(found.values())
    if isinstance(value, list):
        items: list[Any] = cast("Any", value)
        for item in items:
            yield from _inside(item, levels - 1)

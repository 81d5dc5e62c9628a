"""Recordings: what was asked and answered once, in a file, and replayed without asking anybody.

One JSON object a line, each with the version of its shape; several processes may append to one file. A line that a
dying process left half written is skipped and reported. No keys are written: requests hold none, and what looks like
one among further parameters is starred out.

Which answer belongs to which request: requests that are equal, in their lane's order. A lane is whatever goes on by
itself, as the work on one example does; without lanes all requests are one.
"""

from __future__ import annotations

import contextlib
import difflib
import json
import os
import re
import secrets
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from otpy.clients.history import without_secrets
from otpy.errors import OtpyError
from otpy.lm import LMResponse, Media, answer_of, stored, thawed
from otpy.telemetry import bus as telemetry

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator

    from otpy.lm import LMRequest, Part

__all__ = ["Mode", "Recorded", "Recording", "RecordingDrift", "RecordingError", "as_lines"]

Mode: TypeAlias = Literal["record", "replay", "until_divergence"]

SCHEMA: Final = 1
"""The version of a line's shape."""
_DIFF_LINES: Final = 120
_LONG_LINE: Final = 200
_CANDIDATES: Final = 8


class RecordingError(OtpyError, ValueError):
    """A recording that cannot be used as asked: the message names the file."""


class RecordingDrift(RecordingError):
    """A strict replay was asked what was never recorded.

    Args:
        message: What happened, with the difference to the nearest request that was recorded.
        diff: That difference alone; empty if nothing is recorded, or the request was, but not so often.
    """

    def __init__(self, message: str, diff: str = "") -> None:
        """Keep the difference."""
        self.diff = diff
        super().__init__(message)


# -- a request as data, and as lines ----------------------------------------------------------------------------------


def _data(request: LMRequest) -> dict[str, Any]:
    """Return a request as JSON data, for people and for `as_lines`; media as their digest and size."""
    request = without_secrets(request)
    data: dict[str, Any] = {
        "messages": [
            [message.role, message.content if isinstance(message.content, str) else [*map(_part, message.content)]]
            for message in request.messages
        ]
    }
    if request.schema is not None:
        data["schema"] = [request.schema.name, request.schema.schema]
    if request.tools:
        data["tools"] = [[tool.name, tool.description, tool.parameters, tool.strict] for tool in request.tools]
    plain = type(request)(())
    for name in type(request).__slots__:
        if name not in {"messages", "schema", "tools"} and (value := getattr(request, name)) != getattr(plain, name):
            data[name] = value
    return data


def _part(part: Part) -> dict[str, Any]:
    data = thawed(part, digest=True)
    if isinstance(part, Media) and part.data is not None:
        data["bytes"] = len(part.data)
    return data


def as_lines(data: dict[str, Any]) -> list[str]:
    """Return the data of a request as lines that can be compared.

    Args:
        data: The `request` of a line of a recording.
    """
    lines = [f"{name}: {json.dumps(data[name], ensure_ascii=False)}" for name in sorted(data) if name not in _TOLD]
    if "schema" in data:
        lines += [f"schema {data['schema'][0]}:", *_split(_indented(data["schema"][1]))]
    for name, description, parameters, _ in data.get("tools", ()):
        lines += [f"tool {name}:", *_split(description), *_split(_indented(parameters))]
    for role, content in data["messages"]:
        lines.append(f"[{role}]")
        for part in [content] if isinstance(content, str) else content:
            text = part if isinstance(part, str) else part["text"] if part.get("part") == "Text" else json.dumps(part)
            lines += _split(text)
    return lines


_TOLD: Final = frozenset({"messages", "schema", "tools"})


def _indented(text: str) -> str:
    with contextlib.suppress(ValueError):
        return json.dumps(json.loads(text), indent=1, ensure_ascii=False)
    return text


def _split(text: str) -> Iterator[str]:
    """Split a text into lines, and a long line after its sentences, so that a small change stays small."""
    for line in text.split("\n"):
        yield from [line] if len(line) <= _LONG_LINE else re.split(r"(?<=[.!?;,]) ", line)


# -- what is recorded: pure -------------------------------------------------------------------------------------------


@dataclass(slots=True, eq=False)
class _Entry:
    id: str
    lane: str
    key: str
    line: bytes
    used: bool = False


class Recorded:
    """What is recorded, and how far it has been replayed. Pure.

    Args:
        mode: As in `Recording`.
        name: Of the recording, for messages.
    """

    def __init__(self, mode: Mode, name: str = "the recording") -> None:
        """Start with nothing recorded."""
        if mode not in {"record", "replay", "until_divergence"}:
            raise RecordingError(f"mode={mode!r} of {name}; allowed: 'record', 'replay', 'until_divergence'")
        self.mode, self.name = mode, name
        self.damaged: list[int] = []
        self.diverged: set[str] = set()
        self._anew: set[str] = set()
        self._entries: dict[str, list[_Entry]] = {}

    # -- lines -----------------------------------------------------------------------------------------------------

    def read(self, lines: Iterable[bytes]) -> None:
        """Take in the lines of a file.

        Args:
            lines: The lines, without their ends.

        Raises:
            RecordingError: If one is of another version.
        """
        for number, line in enumerate(lines, 1):
            if line.strip():
                try:
                    self._read(line)
                except RecordingError as error:
                    raise RecordingError(f"{self.name}, line {number}: {error}; record it anew") from None
                except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
                    self.damaged.append(number)

    def _read(self, line: bytes) -> None:
        data = json.loads(line)
        if data["v"] != SCHEMA:
            raise RecordingError(f"its version is {data['v']!r}, and this otpy reads {SCHEMA}")
        if "keep" in data:
            self._drop(data["lane"], set(data["keep"]))
            return
        entry = _Entry(data["id"], data["lane"], data["key"], line)
        answer_of(data["response"])
        as_lines(data["request"])
        self._entries.setdefault(entry.key, []).append(entry)

    @property
    def warning(self) -> str | None:
        """What is wrong with the file, if anything is."""
        if not self.damaged:
            return None
        lines = ", ".join(map(str, self.damaged))
        return f"{self.name}: damaged lines were skipped: {lines}; a process may have died while it wrote them"

    def _drop(self, lane: str, keep: set[str]) -> None:
        for key, entries in list(self._entries.items()):
            left = [entry for entry in entries if entry.lane != lane or entry.id in keep]
            if left:
                self._entries[key] = left
            else:
                del self._entries[key]

    # -- asking and answering --------------------------------------------------------------------------------------

    def lookup(self, request: LMRequest, *, context: tuple[str, ...] = (), lane: str = "") -> LMResponse | None:
        """Return the recorded answer to a request; `None` if somebody has to be asked.

        Args:
            request: What is asked.
            context: What else decides the answer, such as the name of the client.
            lane: As in the module's text.

        Raises:
            RecordingDrift: If this is a strict replay and there is no such answer.
        """
        if self.mode == "record" or lane in self.diverged:
            return None
        key = request.key(*context)
        unused = [entry for entry in self._entries.get(key, ()) if not entry.used]
        entry = next((entry for entry in unused if entry.lane == lane), unused[0] if unused else None)
        if entry is not None:
            entry.used = True
            return answer_of(json.loads(entry.line)["response"], cached=True)
        if self.mode == "replay":
            raise self._drift(request, key, lane)
        self.diverged.add(lane)
        return None

    def added(
        self, request: LMRequest, response: LMResponse, *, context: tuple[str, ...] = (), lane: str = ""
    ) -> list[bytes]:
        """Record an answer; returns the lines to append.

        Args:
            request: As in `lookup`.
            response: The answer.
            context: As in `lookup`.
            lane: As in `lookup`.

        Raises:
            RecordingError: If this is a strict replay, which records nothing.
        """
        if self.mode == "replay":
            raise RecordingError(f"{self.name} is replayed strictly and takes no new answers; mode='until_divergence'")
        lines: list[bytes] = []
        if self.mode == "until_divergence" and lane not in self._anew:
            self.diverged.add(lane)
            self._anew.add(lane)
            here = [entry for entries in self._entries.values() for entry in entries if entry.lane == lane]
            if here:
                keep = [entry.id for entry in here if entry.used]
                lines.append(_line({"v": SCHEMA, "lane": lane, "keep": keep}))
                self._drop(lane, set(keep))
        key, id_ = request.key(*context), secrets.token_hex(8)
        data = {"v": SCHEMA, "id": id_, "lane": lane, "key": key, "context": context}
        line = _line({**data, "request": _data(request), "response": stored(response)})
        self._entries.setdefault(key, []).append(_Entry(id_, lane, key, line, used=True))
        return [*lines, line]

    @property
    def unused(self) -> int:
        """How many recorded answers nobody has asked for."""
        return sum(not entry.used for entries in self._entries.values() for entry in entries)

    def __len__(self) -> int:
        """Count the recorded answers."""
        return sum(map(len, self._entries.values()))

    # -- drift -----------------------------------------------------------------------------------------------------

    def _drift(self, request: LMRequest, key: str, lane: str) -> RecordingDrift:
        where = f" (lane {lane!r})" if lane else ""
        remedy = "record it anew, or replay with mode='until_divergence'"
        if self.damaged:
            remedy = f"{remedy} ({self.warning})"
        times = len(self._entries.get(key, ()))
        if times:
            return RecordingDrift(
                f"{self.name}: this request{where} was recorded {times} times, and is asked once more; {remedy}"
            )
        nearest = self._nearest(asked := as_lines(_data(request)))
        if nearest is None:
            return RecordingDrift(f"{self.name}: nothing is recorded, and a request{where} is asked; {remedy}")
        diff = list(difflib.unified_diff(nearest, asked, "recorded", "asked", lineterm=""))
        if not diff:
            return RecordingDrift(
                f"{self.name}: this request{where} was recorded in another context (another client or model); {remedy}"
            )
        if len(diff) > _DIFF_LINES:
            diff = [*diff[:_DIFF_LINES], f"… {len(diff) - _DIFF_LINES} more lines"]
        text = "\n".join(diff)
        return RecordingDrift(
            f"{self.name}: this request{where} was never recorded; {remedy}. The nearest one differs so:\n{text}", text
        )

    def _nearest(self, asked: list[str]) -> list[str] | None:
        """Find the recorded request most like this one: first by lines in common, then closely among the best."""
        wanted, text = Counter(asked), "\n".join(asked)
        scored: list[tuple[int, bool, list[str]]] = []
        for entries in self._entries.values():
            lines = as_lines(json.loads(entries[0].line)["request"])
            common = 2 * (wanted & Counter(lines)).total() - len(lines)
            scored.append((common, not entries[-1].used, lines))
        scored.sort(key=lambda one: one[:2], reverse=True)

        def close(candidate: tuple[int, bool, list[str]]) -> tuple[float, bool]:
            matcher = difflib.SequenceMatcher(None, "\n".join(candidate[2])[:4_000], text[:4_000], autojunk=False)
            return matcher.quick_ratio(), candidate[1]

        return max(scored[:_CANDIDATES], key=close)[2] if scored else None


def _line(data: dict[str, Any]) -> bytes:
    return json.dumps(data, separators=(",", ":")).encode("ascii") + b"\n"


# -- the file ---------------------------------------------------------------------------------------------------------


class Recording(Recorded):
    """A recording in a file.

    Args:
        path: The file; it is made when the first answer is recorded.
        mode: `"record"` asks always, and adds to what is in the file already; `"replay"` never asks, and raises
            `RecordingDrift` for what is not there; `"until_divergence"` answers from the file up to a lane's first
            request that is not there, and from then on asks, and records that lane anew.

    Raises:
        RecordingError: If the file is to be replayed and is not there, cannot be read, or is of another version.

    Example:
        >>> import tempfile
        >>> from otpy.clients.recording import Recording
        >>> from otpy.lm import LMRequest, LMResponse, Message
        >>> path = tempfile.mkdtemp() + "/answers.jsonl"
        >>> question = LMRequest((Message("user", "What is 2 + 2?"),))
        >>> Recording(path, "record").record(question, LMResponse("4"))
        >>> Recording(path, "replay").lookup(question).text
        '4'
    """

    def __init__(self, path: str | os.PathLike[str], mode: Mode = "replay") -> None:
        """Read what is there."""
        super().__init__(mode, str(path))
        self.path = Path(path)
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            if mode == "replay":
                raise RecordingError(f"{path}: there is no such recording; make it with mode='record'") from None
            content = b""
        except OSError as error:
            raise RecordingError(f"{path} cannot be read: {error}") from error
        self.read(content.split(b"\n"))
        if self.warning is not None:
            telemetry.emit("otpy.recording.damaged", path=str(path), lines=tuple(self.damaged))

    def record(
        self, request: LMRequest, response: LMResponse, *, context: tuple[str, ...] = (), lane: str = ""
    ) -> None:
        """Append an answer to the file; arguments and errors as in `added`.

        Args:
            request: What was asked.
            response: What was answered.
            context: As in `lookup`.
            lane: As in `lookup`.
        """
        lines = b"".join(self.added(request, response, context=context, lane=lane))
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with _locked(self.path) as file:
                if _last_byte(file) not in {b"", b"\n"}:
                    lines = b"\n" + lines  # what a process that died left of its line is to spoil no other
                while lines:
                    lines = lines[os.write(file, lines) :]
        except OSError as error:
            raise RecordingError(f"{self.path} cannot be written: {error}") from error


def _last_byte(file: int) -> bytes:
    if os.lseek(file, 0, os.SEEK_END) == 0:
        return b""
    os.lseek(file, -1, os.SEEK_END)
    return os.read(file, 1)


@contextlib.contextmanager
def _locked(path: Path) -> Generator[int]:
    """Open a file for reading and appending, and keep other processes from it meanwhile."""
    file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        if sys.platform == "win32":
            import msvcrt  # noqa: PLC0415 - only there

            msvcrt.locking(file, msvcrt.LK_LOCK, 1)
            yield file
        else:
            import fcntl  # noqa: PLC0415 - not everywhere

            fcntl.flock(file, fcntl.LOCK_EX)
            yield file
    finally:
        os.close(file)  # which gives up the lock

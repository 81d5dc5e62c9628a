"""Recordings: what was asked and answered once, and replayed without asking anybody. Pure; `tape` has the file.

One JSON object a line, each with the version of its shape. A line that a dying process left half written is skipped and
reported. No keys are written: requests hold none, and what looks like one among further parameters is starred out.

Which answer belongs to which request: requests that are equal, in their lane's order. A lane is whatever goes on by
itself, as the work on one example does; without lanes all requests are one.
"""

from __future__ import annotations

import json
import secrets
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from otpy.clients.recorded_lines import as_data, as_lines, difference, nearest
from otpy.errors import OtpyError
from otpy.lm import LMResponse, answer_of, stored

if TYPE_CHECKING:
    from collections.abc import Iterable

    from otpy.lm import LMRequest

__all__ = ["Mode", "Recorded", "RecordingDrift", "RecordingError"]

Mode: TypeAlias = Literal["record", "replay", "until_divergence"]

SCHEMA: Final = 1
"""The version of a line's shape."""
_REMEMBERED: Final = 20_000
"""How many of the last answers are known by their id, if somebody hands one in again."""


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
        mode: `"record"` answers nothing and takes every answer; `"replay"` answers what is recorded, and refuses
            anything else with `RecordingDrift`; `"until_divergence"` answers up to a lane's first request that is not
            recorded, and takes that lane's answers anew from there on.
        name: Of the recording, for messages.

    Example:
        >>> from otpy.clients.recording import Recorded
        >>> from otpy.lm import LMRequest, LMResponse, Message
        >>> question = LMRequest((Message("user", "What is 2 + 2?"),))
        >>> recorded, replayed = Recorded("record"), Recorded("replay")
        >>> replayed.read(recorded.added(question, LMResponse("4")))
        >>> replayed.lookup(question).text
        '4'
    """

    def __init__(self, mode: Mode, name: str = "the recording") -> None:
        """Start with nothing recorded."""
        if mode not in {"record", "replay", "until_divergence"}:
            raise RecordingError(f"mode={mode!r} of {name}; allowed: 'record', 'replay', 'until_divergence'")
        self.mode, self.name = mode, name
        self.damaged: list[int] = []
        self.diverged: set[str] = set()
        self._anew: set[str] = set()
        self._count = 0
        self._entries: dict[str, list[_Entry]] = {}  # none of them to record: nobody asks for them then
        self._taken: OrderedDict[str, None] = OrderedDict()

    # -- lines -----------------------------------------------------------------------------------------------------

    def read(self, lines: Iterable[bytes]) -> None:
        """Take in the lines of a file.

        Args:
            lines: The lines, with or without their ends.

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
        self._keep(entry)

    def _keep(self, entry: _Entry) -> None:
        self._count += 1
        if self.mode != "record":
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
            self._count -= len(entries) - len(left)
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
        found = self.found(request, context=context, lane=lane)
        if found is None and self.mode == "replay":
            raise self.drift(request, context=context, lane=lane)
        return found

    def found(self, request: LMRequest, *, context: tuple[str, ...] = (), lane: str = "") -> LMResponse | None:
        """Return the recorded answer as `lookup` does, and `None` in a strict replay too; then ask `drift` why.

        Args:
            request: As in `lookup`.
            context: As in `lookup`.
            lane: As in `lookup`.
        """
        if self.mode == "record" or lane in self.diverged:
            return None
        unused = [entry for entry in self._entries.get(request.key(*context), ()) if not entry.used]
        entry = next((entry for entry in unused if entry.lane == lane), unused[0] if unused else None)
        if entry is not None:
            entry.used = True
            return answer_of(json.loads(entry.line)["response"], cached=True)
        if self.mode != "replay":
            self.diverged.add(lane)
        return None

    def added(
        self,
        request: LMRequest,
        response: LMResponse,
        *,
        context: tuple[str, ...] = (),
        lane: str = "",
        id: str = "",  # noqa: A002
    ) -> list[bytes]:
        """Record an answer; returns the lines to append.

        Args:
            request: As in `lookup`.
            response: The answer.
            context: As in `lookup`.
            lane: As in `lookup`.
            id: Names the answer: one that is handed in twice is recorded once.

        Raises:
            RecordingError: If this is a strict replay, which records nothing.
        """
        if self.mode == "replay":
            raise RecordingError(f"{self.name} is replayed strictly and takes no new answers; mode='until_divergence'")
        id_ = id or secrets.token_hex(8)
        if id_ in self._taken:
            return []
        self._taken[id_] = None
        if len(self._taken) > _REMEMBERED:
            self._taken.popitem(last=False)
        lines: list[bytes] = []
        if self.mode == "until_divergence" and lane not in self._anew:
            self.diverged.add(lane)
            self._anew.add(lane)
            here = [entry for entries in self._entries.values() for entry in entries if entry.lane == lane]
            if here:
                keep = [entry.id for entry in here if entry.used]
                lines.append(_line({"v": SCHEMA, "lane": lane, "keep": keep}))
                self._drop(lane, set(keep))
        key = request.key(*context)
        data = {"v": SCHEMA, "id": id_, "lane": lane, "key": key, "context": context}
        line = _line({**data, "request": as_data(request), "response": stored(response)})
        self._keep(_Entry(id_, lane, key, line, used=True))
        return [*lines, line]

    @property
    def unused(self) -> int:
        """How many recorded answers nobody has asked for."""
        return sum(not entry.used for entries in self._entries.values() for entry in entries)

    def __len__(self) -> int:
        """Count the recorded answers."""
        return self._count

    # -- drift -----------------------------------------------------------------------------------------------------

    def drift(self, request: LMRequest, *, context: tuple[str, ...] = (), lane: str = "") -> RecordingDrift:
        """Return the error that says why a request cannot be replayed. It takes a while: everything is compared.

        Args:
            request: As in `lookup`.
            context: As in `lookup`.
            lane: As in `lookup`.
        """
        where = f" (lane {lane!r})" if lane else ""
        remedy = "record it anew, or replay with mode='until_divergence'"
        if self.damaged:
            remedy = f"{remedy} ({self.warning})"
        times = len(self._entries.get(request.key(*context), ()))
        if times:
            return RecordingDrift(
                f"{self.name}: this request{where} was recorded {times} times, and is asked once more; {remedy}"
            )
        asked = as_lines(as_data(request))
        closest = nearest(
            asked,
            (
                (as_lines(json.loads(entries[0].line)["request"]), not entries[-1].used)
                for entries in self._entries.values()
            ),
        )
        if closest is None:
            return RecordingDrift(f"{self.name}: nothing is recorded, and a request{where} is asked; {remedy}")
        diff = difference(closest, asked)
        if not diff:
            return RecordingDrift(
                f"{self.name}: this request{where} was recorded in another context (another client or model); {remedy}"
            )
        return RecordingDrift(
            f"{self.name}: this request{where} was never recorded; {remedy}. The nearest one differs so:\n{diff}", diff
        )


def _line(data: dict[str, Any]) -> bytes:
    return json.dumps(data, separators=(",", ":")).encode("ascii") + b"\n"

"""`Recorder`: the process through which answers are replayed and recorded.

It never waits for the disk: answers that arrive together are written in one trip to a thread, and whoever handed one in
hears of it when the operating system has it. So what was reported is in the file, however this program ends.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from otpy.actors import Call, Caller, Cast, GenServer, NoReply
from otpy.clients.recording import RecordingError
from otpy.clients.streaming import Sink
from otpy.lm import LMResponse, StreamEnd

if TYPE_CHECKING:
    from otpy.clients.tape import Recording
    from otpy.lm import LMRequest, StreamEvent

__all__ = ["HeldBack", "Record", "Recorder", "Replay"]


@dataclass(frozen=True, slots=True)
class Replay(Call["LMResponse | None"]):
    """Ask for the recorded answer; `None` if somebody has to be asked, `RecordingDrift` if nobody may be.

    Args:
        request: What is asked.
        context: Of whom.
        lane: In which lane.
    """

    request: LMRequest
    context: tuple[str, ...] = ()
    lane: str = ""


@dataclass(frozen=True, slots=True)
class Record(Call[None]):
    """Hand in an answer; it is in the file when this has been answered.

    Args:
        request: What was asked.
        response: The answer.
        context: As in `Replay`.
        lane: As in `Replay`.
        id: Names the answer, so that it may be handed in again if the recorder dies meanwhile.
    """

    request: LMRequest
    response: LMResponse
    context: tuple[str, ...] = ()
    lane: str = ""
    id: str = ""


@dataclass(frozen=True, slots=True)
class _Flush(Cast):
    """It is time to write what has gathered."""


class Recorder(GenServer):
    """The recording's process.

    Args (of `child_spec`):
        recording: The file and how far it has been replayed; it outlives this process, so a crash forgets nothing.
    """

    def init(self, recording: Recording) -> None:
        """Take over the recording."""
        self.recording = recording
        self.handed_in: list[Caller] = []
        self.totals = {"replayed": 0, "recorded": 0}

    def handle_call(self, request: Any, caller: Caller) -> Any:
        """Answer `Replay` and `Record`."""
        match request:
            case Replay(asked, context, lane):
                found = self.recording.found(asked, context=context, lane=lane)
                if found is None and self.recording.mode == "replay":
                    return self._drifted(request, caller)
                self.totals["replayed"] += found is not None
                return found
            case Record(asked, response, context, lane, id_):
                try:
                    self.recording.add(asked, response, context=context, lane=lane, id=id_)
                except RecordingError as error:
                    caller.fail(error)
                    return NoReply()
                if not self.handed_in:
                    self.ref.cast(_Flush())
                self.handed_in.append(caller)
                return NoReply()
            case _:
                return super().handle_call(request, caller)

    async def _drifted(self, asked: Replay, caller: Caller) -> NoReply:
        """Say how it drifted; comparing takes a while, in which nothing else is replayed."""
        drift = await asyncio.to_thread(self.recording.drift, asked.request, context=asked.context, lane=asked.lane)
        caller.fail(drift)
        return NoReply()

    def handle_cast(self, message: Any) -> Any:
        """Write what has gathered."""
        if isinstance(message, _Flush):
            return self._flush()
        return super().handle_cast(message)

    async def _flush(self) -> None:
        handed_in, self.handed_in = self.handed_in, []
        try:
            await asyncio.to_thread(self.recording.flush)
        except RecordingError as error:
            for caller in handed_in:
                caller.fail(error)
        else:
            self.totals["recorded"] += len(handed_in)
            for caller in handed_in:
                caller.reply(None)

    def status(self) -> str:
        """Say what has been done, for the printed tree."""
        done = f"{self.totals['replayed']} replayed, {self.totals['recorded']} recorded"
        return f"{self.recording.mode} {self.recording.path.name}: {done}, {self.recording.unused} not asked for"


class HeldBack(Sink):
    """A sink that keeps the end of an answer until it has been recorded.

    Args:
        sink: Where the pieces go.
    """

    def __init__(self, sink: Sink) -> None:
        """Hold nothing back yet."""
        super().__init__()
        self._sink = sink
        self._end: StreamEnd | None = None

    def put(self, event: StreamEvent) -> None:
        """Pass an event on, unless it is the last."""
        self.used = True
        if isinstance(event, StreamEnd):
            self._end = event
        else:
            self._sink.put(event)

    def release(self) -> None:
        """Pass the last one on."""
        if self._end is not None:
            self._sink.put(self._end)

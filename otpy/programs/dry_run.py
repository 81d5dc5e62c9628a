"""A run of a program in which every predictor answers at once, with values of the right types that say their origin.

`forward` is called as it is; its predictors, and otpy's own agents, are replaced by stand-ins. So what a composition
does between them is the user's real code, and nothing is asked, opened or connected by ours.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
import traceback
import typing
from concurrent.futures import Future
from contextvars import Context, copy_context
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

from otpy.clients.running import entered
from otpy.errors import ProgramError, SignatureError
from otpy.programs.parts import mapped
from otpy.programs.sampling import Unknown, misfit, sample
from otpy.programs.state import is_predictor, kind_of
from otpy.signatures import FieldSpec, Prediction, SignatureMeta

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping

    from otpy.lm import LMRequest
    from otpy.programs.program import Program

__all__ = ["DryRun", "Finding", "contract_of"]

_CALLS: Final = 1_000
"""Calls after which a run ends: a loop that waits for a model to be content may go on for ever here."""

_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that will not work.

    Args:
        path: The predictor or program that it concerns, as in `named_predictors()`.
        kind: `"input missing"`, `"input unknown"`, `"type"`, `"output missing"`, `"forward"` or `"model"`.
        text: What is wrong, in a sentence.
        field: The field that it concerns; empty if it is none.
    """

    path: str
    kind: str
    text: str
    field: str = ""

    def __str__(self) -> str:
        """Print it in one line."""
        return f"{self.path}: {self.text}"


class _NoOutput(AttributeError, KeyError):
    """An output was read that no predictor produces."""

    def __init__(self, path: str, name: str, known: tuple[str, ...]) -> None:
        self.path, self.name_read, self.known = path, name, known
        super().__init__(f"{path} has no output {name!r}")


class _Enough(BaseException):
    """The run goes on for too long."""


class _Answer(Prediction):
    """What a stand-in returns."""

    __slots__ = ("_path",)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return self[name]

    def __getitem__(self, name: str) -> Any:
        if name not in self._fields:
            raise _NoOutput(self._path, name, tuple(self._fields))
        return self._fields[name]


def contract_of(program: Program) -> SignatureMeta | None:
    """Return the signature by which a program can be stood in for: a predictor's, or that of an agent of otpy's own.

    Args:
        program: The program.
    """
    own = is_predictor(program) or type(program).__module__.startswith("otpy.")
    found = getattr(program, "signature", None)
    return found if own and isinstance(found, SignatureMeta) else None


class _StandIn:
    """Stands where a program with a contract stood; for anything but calls it is that program."""

    def __init__(self, program: Program, contract: SignatureMeta, path: str, run: DryRun) -> None:
        self._program, self._contract, self._path, self._run = program, contract, path, run

    def __call__(self, *args: Any, **inputs: Any) -> Prediction:
        if self._run.on_loop():
            raise ProgramError(f"{self._path} is called synchronously in an async forward; `await ….acall(…)` there")
        return self._run.answer(self._path, self._contract, args, inputs)

    async def acall(self, *args: Any, **inputs: Any) -> Prediction:
        await asyncio.sleep(0)
        return self._run.answer(self._path, self._contract, args, inputs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._program, name)


@dataclass(slots=True)
class DryRun:
    """One run.

    Args:
        program: The program; it has a `forward` of its own.
        example: Values for the inputs, by name; those that are not given are made up from what `forward` says.
        turn: Which of the values to answer with where a type has several.
    """

    program: Program
    example: Mapping[str, Any] = field(default_factory=dict[str, Any])
    turn: int = 0
    findings: list[Finding] = field(default_factory=list[Finding])
    notes: list[str] = field(default_factory=list[str])
    asked: dict[str, Mapping[str, Any]] = field(default_factory=dict[str, Any])
    result: Prediction | None = None
    calls: int = 0
    loop: asyncio.AbstractEventLoop | None = None

    name = "dry run"

    def __call__(self) -> None:
        """Run it in a thread of its own, for a bounded time."""
        inputs = self.inputs()
        if inputs is None:
            return
        program = self.replaced(self.program, "")
        thread = threading.Thread(target=Context().run, args=(self.whole, program, inputs), daemon=True)
        thread.start()
        thread.join(_SECONDS)
        if thread.is_alive():
            self.calls = _CALLS  # so that it ends at its next question
            self.notes.append(f"forward was not done after {_SECONDS:g} s; what comes after is not known")

    def replaced(self, value: Program, path: str) -> Any:
        """Return the program with stand-ins in it."""
        kind = kind_of(value)
        if not is_predictor(value):
            inside: Callable[[str, Any], Any] = lambda at, part: self.replaced(part, at)  # noqa: E731 - typed so
            value = value.replace(**{
                name: mapped(part, f"{path}.{name}" if path else name, kind, inside)
                for name, part in vars(value).items()
            })  # fmt: skip
        contract = contract_of(value) if path else None
        return value if contract is None else _StandIn(value, contract, path, self)

    def inputs(self) -> dict[str, Any] | None:
        """Return what `forward` is called with, or `None` if that cannot be known."""
        forward: Any = type(self.program).forward
        _, *parameters = inspect.signature(forward).parameters.values()
        if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
            if not self.example:
                self.notes.append("forward takes **inputs: give check() an example of them to have it looked at")
                return None
            return dict(self.example)
        try:
            hints = typing.get_type_hints(forward)
        except Exception:  # noqa: BLE001 - names that only a type checker knows, or an annotation that raises
            hints = {}
        inputs: dict[str, Any] = {}
        for parameter in parameters:
            name = parameter.name
            if name in self.example:
                inputs[name] = self.example[name]
            elif parameter.default is parameter.empty:
                known = name in hints and hints[name] is not Any
                inputs[name] = sample(FieldSpec(name, "input", hints[name]), name) if known else Unknown(f"<{name}>")
        return inputs

    def whole(self, program: Program, inputs: Mapping[str, Any]) -> None:
        """Call `forward`, and say how it ended."""
        try:
            self.result = asyncio.run(self.called(program, inputs))
        except _NoOutput as error:
            text = (
                f"no {error.name_read!r} is produced here, and forward reads it; it produces {', '.join(error.known)}"
            )
            self.find(error.path, "output missing", text, error.name_read)
        except (ProgramError, SignatureError) as error:
            self.find("program", "forward", f"forward raises {type(error).__name__}: {error}")
        except _Enough:
            self.notes.append(f"forward has called its predictors {_CALLS} times and was stopped")
        except BaseException as error:  # noqa: BLE001 - it is the user's code, with values it has never seen
            self.notes.append(
                f"forward ended with {type(error).__name__}: {error}{_where(error)}; what comes after is not known"
            )

    async def called(self, program: Program, inputs: Mapping[str, Any]) -> Prediction:
        """Call the program as an application would."""
        self.loop = asyncio.get_running_loop()
        here: Any = self
        with entered(here):
            return await program.acall(**inputs)

    def find(self, path: str, kind: str, text: str, name: str = "") -> None:
        """Add a finding."""
        self.findings.append(Finding(path, kind, text, name))

    def answer(self, path: str, contract: SignatureMeta, args: tuple[Any, ...], inputs: dict[str, Any]) -> Prediction:
        """Check what a stand-in is given, and answer."""
        self.calls += 1
        if self.calls > _CALLS:
            raise _Enough
        if args:
            raise ProgramError(f"{path} takes its inputs by name, as in program({next(iter(contract.input_fields))}=…)")
        self.asked.setdefault(path, inputs)
        known = ", ".join(f"{field.name}: {field.type}" for field in contract.input_fields.values())
        for name, spec in contract.input_fields.items():
            if name not in inputs:
                self.find(path, "input missing", f"nobody fills {name!r}; the inputs are {known}", name)
            elif not isinstance(inputs[name], Unknown) and (wrong := misfit(spec, inputs[name])):
                self.find(path, "type", f"{name!r} is {spec.type} and is given {_short(inputs[name])}: {wrong}", name)
        for name in inputs:
            if name not in contract.input_fields:
                self.find(path, "input unknown", f"{name!r} is given, and is no input; the inputs are {known}", name)
        fields = contract.output_fields.values()
        made = _Answer({spec.name: sample(spec, f"{path}.{spec.name}", self.turn) for spec in fields})
        object.__setattr__(made, "_path", path)
        return made

    # -- what programs need of an application ----------------------------------------------------------------------

    async def ask(self, client: str, request: LMRequest, sink: Any = None) -> NoReturn:  # noqa: ARG002 - an application's
        """Refuse: whoever asks is no part of the program."""
        raise RuntimeError(f"a predictor that is no part of the program asks {client!r}, which a dry run does not do")

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine on the run's loop and wait for it."""
        if self.loop is None:
            raise RuntimeError("the dry run has not begun")
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(_SECONDS)

    async def in_thread(self, function: Callable[[], Any]) -> Any:
        """Run a plain `forward` in a thread."""
        done: Future[Any] = Future()
        context = copy_context()

        def work() -> None:
            try:
                done.set_result(context.run(function))
            except BaseException as error:  # noqa: BLE001 - it is the run's, whatever it is
                done.set_exception(error)

        threading.Thread(target=work, daemon=True).start()  # one that never ends must not hold up the end of Python
        return await asyncio.wrap_future(done)

    def on_loop(self) -> bool:
        """Whether the calling thread runs the loop."""
        try:
            return asyncio.get_running_loop() is self.loop
        except RuntimeError:
            return False


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:80] + "…"


def _where(error: BaseException) -> str:
    """The last line of the user's own code that the error came through."""
    ours = Path(__file__).parent.parent
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        file = Path(frame.filename)
        if ours not in file.parents and "asyncio" not in file.parts and "concurrent" not in file.parts:
            return f" ({file.name}, line {frame.lineno})"
    return ""

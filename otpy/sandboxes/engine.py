"""What a sandbox is: an engine, which is a value, opens interpreters, each of which runs code that nobody trusts.

The code may call functions of the host. Then the interpreter stops and says so (`Asked`), the host does what it likes
and answers (`Answer`), and the code goes on: no function of ours ever enters the sandbox, only names and plain data.
Pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final, Protocol, TypeAlias, cast

from otpy.errors import OtpyError, ProgramError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "Answer",
    "Asked",
    "Engine",
    "Interpreter",
    "Limits",
    "Outcome",
    "SandboxError",
    "SandboxLost",
    "SandboxNotAvailable",
    "Turn",
    "plain",
]


_BITS: Final = 10_000
"""Of an integer: Python writes none of more than 4,300 digits."""


class SandboxError(OtpyError):
    """Something about a sandbox, not about the code in it."""


class SandboxNotAvailable(SandboxError):
    """The engine is not installed, or cannot run on this system; the message holds the next step."""


class SandboxLost(SandboxError):
    """The interpreter is gone, and with it the variables of its session: it hung, crashed, or broke its protocol."""

    retryable = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What code in a sandbox may use up.

    Args:
        seconds: Of one run, the time in which the host answers its calls not included.
        memory: Bytes.
        output: Characters that a run may print; more is cut off, and said to be.

    Raises:
        ProgramError: If one is not above zero.

    Example:
        >>> from otpy.sandboxes import Limits
        >>> Limits(seconds=2).memory // 2**20
        256
    """

    seconds: float = 10.0
    memory: int = 256 * 2**20
    output: int = 100_000

    def __post_init__(self) -> None:
        """Refuse what is no limit."""
        for name in ("seconds", "memory", "output"):
            value: Any = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < float("inf"):
                raise ProgramError(f"{name}={value!r}; allowed: a number above 0")


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended.

    Args:
        value: What the last expression was worth, as plain data; what is none, as its `repr`.
        stdout: What it printed.
        error: Why it failed: the exception's name and message, with the line; `None` if it did not.
        lost: Whether the session ended with it, and its variables are gone.
    """

    value: Any = None
    stdout: str = ""
    error: str | None = None
    lost: bool = False


@dataclass(frozen=True, slots=True)
class Asked:
    """The code calls a function of the host and waits for its `Answer`.

    Args:
        name: The function.
        args: Its arguments, plain data.
        kwargs: Its keyword arguments.
        stdout: What the run has printed so far.
    """

    name: str
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    stdout: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the function returned, or why it failed.

    Args:
        value: Plain data.
        error: The message of the `RuntimeError` that the code sees instead.
    """

    value: Any = None
    error: str | None = None


Turn: TypeAlias = Asked | Outcome
"""What an interpreter says when it is the host's turn again."""


class Interpreter(Protocol):
    """A running interpreter, whose variables stay from run to run.

    All that waits here raises `SandboxLost` if the interpreter ends meanwhile, and may be cancelled; afterwards it is
    only good for `close`.
    """

    async def run(self, code: str, inputs: Mapping[str, Any], functions: tuple[str, ...]) -> Turn:
        """Run code.

        Args:
            code: Python.
            inputs: Variables set before it runs, plain data.
            functions: The names of the host's functions that it may call.
        """
        ...

    async def answer(self, answer: Answer) -> Turn:
        """Answer what was `Asked`, and go on."""
        ...

    def hear(self, message: object) -> None:
        """Take what was sent to the process that has opened it."""
        ...

    def close(self) -> None:
        """End it and all that it started, whatever it is doing; at once, and as often as you like."""
        ...


class Engine(Protocol):
    """A way to run code that nobody trusts; a value: nothing runs before `open`.

    Attributes:
        name: What programs call it.
        limits: What the code may use up.
        sessions: Interpreters at the same time; who comes later waits.
        warm: Interpreters started ahead.
    """

    name: ClassVar[str]

    @property
    def limits(self) -> Limits: ...  # noqa: D102 - see above
    @property
    def sessions(self) -> int: ...  # noqa: D102 - see above
    @property
    def warm(self) -> int: ...  # noqa: D102 - see above

    def check(self) -> None:
        """Make sure that it can run here.

        Raises:
            SandboxNotAvailable: If not; the message says what to do.
        """
        ...

    async def open(self) -> Interpreter:
        """Start an interpreter; to be called in a process, which it does not outlive.

        Raises:
            SandboxNotAvailable: If the engine is not there.
            SandboxLost: If the interpreter does not come up.
        """
        ...


def plain(value: Any, depth: int = 0, *, strict: bool = False) -> Any:  # noqa: PLR0911 - one a form
    """Return a value as JSON data: what has no form in JSON becomes its `repr`, and half a character its escape.

    Args:
        value: The value.
        depth: How deep it lies in another; past 50 it is not followed.
        strict: Refuse texts with half a character (a lone surrogate) instead.

    Raises:
        UnicodeEncodeError: If strict, and there is such a text.

    Example:
        >>> from otpy.sandboxes.engine import plain
        >>> plain({"a": (1, {2}), 3: object})
        {'a': [1, [2]], '3': "<class 'object'>"}
    """
    if isinstance(value, int) and value.bit_length() > _BITS:
        return f"<an integer of {value.bit_length()} bits>"
    if isinstance(value, str):
        return value if value.isascii() else value.encode(errors="strict" if strict else "backslashreplace").decode()
    if value is None or isinstance(value, (int, float)):
        return value
    if depth > 50:
        return f"<{type(value).__name__}, too deep>"
    if isinstance(value, dict):
        items = cast("Any", value).items()
        return {plain(str(key), strict=strict): plain(item, depth + 1, strict=strict) for key, item in items}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item, depth + 1, strict=strict) for item in cast("Any", value)]
    return plain(repr(value), strict=strict)

"""Every exception otpy raises on purpose, in one family.

```
OtpyError
├─ ActorError         ActorDown · CallTimeout · NotRegistered · AlreadyRegistered · MailboxFull
├─ SupervisionError   InvalidChildSpec · StartFailed · MaxRestartsReached
├─ ConfigError
├─ ClientError        Overloaded · RateLimited · CircuitOpen · BudgetExceeded · ModelNotAvailable
│   └─ LMError        LMAuthError · LMConnectionError · LMTimeout · LMStatusError
│                     LMContextWindowExceeded · LMResponseInvalid
├─ SignatureError     AdapterParseError
├─ ProgramError       NoApplication
├─ DatasetError
├─ EvaluationError    EvaluationAborted
└─ TeleprompterError
```

Fields are attributes; the message names the offending value and the next step; `retryable` says whether the same
request may succeed later. All of them survive `pickle`, so they cross process boundaries whole.
"""

from __future__ import annotations

from typing import Any, ClassVar

__all__ = [
    "ActorDown",
    "ActorError",
    "AdapterParseError",
    "AlreadyRegistered",
    "BudgetExceeded",
    "CallTimeout",
    "CircuitOpen",
    "ClientError",
    "ConfigError",
    "ConstraintNotMet",
    "DatasetError",
    "EvaluationAborted",
    "EvaluationError",
    "InvalidChildSpec",
    "LMAuthError",
    "LMConnectionError",
    "LMContextWindowExceeded",
    "LMError",
    "LMResponseInvalid",
    "LMStatusError",
    "LMTimeout",
    "MailboxFull",
    "MaxRestartsReached",
    "ModelNotAvailable",
    "NoApplication",
    "NotRegistered",
    "OtpyError",
    "Overloaded",
    "ProgramError",
    "RateLimited",
    "SignatureError",
    "StartFailed",
    "SupervisionError",
    "TeleprompterError",
]


def _rebuild(cls: type[OtpyError], message: str, fields: dict[str, Any]) -> OtpyError:
    """Recreate an unpickled error without running its constructor."""
    error = cls.__new__(cls, message)
    error.args = (message,)
    error.__dict__.update(fields)
    return error


class OtpyError(Exception):
    """The root of everything otpy raises on purpose.

    Example:
        >>> import otpy.errors
        >>> issubclass(otpy.errors.LMTimeout, otpy.errors.OtpyError)
        True
    """

    retryable: ClassVar[bool] = False

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the message and the fields, whatever the constructor takes."""
        return _rebuild, (type(self), str(self), dict(self.__dict__))


def shown(value: object) -> str:
    """Return `repr(value)`, whatever its `__repr__` does: an error about an error must not fail.

    Example:
        >>> from otpy.errors import shown
        >>> class Detached(Exception):
        ...     def __repr__(self):
        ...         raise RuntimeError("not now")
        >>> shown("killed"), shown(Detached())
        ("'killed'", '<Detached, whose repr raises RuntimeError>')
    """
    try:
        return repr(value)
    except Exception as error:  # noqa: BLE001 - see above
        return f"<{type(value).__name__}, whose repr raises {type(error).__name__}>"


# -- actors ---------------------------------------------------------------------------------------------------------


class ActorError(OtpyError):
    """Something about a process: it is gone, late, unknown or full."""


class ActorDown(ActorError):
    """The process died before it could answer, or was never there (`reason == "noproc"`).

    Args:
        name: The process, as a name or a printable reference.
        reason: Its exit reason. If the reason is an exception it is also the `__cause__`.
    """

    retryable = True

    def __init__(self, name: object, reason: object) -> None:
        """Keep the process and its exit reason."""
        self.name, self.reason = name, reason
        super().__init__(f"process {name} is down: {shown(reason)}")
        if isinstance(reason, BaseException):
            self.__cause__ = reason


class CallTimeout(ActorError):
    """The process did not answer in time; its late answer will be dropped.

    Args:
        name: The process asked.
        timeout: Seconds waited.
    """

    retryable = True

    def __init__(self, name: object, timeout: float) -> None:
        """Keep the process and the time waited."""
        self.name, self.timeout = name, timeout
        super().__init__(f"process {name} did not answer within {timeout:g} s")


class NotRegistered(ActorError):
    """No process has this name.

    Args:
        name: The name looked up.
        known: Names that exist, for the message.
        message: What to say instead, where the name is known and its process is not there.
    """

    retryable = True

    def __init__(self, name: object, known: tuple[object, ...] = (), message: str = "") -> None:
        """Keep the name and the names that do exist."""
        self.name, self.known = name, known
        hint = f"; registered: {', '.join(map(str, known))}" if known else ""
        super().__init__(message or f"no process is registered as {name!r}{hint}")


class AlreadyRegistered(ActorError):
    """The name is taken by a live process.

    Args:
        name: The name asked for.
        owner: The process that holds it.
    """

    def __init__(self, name: object, owner: object) -> None:
        """Keep the name and its owner."""
        self.name, self.owner = name, owner
        super().__init__(f"the name {name!r} is already registered by {owner}")


class MailboxFull(ActorError):
    """A bounded mailbox refused a message.

    Args:
        name: The process whose mailbox is full.
        capacity: The bound, in messages.
    """

    retryable = True

    def __init__(self, name: object, capacity: int) -> None:
        """Keep the process and its bound."""
        self.name, self.capacity = name, capacity
        super().__init__(f"the mailbox of {name} is full ({capacity} messages)")


# -- supervision ----------------------------------------------------------------------------------------------------


class SupervisionError(OtpyError):
    """Something about a supervision tree."""


class InvalidChildSpec(SupervisionError, ValueError):
    """A child spec or a supervisor flag that cannot work, refused before anything starts.

    Args:
        field: What is wrong (`"restart"`, `"id"`, …).
        value: The offending value.
        allowed: The values that would have been accepted, in words.
    """

    def __init__(self, field: str, value: object, allowed: str) -> None:
        """Keep the field, the offending value and the allowed ones."""
        self.field, self.value, self.allowed = field, value, allowed
        super().__init__(f"invalid {field}: {value!r}; allowed: {allowed}")


class StartFailed(SupervisionError):
    """A process did not start, and whatever was started before it has been stopped again.

    Args:
        child: The process or child id.
        reason: Why: an exit reason, usually the exception raised by `init`, which is then the `__cause__`.
    """

    def __init__(self, child: object, reason: object) -> None:
        """Keep the child and the reason."""
        self.child, self.reason = child, reason
        super().__init__(f"{child} did not start: {shown(reason)}")
        cause = getattr(reason, "detail", reason)  # a supervisor's reason is `Shutdown(detail)`
        if isinstance(cause, BaseException):
            self.__cause__ = cause


class MaxRestartsReached(SupervisionError):
    """A supervisor gave up: more restarts than its intensity allows.

    Args:
        supervisor: The supervisor that stopped.
        child: The id of the child that was to be restarted once too often.
        max_restarts: Restarts allowed.
        max_seconds: Within how many seconds.
        reason: Why the child ended the last time; if that is an exception it is also the `__cause__`.
    """

    def __init__(
        self, supervisor: object, child: object, max_restarts: int, max_seconds: float, reason: object
    ) -> None:
        """Keep what happened."""
        self.supervisor, self.child, self.reason = supervisor, child, reason
        self.max_restarts, self.max_seconds = max_restarts, max_seconds
        super().__init__(
            f"{supervisor} (child {child!r}) gave up after more than {max_restarts} restarts in {max_seconds:g} s; "
            f"the last reason was {shown(reason)}"
        )
        if isinstance(reason, BaseException):
            self.__cause__ = reason


# -- configuration --------------------------------------------------------------------------------------------------


class ConfigError(OtpyError, ValueError):
    """Settings that do not hold together: the message names the setting, its source and the allowed values."""


# -- clients --------------------------------------------------------------------------------------------------------


class ClientError(OtpyError):
    """A request to a model that was not answered."""


class Overloaded(ClientError):
    """The client refuses more work now; the request was not sent."""

    retryable = True


class RateLimited(ClientError):
    """The provider, or our own limiter on its behalf, says: later.

    Args:
        message: What happened.
        retry_after: Seconds to wait, if known.
    """

    retryable = True

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        """Keep how long to wait."""
        self.retry_after = retry_after
        super().__init__(message)


class CircuitOpen(ClientError):
    """The breaker is open: the provider failed often enough that asking is pointless for now.

    Args:
        client: The client and model.
        until: Seconds until a trial request is let through.
        last: The failure that opened it, if it is known.
    """

    retryable = True

    def __init__(self, client: str, until: float, last: BaseException | None = None) -> None:
        """Keep the client and the time left."""
        self.client, self.until, self.last = client, until, last
        why = "" if last is None else f", the last: {last}"
        super().__init__(
            f"{client}: circuit open after repeated failures{why}; a trial is let through in {until:.1f} s"
        )


class BudgetExceeded(ClientError):
    """The request was not sent because a hard cap would have been passed.

    Args:
        message: Which cap, and what to do next.
        cap: The cap.
        limit: How much it allows: dollars, tokens or requests.
        spent: How much of it is spent.
        reserved: How much is set aside for requests in flight.
        asked: How much this request might take; `None` if its price is not known.
    """

    def __init__(  # noqa: PLR0913 - keyword-only facts
        self, message: str, *, cap: Any = None, limit: Any = 0, spent: Any = 0, reserved: Any = 0, asked: Any = 0
    ) -> None:
        """Keep the cap and how it stands."""
        self.cap, self.limit, self.spent, self.reserved, self.asked = cap, limit, spent, reserved, asked
        super().__init__(message)

    @property
    def may_fit_later(self) -> bool:
        """Whether it might be let through once the requests in flight have given back what they do not need."""
        return self.asked is not None and self.reserved > 0 and self.spent + self.asked <= self.limit


class ModelNotAvailable(ClientError):
    """A local model, or the software that runs it, is not installed; the message holds the command that installs it."""


class LMError(ClientError):
    """A request reached, or tried to reach, a language model and failed.

    Args:
        message: What happened and what to do next.
        client: Client name.
        model: Model name.
        status: HTTP status, if there was one.
        retry_after: Seconds the provider asks us to wait, if it does.
        body: The beginning of the provider's answer, never the request's headers.
    """

    def __init__(  # noqa: PLR0913 - keyword-only facts
        self,
        message: str,
        *,
        client: str = "",
        model: str = "",
        status: int | None = None,
        retry_after: float | None = None,
        body: str = "",
    ) -> None:
        """Keep where it failed and what the provider said."""
        self.client, self.model, self.status = client, model, status
        self.retry_after, self.body = retry_after, body
        super().__init__(message)


class LMAuthError(LMError):
    """The provider refuses the key (401, 403), or there is none."""


class LMConnectionError(LMError):
    """No connection, or it broke before the answer was whole."""

    retryable = True


class LMTimeout(LMError):
    """The provider did not answer in time."""

    retryable = True


class LMStatusError(LMError):
    """An HTTP status other than success that no narrower class describes."""

    @property
    def retryable(self) -> bool:  # type: ignore[override]  # pyright: ignore[reportIncompatibleVariableOverride]
        """Whether the status is one that passes by itself (408, 409, 429, 5xx)."""
        return self.status is not None and (self.status in {408, 409, 429} or self.status >= 500)


class LMRequestInvalid(LMError):
    """The request cannot be said in the provider's dialect, or the provider refuses it as it is (400, 422)."""


class LMContextWindowExceeded(LMError):
    """The prompt is longer than the model can read; fewer or shorter demos help."""


class LMQuotaExceeded(LMStatusError):
    """The account's quota or credit is used up (429 or 402): waiting does not help."""

    @property
    def retryable(self) -> bool:  # type: ignore[override]
        """No: somebody has to pay first."""
        return False


class LMRefusal(LMError):
    """The model, or a filter of the provider, refuses to answer this."""


class LMResponseInvalid(LMError):
    """The provider answered with something its dialect does not allow (HTML, half a body, no choices)."""

    retryable = True


# -- signatures and programs ----------------------------------------------------------------------------------------


class SignatureError(OtpyError, ValueError):
    """A contract that cannot be: raised where the signature is made.

    Args:
        message: What is wrong, with the offending piece.
        source: The text of a string signature, if there is one.
        column: Where in `source` the piece starts, counted from 1.
    """

    def __init__(self, message: str, source: str | None = None, column: int | None = None) -> None:
        """Keep the text and the column, and draw a caret under it."""
        self.source, self.column = source, column
        if source is not None and column is not None:
            message = f"{message} (column {column})\n  {source}\n  {' ' * (column - 1)}^"
        super().__init__(message)


class AdapterParseError(SignatureError):
    """The model's answer does not fulfil the signature.

    Args:
        signature: The signature's name.
        text: What the model said.
        missing: Output fields that are absent or invalid.
        detail: The validation error, in words a model can act on.

    Attributes:
        attempts: Every answer of the model, the last one included, once all re-asks are used up.
        usage: What they cost together, an `otpy.lm.Usage`; `None` outside of a program.
    """

    retryable = True
    attempts: tuple[str, ...] = ()
    usage: Any = None

    def __init__(self, signature: str, text: str, missing: tuple[str, ...] = (), detail: str = "") -> None:
        """Keep the answer and what is missing from it."""
        self.signature, self.text, self.missing, self.detail = signature, text, missing, detail
        shown = text if len(text) <= 200 else text[:200] + "…"
        what = detail or f"missing {', '.join(missing)}"
        super().__init__(f"the answer does not fulfil {signature}: {what}. The model said: {shown!r}")


class ConstraintNotMet(AdapterParseError):
    """The model's answer is of the right types, and not what an `Assert` of the program says it must be."""


class ProgramError(OtpyError, ValueError):
    """A program that cannot be built, called, saved or loaded as asked."""


class NoApplication(ProgramError):
    """A program was called with no application running.

    Args:
        message: Replaces the default text, which shows how to start one.
    """

    def __init__(self, message: str = "") -> None:
        """Say how to start one."""
        super().__init__(
            message
            or 'no application is running; start one: `with otpy.start(lm="local/smollm2-135m"): program(...)`'
            " (in async code: `async with otpy.start(...): await program.acall(...)`)"
        )


# -- data, evaluation, teleprompters --------------------------------------------------------------------------------


class DatasetError(OtpyError, ValueError):
    """A data file that cannot be used: the message names the file, the row and the column.

    Args:
        message: What is wrong.
        path: The file.
        row: The row, counted from 1, if one row is to blame.
    """

    def __init__(self, message: str, path: str = "", row: int | None = None) -> None:
        """Keep the file and the row."""
        self.path, self.row = path, row
        where = path + (f", row {row}" if row is not None else "")
        super().__init__(f"{where}: {message}" if where else message)


class EvaluationError(OtpyError, ValueError):
    """An evaluation that cannot run as asked."""


class EvaluationAborted(EvaluationError):
    """An evaluation stopped early; what was finished is in `result`.

    Args:
        message: Why it stopped.
        result: The partial result.
    """

    def __init__(self, message: str, result: Any = None) -> None:
        """Keep the partial result."""
        self.result = result
        super().__init__(message)


class TeleprompterError(OtpyError, ValueError):
    """An optimization that cannot run as asked, or found nothing it could use."""

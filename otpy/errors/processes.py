"""What goes wrong with processes and supervisors."""

from __future__ import annotations

from otpy.errors.family import OtpyError, shown

__all__ = [
    "ActorDown",
    "ActorError",
    "AlreadyRegistered",
    "CallTimeout",
    "InvalidChildSpec",
    "MailboxFull",
    "MaxRestartsReached",
    "NotRegistered",
    "StartFailed",
    "SupervisionError",
]


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

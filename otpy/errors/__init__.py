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

from otpy.errors.clients import (
    BudgetExceeded,
    CircuitOpen,
    ClientError,
    LMAuthError,
    LMConnectionError,
    LMContextWindowExceeded,
    LMError,
    LMQuotaExceeded,
    LMRefusal,
    LMRequestInvalid,
    LMResponseInvalid,
    LMStatusError,
    LMTimeout,
    ModelNotAvailable,
    Overloaded,
    RateLimited,
)
from otpy.errors.family import (
    OtpyError,
    shown,
)
from otpy.errors.processes import (
    ActorDown,
    ActorError,
    AlreadyRegistered,
    CallTimeout,
    InvalidChildSpec,
    MailboxFull,
    MaxRestartsReached,
    NotRegistered,
    StartFailed,
    SupervisionError,
)
from otpy.errors.programs import (
    AdapterParseError,
    ConfigError,
    ConstraintNotMet,
    DatasetError,
    EvaluationAborted,
    EvaluationError,
    NoApplication,
    ProgramError,
    SignatureError,
    TeleprompterError,
)

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
    "LMQuotaExceeded",
    "LMRefusal",
    "LMRequestInvalid",
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
    "shown",
]


def _named_after_the_front_door() -> None:
    """Have tracebacks and pickles say where people import them from."""
    for name in __all__:
        globals()[name].__module__ = __name__


_named_after_the_front_door()

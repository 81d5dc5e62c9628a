"""Where a name is that is not at the front door."""

from __future__ import annotations

import importlib
from typing import Final

__all__ = ["signpost"]

_ROOMS: Final = ("teleprompters", "teleprompters.estimate", "actors", "adapters", "errors", "evaluate", "lm",
                 "programs", "programs.streaming", "retrieval", "supervisors", "testing", "types", "sandboxes",
                 "clients.budget")  # fmt: skip
"""Of two rooms that have the same name, the one that is meant more often is first."""
_DSPY: Final = {
    "Module": "it is `Program` here",
    "LM": "models are clients: `otpy.start(lm=…)`",
    "configure": "`with otpy.start(lm=…):`",
    "context": "`with otpy.start(…):`, or `program.with_client(…)`",
    "settings": "`app.settings`",
    "inspect_history": "`otpy.inspect(prediction)`, or `app.history()`",
    "streamify": "`program.astream(…)`",
    "asyncify": "every program has `acall`",
    "track_usage": "`prediction.usage`, and `app.spent()`",
    "Retry": "`Refine`, or constraints",
    "answer_exact_match": '`otpy.exact_match("answer")`',
    "SemanticF1": "a metric may call a program: `otpy.Predict` as a judge; `otpy.f1` compares words",
    "BootstrapRS": "`BootstrapFewShotWithRandomSearch`",
}


def signpost(name: str) -> str:
    """Return where a name is, as the end of a sentence; empty if it is nowhere.

    Args:
        name: The name.

    Example:
        >>> from otpy.signposts import signpost
        >>> signpost("Module"), signpost("BudgetExceeded"), signpost("nothing")
        ('; it is `Program` here', '; it is in otpy.errors', '')
    """
    if name in _DSPY:
        return f"; {_DSPY[name]}"
    package = __name__.partition(".")[0]
    for room in _ROOMS:
        if name in getattr(importlib.import_module(f"{package}.{room}"), "__all__", ()):
            return f"; it is in {package}.{room}"
    return ""

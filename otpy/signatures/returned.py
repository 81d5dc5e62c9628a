"""`Returned`: what a program returns, to type checkers: a prediction, or a class signature whose outputs are typed.

Under a checker a `Signature` is a `Prediction` that has its fields, so that `Predict(Triage)` is a `Predict[Triage]`,
and `triage(query=…).intent` is of the type that `Triage` says. What really is returned is a plain `Prediction`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import typing_extensions

    from otpy.signatures.example import Prediction

    Returned = typing_extensions.TypeVar(  # noqa: PLC0105 - a word in every public signature
        "Returned", bound=Prediction, default=Prediction, covariant=True
    )
else:
    Returned = TypeVar("Returned")

__all__ = ["Returned"]

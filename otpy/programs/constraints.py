"""`Assert` and `Suggest`: what an answer must be, and what it should be, beyond its types.

Source: Singhvi et al. 2023, "DSPy Assertions: Computational Constraints for Self-Refining Language Model Pipelines".
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, cast

from otpy.errors import ProgramError
from otpy.signatures import Example

if TYPE_CHECKING:
    from collections.abc import Callable

    from otpy.signatures import SignatureMeta

__all__ = ["Assert", "Constraint", "Suggest", "checked_constraints", "unmet"]


@dataclass(frozen=True, slots=True)
class Constraint:
    """What holds for an answer: the base of `Assert` and `Suggest`.

    Args:
        check: Is given an `Example` of all inputs and outputs, or the value of `field`. It returns whether that is as
            it has to be; or a text, what is wrong with it, and `None` if nothing is.
        message: What a model is told whose answer is not.
        field: The output it is about.
        early: Check it on the text of `field` while that is being written, and ask again at once if it fails: for
            checks that can only get worse, as on a length or forbidden words.

    Raises:
        ProgramError: If an argument cannot be used.
    """

    check: Callable[[Any], object]
    message: str = ""
    field: str | None = None
    early: bool = False

    must: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Refuse what cannot be checked."""
        kind = type(self).__name__
        if not callable(self.check):
            raise ProgramError(f"{kind}: check={self.check!r}; allowed: a function of one argument")
        called = getattr(self.check, "__call__", None)  # noqa: B004 - of an object
        if inspect.iscoroutinefunction(self.check) or inspect.iscoroutinefunction(called):
            raise ProgramError(f"{kind}: check={self.check!r:.80} is async; allowed: a plain function, as it is quick")
        if not isinstance(cast("Any", self.message), str):
            raise ProgramError(f"{kind}: message={self.message!r}; allowed: a text")
        if self.early and self.field is None:
            raise ProgramError(f"{kind}: early=True needs field=, the output that is checked while it is written")

    def complaint(self, values: Mapping[str, Any]) -> str | None:
        """Return what is wrong with an answer, `None` if nothing is.

        Args:
            values: All inputs and outputs.
        """
        return self.of(Example(values) if self.field is None else values[self.field])

    def of(self, value: Any) -> str | None:
        """Return what is wrong with what is checked, `None` if nothing is.

        Args:
            value: The value of the field, as much of its text as there is, or an `Example` of everything.

        Raises:
            ProgramError: If `check` returns neither a truth value nor a text.
        """
        found = self.check(value)
        if inspect.isawaitable(found):
            if inspect.iscoroutine(found):
                found.close()
            raise ProgramError(f"{_name_of(self.check)} returned something to await; allowed: a plain function")
        if found is None or found is True or (found is not False and not isinstance(found, str) and bool(found)):
            return None
        if isinstance(found, str):
            return found or None
        return self.message or f"{self.field or 'it'} has to satisfy {getattr(self.check, '__name__', 'the check')}"


def _name_of(check: Any) -> str:
    return getattr(check, "__qualname__", type(check).__qualname__)


class Assert(Constraint):
    """What an answer must be: one that is not is asked for again, and in the end it is an error.

    Example:
        >>> from otpy.programs import Assert, Predict
        >>> short = Assert(lambda text: len(text) <= 280, "at most 280 characters", field="post")
        >>> Predict("topic -> post", constraints=[short]).constraints[0].message
        'at most 280 characters'
    """

    __slots__ = ()
    must: ClassVar[bool] = True


class Suggest(Constraint):
    """What an answer should be: one that is not is asked for again, and in the end the best one is taken.

    What it then fails to be is in `prediction.unmet`.

    Example:
        >>> from otpy.programs import Suggest
        >>> Suggest(str.islower, "no capitals", field="word").complaint({"word": "Hi"})
        'no capitals'
    """

    __slots__ = ()
    must: ClassVar[bool] = False


def checked_constraints(constraints: object, signature: SignatureMeta) -> tuple[Constraint, ...]:
    """Return constraints as a tuple.

    Args:
        constraints: What somebody gave.
        signature: What they are for.

    Raises:
        ProgramError: If one is none, or about a field that is no output.
    """
    if isinstance(constraints, Constraint) or not isinstance(constraints, Iterable):
        raise ProgramError(f"constraints={constraints!r:.100}; allowed: a list of Assert and Suggest")
    several = tuple(constraints)
    for constraint in several:
        if not isinstance(constraint, Constraint):
            raise ProgramError(f"constraints: {constraint!r:.100}; allowed: Assert(…) and Suggest(…)")
        if constraint.field is not None and constraint.field not in signature.output_fields:
            outputs = ", ".join(signature.output_fields)
            raise ProgramError(
                f"constraints: no output {constraint.field!r}; the outputs here are {outputs} (an agent's own outputs"
                " are checked by validators in its signature)"
            )
        if constraint.early and signature.output_fields[cast("str", constraint.field)].annotation is not str:
            raise ProgramError(f"constraints: early=True of {constraint.field!r}; allowed: only of a text")
    return several


def unmet(constraints: Iterable[Constraint], values: Mapping[str, Any]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return what an answer fails to be: what it must, and what it should.

    Args:
        constraints: The constraints.
        values: All inputs and outputs.
    """
    found = [(constraint.must, constraint.complaint(values)) for constraint in constraints]
    musts, shoulds = (tuple(why for must, why in found if why is not None and must is kind) for kind in (True, False))
    return musts, shoulds

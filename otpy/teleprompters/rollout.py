"""A program run with answers that are there already: its own code asks, reads and goes on, and no model is asked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from otpy.clients.taping import Tape, taped
from otpy.errors import OtpyError, TeleprompterError
from otpy.lm import LMResponse
from otpy.programs import Predict

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping

    from otpy.lm import Message
    from otpy.programs import Program
    from otpy.signatures import Example, Prediction

__all__ = ["AskedAgain", "asked_of", "ran_with"]

ONCE = "programs that ask one predictor, once for each example, can be improved by reward"


class AskedAgain(TeleprompterError):
    """A program has asked more often than once."""


class _Asked(Exception):
    """What a predictor was asked: the end of a run that is made to find that out."""

    def __init__(self, inputs: Mapping[str, Any]) -> None:
        self.inputs = inputs
        super().__init__("it was asked")


class _Probe(Predict[Any]):
    """Tells what it is asked, and answers nothing."""

    __slots__ = ()

    async def forward(self, **inputs: Any) -> Prediction:
        raise _Asked(self.signature.validate_inputs(inputs))


async def asked_of(program: Program, example: Example) -> tuple[Message, ...]:
    """Return the messages that a program's one predictor sends for an example, without sending them.

    Args:
        program: The program.
        example: The example.

    Raises:
        TeleprompterError: If the program fails before it asks, or does not ask.
    """
    ((_, predictor),) = program.named_predictors()
    probing = program.map_predictors(lambda _, one: _probe(one))
    try:
        await probing.acall(**example.inputs())
    except _Asked as asked:
        try:
            return predictor.messages(**asked.inputs)
        except OtpyError as error:
            raise TeleprompterError(
                f"the question of {dict(example.inputs())!r:.200} cannot be put: {error}"
            ) from error
    except Exception as error:
        raise TeleprompterError(
            f"the program fails before it asks anything, with {dict(example.inputs())!r:.200}:"
            f" {type(error).__name__}: {error}"
        ) from error
    raise TeleprompterError(f"the program asks nothing, with {dict(example.inputs())!r:.200}; {ONCE}")


def _probe(predictor: Predict[Any]) -> Predict[Any]:
    kind: Any = _Probe  # checkers take it for a program that declares its parts
    probe: Predict[Any] = kind(predictor.signature)
    return probe.replace(**vars(predictor))


class _Given(Tape):
    """A tape with one answer on it, to whatever is asked, once."""

    def __init__(self, response: LMResponse) -> None:
        self._response: LMResponse | None = response

    async def answer(
        self,
        key: str,  # noqa: ARG002 - the base's, as the next ones
        ask: Callable[[], Coroutine[Any, Any, LMResponse]],  # noqa: ARG002
        client: str = "default",  # noqa: ARG002
    ) -> LMResponse:
        if self._response is None:
            raise AskedAgain(f"the program asked a second time for one example; {ONCE}")
        response, self._response = self._response, None
        return response


async def ran_with(program: Program, example: Example, text: str, *, cut: bool = False) -> Prediction:
    """Run a program on an example as if its model had answered so.

    Args:
        program: The program; its predictor asks once, and never again with what is wrong.
        example: The example.
        text: The answer.
        cut: Whether it is as long as answers may be, and not whole.

    Raises:
        AdapterParseError: If the answer does not fulfil the contract.
        AskedAgain: If the program asks more than once.
        Exception: Whatever the program raises.
    """
    with taped(_Given(LMResponse(text, finish_reason="length" if cut else "stop"))):
        return await program.acall(**example.inputs())

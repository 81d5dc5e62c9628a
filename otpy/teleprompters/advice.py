"""What optimizers ask a model about instructions: the signatures, and asking when an answer may not do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from otpy.errors import AdapterParseError, LMContextWindowExceeded
from otpy.programs import Predict
from otpy.signatures import InputField, OutputField, Signature
from otpy.telemetry import bus as telemetry

if TYPE_CHECKING:
    from collections.abc import Mapping

    from otpy.teleprompters.lab import Lab

__all__ = ["TIPS", "Describe", "Instruct", "Observe", "Reword", "Rework", "Summarize", "advisor", "described", "told"]

TIPS: Final[Mapping[str, str]] = {
    "plain": "",
    "short": "Say it in as few words as will do.",
    "thorough": "Say what each field means, and what to do where it is unclear.",
    "stakes": "Name a situation in which much depends on a right answer.",
    "role": "Begin by saying who the reader is: an expert in just this.",
    "creative": "Look for a way to put it that nobody would think of first.",
}
"""Styles for instructions, by name."""


class Observe(Signature):
    """Tell what these examples of a task have in common: topics, form, length, difficulty, answers."""

    examples: str = InputField()
    observations: str = OutputField(desc="a few sentences")


class Summarize(Signature):
    """Condense observations about a dataset to what somebody must know who works on it."""

    observations: str = InputField()
    summary: str = OutputField(desc="two or three sentences")


class Describe(Signature):
    """Tell what task a program solves, and what each of its steps contributes."""

    program: str = InputField()
    description: str = OutputField(desc="a few sentences")


class Instruct(Signature):
    """Write an instruction with which a language model does a task well. Use what is known of the task."""

    task: str = InputField(desc="the fields, and the instruction so far")
    program: str = InputField(desc="what the task is a part of")
    dataset: str = InputField(desc="what the data are like")
    examples: str = InputField(desc="solved ones")
    style: str = InputField(desc="how to write it")
    instruction: str = OutputField(desc="the instruction alone")


class Reword(Signature):
    """Write an instruction with which a language model does a task better than with the one it has now. Be bold."""

    task: str = InputField(desc="the fields, and the instruction so far")
    proposal: str = InputField(desc="which of several proposals this is; they should differ")
    instruction: str = OutputField(desc="the instruction alone")


class Rework(Signature):
    """Write an instruction that a language model will do better with than with all that were tried, worst first."""

    task: str = InputField(desc="the fields")
    tried: str = InputField(desc="instructions and their scores, the higher the better")
    proposal: str = InputField(desc="which of several proposals this is; they should differ")
    instruction: str = OutputField(desc="the instruction alone")


def advisor(signature: type[Signature], *, client: str, temperature: float, rollout: int = 0) -> Predict:
    """Return a predictor that asks for advice.

    Args:
        signature: What it asks.
        client: The client it asks.
        temperature: How adventurous.
        rollout: Tells askings of the same thing apart.
    """
    return Predict(signature, client=client, temperature=temperature, rollout=rollout)


async def told(lab: Lab, predictor: Predict, **inputs: Any) -> str | None:
    """Return a piece of advice; `None` if the model has none that will do, which telemetry hears of.

    Args:
        lab: Asks.
        predictor: Whose last output is the advice.
        inputs: Its inputs.

    Raises:
        ClientError: If the model cannot be asked at all.
    """
    *_, name = predictor.signature.output_fields
    try:
        text = str((await lab.ask(predictor, **inputs))[name]).strip()
    except (AdapterParseError, LMContextWindowExceeded) as error:
        if telemetry.listening:
            telemetry.emit("otpy.teleprompter.no_advice", signature=predictor.signature.__name__, error=error)
        return None
    return text or None


def described(predictor: Predict, *, instruction: bool = True) -> str:
    """Return a predictor's fields, and its instruction, as text for a prompt.

    Args:
        predictor: The predictor.
        instruction: Whether the instruction is told.

    Example:
        >>> from otpy.programs import Predict
        >>> from otpy.teleprompters.advice import described
        >>> print(described(Predict("question -> answer: int")))
        inputs: question (str)
        outputs: answer (int)
        instruction: Given the fields `question`, produce the fields `answer`.
    """
    contract = predictor.signature

    def words(fields: Mapping[str, Any]) -> str:
        return ", ".join(
            f"{field.name} ({field.type}{': ' + field.desc if field.desc else ''})" for field in fields.values()
        )

    lines = [f"inputs: {words(contract.input_fields)}", f"outputs: {words(contract.output_fields)}"]
    return "\n".join([*lines, f"instruction: {contract.instructions}"] if instruction else lines)

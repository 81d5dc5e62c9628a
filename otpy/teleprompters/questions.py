"""What people are asked, and what they may answer: questions and verdicts as JSON data. Pure."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

from otpy.errors import TeleprompterError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

__all__ = [
    "DECISIONS",
    "Choice",
    "Question",
    "Verdict",
    "about_instruction",
    "about_score",
    "agreement",
    "checked",
    "choices_of",
]

DECISIONS: Final = ("approve", "veto", "pin")
"""What may be said of an instruction; the text that is approved or pinned may be another than was proposed."""
MOST_CHOICES: Final = 10


@dataclass(frozen=True, slots=True)
class Choice:
    """One of the answers that a judge may give.

    Args:
        key: The key to press.
        label: What it means.
        value: What it counts for.
    """

    key: str
    label: str
    value: float


@dataclass(frozen=True, slots=True)
class Question:
    """What people are asked: how good an answer is, or whether an instruction may be used.

    Args:
        key: Equal questions have the same.
        kind: `"score"` or `"instruction"`.
        text: The question in words.
        shown: What is shown with it, by name: inputs and outputs, or the instruction so far and the new one.
        guidance: How to judge.
        choices: The answers there are; none for an instruction.
        label: What is known of the right answer; shown only if a judge asks for it.
        needed: How many people are to answer.
    """

    key: str
    kind: str
    text: str
    shown: Mapping[str, Mapping[str, Any]]
    guidance: str = ""
    choices: tuple[Choice, ...] = ()
    label: Mapping[str, Any] | None = None
    needed: int = 1

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON data."""
        data = {"key": self.key, "kind": self.kind, "question": self.text, "guidance": self.guidance}
        choices = [{"key": one.key, "label": one.label, "value": one.value} for one in self.choices]
        return {**data, "choices": choices, "shown": self.shown, "label": self.label, "needed": self.needed}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Question:
        """Read one again.

        Raises:
            KeyError: If something is missing; also `TypeError` if it is of another shape.
        """
        choices = tuple(Choice(one["key"], one["label"], float(one["value"])) for one in data["choices"])
        words = data["key"], data["kind"], data["question"], data["shown"], data["guidance"]
        return cls(*words, choices, data["label"], data["needed"])


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one person has answered.

    Args:
        judge: Who.
        value: What it counts for; `None` for an instruction.
        choice: The label that was chosen, or the decision.
        words: The reasons; of an instruction, the text to use.
    """

    judge: str
    value: float | None
    choice: str
    words: str = ""


def about_score(  # noqa: PLR0913 - keyword-only facts
    text: str,
    *,
    choices: tuple[Choice, ...],
    inputs: Mapping[str, Any],
    outputs: Mapping[str, Any],
    label: Mapping[str, Any] | None,
    guidance: str = "",
    needed: int = 1,
) -> Question:
    """Return the question how good outputs are; the same words and values make the same question.

    Args:
        text: The question.
        choices: The answers.
        inputs: What was asked, as JSON data.
        outputs: What was answered, as JSON data.
        label: What is known of the right answer.
        guidance: How to judge.
        needed: How many people are to answer.
    """
    shown = {"inputs": dict(inputs), "outputs": dict(outputs)}
    key = _key("score", text, guidance, [[one.label, one.value] for one in choices], shown)
    return Question(key, "score", text, shown, guidance, choices, label, needed)


def about_instruction(path: str, new: str, now: str) -> Question:
    """Return the question whether a predictor may be given an instruction; the same one is asked once.

    Args:
        path: The predictor.
        new: The instruction that was proposed.
        now: Its instruction so far, shown beside.
    """
    shown = {"predictor": {"path": path, "instruction so far": now}, "proposal": {"instruction": new}}
    return Question(_key("instruction", path, new), "instruction", "May this instruction be used?", shown)


def _key(*parts: Any) -> str:
    text = json.dumps(parts, sort_keys=True, ensure_ascii=True)
    return hashlib.blake2b(text.encode("ascii"), digest_size=12).hexdigest()


def choices_of(scale: Any, choices: Any) -> tuple[Choice, ...]:
    """Return the answers that a scale has, or that choices name.

    Args:
        scale: The least and the greatest whole number; they count for 0 and 1, and those between in proportion.
        choices: Labels, and what each counts for.

    Raises:
        TeleprompterError: If they are no such things, or too many.

    Example:
        >>> from otpy.teleprompters.questions import choices_of
        >>> [(one.key, one.label, one.value) for one in choices_of((1, 3), None)]
        [('1', '1', 0.0), ('2', '2', 0.5), ('3', '3', 1.0)]
        >>> [(one.key, one.value) for one in choices_of(None, {"good": 1, "bad": 0})]
        [('1', 1.0), ('2', 0.0)]
    """
    if choices is not None:
        if scale is not None:
            raise TeleprompterError(f"scale={scale!r} and choices={choices!r}; allowed: one of the two")
        return _named(choices)
    low, high = _ends((0, 1) if scale is None else scale)
    numbers = range(low, high + 1)
    labels = ("no", "yes") if (low, high) == (0, 1) else tuple(map(str, numbers))
    digits = low >= 0 and high <= 9
    return tuple(
        Choice(str(number if digits else (at + 1) % 10), labels[at], at / (high - low))
        for at, number in enumerate(numbers)
    )


def _named(choices: Any) -> tuple[Choice, ...]:
    allowed = f"2 to {MOST_CHOICES} labels with what each counts for, as {{'good': 1, 'bad': 0}}"
    if not hasattr(choices, "items") or not 2 <= len(choices) <= MOST_CHOICES:
        raise TeleprompterError(f"choices={choices!r}; allowed: {allowed}")
    found = cast("list[tuple[Any, Any]]", list(choices.items()))
    for label, value in found:
        if not isinstance(label, str) or not label.strip() or not _is_finite(value):
            raise TeleprompterError(f"choices={choices!r}, with {label!r}: {value!r}; allowed: {allowed}")
    return tuple(Choice(str((at + 1) % 10), label, float(value)) for at, (label, value) in enumerate(found))


def _is_finite(value: object) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


def _ends(scale: Any) -> tuple[int, int]:
    ends: list[Any] = list(scale) if isinstance(scale, (tuple, list)) else []  # pyright: ignore[reportUnknownArgumentType] - looked at next
    numbers = [one for one in ends if isinstance(one, int) and not isinstance(one, bool)]
    if len(ends) != 2 or len(numbers) != 2 or not 0 < numbers[1] - numbers[0] < MOST_CHOICES:
        raise TeleprompterError(
            f"scale={scale!r}; allowed: two whole numbers, the least and the greatest, with at most {MOST_CHOICES}"
            " values, as (1, 5)"
        )
    return numbers[0], numbers[1]


def agreement(judged: Iterable[Sequence[Verdict]]) -> list[str]:
    """Return on how many of the questions that several people answered all of them chose the same, in words.

    Args:
        judged: The verdicts on each.

    Example:
        >>> from otpy.teleprompters.questions import Verdict, agreement
        >>> agreement([[Verdict("anna", 1.0, "yes"), Verdict("bob", 1.0, "yes")]])
        ['the judges agree on 1 of 1']
    """
    counts = [len({one.choice for one in verdicts}) == 1 for verdicts in judged]
    return [f"the judges agree on {sum(counts)} of {len(counts)}"] if counts else []


def checked(question: Question, judge: str, answer: Mapping[str, Any]) -> Verdict:
    """Return somebody's answer as a verdict.

    Args:
        question: What was asked.
        judge: Who answers.
        answer: `{"choice": label or key, "feedback": words}`, or `{"value": number, …}`; of an instruction
            `{"decision": "approve", "veto" or "pin", "text": the text to use}`, by default the proposed one.

    Raises:
        TeleprompterError: If it is no answer to this question.

    Example:
        >>> from otpy.teleprompters.questions import about_score, checked, choices_of
        >>> question = about_score("Good?", choices=choices_of((0, 1), None), inputs={}, outputs={}, label=None)
        >>> checked(question, "anna", {"choice": "yes", "feedback": "short"})
        Verdict(judge='anna', value=1.0, choice='yes', words='short')
    """
    if not judge.strip() or len(judge) > 100 or not judge.isprintable():
        raise TeleprompterError(f"judge={judge!r:.120}; allowed: a name of at most 100 letters")
    known = ("decision", "text") if question.kind == "instruction" else ("choice", "value", "feedback")
    others = [name for name in answer if name not in (*known, "key", "judge")]
    if others:
        raise TeleprompterError(f"{question.key}: {others[0]!r} is no part of an answer; allowed: {', '.join(known)}")
    if question.kind == "instruction":
        return _decided(question, judge, answer)
    words = answer.get("feedback") or ""
    if not isinstance(words, str):
        raise TeleprompterError(f"{question.key}: feedback={words!r:.100}; allowed: a text")
    chosen = _chosen(question.choices, answer)
    if chosen is None:
        allowed = ", ".join(f"{one.label} ({one.value:g})" for one in question.choices)
        given = {name: answer[name] for name in ("choice", "value") if name in answer}
        raise TeleprompterError(f"{question.key}: {given or 'no choice'}; allowed: one of {allowed}")
    return Verdict(judge, chosen.value, chosen.label, words.strip())


def _chosen(choices: Sequence[Choice], answer: Mapping[str, Any]) -> Choice | None:
    if ("choice" in answer) == ("value" in answer):
        return None
    if "value" in answer:
        value = answer["value"]
        return next((one for one in choices if not isinstance(value, (str, bool)) and one.value == value), None)
    text = str(answer["choice"])
    by_label = next((one for one in choices if one.label == text), None)
    return by_label or next((one for one in choices if one.key == text), None)


def _decided(question: Question, judge: str, answer: Mapping[str, Any]) -> Verdict:
    decision, proposed = answer.get("decision"), question.shown["proposal"]["instruction"]
    if decision not in DECISIONS:
        raise TeleprompterError(f"{question.key}: decision={decision!r}; allowed: {', '.join(DECISIONS)}")
    text = answer.get("text", proposed)
    if not isinstance(text, str) or not text.strip():
        raise TeleprompterError(f"{question.key}: text={text!r:.100}; allowed: the instruction to use, not empty")
    return Verdict(judge, None, str(decision), proposed if text.strip() == proposed.strip() else text.strip())

"""pydantic's validators in a signature: on a field, across the outputs, inherited, and told to the model."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pytest
from pydantic import AfterValidator, field_validator, model_validator

from otpy.errors import AdapterParseError, SignatureError
from otpy.signatures import InputField, OutputField, Signature


def polite(text: str) -> str:
    if "please" not in text:
        raise ValueError("it has to say please")
    return text


class Plan(Signature):
    """Plan a trip."""

    days: int = InputField()
    request: Annotated[str, AfterValidator(polite)] = OutputField()
    start: int = OutputField()
    end: int = OutputField()

    @field_validator("days", "start")
    @classmethod
    def _from_day_one(cls, value: int) -> int:
        if value < 1:
            raise ValueError("days are counted from 1")
        return value

    @model_validator(mode="after")
    def _in_order(self) -> Any:
        if self.end < self.start:
            raise ValueError(f"the end ({self.end}) is before the start ({self.start})")
        return self


GOOD = {"request": "please", "start": 1, "end": 2}


def refused(**outputs: Any) -> str:
    with pytest.raises(SignatureError) as raised:
        Plan.validate_outputs({**GOOD, **outputs})
    return str(raised.value).removeprefix("Plan: ").partition(". The outputs")[0]


def test_outputs_that_satisfy_all_validators_pass():
    assert Plan.validate_outputs(GOOD) == GOOD


def test_a_validator_in_the_type_says_in_its_own_words_what_is_wrong():
    assert refused(request="now") == "'request': it has to say please"


def test_a_fields_validator_watches_inputs_and_outputs_by_name():
    assert refused(start=0) == "'start': days are counted from 1"
    with pytest.raises(SignatureError, match="'days': days are counted from 1"):
        Plan.validate_inputs({"days": 0})
    assert Plan.validate_inputs({"days": 1}) == {"days": 1}


def test_a_models_validator_sees_the_outputs_together():
    assert refused(end=0) == "the end (0) is before the start (1)"


def test_an_answer_that_a_validator_refuses_is_a_parse_error_with_its_words_so_that_the_model_is_told():
    with pytest.raises(AdapterParseError) as raised:
        Plan.read_outputs('{"request": "please", "start": 5, "end": 2}')
    assert raised.value.detail == "the end (2) is before the start (5)"
    assert raised.value.missing == ("request", "start", "end")


def test_a_validator_may_mend_what_it_finds():
    class Tagged(Signature):
        text: str = InputField()
        tags: list[str] = OutputField()

        @field_validator("tags", mode="before")
        @classmethod
        def _split(cls, value: Any) -> Any:
            return value.split(",") if isinstance(value, str) else value

        @model_validator(mode="before")
        @classmethod
        def _renamed(cls, values: Any) -> Any:
            return {"tags": values["labels"]} if "labels" in values else values

    assert Tagged.read_outputs('{"tags": "a,b"}') == {"tags": ["a", "b"]}
    assert Tagged.read_outputs('{"labels": ["c"]}') == {"tags": ["c"]}


def test_an_assertion_is_told_in_its_words():
    class Even(Signature):
        text: str = InputField()
        number: int = OutputField()

        @field_validator("number")
        @classmethod
        def _even(cls, value: int) -> int:
            assert value % 2 == 0, "an even number is wanted"
            return value

    with pytest.raises(SignatureError, match="'number': an even number is wanted"):
        Even.validate_outputs({"number": 3})


def test_validators_are_inherited_and_stay_in_changed_copies():
    class Longer(Plan):
        hotel: str = OutputField()

    for changed in (Longer, Plan.with_instructions("Other."), Plan.prepend("reasoning", OutputField())):
        more = {name: "x" for name in changed.output_fields if name not in GOOD}
        with pytest.raises(SignatureError, match="before the start"):
            changed.validate_outputs({**GOOD, **more, "end": 0})


def test_a_subclass_may_replace_a_validator():
    class Loose(Plan):
        @model_validator(mode="after")
        def _in_order(self) -> Any:
            return self

    assert Loose.validate_outputs({**GOOD, "end": 0})["end"] == 0


def test_without_a_field_the_validators_that_may_speak_of_it_are_gone():
    shorter = Plan.delete("end")
    assert shorter.validate_outputs({"request": "please", "start": 3}) == {"request": "please", "start": 3}
    with pytest.raises(SignatureError, match="counted from 1"):
        shorter.validate_outputs({"request": "please", "start": 0})


def test_signatures_with_other_validators_are_not_equal():
    class Bare(Signature):
        """Plan a trip."""

        days: int = InputField()
        request: Annotated[str, AfterValidator(polite)] = OutputField()
        start: int = OutputField()
        end: int = OutputField()

    assert Bare != Plan
    assert Plan.with_instructions("Plan a trip.") == Plan


def test_a_validator_of_all_fields_watches_both_sides():
    class Short(Signature):
        question: str = InputField()
        answer: Literal["yes", "no"] = OutputField()

        @field_validator("*", mode="before")
        @classmethod
        def _trimmed(cls, value: Any) -> Any:
            return value.strip() if isinstance(value, str) else value

    assert Short.validate_inputs({"question": " why "}) == {"question": "why"}
    assert Short.read_outputs('{"answer": " yes "}') == {"answer": "yes"}

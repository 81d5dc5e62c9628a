"""Programs on the real local model: what is asked is answered in its form, whatever a small model makes of it."""

from __future__ import annotations

from typing import Literal

import pydantic
import pytest

import otpy
from otpy.clients import models

MODEL = "smollm2-135m"
pytestmark = pytest.mark.skipif(
    not (models.runtime_installed() and models.installed(MODEL)),
    reason=f"no xllamacpp or no weights: pip install -e '.[local]'; otpy models pull {MODEL}",
)


class Stop(pydantic.BaseModel):
    """A stop of a journey."""

    city: str
    nights: int = pydantic.Field(ge=1, le=9)


class Journey(otpy.Signature):
    """Plan a short journey."""

    wish: str = otpy.InputField()
    stops: list[Stop] = otpy.OutputField(desc="two stops", min_length=1, max_length=2)
    season: Literal["spring", "summer", "autumn", "winter"] = otpy.OutputField()


@pytest.fixture(scope="module")
def app():
    """One server for all."""
    with otpy.start(lm=f"local/{MODEL}", max_tokens=150, cache=False) as running:
        yield running


def test_a_chain_of_thought_thinks_and_answers(app):
    found = otpy.ChainOfThought("question -> answer")(question="What is the capital of France?")
    assert found.reasoning.strip()
    assert "Paris" in found.answer + found.reasoning


def test_a_nested_output_has_its_types(app):
    found = otpy.Predict(Journey, max_reasks=2)(wish="Two quiet cities in Italy.")
    assert all(isinstance(stop, Stop) for stop in found.stops)
    assert found.season in {"spring", "summer", "autumn", "winter"}


def test_a_stream_is_the_answer_in_pieces(app):
    events = list(otpy.Predict("question -> answer").stream(question="What is the capital of Italy?"))
    told = "".join(event.text for event in events if isinstance(event, otpy.FieldText))
    assert told == events[-1].answer
    assert sum(isinstance(event, otpy.FieldText) for event in events) > 1


def test_several_answers_are_asked_for_one_at_a_time(app):
    colours = otpy.Signature("question -> answer: Literal['red', 'green', 'blue']")
    found = otpy.Predict(colours, n=3, temperature=0.8)(question="Name a colour.")
    assert len(found.completions) == 3
    assert found.usage.requests == 3

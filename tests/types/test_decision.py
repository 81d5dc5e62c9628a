"""Decisions: equal to their value, asked for as their value, with the probabilities that the answer's tokens tell."""

from __future__ import annotations

import copy
import enum
import json
import math
import pickle
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otpy.errors import SignatureError
from otpy.lm import TokenLogprob
from otpy.signatures import Signature
from otpy.signatures.decisions import logprobs_for, weigh
from otpy.types import Decision
from otpy.types.decision import weighed

Card = Decision[Literal["card", "cash", "car"]]


class Mood(enum.Enum):
    GOOD = "good"
    BAD = "bad"


def token(text: str, likely: float = 1.0, **others: float) -> TokenLogprob:
    top = ((text, math.log(likely)), *((other, math.log(share)) for other, share in others.items()))
    return TokenLogprob(text, math.log(likely), top)


def shares(decision: Decision, name: str, *tokens: TokenLogprob) -> dict[str, float]:
    text = "".join(one.token for one in tokens)
    return {key: round(share, 6) for key, share in (weighed(decision, name, text, tokens).probabilities or {}).items()}


def test_a_decision_is_equal_to_its_value_and_written_as_it():
    signature = Signature("mail -> kind: Decision[Literal['card', 'cash']], mood: Decision[bool]")
    outputs = signature.read_outputs('{"kind": "card", "mood": true}')
    assert outputs == {"kind": "card", "mood": True}
    assert outputs["kind"].value == "card"
    assert hash(outputs["kind"]) == hash("card")
    assert signature.dump_outputs(outputs) == {"kind": "card", "mood": True}
    assert signature.output_schema().schema.value["properties"] == {
        "kind": {"enum": ["card", "cash"], "type": "string"},
        "mood": {"type": "boolean"},
    }
    assert signature.output_fields["kind"].allowed == ("card", "cash")


def test_an_enumeration_is_decided_between_too():
    signature = Signature("mail -> mood: Decision[Mood]", types={"Mood": Mood})
    outputs = signature.read_outputs('{"mood": "bad"}')
    assert outputs["mood"].value is Mood.BAD
    assert signature.dump_outputs(outputs) == {"mood": "bad"}


def test_a_value_that_is_not_listed_is_refused():
    with pytest.raises(SignatureError, match="'card', 'cash' or 'car'"):
        Card("gold")


def test_the_alternatives_of_each_token_are_followed_as_far_as_they_tell_the_values_apart():
    tokens = [token('{"kind": "'), token("ca", 0.8, no=0.2), token("rd", 0.5, sh=0.3, r=0.2), token('"}')]
    assert shares(Card("card"), "kind", *tokens) == {"card": 0.625, "cash": 0.375, "car": 0.0}
    found = weighed(Card("card"), "kind", '{"kind": "card"}', tokens)
    assert found.covered == pytest.approx(0.64)
    assert found.probability == pytest.approx(0.625)


def test_a_value_that_begins_another_is_told_by_what_follows():
    tokens = [token('{"kind": "'), token("car"), token('"', 0.75, d=0.25), token("}")]
    assert shares(Card("car"), "kind", *tokens) == {"card": 0.25, "cash": 0.0, "car": 0.75}
    plain = [token("[[ ## kind ## ]]\n"), token("car", 0.75, card=0.25)]
    assert shares(Card("car"), "kind", *plain) == {"card": 0.25, "cash": 0.0, "car": 0.75}


def test_a_token_that_holds_the_quote_too_is_cut_where_the_value_begins():
    tokens = [
        token('{"kind":'),
        TokenLogprob(' "car', math.log(0.5), ((' "car', math.log(0.5)), (' "cash', math.log(0.25)))),
        token('d"', 0.5, **{'"': 0.5}),
        token("}"),
    ]
    assert shares(Card("card"), "kind", *tokens) == {"card": 0.333333, "cash": 0.333333, "car": 0.333333}


@pytest.mark.parametrize(
    "before", ['{"other": "card", "kind": "', "[[ ## kind ## ]]\n", "<kind>", 'Say "kind": well. {"kind" : "']
)
def test_the_value_is_found_behind_its_name_in_json_sections_and_tags(before):
    tokens = [token(before), token("card", 0.75, cash=0.25), token('"}' if before.endswith('"') else "\n")]
    assert shares(Card("card"), "kind", *tokens) == {"card": 0.75, "cash": 0.25, "car": 0.0}


def test_true_and_false_are_weighed_as_json_writes_them():
    tokens = [token('{"urgent": '), token("true", 0.9, false=0.1), token("}")]
    assert shares(Decision[bool](json.loads("true")), "urgent", *tokens) == {True: 0.9, False: 0.1}


@pytest.mark.parametrize("tokens", [[], [token("something else")], [token('{"kind": "card"')]])
def test_without_tokens_that_tell_there_are_no_probabilities(tokens):
    decision = weighed(Card("card"), "kind", '{"kind": "card"}', tokens)
    assert decision.probabilities is None
    assert decision.probability is None
    assert repr(decision) == "Decision('card')"


def test_probabilities_that_are_none_are_refused_and_no_answer_brings_any_along():
    for wrong in ({"card": 0.5}, {"card": 1.5, "cash": -0.5}, {"gold": 1.0}):
        with pytest.raises(SignatureError, match="allowed: shares >= 0 of 'card', 'cash', 'car' that sum to 1"):
            Card("card", probabilities=wrong)
    with pytest.raises(SignatureError):
        Signature("q -> kind: Decision[Literal['a', 'b']]").read_outputs(
            '{"kind": {"value": "a", "probabilities": {"a": 1}}}'
        )


def test_numbers_have_a_mean():
    stars = Decision[Literal[1, 2, 3]](2, probabilities={1: 0.5, 2: 0.25, 3: 0.25})
    assert stars.expected == 1.75
    assert Card("card", probabilities={"card": 1.0}).expected is None


def test_probabilities_stay_in_copies_and_across_processes():
    decision = Card("card", probabilities={"card": 0.75, "cash": 0.25})
    for other in (copy.deepcopy(decision), pickle.loads(pickle.dumps(decision))):
        assert other.probabilities == {"card": 0.75, "cash": 0.25}
    with pytest.raises(TypeError):
        decision.probabilities["card"] = 1.0  # type: ignore[index]


def test_the_outputs_of_a_signature_are_weighed_together():
    signature = Signature("q -> kind: Decision[Literal['a', 'b']], note")
    assert logprobs_for(signature) == 20
    assert logprobs_for(Signature("q -> note")) is None
    assert logprobs_for(Signature("q -> kind: Optional[Decision[bool]]")) == 20
    text = '{"kind": "a", "note": "x"}'
    tokens = [token('{"kind": "'), token("a", 0.5, b=0.5), token('", "note": "x"}')]
    weighty = weigh(signature.read_outputs(text), text, tokens)
    assert weighty["kind"].probabilities == {"a": 0.5, "b": 0.5}
    assert weighty["note"] == "x"
    assert weigh(signature.read_outputs(text), text, [])["kind"].probabilities is None


@given(st.data())
def test_however_the_answer_is_cut_into_tokens_the_shares_sum_to_one(data):
    value = data.draw(st.sampled_from(["card", "cash", "car"]))
    text = json.dumps({"note": "x", "kind": value})
    cuts = sorted(data.draw(st.sets(st.integers(1, len(text) - 1))))
    pieces = [text[i:j] for i, j in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    tokens = []
    for piece in pieces:
        others = data.draw(
            st.lists(st.sampled_from(["card", "ca", "sh", 'r"', "c", '"', "x", ""]), max_size=3, unique=True)
        )
        top = [(other, math.log(0.5 / (len(others) + 1))) for other in others if other != piece]
        tokens.append(TokenLogprob(piece, math.log(0.5), ((piece, math.log(0.5)), *top)))
    decision = weighed(Card(value), "kind", text, tokens)
    assert decision == value
    assert decision.probabilities is not None
    assert sum(decision.probabilities.values()) == pytest.approx(1)
    assert 0 < decision.covered <= 1
    assert decision.probabilities[value] > 0

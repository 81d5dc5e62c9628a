"""An answer survives being stored as data, with all its parts."""

import json

from hypothesis import given
from hypothesis import strategies as st

from otpy.lm import (
    Choice,
    FrozenJSON,
    LMResponse,
    Media,
    Reasoning,
    Text,
    TokenLogprob,
    ToolResult,
    ToolUse,
    Usage,
    answer_of,
    stored,
)

words = st.text(max_size=8)
parts = st.one_of(
    st.builds(Text, words),
    st.builds(Reasoning, words, st.none() | words, st.none() | words),
    st.builds(ToolUse, words, words, st.just(FrozenJSON.of({"a": [1]})), st.none() | words),
    st.builds(ToolResult, words, words, words, st.booleans()),
    st.builds(Media, st.just("image"), st.just("image/png"), st.binary(max_size=8)),
)
logprobs = st.lists(
    st.builds(
        TokenLogprob, words, st.floats(-9, 0), st.lists(st.tuples(words, st.floats(-9, 0)), max_size=2).map(tuple)
    ),
    max_size=2,
).map(tuple)
choices = st.builds(Choice, words, words, st.lists(parts, max_size=3).map(tuple), logprobs)
answers = st.builds(
    lambda all_, model, counts, id_: LMResponse.of(tuple(all_), model=model, usage=Usage(*counts), id=id_),
    st.lists(choices, min_size=1, max_size=3),
    words,
    st.lists(st.integers(0, 9), min_size=6, max_size=6),
    words,
)


@given(answers)
def test_it_comes_back_as_it_was(answer):
    assert answer_of(json.loads(json.dumps(stored(answer)))) == answer


def test_what_was_stored_before_there_were_parts_is_read():
    old = {"text": "hi", "model": "m", "finish_reason": "stop", "usage": [1, 2, 0, 0, 1]}
    assert answer_of(old, cached=True) == LMResponse("hi", "m", "stop", Usage(1, 2, 0, 0, 1), cached=True)

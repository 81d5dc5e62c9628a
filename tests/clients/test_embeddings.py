"""Embeddings of OpenAI-compatible servers: what is sent and what is read.

`golden/embeddings_*.json` are the bodies that must be sent. Where the `openai` package is installed its types and its
own reading are asked as well.
"""

import base64
import json
import math
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otpy.clients.embeddings import decode, encode
from otpy.errors import LMError, LMRequestInvalid, LMResponseInvalid, LMStatusError
from otpy.lm import Usage

GOLDEN = Path(__file__).parent / "golden"
REQUESTS = {
    "plain": encode(["hello", "grüße 🙂"], "m"),
    "short": encode(("hello",), "m", 256, encoding="base64"),
}


def packed(vector):
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


def answer(*vectors, order=None, **fields):
    places = order or range(len(vectors))
    data = [{"object": "embedding", "index": at, "embedding": each} for at, each in zip(places, vectors, strict=True)]
    return json.dumps({"object": "list", "model": "m-2026", "data": data, **fields}).encode()


@pytest.mark.parametrize("name", REQUESTS)
def test_a_request_is_sent_as_its_golden_body(name):
    sent = REQUESTS[name]
    assert (sent.path, sent.headers) == ("/embeddings", ())
    golden = (GOLDEN / f"embeddings_{name}.json").read_text(encoding="utf-8")
    assert json.dumps(json.loads(sent.body), indent=1, ensure_ascii=False) + "\n" == golden


@pytest.mark.parametrize("name", REQUESTS)
def test_the_providers_own_types_take_every_golden_body(name):
    pytest.importorskip("openai", reason="the openai package is not installed")
    import pydantic
    from openai.types import EmbeddingCreateParams

    body = json.loads((GOLDEN / f"embeddings_{name}.json").read_text(encoding="utf-8"))
    read = pydantic.TypeAdapter(EmbeddingCreateParams).validate_python(body)
    assert {**read, "input": list(read["input"])} == body


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (([], "m"), "at least one text"),
        (("hello", "m"), "at least one text"),
        ((["hello"], "m", 0), "dimensions=0"),
    ],
)
def test_what_makes_no_sense_is_refused_before_it_is_sent(arguments, words):
    with pytest.raises(LMRequestInvalid, match=words):
        encode(*arguments)
    with pytest.raises(LMRequestInvalid, match="'float', 'base64'"):
        encode(["hello"], "m", encoding="hex")


def test_vectors_are_in_the_order_of_the_texts_with_the_tokens_they_took():
    usage = {"prompt_tokens": 7, "total_tokens": 7}
    read = decode(answer([0.5, 1], [2, -0.25], order=[1, 0], usage=usage), 2)
    assert [list(vector) for vector in read.vectors] == [[2, -0.25], [0.5, 1]]
    assert (read.usage, read.model) == (Usage(7, requests=1), "m-2026")


FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)


@given(st.integers(1, 5).flatmap(lambda n: st.lists(st.lists(FLOATS, min_size=n, max_size=n), min_size=1, max_size=4)))
def test_both_encodings_mean_the_same_vectors(vectors):
    plain = decode(answer(*vectors)).vectors
    assert [list(vector) for vector in plain] == vectors
    assert decode(answer(*map(packed, vectors))).vectors == plain


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "not a list of embeddings"),
        (b"<!doctype html>", "but a web page"),
        (answer(), "0 embeddings"),
        (answer([1.0]), r"1 embeddings with the indices \[0\]"),
        (answer([1.0], [1.0], order=[0, 0]), r"indices \[0, 0\]"),
        (answer([1.0], [1.0, 2.0]), "different lengths"),
        (answer([], []), "is empty"),
        (answer([math.inf], [1.0]), "finite"),
        (answer([math.nan], [1.0]), "finite"),
        (answer([1e300], [1.0]), "finite|OverflowError"),
        (answer([[1.0]], [[1.0]]), "TypeError"),
        (answer(["a"], ["b"]), "TypeError"),
        (answer("AAA", "AAA"), "not a list of embeddings"),
        (answer("AAAA", "AAAA"), "not a list of embeddings"),
        (answer("!!!!", "!!!!"), "not a list of embeddings"),
        (answer(None, None), "no vector"),
    ],
)
def test_an_answer_that_does_not_fit_the_two_texts_sent_is_invalid(body, words):
    with pytest.raises(LMResponseInvalid, match=words):
        decode(body, 2)


def test_an_error_with_status_200_is_an_error():
    with pytest.raises(LMStatusError, match="busy"):
        decode(b'{"error": {"message": "busy", "code": 503}}')


INNER = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["data", "index", "embedding", "usage", "error"]), inner, max_size=4)
    ),
)


@given(st.binary() | (INNER | st.fixed_dictionaries({"data": st.lists(INNER)})).map(lambda it: json.dumps(it).encode()))
def test_whatever_comes_back_is_vectors_or_one_of_our_errors(body):
    try:
        read = decode(body)
    except LMError:
        return
    assert all(math.isfinite(number) for vector in read.vectors for number in vector)


def test_the_providers_own_package_reads_our_samples_as_we_do():
    pytest.importorskip("openai", reason="the openai package is not installed")
    from openai.types import CreateEmbeddingResponse

    body = answer([0.5, 1.0], [2.0, -0.25], usage={"prompt_tokens": 7, "total_tokens": 7})
    theirs, ours = CreateEmbeddingResponse.model_validate_json(body), decode(body, 2)
    assert [each.embedding for each in theirs.data] == [list(vector) for vector in ours.vectors]
    assert ours.usage.input_tokens == theirs.usage.prompt_tokens

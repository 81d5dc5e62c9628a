"""A devset's rows that the trainset has too are found, all of them, and no others."""

import random
import subprocess
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

import otpy
from otpy.errors import DatasetError
from otpy.evaluate.leakage import leaks, similarity

TEXT = st.text(alphabet="ab cÉ", max_size=12)
NEAR = st.floats(0.05, 1)


def rows(*texts):
    return [{"q": text} for text in texts]


@given(st.lists(TEXT, max_size=12), st.lists(TEXT, max_size=12), NEAR)
def test_what_leaks_is_what_comparing_every_pair_finds(train, dev, near):
    report = leaks(rows(*train), rows(*dev), inputs=["q"], near=near)
    alike = {place: max((similarity(text, other) for other in train), default=0) for place, text in enumerate(dev)}
    assert report.rows == {place for place, most in alike.items() if most >= near}
    for leak in report.leaks:
        assert leak.similarity == similarity(dev[leak.dev], train[leak.train]) >= near
        assert leak.exact == (leak.text == leak.twin)
    assert len(report.exact) + len(report.nearly) == len(report.leaks) == len(report.rows)


@given(st.lists(TEXT, min_size=1, max_size=12), st.randoms(use_true_random=False))
def test_a_set_leaks_wholly_into_itself_in_any_order(texts, chance):
    mixed = chance.sample(texts, len(texts))
    report = leaks(rows(*mixed), rows(*texts), inputs=["q"])
    assert report.rows == set(range(len(texts)))
    assert report.exact == report.leaks
    assert leaks([], rows(*texts), inputs=["q"]).leaks == leaks(rows(*texts), [], inputs=["q"]).leaks == ()


@given(TEXT, TEXT)
def test_similarity_is_mutual_and_one_for_the_same(one, other):
    assert 0 <= similarity(one, other) == similarity(other, one) <= similarity(one, one) == 1


def test_leaving_out_the_rows_it_names_leaves_no_leak():
    train = rows("Where is my new card?", "How do I change my PIN?")
    dev = rows("where is my  NEW card?", "How do I change my PIN", "Why was I charged?", "Where is my new card?")
    report = leaks(train, dev, inputs=["q"])
    assert report
    assert [(leak.dev, leak.train, leak.exact) for leak in report.leaks] == [(0, 0, True), (1, 1, False), (3, 0, True)]
    clean = leaks(train, [row for number, row in enumerate(dev) if number not in report.rows], inputs=["q"])
    assert not clean
    assert str(clean) == "none of 1 rows of the devset is among the 2 of the trainset"


def test_inputs_are_those_marked_and_labels_do_not_count():
    train = [otpy.Example(q="a long question", answer="1").with_inputs("q")]
    dev = [otpy.Example(q="a long question", answer="2").with_inputs("q")]
    assert leaks(train, dev).rows == {0}
    assert leaks(train, dev, inputs=["q", "answer"], near=1).rows == set()


def test_values_that_are_no_texts_are_compared_by_what_they_hold():
    train = [{"a": {"x": 1, "y": [True, None]}, "b": 2.5}]
    assert leaks(train, [{"b": 2.5, "a": {"y": [True, None], "x": 1}}], inputs=["a", "b"]).exact
    assert not leaks(train, [{"b": 3.5, "a": {"y": [True, None], "x": 1}}], inputs=["a", "b"], near=1)
    assert not leaks([{"a": "x y", "b": "z"}], [{"a": "x", "b": "y z"}], inputs=["a", "b"]).exact
    assert leaks([{"a": {(1, 2): object}}], [{"a": {(1, 2): object}}], inputs=["a"]).exact
    assert leaks(rows("\ud800abc"), rows("\ud800abd abc"), inputs=["q"], near=0.2).rows == {0}


def test_the_report_says_how_many_and_shows_the_first():
    train = rows(*(f"question number {n} <b>" for n in range(20)), "x" * 200 + "yz")
    dev = rows(*(f"Question number {n} <b>" for n in range(11)), "x" * 200 + "yzw")
    said = str(leaks(train, dev, inputs=["q"], near=0.7)).splitlines()
    assert said[0] == (
        "12 of 12 rows of the devset (100.0%) are in the trainset: 11 exactly, 1 nearly (0.7 or more alike)"
    )
    assert said[1] == "  dev 0 = train 0: question number 0 <b>"
    assert said[-1] == "  and 2 more"
    shown = leaks(train, dev, inputs=["q"], near=0.7)._repr_html_()
    assert shown.count("<tr>") == 13
    assert "&lt;b&gt;" in shown
    assert "<b>question" not in shown
    assert "x" * 79 + "…" in shown
    assert "<table>" not in leaks([], dev, inputs=["q"])._repr_html_()


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ({"near": 0}, "near=0; allowed: a similarity above 0"),
        ({"near": 1.1}, "near=1.1"),
        ({"near": True}, "near=True"),
        ({"inputs": ["r"]}, "trainset: row 0 has no column 'r'; it has q"),
        ({"inputs": "q"}, r"inputs='q' is one text; a list of columns is meant: \['q'\]"),
        ({}, "trainset: the inputs of row 0 are not known; name them"),
    ],
)
def test_what_cannot_be_compared_is_refused(named, message):
    with pytest.raises(DatasetError, match=message):
        leaks(rows("a"), rows("a"), **named)


def test_every_process_finds_the_same():
    code = (
        "import random; from otpy.evaluate.leakage import leaks; chance = random.Random(3)\n"
        "rows = [{'q': ''.join(chance.choices('abc ', k=9))} for _ in range(300)]\n"
        "print(hash('a'), leaks(rows[:150], rows[150:], ['q'], near=0.3).leaks, sep='\\n')"
    )
    said = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60).stdout
        for _ in range(2)
    ]
    (one, found), (other, found_again) = (text.split("\n", 1) for text in said)
    assert one != other
    assert found == found_again


def test_two_thousand_rows_against_two_thousand_take_a_moment():
    chance = random.Random(1)
    texts = [" ".join("".join(chance.choices("etaoinshrdlu", k=5)) for _ in range(12)) for _ in range(4_000)]
    texts[3_000] = texts[7] + "."
    began = time.process_time()
    assert [leak.dev for leak in leaks(rows(*texts[:2_000]), rows(*texts[2_000:]), inputs=["q"]).leaks] == [1_000]
    assert time.process_time() - began < 5

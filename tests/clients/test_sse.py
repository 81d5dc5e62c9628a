"""Server-sent events: what bytes mean, wherever they are cut."""

import itertools

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from otpy.clients.sse import SSE, ServerSentEvent
from otpy.errors import LMResponseInvalid


def events(*pieces, **limits):
    reader = SSE(**limits)
    return [event for piece in pieces for event in reader.feed(piece)]


def pieces_of(body, cuts):
    marks = sorted({0, len(body), *(cut % (len(body) + 1) for cut in cuts)})
    return [body[start:end] for start, end in itertools.pairwise(marks)]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"data: hi\n\n", [("hi", "message")]),
        (b"data:hi\n\n", [("hi", "message")]),
        (b"data:  hi \n\n", [(" hi ", "message")]),
        (b"data\n\n", [("", "message")]),
        (b"data: a\ndata:\ndata: b\n\n", [("a\n\nb", "message")]),
        (b"event: ping\ndata: {}\n\n", [("{}", "ping")]),
        (b"event: ping\n\ndata: x\n\n", [("x", "message")]),
        (b"event:\ndata: x\n\n", [("x", "message")]),
        (b": keep-alive\n\ndata: x\n:\n\n", [("x", "message")]),
        (b"id: 7\nretry: 10\ndatas: no\n data: no\ndata: yes\n\n", [("yes", "message")]),
        (b"data: a\r\n\r\ndata: b\r\rdata: c\n\n", [("a", "message"), ("b", "message"), ("c", "message")]),
        (b"data: a\r\n\ndata: b\n\r\n", [("a", "message"), ("b", "message")]),
        (b"\xef\xbb\xbfdata: bom\n\n", [("bom", "message")]),
        (b"\xef\xbb\xbf\ndata: bom\n\n", [("bom", "message")]),
        (b"data: a\n\n\xef\xbb\xbfdata: not a bom\n\n", [("a", "message")]),
        (b"\n\n\n", []),
        (b"", []),
        (b"data: never finished\n", []),
        (b"data: a\n\ndata: never finished", [("a", "message")]),
        ("data: grüße 🙂\n\n".encode(), [("grüße 🙂", "message")]),
        (b"data: \xff\xfe!\n\n", [("\ufffd\ufffd!", "message")]),
        (
            b"data: line\xe2\x80\xa8separator \x0b\x0c\x1c\x85\n\n",
            [("line\u2028separator \x0b\x0c\x1c\ufffd", "message")],
        ),
    ],
)
def test_a_body_means_these_events_whole_or_byte_by_byte(body, expected):
    assert [(event.data, event.event) for event in events(body)] == expected
    assert events(*(body[at : at + 1] for at in range(len(body)))) == events(body)


PIECES = st.lists(
    st.sampled_from(
        [b"data: ", b"event: e", b"\r", b"\n", b"\r\n", b":", b"x", "ü🙂".encode(), b"\xff", b"\xef\xbb\xbf"]
    )
    | st.binary(max_size=5),
    max_size=40,
).map(b"".join)


@given(PIECES, st.lists(st.integers(0, 300), max_size=12))
@example("data: 🙂\r\n\r\n".encode(), [7, 8, 11, 13])
def test_where_the_bytes_are_cut_makes_no_difference(body, cuts):
    assert events(*pieces_of(body, cuts)) == events(body)


@given(st.lists(st.tuples(st.text().map(lambda text: text.replace("\r", "")), st.sampled_from(["message", "a.b"]))))
def test_what_a_server_writes_by_the_standard_is_read_as_it_was_meant(sent):
    body = b"".join(
        b"".join(
            (f"event: {name}\n".encode(), *(b"data: " + line.encode() + b"\n" for line in data.split("\n")), b"\n")
        )
        for data, name in sent
    )
    assert events(body) == [ServerSentEvent(data, name) for data, name in sent]


@pytest.mark.parametrize(
    "pieces",
    [
        [b"data: " + b"x" * 101],
        [b"data: ", b"x" * 50, b"x" * 51],
        [b"data: " + b"x" * 60 + b"\n", b"data: " + b"x" * 60 + b"\n"],
        [b"data:\n"] * 101,
        [b":" + b"x" * 101],
    ],
)
def test_what_has_no_end_is_refused_while_it_is_read(pieces):
    with pytest.raises(LMResponseInvalid, match="more than 100 bytes"):
        events(*pieces, longest=100)


def test_many_events_and_comments_have_no_bound():
    assert len(events(*[b": ping\n", b"data: " + b"x" * 80 + b"\n\n"] * 100, longest=100)) == 100


def test_a_long_line_in_small_pieces_takes_time_in_proportion():
    assert len(events(b"data: ", *[b"x" * 64] * 100_000, b"\n\n")[0].data) == 6_400_000

"""The history: the exact messages, bounded, without secrets, and harmless wherever it is shown."""

import gc
import weakref
from datetime import UTC, datetime
from decimal import Decimal
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otpy.clients.history import Exchange, History, scrubbed
from otpy.clients.history_view import HistoryView, as_html, as_text
from otpy.clients.labels import Labels
from otpy.errors import ConfigError, LMRefusal
from otpy.lm import (
    Choice,
    FrozenJSON,
    LMRequest,
    LMResponse,
    Media,
    Message,
    OutputSchema,
    Reasoning,
    Text,
    Tool,
    ToolResult,
    ToolUse,
    Usage,
)

EVERYTHING = Exchange(
    LMRequest(
        (
            Message("system", "You are terse."),
            Message("user", (Text("What is this?"), Media("image", "image/png", b"x" * 12_345, name="cat.png"))),
            Message("assistant", (Reasoning("hm"), ToolUse("t1", "look", FrozenJSON.of({"where": "left"})))),
            Message("user", (ToolResult("t1", "look", "a cat", is_error=True),)),
            Message("user", (Media("file", "application/pdf", url="https://host/doc.pdf?signature=abc"),)),
        ),
        OutputSchema("Answer", FrozenJSON.of({"type": "object"})),
        temperature=0.0,
        max_tokens=50,
        tools=(Tool("look", "Looks there.", FrozenJSON.of({"type": "object"})),),
        tool_choice="any",
        n=2,
        extra=FrozenJSON.of({"user": "u1"}),
    ),
    LMResponse("A cat.", "m-1", "stop", Usage(1_200, 34, 1_000, 5, 1), others=(Choice("A dog?", "length"),)),
    client="default",
    model="m",
    began=datetime(2026, 5, 4, 3, 2, 1, tzinfo=UTC),
    seconds=1.234,
    money=Decimal("0.01200"),
    attempts=2,
    labels=Labels("default", "m", "r1", None, "answer", "7"),
)


def simple(question="q", answer="a", **fields):
    return Exchange(LMRequest((Message("user", question),)), LMResponse(answer), **fields)


class Page(HTMLParser):
    """What a browser makes of a page."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.tags, self.attributes, self.text, self.blocks = [], set(), "", []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag == "pre":
            self.blocks.append("")

    def handle_data(self, data):
        self.text += data
        if self.blocks and self.tags[-1] == "pre":
            self.blocks[-1] += data


# -- what is kept -----------------------------------------------------------------------------------------------------


def test_the_last_exchanges_come_oldest_first_and_no_more_than_the_limit():
    history = History(3)
    for number in range(10):
        history.add(simple(str(number)))
    assert [exchange.request.messages[0].content for exchange in history.last()] == ["7", "8", "9"]
    assert [exchange.request.messages[0].content for exchange in history.last(2)] == ["8", "9"]
    assert history.last(0) == []
    assert len(history.last(99)) == len(history) == 3
    with pytest.raises(ValueError, match="n=-1"):
        history.last(-1)
    history.clear()
    assert not history.last()


def test_a_history_of_nothing_keeps_nothing_and_a_negative_one_is_refused():
    history = History(0)
    history.add(simple())
    assert len(history) == 0
    with pytest.raises(ConfigError, match="limit=-1"):
        History(-1)


@given(st.lists(st.integers(0, 4_000), max_size=40))
def test_long_messages_push_the_older_ones_out_but_the_latest_stays(sizes):
    history = History(1_000, max_bytes=10_000)
    for size in sizes:
        history.add(simple("x" * size))
    assert len(history) == 0 if not sizes else history.last(1)[0].request.messages[0].content == "x" * sizes[-1]
    assert sum(len(exchange.request.messages[0].content) for exchange in history) <= 10_000
    assert history._bytes == sum(size for _, size in history._exchanges)


def test_media_count_towards_the_bound():
    history = History(10, max_bytes=10_000)
    history.add(simple("small"))
    history.add(Exchange(LMRequest((Message("user", (Media("image", "image/png", b"x" * 20_000),)),))))
    assert len(history) == 1


def test_an_error_does_not_keep_alive_what_its_frames_have_seen():
    class Big:
        pass

    def fails():
        big = Big()
        seen.append(weakref.ref(big))
        raise LMRefusal("no", client="c", body="because")

    seen = []
    history = History()
    try:
        fails()
    except LMRefusal as error:
        history.add(Exchange(LMRequest((Message("user", "q"),)), error=error))
    try:
        raise OSError(5, "disk")
    except OSError as error:
        history.add(Exchange(LMRequest((Message("user", "q"),)), error=error))
    gc.collect()
    assert seen[0]() is None
    first, second = history.last()
    assert (type(first.error), first.error.client, first.error.body) == (LMRefusal, "c", "because")
    assert "OSError" in str(second.error)


# -- secrets ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "api_key",
        "apiKey",
        "X-API-Key",
        "Authorization",
        "password",
        "client_secret",
        "token",
        "access_token",
        "Cookie",
        "key",
    ],
)
def test_what_looks_like_a_key_is_not_kept(name):
    history = History()
    extra = FrozenJSON.of({"headers": [{name: "hunter2-hunter2"}], "user": "me"})
    history.add(Exchange(LMRequest((Message("user", "q"),), extra=extra)))
    assert history.last()[0].request.extra.value == {"headers": [{name: "***"}], "user": "me"}
    for shown in (repr(history.last()), as_text(history), as_html(history)):
        assert "hunter2" not in shown


@pytest.mark.parametrize("value", ["sk-abc", "Bearer abc", "ghp_abc", "AKIAABC", "eyJhbGciOi"])
def test_what_is_written_like_a_key_is_not_kept_whatever_its_name(value):
    assert scrubbed({"x": [value]}) == {"x": ["***"]}


def test_parameters_that_only_sound_like_keys_are_kept():
    plain = {"top_k": 3, "max_tokens": 5, "logit_bias": {"50256": -100}, "prompt_cache_key": None, "keyboard": "qwerty",
             "min_tokens": 1, "skip_special_tokens": True, "tokenizer": "x"}  # fmt: skip
    assert scrubbed(plain) == plain


def test_a_request_without_extras_is_kept_as_it_is():
    history, exchange = History(), simple()
    history.add(exchange)
    assert history.last()[0] is exchange


# -- in the terminal --------------------------------------------------------------------------------------------------


def test_the_text_shows_what_was_sent_and_received_and_what_it_took():
    assert (
        as_text([EVERYTHING])
        == """\
---- 1  default m  2026-05-04 03:02:01+00:00  1.23 s  2 attempts  \
1,200 tokens read, 34 written (1,000 cached, 5 reasoning)  $0.012  run r1  predictor answer  example 7
[parameters]
temperature=0.0, max_tokens=50, n=2, extra='{"user":"u1"}'
[tool look]
Looks there.
{"type":"object"}
[tool choice]
any
[schema Answer]
{"type":"object"}
[system]
You are terse.
[user]
What is this?
[user, media]
(image 'cat.png', image/png, 12,345 bytes)
[assistant, reasoning]
hm
[assistant, uses tool look (t1)]
{"where":"left"}
[user, error of tool look (t1)]
a cat
[user, media]
(file, application/pdf, at https://host/doc.pdf)
[answer 1]
A cat.
[answer 2 (length)]
A dog?"""
    )


def test_failures_and_remembered_answers_say_so():
    failed = Exchange(LMRequest((Message("user", "q"),)), error=LMRefusal("will not say"), client="default")
    assert as_text([failed]).endswith("[error]\nLMRefusal: will not say")
    assert "from the cache" in as_text([simple(cached=True, seconds=0.0)])
    assert as_text([]) == "(no requests yet)"


def test_a_long_text_is_folded_in_the_middle_and_shown_whole_when_asked():
    text = "a" * 5_000 + "b" * 5_000
    shown = as_text([simple(text)])
    assert "6,000 characters left out" in shown
    assert len(shown) < 4_200
    assert text in as_text([simple(text)], fold=None)


@given(st.text())
def test_nothing_that_was_said_moves_the_cursor(text):
    shown = as_text([simple(text, text)], fold=None)
    assert all(char in "\n\t" or (ord(char) >= 32 and not 0x7F <= ord(char) < 0xA0) for char in shown)
    shown.encode()


def test_control_characters_are_shown_not_obeyed():
    assert "\\x1b[2J and \\u202eback" in as_text([simple("\x1b[2J and \u202eback")])


# -- in a notebook ----------------------------------------------------------------------------------------------------


@given(st.text())
def test_whatever_is_said_no_page_runs_it(text):
    said = f'{text}<script>alert(1)</script>"><img src=x onerror=alert(1)></pre></details>'
    exchange = Exchange(
        LMRequest((Message("user", said), Message("user", (ToolUse(said, said, FrozenJSON.of({said: 1})),)))),
        LMResponse(said, finish_reason=said),
        client=said,
        model=said,
        error=LMRefusal(said),
        labels=Labels(run=said),
    )
    page = Page(as_html([exchange], fold=20))
    assert set(page.tags) <= {"div", "pre", "details", "summary"}
    assert page.attributes <= {"style"}
    as_html([exchange]).encode()


@given(st.text(st.characters(categories=["L", "N", "P", "S", "Zs"], include_characters="\n\t<>&'\"")))
def test_a_page_shows_the_exact_text(text):
    page = Page(as_html([simple(text)]))
    assert page.blocks == ["\n" + text, "\na"]  # a browser leaves the first newline of a `pre` out


def test_a_page_folds_what_is_long_and_shows_media_as_kind_and_size():
    page = Page(as_html([simple("x" * 5_000), EVERYTHING]))
    assert page.tags.count("details") == 1
    assert "5,000 characters" in page.text
    assert "(image 'cat.png', image/png, 12,345 bytes)" in page.text
    assert "signature" not in page.text
    assert "eHh4" not in page.text


# -- a view -----------------------------------------------------------------------------------------------------------


def test_a_view_is_a_sequence_that_shows_itself():
    view = HistoryView([simple("1"), simple("2")])
    assert len(view) == 2
    assert view[1].request.messages[0].content == "2"
    assert repr(view[:1]) == as_text(view[:1])
    assert view._repr_html_() == as_html(view)

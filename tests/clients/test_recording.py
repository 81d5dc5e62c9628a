"""Recordings: replayed strictly or until divergence, written by several processes, and never with a key in them."""

import json
import subprocess
import sys
import threading
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otpy.clients.recording import Recorded, RecordingDrift, RecordingError
from otpy.clients.tape import Recording
from otpy.errors import OtpyError
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
    TokenLogprob,
    Tool,
    ToolResult,
    ToolUse,
    Usage,
)
from otpy.telemetry import bus


def ask(text, **more):
    return LMRequest((Message("system", "You are terse."), Message("user", text)), **more)


def say(text):
    return LMResponse(text, "m", usage=Usage(3, 1, requests=1))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "below" / "answers.jsonl"


def recorded(path, *texts, lane=""):
    recording = Recording(path, "record")
    for text in texts:
        recording.record(ask(text), say(text.upper()), lane=lane)


def run(recording, *texts, lane="", answer=str.upper):
    """Ask as a client would; returns the answers, and which of them had to be paid for."""
    answers, paid = [], []
    for text in texts:
        found = recording.lookup(ask(text), lane=lane)
        if found is None:
            found = say(answer(text))
            recording.record(ask(text), found, lane=lane)
            paid.append(text)
        answers.append(found.text)
    return answers, paid


# -- replayed strictly ------------------------------------------------------------------------------------------------


def test_what_was_recorded_is_replayed_marked_as_cached_with_what_it_once_cost(path):
    recorded(path, "a", "b")
    replay = Recording(path)
    answer = replay.lookup(ask("b"))
    assert (answer.text, answer.usage, answer.cached) == ("B", Usage(3, 1, requests=1), True)
    assert replay.lookup(ask("a")).text == "A"
    assert replay.unused == 0
    assert len(replay) == 2


def test_everything_in_an_answer_comes_back(path):
    answer = LMResponse(
        "Par",
        "m",
        "length",
        Usage(1, 2, 1, 1, 1, 0),
        parts=(Reasoning("hm", "sig", "r1"), Text("Par"), ToolUse("1", "f", FrozenJSON.of({"a": "ü\ud800"}))),
        logprobs=(TokenLogprob("Par", -0.5, (("Lon", -1.5),)),),
        others=(Choice("Lon"),),
        id="req_1",
    )
    request = LMRequest(
        (
            Message("user", (Text("Where?"), Media("image", "image/png", b"\x00\xff"))),
            Message("assistant", (ToolUse("1", "f", FrozenJSON.of({})),)),
            Message("user", (ToolResult("1", "f", "ok"),)),
        ),
        OutputSchema("S", FrozenJSON.of({"type": "object"})),
        temperature=0.5,
        stop=("\n",),
        tools=(Tool("f", "does", FrozenJSON.of({})),),
    )
    Recording(path, "record").record(request, answer)
    found = Recording(path).lookup(request)
    assert found == replace(answer, cached=True)


def test_equal_requests_are_replayed_in_their_recorded_order_and_no_oftener(path):
    recording = Recording(path, "record")
    for text in ("first", "second", "third"):
        recording.record(ask("same"), say(text))
    replay = Recording(path)
    assert [replay.lookup(ask("same")).text for _ in range(3)] == ["first", "second", "third"]
    with pytest.raises(RecordingDrift, match="was recorded 3 times, and is asked once more"):
        replay.lookup(ask("same"))


def test_lanes_keep_equal_requests_apart_and_a_moved_lane_finds_them_all_the_same(path):
    recording = Recording(path, "record")
    for lane in ("2", "1"):  # they went on at the same time, and 2 was faster
        recording.record(ask("same"), say(f"for {lane}"), lane=lane)
    replay = Recording(path)
    assert [replay.lookup(ask("same"), lane=lane).text for lane in ("1", "2")] == ["for 1", "for 2"]
    moved = Recording(path)
    assert [moved.lookup(ask("same"), lane=lane).text for lane in ("8", "9")] == ["for 2", "for 1"]


def test_drift_shows_the_difference_to_the_nearest_recorded_prompt(path):
    recorded(path, "What is the capital of France?", "Translate: good morning", "Sum up this text:\none\ntwo\nthree")
    with pytest.raises(RecordingDrift) as caught:
        Recording(path).lookup(ask("Sum up this text:\none\n2\nthree"))
    assert isinstance(caught.value, OtpyError)
    assert caught.value.diff.splitlines() == [
        "--- recorded",
        "+++ asked",
        "@@ -3,5 +3,5 @@",
        " [user]",
        " Sum up this text:",
        " one",
        "-two",
        "+2",
        " three",
    ]
    assert str(caught.value).endswith(caught.value.diff)
    assert str(path) in str(caught.value)
    with pytest.raises(RecordingDrift, match=r"(?s)-What is the capital of France\?\n\+What is the capital of Spain\?"):
        Recording(path).lookup(ask("What is the capital of Spain?"))


def test_drift_in_a_parameter_a_tool_a_schema_or_a_medium_is_shown_too(path):
    def request(**changes):
        picture = Media("image", "image/png", changes.pop("picture", b"1"))
        tool = Tool("f", changes.pop("tool", "does"), FrozenJSON.of({}))
        schema = OutputSchema("S", FrozenJSON.of({"type": changes.pop("type", "object")}))
        return LMRequest((Message("user", (picture,)),), schema, tools=(tool,), **changes)

    Recording(path, "record").record(request(), say("ok"))
    for changes, shown in (
        ({"temperature": 0.5}, "+temperature: 0.5"),
        ({"tool": "does more"}, "+does more"),
        ({"type": "array"}, '+ "type": "array"'),
        ({"picture": b"22"}, '"bytes": 2'),
        ({"rollout": 3}, "+rollout: 3"),
    ):
        with pytest.raises(RecordingDrift) as caught:
            Recording(path).lookup(request(**changes))
        assert shown in caught.value.diff


def test_a_small_change_in_a_very_long_line_stays_small(path):
    sentences = [f"This is sentence number {number}." for number in range(200)]
    recorded(path, " ".join(sentences))
    sentences[100] = "This one is another."
    with pytest.raises(RecordingDrift) as caught:
        Recording(path).lookup(ask(" ".join(sentences)))
    assert "-This is sentence number 100.\n+This one is another." in caught.value.diff
    assert len(caught.value.diff.splitlines()) < 15


def test_another_context_is_drift_that_says_so(path):
    Recording(path, "record").record(ask("a"), say("A"), context=("default", "m"))
    assert Recording(path).lookup(ask("a"), context=("default", "m")).text == "A"
    with pytest.raises(RecordingDrift, match="another client or model"):
        Recording(path).lookup(ask("a"), context=("default", "n"))


def test_an_empty_recording_and_one_that_is_not_there_say_so(path):
    with pytest.raises(RecordingError, match="there is no such recording"):
        Recording(path)
    path.parent.mkdir()
    path.touch()
    with pytest.raises(RecordingDrift, match="nothing is recorded"):
        Recording(path).lookup(ask("a"))


def test_a_strict_replay_takes_no_new_answers(path):
    recorded(path, "a")
    with pytest.raises(RecordingError, match="replayed strictly"):
        Recording(path).record(ask("b"), say("B"))


def test_recording_asks_always_and_adds_to_what_is_there(path):
    recorded(path, "a")
    again = Recording(path, "record")
    assert again.lookup(ask("a")) is None
    again.record(ask("a"), say("anew"))
    replay = Recording(path)
    assert [replay.lookup(ask("a")).text for _ in range(2)] == ["A", "anew"]


def test_an_unknown_mode_is_refused(path):
    with pytest.raises(RecordingError, match="mode='rewind'"):
        Recording(path, "rewind")


# -- until divergence -------------------------------------------------------------------------------------------------


def test_the_unchanged_prefix_is_free_and_everything_after_the_first_change_is_asked_anew(path):
    recorded(path, "a", "b", "c", "d")
    answers, paid = run(Recording(path, "until_divergence"), "a", "b", "X", "c", "d", answer=lambda text: f"new {text}")
    assert answers == ["A", "B", "new X", "new c", "new d"]
    assert paid == ["X", "c", "d"]
    replay = Recording(path)  # what was recorded before the change is gone from there on
    assert [replay.lookup(ask(text)).text for text in ("a", "b", "X", "c", "d")] == answers
    assert replay.unused == 0


def test_a_run_that_has_not_changed_is_free_and_leaves_the_file_alone(path):
    recorded(path, "a", "b", "a")
    before = path.read_bytes()
    assert run(Recording(path, "until_divergence"), "a", "b", "a") == (["A", "B", "A"], [])
    assert path.read_bytes() == before


def test_until_divergence_begins_with_nothing_and_makes_the_recording(path):
    assert run(Recording(path, "until_divergence"), "a", "b")[1] == ["a", "b"]
    assert run(Recording(path, "until_divergence"), "a", "b")[1] == []


def test_a_change_in_one_lane_costs_the_others_nothing(path):
    for lane in "123":
        recorded(path, "draft", f"improve {lane}", lane=lane)
    recording = Recording(path, "until_divergence")
    assert run(recording, "draft", "improve 1", lane="1")[1] == []
    assert run(recording, "draft", "enhance 2", lane="2")[1] == ["enhance 2"]
    assert run(recording, "draft", "improve 3", lane="3")[1] == []
    assert recording.diverged == {"2"}
    again = Recording(path, "until_divergence")
    assert [run(again, "draft", text, lane=lane)[1] for text, lane in (("improve 1", "1"), ("enhance 2", "2"))] == [
        [],
        [],
    ]


def test_what_a_diverged_lane_has_left_behind_is_replayed_by_no_other(path):
    recorded(path, "a", "b", lane="1")
    recording = Recording(path, "until_divergence")
    assert run(recording, "a", "X", lane="1")[1] == ["X"]
    assert run(recording, "b", lane="2")[1] == ["b"]  # as the file has it now
    assert run(Recording(path, "until_divergence"), "b", lane="2")[1] == []


def test_a_request_that_failed_is_a_change_all_the_same(path):
    recorded(path, "a", "b")
    recording = Recording(path, "until_divergence")
    assert recording.lookup(ask("X")) is None  # and then the model failed
    assert recording.lookup(ask("a")) is None
    assert len(Recording(path)) == 2  # nothing was recorded, nothing is lost


@given(
    st.lists(st.sampled_from("abc"), max_size=8),
    st.lists(st.sampled_from("abcd"), max_size=8),
    st.lists(st.sampled_from("abcd"), max_size=8),
)
def test_after_any_runs_the_file_replays_the_last_one(first, second, third):
    lines = []
    for turn, texts in enumerate((first, second, third)):
        tape = Recorded("until_divergence")
        tape.read(b"".join(lines).split(b"\n"))
        said = []
        for text in texts:
            found = tape.lookup(ask(text))
            if found is None:
                found = say(f"{text} in {turn}")
                lines += tape.added(ask(text), found)
            said.append(found.text)
        replay = Recorded("replay")
        replay.read(b"".join(lines).split(b"\n"))
        assert [replay.lookup(ask(text)).text for text in texts] == said


# -- the file ---------------------------------------------------------------------------------------------------------


def test_a_torn_last_line_is_skipped_and_reported_and_spoils_no_other(path):
    recorded(path, "a", "b")
    whole = path.read_bytes()
    path.write_bytes(whole[:-40])
    seen = []
    with bus.attached("test", lambda event, fields: seen.append((event, fields)), "otpy.recording."):
        replay = Recording(path)
    assert seen == [("otpy.recording.damaged", {"path": str(path), "lines": (2,)})]
    assert "damaged lines were skipped: 2" in replay.warning
    assert replay.lookup(ask("a")).text == "A"
    with pytest.raises(RecordingDrift, match="damaged lines were skipped: 2"):
        replay.lookup(ask("b"))
    recorded(path, "b")
    again = Recording(path)
    assert [again.lookup(ask(text)).text for text in "ab"] == ["A", "B"]
    assert again.damaged == [2]


@given(st.data())
def test_wherever_a_file_is_cut_all_lines_before_are_whole(data):
    tape = Recorded("record")
    lines = [b"".join(tape.added(ask(text), say(text))) for text in "abc"]
    content = b"".join(lines)
    cut = data.draw(st.integers(0, len(content)))
    replay = Recorded("replay")
    replay.read(content[:cut].split(b"\n"))
    ends = [sum(map(len, lines[:count])) - 1 for count in range(1, 4)]  # the newline itself may be missing
    assert len(replay) == sum(cut >= end for end in ends)
    assert len(replay.damaged) <= 1


@pytest.mark.parametrize(
    "line", [b"\xff\xfe", b"[]", b"1", b'{"v":1}', b'{"v":1,"id":"1","lane":"","key":"k"}', b"[" * 9_999]
)
def test_garbage_is_skipped_and_reported(path, line):
    recorded(path, "a")
    path.write_bytes(line + b"\n" + path.read_bytes())
    replay = Recording(path)
    assert replay.damaged == [1]
    assert replay.lookup(ask("a")).text == "A"


def test_a_recording_of_another_version_is_refused(path):
    recorded(path, "a")
    path.write_bytes(path.read_bytes().replace(b'{"v":1', b'{"v":2'))
    with pytest.raises(RecordingError, match="line 1: its version is 2"):
        Recording(path)


def test_a_file_that_cannot_be_used_is_named(tmp_path):
    with pytest.raises(RecordingError, match="cannot be read"):
        Recording(tmp_path, "record")
    (tmp_path / "file").touch()
    with pytest.raises(RecordingError, match=r"cannot be (read|written)"):
        Recording(tmp_path / "file" / "below", "record").record(ask("a"), say("A"))


def test_no_key_reaches_the_file(path):
    extra = FrozenJSON.of({"api_key": "hunter2", "headers": {"Authorization": "Bearer hunter2"}, "user": "me"})
    Recording(path, "record").record(ask("a", extra=extra), say("A"))
    assert b"hunter2" not in path.read_bytes()
    assert Recording(path).lookup(ask("a", extra=extra)).text == "A"
    with pytest.raises(RecordingDrift) as caught:
        Recording(path).lookup(ask("b", extra=extra))
    assert "hunter2" not in str(caught.value)


def test_the_file_is_one_object_a_line_for_its_owner_alone(path):
    recorded(path, "a", "b")
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["v"] for line in lines] == [1, 1]
    assert lines[0]["request"]["messages"] == [["system", "You are terse."], ["user", "a"]]
    if sys.platform != "win32":
        assert path.stat().st_mode & 0o077 == 0


@pytest.mark.skipif(sys.platform == "win32", reason="the lock is another one there")
def test_a_writer_waits_while_another_one_writes(path):
    import fcntl

    recorded(path, "a")
    with path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        writer = threading.Thread(target=recorded, args=(path, "b"))
        writer.start()
        writer.join(0.05)
        assert writer.is_alive()
        assert len(Recording(path)) == 1
    writer.join(30)
    assert len(Recording(path)) == 2


WRITER = """
import sys
from otpy.clients.tape import Recording
from otpy.lm import LMRequest, LMResponse, Message
recording = Recording(sys.argv[1], "record")
for number in range(50):
    request = LMRequest((Message("user", f"{sys.argv[2]} {number} " + "x" * 5_000),))
    recording.record(request, LMResponse(f"{sys.argv[2]} {number}"))
"""


def test_processes_and_threads_that_write_at_the_same_time_tear_no_line(path):
    processes = [subprocess.Popen([sys.executable, "-c", WRITER, str(path), name]) for name in ("p", "q")]
    threads = [
        threading.Thread(target=recorded, args=(path, *(f"{name}{number}" for number in range(50)))) for name in "st"
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert [process.wait(60) for process in processes] == [0, 0]
    replay = Recording(path)
    assert (len(replay), replay.damaged) == (200, [])
    for name in "pq":
        for number in range(50):
            request = LMRequest((Message("user", f"{name} {number} " + "x" * 5_000),))
            assert replay.lookup(request).text == f"{name} {number}"

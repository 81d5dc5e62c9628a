"""`diff` says in what two programs differ: nothing for equal ones, and each change once, with what was and what is."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otpy.adapters import ChatAdapter
from otpy.errors import ProgramError
from otpy.programs import ChainOfThought, Predict, Program
from otpy.programs.difference import Change, Difference, diff
from otpy.programs.saving import save


class Two(Program):
    ask: Predict = Predict("question -> query")
    answer: ChainOfThought = ChainOfThought("query -> answer")
    tries: int = 3

    async def forward(self, question: str) -> Any:
        return await self.answer.acall(query=question)


def demo(number: int) -> dict[str, str]:
    return {"question": f"q{number}", "query": f"a{number}"}


def demos(*numbers: int) -> Two:
    return Two().with_demos({"ask": [demo(number) for number in numbers]})


def told(before: Any, after: Any) -> list[tuple[str, str, str]]:
    return [(change.path, change.what, change.how) for change in diff(before, after)]


def test_equal_programs_do_not_differ():
    assert not diff(Two(), Two())
    assert str(diff(Two(), Two())) == "no difference"
    assert diff(Two(), Two())._repr_html_() == "no difference"
    assert diff(Two(), Two()).to_json() == []


@pytest.mark.parametrize(
    ("after", "changes"),
    [
        (Two().with_instructions({"ask": "Ask."}), [("ask", "instructions", "changed")]),
        (Two().with_client("small"), [("ask", "client", "changed"), ("answer.predict", "client", "changed")]),
        (
            Two().replace(ask=Predict("question -> query", adapter=ChatAdapter(), max_tokens=5)),
            [("ask", "adapter", "changed"), ("ask", "config max_tokens", "changed")],
        ),
        (Two().replace(ask=Predict("question -> query: int")), [("ask", "type of query", "changed")]),
        (
            Two().replace(ask=Predict("question -> why, query")),
            [("ask", "instructions", "changed"), ("ask", "field why", "added")],
        ),
        (Two().replace(tries=5), [("tries", "value", "changed")]),
        (demos(1, 2), [("ask", "demo 1", "added"), ("ask", "demo 2", "added")]),
    ],
    ids=str,
)
def test_a_change_is_told_with_its_path(after, changes):
    assert told(Two(), after) == changes


def test_a_description_and_the_order_of_fields_are_told():
    one = Predict("a, b -> c")
    turned = Predict(one.signature.delete("a").append("a", _input()))
    assert told(one, turned) == [("self", "instructions", "changed"), ("self", "fields", "moved")]
    described = Predict(one.signature.with_updated_field("b", desc="the second"))
    assert diff(one, described).changes == (Change("self", "desc of b", "changed", "", "the second"),)


def _input() -> Any:
    from otpy.signatures import InputField

    return InputField()


def test_demos_are_matched_by_what_they_say_not_by_where_they_stand():
    assert told(demos(1, 2, 3), demos(2, 3)) == [("ask", "demo 1", "removed")]
    assert told(demos(1, 2), demos(2, 1)) == [("ask", "demos", "moved")]
    assert diff(demos(1, 2), demos(2, 1)).changes[0].after == [2, 1]
    assert told(demos(1, 1), demos(1)) == [("ask", "demo 2", "removed")]
    assert told(demos(1, 2, 3), demos(3, 4, 1)) == [
        ("ask", "demo 2", "removed"), ("ask", "demo 2", "added"), ("ask", "demos", "moved")
    ]  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(before=st.lists(st.integers(0, 4), max_size=6), after=st.lists(st.integers(0, 4), max_size=6))
def test_removed_and_added_demos_lead_from_one_list_to_the_other(before, after):
    changes = diff(demos(*before), demos(*after))
    removed = [change.before for change in changes if change.how == "removed"]
    added = [change.after for change in changes if change.how == "added"]
    rest = [demo(number) for number in before]
    for gone in removed:
        rest.remove(gone)
    assert sorted(map(str, rest + added)) == sorted(str(demo(number)) for number in after)
    assert bool(changes) == (before != after)


def test_programs_of_another_structure_are_told_by_what_came_and_went():
    class Steps(Program):
        def __init__(self, *signatures: str) -> None:
            self.steps = [Predict(signature) for signature in signatures]

    assert told(Steps("a -> b"), Steps("a -> b", "b -> c")) == [
        ("steps[1]", "value", "added"),
        ("steps[1]", "predictor", "added"),
    ]
    assert told(Two(), Predict("a -> b"))[0] == ("program", "class", "changed")


def test_code_that_no_file_holds_is_compared_in_programs():
    class Guarded(Program):
        def __init__(self, check: Any) -> None:
            self.check, self.ask = check, Predict("a -> b")

    assert told(Guarded(len), Guarded(len)) == []
    changes = diff(Guarded(len), Guarded(max)).changes
    assert [(change.path, change.what) for change in changes] == [("check", "value")]
    assert "max" in changes[0].after


def test_an_adapter_of_the_same_name_that_is_another_is_told():
    class Loud(ChatAdapter):
        pass

    assert told(Predict("a -> b", adapter=ChatAdapter()), Predict("a -> b", adapter=Loud())) == [
        ("self", "adapter", "changed")
    ]


def test_files_are_compared_without_any_code(tmp_path):
    save(Two(), tmp_path / "a.json")
    save(demos(1).replace(tries=4), tmp_path / "b.json")
    difference = diff(tmp_path / "a.json", str(tmp_path / "b.json"))
    assert [change.path for change in difference] == ["tries", "ask"]
    assert told(Two(), tmp_path / "b.json") == told(tmp_path / "a.json", demos(1).replace(tries=4))
    assert not diff(Two(), tmp_path / "a.json")


def test_it_reads_as_text_as_html_and_as_json():
    difference = diff(demos(1), demos().with_instructions({"ask": "Ask <b>.\nTwice."}).replace(tries=4))
    assert str(difference).splitlines() == [
        "tries",
        "  value changed",
        "    - 3",
        "    + 4",
        "ask",
        "  instructions changed",
        "    - Given the fields `question`, produce the fields `query`.",
        "    + Ask <b>.\\nTwice.",
        "  demo 1 removed",
        '    - {"question": "q1", "query": "a1"}',
    ]
    page = difference._repr_html_()
    assert "Ask &lt;b&gt;.\nTwice." in page
    assert "<b>" not in page
    assert json.loads(json.dumps(difference.to_json()))[0] == {
        "path": "tries", "what": "value", "how": "changed", "before": 3, "after": 4,
    }  # fmt: skip
    assert (len(difference), len(difference.of("ask"))) == (3, 2)


def test_what_is_no_program_is_refused(tmp_path):
    with pytest.raises(ProgramError, match="takes programs or the files of programs, not 3"):
        diff(3, Two())  # type: ignore[arg-type]
    with pytest.raises(ProgramError, match="cannot be read"):
        diff(tmp_path / "nothing.json", Two())
    assert Difference() == Difference(())


def test_the_command_line_tells_it_with_hashes_and_lineage(tmp_path, capsys):
    from otpy.cli.difference import show_difference
    from otpy.cli.screen import Screen
    from otpy.programs.lineage import Lineage

    before, after = tmp_path / "a.json", tmp_path / "b.json"
    save(Two(), before)
    made = Lineage("BootstrapFewShot", parent=Two().content_hash(), seed=3, time="2026-01-02T03:04:05+00:00")
    save(Two(tries=4), after, lineage=made)
    show_difference(Screen(), before, after)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith(f"a.json  {Two().content_hash()}")
    assert lines[1].endswith(f"  by BootstrapFewShot at 2026-01-02T03:04:05+00:00, from {Two().content_hash()}, seed 3")
    assert lines[2:] == ["tries", "  value changed", "    - 3", "    + 4"]
    show_difference(Screen(as_json=True), before, after)
    told = json.loads(capsys.readouterr().out)
    assert told["after"]["lineage"]["parent"] == told["before"]["hash"]
    assert [change["path"] for change in told["changes"]] == ["tries"]

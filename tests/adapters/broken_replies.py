"""What models say when they were asked for an answer in a form, and what becomes of it.

An entry is what the reply is like, the contract, the reply, and what comes of it: values, or the fields that are
missing or invalid with a piece of the error's detail. Spelling is forgiven; nothing is chosen, finished or made up.
"""

from __future__ import annotations

import enum
from typing import Any, TypeAlias

import pydantic

from otpy.signatures import Signature


class Mood(enum.Enum):
    GLAD = "in good spirits"
    SAD = "in bad spirits"


class Person(pydantic.BaseModel):
    name: str
    born: int


Refused: TypeAlias = tuple[tuple[str, ...], str]
Reply: TypeAlias = tuple[type[Signature], str, "dict[str, Any] | tuple[str, ...] | Refused"]

TRIAGE = Signature("query -> intent: Literal['card', 'pin'], sure: bool", "Classify.")
FREE = Signature("question -> answer", "Answer.")
MANY = Signature("q -> n: int, tags: list[str], note: str | None")
REAL = Signature("q -> x: float")
LABEL = Signature("q -> label: Literal['lost_card', 'pin']")
TWO_WORDS = Signature("q -> due_date")
MOOD = Signature("q -> mood: Mood", types={"Mood": Mood})
WHO = Signature("q -> who: Person", types={"Person": Person})

CARD = {"intent": "card", "sure": True}

# What the model said, to which question; what comes of it: values, or the fields that are missing or wrong.
JSON_ANSWERS: dict[str, Reply] = {
    "as asked": (TRIAGE, '{"intent": "card", "sure": true}', CARD),
    "in another order": (TRIAGE, '{"sure": true, "intent": "card"}', CARD),
    "with space around": (TRIAGE, '\n\n {"intent": "card", "sure": true}\n', CARD),
    "in a code fence": (TRIAGE, '```json\n{"intent": "card", "sure": true}\n```', CARD),
    "in prose": (TRIAGE, 'Sure! {"intent": "card", "sure": true} Anything else?', CARD),
    "after braces in prose": (TRIAGE, 'I use {braces}: {"intent": "card", "sure": true}', CARD),
    "after an open brace": (TRIAGE, 'So { here: {"intent": "card", "sure": true}', CARD),
    "after another object": (TRIAGE, '{"thought": "hm"} {"intent": "card", "sure": true}', CARD),
    "twice": (TRIAGE, '{"intent": "card", "sure": true}{"intent": "pin", "sure": false}', CARD),
    "in a list": (TRIAGE, '[{"intent": "card", "sure": true}]', CARD),
    "with further keys": (TRIAGE, '{"intent": "card", "sure": true, "why": "x"}', CARD),
    "with an object in a key": (TRIAGE, '{"why": {"intent": "pin"}, "intent": "card", "sure": true}', CARD),
    "a word for a boolean": (TRIAGE, '{"intent": "card", "sure": "yes"}', CARD),
    "a number in quotes": (MANY, '{"n": "3", "tags": [], "note": null}', {"n": 3, "tags": [], "note": None}),
    "a whole float": (MANY, '{"n": 3.0, "tags": ["a"], "note": "x"}', {"n": 3, "tags": ["a"], "note": "x"}),
    "braces in a text": (FREE, '{"answer": "{a} and \\"}\\""}', {"answer": '{a} and "}"'}),
    "nothing": (TRIAGE, "", ("intent", "sure")),
    "prose": (FREE, "The answer is 4.", ("answer",)),
    "the bare value": (FREE, '"4"', ("answer",)),
    "cut off": (TRIAGE, '{"intent": "card", "su', (("intent", "sure"), "it breaks off before its end")),
    "cut off in a text": (FREE, '{"answer": "once upon a', ("answer",)),
    "a list": (FREE, '["4"]', ("answer",)),
    "an empty object": (TRIAGE, "{}", ("intent", "sure")),
    "a field missing": (TRIAGE, '{"intent": "card"}', ("sure",)),
    "another label": (TRIAGE, '{"intent": "cash", "sure": true}', ("intent",)),
    "no boolean": (TRIAGE, '{"intent": "card", "sure": "perhaps"}', ("sure",)),
    "a number for a text": (FREE, '{"answer": 4}', ("answer",)),
    "null for a text": (FREE, '{"answer": null}', ("answer",)),
    "an object for a text": (FREE, '{"answer": {"text": "4"}}', ("answer",)),
    "a broken float": (MANY, '{"n": 3.5, "tags": [], "note": null}', ("n",)),
    "a text for a list": (MANY, '{"n": 3, "tags": "a, b", "note": null}', ("tags",)),
    "the schema itself": (FREE, '{"type": "object", "properties": {"answer": {"type": "string"}}}', ("answer",)),
    "half a surrogate": (FREE, '{"answer": "\\ud800"}', (("answer",), "unexpected end of hex escape")),
    "a thousand braces": (FREE, "{" * 5000, ("answer",)),
    "nesting without end": (FREE, '{"answer":' * 5000, ("answer",)),
    # -- JSON that is none
    "a trailing comma": (FREE, '{"answer": "4",}', {"answer": "4"}),
    "trailing commas in a list": (
        MANY,
        '{"n": 1, "tags": ["a", "b",], "note": null,}',
        {"n": 1, "tags": ["a", "b"], "note": None},
    ),
    "single quotes": (FREE, "{'answer': '4'}", {"answer": "4"}),
    "single quotes and an apostrophe": (FREE, "{'answer': 'it's four'}", {"answer": "it's four"}),
    "single quotes around quotes": (FREE, "{'answer': 'he said \"no\"'}", {"answer": 'he said "no"'}),
    "single quotes in single quotes": (FREE, "{'answer': 'he said 'no', twice'}", (("answer",), "it is no JSON from")),
    "smart quotes": (FREE, "{“answer”: “so be it”}", {"answer": "so be it"}),
    "smart quotes in a text": (FREE, '{"answer": "the “big” one"}', {"answer": "the “big” one"}),
    "bare keys": (TRIAGE, "{intent: 'card', sure: true}", CARD),
    "Python's constants": (MANY, "{'n': 3, 'tags': [], 'note': None}", {"n": 3, "tags": [], "note": None}),
    "Python's True": (TRIAGE, '{"intent": "card", "sure": True}', CARD),
    "a comment behind": (TRIAGE, '{"intent": "card", // of course\n "sure": true}', CARD),
    "a comment between": (TRIAGE, '{"intent": "card", /* of course */ "sure": true}', CARD),
    "a comment with a hash": (TRIAGE, '{\n# intent\n"intent": "card", "sure": true}', CARD),
    "a line break in a text": (FREE, '{"answer": "a\nb"}', {"answer": "a\nb"}),
    "a control character in a text": (FREE, '{"answer": "a\x07b"}', {"answer": "a\x07b"}),
    "quotes in quotes": (FREE, '{"answer": "the "big" one"}', (("answer",), "it is no JSON from")),
    "a comma missing": (TRIAGE, '{"intent": "card" "sure": true}', (("intent", "sure"), "it is no JSON from")),
    "a colon missing": (FREE, '{"answer" "4"}', (("answer",), "it is no JSON from")),
    "an equals sign": (FREE, '{"answer" = "4"}', (("answer",), "it is no JSON from")),
    "a draft in a broken object": (FREE, '{"answer": "4" "draft": {"answer": "3"}}', (("answer",), "it is no JSON")),
    "the last brace missing": (FREE, '{"answer": "4"', (("answer",), "it breaks off before its end")),
    "the last brackets missing": (MANY, '{"n": 3, "tags": ["a", "b', (("n", "tags", "note"), "it breaks off")),
    "a bare word": (FREE, '{"answer": four}', (("answer",), "it is no JSON from")),
    "a sum": (MANY, '{"n": 1 + 2, "tags": [], "note": null}', (("n", "tags", "note"), "it is no JSON from")),
    "ellipsis": (MANY, '{"n": 3, "tags": ["a", ...], "note": null}', (("n", "tags", "note"), "it is no JSON from")),
    "a key twice, alike": (FREE, '{"answer": "4", "answer": "4"}', {"answer": "4"}),
    "a key twice, differing": (FREE, '{"answer": "4", "answer": "5"}', (("answer",), "'answer' stands twice")),
    "NaN": (REAL, '{"x": NaN}', (("x",), "NaN is no JSON number")),
    "an infinity": (REAL, '{"x": -Infinity}', (("x",), "-Infinity is no JSON number")),
    "a byte order mark": (FREE, '\ufeff{"answer": "4"}', {"answer": "4"}),
    "a backslash too few": (FREE, '{"answer": "C:\\data"}', (("answer",), "it is no JSON from")),
    "in a fence that is never closed": (FREE, '```json\n{"answer": "4"}', {"answer": "4"}),
    "in backticks": (FREE, '`{"answer": "4"}`', {"answer": "4"}),
    "yaml": (TRIAGE, "intent: card\nsure: true", ("intent", "sure")),
    "a markdown table": (TRIAGE, "| intent | sure |\n|---|---|\n| card | true |", ("intent", "sure")),
    # -- JSON in an envelope
    "under another key (DSPy #8539)": (TRIAGE, '{"response": {"intent": "card", "sure": true}}', CARD),
    "under two other keys": (TRIAGE, '{"data": {"result": {"intent": "card", "sure": true}}}', CARD),
    "under another key, with company": (TRIAGE, '{"ok": true, "result": {"intent": "card", "sure": true}}', CARD),
    "in a list under a key": (TRIAGE, '{"results": [{"intent": "card", "sure": true}]}', CARD),
    "several in a list under a key": (
        TRIAGE,
        '{"results": [{"intent": "card", "sure": true}, {"intent": "pin", "sure": true}]}',
        ("intent", "sure"),
    ),
    "the same twice in a list": (
        TRIAGE,
        '{"results": [{"intent": "card", "sure": true}, {"intent": "card", "sure": true}]}',
        CARD,
    ),
    "under another key, in another spelling": (
        TRIAGE,
        "{'Response': {Intent: 'Card', Sure: 'yes'}}",
        CARD,
    ),
    "a call of a tool (DSPy #8264)": (TRIAGE, '{"name": "json", "arguments": {"intent": "card", "sure": true}}', CARD),
    "a call with its arguments as text": (
        TRIAGE,
        '{"type": "function", "function": {"name": "f", "arguments": "{\\"intent\\": \\"card\\", \\"sure\\": true}"}}',
        CARD,
    ),
    "Anthropic's use of a tool": (TRIAGE, '{"type": "tool_use", "input": {"intent": "card", "sure": true}}', CARD),
    "calls of tools": (
        TRIAGE,
        '{"tool_calls": [{"name": "answer", "parameters": {"intent": "card", "sure": true}}]}',
        CARD,
    ),
    "in a tag": (FREE, '<tool_call>{"name": "f", "arguments": {"answer": "4"}}</tool_call>', {"answer": "4"}),
    "as a JSON text": (FREE, '"{\\"answer\\": \\"4\\"}"', {"answer": "4"}),
    "its list as a JSON text": (
        MANY,
        '{"n": 3, "tags": "[\\"a\\"]", "note": null}',
        {"n": 3, "tags": ["a"], "note": None},
    ),
    "its object as a JSON text": (
        WHO,
        '{"who": "{\\"name\\": \\"Ada\\", \\"born\\": 1815}"}',
        {"who": Person(name="Ada", born=1815)},
    ),
    "its object alone": (WHO, '{"name": "Ada", "born": 1815}', ("who",)),
    "the fields of its object as a text": (WHO, '{"who": "Ada, born 1815"}', ("who",)),
    # -- keys and values in another spelling
    "a key in another case": (FREE, '{"Answer": "4"}', {"answer": "4"}),
    "keys with spaces": (TWO_WORDS, '{"Due Date": "today"}', {"due_date": "today"}),
    "keys in camel case": (TWO_WORDS, '{"dueDate": "today"}', ("due_date",)),
    "keys that differ in case alone": (FREE, '{"Answer": "4", "ANSWER": "5"}', ("answer",)),
    "a key in another language": (FREE, '{"antwort": "4"}', ("answer",)),
    "a label in another case": (TRIAGE, '{"intent": "Card", "sure": true}', CARD),
    "a label in quotes": (TRIAGE, '{"intent": "\'card\'", "sure": true}', CARD),
    "a label in bold": (TRIAGE, '{"intent": "**card**", "sure": true}', CARD),
    "a label with a full stop": (TRIAGE, '{"intent": "card.", "sure": true}', CARD),
    "a label with a space for a line": (LABEL, '{"label": "lost card"}', {"label": "lost_card"}),
    "a label that is near": (LABEL, '{"label": "lost_cards"}', ("label",)),
    "two labels": (TRIAGE, '{"intent": "card or pin", "sure": true}', ("intent",)),
    "a label in a list": (TRIAGE, '{"intent": ["card"], "sure": true}', ("intent",)),
    "a label with a reason": (TRIAGE, '{"intent": "card, because", "sure": true}', ("intent",)),
    "an enum by name": (MOOD, '{"mood": "GLAD"}', {"mood": Mood.GLAD}),
    "an enum in another case": (MOOD, '{"mood": "In good spirits"}', {"mood": Mood.GLAD}),
    "an enum by its class": (MOOD, '{"mood": "Mood.GLAD"}', ("mood",)),
    "yes": (TRIAGE, '{"intent": "card", "sure": "Yes."}', CARD),
    "no": (TRIAGE, '{"intent": "card", "sure": "no"}', {"intent": "card", "sure": False}),
    "ja": (TRIAGE, '{"intent": "card", "sure": "ja"}', ("sure",)),
    "thousands": (MANY, '{"n": "1,234,567", "tags": [], "note": null}', {"n": 1234567, "tags": [], "note": None}),
    "thousands and a point": (REAL, '{"x": "1,234.5"}', {"x": 1234.5}),
    "a comma that may be a point": (REAL, '{"x": "1,234"}', ("x",)),
    "thousands without quotes": (
        MANY,
        '{"n": 1,234, "tags": [], "note": null}',
        (("n", "tags", "note"), "no JSON from"),
    ),
    "a unit": (REAL, '{"x": "5 %"}', ("x",)),
    "a currency": (REAL, '{"x": "$5"}', ("x",)),
    "a number in words": (MANY, '{"n": "three", "tags": [], "note": null}', ("n",)),
    "null for a number": (REAL, '{"x": null}', ("x",)),
    # -- thoughts
    "behind a thought": (FREE, '<think>{"answer": "3"}? No.</think>\n{"answer": "4"}', {"answer": "4"}),
    "behind a thought in capitals": (FREE, '<THINK>hm</THINK>{"answer": "4"}', {"answer": "4"}),
    "behind the end of a thought": (FREE, 'Is it {"answer": "3"}? No.</think>{"answer": "4"}', {"answer": "4"}),
    "a thought without an end": (FREE, '<think>Is it {"answer": "3"}?', (("answer",), "before its thought does")),
    "a thought alone": (FREE, "<think>It is 4.</think>", ("answer",)),
    "a thought in a text": (FREE, '{"answer": "<think>a</think>b"}', {"answer": "<think>a</think>b"}),
}

CHAT_ANSWERS: dict[str, Reply] = {
    "as asked": (TRIAGE, "[[ ## intent ## ]]\ncard\n\n[[ ## sure ## ]]\ntrue\n\n[[ ## completed ## ]]", CARD),
    "without the end": (TRIAGE, "[[ ## intent ## ]]\ncard\n\n[[ ## sure ## ]]\nTrue", CARD),
    "in another order": (TRIAGE, "[[ ## sure ## ]]\nyes\n[[ ## intent ## ]]\ncard\n", CARD),
    "on the header's line": (TRIAGE, "[[ ## intent ## ]] card\n[[ ## sure ## ]] true", CARD),
    "after prose": (FREE, "Let me see.\n\n[[ ## answer ## ]]\n4\n[[ ## completed ## ]]\nBye", {"answer": "4"}),
    "in quotes": (FREE, '[[ ## answer ## ]]\n"4"', {"answer": "4"}),
    "several lines": (FREE, "[[ ## answer ## ]]\na\n\nb\n", {"answer": "a\n\nb"}),
    "an empty text": (FREE, "[[ ## answer ## ]]\n\n[[ ## completed ## ]]", {"answer": ""}),
    "twice": (FREE, "[[ ## answer ## ]]\n4\n[[ ## answer ## ]]\n5", {"answer": "4"}),
    "a section of its own": (FREE, "[[ ## thought ## ]]\nhm\n[[ ## answer ## ]]\n4", {"answer": "4"}),
    "a text that looks like a number": (FREE, "[[ ## answer ## ]]\n4", {"answer": "4"}),
    "a number for text or nothing": (
        MANY,
        '[[ ## n ## ]]\n3\n[[ ## tags ## ]]\n["a"]\n[[ ## note ## ]]\n5',
        {"n": 3, "tags": ["a"], "note": "5"},
    ),
    "nothing": (FREE, "", ("answer",)),
    "prose": (FREE, "The answer is 4.", ("answer",)),
    "a section missing": (TRIAGE, "[[ ## intent ## ]]\ncard", ("sure",)),
    "another label": (TRIAGE, "[[ ## intent ## ]]\ncash\n[[ ## sure ## ]]\ntrue", ("intent",)),
    "no boolean": (TRIAGE, "[[ ## intent ## ]]\ncard\n[[ ## sure ## ]]\nperhaps", ("sure",)),
    "a list in prose": (MANY, "[[ ## n ## ]]\n3\n[[ ## tags ## ]]\na, b\n[[ ## note ## ]]\nnull", ("tags",)),
    "a number in prose": (MANY, "[[ ## n ## ]]\nabout 3\n[[ ## tags ## ]]\n[]\n[[ ## note ## ]]\nx", ("n",)),
    # -- other forms
    "JSON": (FREE, '{"answer": "4"}', {"answer": "4"}),
    "a header in bold": (FREE, "**[[ ## answer ## ]]**\n4", {"answer": "4"}),
    "a header as a heading": (FREE, "## [[ ## answer ## ]]\n4", {"answer": "4"}),
    "a header with fewer spaces": (FREE, "[[## answer ##]]\n4", {"answer": "4"}),
    "a header in another case": (FREE, "[[ ## Answer ## ]]\n4", {"answer": "4"}),
    "a header in another language": (FREE, "[[ ## antwort ## ]]\n4", ("answer",)),
    "a header without its marks": (FREE, "## answer\n4", ("answer",)),
    "a header in a line": (FREE, "Here: [[ ## answer ## ]]\n4", ("answer",)),
    "a list in a fence": (
        MANY,
        '[[ ## n ## ]]\n3\n[[ ## tags ## ]]\n```json\n["a"]\n```\n[[ ## note ## ]]\nnull',
        {"n": 3, "tags": ["a"], "note": None},
    ),
    "a list in Python": (
        MANY,
        "[[ ## n ## ]]\n3\n[[ ## tags ## ]]\n['a', 'b']\n[[ ## note ## ]]\nNone",
        {"n": 3, "tags": ["a", "b"], "note": "None"},
    ),
    "a label in another case": (TRIAGE, "[[ ## intent ## ]]\nCard.\n[[ ## sure ## ]]\nYes", CARD),
    "behind a thought": (FREE, "<think>[[ ## answer ## ]]\n3</think>\n[[ ## answer ## ]]\n4", {"answer": "4"}),
    "a quotation": (FREE, '[[ ## answer ## ]]\n"No", he said.', {"answer": '"No", he said.'}),
    "a byte order mark": (FREE, "\ufeff[[ ## answer ## ]]\n4", {"answer": "4"}),
}

XML_ANSWERS: dict[str, Reply] = {
    "as asked": (TRIAGE, "<intent>card</intent>\n<sure>true</sure>", CARD),
    "in prose": (TRIAGE, "Sure: <intent>card</intent>, and <sure>true</sure>.", CARD),
    "in another element": (TRIAGE, "<answer><intent>card</intent><sure>true</sure></answer>", CARD),
    "in a fence": (FREE, "```xml\n<answer>4</answer>\n```", {"answer": "4"}),
    "with attributes": (FREE, '<answer type="text">4</answer>', {"answer": "4"}),
    "not escaped": (FREE, "<answer>a < b && R&D</answer>", {"answer": "a < b && R&D"}),
    "escaped": (FREE, "<answer>a &lt; b &amp; &#39;c&#x27;</answer>", {"answer": "a < b & 'c'"}),
    "an unknown entity": (FREE, "<answer>a&nbsp;b</answer>", {"answer": "a&nbsp;b"}),
    "as CDATA": (FREE, "<answer><![CDATA[a </answer> & b]]></answer>", {"answer": "a </answer> & b"}),
    "markup in a text": (FREE, "<answer>a <b>bold</b> one</answer>", {"answer": "a <b>bold</b> one"}),
    "an empty text": (FREE, "<answer/>", {"answer": ""}),
    "a list of elements": (
        MANY,
        "<n>3</n><tags><tag>a</tag><tag>5</tag></tags><note>null</note>",
        {"n": 3, "tags": ["a", "5"], "note": None},
    ),
    "a list as JSON": (MANY, '<n>3</n><tags>["a"]</tags><note>x</note>', {"n": 3, "tags": ["a"], "note": "x"}),
    "an empty list": (MANY, "<n>3</n><tags></tags><note>x</note>", {"n": 3, "tags": [], "note": "x"}),
    "an object": (WHO, "<who>\n <name>Ada</name>\n <born>1815</born>\n</who>", {"who": Person(name="Ada", born=1815)}),
    "an object as JSON": (WHO, '<who>{"name": "Ada", "born": 1815}</who>', {"who": Person(name="Ada", born=1815)}),
    "an object with prose in it": (WHO, "<who><name>Ada</name>, she said</who>", ("who",)),
    "an object with an element twice": (WHO, "<who><name>A</name><name>B</name><born>1</born></who>", ("who",)),
    "JSON": (FREE, '{"answer": "4"}', {"answer": "4"}),
    "behind a thought": (FREE, "<think><answer>3</answer>?</think><answer>4</answer>", {"answer": "4"}),
    "twice": (FREE, "<answer>4</answer><answer>5</answer>", {"answer": "4"}),
    "cut off": (FREE, "<answer>once upon", (("answer",), "no element <answer>…</answer>")),
    "an element missing": (TRIAGE, "<intent>card</intent>", (("sure",), "no element <sure>…</sure>")),
    "prose": (FREE, "The answer is 4.", ("answer",)),
    "another name": (FREE, "<reply>4</reply>", ("answer",)),
    "a label in another case": (TRIAGE, "<intent>CARD</intent><sure>yes</sure>", CARD),
    "no label": (TRIAGE, "<intent>cash</intent><sure>yes</sure>", (("intent",), "'card' or 'pin'")),
}

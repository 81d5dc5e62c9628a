"""Where each part of a conversation goes: what never changes first, then demos, a history's turns, the question."""

from __future__ import annotations

import dataclasses

import pydantic
import pytest

from otpy.adapters import (
    ADAPTERS,
    ENGLISH,
    GERMAN,
    LANGUAGES,
    BAMLAdapter,
    ChatAdapter,
    JSONAdapter,
    TemplateAdapter,
    TwoStepAdapter,
    Words,
    XMLAdapter,
    adapter_of,
    answered,
    conversation,
    native_fields,
    repair,
    state_of,
)
from otpy.errors import AdapterParseError, SignatureError
from otpy.lm import FrozenJSON, LMResponse, Media, Message, Reasoning, Text, ToolResult, ToolUse
from otpy.signatures import InputField, OutputField, Signature
from otpy.types import Code, Document, History, Image
from otpy.types import Reasoning as Thought
from otpy.types.tool import Tool, ToolCall, ToolCalls

PNG = b"\x89PNG\r\n\x1a\n" + bytes(8)
TYPES = {"Image": Image, "History": History, "Tool": Tool, "ToolCalls": ToolCalls, "Code": Code, "Document": Document,
         "Thought": Thought}  # fmt: skip
QA = Signature("question -> why, answer: int", "Answer.")
ALL = [*ADAPTERS.values(), TemplateAdapter("{instructions}\n{form}", "Q: {question}")]
EACH = pytest.mark.parametrize("adapter", ALL, ids=[adapter.name for adapter in ALL])
WHOLE = {"question": "2 + 2?", "why": "sum", "answer": 4}


def weather(city: str) -> str:
    """Tell the weather."""
    return city


# -- demos ------------------------------------------------------------------------------------------------------------


@EACH
def test_incomplete_demos_come_first_and_say_so(adapter):
    turns = conversation(adapter, QA, [WHOLE, {"question": "3 + 3?", "answer": 6}], {"question": "1 + 1?"})
    assert [turn.role for turn in turns] == ["system", "user", "assistant", "user", "assistant", "user"]
    assert turns[1].content.startswith(ENGLISH.incomplete)
    assert "3 + 3?" in turns[1].content
    assert ENGLISH.not_given in turns[2].content
    assert "6" in turns[2].content
    assert turns[3] == adapter.question(QA, {"question": "2 + 2?"})
    assert ENGLISH.not_given not in turns[4].content


@EACH
def test_the_beginning_is_the_same_for_every_question(adapter):
    first, second = (conversation(adapter, QA, [WHOLE], {"question": text}) for text in ("1 + 1?", "5 + 5?"))
    assert first[:-1] == second[:-1] == adapter.prefix(QA, [WHOLE])
    assert first[-1] != second[-1]


@EACH
def test_demos_may_stand_in_the_system_turn(adapter):
    inline = dataclasses.replace(adapter, demos="inline")
    system, question = conversation(inline, QA, [WHOLE, {"answer": 7}], {"question": "1 + 1?"})
    assert system.content.startswith(adapter.prefix(QA, ())[0].content)
    assert (
        system.content.index("Example 1") < system.content.index(ENGLISH.incomplete) < system.content.index("Example 2")
    )
    assert "2 + 2?" in system.content
    assert question == adapter.question(QA, {"question": "1 + 1?"})


def test_an_image_cannot_stand_in_the_system_turn():
    see = Signature("image: Image -> answer", types=TYPES)
    with pytest.raises(SignatureError, match=r"demo 1 can hold only text.*use demos='turns'"):
        JSONAdapter(demos="inline").prefix(see, [{"image": Image(PNG), "answer": "a cat"}])


def test_an_option_that_does_not_exist_is_refused():
    for wrong in ({"demos": "above"}, {"words": "de"}, {"native_tools": 1}):
        with pytest.raises(SignatureError, match=next(iter(wrong))):
            JSONAdapter(**wrong)


# -- history ----------------------------------------------------------------------------------------------------------

CHAT = Signature("history: History, question -> answer", "Talk.", types=TYPES)


@pytest.mark.parametrize("adapter", ADAPTERS.values(), ids=list(ADAPTERS))
def test_the_turns_of_a_history_stand_between_demos_and_question(adapter):
    history = History([{"question": "Who wrote Faust?", "answer": "Goethe"}, {"question": "Sure?"}])
    demo = {"history": History([]), "question": "Hi", "answer": "Hello"}
    turns = conversation(adapter, CHAT, [demo], {"history": history, "question": "When?"})
    assert [turn.role for turn in turns] == [
        "system",
        "user",
        "assistant",
        "user",
        "assistant",
        "user",
        "assistant",
        "user",
    ]
    said = [turn.content for turn in turns[1:]]
    assert ["Hi" in said[0], "Goethe" in said[3], "Sure?" in said[4], "When?" in said[6]] == [True] * 4
    assert said[5] == ENGLISH.nothing
    assert "history" not in turns[0].content
    assert "Goethe" not in said[6]


def test_a_turn_without_anything_of_the_signature_is_refused():
    with pytest.raises(SignatureError, match="turn 2 of 'history' has 'q'; the fields are history, question, answer"):
        conversation(JSONAdapter(), CHAT, (), {"history": History([{"answer": "a"}, {"q": "b"}]), "question": "c"})


def test_a_turn_whose_value_does_not_fit_is_refused():
    chat = Signature("history: History, question -> n: int", types=TYPES)
    with pytest.raises(SignatureError, match="turn 1 of 'history': 'n'"):
        conversation(JSONAdapter(), chat, (), {"history": History([{"n": "many"}]), "question": "c"})


# -- values that are no text ------------------------------------------------------------------------------------------


class Page(pydantic.BaseModel):
    number: int
    scans: list[Image]
    note: Code | None = None


def test_images_stand_where_their_field_stands():
    see = Signature("before, image: Image, after -> answer", types=TYPES)
    content = JSONAdapter().question(see, {"before": "a", "image": Image(PNG), "after": "b"}).content
    assert content == (Text("before: a\nimage: "), Media("image", "image/png", PNG), Text("\nafter: b"))


@pytest.mark.parametrize("adapter", [JSONAdapter(), ChatAdapter(), XMLAdapter(), TwoStepAdapter()])
def test_images_stand_where_they_are_in_lists_and_models(adapter):
    read = Signature("pages: list[Page], images: dict[str, Image] -> answer", types={**TYPES, "Page": Page})
    page = Page(number=1, scans=[Image(PNG), Image("https://example.org/a.png")], note=Code('print("x")'))
    content = adapter.question(read, {"pages": [page], "images": {"cover": Image(PNG)}}).content
    media = [part for part in content if isinstance(part, Media)]
    assert [part.data or part.url for part in media] == [PNG, "https://example.org/a.png", PNG]
    text = "|".join(part.text if isinstance(part, Text) else "" for part in content)
    assert '[{"number": 1, "scans": [||, ||], "note": "```\\nprint(\\"x\\")\\n```"}]' in text
    assert '{"cover": ||}' in text
    assert "base64" not in text


def test_a_document_is_shown_as_text():
    read = Signature("document: Document -> answer", types=TYPES)
    content = JSONAdapter().question(read, {"document": Document("Water boils.", title="Physics")}).content
    assert content == 'document: <document title="Physics">\nWater boils.\n</document>'


def test_the_language_of_code_is_told():
    write = Signature("task -> code: Code", types={"Code": Code["python"]})
    assert "Output `code`: python code" in JSONAdapter().prefix(write, ())[0].content


# -- what travels beside the text -------------------------------------------------------------------------------------

ASK = Signature("question, tools: list[Tool] -> thought: Thought, answer, calls: ToolCalls", "Ask.", types=TYPES)
USE = ToolUse("call_7", "weather", FrozenJSON.of({"city": "Bonn"}))


@pytest.mark.parametrize("kind", [JSONAdapter, ChatAdapter, XMLAdapter, BAMLAdapter])
def test_what_is_native_is_neither_asked_for_nor_read_in_the_text(kind):
    adapter = kind(native_tools=True, native_reasoning=True)
    values = {"question": "Rain?", "tools": [Tool(weather)]}
    native = native_fields(adapter, ASK)
    turns = conversation(adapter, ASK, (), values)
    assert "tools" not in "".join(turn.content for turn in turns)
    assert "calls" not in turns[0].content
    assert [tool.name for tool in native.tools(values)] == ["weather"]
    assert list(native.plain.output_fields) == ["answer"]
    text = adapter.render(ASK, {"answer": "yes"})
    response = LMResponse(text, parts=(Reasoning("clouds"), Text(text), USE))
    assert answered(adapter, ASK, response) == {
        "thought": "clouds", "answer": "yes", "calls": ToolCalls(tool_calls=(ToolCall(name="weather",
        args={"city": "Bonn"}, id="call_7"),)),
    }  # fmt: skip
    assert list(answered(adapter, ASK, response)) == list(ASK.output_fields)


def test_a_model_that_only_uses_tools_says_nothing_yet():
    adapter = JSONAdapter(native_tools=True)
    ask = Signature("question, tools: list[Tool] -> answer, calls: ToolCalls", types=TYPES)
    values = answered(adapter, ask, LMResponse("", parts=(USE,)))
    assert (values["answer"], len(values["calls"].tool_calls)) == (None, 1)
    with pytest.raises(AdapterParseError):
        answered(adapter, ask, LMResponse("", parts=()))


def test_without_native_tools_they_are_written_as_json():
    adapter = JSONAdapter()
    assert native_fields(adapter, ASK).tools({"tools": [Tool(weather)]}) == ()
    turns = conversation(adapter, ASK, (), {"question": "Rain?", "tools": [Tool(weather)]})
    assert "weather(city: string): Tell the weather." in turns[-1].content
    calls = ToolCalls(tool_calls=(ToolCall(name="weather", args={"city": "Bonn"}),))
    outputs = {"thought": Thought("hm"), "answer": "yes", "calls": calls}
    assert adapter.parse(ASK, adapter.render(ASK, outputs)) == outputs


def test_a_signature_whose_outputs_are_all_native_asks_for_no_text():
    only = Signature("question, tools: list[Tool] -> calls: ToolCalls", "Ask.", types=TYPES)
    adapter = JSONAdapter(native_tools=True)
    assert conversation(adapter, only, (), {"question": "Rain?", "tools": []}) == (
        Message("system", "Ask.\n\nInput `question`"),
        Message("user", "question: Rain?"),
    )
    assert (adapter.schema(only), adapter.parse(only, "whatever")) == (None, {})
    assert answered(adapter, only, LMResponse("", parts=(USE,)))["calls"].tool_calls[0].id == "call_7"
    with pytest.raises(SignatureError, match="beside the text"):
        adapter.reader(only)


def test_the_use_of_a_tool_in_a_demo_has_a_result():
    calls = ToolCalls(tool_calls=(ToolCall(name="weather", args={"city": "Bonn"}, id="a"),))
    demo = {"question": "Rain?", "tools": [], "thought": Thought("hm"), "answer": "", "calls": calls}
    asked, said, results = JSONAdapter(native_tools=True, native_reasoning=True).prefix(ASK, [demo])[1:]
    assert asked.content == "question: Rain?"
    assert said.content == (Text('{"answer": ""}'), ToolUse("a", "weather", FrozenJSON.of({"city": "Bonn"})))
    assert results == Message("user", (ToolResult("a", "weather", ENGLISH.not_given),))


def test_two_tools_of_one_name_are_refused():
    other = Tool(name="weather", desc="another one")
    with pytest.raises(SignatureError, match="two tools are called 'weather'"):
        native_fields(JSONAdapter(native_tools=True), ASK).tools({"tools": [Tool(weather), other]})


# -- languages --------------------------------------------------------------------------------------------------------


class Frage(Signature):
    """Beantworte die Frage."""

    frage: str = InputField()
    antwort: str = OutputField(max_length=9)
    sicher: bool = OutputField()
    zahl: int | None = OutputField()


@pytest.mark.parametrize("kind", [JSONAdapter, ChatAdapter, XMLAdapter, BAMLAdapter, TwoStepAdapter])
def test_a_german_prompt_has_no_english_word(kind):
    adapter = kind(words=GERMAN)
    demo = {"frage": "Wo?", "antwort": "hier"}
    said = "\n".join(turn.content for turn in conversation(adapter, Frage, [demo], {"frage": "Wo?"}))
    for phrase in dataclasses.asdict(ENGLISH).values():
        fixed = phrase.split("{")[0].strip()
        assert len(fixed) < 5 or fixed in dataclasses.asdict(GERMAN).values() or fixed not in said
    assert "höchstens 9 lang" in said
    assert GERMAN.incomplete in said


def test_the_german_table_is_complete():
    english, german = dataclasses.asdict(ENGLISH), dataclasses.asdict(GERMAN)
    same = {name for name, phrase in german.items() if phrase == english[name]}
    assert same == {"null"}  # JSON's own word
    assert set(LANGUAGES) == {"en", "de"}


def test_asking_again_is_in_the_language_too():
    turns = repair("", AdapterParseError("S", "", ("a",), "x"), GERMAN)
    assert [turn.content for turn in turns] == ["(nichts)", "Das passt nicht: x. Antworte noch einmal."]


def test_a_phrase_that_would_lose_what_is_said_in_it_is_refused():
    with pytest.raises(SignatureError, match=r"Words.one_of='one of these': it must have the marks \{values\}"):
        Words(one_of="one of these")
    with pytest.raises(SignatureError, match=r"Words\.text=5: a text"):
        Words(text=5)  # type: ignore[arg-type]


# -- two steps --------------------------------------------------------------------------------------------------------


def test_the_first_step_asks_for_no_format_and_the_second_is_held_to_the_schema():
    adapter = TwoStepAdapter(client="small")
    system, asked, said, question = conversation(adapter, QA, [WHOLE], {"question": "1 + 1?"})
    assert "JSON" not in system.content
    assert said.content == "why: sum\nanswer: 4"
    assert (asked.content, question.content) == ("question: 2 + 2?", "question: 1 + 1?")
    assert adapter.schema(QA) is None
    assert adapter.second_schema(QA) == JSONAdapter().schema(QA)
    turns = adapter.second(QA, "It is two, as one and one are.")
    assert [turn.role for turn in turns] == ["system", "user"]
    assert turns[1].content == "text: It is two, as one and one are."
    assert adapter.parse(QA, '{"why": "sum", "answer": 2}') == {"why": "sum", "answer": 2}


def test_an_output_called_text_does_not_hide_the_answer_that_is_read():
    plain = Signature("question -> text")
    assert TwoStepAdapter().second(plain, "Hi")[1].content == "said: Hi"


def test_two_steps_need_a_client_and_an_adapter():
    nested = TwoStepAdapter()
    for wrong in ({"client": ""}, {"extraction": 5}, {"extraction": nested}, {"native_tools": True}):
        with pytest.raises(SignatureError, match=next(iter(wrong)).partition("_")[0]):
            TwoStepAdapter(**wrong)


# -- templates --------------------------------------------------------------------------------------------------------


def test_a_template_puts_fields_where_one_wants_them():
    see = Signature("image: Image, question -> answer", "Look.", types=TYPES)
    adapter = TemplateAdapter("{instructions} {{literally}}\n{inputs}\n{form}", "<<{image}>> {question}", signature=see)
    system, question = conversation(adapter, see, (), {"image": Image(PNG), "question": "What?"})
    assert system.content.startswith("Look. {literally}\n`image`\n`question`\nOutput `answer`")
    assert question.content == (Text("<<"), Media("image", "image/png", PNG), Text(">> What?"))
    assert adapter.schema(see) == JSONAdapter().schema(see)


@pytest.mark.parametrize(
    ("system", "user", "message"),
    [
        ("{form}", "{questoin}", r"the user template has \{questoin\}; it may have \{question\}"),
        ("{form}", "hello", r"the user template lacks \{question\}; no model"),
        ("{forms}", "{question}", r"the system template has \{forms\}; it may have \{instructions\}, \{inputs\}"),
        ("{question}", "{question}", r"the system template has \{question\}"),
        ("{form}", "{question} {", "a brace that is no mark is written twice"),
        ("{form}", "{question} }", "a brace that is no mark is written twice"),
        ("{form}", "{question.__class__}", "a mark is a name alone"),
        ("{form}", "{question[0]}", "a mark is a name alone"),
        ("{form}", "{question!r}", r"\{question!r\}"),
        ("{form}", "{question:>9}", r"\{question:>9\}"),
        ("{form}", "{}", "a mark is a name alone"),
        ("{form}", "{0}", "a mark is a name alone"),
        ("{form}", 5, "user=5"),
    ],
)
def test_a_template_with_a_wrong_mark_is_refused_when_it_is_made(system, user, message):
    with pytest.raises(SignatureError, match=message):
        TemplateAdapter(system, user, signature=QA)


def test_a_value_with_braces_is_no_template():
    adapter = TemplateAdapter("{form}", "{question}")
    assert adapter.question(QA, {"question": "{form} {x"}).content == "{form} {x"


# -- saved ------------------------------------------------------------------------------------------------------------

SAVED = [
    *ADAPTERS.values(),
    JSONAdapter(demos="inline", native_tools=True, native_reasoning=True),
    ChatAdapter(words=GERMAN),
    XMLAdapter(words=dataclasses.replace(ENGLISH, text="words")),
    TwoStepAdapter(client="small", extraction=ChatAdapter(demos="inline")),
    TemplateAdapter("{form}", "{question}", answer=XMLAdapter(words=GERMAN)),
]


@pytest.mark.parametrize("adapter", SAVED, ids=repr)
def test_a_saved_adapter_is_the_same_adapter(adapter):
    state = state_of(adapter)
    again = adapter_of(FrozenJSON.of(state).value)
    assert again == adapter
    assert hash(again) == hash(adapter)
    assert (state == adapter.name) == (adapter in ADAPTERS.values())


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ("yaml", "unknown adapter 'yaml'; known: json, chat, xml, baml, two_step, template"),
        ({}, "unknown adapter None"),
        ({"name": "json", "demo": "inline"}, "adapter 'json' has no parameter 'demo'; it has demos, native_reasoning"),
        ({"name": "json", "words": "fr"}, "words='fr': allowed: en, de"),
        ({"name": "json", "words": {"texte": "x"}}, r"Words\(texte"),
        ({"name": "template"}, "adapter 'template'"),
        ({"name": "two_step", "extraction": "yaml"}, "unknown adapter 'yaml'"),
    ],
)
def test_a_saved_adapter_that_cannot_be_made_is_refused(state, message):
    with pytest.raises(SignatureError, match=message):
        adapter_of(state)


class Mine(JSONAdapter):
    @property
    def name(self) -> str:
        return "mine"


def test_an_adapter_that_is_not_ours_is_known_by_its_name_alone():
    mine = Mine()
    assert state_of(mine) == "mine"
    assert adapter_of("mine", mine) is mine

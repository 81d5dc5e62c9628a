"""Rows T and Y of docs/from-dspy.md: tools and types."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Literal

import pytest

import otpy
from otpy.adapters import TemplateAdapter
from otpy.testing import Say
from otpy.types import Citations, Tool, ToolCall, ToolCalls


def weather(city: str, days: int = 1) -> str:
    """Tell the weather.

    Args:
        city: Where.
    """
    return f"{days} days of rain in {city}"


def test_t1_a_tool_reads_its_function_and_never_calls_it_with_arguments_that_do_not_fit():
    tool = Tool(weather, name="forecast", args={"days": Literal[1, 2]})
    assert (tool.name, tool.desc, list(tool.args)) == ("forecast", "Tell the weather.", ["city", "days"])
    assert tool.validated({"city": "Ulm", "days": 2}) == {"city": "Ulm", "days": 2}
    with pytest.raises(ValueError, match="'city' is missing"):
        tool.validated({"days": 2})
    assert not callable(tool)  # a value: `use_tools` and the agents run it, in a task with a deadline


def test_t2_tool_calls_are_an_output_and_use_tools_runs_them(model):
    contract = otpy.Signature("question, tools: list[Tool] -> calls: ToolCalls")
    native = otpy.Predict(contract, adapter=otpy.JSONAdapter(native_tools=True))
    with model(Say("", tools=(("weather", {"city": "Bonn"}),))) as (app, fake):
        calls = native(question="?", tools=[Tool(weather)]).calls
        results = app.run(otpy.programs.use_tools([weather], calls, timeout=5))
    assert isinstance(calls, ToolCalls)
    assert fake.requests[0].body["tools"][0]["function"]["name"] == "weather"
    assert [result.content for result in results.tool_results] == ["1 days of rain in Bonn"]


def test_t3_tools_of_mcp_servers_come_from_supervised_connections_and_we_serve_ours():
    pytest.importorskip("mcp.server.mcpserver", reason="no mcp 2: pip install -e '.[mcp]'")
    from otpy.integrations.mcp import Stdio, connected, serve_mcp

    server = Path(__file__).parents[2] / "integrations" / "mcp_server.py"
    add = ToolCalls(tool_calls=[ToolCall(name="add", args={"a": 2, "b": 3})])
    with (
        otpy.start(settings={"clients": {}}) as app,
        connected({"sums": Stdio(sys.executable, str(server))}) as servers,
    ):
        (result,) = app.run(otpy.programs.use_tools(servers.tools(), add)).tool_results
    assert result.content == "5"
    assert callable(serve_mcp)  # tests/integrations/test_mcp.py serves with it


def test_t4_a_langchain_tool_is_a_function_with_a_schema():
    class Theirs:  # what LangChain's tools look like
        name, description, args = "search", "Search.", {"query": {"type": "string"}}

        def invoke(self, arguments):
            return f"found {arguments['query']}"

    theirs = Theirs()
    parameters = {"type": "object", "properties": theirs.args, "required": list(theirs.args)}
    tool = Tool(lambda **given: theirs.invoke(given), name=theirs.name, desc=theirs.description, parameters=parameters)
    assert tool.func(**tool.validated({"query": "x"})) == "found x"


def test_y1_a_type_of_ones_own_says_what_a_model_is_shown():
    class Celsius(otpy.Type):
        degrees: float

        def parts(self):
            return (otpy.lm.Text(f"{self.degrees:.1f} °C"),)

    program = otpy.Predict(otpy.Signature("heat: Celsius -> answer", types={"Celsius": Celsius}))
    assert "21.0 °C" in str(program.messages(heat=Celsius(degrees=21))[-1].content)


PNG = b"\x89PNG\r\n\x1a\n" + bytes(8)


def test_y2_an_image_opens_nothing_and_a_text_is_never_a_path(model, tmp_path):
    (tmp_path / "cat.png").write_bytes(PNG)
    assert otpy.Image.from_path(tmp_path / "cat.png").data == PNG
    assert otpy.Image("https://example.org/cat.png") == otpy.Image.from_url("https://example.org/cat.png")
    for refused in (str(tmp_path / "cat.png"), "file:///etc/passwd", "http://127.0.0.1/cat.png"):
        with pytest.raises(otpy.errors.SignatureError):
            otpy.Image(refused)
    with model({"caption": "a cat"}) as (_, fake):
        otpy.Predict("picture: Image -> caption")(picture=otpy.Image(PNG))
    assert any(part["type"] == "image_url" for part in fake.requests[0].body["messages"][-1]["content"])


def test_y3_a_sound_is_bytes_an_address_or_an_array(model):
    wav = b"RIFF\x24\x00\x00\x00WAVEfmt " + bytes(20)
    with model({"text": "hello"}) as (_, fake):
        otpy.Predict("sound: Audio -> text")(sound=otpy.Audio(wav))
    assert any(part["type"] == "input_audio" for part in fake.requests[0].body["messages"][-1]["content"])
    numpy = pytest.importorskip("numpy")
    assert otpy.Audio.from_array(numpy.zeros(8), 8_000).media_type.startswith("audio/")


def test_y4_a_file_is_bytes_a_path_or_an_id_of_the_provider(tmp_path):
    (tmp_path / "a.pdf").write_bytes(b"%PDF-1.7\n")
    assert otpy.File.from_path(tmp_path / "a.pdf").name == "a.pdf"
    assert otpy.File.from_file_id("file-1").file_id == "file-1"
    assert otpy.File.from_bytes(b"%PDF-1.7\n").media_type == "application/pdf"


def test_y5_a_history_grows_by_copies():
    history = otpy.History([{"question": "Who?", "answer": "Goethe"}])
    longer = history.adding(otpy.Prediction(answer="1808"), question="When?")
    assert (len(history), len(longer), longer.messages[1]["answer"]) == (1, 2, "1808")


def test_y6_code_reasoning_citations_and_documents():
    assert otpy.Code["python"]("```python\nprint(1)\n```").code == "print(1)"
    assert otpy.Reasoning("so it is") == "so it is"
    document = otpy.Document("Ice melts at 0 degrees.", title="Ice")
    quotes = Citations([{"cited_text": "melts at 0", "document_title": "Ice"}])
    assert quotes.located([document])[0].start == 4
    with pytest.raises(ValueError, match="does not stand in the document"):
        Citations([{"cited_text": "melts at 5", "document_title": "Ice"}]).located([document])


def test_y7_decisions_have_probabilities():
    kind = otpy.Decision[Literal[1, 2, 3]](2, probabilities={1: 0.25, 2: 0.5, 3: 0.25})
    assert (kind == 2, kind.probability, kind.expected) == (True, 0.5, 2.0)


def test_y8_inputs_are_variables_of_the_sandbox(model):
    pytest.importorskip("pydantic_monty", reason="needs the extra `sandbox`")
    code = {"reasoning": "r", "code": "SUBMIT(total=sum(row['n'] for row in rows))"}
    with model(code):
        found = otpy.programs.program_of_thought.ProgramOfThought("rows: list[dict[str, int]] -> total: int")
        assert found(rows=[{"n": 1}, {"n": 2}]).total == 3


def test_y9_what_a_model_draws_is_no_output_yet():
    picture = otpy.Signature("prompt -> picture: Image")
    assert picture.output_fields["picture"].kind is otpy.Image  # as an address that it writes; nothing native
    assert otpy.Image.native is None
    assert TemplateAdapter("{instructions} {form}", "{prompt}").question(picture, {"prompt": "x"}).content == "x"

"""MCP: servers as supervised connections, their tools as ours, and our programs as theirs."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from pydantic import SecretStr

import otpy
from otpy.errors import CallTimeout, ConfigError, ProgramError
from otpy.integrations.mcp import Http, Stdio, connected
from otpy.programs.react import ReAct
from otpy.programs.tool_use import use_tools
from otpy.telemetry.bus import attached
from otpy.testing import FakeProvider, Say
from otpy.types.tool import ToolCall, ToolCalls

pytest.importorskip("mcp.server.mcpserver", reason="no mcp 2: pip install -e '.[mcp]'")

HERE = Path(__file__).parent
SERVER = Stdio(sys.executable, str(HERE / "mcp_server.py"), env={"SECRET": SecretStr("s3cret")})


@contextlib.asynccontextmanager
async def application():
    async with otpy.start(lm="openai/none", api_key="none", cache=False) as app:
        yield app


async def called(tools, name, **args):
    calls = ToolCalls(tool_calls=[ToolCall(name=name, args=args)])
    (result,) = (await use_tools(tools, calls, timeout=30.0)).tool_results
    return result.content


def gone(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z" if Path("/proc").exists() else False


async def until(condition):
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.02)


# -- servers for us --------------------------------------------------------------------------------------------------


def test_the_tools_of_a_server_are_ours():
    async def main():
        async with application(), connected({"sums": SERVER}) as servers:
            tools = {tool.name: tool for tool in await servers.atools()}
            assert list(tools) == ["add", "count", "pid", "hang", "fail", "with_dots_and"]
            assert tools["add"].desc == "Add two numbers."
            assert tools["add"].args["a"]["type"] == "integer"
            assert await called(tools.values(), "add", a=2, b=3) == "5"
            assert await called(tools.values(), "with_dots_and") == "s3cret"
            assert (await called(tools.values(), "add", a=2)).startswith("add: 'b' is missing")
            assert await called(tools.values(), "fail") == "fail failed: Error executing tool fail"
            assert "integer" in await called(tools.values(), "add", a="two", b=3)
            named = await servers.atools("sums", prefix=True)
            assert named[0].name == "sums_add"
            assert "connection" in servers.render()
            with pytest.raises(ProgramError, match="no MCP server is called 'other'; there are sums"):
                await servers.atools("other")

    asyncio.run(main())
    assert "s3cret" not in repr(SERVER)


def test_a_tool_that_cannot_be_used_costs_its_server_no_other(caplog):
    plain = {"type": "object"}
    odd = {"type": "object", "properties": {"x": {"$ref": "#/$defs/x"}}, "$defs": 5}
    offered = [("", plain), ("a.b", plain), ("odd", odd), ("a/b", plain), ("n" * 70, plain), ("n" * 71, plain)]

    async def main():
        server = Stdio(sys.executable, str(HERE / "mcp_odd_server.py"), json.dumps(offered))
        async with application(), connected({"odd": server}) as servers:
            tools = await servers.atools()
            assert [tool.name for tool in tools] == ["a_b", "a_b_2", "n" * 64, "n" * 62 + "_2"]
            assert await called(tools, "a_b_2") == "a/b"
            assert ReAct("question -> answer", tools)

    with attached("test", lambda name, told: left_out.append((told["server"], told["tool"])), "otpy.mcp.tool_left_out"):
        left_out = []
        asyncio.run(main())
    assert left_out == [("odd", ""), ("odd", "odd")]
    assert "its tool 'odd' is left out" in caplog.text


def test_a_server_that_is_killed_is_restarted_and_the_next_call_works():
    async def main():
        async with application(), connected({"sums": SERVER}) as servers:
            tools = await servers.atools()
            first = int(await called(tools, "pid"))
            hanging = asyncio.ensure_future(called(tools, "hang"))
            assert await called(tools, "count") == "1"
            os.kill(first, signal.SIGKILL)
            assert "the MCP server" in await hanging
            second = int(await called(tools, "pid"))
            assert second != first
            assert await called(tools, "count") == "1"
            return second

    last = asyncio.run(main())
    assert gone(last)


def test_the_process_of_a_connection_that_is_killed_is_restarted_and_its_server_goes():
    async def main():
        async with application() as app, connected({"sums": SERVER}) as servers:
            tools = await servers.atools()
            first = int(await called(tools, "pid"))
            app.names.get(("mcp", "sums")).exit("kill")
            second = int(await called(tools, "pid"))
            assert second != first
            await until(lambda: gone(first))

    asyncio.run(main())


def test_calls_have_deadlines_and_a_late_one_harms_no_other():
    async def main():
        async with application(), connected({"sums": SERVER}) as servers:
            tools = await servers.atools(timeout=0.2)
            by_name = {tool.name: tool for tool in tools}
            with pytest.raises(CallTimeout):
                await by_name["hang"].func()
            calls = ToolCalls(tool_calls=[ToolCall(name="hang"), ToolCall(name="add", args={"a": 1, "b": 1})])
            found = await use_tools(await servers.atools(), calls, timeout=0.2)
            assert [one.content for one in found.tool_results] == ["hang took more than 0.2 s and was ended", "2"]

    asyncio.run(main())


def test_a_server_that_cannot_be_started_is_said_to_be_so():
    async def main():
        async with application(), connected({"none": Stdio("/no/such/program")}) as servers:
            with pytest.raises(ProgramError, match=r"the MCP server 'none' is not there: FileNotFoundError"):
                await servers.atools()

    asyncio.run(main())


def test_a_program_that_is_no_server_is_given_up_after_its_time():
    silent = Stdio(sys.executable, "-c", "import sys; sys.stdin.read()", connect_timeout=0.5)

    async def main():
        async with application(), connected({"silent": silent}) as servers:
            with pytest.raises(ProgramError, match="the MCP server 'silent' is not there: TimeoutError"):
                await servers.atools()

    asyncio.run(main())


def test_only_servers_are_connected_to():
    with pytest.raises(ConfigError, match="MCP server 'files': 'npx files'; allowed: Stdio"):
        connected({"files": "npx files"})


def test_synchronous_code_and_an_agent_use_them_too():
    def script(request):
        asked = any(message["role"] == "tool" for message in request.body["messages"])
        return Say("", tools=(("submit", {"answer": 5}),) if asked else (("add", {"a": 2, "b": 3}),))

    with (
        FakeProvider(script) as fake,
        otpy.start(lm="openai/fake", base_url=fake.url("openai_chat"), api_key="none", cache=False),
        connected({"sums": SERVER}) as servers,
    ):
        found = ReAct("question -> answer: int", servers.tools())(question="2 + 3?")
    assert found.trajectory[0]["calls"][0]["result"] == "5"
    assert found.answer == 5


def test_a_server_at_an_address_that_comes_back_is_connected_to_again():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    @contextlib.asynccontextmanager
    async def serving():
        process = await asyncio.create_subprocess_exec(
            sys.executable, str(HERE / "mcp_server.py"), str(port), stderr=subprocess.DEVNULL
        )
        try:
            async with asyncio.timeout(30):
                while True:
                    with contextlib.suppress(OSError):
                        _, writer = await asyncio.open_connection("127.0.0.1", port)
                        writer.close()
                        break
                    await asyncio.sleep(0.05)
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    async def until_there(servers):
        async with asyncio.timeout(30):
            while True:
                try:
                    return await servers.atools()
                except ProgramError as error:
                    assert "is not there" in str(error)

    async def main():
        web = Http(f"http://127.0.0.1:{port}/mcp")
        async with application(), connected({"web": web}) as servers:
            async with serving() as process:
                tools = await until_there(servers)
                assert await called(tools, "add", a=1, b=1) == "2"
                process.kill()
                await process.wait()
                assert "the MCP server" in await called(tools, "add", a=1, b=1)
            async with serving(), asyncio.timeout(30):
                while await called(tools, "add", a=1, b=1) != "2":
                    await asyncio.sleep(0.05)

    asyncio.run(main())


# -- ours for others -------------------------------------------------------------------------------------------------

OURS = """
    import sys
    import otpy
    from otpy.integrations.mcp import serve_mcp
    from otpy.programs import Predict
    from otpy.types.tool import Tool

    class Triage(otpy.Signature):
        '''Sort a message.'''
        message: str = otpy.InputField(desc="what was written")
        topic: str = otpy.OutputField()

    def shout(text: str) -> str:
        '''Say it louder.'''
        print("this goes to standard error")
        return text.upper()

    with otpy.start(lm="openai/fake", base_url=sys.argv[1], api_key="none", cache=False):
        serve_mcp([Tool(Predict(Triage), name="triage"), shout], name="ours")
"""


def test_programs_are_served_to_others(tmp_path):
    script = tmp_path / "ours.py"
    script.write_text(textwrap.dedent(OURS))

    async def main(url):
        root = str(HERE.parents[1])
        ours = Stdio(sys.executable, str(script), url, env={"PYTHONPATH": root}, cwd=str(tmp_path))
        async with application(), connected({"ours": ours}) as servers:
            tools = await servers.atools()
            assert [(tool.name, tool.desc) for tool in tools] == [
                ("triage", "Sort a message."), ("shout", "Say it louder."),
            ]  # fmt: skip
            assert tools[0].args["message"] == {"type": "string", "description": "what was written"}
            assert json.loads(await called(tools, "triage", message="It squeals.")) == {"topic": "brakes"}
            assert await called(tools, "shout", text="hello") == "HELLO"
            assert "'text' is missing" in await called(tools, "shout")

    with FakeProvider(json.dumps({"topic": "brakes"})) as fake:
        asyncio.run(main(fake.url("openai_chat")))

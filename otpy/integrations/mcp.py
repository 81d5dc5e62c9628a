"""MCP, the Model Context Protocol: the tools of other programs for ours, and our programs as tools for others.

`connected` opens supervised connections to servers and makes `Tool`s of what they offer; `serve_mcp` is the other way
round. Needs the `mcp` extra.
"""

from __future__ import annotations

import contextlib
import json
import logging
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Self, cast

from pydantic import SecretStr, TypeAdapter

from otpy.actors import SHUTDOWN, names_context
from otpy.clients.running import running
from otpy.errors import ConfigError, ProgramError, shown
from otpy.integrations.mcp_connection import CallTool, ListTools, connection_tree
from otpy.programs.tool_use import TOOL_TIMEOUT, by_name, use_tools
from otpy.supervisors import Supervisor
from otpy.telemetry import bus as telemetry
from otpy.types.tool import Tool, ToolCall, ToolCalls

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable, Mapping
    from contextlib import AbstractAsyncContextManager
    from types import TracebackType

    from otpy.supervisors import SupervisorRef

__all__ = ["Http", "Servers", "Stdio", "aserve_mcp", "connected", "serve_mcp"]

_log: Final = logging.getLogger(__name__)

RESTART_SECONDS: Final = 10.0
"""How long to wait for the process of a connection while it is restarted."""

MOST_CHARS: Final = 1_000_000
"""Characters of what one of our tools returns to others."""


def _installed() -> None:
    try:
        from mcp import Client  # noqa: PLC0415 - the extra's, heavy, and there since version 2

        del Client
    except ImportError as error:
        raise ConfigError("MCP needs the `mcp` package, version 2: pip install 'otpy-framework[mcp]'") from error


@dataclass(frozen=True, slots=True)
class Stdio:
    """A server that is a program on this machine, spoken to through its standard input and output.

    Args:
        command: The program.
        args: Its arguments.
        env: Further environment variables; of this process's own it gets only the harmless ones (`PATH`, `HOME`, …).
        cwd: Its working directory.
        connect_timeout: Seconds that starting it and saying hello may take.

    Example:
        >>> from otpy.integrations.mcp import Stdio
        >>> Stdio("python", "-m", "my_server")
        Stdio(command='python', args=('-m', 'my_server'), cwd=None, connect_timeout=30.0)
    """

    command: str
    args: tuple[str, ...]
    env: Mapping[str, str | SecretStr] = field(repr=False)
    cwd: str | None
    connect_timeout: float

    def __init__(
        self,
        command: str,
        *args: str,
        env: Mapping[str, str | SecretStr] | None = None,
        cwd: str | None = None,
        connect_timeout: float = 30.0,
    ) -> None:
        """Keep it; nothing is started."""
        keep = object.__setattr__
        keep(self, "command", command)
        keep(self, "args", args)
        keep(self, "env", dict(env or {}))
        keep(self, "cwd", cwd)
        keep(self, "connect_timeout", connect_timeout)

    def transport(self) -> AbstractAsyncContextManager[Any]:
        """Open its streams, when entered."""
        from mcp import StdioServerParameters, stdio_client  # noqa: PLC0415 - the extra's

        env = {name: _open(value) for name, value in self.env.items()}
        return stdio_client(
            StdioServerParameters(command=self.command, args=list(self.args), env=env or None, cwd=self.cwd)
        )


@dataclass(frozen=True, slots=True)
class Http:
    """A server at an address, spoken to by streamable HTTP.

    Args:
        url: Its address, as in `"https://example.org/mcp"`.
        headers: Sent with every request; a key as a `SecretStr`.
        connect_timeout: Seconds that saying hello may take.
    """

    url: str
    headers: Mapping[str, str | SecretStr] = field(default_factory=dict[str, "str | SecretStr"], repr=False)
    connect_timeout: float = 30.0

    def transport(self) -> AbstractAsyncContextManager[Any]:
        """Open its streams, when entered."""
        from mcp.client.streamable_http import create_mcp_http_client  # type: ignore[attr-defined]  # noqa: PLC0415

        return _over(self.url, create_mcp_http_client({name: _open(value) for name, value in self.headers.items()}))


def _open(value: str | SecretStr) -> str:
    return value.get_secret_value() if isinstance(value, SecretStr) else value


@contextlib.asynccontextmanager
async def _over(url: str, client: Any) -> AsyncGenerator[Any]:
    """Open the streams inside of an HTTP client's block, which nobody else would close."""
    from mcp.client.streamable_http import streamable_http_client  # noqa: PLC0415 - the extra's

    async with client, streamable_http_client(url, http_client=client) as streams:
        yield streams


def connected(servers: Mapping[str, Stdio | Http]) -> Servers:
    """Prepare connections to MCP servers, for the length of a `with` or `async with` block inside of an application's.

    Each has a supervised process, registered as `("mcp", name)`. A server that dies or goes away is connected to again;
    its tools go through the process by its name, so the same tools go on working.

    Args:
        servers: What to connect to, by names of your own.

    Raises:
        ConfigError: If the `mcp` extra is not installed.
    """
    _installed()
    return Servers(dict(servers))


class Servers:
    """Connections to MCP servers; see `connected`.

    Args:
        servers: What to connect to, by name.
    """

    def __init__(self, servers: dict[str, Stdio | Http]) -> None:
        """Connect to nothing yet."""
        for name, server in servers.items():
            if not isinstance(server, (Stdio, Http)):
                raise ConfigError(f"MCP server {name!r}: {server!r:.100}; allowed: Stdio(command, …), Http(url)")
        self._servers = servers
        self._tree: SupervisorRef | None = None

    async def __aenter__(self) -> Self:
        """Start the processes; they connect by themselves."""
        application = running()
        if not application.on_loop():
            raise ProgramError("MCP servers are connected to on the application's loop; elsewhere use a plain `with`")
        children = [connection_tree(name, one.transport, one.connect_timeout) for name, one in self._servers.items()]
        token = names_context.set(application.names)
        try:
            self._tree = await Supervisor.start(children, name="mcp", max_restarts=10, max_seconds=60.0)
        finally:
            names_context.reset(token)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Let the servers go."""
        if self._tree is not None and self._tree.is_alive():
            await self._tree.stop(SHUTDOWN)

    def __enter__(self) -> Self:
        """Start the processes; they connect by themselves."""
        return running().run(self.__aenter__())

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Let the servers go."""
        running().run(self.__aexit__(kind, error, traceback))

    def render(self) -> str:
        """Return the processes as text."""
        return "mcp  not connected" if self._tree is None else self._tree.render()

    def tools(self, *names: str, prefix: bool = False, timeout: float = TOOL_TIMEOUT) -> tuple[Tool, ...]:
        """Return the tools of the servers, or of those with these names, as they are now; in synchronous code.

        A tool that no model can be shown, as one without a name, is left out and told as `otpy.mcp.tool_left_out` on
        the event bus, and as a warning. Two that come to the same name here are told apart by `_2`, `_3`, ….

        Args:
            names: The servers; all if there are none.
            prefix: Whether to put the server's name in front of the tool's, as in `files_read`.
            timeout: Seconds that a call of one of them may take.

        Raises:
            ProgramError: If there is no such server, or it cannot be connected to.
        """
        return running().run(self.atools(*names, prefix=prefix, timeout=timeout))

    async def atools(
        self,
        *names: str,
        prefix: bool = False,
        timeout: float = TOOL_TIMEOUT,  # noqa: ASYNC109 - of a call
    ) -> tuple[Tool, ...]:
        """Return the tools of the servers, in asynchronous code; arguments and errors as for `tools`."""
        found: list[Tool] = []
        for name in names or self._servers:
            if name not in self._servers:
                raise ProgramError(f"no MCP server is called {name!r}; there are {', '.join(self._servers) or 'none'}")
            for tool in await _asked(name, ListTools(), self._servers[name].connect_timeout + RESTART_SECONDS):
                called = _free(f"{name}_{tool.name}" if prefix else tool.name, {one.name for one in found})
                remote = _Remote(name, tool.name, timeout)
                try:
                    made = Tool(remote, name=called, desc=tool.description or "", parameters=tool.input_schema)
                    _try_out(made)
                except Exception as error:  # noqa: BLE001 - a schema may be anything, and harms no other tool
                    _left_out(name, tool.name, error)
                else:
                    found.append(made)
        return tuple(found)


def _free(wanted: str, taken: set[str]) -> str:
    """The name of a tool as providers take it, and as no other tool has it."""
    plain = re.sub(r"[^A-Za-z0-9_-]", "_", wanted)
    names = (plain[: 64 - len(ending)] + ending for ending in ("", *(f"_{n}" for n in range(2, len(taken) + 2))))
    return next(name for name in names if name not in taken)


def _try_out(tool: Tool) -> None:
    """Put it into words and into a schema, as an agent will."""
    str(tool)
    TypeAdapter(ToolCalls.of((tool,))).json_schema()


def _left_out(server: str, tool: str, error: Exception) -> None:
    if telemetry.listening:
        telemetry.emit("otpy.mcp.tool_left_out", server=server, tool=tool, error=error)
    _log.warning("MCP server %r: its tool %r is left out: %s", server, tool, shown(error))


@dataclass(frozen=True, slots=True)
class _Remote:
    """A tool of a server: a value, which goes through the server's process by name."""

    server: str
    tool: str
    timeout: float

    async def __call__(self, **arguments: Any) -> str:
        """Have it called.

        Raises:
            ProgramError: If it failed, or the server is not there.
            CallTimeout: If it took too long.
            ActorDown: If the connection died with the call.
        """
        result = await _asked(self.server, CallTool(self.tool, arguments), self.timeout)
        text = _text(result)
        if result.is_error:
            raise ProgramError(text or f"{self.tool} failed, and says no more")
        return text


async def _asked(server: str, request: Any, timeout: float) -> Any:  # noqa: ASYNC109 - passed on
    process = await running().names.wait_for(("mcp", server), RESTART_SECONDS)
    return await process.call(request, timeout)


def _text(result: Any) -> str:
    """What a tool of a server returned, in words: its texts; of anything else what it is."""
    pieces: list[str] = []
    for block in result.content:
        if block.type == "text":
            pieces.append(block.text)
        elif block.type == "resource" and getattr(block.resource, "text", None) is not None:
            pieces.append(block.resource.text)
        elif block.type == "resource_link":
            pieces.append(str(block.uri))
        else:
            pieces.append(f"[{block.type}, {getattr(block, 'mime_type', None) or 'of unknown type'}]")
    if not pieces and result.structured_content is not None:
        pieces.append(json.dumps(result.structured_content, ensure_ascii=False))
    return "\n".join(pieces)


# -- the other way round ---------------------------------------------------------------------------------------------


def serve_mcp(tools: Iterable[Any], *, name: str = "otpy", timeout: float | None = TOOL_TIMEOUT) -> None:
    """Serve programs and functions as an MCP server on standard input and output, until the input ends.

    To be called inside of an application's `with` block. Whatever would be printed goes to standard error meanwhile.

    Args:
        tools: Programs, functions or `Tool`s; a program is best given as `Tool(program, name=…, desc=…)`.
        name: What the server says it is called.
        timeout: Seconds that a call may take; `None` for any length.

    Raises:
        ConfigError: If the `mcp` extra is not installed.
        NoApplication: If no application is running.
    """
    running().run(aserve_mcp(tools, name=name, timeout=timeout))


async def aserve_mcp(
    tools: Iterable[Any],
    *,
    name: str = "otpy",
    timeout: float | None = TOOL_TIMEOUT,  # noqa: ASYNC109 - of a call
) -> None:
    """Serve programs and functions, in asynchronous code; arguments and errors as for `serve_mcp`."""
    _installed()
    import mcp.types as words  # noqa: PLC0415 - the extra's
    from mcp.server import Server  # noqa: PLC0415
    from mcp.server.stdio import stdio_server  # noqa: PLC0415

    known = by_name(tools)

    async def on_list_tools(_: Any, __: Any) -> Any:
        return words.ListToolsResult(
            tools=[words.Tool(name=t.name, description=t.desc, input_schema=t.parameters) for t in known.values()]
        )

    async def on_call_tool(_: Any, params: Any) -> Any:
        call = ToolCall(name=params.name, args=params.arguments or {})
        calls = ToolCalls(tool_calls=(call,))
        (result,) = (await use_tools(known.values(), calls, timeout=timeout, max_chars=MOST_CHARS)).tool_results
        content: Any = [words.TextContent(type="text", text=result.content)]
        return words.CallToolResult(content=content, is_error=result.is_error)

    server: Any = cast("Any", Server)(name, on_list_tools=on_list_tools, on_call_tool=on_call_tool)
    async with stdio_server() as (read, write):
        await server.run(read, write, server.create_initialization_options())

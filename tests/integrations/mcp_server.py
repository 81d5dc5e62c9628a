"""An MCP server for tests: a program of its own, on standard input and output or at an address."""

from __future__ import annotations

import asyncio
import itertools
import os
import sys

from mcp.server import MCPServer

server = MCPServer("for tests")
calls = itertools.count(1)


@server.tool()
def add(a: int, b: int) -> str:
    """Add two numbers."""
    return str(a + b)


@server.tool()
def count() -> str:
    """Count the calls of this process."""
    return str(next(calls))


@server.tool()
def pid() -> str:
    """Tell the process."""
    return str(os.getpid())


@server.tool()
async def hang() -> str:
    """Never return."""
    await asyncio.Event().wait()
    return "never"


@server.tool()
def fail() -> str:
    """Go wrong."""
    raise LookupError("nothing there")


@server.tool(name="with.dots/and")
def dotted() -> str:
    """Have a name that providers refuse."""
    return os.environ.get("SECRET", "none")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        server.run("streamable-http", host="127.0.0.1", port=int(sys.argv[1]))
    else:
        server.run("stdio")

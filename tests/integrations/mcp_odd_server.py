"""An MCP server for tests that offers whatever tools it is told to: plain JSON-RPC, as no library would let it."""

from __future__ import annotations

import json
import sys

for line in sys.stdin:
    message = json.loads(line)
    params = message.get("params", {})
    match message.get("method"):
        case "initialize":
            version = params["protocolVersion"]
            info = {"name": "odd", "version": "1"}
            result = {"protocolVersion": version, "capabilities": {"tools": {}}, "serverInfo": info}
        case "tools/list":
            result = {"tools": [{"name": name, "inputSchema": schema} for name, schema in json.loads(sys.argv[1])]}
        case "tools/call":
            result = {"content": [{"type": "text", "text": params["name"]}]}
        case _:
            result = None
    if "id" in message:
        told = {"error": {"code": -32601, "message": "not known"}} if result is None else {"result": result}
        sys.stdout.write(json.dumps({"jsonrpc": "2.0", "id": message["id"], **told}) + "\n")
        sys.stdout.flush()

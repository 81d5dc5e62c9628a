"""Many streams at once: whether any event is in another's, and how much later than the server a delta is seen.

    python benchmarks/streams.py --json

The server (otpy's fake provider, in a process of its own) writes each answer in pieces and puts into each the moment
at which it was written; both processes read the same clock. Every stream asks for an answer of its own, which holds
its number; with `--at-once` of them under way, each is followed to its end.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import time

import otpy
from otpy.actors import new_event_loop

SERVER = r"""
import asyncio, json, sys, time
async def talk(reader, writer):
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            size = int([l for l in head.lower().split(b"\r\n") if l.startswith(b"content-length:")][0].split(b":")[1])
            body = json.loads(await reader.readexactly(size))
            number = body["messages"][-1]["content"].split()[-1]
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
            def say(data):
                raw = b"data: " + data + b"\n\n"
                writer.write(b"%x\r\n" % len(raw) + raw + b"\r\n")
            def piece(text):
                choice = {"index": 0, "delta": {"content": text}, "finish_reason": None}
                chunk = {"id": "x", "object": "chat.completion.chunk", "model": "m", "choices": [choice]}
                say(json.dumps(chunk).encode())
            await asyncio.sleep(float(sys.argv[1]) * (int(number) % 100) / 100)
            piece('{"answer": "')
            for _ in range(int(sys.argv[2])):
                piece(f"{number}@{time.monotonic():.6f} ")
                await writer.drain()
                await asyncio.sleep(float(sys.argv[3]))
            piece('"}')
            choice = {"index": 0, "delta": {}, "finish_reason": "stop"}
            usage = {"prompt_tokens": 9, "completion_tokens": 9, "total_tokens": 18}
            say(json.dumps({"id": "x", "object": "chat.completion.chunk", "model": "m", "choices": [choice],
                            "usage": usage}).encode())
            say(b"[DONE]")
            writer.write(b"0\r\n\r\n")
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()
async def main():
    server = await asyncio.start_server(talk, "127.0.0.1", 0, backlog=4096)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", flush=True)
    await server.serve_forever()
asyncio.run(main())
"""


async def follow(program: otpy.Predict, number: int) -> tuple[float, list[float], int]:
    """Follow one stream; returns how late its first delta was, how late all were, and events that are another's."""
    late, mixed, text = list[float](), 0, ""
    async for event in program.astream(question=f"number {number}"):
        if not isinstance(event, otpy.FieldText):
            continue
        text += event.text
        *whole, text = text.split(" ")
        for word in whole:
            asked, _, written = word.partition("@")
            mixed += asked != str(number)
            late.append(time.monotonic() - float(written))
    return late[0], late, mixed


async def main(at_once: int, spread: float, pieces: int, pause: float) -> dict[str, float]:
    """Measure."""
    command = [sys.executable, "-c", SERVER, str(spread), str(pieces), str(pause)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:  # noqa: ASYNC220 - nothing else runs yet
        assert server.stdout is not None
        try:
            client = {"model": "acme/m", "base_url": server.stdout.readline().strip(), "api_key": "none"}
            async with otpy.start(settings={"clients": {"default": client}, "cache": {"enabled": False}}):
                program = otpy.Predict("question -> answer")
                await follow(program, 0)
                began = time.perf_counter()
                found = await asyncio.gather(*(follow(program, number) for number in range(1, at_once + 1)))
                seconds = time.perf_counter() - began
        finally:
            server.terminate()
    first, late = [one[0] for one in found], sorted(delay for one in found for delay in one[1])
    return {
        "streams": at_once,
        "seconds": seconds,
        "mixed": sum(one[2] for one in found),
        "first_delta_ms_median": 1e3 * statistics.median(first),
        "first_delta_ms_p99": 1e3 * sorted(first)[int(0.99 * len(first))],
        "delta_ms_median": 1e3 * statistics.median(late),
        "delta_ms_p99": 1e3 * late[int(0.99 * len(late))],
        "deltas": len(late),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--at-once", type=int, default=1_000, help="streams at once (default: %(default)s)")
    parser.add_argument("--spread", type=float, default=4.0, help="seconds over which answers begin")
    parser.add_argument("--pieces", type=int, default=10, help="pieces of an answer")
    parser.add_argument("--pause", type=float, default=0.2, help="seconds between two pieces")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    asked = parser.parse_args()
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        result = runner.run(main(asked.at_once, asked.spread, asked.pieces, asked.pause))
    if asked.json:
        print(json.dumps(result))
    else:
        for name, value in result.items():
            print(f"{name:24} {value:,.2f}")

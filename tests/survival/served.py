"""A model server as an OS process for tests: the interface of `otpy.clients.local_server`, with scripted answers.

It stands in for llama.cpp where the real one cannot be had: it answers by a rule of the question, so that a score is
known, and slowly enough that a test can kill it in the middle.
"""

import json
import sys
import threading

from otpy.testing import LoopbackLM, Scripted


def script(body):
    question = body["messages"][-1]["content"]
    number = int("".join(filter(str.isdigit, question)) or 0)
    return Scripted({"answer": "even" if number % 2 == 0 or number % 7 == 0 else "odd"}, delay=0.02)


with LoopbackLM(script) as server:
    print(json.dumps({"url": server.url}), flush=True)  # noqa: T201 - a port's first line
    threading.Thread(target=lambda: (sys.stdin.read(), server._loop.call_soon_threadsafe(server._stop.set))).start()
    server._thread.join()

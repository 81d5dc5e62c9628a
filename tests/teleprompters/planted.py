"""A task with a planted optimum: which rows a model gets right is a known function of what its prompt shows."""

import json
from collections import Counter
from typing import Literal

import otpy
from otpy.testing import LoopbackLM


class Sort(otpy.Signature):
    """Sort the word."""

    word: str = otpy.InputField()
    kind: Literal["fruit", "tool"] = otpy.OutputField()


KINDS = {
    "fruit": "apple pear plum fig lime date kiwi mango peach grape",
    "tool": "saw axe file rake plane drill vice hammer chisel spade",
}
ROWS = [otpy.Example(word=word, kind=kind) for kind, words in KINDS.items() for word in words.split()]
TRAIN, VAL = ROWS[:7] + ROWS[10:17], ROWS[7:10] + ROWS[17:]
RIGHT = {row.word: row.kind for row in ROWS}
METRIC = otpy.exact_match("kind")
STUDENT = otpy.Predict(Sort)


def word(body):
    return body["messages"][-1]["content"].removeprefix("word: ").split("\n")[0]


def shown(body):
    """The words of the demos in a prompt."""
    return [message["content"].removeprefix("word: ") for message in body["messages"][1:-1:2]]


def wrong(kind):
    return "tool" if kind == "fruit" else "fruit"


def needs(*words):
    """A model that is right about words of the trainset, and about any word if its demos show all of `words`."""

    def script(body):
        asked = word(body)
        right = RIGHT[asked]
        knows = asked in {row.word for row in TRAIN} or set(words) <= set(shown(body))
        return {"kind": right if knows else wrong(right)}

    return script


def compiled(teleprompter, script, student=STUDENT, **arguments):
    """Compile, and return the program, its outcome, and the server that was asked."""
    arguments = {"trainset": TRAIN, **arguments}
    if teleprompter.uses_valset:
        arguments.setdefault("valset", VAL)
    with LoopbackLM(script) as server:
        client = {"model": "openai/x", "base_url": server.url, "api_key": "none", "retry": {"max_attempts": 1}}
        settings = {"clients": {"default": client | {"breaker": {"fail_max": 1000}}}, "cache": {"enabled": False}}
        with otpy.start(settings=settings):
            program = teleprompter.compile(student, **arguments)
        return program, server


def bodies(*servers):
    return Counter(json.dumps(body, sort_keys=True) for server in servers for body in server.requests)


class Cut(Exception):
    """What ends a run in the middle."""


def resumed(make, script, journal, after, **arguments):
    """Run to the end in one go; then again with a journal, cut after some candidates, and go on: all three facts.

    Args:
        make: Makes the teleprompter.
        script: The model.
        journal: A path.
        after: Candidates after which it is cut.

    Returns:
        The program of the undisturbed run, that of the run which was cut, and how often each request was sent there.
    """
    whole, _ = compiled(make(), script, **arguments)
    from otpy.teleprompters.lab import Lab

    telling, told = Lab.candidate, []

    async def candidate(self, name, scores, **params):
        told.append(name)
        if len(told) > after:
            raise Cut
        return await telling(self, name, scores, **params)

    servers = []

    def counted(body):
        servers.append(json.dumps(body, sort_keys=True))
        return script(body)

    Lab.candidate = candidate
    try:
        compiled(make(), counted, journal=journal, **arguments)
    except Cut:
        pass
    else:
        raise AssertionError("it was over before it was cut")
    finally:
        Lab.candidate = telling
    again, _ = compiled(make(), counted, journal=journal, **arguments)
    return whole, again, Counter(servers)

"""Whatever a user gets wrong is one line on stderr that names it, with status 1 or 2 and no traceback."""

from __future__ import annotations

import re

import pytest

MODULE = '''
from typing import Literal
from otpy.programs import Predict
from otpy.signatures import InputField, OutputField, Signature

class Triage(Signature):
    """Route the customer's mail."""
    query: str = InputField()
    intent: Literal["bill", "repair"] = OutputField()

program = Predict(Triage)
number = 7

def two(example, prediction):
    return True
'''
BANK = """
from otpy.programs import Predict, Program
from triage import Triage

class Bank(Program):
    triage: Predict = Predict(Triage)

    async def forward(self, query):
        return await self.triage.acall(query=query)

program = Bank()
"""
FILES = {
    "triage.py": MODULE,
    "broken.py": "x = 1\n1 / 0\n",
    "needs.py": "import a_module_that_is_not_there\n",
    "contract.py": "from otpy.signatures import Signature\nprogram = Signature('question')\n",
    "rows.jsonl": '{"query": "What do I owe?", "intent": "bill"}\n',
    "more.jsonl": '{"query": "What do I owe?", "intent": "bill"}\n' * 12,
    "labels.jsonl": '{"query": "a", "intent": "bill"}\n{"query": "b", "intent": "bil"}\n',
    "column.jsonl": '{"query": "a", "intent": "bill"}\n{"text": "b", "intent": "bill"}\n',
    "json.jsonl": '{"query": "a", "intent": "bill"}\n{"query": \n',
    "empty.jsonl": "",
    "ragged.csv": "query,intent\na,bill\nb,bill,extra\n",
    "rows.txt": "",
    "program.json": "{}",
}
OK = {
    "--program": "triage:program",
    "--data": "rows.jsonl",
    "--metric": "exact_match:intent",
    "--lm": "openai_compatible/m",
    "--base-url": "http://127.0.0.1:9/v1",
}

# What is typed differently, the status, and what the line must name.
MISTAKES = [
    ({"--data": "labels.jsonl"}, 1, ["labels.jsonl", "row 2", "'bil'", "bill", "repair"]),
    ({"--data": "column.jsonl"}, 1, ["column.jsonl", "row 2", "query"]),
    ({"--data": "json.jsonl"}, 1, ["json.jsonl", "row 2"]),
    ({"--data": "empty.jsonl"}, 1, ["empty.jsonl"]),
    ({"--data": "ragged.csv"}, 1, ["ragged.csv", "row 2"]),
    ({"--data": "rows.txt"}, 1, ["rows.txt", ".jsonl", ".csv"]),
    ({"--data": "none.jsonl"}, 1, ["none.jsonl"]),
    ({"--program": "question ->"}, 2, ["question ->"]),
    ({"--program": "-> answer"}, 2, ["-> answer"]),
    ({"--program": "question: strr -> answer"}, 2, ["strr"]),
    ({"--program": "contract:program"}, 2, ["--program", "contract"]),
    ({"--program": "nowhere:program"}, 2, ["--program", "nowhere"]),
    ({"--program": "triage:programm"}, 2, ["--program", "programm", "program"]),
    ({"--program": "triage:number"}, 2, ["--program", "triage:number", "int"]),
    ({"--program": "triage"}, 2, ["--program", "triage", "module:attr"]),
    ({"--program": "broken:program"}, 2, ["--program", "broken", "ZeroDivisionError"]),
    ({"--program": "needs:program"}, 2, ["--program", "needs", "a_module_that_is_not_there"]),
    ({"--program": "missing.json"}, 2, ["--program", "missing.json"]),
    ({"--program": "program.json"}, 2, ["program.json"]),
    ({"--metric": "exact"}, 2, ["--metric", "exact", "exact_match", "f1"]),
    ({"--metric": "exact_match"}, 2, ["--metric", "exact_match:intent"]),
    ({"--metric": "exact_match:intend"}, 2, ["--metric", "intend", "intent"]),
    ({"--metric": "triage:number"}, 2, ["--metric", "triage:number"]),
    ({"--metric": "triage:two"}, 2, ["two", "trace"]),
    ({"--lm": "local/no-such-model", "--base-url": None}, 2, ["no-such-model", "smollm2-135m"]),
    ({"--lm": "nobody/m", "--base-url": None}, 2, ["nobody"]),
    ({"--lm": "gpt", "--base-url": None}, 2, ["gpt", "provider/model"]),
    ({"--lm": "openai/gpt-x", "--base-url": None}, 2, ["OPENAI_API_KEY"]),
    ({"--base-url": "nonsense"}, 2, ["nonsense"]),
    ({"--max-concurrency": "0"}, 2, ["--max-concurrency", "0"]),
    ({"--max-concurrency": "many"}, 2, ["--max-concurrency", "many"]),
    ({"--limit": "0"}, 2, ["--limit", "0"]),
    ({"--out": "no/such/results.jsonl"}, 2, ["--out", "no/such"]),
    ({"--out": "."}, 2, ["--out", "directory"]),
    ({"--base-url": "http://127.0.0.1:9/v1"}, 1, ["127.0.0.1:9"]),
]


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize(("changed", "status", "named"), MISTAKES, ids=lambda value: str(value)[:60])
def test_a_mistake_is_one_line_that_names_it(here, write, changed, status, named):
    for name, text in FILES.items():
        write(name, text)
    options = [part for pair in (OK | changed).items() if pair[1] is not None for part in pair]
    assert_one_line(here("eval", *options), status, named)


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize(
    ("arguments", "status", "named"),
    [
        (["models", "pull", "no-such-model"], 2, ["no-such-model", "smollm2-135m"]),
        (["models", "path", "no-such-model"], 2, ["no-such-model", "smollm2-135m"]),
        (["models", "path", "smollm2-135m"], 1, ["smollm2-135m", "otpy models pull"]),
        (["models", "remove", "smollm2-135m"], 1, ["smollm2-135m"]),
        (["evil"], 2, ["evil"]),
        (["eval", "--data", "rows.jsonl"], 2, ["--program"]),
        (["eval", "--progam", "x"], 2, ["--progam"]),
        (["demo", "--lm", "local/no-such-model"], 2, ["no-such-model", "smollm2-135m"]),
        (["demo", "--out", "no/such/program.json"], 2, ["--out", "no/such"]),
        (["demo", "--seed", "x"], 2, ["--seed", "x"]),
        (["optimize", *[p for o in OK.items() for p in o], "--optimizer", "magic"], 2, ["magic", "bootstrap"]),
        (["optimize", *[p for o in OK.items() for p in o], "--max-demos", "0"], 2, ["--max-demos", "0"]),
        (["optimize", *[p for o in OK.items() for p in o], "--dev", "none.jsonl"], 1, ["none.jsonl"]),
        (["optimize", *[p for o in (OK | {"--data": "more.jsonl"}).items() for p in o]], 1, ["127.0.0.1:9"]),
    ],
    ids=lambda value: " ".join(map(str, value))[:60] if isinstance(value, list) else str(value),
)
def test_a_mistake_in_any_command_is_one_line_that_names_it(here, write, arguments, status, named):
    for name, text in FILES.items():
        write(name, text)
    assert_one_line(here(*arguments), status, named)


def test_a_file_that_needs_code_is_loaded_over_the_program_it_was_made_from(here, write):
    write("triage.py", MODULE)
    write("bank.py", BANK)
    write("rows.jsonl", FILES["rows.jsonl"])
    write("save.py", "import bank\nbank.program.save('rs.json')\n")
    assert "has no 'program'" in here("eval", "--program", "save:program", "--data", "x", "--metric", "f1:x").err
    ran = here("eval", "--program", "rs.json", "--data", "rows.jsonl", "--metric", "exact_match:intent")
    assert ran.status == 2
    assert "rs.json: a Bank needs its class" in ran.err
    assert "name the program that it was made from, and --load rs.json" in ran.err
    assert "load_program(" not in ran.err
    over = ("--program", "bank:program", "--load", "rs.json")
    same = here("eval", *over, "--data", "none.jsonl", "--metric", "f1:intent")
    assert "none.jsonl" in same.err
    taught = ("--program", "bank:program", "--data", "rows.jsonl", "--metric", "f1:intent", "--teacher", "rs.json")
    assert "name a program of a module, as module:attribute" in here("optimize", *taught).err


def test_a_process_of_its_own_says_the_same(otpy, write):
    write("triage.py", MODULE)
    options = [part for pair in (OK | {"--data": "none.jsonl"}).items() for part in pair]
    assert_one_line(otpy("eval", *options), 1, ["none.jsonl"])


def test_debugging_shows_the_traceback(otpy, write):
    write("broken.py", FILES["broken.py"])
    options = [part for pair in (OK | {"--program": "broken:program"}).items() for part in pair]
    ran = otpy("eval", *options, OTPY_DEBUG="1")
    assert ran.status == 1
    assert "Traceback" in ran.err
    assert "ZeroDivisionError" in ran.err


def test_a_key_never_appears(here, write, at_once):
    for name, text in FILES.items():
        write(name, text)
    secret = "sk-very-secret"
    options = [part for pair in OK.items() for part in pair]
    at_once(OTPY_CLIENTS__DEFAULT__API_KEY=secret, OTPY_CLIENTS__DEFAULT__MODEL="openai/m")
    ran = here("eval", *options)
    assert secret not in ran.out + ran.err


@pytest.fixture
def at_once(here, monkeypatch):
    """Have a server that is not there asked once; `here` has cleared the environment before."""

    def variables(**named):
        for name, value in {"OTPY_CLIENTS__DEFAULT__RETRY__MAX_ATTEMPTS": "1", **named}.items():
            monkeypatch.setenv(name, value)

    variables()
    return variables


def assert_one_line(ran, status, named):
    assert "Traceback" not in ran.err, ran.err
    lines = [line for line in ran.err.splitlines() if line.strip()]
    assert len(lines) == 1, ran.err
    assert [word for word in named if not re.search(re.escape(word), lines[0])] == [], lines[0]
    assert ran.status == status, lines[0]

"""A saved program is JSON by name, verified by its hash, written whole or not at all, and never a pickle."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import os
import re
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from typing import Any, Literal

import pydantic
import pytest

from otpy.adapters import ChatAdapter, JSONAdapter
from otpy.errors import ProgramError, SignatureError
from otpy.programs import BestOfN, ChainOfThought, MultiChainComparison, Predict, Program
from otpy.programs.difference import diff
from otpy.programs.files import content_hash
from otpy.programs.lineage import Lineage, descended, lineage_of
from otpy.programs.saving import load, load_program, save
from otpy.signatures import InputField, OutputField, Signature

OLD = Path(__file__).parent / "saved"
"""Files that earlier versions wrote."""


class Triage(Signature):
    """Classify the query."""

    query: str = InputField(desc="what the customer wrote")
    intent: Literal["card", "pin"] = OutputField()
    stars: int = OutputField(ge=1, le=5)


class Two(Program):
    ask: Predict = Predict("question -> query, day: date")
    answer: ChainOfThought = ChainOfThought(Triage)

    async def forward(self, question: str) -> Any:
        return await self.answer.acall(query=question)


LEARNED = (
    Two()
    .with_demos(
        {
            "ask": [{"question": "é\u2028\x00?", "query": "q", "day": dt.date(2026, 1, 2)}],
            "answer.predict": [{"query": "q", "reasoning": "r", "intent": "pin", "stars": 3}],
        }
    )
    .with_instructions({"ask": "Ask."})
    .with_config(temperature=0.3, max_tokens=9, max_reasks=2, rollout=1, adapter=ChatAdapter())
    .with_client("small")
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "program.json"


def edited(path: Path, change: Any, *, rehash: bool = False) -> None:
    state = json.loads(path.read_text())
    change(state)
    if rehash:
        state["hash"] = content_hash(state)
    path.write_text(json.dumps(state))


def test_what_is_saved_is_loaded_as_an_equal_program(path):
    save(LEARNED, path)
    for loaded in (load(Two(), path), load(Two, path), Two().load(str(path))):
        assert loaded == LEARNED
        assert loaded.content_hash() == LEARNED.content_hash()
    assert Two().ask.demos == ()


@pytest.mark.parametrize(
    "program",
    [
        Predict("question -> answer"),
        Predict(Triage, demos=[{"query": "q", "intent": "pin", "stars": 3}], temperature=0.5),
        ChainOfThought("q: list[str] -> a: dict[str, int | None], b: tuple[int, ...], c: datetime"),
        ChainOfThought(Triage).with_instructions("Think."),
        Predict(Signature("a -> b", "Do.", name="Named")),
    ],
    ids=repr,
)
def test_a_program_over_plain_types_is_loaded_without_any_code(path, program):
    program.save(path)
    loaded = load_program(path)
    assert loaded == program
    assert loaded.content_hash() == program.content_hash()


def test_the_file_is_readable_and_says_what_it_is(path):
    LEARNED.save(path)
    state = json.loads(path.read_text())
    assert (state["format"], state["program"]) == (2, "Two")
    assert state["otpy"]
    assert state["hash"] == LEARNED.content_hash()
    ask = state["predictors"]["ask"]
    assert ask["signature"]["fields"][2] == {
        "name": "day", "side": "output", "type": "date", "desc": "", "constraints": {},
    }  # fmt: skip
    assert ask["demos"][0]["day"] == "2026-01-02"
    assert (ask["client"], ask["adapter"]) == ("small", "chat")
    assert ask["config"] == {"temperature": 0.3, "max_tokens": 9, "max_reasks": 2, "rollout": 1}


def test_equal_programs_make_equal_files(path, tmp_path):
    LEARNED.save(path)
    load(Two(), path).save(tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == path.read_bytes()


def test_a_file_that_was_edited_is_refused_unless_that_is_meant(path):
    LEARNED.save(path)
    edited(path, lambda state: state["predictors"]["ask"]["signature"].update(instructions="Ask kindly."))
    with pytest.raises(ProgramError, match=r"program\.json.*verify=False"):
        load(Two(), path)
    assert load(Two(), path, verify=False).ask.signature.instructions == "Ask kindly."


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda s: s["predictors"].pop("ask"), "the file has answer.predict; the program has ask, answer.predict"),
        (lambda s: s.update(program="Three"), "holds a Three, not a Two"),
        (
            lambda s: s["predictors"]["ask"].update(adapter="yaml"),
            "unknown adapter 'yaml'; known: json, chat, xml, ",
        ),
        (lambda s: s["predictors"]["ask"]["config"].update(heat=1), "ask: not a saved predictor"),
        (lambda s: s["predictors"]["ask"]["config"].update(max_reasks=-1), "max_reasks=-1"),
        (lambda s: s["predictors"]["ask"].pop("client"), "ask: not a saved predictor: KeyError('client')"),
        (lambda s: s["predictors"].update(ask=[]), "ask: not a saved predictor"),
        (
            lambda s: s["predictors"]["ask"]["signature"]["fields"][2].update(type="str"),
            "the fields differ: day: output str in the file, output date in the program",
        ),
        (
            lambda s: s["predictors"]["ask"]["signature"]["fields"][0].update(name="query2"),
            "question: absent in the file, input str in the program; query2: input str in the file, absent",
        ),
        (
            lambda s: s["predictors"]["answer.predict"]["signature"]["fields"][3].update(constraints={"le": 9}),
            "stars: output int (le=9) in the file, output int (ge=1, le=5) in the program",
        ),
    ],
)
def test_a_file_of_another_structure_is_refused_and_says_what_differs(path, change, said):
    LEARNED.save(path)
    edited(path, change, rehash=True)
    with pytest.raises(ProgramError) as raised:
        load(Two(), path)
    assert said in str(raised.value)


def test_fields_are_matched_by_name_not_by_position(path):
    one = Predict(
        Signature("a, b -> c").with_updated_field("a", desc="the first").with_updated_field("b", desc="the second")
    )
    one.save(path)
    loaded = load(Predict("b, a -> c"), path)
    assert {name: field.desc for name, field in loaded.signature.input_fields.items()} == {
        "a": "the first",
        "b": "the second",
    }


def test_a_demo_that_no_longer_fits_is_refused(path):
    LEARNED.save(path)
    edited(path, lambda s: s["predictors"]["answer.predict"]["demos"][0].update(intent="cash"), rehash=True)
    with pytest.raises(SignatureError, match="'card' or 'pin', not 'cash'"):
        load(Two(), path)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", "null", '{"format": 1}', '{"format": 1, "predictors": []}', "\0"]
)
def test_a_file_that_is_no_saved_program_is_refused(path, text):
    path.write_text(text)
    for attempt in (lambda: load(Two(), path), lambda: load_program(path), lambda: load_program(path, verify=False)):
        with pytest.raises(ProgramError, match=r"program\.json: not a saved program"):
            attempt()


def test_a_file_of_another_format_is_refused(path):
    LEARNED.save(path)
    edited(path, lambda state: state.update(format=3, otpy="9.9"))
    newer = r"format 3, which otpy 9\.9 wrote; this version of otpy \(.*\) reads the formats 1, 2; a newer one reads it"
    for attempt in (lambda: load(Two(), path), lambda: load(Two(), path, verify=False), lambda: load_program(path)):
        with pytest.raises(ProgramError, match=newer):
            attempt()
    edited(path, lambda state: state.update(format=0))
    with pytest.raises(ProgramError, match=r"format 0; this version of otpy \(.*\) reads the formats 1, 2$"):
        load(Two(), path)


def test_a_file_that_needs_code_says_which(path):
    LEARNED.save(path)
    with pytest.raises(
        ProgramError, match=r"a Two needs its class, which no file may choose: load_program\(path, classes=\[Two\]\)"
    ):
        load_program(path)

    class Point(pydantic.BaseModel):
        x: int

    program = Predict(Signature("q -> where: Point", types={"Point": Point}), demos=[{"q": "a", "where": Point(x=1)}])
    program.save(path)
    with pytest.raises(ProgramError, match="'where' has the type Point, which only your code knows"):
        load_program(path)
    assert load(Predict(program.signature), path) == program


def test_what_cannot_be_read_or_written_is_named(tmp_path):
    with pytest.raises(ProgramError, match=r"nowhere\.json: cannot be read: No such file"):
        load_program(tmp_path / "nowhere.json")
    with pytest.raises(ProgramError, match="cannot be written: No such file"):
        LEARNED.save(tmp_path / "no" / "program.json")
    with pytest.raises(ProgramError, match="cannot be written"):
        LEARNED.save(tmp_path)
    with pytest.raises(ProgramError, match="load\\(MyProgram"):
        load("program.json", tmp_path / "x")  # type: ignore[type-var]
    with pytest.raises(ProgramError, match="Predict needs arguments"):
        load(Predict, tmp_path / "x")
    assert list(tmp_path.iterdir()) == []


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(path, monkeypatch):
    LEARNED.save(path)
    before = path.read_bytes()

    def full(_fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ProgramError, match="No space left"):
        Two().save(path)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_two_writers_leave_one_whole_file(path):
    programs = [LEARNED.with_config(rollout=number) for number in range(8)]
    threads = [threading.Thread(target=save, args=(program, path)) for program in programs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert load(Two(), path) in programs
    assert list(path.parent.iterdir()) == [path]


def test_an_adapter_of_the_users_own_is_kept_if_the_program_has_it(path):
    class Shouting(JSONAdapter):
        @property
        def name(self) -> str:
            return "shouting"

    program = Predict("q -> a", adapter=Shouting())
    program.save(path)
    assert load(program, path) == program
    with pytest.raises(ProgramError, match="unknown adapter 'shouting'; known: json, chat, xml, "):
        load_program(path)


# -- older files ----------------------------------------------------------------------------------------------------


def test_a_file_of_format_1_is_read_into_a_program():
    program = load(Two(), OLD / "format_1_two.json")
    assert program == LEARNED
    assert lineage_of(program) is None


def test_a_file_of_format_1_is_read_without_any_code():
    program = load_program(OLD / "format_1_chain_of_thought.json")
    demos = [{"question": "2 + 2?", "reasoning": "two and two", "answer": 4}]
    assert program == ChainOfThought("question -> answer: int", demos=demos)


def test_a_file_of_format_1_of_a_composition_asks_for_its_class():
    with pytest.raises(ProgramError, match="a Two needs its class"):
        load_program(OLD / "format_1_two.json", classes=[Two])


# -- keys -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda s: s.update(notes="mine"), "unknown key 'notes'; a file of format 2 has format, hash, lineage"),
        (lambda s: s["predictors"]["ask"].update(model="x"), "ask: unknown key 'model'; known: signature, demos"),
        (lambda s: s.update(lineage={"optimizer": "me"}), "lineage: {'optimizer': 'me'}; it has the keys data"),
        (lambda s: s.update(lineage={**MADE.dump_state(), "by": "me"}), "lineage: "),
        (lambda s: s.update(lineage={**MADE.dump_state(), "seed": "7"}), "lineage: "),
        (lambda s: s.pop("tree"), "its tree is not in order: KeyError('tree')"),
        (lambda s: s["tree"].update(parts=3), "its tree is not in order"),
        (lambda s: s["tree"].pop("class"), "not a saved program"),
    ],
)
def test_what_is_not_known_in_a_file_is_refused(path, change, said):
    save(LEARNED, path)
    edited(path, change)
    edited(path, lambda state: state.setdefault("hash", ""))
    with pytest.raises(ProgramError) as raised:
        load(Two(), path, verify=False)
    assert said in str(raised.value)


def test_a_file_whose_tree_was_edited_is_refused(path):
    save(Trying(), path)
    edited(path, lambda state: state["tree"]["parts"]["tries"].update(value=99))
    with pytest.raises(ProgramError, match="does not match its hash"):
        load(Trying(), path)
    assert load(Trying(), path, verify=False).tries == 99


# -- values of compositions -------------------------------------------------------------------------------------------


class Trying(Program):
    ask: Predict = Predict("question -> answer")
    tries: int = 3
    share: float = 0.5
    stop: str | None = None
    words: Any = ("a", ("b", None))
    table: Any = None

    async def forward(self, question: str) -> Any:
        return await self.ask.acall(question=question)


class Outer(Program):
    def __init__(self, *steps: Program, check: Any = len) -> None:
        self.steps = list(steps)
        self.named = {"first": Trying(tries=1), 7: Predict("a -> b")}
        self.check = check

    async def forward(self, question: str) -> Any:
        return await self.steps[0].acall(question=question)


CHANGED = Trying(tries=9, share=1.0, stop="\u00e9\ud800", words=[1, [True]], table={"k": [1.5, {"x": None}]})


def test_attributes_that_are_plain_json_are_saved_and_loaded(path):
    save(CHANGED, path)
    loaded = load(Trying(), path)
    assert loaded == CHANGED
    assert (loaded.tries, loaded.words, dict(loaded.table)["k"][0]) == (9, (1, (True,)), 1.5)
    assert loaded.content_hash() != Trying().content_hash()


def test_programs_in_lists_and_dictionaries_keep_theirs_and_code_stays_the_programs_own(path):
    save(Outer(Trying(tries=2), CHANGED), path)
    loaded = load(Outer(Trying(), Trying(), check=max), path)
    assert loaded.steps == (Trying(tries=2), CHANGED)
    assert loaded.check is max
    save(Outer(check=None), path)
    assert load(Outer(check=max), path).check is max


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda p: p["tries"].update(value="many"), "tries is 3 in the program; the file has 'many'"),
        (lambda p: p["tries"].update(value=True), "tries is 3 in the program; the file has True"),
        (lambda p: p["tries"].update(value=2.5), "tries is 3 in the program; the file has 2.5"),
        (lambda p: p["words"].update(value={}), "words is ('a', ('b', None)) in the program; the file has {}"),
        (lambda p: p.update(limit={"value": 3}), "limit is in the file, and Trying has no such attribute; it has ask"),
        (lambda p: p.update(ask={"value": 3}), "ask is a Predict in the program; the file has 3"),
        (lambda p: p["ask"].update({"class": "m:Guess"}), "ask is a Predict in the program; the file has a Guess"),
        (lambda p: p.update(tries={"class": "m:Guess"}), "tries is 3 in the program; the file has a Guess"),
        (lambda p: p.update(tries={"list": [{"value": 1}]}), "tries is 3 in the program; the file has 1 items"),
        (lambda p: p.update(tries={"what": 1}), "tries is {'what': 1}"),
    ],
)
def test_a_value_that_does_not_fit_the_program_is_refused(path, change, said):
    save(Trying(), path)
    edited(path, lambda state: change(state["tree"]["parts"]), rehash=True)
    with pytest.raises(ProgramError) as raised:
        load(Trying(), path)
    assert said in str(raised.value)


def test_another_number_of_steps_or_other_keys_are_refused(path):
    save(Outer(Trying(), Trying()), path)
    with pytest.raises(ProgramError, match="predictors differ"):
        load(Outer(Trying()), path)
    edited(path, lambda state: state["tree"]["parts"]["steps"]["list"].pop(), rehash=True)
    with pytest.raises(ProgramError, match="steps is a tuple in the program; the file has 1 items"):
        load(Outer(Trying(), Trying()), path)
    edited(path, lambda state: state["tree"]["parts"].pop("steps"), rehash=True)
    edited(path, lambda state: state["tree"]["parts"]["named"]["dict"].pop(), rehash=True)
    with pytest.raises(
        ProgramError, match=r"named is a mappingproxy in the program; the file has the keys \['first'\]"
    ):
        load(Outer(Trying(), Trying()), path)


def test_an_attribute_that_is_newer_than_the_file_keeps_its_value(path):
    save(CHANGED, path)
    edited(path, lambda state: state["tree"]["parts"].pop("tries"), rehash=True)
    assert load(Trying(tries=5), path).tries == 5


def test_the_hash_is_that_of_the_content_wherever_a_class_is_defined(path):
    save(Trying(), path)
    before = json.loads(path.read_text())
    edited(path, lambda state: state["tree"].update({"class": "__main__:Trying"}))
    assert content_hash(json.loads(path.read_text())) == before["hash"]
    assert load(Trying(), path) == Trying()


# -- without a program to fill ----------------------------------------------------------------------------------------


class Point(pydantic.BaseModel):
    x: int


def test_a_composition_is_built_from_the_file_if_its_classes_are_given(path):
    outer = Two(answer=ChainOfThought(Signature("query -> where: list[Point]", types={"Point": Point})))
    save(outer, path)
    assert load_program(path, classes=[Two, Point]) == outer
    with pytest.raises(ProgramError, match=re.escape("load_program(path, classes=[list[Point]]) or load(")):
        load_program(path, classes=[Two])


def test_values_lists_and_dictionaries_are_built_too(path):
    outer = Outer(Trying(tries=2), CHANGED).replace(check=None)
    save(outer, path)
    assert load_program(path, classes=[Outer, Trying]) == outer


def test_what_is_code_cannot_be_built(path):
    save(Outer(Trying()), path)
    with pytest.raises(ProgramError, match=r"check is code \(of type builtin_function_or_method\)"):
        load_program(path, classes=[Outer, Trying])


@pytest.mark.parametrize(
    "named", ["os:system", "subprocess:Popen", "otpy.programs.program:ProgramMeta", "otpy.programs.files:Path",
              "otpy.application.app:Application", "otpy.programs.predict.Predict:x", "tests:Two", "", ":"],
)  # fmt: skip
def test_a_file_cannot_choose_what_is_imported_or_made(path, named):
    save(Predict("a -> b"), path)
    edited(path, lambda state: state["tree"].update({"class": named}), rehash=True)
    modules = set(sys.modules)
    with pytest.raises(ProgramError, match="needs its class, which no file may choose"):
        load_program(path)
    assert set(sys.modules) == modules


def test_a_part_that_the_class_needs_must_be_in_the_file(path):
    save(Two(), path)
    edited(path, lambda state: state["tree"]["parts"].pop("ask"), rehash=True)
    with pytest.raises(ProgramError, match="Two needs 'ask', which is not in the file"):
        load_program(path, classes=[Two])


# -- lineage ----------------------------------------------------------------------------------------------------------


MADE = Lineage("BootstrapFewShot", parent="p" * 32, data="d" * 32, seed=7, time="2026-01-02T03:04:05+00:00")


def test_who_made_a_program_is_saved_loaded_and_saved_again(path, tmp_path):
    save(descended(LEARNED, MADE), path)
    loaded = load(Two(), path)
    assert lineage_of(loaded) == lineage_of(load_program(path, classes=[Two])) == MADE
    assert loaded == LEARNED
    save(loaded, tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == path.read_bytes()


def test_a_changed_copy_no_longer_says_that_an_optimizer_made_it(path):
    save(descended(LEARNED, MADE).with_client("other"), path)
    assert json.loads(path.read_text())["lineage"] is None
    save(LEARNED, path, lineage=MADE)
    assert json.loads(path.read_text())["lineage"] == MADE.dump_state()


def test_a_lineage_knows_its_time_and_version_by_itself():
    made = Lineage("me")
    assert abs(dt.datetime.fromisoformat(made.time) - dt.datetime.now(dt.UTC)) < dt.timedelta(minutes=1)
    assert made.otpy
    assert (made.parent, made.data, made.seed) == (None, None, None)


# -- the disk ---------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and signals")
@pytest.mark.parametrize("at", ["fsync", "replace"])
def test_kill_9_in_the_middle_of_a_write_leaves_the_old_file(path, at):
    save(LEARNED, path)
    before = path.read_bytes()
    code = f"""
        import os, pathlib, signal
        from otpy.programs import Predict
        from otpy.programs.saving import save
        def die(*_): os.kill(os.getpid(), signal.SIGKILL)
        if {at!r} == "fsync": os.fsync = die
        else: pathlib.Path.replace = die
        save(Predict("a -> b"), {str(path)!r})
    """
    killed = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=False, timeout=60)
    assert killed.returncode == -9
    assert path.read_bytes() == before
    assert load(Two(), path) == LEARNED


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit on the size of files")
def test_a_full_disk_leaves_the_old_file_and_nothing_else(path):
    save(Two(), path)
    before = path.read_bytes()
    code = f"""
        import resource, signal
        from otpy.errors import ProgramError
        from otpy.programs import Predict
        from otpy.programs.saving import save
        program = Predict("a -> b", demos=[{{"a": "x" * 100_000, "b": "y"}}])
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
        try:
            save(program, {str(path)!r})
        except ProgramError as error:
            print(error)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], check=True, timeout=60, capture_output=True, text=True
    )
    assert "cannot be written: File too large" in done.stdout
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


# -- what hurts in DSPy -----------------------------------------------------------------------------------------------


def test_the_parameters_of_a_predictor_are_in_the_file(path):
    """There, `Predict(..., temperature=0.3)` is saved without its temperature."""
    save(Predict("a -> b", temperature=0.3, max_tokens=50), path)
    loaded = load(Predict("a -> b"), path)
    assert (loaded.temperature, loaded.max_tokens) == (0.3, 50)


def test_a_load_that_fails_changes_nothing(path):
    """There, it once left the module half changed (issue 9589)."""
    save(LEARNED, path)
    edited(path, lambda state: state["predictors"]["answer.predict"]["demos"][0].update(stars=9), rehash=True)
    program = Two()
    with pytest.raises(SignatureError):
        load(program, path)
    assert program == Two()


def test_a_file_is_loaded_in_another_folder_without_the_code_that_made_it(path, tmp_path):
    """There, a whole program is a pickle that needs the module it was made in (issue 8279)."""
    save(ChainOfThought("question -> answer: int", demos=[{"question": "q", "reasoning": "r", "answer": 4}]), path)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    code = f"from otpy.programs.saving import load_program; print(load_program({str(path)!r}).predict.demos[0].answer)"
    where = {**os.environ, "PYTHONPATH": str(Path(content_hash.__code__.co_filename).resolve().parents[2])}
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, timeout=60, capture_output=True, text=True, cwd=elsewhere, env=where
    )
    assert done.stdout.strip() == "4"


def test_urls_and_models_in_demos_are_saved_and_come_back_as_what_they_were(path):
    """There, a `HttpUrl` cannot be saved (issue 8595), and a model comes back as a dictionary."""

    class Page(pydantic.BaseModel):
        address: pydantic.HttpUrl

    signature = Signature("url: HttpUrl -> page: Page", types={"HttpUrl": pydantic.HttpUrl, "Page": Page})
    demo = {"url": "https://example.org/a", "page": Page(address=pydantic.HttpUrl("https://example.org/"))}
    program = Predict(signature, demos=[demo])
    save(program, path)
    for loaded in (load(Predict(signature), path), load_program(path, classes=[pydantic.HttpUrl, Page])):
        assert loaded == program
        assert isinstance(loaded.named_predictors()[0][1].demos[0].page, Page)


# -- files that were made to harm -----------------------------------------------------------------------------------

ODD = (None, True, -1, 10**30, "x", "otpy.programs.nope:Foo", [], [1], [[["a"]]], {}, {"value": 1}, {"list": [1]},
       {"dict": [[[], {"value": 1}]]}, {"signature": {}}, {"class": 5}, {"a": {"b": 1}})  # fmt: skip


def places(node, path=()):
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, inner in items:
        yield (*path, key)
        yield from places(inner, (*path, key))


def put(content, path, value):
    copy = json.loads(json.dumps(content))
    node = copy
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = value
    return copy


def test_whatever_stands_in_a_file_it_is_a_program_or_a_program_error(path):
    program = ChainOfThought("q, n: int -> answer: list[str]").with_config(adapter=ChatAdapter(), temperature=0.5)
    program = program.with_demos([{"q": "a", "n": 1, "reasoning": "r", "answer": ["x"]}])
    save(program, path)
    whole = json.loads(path.read_text())
    forged = [put(whole, at, value) for at in places(whole) if at[0] != "hash" for value in ODD]
    for number, state in enumerate(forged):
        if number % 3:  # a third of them is enough, and every place is among them
            continue
        with contextlib.suppress(Exception):
            state["hash"] = content_hash(state)
        path.write_text(json.dumps(state))
        for use in (load_program, lambda file: load(program, file), lambda file: diff(file, program)):
            with contextlib.suppress(ProgramError, SignatureError):
                use(path)


@pytest.mark.parametrize("name", ["forward", "acall", "content_hash", "named_predictors", "__class__", "_memo", "a b"])
def test_no_part_of_a_file_hides_what_a_program_works_by(path, name):
    save(ChainOfThought("question -> answer"), path)
    edited(path, lambda state: state["tree"]["parts"].update({name: {"value": 1}}), rehash=True)
    with pytest.raises(ProgramError, match=f"a part '{name}' would hide that of the class"):
        load_program(path)


@pytest.mark.parametrize("depth", [150, 400, 5_000])
def test_a_file_that_is_nested_too_deeply_is_refused(path, depth):
    save(ChainOfThought("question -> answer"), path)
    text = path.read_text().replace('"parts": {', '"parts": {"deep": ' + '{"list":[' * depth + "]}" * depth + ",")
    path.write_text(text)
    for use in (
        load_program,
        lambda file: load(ChainOfThought("question -> answer"), file),
        lambda file: diff(file, file),
    ):
        with pytest.raises(ProgramError, match=r"nested more than 200 deep|recursion"):
            use(path)


def test_a_program_that_could_not_be_read_again_is_not_written(path):
    deep: Any = 1
    for _ in range(250):
        deep = [deep]

    class Deep(Program):
        value: Any = deep

    with pytest.raises(ProgramError, match="nested more than 200 deep"):
        save(Deep(), path)
    assert not path.exists()


def test_the_constructors_of_our_programs_check_what_a_file_says(path):
    program = MultiChainComparison("question -> answer")
    save(program, path)
    edited(path, lambda state: state["tree"]["parts"]["m"].update(value=-5), rehash=True)
    for use in (load_program, lambda file: load(program, file)):
        with pytest.raises(ProgramError, match="m=-5; allowed: an integer >= 2"):
            use(path)
    best = BestOfN(program, n=3, reward_fn=len)
    save(best, path)
    assert load(best, path) == best
    edited(path, lambda state: state["tree"]["parts"]["n"].update(value=0), rehash=True)
    with pytest.raises(ProgramError, match="n=0; allowed: an integer >= 1"):
        load(best, path)

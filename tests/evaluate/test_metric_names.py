"""Metrics that differ have names that differ; those that are alike have the same in every process."""

import dataclasses
import os
import re
import subprocess
import sys
import threading
from decimal import Decimal
from enum import Enum
from functools import partial
from pathlib import Path

import pytest

import otpy
from otpy.errors import TeleprompterError
from otpy.evaluate import metric_name
from otpy.teleprompters import BootstrapFewShot, LabeledFewShot
from otpy.teleprompters.header import header_of
from otpy.teleprompters.run_journal import RunJournal

STRICT, KIND = True, False


class Graded:
    def __init__(self, **held):
        self.__dict__ |= held

    def __call__(self, example, prediction, trace=None):
        return 1.0

    def score(self, example, prediction, trace=None):
        return 1.0


class Level(Enum):
    STRICT = 1
    KIND = 2


@dataclasses.dataclass
class Config:
    strict: bool
    calls: int = dataclasses.field(default=0, compare=False)

    def __call__(self, example, prediction, trace=None):
        return 1.0


class Slotted:
    __slots__ = ("strict",)

    def __init__(self, strict):
        self.strict = strict

    def __call__(self, example, prediction, trace=None):
        return 1.0


def closure(strict):
    def metric(example, prediction, trace=None):
        return strict

    return metric


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda strict: Graded(strict=strict), r"Graded\(strict=True\)"),
        (lambda strict: Graded(strict=strict).score, r"Graded\(strict=True\)\.score"),
        (lambda strict: partial(Graded(strict=strict)), r"partial\(Graded\(strict=True\)\)"),
        (Config, r"Config\(strict=True\)"),
        (Slotted, r"Slotted\(strict=True\)"),
        (closure, r"metric\(strict=True\)"),
        (lambda strict: Graded(config=Config(strict)), r"Graded\(config=Config\(strict=True\)\)"),
        (lambda strict: Graded(level=Level.STRICT if strict else Level.KIND), r"Graded\(level=<Level.STRICT: 1>\)"),
        (lambda strict: Graded(level=Decimal(int(strict))), r"Graded\(level=Decimal\('1'\)\)"),
        (lambda strict: Graded(where=Path("a" if strict else "b")), r"Graded\(where=PosixPath\('a'\)\)"),
        (lambda strict: Graded(word=re.compile("a" if strict else "b")), r"Graded\(word=re.compile\('a'\)\)"),
        (lambda strict: Graded(inner=Graded(strict=strict).score), r"Graded\(inner=Graded\(strict=True\)\.score\)"),
        (lambda strict: closure(closure(strict)), r"metric\(strict=metric\(strict=True\)\)"),
        (lambda strict: closure(("a", strict)), r"metric\(strict=tuple-[0-9a-f]{8}\)"),
        (
            lambda strict: Graded(judge=otpy.Predict("question -> answer" if strict else "question -> verdict")),
            r"Graded\(judge=Predict-[0-9a-f]{8}\)",
        ),
        (lambda strict: Graded(**{f"word{n}": f"{strict} {n}" for n in range(20)}), r"Graded-[0-9a-f]{8}"),
    ],
)
def test_what_a_metric_holds_tells_it_from_others(make, name):
    assert re.fullmatch(name, metric_name(make(STRICT)))
    assert metric_name(make(STRICT)) == metric_name(make(STRICT))
    assert metric_name(make(STRICT)) != metric_name(make(KIND))


def test_what_holds_nothing_is_called_as_it_always_was():
    def plain(example, prediction, trace=None, within=None): ...

    def named(example, prediction, trace=None):
        return calls

    calls, named.__name__ = 1, "mine"
    assert [metric_name(one) for one in (Graded(), plain, named, closure, Graded)] == [
        "Graded",
        "plain",
        "mine",
        "closure",
        "Graded",
    ]
    assert metric_name(Graded(__name__="judge", strict=True)) == "judge"


def test_what_may_change_and_what_is_no_data_is_not_told():
    lock = threading.Lock()
    metrics = Graded(lock=lock, strict=True, seen=[1], known={}, _calls=3, none=None), closure(lock), closure([lock])
    assert [metric_name(metric) for metric in metrics] == ["Graded(strict=True)", "metric", "metric"]


def test_a_metric_that_holds_itself_has_a_name():
    one = Graded(strict=True)
    one.me, one.mine = one, (one.score,)
    assert metric_name(one).startswith("Graded(")
    assert "0x" not in metric_name(one)


def test_a_texts_that_may_be_a_secret_is_not_shown():
    assert "sk-1" not in metric_name(Graded(api_key="sk-1"))
    assert metric_name(Graded(api_key="sk-1")) != metric_name(Graded(api_key="sk-2"))
    assert metric_name(Graded(field="kind")) == "Graded(field='kind')"


def test_a_metric_that_counts_while_it_measures_keeps_its_name():
    class Counting:
        def __init__(self, strict):
            self.strict, self.calls = strict, 0

        def __call__(self, example, prediction, trace=None):
            self.calls += 1
            return 1.0

    metric = Counting(STRICT)
    before = metric_name(metric)
    metric("a", "b")
    assert metric_name(metric) == before == "Counting(calls=0, strict=True)" == metric_name(Counting(STRICT))


def test_names_are_the_same_in_every_process():
    script = (
        "import sys\nsys.path.insert(0, sys.argv[1])\nfrom test_metric_names import *\n"
        "print(metric_name(Graded(a=('x', frozenset('yz')), b=frozenset('abcdef'), d=Level.KIND,"
        " e=object(), f=Config(STRICT), g=lambda e, p, trace=None: p.x in {'d', 'e'})),"
        " metric_name(closure(frozenset('abcdef'))))"
    )
    names = {
        subprocess.run(
            [sys.executable, "-c", script, str(Path(__file__).parent)],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(names) == 1


def test_parameters_of_an_optimizer_never_hold_an_address():
    class Held(LabeledFewShot):
        def __init__(self):
            super().__init__()
            self.thing = {"a": object()}

    assert "0x" not in str(Held().params())
    assert Held().params() == Held().params()


def test_a_journal_is_not_gone_on_with_after_the_metric_has_changed(tmp_path):
    def opened(metric):
        return RunJournal(
            tmp_path / "journal", header_of(BootstrapFewShot(metric), otpy.Predict("question -> answer"), None, "data")
        )

    opened(Graded(strict=True)).close()
    opened(Graded(strict=True)).close()
    with pytest.raises(TeleprompterError, match=r"metric: 'Graded\(strict=True\)' there, 'Graded\(strict=False\)' now"):
        opened(Graded(strict=False))

"""Scores and latencies become a picture, or it is said why not."""

import builtins
import re
import struct
import subprocess
import sys
import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest

import otpy
from otpy.errors import ConfigError, EvaluationError
from otpy.evaluate import EvaluationResult, Failed, Scored
from otpy.evaluate.plot import _figure, _named, plot


def result(*scores, metric="exact_match('answer')", seconds=(0.5,)):
    """`None` is a row that failed."""
    example = otpy.Example(q="q")
    rows = [
        Failed(n, example, "timeout", "task", 9.0)
        if score is None
        else Scored(n, example, otpy.Prediction(a="a"), score, seconds[n % len(seconds)])
        for n, score in enumerate(scores)
    ]
    return EvaluationResult(tuple(rows), 1.0, metric=metric, total=len(rows))


SMOOTH = [n / 100 for n in range(101)]
CASES = {
    "right or wrong": result(1, 0, 1, None),
    "all the same": result(1, 1),
    "all failed": result(None, None),
    "all failed and left out": replace(result(None), on_failure="exclude"),
    "one row": result(0.3),
    "in no time": result(0, 1, seconds=(0.0,)),
    "smooth": result(*SMOOTH, None),
    "beyond one": result(*(-5 + 10 * value for value in SMOOTH), seconds=(0.01, 1.0)),
    "several": [result(1, 0), result(1, None), result(0)],
    "several, by name, smooth": {"before": result(*SMOOTH, None), "after <b>": result(*SMOOTH[50:])},
    "eight": [result(*SMOOTH)] * 8,
}


@pytest.mark.parametrize("results", CASES.values(), ids=CASES)
def test_any_result_becomes_a_picture_and_a_page(tmp_path, results):
    plot(results, tmp_path / "picture.png")
    picture = (tmp_path / "picture.png").read_bytes()
    width, height = struct.unpack(">II", picture[16:24])
    assert picture.startswith(b"\x89PNG")
    assert (width, height > 600) == (1_650, True)
    plot(results, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert ET.fromstring(page[page.index("<svg") : page.index("</svg>") + 6]).tag.endswith("svg")
    assert "<b>" not in page
    assert not re.search(r"""(?:src|href)=["'](?!#)|@import|<script""", page)


def drawn(results):
    """The two charts of a picture."""
    return _figure(_named(results)).axes


def texts(axes):
    return [text.get_text() for text in axes.get_legend().get_texts()]


def test_few_scores_have_a_bar_each_and_failed_rows_their_own():
    scores, _ = drawn({"before": result(1, 0, 0, None), "after": result(1, 1)})
    assert [label.get_text() for label in scores.get_xticklabels()] == ["0", "1", "failed"]
    assert [bar.get_height() for bar in scores.patches] == [50, 25, 25, 0, 100]
    assert [label.get_text() for label in scores.texts] == ["2", "1", "1", "0", "2"]
    before, after = texts(scores)
    assert re.fullmatch(r"before: mean 0\.25 \(95 %: 0\.\d+ to 0\.\d+\) of 4 rows", before)
    assert after.startswith("after: mean 1 ")
    assert (scores.get_xlabel(), scores.get_ylabel()) == ("score by exact_match('answer')", "rows [%]")


def test_many_scores_are_counted_by_ranges_that_hold_each_row_once():
    for values in (SMOOTH, [5 - 7 * value for value in SMOOTH]):
        scores, _ = drawn(result(*values, *[None] * 25))
        (stairs,) = [patch for patch in scores.patches if hasattr(patch, "get_data")]
        assert sum(stairs.get_data().values) == pytest.approx(100 * len(values) / (len(values) + 25))
        (bar,) = [patch for patch in scores.patches if not hasattr(patch, "get_data")]
        assert bar.get_height() == pytest.approx(100 * 25 / (len(values) + 25))


def test_latencies_say_their_percentiles_with_units():
    _, latencies = drawn(result(*[1] * 100, seconds=[n / 100 for n in range(1, 101)]))
    assert texts(latencies) == ["p50 505 ms, p90 901 ms, p99 990 ms"]
    assert latencies.get_xlabel() == "seconds a row took"
    assert latencies.get_xscale() == "linear"
    (curve,) = [line for line in latencies.get_lines() if line.get_label().startswith("p50")]
    assert list(curve.get_ydata())[::50] == [0, 50, 100]
    _, wide = drawn(result(*[1] * 100, seconds=[n / 100 for n in range(1, 100)] + [60.0]))
    assert (wide.get_xscale(), texts(wide)) == ("log", ["p50 505 ms, p90 901 ms, p99 1.58 s"])


def test_a_million_rows_are_no_million_points():
    _, latencies = drawn(result(*[1] * 20_000, seconds=[n / 1_000 for n in range(20_000)]))
    assert len(latencies.get_lines()[0].get_xdata()) <= 2_001


def test_pictures_of_others_stay_as_they_are(tmp_path):
    code = (
        "import sys, matplotlib; matplotlib.rcParams['axes.facecolor'] = 'black'; before = matplotlib.rcParams.copy()\n"
        "from otpy.evaluate import EvaluationResult, Scored; from otpy.evaluate.plot import plot\n"
        "from otpy.signatures import Example, Prediction\n"
        "plot(EvaluationResult((Scored(0, Example(q=1), Prediction(a=1), 1.0, 0.5),), 1.0), sys.argv[1])\n"
        "assert 'matplotlib.pyplot' not in sys.modules and matplotlib.rcParams.copy() == before\n"
    )
    command = [sys.executable, "-W", "error", "-c", code, tmp_path / "picture.png"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 0, ran.stderr


@pytest.mark.parametrize(
    ("results", "path", "message"),
    [
        (result(1), "picture.jpg", r"unknown kind of picture '\.jpg'; known: \.png, \.html"),
        (result(), "picture.png", "a result without rows; there is nothing to draw"),
        ({"before": result()}, "picture.png", "before: a result without rows"),
        ([], "picture.png", "0 results in a picture; allowed: 1 to 8"),
        ([result(1)] * 9, "picture.png", "9 results in a picture"),
        (result(1), "absent/picture.png", "cannot be written: No such file"),
    ],
)
def test_what_cannot_be_drawn_is_refused(tmp_path, results, path, message):
    with pytest.raises(EvaluationError, match=message):
        plot(results, tmp_path / path)
    assert list(tmp_path.iterdir()) == []


def test_without_matplotlib_the_message_says_how_to_install_it(tmp_path, monkeypatch):
    real = builtins.__import__

    def without(name, *arguments):
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *arguments)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ConfigError, match=r"pip install 'otpy-framework\[plot\]'"):
        plot(result(1), tmp_path / "picture.png")

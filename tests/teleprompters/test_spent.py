"""What a run has cost is told as far as it is known: an unknown price is never 0, a known one of 0 is."""

import asyncio
import json
from decimal import Decimal

import pytest

import otpy
from otpy.cli.improving import outcome_facts
from otpy.cli.runs import list_runs, show_run
from otpy.cli.screen import Screen
from otpy.teleprompters.display import in_words
from otpy.teleprompters.run_view import RunView
from otpy.teleprompters.spent import Spent, parts_in_all
from otpy.testing import LoopbackLM
from tests.teleprompters.planted import METRIC, STUDENT, TRAIN, VAL, needs

SCRIPT = needs("plum")
KNOWN, FREE = {"input_price": 1, "output_price": 1}, {"input_price": 0, "output_price": 0}


def search():
    return otpy.BootstrapFewShotWithRandomSearch(METRIC, max_labeled_demos=0, num_candidate_programs=1)


def ran(path, *prices, **options):
    """A run whose teacher is of the second client, each with its own prices."""

    async def main():
        with LoopbackLM(SCRIPT) as server:
            names = "default", "other"
            given = zip(names, prices * 2, strict=False)
            clients = {
                name: {"model": "openai/x", "base_url": server.url, "api_key": "none", **price} for name, price in given
            }
            async with otpy.start(settings={"clients": clients, "cache": {"enabled": False}}):
                teacher = STUDENT.with_client("other")
                run = search().start(STUDENT, teacher=teacher, trainset=TRAIN, valset=VAL, journal=path, **options)
                return await run.result(), run.status()

    return asyncio.run(main())


def shown(path, capsys):
    """What `otpy runs show` prints, in words and as data."""
    show_run(Screen(as_json=False), str(path))
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("spent:"))
    show_run(Screen(as_json=True), str(path))
    one = json.loads(capsys.readouterr().out)["spent"]
    list_runs(Screen(as_json=True), [path])
    assert json.loads(capsys.readouterr().out)["runs"][0]["spent"] == one
    return line, one


@pytest.mark.parametrize(
    ("prices", "words", "known_and_least"),
    [
        (({},), "price unknown", (False, True)),
        ((KNOWN, {}), "at least $", (True, True)),
        ((KNOWN,), ", $", (True, False)),
        ((FREE,), None, (True, False)),
    ],
)
def test_money_is_told_as_far_as_it_is_known(tmp_path, capsys, prices, words, known_and_least):
    known, least = known_and_least
    outcome, status = ran(tmp_path / "x.run", *prices)
    assert (outcome.money is not None, outcome.money_is_lower_bound) == (known, least)
    assert outcome.money == (0 if prices == (FREE,) else outcome.money)
    assert (status.money, status.money_is_lower_bound) == (outcome.money, least)
    line, facts = shown(tmp_path / "x.run", capsys)
    for text in (in_words(status), line):
        assert words in text if words else "$" not in text and "price" not in text
    assert ("some prices are not known" in line) == (known and least)
    money = None if outcome.money is None else float(outcome.money)
    assert (facts["money"], facts["money_is_lower_bound"]) == (money, least)
    told = outcome_facts(outcome)
    assert (told["money"], told["money_is_lower_bound"]) == (money, least)
    outcome.save(tmp_path / "outcome.json")
    back = otpy.load_outcome(tmp_path / "outcome.json")
    assert (back.money, back.money_is_lower_bound) == (outcome.money, least)


def test_parts_with_known_and_unknown_prices_are_told_as_one(tmp_path):
    first, _ = ran(tmp_path / "x.run", KNOWN, max_requests=10)
    assert (first.stopped, first.money_is_lower_bound) == ("budget", False)
    second, _ = ran(tmp_path / "x.run", {})
    assert second.money == first.money > 0
    assert second.money_is_lower_bound
    assert RunView(tmp_path / "x.run").spent.money_is_lower_bound


def test_what_an_older_journal_says_of_money_is_the_least():
    assert parts_in_all([[10, 500, "0.2", 0]]) == Spent(10, 500, Decimal("0.2"), 10)
    assert parts_in_all([[10, 500, "0", 0]]).dollars is None


def test_what_was_in_flight_at_a_kill_before_any_answer_has_no_known_price():
    assert parts_in_all([[0, 0, "0", 3, 0]]) == Spent(3, 0, Decimal(0), 3)
    assert parts_in_all([[4, 0, "0.4", 2, 0]]) == Spent(6, 0, Decimal("0.6"), 0)

"""The ledger: sums by whatever label, in bounded memory, and a process whose crash loses none of them."""

import asyncio
import gc
import json
from dataclasses import fields
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otpy.actors import Names, names_context, whereis
from otpy.clients.book import Book, Sums
from otpy.clients.budget import Cap, Estimate
from otpy.clients.labels import Labels, current_labels, labels
from otpy.clients.ledger import (
    Admit,
    CloseRun,
    GetCaps,
    GetSums,
    Ledger,
    OpenRun,
    Release,
    Settle,
)
from otpy.errors import BudgetExceeded, ConfigError
from otpy.lm import Usage
from otpy.supervisors import Supervisor, TaskSupervisor
from otpy.telemetry import bus
from otpy.testing import run_in_virtual_time

USAGE = Usage(100, 20, 30, 5, 1, 10)
some = st.none() | st.sampled_from(("a", "b"))
all_labels = st.builds(Labels, some, some, some, some, some, some)
entries = st.lists(
    st.tuples(
        all_labels,
        st.none() | st.builds(Usage, *[st.integers(0, 1_000)] * 4, st.just(1), st.integers(0, 1_000)),
        st.none() | st.decimals(0, 10, places=6),
        st.booleans(),
    ),
    max_size=60,
)


def summed(entries, wanted=lambda labels: True):
    sums = Sums()
    for whose, usage, money, failed in entries:
        if wanted(whose):
            sums.enter(usage, money, failed=failed)
    return sums


# -- sums -------------------------------------------------------------------------------------------------------------


@given(
    entries, st.sets(st.sampled_from(Labels._fields[:-1])), st.dictionaries(st.sampled_from(Labels._fields[:-1]), some)
)
def test_sums_by_any_labels_are_those_of_the_requests_with_them(entries, names, said):
    book = Book()
    for entry in entries:
        book.enter(*entry)
    found = book.by(*names, **said)
    assert book.total() == summed(entries)

    def group(labels):
        return Labels(**{name: getattr(labels, name) for name in names})

    inside = [entry for entry in entries if all(getattr(entry[0], name) == value for name, value in said.items())]
    assert found == {
        group(labels): summed(inside, lambda other, labels=labels: group(other) == group(labels))
        for labels, *_ in inside
    }


@given(entries, st.integers(1, 8))
def test_however_few_sums_are_kept_totals_and_those_of_clients_stay_whole(entries, size):
    book = Book(max_entries=size)
    for entry in entries:
        book.enter(*entry)
    assert book.total() == summed(entries)
    for client in (None, "a", "b"):
        assert book.total(client=client) == summed(entries, lambda labels, client=client: labels.client == client)
    assert len(book._entries) <= 2 * max(size, 4)


def test_twenty_thousand_runs_are_kept_in_bounded_memory_and_the_latest_in_detail():
    book = Book(max_entries=100)
    for number in range(20_000):
        book.enter(Labels("c", "m", str(number), "p", "q", str(number)), USAGE, Decimal("0.01"), failed=False)
    assert len(book._entries) <= 101
    assert book.total().requests == 20_000
    assert book.total(model="m").money == 200
    assert book.total(run="19999").requests == 1


def test_an_unknown_price_makes_money_a_lower_bound_that_says_so():
    book = Book()
    book.enter(Labels("c"), USAGE, Decimal("0.1234"), failed=False)
    assert not book.total().money_is_lower_bound
    assert "; $0.1234" not in str(Sums())
    assert str(book.total()).endswith("20 written; $0.1234")
    book.enter(Labels("c"), USAGE, None, failed=False)
    total = book.total()
    assert (total.money, total.unpriced, total.money_is_lower_bound) == (Decimal("0.1234"), 1, True)
    assert str(total).endswith("at least $0.1234 (1 without a known price)")


def test_a_request_that_nobody_could_measure_makes_tokens_a_lower_bound():
    book = Book()
    book.admit(Estimate(50), Labels()).settle(None, failed=True)
    total = book.total()
    assert (total.requests, total.failed, total.unmeasured, total.tokens_are_lower_bound) == (1, 1, 1, True)
    assert "nobody knows what they took" in str(total)


def test_sums_are_copies():
    book = Book()
    book.enter(Labels(), USAGE, Decimal(1), failed=False)
    book.total().add(Sums(requests=5))
    assert book.total().requests == 1
    assert book.total().usage == USAGE


def test_an_unknown_label_is_refused():
    with pytest.raises(ValueError, match="example: no label to group by; there are client"):
        Book().by("example")
    with pytest.raises(ValueError, match="runs"):
        Book().total(runs="r")


# -- runs -------------------------------------------------------------------------------------------------------------


def test_examples_are_kept_apart_while_their_run_is_open_and_folded_when_it_is_closed():
    book = Book(max_examples=2)
    book.open_run("r")
    for example, run in (("1", "r"), ("2", "r"), ("1", "r"), ("3", "r"), ("1", "other")):
        book.admit(Estimate(), Labels("c", run=run, example=example)).settle(USAGE, Decimal(1))
    assert {example: sums.requests for example, sums in book.examples("r").items()} == {"1": 2, "2": 1}
    assert book.examples("other") == {}
    assert book.close_run("r").requests == 4
    assert book.examples("r") == {}
    assert book.total(run="r").money == 4


def test_the_caps_of_a_run_hold_for_it_alone_and_end_with_it():
    book = Book([Cap("requests", 100)])
    book.open_run("r", [Cap("requests", 1), Cap("requests", 5, Labels("slow"))])
    held = book.admit(Estimate(), Labels("c", run="r"))
    with pytest.raises(BudgetExceeded, match="run 'r'"):
        book.admit(Estimate(), Labels("c", run="r"))
    book.admit(Estimate(), Labels("c", run="s")).release()
    book.close_run("r")
    assert held.settle(USAGE, Decimal(1))  # late, and counted all the same
    book.admit(Estimate(), Labels("c", run="r")).release()
    assert [state.cap.limit for state in book.budget.states()] == [100]
    assert book.total(run="r").requests == 1


# -- a snapshot -------------------------------------------------------------------------------------------------------


@given(entries, entries)
def test_a_book_goes_on_from_its_snapshot_as_if_nothing_had_happened(before, after):
    book = Book([Cap("money", 10_000), Cap("tokens", 10**9, Labels(run="a"))])
    book.open_run("a")
    for entry in before:
        book.enter(*entry)
    again = Book.restored(json.loads(json.dumps(book.snapshot())))
    for entry in after:
        book.enter(*entry)
        again.enter(*entry)
    assert again.snapshot() == book.snapshot()
    assert again.total() == summed(before + after)


def test_a_snapshot_counts_what_is_in_flight_as_spent():
    book = Book([Cap("tokens", 100)])
    book.admit(Estimate(60), Labels()).settle(Usage(10, 0))
    held = book.admit(Estimate(90), Labels())
    again = Book.restored(book.snapshot())
    assert [(state.spent, state.reserved) for state in again.budget.states()] == [(100, 0)]
    assert held.open


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"schema": 2},
        {"schema": 1},
        {"schema": 1, "entries": [1], "examples": {}, "caps": []},
        {
            "schema": 1,
            "entries": [],
            "examples": {},
            "caps": [{"kind": "tokens", "limit": "x", "where": [], "allow_unpriced": False, "spent": "0"}],
        },
    ],
)
def test_what_is_no_snapshot_is_refused(data):
    with pytest.raises(ConfigError, match="snapshot"):
        Book.restored(data)


# -- the process ------------------------------------------------------------------------------------------------------


def supervised(main, book):
    """Run `main(ledger)` next to a supervised ledger, in virtual time."""

    async def run():
        token = names_context.set(Names())
        try:
            spec = [
                Ledger.child_spec(book, id="ledger", name="ledger"),
                TaskSupervisor.child_spec(id="tasks", name="tasks"),
            ]
            top = await Supervisor.start(spec)
            try:
                return await main(whereis("ledger"))
            finally:
                await top.stop()
        finally:
            names_context.reset(token)

    return run_in_virtual_time(run())


def test_the_process_admits_settles_and_answers():
    async def main(ledger):
        await ledger.call(OpenRun("r", (Cap("tokens", 200),)))
        first = await ledger.call(Admit(Estimate(120), Labels("c", run="r")))
        second = await ledger.call(Admit(Estimate(80), Labels("c", run="r")))
        with pytest.raises(BudgetExceeded, match="200 tokens on run 'r'"):
            await ledger.call(Admit(Estimate(1), Labels("c", run="r")))
        ledger.cast(Settle(first, USAGE, Decimal("0.5")))
        ledger.cast(Settle(first, USAGE, Decimal("0.5")))
        ledger.cast(Release(second))
        (state,) = await ledger.call(GetCaps())
        assert (state.spent, state.reserved, state.refused) == (120, 0, 1)
        sums = await ledger.call(GetSums(("client",), (("run", "r"),)))
        assert {labels.client: sums.requests for labels, sums in sums.items()} == {"c": 1}
        closed = await ledger.call(CloseRun("r"))
        assert (closed.answered, closed.money) == (1, Decimal("0.5"))
        assert ledger.is_alive()

    supervised(main, Book())


def test_a_ledger_that_is_killed_comes_back_with_every_sum_and_every_reservation():
    async def main(ledger):
        settled = await ledger.call(Admit(Estimate(100), Labels()))
        ledger.cast(Settle(settled, USAGE))
        flying = await ledger.call(Admit(Estimate(70), Labels()))
        ledger.exit("kill")
        while (ledger := whereis("ledger")) is None or not ledger.is_alive():
            await asyncio.sleep(0.01)
        (state,) = await ledger.call(GetCaps())
        assert (state.spent, state.reserved) == (120, 70)
        ledger.cast(Settle(flying, Usage(7, 0)))
        (state,) = await ledger.call(GetCaps())
        assert (state.spent, state.reserved) == (127, 0)

    seen = []
    with bus.attached("test", lambda event, fields: seen.append(event), "otpy.ledger."):
        supervised(main, Book([Cap("tokens", 1_000)]))
    assert seen == ["otpy.ledger.restart"]


def test_word_that_a_dying_ledger_did_not_hear_is_counted_as_spent_and_reported():
    async def main(ledger):
        flying = await ledger.call(Admit(Estimate(70), Labels(run="r")))
        ledger.exit("kill")
        ledger.cast(Settle(flying, Usage(7, 0)))  # into the mailbox of the dead
        del flying
        while (ledger := whereis("ledger")) is None or not ledger.is_alive():
            await asyncio.sleep(0.01)
        gc.collect()
        (state,) = await ledger.call(GetCaps())
        assert (state.spent, state.reserved) == (70, 0)
        (sums,) = (await ledger.call(GetSums())).values()
        assert (sums.requests, sums.unmeasured) == (1, 1)

    seen = []
    with bus.attached("test", lambda event, fields: seen.append((event, fields)), "otpy.ledger."):
        supervised(main, Book([Cap("tokens", 1_000)]))
    assert ("otpy.ledger.lost", {"requests": 1}) in seen


def test_supervised_processes_inherit_the_labels_of_whoever_starts_them():
    async def said():
        await asyncio.sleep(1)
        return current_labels()

    async def main(ledger):
        tasks = whereis("tasks")
        with labels(run="r"):
            started = []
            for number in range(3):
                with labels(example=number):
                    started.append(tasks.async_nolink(said))
        return [await task for task in started]

    assert supervised(main, Book()) == [Labels(run="r", example=str(number)) for number in range(3)]


def test_every_field_of_sums_is_summed():
    one = Sums(**{field.name: 1 for field in fields(Sums)})
    one.add(one)
    assert one == Sums(**{field.name: 2 for field in fields(Sums)})

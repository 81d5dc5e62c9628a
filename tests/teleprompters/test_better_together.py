"""BetterTogether is a chain of optimizers in one run: one journal, one budget, and the best of all steps."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

import otpy
from otpy.errors import TeleprompterError
from otpy.teleprompters import Teleprompter
from otpy.teleprompters.better_together import BetterTogether, steps_of
from otpy.teleprompters.outcome import outcome_of
from otpy.teleprompters.random_search import BootstrapFewShotWithRandomSearch
from tests.teleprompters.planted import METRIC, SEEDS, TRAIN, VAL, compiled, needs, resumed

SCRIPT = needs("plum")


class Instructed(Teleprompter[otpy.Predict]):
    """Sets an instruction."""

    def __init__(self, text):
        self.text = text

    def requests(self, rows, val, predictors):
        return 0, 0

    async def search(self, lab, student, trainset, valset, teacher):
        assert valset == []
        assert teacher is None
        return student.with_instructions(self.text)


def searching(seed=0, metric=METRIC, **arguments):
    given = {"max_bootstrapped_demos": 4, "max_labeled_demos": 0, "max_concurrency": 4, **arguments}
    return BootstrapFewShotWithRandomSearch(metric, num_candidate_programs=32, seed=seed, **given)


def both(body):
    """Right about everything if the instruction is the planted one and the demo that helps is shown."""
    if "Sort well." in body["messages"][0]["content"]:
        return SCRIPT(body)
    return needs("no such word")(body)


def chain(seed=0, strategy="w -> p", **optimizers):
    return BetterTogether(
        METRIC,
        strategy=strategy,
        seed=seed,
        max_concurrency=4,
        **{"p": searching(seed), "w": Instructed("Sort well."), **optimizers},
    )


@pytest.mark.parametrize("seed", SEEDS)
def test_two_steps_find_what_none_finds_alone(seed):
    program, server = compiled(chain(seed), both)
    outcome = outcome_of(program)
    assert outcome.score == 1.0
    assert len(server.requests) <= 36 * len(VAL) + 2 * len(TRAIN)
    assert outcome_of(compiled(searching(seed), both)[0]).score < 1.0


def test_the_best_of_all_steps_wins_and_not_the_last():
    program, _ = compiled(chain(strategy="w -> p -> x", x=Instructed("Sort badly.")), both)
    outcome = outcome_of(program)
    assert outcome.score == 1.0
    names = [one.name for one in outcome.candidates]
    assert [name for name in names if ":" not in name] == ["student", "step 1 w", "step 2 p", "step 3 x"]
    assert "step 2 p: random 3" in names
    assert outcome.candidates[-1].score < 1.0


def test_what_a_step_measures_by_another_metric_is_no_candidate():
    def other(example, prediction, trace=None):
        return METRIC(example, prediction) and 5.0

    program, _ = compiled(chain(p=searching(metric=other)), both)
    outcome = outcome_of(program)
    assert outcome.score == 1.0
    assert [one.name for one in outcome.candidates] == ["student", "step 1 w", "step 2 p"]


def test_the_result_does_not_depend_on_how_many_are_under_way():
    def build(width):
        return compiled(chain(3, p=searching(3, max_concurrency=width)), both)[0]

    assert build(1).content_hash() == build(32).content_hash()


@pytest.mark.parametrize("after", [1, 3, 15])
def test_a_run_that_was_cut_goes_on_to_the_identical_program(tmp_path, after):
    whole, again, sent = resumed(lambda: chain(1), both, tmp_path / "run", after)
    assert again.content_hash() == whole.content_hash()
    assert set(sent.values()) == {1}


def test_a_budget_in_the_middle_of_a_step_returns_the_best_so_far():
    program, server = compiled(chain(), both, max_requests=100)
    outcome = outcome_of(program)
    assert len(server.requests) <= 100
    assert outcome.stopped == "budget"
    assert outcome.score == max(one.score for one in outcome.candidates) == 1.0


def test_a_step_that_fails_ends_the_run_with_its_error():
    with pytest.raises(TeleprompterError, match="no example of 14 satisfied"):
        compiled(chain(p=searching(metric_threshold=2.0)), both)


def test_the_journal_is_of_the_same_steps_only(tmp_path):
    compiled(chain(), both, journal=tmp_path / "run")
    with pytest.raises(TeleprompterError, match="is the journal of something else"):
        compiled(chain(p=searching(seed=9)), both, journal=tmp_path / "run")


@given(st.lists(st.sampled_from(["p", "w", "x1"]), min_size=1))
def test_a_strategy_is_its_names_in_order(names):
    assert steps_of(" -> ".join(names), {"p", "w", "x1"}) == steps_of("->".join(names), {"p", "w", "x1"}) == names


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: BetterTogether(METRIC, p=searching()), "there is no optimizer 'w'; the optimizers that were given: p"),
        (lambda: BetterTogether(METRIC, strategy=""), "there is no optimizer ''; the optimizers that were given: none"),
        (lambda: BetterTogether(METRIC, strategy=7), "strategy=7: it is a text"),
        (lambda: BetterTogether(METRIC, strategy="p", p="MIPROv2"), "p='MIPROv2'; allowed: an optimizer"),
        (lambda: BetterTogether(METRIC, strategy="p", p=searching(), seed=-1), "seed=-1"),
    ],
)
def test_what_cannot_be_is_refused_by_name(make, message):
    with pytest.raises(TeleprompterError, match=message):
        make()
